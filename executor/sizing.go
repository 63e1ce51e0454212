package executor

import (
	"math"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// A range for machines costs a message, a claim and its part of a segment, and
// the way from the end of one to the beginning of the next takes seconds. So
// ranges are longer than those for this machine, and some more are handed out
// than there are slots.
const (
	// plentyWork is how many seconds of work a range holds while there is plenty.
	plentyWork = 5.0
	// leastWork is how many it holds at least: less than it takes to replace.
	leastWork = 1.25
	// rangesPerSecond is how many ranges a fleet may end in a second.
	rangesPerSecond = 50
	// wayBack is how many seconds pass from the end of a range until the slot
	// could have another one that had to be handed out first.
	wayBack = 5.0
	// maxAhead is the most ranges that wait for a slot.
	maxAhead = 8
	// maxRemoteRange is the most tasks in a range.
	maxRemoteRange = 1024
)

// remoteRoom is ranges: as many as slots, and those that are on their way.
type remoteRoom struct {
	f     *function
	slots int
}

// next makes ranges smaller towards the end, so that machines end together: one
// is at most half of what each slot will still get. Ranges that wait cost nothing
// then, as whichever slot is free takes them.
func (r remoteRoom) next() int {
	f := r.f
	limit := math.MaxInt
	if c := f.spec.Concurrency; c > 0 {
		limit = c // one slot works on a range
	}
	if f.spec.OnFailureStop {
		limit = min(limit, r.slots) // nothing starts behind a failure that is on its way here
	}
	per, ahead := f.size(min(r.slots, limit))
	if f.ranges >= min(r.slots+ahead, limit) {
		return 0
	}
	return per
}

// size is how many tasks a range holds when so many slots work on the
// function, and how many ranges are handed out beyond one for each slot.
func (f *function) size(slots int) (per, ahead int) {
	if f.spec.OnFailureStop {
		return 1, 0
	}
	mean := f.meanSeconds()
	if mean < 0 && f.spec.Expect > 0 {
		mean = f.spec.Expect.Seconds()
	}
	if mean < 0 {
		// All were found in the cache until now. That may end with the next.
		return min(64, max(1, f.cached/(4*slots))), 3 * slots
	}
	tasksIn := func(seconds float64) int { return max(1, int(min(maxRemoteRange, seconds/mean))) } // also when mean is 0: +Inf
	// What waits for the task before it (from:) will come, too.
	per = max(tasksIn(leastWork), f.counts[task.Pending]/(2*slots))
	per = min(per, tasksIn(max(plentyWork, float64(slots)/rangesPerSecond)))
	return per, 1 + int(float64(slots)*min(maxAhead, wayBack/(float64(per)*mean)))
}

// meanSeconds is how long an attempt took on average; negative if none has ended.
func (f *function) meanSeconds() float64 {
	if f.timed > 0 {
		return f.timedSeconds / float64(f.timed)
	}
	return -1
}

// handOutRemote is handOut for machines; slots says how many tasks of a
// function they run at a time.
func (s *State) handOutRemote(slots map[string]int, now int64) []cloud.Range {
	return s.choose(now, func(f *function) room {
		if f.start != startWritten {
			return nil
		}
		return remoteRoom{f, max(1, slots[f.spec.Name])}
	})
}

// address makes a range one that machines can claim.
func (s *State) address(f *function, r *cloud.Range) {
	r.ID = s.rangeID()
	if f.from != nil {
		r.Upstream = encodeUpstream(r.From, f.from.table.pos[r.From:r.To])
	}
	is := make([]int, 0, r.To-r.From)
	for i := r.From; i < r.To; i++ {
		is = append(is, i)
	}
	f.give(*r, is)
}
