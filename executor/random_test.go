package executor

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// randomPipeline makes a pipeline of functions with random shapes and needs.
func randomPipeline(t *testing.T, rng *rand.Rand) (*spec.Pipeline, map[string]int) {
	yaml, tasks := randomYAML(rng, 6, 2, 0)
	return bind(t, yaml), tasks
}

// randomYAML is its text; maps have less than most tasks; machine and machineStop are how many lost machines a
// task may have, the latter with on_failure: stop.
func randomYAML(rng *rand.Rand, most, machine, machineStop int) (string, map[string]int) {
	var b strings.Builder
	b.WriteString("name: p\nfunctions:\n")
	tasks := map[string]int{}
	mapped := []string{}
	n := 1 + rng.IntN(7)
	for i := range n {
		name := fmt.Sprintf("f%d", i)
		fmt.Fprintf(&b, "  %s:\n    command: [x]\n", name)
		if rng.IntN(3) == 0 {
			fmt.Fprintf(&b, "    max_failures: %d\n", rng.IntN(3))
		}
		stop := rng.IntN(5) == 0
		var needs []string
		for j := range i {
			if rng.IntN(3) == 0 {
				needs = append(needs, fmt.Sprintf("f%d", j))
			}
		}
		switch kind := rng.IntN(3); {
		case kind == 0 && len(mapped) > 0:
			from := mapped[rng.IntN(len(mapped))]
			fmt.Fprintf(&b, "    map: {from: %s}\n", from)
			if rng.IntN(3) == 0 {
				b.WriteString("    env: {N: '${{ count }}'}\n") // waits for all of it
			}
			tasks[name] = tasks[from]
			mapped = append(mapped, name)
			needs = nil
			stop = false // what runs before the stop depends on what comes first
		case kind == 1:
			tasks[name] = rng.IntN(most)
			fmt.Fprintf(&b, "    map: {range: %d}\n", tasks[name])
			mapped = append(mapped, name)
		}
		if stop {
			// One at a time and no second attempts: what runs before the stop is determined.
			b.WriteString("    on_failure: stop\n    concurrency: 1\n")
			fmt.Fprintf(&b, "    retries: {machine: %d}\n", machineStop)
		} else {
			fmt.Fprintf(&b, "    retries: {max: %d, machine: %d, delay: 1s}\n", rng.IntN(3), machine)
		}
		if len(needs) > 0 {
			fmt.Fprintf(&b, "    needs: [%s]\n", strings.Join(needs, ", "))
		}
	}
	return b.String(), tasks
}

// fate makes attempts end in a way that depends on nothing but their name.
func fate(seed uint64) func(string, cloud.Range, int) task.Outcome {
	return func(fn string, r cloud.Range, i int) task.Outcome {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d/%s/%d/%d", seed, fn, i, r.Attempt)
		switch h.Sum64() % 10 {
		case 0, 1:
			return failed(task.CauseExit)
		case 2:
			return failed(task.CauseMachine)
		}
		return task.Outcome{Status: task.Succeeded, Result: []byte(fn)}
	}
}

// tasksOf is the final status of every task.
func tasksOf(s *State) string {
	var b strings.Builder
	for _, f := range s.order {
		fmt.Fprintf(&b, "%s %s:", f.spec.Name, f.status)
		for _, st := range f.table.status {
			fmt.Fprintf(&b, " %s", st)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Whatever the order in which things happen, and however often the
// coordinator dies, a run ends with the same statuses, no success runs again,
// and the counts add up after every event.
func TestCrashesChangeNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p, tasks := randomPipeline(t, rng)
		quiet := newSim(t, p, tasks, fate(seed))
		quiet.begin()
		quiet.finish()
		want := tasksOf(quiet.s)

		m := newSim(t, p, tasks, fate(seed))
		m.rng = rng
		m.slots = 1 + rng.IntN(4)
		m.begin()
		for steps := 0; m.one(); steps++ {
			m.check()
			if rng.IntN(6) == 0 {
				m.restart()
				m.begin()
				m.check()
			}
			if steps > 20000 {
				t.Fatalf("seed %d: the run does not end", seed)
			}
		}
		if got := tasksOf(m.s); got != want {
			t.Fatalf("seed %d:\nwith crashes:\n%swithout:\n%s%s", seed, got, want, p.Source)
		}
		// The fold of the records is the state, byte for byte of what is shown.
		before := summaryOf(m.s.report(&Header{}, nil))
		m.restart()
		if after := summaryOf(m.s.report(&Header{}, nil)); after != before {
			t.Fatalf("seed %d: folded again: %s, was %s", seed, after, before)
		}
	}
}

// Retries and cancels in any order keep the invariants, and what succeeded
// once stays.
func TestRetryAndCancelAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		p, tasks := randomPipeline(t, rng)
		m := newSim(t, p, tasks, fate(seed))
		m.rng = rng
		m.begin()
		for round := range 6 {
			cancelAt := rng.IntN(30)
			for steps := 0; m.one(); steps++ {
				m.check()
				if steps == cancelAt && rng.IntN(2) == 0 {
					m.event(&event{Kind: evCancel, Reason: "test"})
					m.check()
				}
				if !m.over && rng.IntN(20) == 0 {
					m.restart()
					if m.s.stopping != notStopping { // in the middle of a cancel
						m.begin(&event{Kind: evReopen})
					} else {
						m.begin()
					}
					m.check()
				}
				if steps > 20000 {
					t.Fatalf("seed %d: the run does not end", seed)
				}
			}
			if !m.s.status.Final() {
				t.Fatalf("seed %d round %d: stuck\n%s%s", seed, round, tasksOf(m.s), p.Source)
			}
			if m.s.status == RunSucceeded {
				break
			}
			before := tasksOf(m.s)
			m.restart()
			if after := tasksOf(m.s); after != before {
				t.Fatalf("seed %d round %d: folded again:\n%swas:\n%s%s", seed, round, after, before, p.Source)
			}
			m.begin(&event{Kind: evRetry})
			m.check()
		}
	}
}

// Whatever failed, was skipped for it, was stopped or cancelled, and in
// whatever order it is tried again: once nothing fails any more, the run ends
// as one that was never disturbed.
func TestRetryEndsAsAnUndisturbedRun(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 5))
		yaml, tasks := randomYAML(rng, 6, 2, 0)
		last := "f" + strconv.Itoa(strings.Count(yaml, "  command: [x]")-1)
		yaml += fmt.Sprintf("  asks: {command: [x], needs: [f0, %s], if: success()}\n", last) +
			fmt.Sprintf("  later: {command: [x], needs: [%s], map: {items: '${{ needs.%[1]s.status }}'}, max_failures: %d}\n", last, rng.IntN(2)) +
			"  streams: {command: [x], map: {from: later}}\n  end: {command: [x], map: {from: streams}, needs: [asks]}\n"
		p := bind(t, yaml)
		decide := func(fn string, s *State) *event {
			switch f := s.byName[fn]; {
			case fn == "later": // its tasks are known only now
				return &event{Tasks: 3}
			case fn == "asks" && slices.ContainsFunc(f.needs, func(n *function) bool { return !n.ok() }):
				return &event{Skip: true, Tasks: 1}
			}
			return nil
		}
		// where: leaves out some tasks behind from:, always the same.
		healthy := func(fn string, _ cloud.Range, i int) task.Outcome {
			if f := p.Function(fn); f.Map != nil && f.Map.From != "" && (int(seed)+i)%4 == 0 {
				return task.Outcome{Status: task.Skipped}
			}
			return task.Outcome{Status: task.Succeeded}
		}
		quiet := newSim(t, p, tasks, healthy)
		quiet.decide = decide
		quiet.begin()
		quiet.finish()

		m := newSim(t, p, tasks, nil)
		m.rng, m.decide = rng, decide
		again := []*event(nil)
		for round := range 6 {
			m.run = func(fn string, r cloud.Range, i int) task.Outcome {
				if oc := fate(seed+uint64(round))(fn, r, i); oc.Status == task.Failed && round < 5 {
					return oc
				}
				return healthy(fn, r, i)
			}
			m.begin(again...)
			stopAt := rng.IntN(30)
			for steps := 0; m.one(); steps++ {
				m.check()
				if steps == stopAt && round < 5 && rng.IntN(2) == 0 {
					m.event(&event{Kind: []eventKind{evCancel, evLimit}[rng.IntN(2)], Reason: "test"})
					m.check()
				}
			}
			if !m.s.status.Final() {
				t.Fatalf("seed %d round %d: stuck\n%s%s", seed, round, tasksOf(m.s), p.Source)
			}
			m.restart()
			again = []*event{{Kind: evRetry}}
			if round < 4 {
				again = []*event{{Kind: []eventKind{evRetry, evReopen}[rng.IntN(2)], Cause: []string{"", "exit", "machine"}[rng.IntN(3)]}}
			}
		}
		if got, want := tasksOf(m.s), tasksOf(quiet.s); got != want {
			t.Fatalf("seed %d: after failures and retries:\n%sundisturbed:\n%s%s", seed, got, want, p.Source)
		}
	}
}

// What is running when on_failure: stop takes effect ends as it ends, and
// every reader of the records sees the same.
func TestStopAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		p := bind(t, fmt.Sprintf(`
name: p
functions:
  a: {command: [x], map: {range: 9}, on_failure: stop, retries: %d, max_failures: %d}
  b: {command: [x], map: {from: a}, on_failure: stop}
  c: {command: [x], needs: b, if: "${{ failure() }}"}`, rng.IntN(2), rng.IntN(2)))
		m := newSim(t, p, map[string]int{"a": 9, "b": 9}, fate(seed))
		m.rng = rng
		m.slots = 1 + rng.IntN(4)
		m.begin()
		for m.one() {
			m.check()
			if !m.over && rng.IntN(20) == 0 {
				m.restart()
				m.begin()
			}
		}
		if !m.over {
			t.Fatalf("seed %d: stuck\n%s", seed, tasksOf(m.s))
		}
		before := tasksOf(m.s)
		m.restart()
		if after := tasksOf(m.s); after != before {
			t.Fatalf("seed %d: folded again:\n%swas:\n%s", seed, after, before)
		}
	}
}
