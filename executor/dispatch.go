package executor

import (
	"math"
	"sort"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// rangeSeconds is how much work a range should hold: enough that handing it
// out costs nothing beside it, little enough that slots end together.
const rangeSeconds = 0.02

// maxRange is the most tasks in a range.
const maxRange = 128

// longTask is how many seconds make a task so long that a slot may be idle for
// the moment in which its next one is chosen.
const longTask = 0.1

// handOut chooses what to give to agents with this many slots and CPUs: later
// functions first, so that what is begun gets finished. The tasks count as
// Running from now on; takeBack undoes it.
func (s *State) handOut(slots, cpus int, now int64) []cloud.Range {
	return s.choose(now, func(f *function) room { return f.local(slots, cpus) })
}

// room is how much more of a function may be given away, and at how much a
// time.
type room interface{ next() int }

// localRoom is tasks: limit of them in agents' hands, per in a range.
type localRoom struct {
	f          *function
	limit, per int
}

func (r localRoom) next() int { return min(r.per, r.limit-r.f.counts[task.Running]) }

func (f *function) local(slots, cpus int) room {
	limit, per := f.cap(slots, cpus)
	return localRoom{f, limit, per}
}

func (s *State) choose(now int64, roomOf func(*function) room) []cloud.Range {
	if s.stopping != notStopping || s.status.Final() {
		return nil
	}
	var out []cloud.Range
	fs := make([]*function, 0, len(s.order))
	for _, f := range s.order {
		f.full = false
		if f.phase == running && (f.ready.size > 0 || len(f.retryAt) > 0 && f.retryAt[0].due <= now) {
			fs = append(fs, f)
		}
	}
	sort.SliceStable(fs, func(i, j int) bool { return fs[i].depth > fs[j].depth })
	for _, f := range fs {
		out = s.handOutOf(f, roomOf(f), now, out)
	}
	return out
}

// cap is how many tasks of f may be in agents' hands, and how many in a range.
// Without threads_per_worker one task per CPU runs at a time.
func (f *function) cap(slots, cpus int) (inHand, perRange int) {
	limit := min(slots, cpus)
	if t := f.spec.Hardware.Threads; t > 0 {
		limit = t
	}
	strict := f.spec.OnFailureStop
	if c := f.spec.Concurrency; c > 0 && c <= limit {
		limit, strict = c, true
	}
	if limit < slots || strict {
		// One range is worked on by one slot, so with ranges of one task the
		// number in hand is the number that runs, and nothing starts behind a
		// failure that is on its way here.
		return limit, 1
	}
	ended := f.counts[task.Succeeded] + f.counts[task.Failed]
	if f.feeds && (f.mean >= longTask || ended < 10*slots) { // a few say little about the others
		// Nothing waits in the hands of agents: the next free slot is for what
		// streams behind the task that has just ended.
		return slots, 1
	}
	per := 1
	if f.mean >= 0 {
		per = maxRange
		if n := rangeSeconds / f.mean; n < maxRange { // also when mean is 0: +Inf
			per = max(1, int(n))
		}
	}
	left := f.ready.size + f.counts[task.Running]
	per = min(per, max(1, left/(2*slots)))
	return 2 * slots * per, per
}

func (s *State) handOutOf(f *function, room room, now int64, out []cloud.Range) []cloud.Range {
	if room == nil {
		f.full = true
		return out
	}
	same := func(a, b int) bool { return f.table.attempts[a] == f.table.attempts[b] }
	n := room.next()
	for ; n > 0; n = room.next() {
		r := cloud.Range{Run: s.run, Function: f.spec.Name}
		if len(f.retryAt) > 0 && f.retryAt[0].due <= now {
			it := f.popRetry()
			r.From, r.To, r.Memory = it.index, it.index+1, it.memory
		} else if r.From, r.To = f.ready.pop(n, same); r.From == r.To {
			break
		}
		r.Attempt = int(f.table.attempts[r.From]) + 1
		for i := r.From; i < r.To; i++ {
			f.move(i, task.Running)
		}
		if s.hands != nil {
			s.address(f, &r)
		}
		out = append(out, r)
	}
	f.full = n <= 0
	return out
}

// takeBack returns tasks that an agent held and did not start.
func (s *State) takeBack(fn string, indices []int) []action {
	f := s.byName[fn]
	if f == nil {
		return nil
	}
	for _, i := range indices {
		if i >= len(f.table.status) || f.table.status[i] != task.Running {
			continue
		}
		switch {
		case s.stopping != notStopping:
			s.setFinal(f, i, task.Cancelled)
		case f.stopped:
			s.setFinal(f, i, task.Skipped)
		default:
			f.move(i, task.Pending)
			f.putBack(i)
		}
	}
	return s.advance()
}

// takeBackAll returns everything that agents held: there are none any more.
func (s *State) takeBackAll() []action {
	var acts []action
	for _, f := range s.order {
		if f.counts[task.Running] == 0 {
			continue
		}
		var held []int
		for i, st := range f.table.status {
			if st == task.Running {
				held = append(held, i)
			}
		}
		acts = append(acts, s.takeBack(f.spec.Name, held)...)
	}
	return acts
}

// nextDue is when the next waiting attempt may start; MaxInt64 if none waits
// but for a free slot, which an outcome will tell of.
func (s *State) nextDue() int64 {
	due := int64(math.MaxInt64)
	for _, f := range s.order {
		if len(f.retryAt) > 0 && !f.full {
			due = min(due, f.retryAt[0].due)
		}
	}
	return due
}
