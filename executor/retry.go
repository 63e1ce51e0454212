package executor

import (
	"hash/fnv"
	"math"
	"strconv"
	"time"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// backoff is the wait before attempt n+1 after the nth own failure of a task.
// jitter is a number from -1 to 1.
func backoff(r *spec.Retries, n int, jitter float64) time.Duration {
	d := float64(r.Delay)
	switch r.Backoff {
	case "constant":
	case "fibonacci":
		a, b := 1.0, 1.0
		for i := 1; i < n && b < 1e9; i++ {
			a, b = b, a+b
		}
		d *= a
	default:
		d *= math.Pow(2, float64(min(n-1, 62)))
	}
	if r.MaxDelay > 0 {
		d = min(d, float64(r.MaxDelay))
	}
	d *= 1 + r.Jitter*jitter
	return time.Duration(max(0, min(d, math.MaxInt64/4)))
}

// jitterOf is a number from -1 to 1 that depends on nothing but what it is
// for, so that a fold repeated elsewhere comes to the same times.
func jitterOf(run, fn string, index, attempt int) float64 {
	h := fnv.New64a()
	h.Write([]byte(run + "/" + fn + "/" + strconv.Itoa(index) + "/" + strconv.Itoa(attempt)))
	// The last bytes of a name hardly move the high bits of FNV: neighbours
	// would all come back at the same moment.
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return float64(x>>11)/float64(1<<52) - 1
}

// nextAttempt takes a failure out of the budget of its cause.
func (s *State) nextAttempt(f *function, oc *task.Outcome, noRetry bool) (wait time.Duration, memory int64, again bool) {
	r := &f.spec.Retries
	b := f.table.budget(oc.Index)
	switch oc.Cause {
	case task.CauseMachine:
		b.machine++
		return 0, b.memory, b.machine <= r.Machine
	case task.CauseOOM:
		b.oom++
		if b.oom > r.OOMMax {
			return 0, 0, false
		}
		b.memory = s.largerMemory(f, oc, b)
		return 0, b.memory, true
	case task.CauseCancelled:
		return 0, 0, false
	}
	b.own++
	if noRetry || b.own > r.Max {
		return 0, 0, false
	}
	return backoff(r, b.own, jitterOf(s.run, f.spec.Name, oc.Index, oc.Attempt)), b.memory, true
}

// putBack makes a task ready once more that nobody has begun. What it asks for
// after it ran out of memory goes with it.
func (f *function) putBack(i int) {
	if b := f.table.budgets[i]; b != nil && b.memory > 0 {
		f.pushRetry(retryItem{index: i, memory: b.memory})
		return
	}
	f.ready.push(i, i+1)
}

// larger is how many tasks of f that have not ended ask for more memory.
func (f *function) larger() int {
	n := 0
	for i, b := range f.table.budgets {
		if b.memory > 0 && !f.table.status[i].Final() {
			n++
		}
	}
	return n
}

// largerMemory is the memory to ask for after an attempt had too little: so many
// times what its machine had, where that is known.
func (s *State) largerMemory(f *function, oc *task.Outcome, b *budget) int64 {
	had := int64(0)
	if s.memoryOf != nil {
		had = max(s.memoryOf(s.fleet.typeOf(oc.Machine)), b.memory)
	}
	if had == 0 {
		return oomMemory(f.spec, b.oom)
	}
	return int64(float64(had) * oomFactor(f.spec))
}

// oomMemory is the memory to ask for after n losses for want of memory.
func oomMemory(fn *spec.Function, n int) int64 {
	m := float64(fn.Hardware.Memory[1])
	if m == 0 {
		m = 1 << 30
	}
	for ; n > 0; n-- {
		m *= oomFactor(fn)
	}
	return int64(m)
}

func oomFactor(fn *spec.Function) float64 {
	if f := fn.Retries.OOMMemory; f > 1 {
		return f
	}
	return 2
}

// reopen lets a stopped or cancelled run go on: what the stop left undone is
// pending again, and so are failed tasks that again accepts.
func (s *State) reopen(again func(task.Status, task.Cause) bool) {
	s.stopping, s.reason, s.finished = notStopping, "", 0
	s.status = RunRunning
	s.active = 0 // who says "go on" grants limits.duration anew
	touched := map[*function]bool{}
	for _, f := range s.order {
		if f.reset(again) {
			touched[f] = true
		}
	}
	// In the order of needs: a function that was skipped for a need that now
	// runs again waits for it again.
	for depth := 0; ; depth++ {
		any := false
		for _, f := range s.order {
			if f.depth != depth {
				continue
			}
			any = true
			for _, need := range f.needs {
				if touched[need] && f.revive(need) {
					touched[f] = true
				}
			}
		}
		if !any {
			break
		}
	}
	for _, f := range s.order {
		if f.phase != running {
			continue
		}
		if f.from != nil {
			// Where the upstream task does not run again, its end was seen before.
			for i := range f.table.status {
				s.follow(f, i)
			}
		}
		f.requeue()
	}
}

// reset makes the cancelled tasks of f, and failed ones that again accepts,
// pending; it says whether f has work again.
func (f *function) reset(again func(task.Status, task.Cause) bool) bool {
	if f.phase != done {
		return false
	}
	if f.table.status == nil || f.n == 0 || f.status == task.Failed && f.counts[task.Failed] == 0 {
		// It never got to its tasks: cancelled while it waited, or its map or
		// if could not be evaluated.
		if f.status == task.Cancelled || f.status == task.Failed && again(task.Failed, task.NoCause) {
			f.toWaiting()
			return true
		}
		return false
	}
	hit := false
	for i, st := range f.table.status {
		if st == task.Cancelled || st == task.Failed && again(st, f.table.cause[i]) {
			f.move(i, task.Pending)
			f.table.cause[i] = task.NoCause
			delete(f.table.budgets, i)
			hit = true
		}
	}
	if !hit {
		return false
	}
	if f.stopped {
		f.stopped = false
		f.unskip()
	}
	f.phase, f.status, f.reason = running, task.Pending, ""
	if f.counts[task.Pending] == f.n && f.neverRan() {
		f.toWaiting()
	}
	return true
}

// neverRan says that no task of f has an outcome.
func (f *function) neverRan() bool {
	for _, p := range f.table.pos {
		if p >= 0 {
			return false
		}
	}
	return true
}

// unskip makes tasks pending that the executor (not their own where or
// --only) had skipped.
func (f *function) unskip() {
	for i, st := range f.table.status {
		if st == task.Skipped && f.table.flags[i]&taskLeftOut == 0 && (f.only == nil || f.only[i]) {
			f.move(i, task.Pending)
		}
	}
}

// revive opens a function again that was skipped because of need. Behind from:
// that may also be some tasks of a function with failures of its own.
func (f *function) revive(need *function) bool {
	open := f.phase == running
	if f.phase != done && !open {
		return false
	}
	if f.from == need && !f.stopped && f.table.status != nil && (open || !f.neverRan()) {
		before := f.counts[task.Pending]
		f.unskip()
		if f.counts[task.Pending] > before || f.status == task.Skipped {
			f.phase, f.status, f.reason = running, task.Pending, ""
			return true
		}
		return false
	}
	// Behind failures that were tolerated a function succeeds with nothing done.
	idle := f.from == need && f.status == task.Succeeded && f.counts[task.Skipped] > 0
	if open || f.status != task.Skipped && !idle {
		return false
	}
	f.toWaiting()
	return true
}

// toWaiting makes f as it was before it was prepared. The number of tasks of
// a map that depends on results may come out differently.
func (f *function) toWaiting() {
	f.phase, f.status, f.reason, f.stopped = waiting, task.Pending, "", false
	f.table = table{}
	f.owner = nil
	f.ready.clear()
	f.retryAt = nil
	if f.planned {
		f.plan(f.n)
	}
}

// retry: failed tasks (of one cause, if e names one), cancelled ones, and what
// was skipped because of them, are to run again.
func (s *State) retry(e *event) {
	s.reopen(func(_ task.Status, c task.Cause) bool {
		return e.Cause == "" || c.String() == e.Cause
	})
}
