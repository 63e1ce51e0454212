package executor

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestUpstreamPositions(t *testing.T) {
	t.Parallel()
	for _, pos := range [][]int64{{0}, {256, 257, 258}, {5 << 8, 5<<8 | 1, 3 << 8, 1 << 50, 1<<50 | 255, 7}, {9, 9}} {
		text := encodeUpstream(40, pos)
		for k, want := range pos {
			if got, err := upstreamPos(text, 40+k); err != nil || got != want {
				t.Errorf("%v: position %d is %d, %v", pos, k, got, err)
			}
		}
		for _, bad := range []int{39, 40 + len(pos)} {
			if got, err := upstreamPos(text, bad); err == nil {
				t.Errorf("%v: index %d, which is not in it, is at %d", pos, bad, got)
			}
		}
	}
	for _, bad := range []string{"", "?", "gA", "AAAA"} {
		if got, err := upstreamPos(bad, 0); err == nil && bad != "AAAA" || bad == "AAAA" && err == nil {
			t.Errorf("%q: %d, %v", bad, got, err)
		}
	}
}

func TestRangesRemove(t *testing.T) {
	t.Parallel()
	for out := range 12 {
		var r ranges
		r.push(0, 3)
		r.push(5, 6)
		r.push(8, 11)
		var want []int
		for _, i := range []int{0, 1, 2, 5, 8, 9, 10} {
			if i != out {
				want = append(want, i)
			}
		}
		r.remove(out)
		size := r.size
		var got []int
		for {
			from, to := r.pop(2, func(int, int) bool { return true })
			if from == to {
				break
			}
			for i := from; i < to; i++ {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, want) || size != len(want) {
			t.Errorf("without %d: %v, size %d", out, got, size)
		}
	}
}

// remoteState is a run of machines with its only function running.
func remoteState(t *testing.T, yaml string, n int) *State {
	p := bind(t, yaml)
	s := newState("run", p.Functions, nil)
	s.keepHands()
	s.applyEvent(&event{Kind: evCoordinator, Epoch: 1, At: 1})
	s.applyEvent(&event{Kind: evBegin, At: 1, Functions: []beginFunction{{"a", n}}})
	s.applyEvent(&event{Kind: evPrepared, Function: "a", Tasks: n, At: 1})
	s.byName["a"].start = startWritten
	return s
}

// A range whose machine says that it has ended, or is lost, leaves nothing
// behind in nobody's hands.
func TestRangesEndWhole(t *testing.T) {
	t.Parallel()
	s := remoteState(t, `{name: p, functions: {a: {command: [x], expect: 1s, map: {range: 40}}}}`, 40)
	f := s.byName["a"]
	rs := s.handOutRemote(map[string]int{"a": 2}, 1)
	if len(rs) < 3 || rs[0].ID != "1-1" || rs[0].To-rs[0].From != 5 {
		t.Fatalf("handed out: %+v", rs)
	}
	report := func(i int) {
		s.applyOutcomes(&outcomes{function: "a", at: 2, list: []task.Outcome{{Index: i, Attempt: 1, Status: task.Succeeded, Seconds: 1}}}, 1)
	}
	report(0)
	report(1)
	before := f.ready.size
	s.endRanges([]string{"1-1", "7-7"})
	if f.ready.size != before+3 || f.table.status[2] != task.Pending {
		t.Errorf("%d more tasks wait after a range of 5 ended with 2 outcomes", f.ready.size-before)
	}
	report(5)
	got := s.lose("i-1", "machine i-1 was lost", []string{"1-1", "1-2"})
	want := []task.Batch{{Function: "a", Unrun: []int{7, 8, 9}, Outcomes: []task.Outcome{
		{Index: 6, Attempt: 1, Status: task.Failed, Cause: task.CauseMachine, Machine: "i-1", Message: "machine i-1 was lost"}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// What machines hold of a function that does not run yet, as its run was
// cancelled and goes on, is not handed out again when it does.
func TestHeldBeforeTheFunctionRuns(t *testing.T) {
	t.Parallel()
	p := bind(t, `{name: p, functions: {a: {command: [x], map: {range: 4}}}}`)
	s := newState("run", p.Functions, nil)
	s.keepHands()
	s.applyEvent(&event{Kind: evCoordinator, Epoch: 2, At: 1})
	s.applyEvent(&event{Kind: evBegin, At: 1, Functions: []beginFunction{{"a", 4}}})
	s.holdRanges([]cloud.Range{{ID: "1-1", Function: "a", From: 1, To: 2, Attempt: 1}, {ID: "1-2", Function: "a", From: 2, To: 3, Attempt: 1}})
	s.endRanges([]string{"1-2"})
	s.applyEvent(&event{Kind: evPrepared, Function: "a", Tasks: 4, At: 1})
	f := s.byName["a"]
	f.start = startWritten
	var got []int
	for _, r := range s.handOutRemote(map[string]int{"a": 9}, 1) {
		got = append(got, r.From)
	}
	if !slices.Equal(got, []int{0, 2, 3}) || f.counts[task.Running] != 4 {
		t.Errorf("handed out %v, %d in hand", got, f.counts[task.Running])
	}
}

func TestRangeSizes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, keys   string
		tasks, slots int
		ended        int
		seconds      float64 // of each
		cached       int
		per, ahead   int
	}{
		{"nothing is known", "", 1e6, 100, 0, 0, 0, 1, 300},
		{"expected", "expect: 1s, ", 1e6, 100, 0, 0, 0, 5, 101},
		{"quick", "", 1e6, 100, 1000, 0.01, 0, 500, 101},
		{"instant", "", 1e6, 100, 1000, 0, 0, 1024, 801},
		{"a large fleet", "", 1e6, 5000, 1000, 1, 0, 99, 253},
		{"long", "", 1e5, 100, 100, 60, 0, 1, 9},
		{"fewer are left", "", 9000, 100, 1000, 0.1, 0, 40, 126},
		{"the end", "", 1000, 100, 950, 0.1, 0, 12, 417},
		{"cached until now", "", 1e6, 10, 0, 0, 400, 10, 30},
		{"stop", "on_failure: stop, ", 1e6, 10, 100, 0.01, 0, 1, 0},
	}
	for _, tt := range tests {
		s := remoteState(t, fmt.Sprintf(`{name: p, functions: {a: {command: [x], %smap: {range: %d}}}}`, tt.keys, tt.tasks), tt.tasks)
		f := s.byName["a"]
		for i := range tt.ended + tt.cached {
			f.move(i, task.Succeeded)
		}
		f.cached, f.timed, f.timedSeconds = tt.cached, tt.ended, tt.seconds*float64(tt.ended)
		if per, ahead := f.size(tt.slots); per != tt.per || ahead != tt.ahead {
			t.Errorf("%s: %d in a range, %d ahead; want %d and %d", tt.name, per, ahead, tt.per, tt.ahead)
		}
	}
}

// concurrency bounds what machines can run at a time, whatever their number.
func TestConcurrencyOnMachines(t *testing.T) {
	t.Parallel()
	s := remoteState(t, `{name: p, functions: {a: {command: [x], concurrency: 3, map: {range: 100}}}}`, 100)
	if n := len(s.handOutRemote(map[string]int{"a": 50}, 1)); n != 3 {
		t.Errorf("%d ranges are handed out", n)
	}
	s = remoteState(t, `{name: p, functions: {a: {command: [x], on_failure: stop, map: {range: 100}}}}`, 100)
	if n := len(s.handOutRemote(map[string]int{"a": 7}, 1)); n != 7 {
		t.Errorf("%d ranges are handed out though a failure stops the function", n)
	}
}

// Slots that wait a moment for each range end together.
func TestMakespanOnMachines(t *testing.T) {
	t.Parallel()
	tests := []struct {
		tasks, slots  int
		median, sigma float64
	}{
		{100_000, 500, 10, 1},
		{20_000, 33, 0.2, 1.2},
		{200_000, 1000, 1, 0.5},
		{20_000, 100, 60, 0.3},
	}
	for _, tt := range tests {
		rng := rand.New(rand.NewPCG(7, uint64(tt.tasks)))
		seconds := make([]float64, tt.tasks)
		work, longest := 0.0, 0.0
		for i := range seconds {
			seconds[i] = tt.median * math.Exp(tt.sigma*rng.NormFloat64())
			work += seconds[i]
			longest = max(longest, seconds[i])
		}
		s := remoteState(t, fmt.Sprintf(`{name: p, functions: {a: {command: [x], map: {range: %d}}}}`, tt.tasks), tt.tasks)
		span, ranges := makespan(s, tt.slots, seconds)
		// Nobody knows which task takes long: one of those may start last, on
		// machines without any delay too.
		bound := max(longest, work/float64(tt.slots), greedy(tt.slots, seconds))
		t.Logf("%d tasks on %d slots: %.0f s, %.1f %% over the bound, %d ranges (%.0f a second)", tt.tasks, tt.slots, span, 100*(span/bound-1), ranges, float64(ranges)/span)
		if span > bound*1.05 {
			t.Errorf("%d tasks on %d slots: %.1f s, where %.1f s are possible", tt.tasks, tt.slots, span, bound)
		}
	}
}

// greedy is how long slots take that go from task to task without a delay.
func greedy(slots int, seconds []float64) float64 {
	free := make(floats, slots)
	for _, d := range seconds {
		free[0] += d
		heap.Fix(&free, 0)
	}
	return slices.Max(free)
}

type floats []float64

func (f floats) Len() int           { return len(f) }
func (f floats) Less(i, j int) bool { return f[i] < f[j] }
func (f floats) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f floats) Push(any)           {}
func (f floats) Pop() any           { return nil }

// makespan runs all tasks of a function on slots: what a slot takes must have
// been on the queue for a second, and its end is heard of after two.
func makespan(s *State, slots int, seconds []float64) (span float64, ranges int) {
	const tick = 0.25
	type slot struct {
		free float64
	}
	type ended struct {
		at float64
		r  cloud.Range
	}
	var queue []ended // at: when it can be taken
	var back []ended  // ordered by at only roughly
	all := make([]slot, slots)
	left := len(seconds)
	for now := 0.0; left > 0; now += tick {
		kept := back[:0]
		for _, b := range back {
			if b.at > now {
				kept = append(kept, b)
				continue
			}
			o := &outcomes{function: "a", at: 2}
			for i := b.r.From; i < b.r.To; i++ {
				o.list = append(o.list, task.Outcome{Index: i, Attempt: 1, Status: task.Succeeded, Seconds: seconds[i]})
			}
			left -= len(o.list)
			s.applyOutcomes(o, 1)
		}
		back = kept
		for _, r := range s.handOutRemote(map[string]int{"a": slots}, 1) {
			queue = append(queue, ended{now + 1, r})
			ranges++
		}
		for k := range all {
			if all[k].free > now || len(queue) == 0 || queue[0].at > now {
				continue
			}
			r := queue[0].r
			queue = queue[1:]
			all[k].free = now
			for i := r.From; i < r.To; i++ {
				all[k].free += seconds[i]
			}
			span = max(span, all[k].free)
			back = append(back, ended{all[k].free + 2, r})
		}
	}
	return span, ranges
}

func TestBill(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	r := newFleetRecord()
	r.machine(task.Machine{ID: "i-1", Price: 3.6, Slots: 2, Joined: at(0)}) // 0.1 cents a second
	r.machine(task.Machine{ID: "i-2", Price: 3.6, Joined: at(0), Ended: at(10), Why: "lost"})
	r.machine(task.Machine{ID: "i-1", Price: 3.6, Slots: 2, Joined: at(0), Ended: at(100)})
	r.machine(task.Machine{ID: "i-2", Price: 3.6, Joined: at(0)})             // late
	r.machine(task.Machine{ID: "i-1", Price: 3.6, Slots: 2, Joined: at(200)}) // it came back
	r.worked("i-1", "a", 120)
	r.worked("i-1", "b", 80)
	r.worked("i-2", "a", 90) // longer than it lived: its clock is wrong
	r.worked("", "a", 1000)
	b := r.bill(at(300).UnixNano(), false)
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %g, want %g", what, got, want)
		}
	}
	near("total", b.total, 0.1+0.06+0.1)
	near("a", b.functions["a"], 120*0.0005+0.06)
	near("b", b.functions["b"], 80*0.0005)
	near("idle", b.idle, 0.1)
	near("rate", b.rates["i-1"], 0.0005)
	if b.machines != 2 {
		t.Errorf("%d machines", b.machines)
	}
	r.machine(task.Machine{ID: "i-3", Price: 3.6, Joined: at(250), Ended: at(400), Why: "it waits for another run"})
	near("total, while it goes on", r.bill(at(300).UnixNano(), false).total, 0.1+0.06+0.1+0.06)
	near("total, in the end", r.bill(at(300).UnixNano(), true).total, 0.1+0.06+0.1+0.15)
	sum := b.idle
	for _, c := range b.functions {
		sum += c
	}
	near("sum", sum, b.total)
}

// A machine that waits for another run is billed until the end of its waiting.
// If the same run takes it back before that, the time before still costs.
func TestMachineThatComesBackIsBilledFromItsFirstDay(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return time.Unix(int64(60*minute), 0) }
	r := newFleetRecord()
	for _, m := range []task.Machine{
		{Joined: at(0)}, {Joined: at(0), Ended: at(10)}, // waits until then
		{Joined: at(5)}, {Joined: at(5), Ended: at(20)}, // came back
		{Joined: at(0)},                                   // late news
		{Joined: at(30)}, {Joined: at(30), Ended: at(40)}, // and once more, much later
	} {
		m.ID, m.Price = "i-1", 60
		r.machine(m)
	}
	if b := r.bill(at(60).UnixNano(), false); math.Abs(b.total-30) > 1e-9 || b.machines != 1 {
		t.Errorf("$%g for %d machines, want 30 for one", b.total, b.machines)
	}
}
