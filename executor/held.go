package executor

import (
	"slices"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// What agents hold is not recorded: it costs nothing, and after a crash nobody
// holds anything. But a stop ends what has not started and leaves what runs to
// end by itself; a fold must know which is which, or it would take the outcomes
// of the latter for doubled reports. So evHeld goes before every record that
// may stop something, and what agents give back afterwards is recorded too.

// held is evHeld for the tasks in agents' hands of the functions that want
// chooses; nil if they hold none.
func (s *State) held(want func(*function) bool) *event {
	e := &event{Kind: evHeld}
	for _, f := range s.order {
		if f.counts[task.Running] == 0 || !want(f) {
			continue
		}
		for i, st := range f.table.status {
			if st != task.Running {
				continue
			}
			if n := len(e.Held); n > 0 && e.Held[n-1].Function == f.spec.Name && e.Held[n-1].To == i {
				e.Held[n-1].To++
			} else {
				e.Held = append(e.Held, heldTasks{f.spec.Name, i, i + 1})
			}
		}
	}
	if len(e.Held) == 0 {
		return nil
	}
	return e
}

// mayStop says whether an event may end the whole run before its time, or
// outcomes their function.
func (s *State) mayStop(e *event, fn string, list []task.Outcome) (all, one bool) {
	if s.stopping != notStopping || s.status.Final() {
		return false, false
	}
	if e != nil {
		return e.Kind == evCancel || e.Kind == evLimit, false
	}
	f := s.byName[fn]
	return false, f != nil && f.spec.OnFailureStop && !f.stopped &&
		slices.ContainsFunc(list, func(oc task.Outcome) bool { return oc.Status == task.Failed })
}

// heldBefore is the evHeld that goes before the records of a batch, as it must
// be folded while nothing of the batch has been; nil if none needs to.
func (s *State) heldBefore(batch []input) *event {
	every, some := false, map[string]bool{}
	for _, in := range batch {
		var fn string
		var list []task.Outcome
		if in.batch != nil {
			fn, list = in.batch.Function, in.batch.Outcomes
		}
		all, one := s.mayStop(in.event, fn, list)
		every = every || all
		if one {
			some[fn] = true
		}
	}
	if !every && len(some) == 0 {
		return nil
	}
	return s.held(func(f *function) bool { return every || some[f.spec.Name] })
}

// recordsGivenBack says whether tasks of a function that agents give back are
// ended by that, now or after the records of one batch, and so recorded.
func (s *State) recordsGivenBack(fn string) bool {
	f := s.byName[fn]
	return s.stopping != notStopping || f != nil && f.spec.OnFailureStop
}

// hold folds evHeld.
func (s *State) hold(e *event) {
	for _, h := range e.Held {
		f := s.byName[h.Function]
		if f == nil || f.phase != running {
			continue
		}
		for i := max(0, h.From); i < min(h.To, len(f.table.status)); i++ {
			if f.table.status[i] == task.Pending {
				f.move(i, task.Running)
			}
		}
	}
}
