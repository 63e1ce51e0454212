package executor

import (
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// hands is which ranges machines have, or will take from a queue. Only a
// coordinator of a run on machines keeps it, and never on disk: the next one is
// told by the machines what they hold. Such a run hears of tasks that it did
// not know to be in anybody's hands (a machine that was given up speaks again),
// so there what waits to be handed out is corrected, too.
type hands struct {
	next int // number of the last range of this epoch
	last int32
	open map[int32]*openRange
	byID map[string]int32
	// early are ranges that machines hold of functions that are not running.
	early map[string][]cloud.Range
}

// openRange is a range of which left tasks have no outcome yet.
type openRange struct {
	cloud.Range
	left int
}

func newHands() *hands {
	return &hands{open: map[int32]*openRange{}, byID: map[string]int32{}, early: map[string][]cloud.Range{}}
}

// keepHands makes s know the ranges that machines have; before the first is
// handed out.
func (s *State) keepHands() {
	s.hands = newHands()
	for _, f := range s.order {
		f.hands = s.hands
	}
}

// give notes that the running tasks of r that nobody has belong to it.
func (f *function) give(r cloud.Range, indices []int) {
	h := f.hands
	if len(indices) == 0 {
		return
	}
	if f.owner == nil {
		f.owner = make([]int32, f.n)
	}
	h.last++
	h.open[h.last] = &openRange{r, len(indices)}
	h.byID[r.ID] = h.last
	f.ranges++
	for _, i := range indices {
		f.owner[i] = h.last
	}
}

// drop notes that a task is in nobody's hands any more.
func (h *hands) drop(f *function, i int) {
	if f.owner == nil || f.owner[i] == 0 {
		return
	}
	n := f.owner[i]
	f.owner[i] = 0
	r := h.open[n]
	if r.left--; r.left == 0 {
		delete(h.open, n)
		delete(h.byID, r.ID)
		f.ranges--
	}
}

// holding is the tasks of a range that are in somebody's hands, in order.
func (s *State) holding(id string) (f *function, indices []int, r cloud.Range) {
	n, ok := s.hands.byID[id]
	if !ok {
		return nil, nil, r
	}
	r = s.hands.open[n].Range
	f = s.byName[r.Function]
	for i := r.From; i < r.To; i++ {
		if f.owner[i] == n {
			indices = append(indices, i)
		}
	}
	return f, indices, r
}

// holdRanges notes what machines hold when a coordinator begins: it is not
// handed out again.
func (s *State) holdRanges(rs []cloud.Range) {
	touched := map[*function]bool{}
	for _, r := range rs {
		f := s.byName[r.Function]
		switch {
		case f == nil || f.phase == done:
		case f.phase != running:
			s.hands.early[r.Function] = append(s.hands.early[r.Function], r)
		default:
			f.holdRange(r)
			touched[f] = true
		}
	}
	for f := range touched {
		f.rebuild()
	}
}

// holdEarly is holdRanges for what was held before f ran.
func (s *State) holdEarly(f *function) {
	if s.hands == nil || len(s.hands.early[f.spec.Name]) == 0 {
		return
	}
	for _, r := range s.hands.early[f.spec.Name] {
		f.holdRange(r)
	}
	delete(s.hands.early, f.spec.Name)
	f.rebuild()
}

func (f *function) holdRange(r cloud.Range) {
	if _, known := f.hands.byID[r.ID]; known {
		return
	}
	var is []int
	for i := max(0, r.From); i < min(r.To, f.n); i++ {
		// Of a task that has failed since then the machine knows nothing new.
		if f.table.status[i] == task.Pending && r.Attempt > int(f.table.attempts[i]) {
			f.move(i, task.Running)
			is = append(is, i)
		}
	}
	f.give(r, is)
}

// rebuild makes the queue of f anew, from its table.
func (f *function) rebuild() {
	waits := map[int]bool{}
	kept := f.retryAt[:0]
	for _, it := range f.retryAt {
		if f.table.status[it.index] == task.Pending {
			kept = append(kept, it)
			waits[it.index] = true
		}
	}
	f.retryAt = kept
	f.fixRetries()
	f.ready.clear()
	for i, st := range f.table.status {
		if st == task.Pending && !waits[i] && f.mayRun(i) {
			f.putBack(i)
		}
	}
}

// endRanges takes back what is left of ranges whose machine says that they have
// ended.
func (s *State) endRanges(ids []string) []action {
	var acts []action
	for _, id := range ids {
		if f, is, _ := s.holding(id); len(is) > 0 {
			acts = append(acts, s.takeBack(f.spec.Name, is)...)
		}
	}
	for fn, rs := range s.hands.early {
		kept := rs[:0]
		for _, r := range rs {
			ended := false
			for _, id := range ids {
				ended = ended || id == r.ID
			}
			if !ended {
				kept = append(kept, r)
			}
		}
		s.hands.early[fn] = kept
	}
	return acts
}

// lose is what becomes of ranges that a lost machine held: the first task
// without an outcome counts as having run there, the others as not started.
func (s *State) lose(machine, message string, ids []string) []task.Batch {
	var out []task.Batch
	for _, id := range ids {
		f, is, r := s.holding(id)
		if len(is) == 0 {
			continue
		}
		out = append(out, task.Batch{Function: f.spec.Name, Unrun: is[1:], Outcomes: []task.Outcome{{
			Index: is[0], Attempt: r.Attempt, Status: task.Failed, Cause: task.CauseMachine, Machine: machine, Message: message}}})
	}
	return out
}

// rangeID names the next range of this epoch.
func (s *State) rangeID() string {
	s.hands.next++
	return wire.RangeID(s.epoch, s.hands.next)
}
