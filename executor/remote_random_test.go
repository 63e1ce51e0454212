package executor

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// quiet is how a run ends when no machine is lost.
func quiet(t *testing.T, seed uint64, yaml string, tasks map[string]int) string {
	t.Helper()
	fate := fateOf(seed)
	m := newSim(t, bind(t, yaml), tasks, nil)
	m.run = func(fn string, _ cloud.Range, i int) task.Outcome {
		return fate(fn, ownFailures(m.s.byName[fn], i), i)
	}
	m.begin()
	m.finish()
	return tasksOf(m.s)
}

// A run on machines is cancelled and goes on, also with machines that never heard
// of the cancel: it ends as if it had not been cancelled, and every reader of the
// journal sees that.
func TestCancelAndRetryOnMachines(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 12))
		yaml, tasks := randomYAML(rng, 6+20*rng.IntN(2), 60000, 60000)
		if strings.Contains(yaml, "on_failure") {
			continue // what ran before the stop would be another
		}
		want := quiet(t, seed, yaml, tasks)
		k := newCluster(t, rng, yaml)
		k.fate = fateOf(seed)
		k.start(Begin{})
		for cancels := 1 + rng.IntN(3); ; cancels-- {
			at := rng.IntN(120)
			for steps := 0; k.one(); steps++ {
				if cancels > 0 && steps == at {
					k.cancel()
				}
				if steps > 100000 {
					t.Fatalf("seed %d: the run does not end\n%s%s", seed, tasksOf(k.c.state), yaml)
				}
			}
			shown := tasksOf(k.c.state)
			v, err := OpenView(context.Background(), k.store, "r1")
			if err != nil {
				t.Fatal(err)
			}
			if got := tasksOf(v.state); got != shown {
				t.Fatalf("seed %d: folded again:\n%swas:\n%s", seed, got, shown)
			}
			if k.c.state.status != RunCancelled {
				break
			}
			k.start(Begin{Retry: true})
		}
		if got := tasksOf(k.c.state); got != want {
			t.Fatalf("seed %d:\ncancelled:\n%sundisturbed:\n%s%s", seed, got, want, yaml)
		}
		_ = k.c.journal.Close()
	}
}

// Machines are lost, go on as zombies, leave, report late and twice; messages
// come twice; the coordinator dies at any step, also in the middle of an append:
// the run ends as if nothing of that had happened. (That nothing starts after its
// success was recorded, nor in two places, is checked when a task starts.)
func TestMachinesAndCrashesChangeNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 11))
		yaml, tasks := randomYAML(rng, 6+30*rng.IntN(2), 60000, 60000)
		want := quiet(t, seed, yaml, tasks)
		k := newCluster(t, rng, yaml)
		k.fate = fateOf(seed)
		k.start(Begin{})
		for steps := 0; k.one(); steps++ {
			if steps > 100000 {
				t.Fatalf("seed %d: the run does not end\n%s%s", seed, tasksOf(k.c.state), yaml)
			}
		}
		if got := tasksOf(k.c.state); got != want {
			t.Fatalf("seed %d:\nwith machines:\n%sundisturbed:\n%s%s", seed, got, want, yaml)
		}
		v, err := OpenView(context.Background(), k.store, "r1")
		if err != nil {
			t.Fatal(err)
		}
		if got := tasksOf(v.state); got != want {
			t.Fatalf("seed %d: folded again:\n%swas:\n%s", seed, got, want)
		}
		for _, f := range v.state.order {
			for i, st := range f.table.status {
				if want := f.spec.Name + "/" + itoa(i); st == task.Succeeded {
					res, err := v.Result(context.Background(), f.spec.Name, i)
					if err != nil || string(res) != `"`+want+`"` {
						t.Fatalf("seed %d: result of %s: %s, %v", seed, want, res, err)
					}
				}
			}
		}
		_ = k.c.journal.Close()
	}
}
