package machine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// act is what a machine does next.
type act int

const (
	// goOn: nothing changes before next.
	goOn act = iota
	// drain: take nothing more; leave when what was taken has ended.
	drain
	// leave: end tasks now and report them.
	leave
	// cutOff: end tasks now and report nothing of them; another may have them.
	cutOff
)

// decision is what to do, and what comes after a drain or leave.
type decision struct {
	act  act
	why  string // for people, after "machine i-1 "
	pool bool   // wait for another run afterwards; otherwise power off
	// blameMachine: tasks that are ended did not fail by themselves, and were
	// not cancelled by anybody.
	blameMachine bool
	hurry        bool      // of a drain: what has not started is given back
	next         time.Time // when to decide again, if nothing happens before
}

// facts is what decide goes by.
type facts struct {
	now       time.Time
	name      string // "<machine>/<session>"
	setup     *wire.Setup
	control   *wire.Control
	launched  time.Time
	notice    time.Time // zero: none
	ending    bool      // the process was asked to end
	preparing bool
	held      int       // ranges
	idleSince time.Time // since when held is 0
	heard     time.Time // until then the machine is known to have been heard of and to have heard
	trouble   error     // why the worker ended
}

// decide is what a machine does in a run. What ends it sooner stands first.
func decide(f *facts) decision {
	c := f.control
	off := func(format string, args ...any) decision {
		return decision{act: leave, why: fmt.Sprintf(format, args...), blameMachine: true}
	}
	drainAt, dieAt := lifeEnds(f.launched, f.setup.MaxLife)
	switch more := c.Kinds[f.setup.Kind].More || keeps(c, f); {
	case f.ending:
		return off("is shutting down")
	case !f.now.Before(c.Until):
		return off("had no grant any more: its coordinator did not extend it beyond %s", c.Until.UTC().Format(time.RFC3339))
	case !f.now.Before(dieAt):
		return off("had reached its max_life of %v", f.setup.MaxLife)
	case slices.Contains(c.Lost, f.name):
		return decision{act: cutOff, why: "was given up by the coordinator"}
	case f.now.Sub(f.heard) >= wire.CutOff:
		return decision{act: cutOff, why: fmt.Sprintf("could not reach the store for %v", wire.CutOff)}
	case !f.notice.IsZero():
		return off("was taken back")
	case f.trouble != nil:
		return off("could not go on: %v", f.trouble)
	case c.Stop == wire.StopCancel:
		return decision{act: leave, why: "left: the run was cancelled"}
	case c.Stop != "":
		return decision{act: leave, why: "left: the run has ended", pool: true, blameMachine: true}
	case !f.now.Before(drainAt):
		return decision{act: drain, why: fmt.Sprintf("is near its max_life of %v", f.setup.MaxLife), hurry: true, next: dieAt}
	case !more && f.preparing:
		return decision{act: leave, why: "left: there is nothing for it to do", pool: true, blameMachine: true}
	case !more && f.held == 0:
		return decision{act: drain, why: "left: there is nothing more for it to do", pool: true}
	case idle(f) && !f.now.Before(f.idleSince.Add(f.setup.IdleTimeout)):
		return decision{act: drain, why: fmt.Sprintf("left: it had nothing to do for its idle_timeout of %v", f.setup.IdleTimeout)}
	}
	next := earliest(c.Until, dieAt, drainAt, f.heard.Add(wire.CutOff))
	if idle(f) {
		next = earliest(next, f.idleSince.Add(f.setup.IdleTimeout))
	}
	return decision{next: next}
}

// keeps says whether the machine stays although there is no work for all.
func keeps(c *wire.Control, f *facts) bool {
	id, _, _ := strings.Cut(f.name, "/")
	return slices.Contains(c.Kinds[f.setup.Kind].Keep, id)
}

func idle(f *facts) bool { return f.held == 0 && !f.preparing && f.setup.IdleTimeout > 0 }

// lifeEnds is when a machine takes no more work, and when it leaves, so that it
// has reported before its system's timer strikes.
func lifeEnds(launched time.Time, maxLife time.Duration) (drainAt, dieAt time.Time) {
	if maxLife <= 0 {
		maxLife = 24 * time.Hour
	}
	dieAt = launched.Add(maxLife - min(maxLife/10, 2*time.Minute))
	return dieAt.Add(-min(maxLife/10, 10*time.Minute)), dieAt
}

// earliest is the first of some times; zero ones do not count.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// answer is what to do with a range that the queue has handed out.
type answer int

const (
	// take it: claim it, or (after the claim) start it.
	take answer = iota
	// drop: nobody has to look at this message again.
	drop
	// later: somebody may have to look at it again.
	later
)

// How long a message is hidden that is not for now.
const (
	afterLive = 10 * time.Minute // a live machine has the range
	afterSoon = 5 * time.Second  // of a coordinator that is not known here yet
)

// admit decides about a range before it is claimed, on a machine with so much
// memory (0: not known). held says that this session has it, or is about to.
func admit(r *cloud.Range, run string, memory int64, c *wire.Control, held bool) (answer, time.Duration) {
	switch epoch := wire.EpochOf(r.ID); {
	case r.Run != run || r.Hint != "" || epoch == 0 || r.To <= r.From:
		return drop, 0
	case held:
		return later, afterLive
	case epoch < c.Epoch:
		return drop, 0
	case epoch > c.Epoch:
		return later, afterSoon
	case memory > 0 && r.Memory > memory:
		return later, afterLive // it was meant for larger machines
	}
	return take, 0
}

// conflict decides about a range that somebody has claimed already.
func conflict(found, mine *wire.Claim, c *wire.Control) (answer, time.Duration) {
	switch {
	case found.Nonce == mine.Nonce:
		return take, 0 // only the reply was lost
	case found.Machine == mine.Machine:
		// What this session has in hand is not claimed again: it has ended. The
		// ranges of an earlier session are handed out anew.
		return drop, 0
	case slices.Contains(c.Lost, sessionName(found.Machine, found.Session)), wire.EpochOf(mine.Range.ID) < c.Epoch:
		return drop, 0
	}
	return later, afterLive
}

func sessionName(machine string, session int) string { return fmt.Sprintf("%s/%d", machine, session) }

// beatFacts is what beatAt goes by.
type beatFacts struct {
	last  time.Time // when the last one was begun; zero: there was none
	now   bool      // the state or the epoch has changed
	held  bool      // what is held has changed
	live  bool      // which tasks run, or the number of segments, has changed
	retry time.Time // after a failure: not before
	pace  time.Duration
}

// beatAt is when the next heartbeat is due.
func beatAt(f *beatFacts) time.Time {
	at := f.last.Add(wire.BeatEvery)
	switch {
	case f.last.IsZero() || f.now:
		at = f.last
	case f.held:
		at = f.last.Add(beatHeld)
	case f.live:
		at = earliest(at, f.last.Add(max(beatLive, 2*f.pace)))
	}
	if at.Before(f.retry) {
		return f.retry
	}
	return at
}

const (
	beatHeld = time.Second // least time between beats for what is held
	// beatLive is the same for which tasks run and what was reported; twice the
	// pace in a large fleet. Who follows a log learns from it where that is.
	beatLive = 1500 * time.Millisecond
)

// segmentFacts is what segmentAt goes by.
type segmentFacts struct {
	pending bool      // something is to be reported
	done    bool      // nothing is held any more, or everything must go out now
	last    time.Time // when the last one was begun
	retry   time.Time
	pace    time.Duration
}

// segmentAt is when the next segment is due; zero: there is none to write.
func segmentAt(f *segmentFacts) time.Time {
	if !f.pending {
		return time.Time{}
	}
	at := f.last.Add(max(f.pace, minPace))
	if f.done {
		at = f.last
	}
	if at.Before(f.retry) {
		return f.retry
	}
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	return at
}

// minPace is the least time between two segments while work goes on.
const minPace = time.Second
