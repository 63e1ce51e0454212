package executor

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// failing makes an agent for which the named tasks ("fn/index") fail always.
func failing(names ...string) func(string, cloud.Range, int) task.Outcome {
	return func(fn string, _ cloud.Range, i int) task.Outcome {
		for _, n := range names {
			if f, idx, _ := strings.Cut(n, "/"); f == fn && (idx == "*" || idx == string(rune('0'+i))) {
				return failed(task.CauseExit)
			}
		}
		return task.Outcome{Status: task.Succeeded}
	}
}

func TestRunsEndAs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		tasks      map[string]int
		run        func(string, cloud.Range, int) task.Outcome
		want       string
	}{
		{"one", `{name: p, functions: {a: {command: [x]}}}`, nil, ok,
			"succeeded; a succeeded 1/0/0/0"},
		{"map", `{name: p, functions: {a: {command: [x], map: {range: 5}}}}`, map[string]int{"a": 5}, ok,
			"succeeded; a succeeded 5/0/0/0"},
		{"empty map", `{name: p, functions: {a: {command: [x], map: {range: 0}}, b: {command: [x], needs: a}}}`, map[string]int{"a": 0}, ok,
			"succeeded; a succeeded 0/0/0/0; b succeeded 1/0/0/0"},
		{"a failure skips what needs it", `{name: p, functions: {a: {command: [x]}, b: {command: [x], needs: a}, c: {command: [x], needs: b}, d: {command: [x]}}}`,
			nil, failing("a/0"), "failed; a failed 0/1/0/0; b skipped 0/0/1/0; c skipped 0/0/1/0; d succeeded 1/0/0/0"},
		{"others of the map still run", `{name: p, functions: {a: {command: [x], map: {range: 5}}}}`, map[string]int{"a": 5}, failing("a/2"),
			"failed; a failed 4/1/0/0"},
		{"tolerated", `{name: p, functions: {a: {command: [x], map: {range: 5}, max_failures: 20%}, b: {command: [x], needs: a}}}`,
			map[string]int{"a": 5}, failing("a/2"), "succeeded; a succeeded 4/1/0/0; b succeeded 1/0/0/0"},
		{"not tolerated", `{name: p, functions: {a: {command: [x], map: {range: 5}, max_failures: 1}}}`,
			map[string]int{"a": 5}, failing("a/2", "a/3"), "failed; a failed 3/2/0/0"},
		{"stop", `{name: p, functions: {a: {command: [x], map: {range: 9}, on_failure: stop, concurrency: 1}}}`,
			map[string]int{"a": 9}, failing("a/2"), "failed; a failed 2/1/6/0"},
		{"if failure", `{name: p, functions: {a: {command: [x]}, b: {command: [x], needs: a, if: failure()}, c: {command: [x], needs: a}}}`,
			nil, failing("a/0"), "failed; a failed 0/1/0/0; b succeeded 1/0/0/0; c skipped 0/0/1/0"},
		{"from", `{name: p, functions: {a: {command: [x], map: {range: 4}}, b: {command: [x], map: {from: a}}, c: {command: [x], needs: b}}}`,
			map[string]int{"a": 4}, ok, "succeeded; a succeeded 4/0/0/0; b succeeded 4/0/0/0; c succeeded 1/0/0/0"},
		{"behind a failed item", `{name: p, functions: {a: {command: [x], map: {range: 4}}, b: {command: [x], map: {from: a}}, c: {command: [x], needs: b}}}`,
			map[string]int{"a": 4}, failing("a/1"), "failed; a failed 3/1/0/0; b skipped 3/0/1/0; c skipped 0/0/1/0"},
		{"behind a tolerated failed item", `{name: p, functions: {a: {command: [x], max_failures: 1, map: {range: 4}}, b: {command: [x], map: {from: a}}, c: {command: [x], needs: b}}}`,
			map[string]int{"a": 4}, failing("a/1"), "succeeded; a succeeded 3/1/0/0; b succeeded 3/0/1/0; c succeeded 1/0/0/0"},
		{"from of from", `{name: p, functions: {a: {command: [x], map: {range: 3}}, b: {command: [x], map: {from: a}}, c: {command: [x], map: {from: b}}}}`,
			map[string]int{"a": 3}, failing("b/1"), "failed; a succeeded 3/0/0/0; b failed 2/1/0/0; c skipped 2/0/1/0"},
		{"waits, behind a failure", `{name: p, functions: {a: {command: [x], map: {range: 4}}, b: {command: [x, "${{ count }}"], map: {from: a}}}}`,
			map[string]int{"a": 4}, failing("a/1"), "failed; a failed 3/1/0/0; b skipped 0/0/4/0"},
		{"waits, keeps the index", `{name: p, functions: {a: {command: [x], max_failures: 1, map: {range: 4}}, b: {command: [x, "${{ count }}"], map: {from: a}}, c: {command: [x], map: {from: b}}}}`,
			map[string]int{"a": 4}, failing("a/1"), "succeeded; a succeeded 3/1/0/0; b succeeded 3/0/1/0; c succeeded 3/0/1/0"},
		{"all of upstream failed", `{name: p, functions: {a: {command: [x], map: {range: 2}}, b: {command: [x], map: {from: a}}}}`,
			map[string]int{"a": 2}, failing("a/*"), "failed; a failed 0/2/0/0; b skipped 0/0/2/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newSim(t, bind(t, tt.yaml), tt.tasks, tt.run)
			m.decide = func(fn string, s *State) *event {
				f := s.byName[fn]
				if f.spec.If == nil {
					return nil
				}
				bad := slices.ContainsFunc(f.needs, func(n *function) bool { return !n.ok() })
				return &event{Tasks: 1, Skip: !bad, Reason: "if: " + f.spec.If.Source + " is false"}
			}
			m.begin()
			if got := summaryOf(m.finish()); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestRetryBudgets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		cause  task.Cause
		fails  int // attempts that fail before one succeeds
		starts int
		want   task.Status
	}{
		{"own, enough", task.CauseExit, 2, 3, task.Succeeded},
		{"own, too many", task.CauseExit, 9, 3, task.Failed},
		{"timeout is own", task.CauseTimeout, 9, 3, task.Failed},
		{"machine, enough", task.CauseMachine, 4, 5, task.Succeeded},
		{"machine, too many", task.CauseMachine, 99, 5, task.Failed},
		{"oom, enough", task.CauseOOM, 1, 2, task.Succeeded},
		{"oom, too many", task.CauseOOM, 9, 2, task.Failed},
		{"cancelled is final", task.CauseCancelled, 9, 1, task.Failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := bind(t, `{name: p, functions: {a: {command: [x], retries: {max: 2, machine: 4, oom: {max: 1}}}}}`)
			m := newSim(t, p, nil, nil)
			m.run = func(_ string, r cloud.Range, _ int) task.Outcome {
				if r.Attempt <= tt.fails {
					return failed(tt.cause)
				}
				return task.Outcome{Status: task.Succeeded}
			}
			m.begin()
			m.finish()
			f := m.s.byName["a"]
			if f.table.status[0] != tt.want || m.starts["a/0"] != tt.starts || int(f.table.attempts[0]) != tt.starts {
				t.Errorf("got %s after %d starts (%d attempts), want %s after %d", f.table.status[0], m.starts["a/0"], f.table.attempts[0], tt.want, tt.starts)
			}
			if f.retries != tt.starts-1 {
				t.Errorf("retries = %d, want %d", f.retries, tt.starts-1)
			}
		})
	}
}

// A budget of one cause must not pay for another.
func TestBudgetsAreSeparate(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], retries: {max: 1, machine: 1, oom: {max: 1, memory: 3x}}}}}`)
	causes := []task.Cause{task.CauseExit, task.CauseMachine, task.CauseOOM, task.CauseExit}
	var memory []int64
	m := newSim(t, p, nil, nil)
	m.run = func(_ string, r cloud.Range, _ int) task.Outcome {
		memory = append(memory, r.Memory)
		return failed(causes[r.Attempt-1])
	}
	m.begin()
	if got := summaryOf(m.finish()); got != "failed; a failed 0/1/0/0" {
		t.Error(got)
	}
	if want := []int64{0, 0, 0, 3 << 30}; !slices.Equal(memory, want) {
		t.Errorf("memory asked for: %v, want %v", memory, want)
	}
}

func TestNoRetryFlagIsFinal(t *testing.T) {
	t.Parallel()
	m := newSim(t, bind(t, `{name: p, functions: {a: {command: [x], retries: 5}}}`), nil, ok)
	m.begin()
	for len(m.hands) == 0 {
		m.take()
		if len(m.hands) == 0 && !m.one() {
			t.Fatal("nothing handed out")
		}
	}
	m.hands = nil
	o := failed(task.CauseExit)
	o.Attempt = 1
	m.report(&outcomes{function: "a", list: []task.Outcome{o}, noRetry: []bool{true}})
	if got := summaryOf(m.finish()); got != "failed; a failed 0/1/0/0" {
		t.Error(got)
	}
	m.restart()
	if got := summaryOf(m.s.report(&Header{}, nil)); got != "failed; a failed 0/1/0/0" {
		t.Error("folded again:", got)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	s := time.Second
	tests := []struct {
		kind string
		want []time.Duration
	}{
		{"constant", []time.Duration{s, s, s, s, s}},
		{"exponential", []time.Duration{s, 2 * s, 4 * s, 8 * s, 10 * s}},
		{"fibonacci", []time.Duration{s, s, 2 * s, 3 * s, 5 * s}},
	}
	for _, tt := range tests {
		r := &spec.Retries{Delay: s, MaxDelay: 10 * s, Backoff: tt.kind}
		for i, want := range tt.want {
			if got := backoff(r, i+1, 0); got != want {
				t.Errorf("%s %d: %s, want %s", tt.kind, i+1, got, want)
			}
		}
		r.Jitter = 0.1
		if lo, hi := backoff(r, 1, -1), backoff(r, 1, 1); lo != 900*time.Millisecond || hi != 1100*time.Millisecond {
			t.Errorf("jitter: %s to %s", lo, hi)
		}
		if d := backoff(r, 1<<40, 1); d < 0 || d > 11*s {
			t.Errorf("many failures: %s", d)
		}
	}
	// Neighbours are spread over the whole range, or they all come back at once.
	var quarters [4]int
	for i := range 1000 {
		j := jitterOf("run", "fn", i, 1)
		if j < -1 || j > 1 {
			t.Fatalf("jitter %v", j)
		}
		quarters[min(3, int((j+1)*2))]++
	}
	if slices.Min(quarters[:]) < 150 {
		t.Errorf("jitter of 1000 tasks by quarters: %v", quarters)
	}
	if a, b := jitterOf("run", "fn", 0, 1), jitterOf("run", "fn", 0, 2); math.Abs(a-b) < 0.01 {
		t.Errorf("attempts wait alike: %v, %v", a, b)
	}
}

func TestConcurrencyHolds(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], concurrency: 3, map: {range: 50}}, b: {command: [x], map: {range: 50}, hardware: {threads_per_worker: 2}}}}`)
	m := newSim(t, p, map[string]int{"a": 50, "b": 50}, ok)
	m.slots = 8
	m.begin()
	most := map[string]int{}
	for m.one() {
		held := map[string]int{}
		for _, r := range m.hands {
			held[r.Function] += r.To - r.From
		}
		for fn, n := range held {
			most[fn] = max(most[fn], n)
		}
	}
	if most["a"] != 3 || most["b"] != 2 {
		t.Errorf("most at a time: %v, want a 3 and b 2", most)
	}
}

func TestCancelEndsEverything(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], map: {range: 9}}, b: {command: [x], needs: a}, c: {command: [x]}}}`)
	for _, kind := range []eventKind{evCancel, evLimit} {
		m := newSim(t, p, map[string]int{"a": 9}, ok)
		m.begin()
		for m.s.byName["a"].counts[task.Succeeded] < 3 {
			m.one()
			m.check()
		}
		m.event(&event{Kind: kind, Reason: "enough"})
		r := m.finish()
		want := RunCancelled
		if kind == evLimit {
			want = RunStopped
		}
		a := r.Functions[0]
		if r.Status != want || a.Status != "cancelled" || a.Succeeded < 3 || a.Succeeded+a.Cancelled != 9 || r.Functions[1].Cancelled != 1 {
			t.Errorf("%s: %s", kind, summaryOf(r))
		}
		// It goes on where it stopped.
		done := a.Succeeded
		m.restart()
		m.begin(&event{Kind: evReopen})
		if got := summaryOf(m.finish()); got != "succeeded; a succeeded 9/0/0/0; b succeeded 1/0/0/0; c succeeded 1/0/0/0" {
			t.Errorf("%s, reopened: %s", kind, got)
		}
		total := 0
		for fn, n := range m.starts {
			if strings.HasPrefix(fn, "a/") {
				total += n
			}
		}
		if total != 9 {
			t.Errorf("%s: %d starts of a after %d were done, want 9", kind, total, done)
		}
	}
}

// A coordinator that died while it was cancelling does not make the cancel
// stick: who resumes wants the run to go on.
func TestReopenAfterDeathWhileStopping(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], map: {range: 9}}, b: {command: [x], needs: a}}}`)
	m := newSim(t, p, map[string]int{"a": 9}, ok)
	m.begin()
	for m.s.byName["a"].counts[task.Succeeded] < 3 {
		m.one()
	}
	m.now++
	rec, err := (&event{Kind: evCancel, At: m.now, Reason: "x"}).encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	m.records = append(m.records, rec)
	m.restart()
	m.begin(&event{Kind: evReopen})
	if got := summaryOf(m.finish()); got != "succeeded; a succeeded 9/0/0/0; b succeeded 1/0/0/0" {
		t.Error(got)
	}
}

// An agent that is ended by a full disk reports what it ended as cancelled.
// That is not the end of the task: nobody cancelled the run.
func TestTasksOfADyingAgentRunAgain(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], map: {range: 3}}, b: {command: [x], needs: a}}}`)
	died := false
	m := newSim(t, p, map[string]int{"a": 3}, func(fn string, _ cloud.Range, i int) task.Outcome {
		if i == 1 && !died {
			died = true
			return task.Outcome{Status: task.Cancelled, Cause: task.CauseCancelled}
		}
		return task.Outcome{Status: task.Succeeded}
	})
	m.begin()
	if got := summaryOf(m.finish()); got != "succeeded; a succeeded 3/0/0/0; b succeeded 1/0/0/0" || m.starts["a/1"] != 2 {
		t.Errorf("%s after %d starts of a/1", got, m.starts["a/1"])
	}
}

func TestRecordsStaySmall(t *testing.T) {
	t.Parallel()
	small := make([]task.Outcome, 1000)
	if n := batchLen(small); n != maxBatch {
		t.Errorf("%d outcomes in a record, want %d", n, maxBatch)
	}
	large := []task.Outcome{{Result: make([]byte, maxRecord+1)}, {Result: make([]byte, 10)}}
	if n := batchLen(large); n != 1 {
		t.Errorf("%d outcomes beside a large one", n)
	}
	if n := batchLen(small[:3]); n != 3 {
		t.Errorf("%d of 3", n)
	}
}

func TestRetryRunsWhatFailedAndWhatWasSkippedForIt(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], map: {range: 4}}, b: {command: [x], map: {from: a}}, c: {command: [x], needs: b}, d: {command: [x], needs: a, if: failure()}}}`)
	m := newSim(t, p, map[string]int{"a": 4}, failing("a/1"))
	m.decide = func(fn string, s *State) *event {
		if fn != "d" {
			return nil
		}
		return &event{Tasks: 1, Skip: s.byName["a"].ok()}
	}
	m.begin()
	if got := summaryOf(m.finish()); got != "failed; a failed 3/1/0/0; b skipped 3/0/1/0; c skipped 0/0/1/0; d succeeded 1/0/0/0" {
		t.Fatal(got)
	}
	m.run = ok
	m.restart()
	m.begin(&event{Kind: evRetry})
	if got := summaryOf(m.finish()); got != "succeeded; a succeeded 4/0/0/0; b succeeded 4/0/0/0; c succeeded 1/0/0/0; d succeeded 1/0/0/0" {
		t.Fatal(got)
	}
	want := map[string]int{"a/0": 1, "a/1": 2, "a/2": 1, "a/3": 1, "b/0": 1, "b/1": 1, "b/2": 1, "b/3": 1, "c/0": 1, "d/0": 1}
	for k, n := range want {
		if m.starts[k] != n {
			t.Errorf("%s started %d times, want %d", k, m.starts[k], n)
		}
	}
	if a := m.s.byName["a"].table.attempts[1]; a != 2 {
		t.Errorf("a/1 has %d attempts, want 2: numbers go on", a)
	}
}

// What was skipped in one round or another is not forgotten: when nothing fails
// any more, everything has run.
func TestRetryFindsEverySkippedTask(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		tasks      map[string]int
		fail       [][]string // by round; then nothing fails
		want       string
	}{
		{"failures before and behind from", `{name: p, functions: {a: {command: [x], map: {range: 3}}, b: {command: [x], map: {from: a}}, c: {command: [x], map: {from: b}}}}`,
			map[string]int{"a": 3}, [][]string{{"a/1", "b/0"}, {"b/0"}}, "succeeded; a succeeded 3/0/0/0; b succeeded 3/0/0/0; c succeeded 3/0/0/0"},
		{"all tolerated", `{name: p, functions: {a: {command: [x], max_failures: 1, map: {range: 1}}, b: {command: [x], map: {from: a}}}}`,
			map[string]int{"a": 1}, [][]string{{"a/0"}}, "succeeded; a succeeded 1/0/0/0; b succeeded 1/0/0/0"},
		{"stopped twice", `{name: p, functions: {a: {command: [x], on_failure: stop, map: {range: 4}}}}`,
			map[string]int{"a": 4}, [][]string{{"a/0", "a/1"}, {"a/0"}}, "succeeded; a succeeded 4/0/0/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newSim(t, bind(t, tt.yaml), tt.tasks, nil)
			var retry []*event
			for round, fail := range append(tt.fail, nil) {
				m.run, m.slots = failing(fail...), max(1, 2-round)
				m.begin(retry...)
				m.finish()
				retry = []*event{{Kind: evRetry}}
				m.restart()
			}
			if got := summaryOf(m.s.report(&Header{}, nil)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestRetryByCause(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], map: {range: 4}}}}`)
	m := newSim(t, p, map[string]int{"a": 4}, func(_ string, _ cloud.Range, i int) task.Outcome {
		return failed([]task.Cause{task.CauseExit, task.CauseTimeout, task.CauseOOM, task.CauseTimeout}[i])
	})
	m.begin()
	m.finish()
	m.run = ok
	m.restart()
	m.begin(&event{Kind: evRetry, Cause: "timeout"})
	if got := summaryOf(m.finish()); got != "failed; a failed 2/2/0/0" {
		t.Error(got)
	}
}

func TestOnlyRunsTheNamedTasks(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x]}, b: {command: [x], needs: a, map: {range: 5}}, c: {command: [x], needs: b}}}`)
	m := newSim(t, p, map[string]int{"b": 5}, ok)
	m.only = map[string][]int{"b": {1, 3}}
	m.restart()
	m.begin()
	if got := summaryOf(m.finish()); got != "succeeded; a succeeded 1/0/0/0; b succeeded 2/0/3/0" {
		t.Error(got)
	}
}

// Tasks of later functions go first: what is begun gets finished.
func TestLaterFunctionsFirst(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], map: {range: 50}}, b: {command: [x], map: {from: a}}}}`)
	var order []string
	m := newSim(t, p, map[string]int{"a": 50}, func(fn string, _ cloud.Range, _ int) task.Outcome {
		order = append(order, fn)
		return task.Outcome{Status: task.Succeeded, Seconds: 1}
	})
	m.begin()
	m.finish()
	if first := slices.Index(order, "b"); first > 10 {
		t.Errorf("the first task of b ran after %d of a", first)
	}
	// Where tasks are long, none of a waits in the hands of agents.
	m = newSim(t, p, map[string]int{"a": 50}, nil)
	m.begin()
	a := m.s.byName["a"]
	if limit, _ := a.cap(4, 4); limit != 4 {
		t.Errorf("%d tasks are given out at first", limit)
	}
	for _, mean := range []float64{0.001, 5} {
		a.mean = mean
		a.counts[task.Succeeded], a.counts[task.Pending] = 45, 5
		if limit, _ := a.cap(4, 4); limit == 4 != (mean > 1) {
			t.Errorf("%d tasks of %v s are given out", limit, mean)
		}
	}
}
