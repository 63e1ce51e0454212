package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Policy is what a schedule says beside its times.
type Policy struct {
	Overlap  string        // skip, queue, replace, allow
	Catchup  string        // none, latest, all
	Deadline time.Duration // 0: none
	Jitter   time.Duration
	Paused   bool
}

// OnTime is how late a tick may start under catchup: none without a deadline:
// an outside trigger that comes every quarter of an hour is not late.
const OnTime = 15 * time.Minute

// LiveRun is a run that a schedule started and that has not ended.
type LiveRun struct {
	Run     string    `json:"run"`
	Tick    time.Time `json:"tick"`
	Started time.Time `json:"started"`
}

// Action is what is to be done with a tick.
type Action uint8

// The actions.
const (
	Run  Action = iota // start a run
	Skip               // it does not run, as its schedule says
	Miss               // it should have run, and could not
	Wait               // not yet
)

var actionNames = [...]string{"run", "skip", "miss", "wait"}

func (a Action) String() string { return actionNames[a] }

// Verdict is what becomes of a tick now.
type Verdict struct {
	Tick    time.Time
	Action  Action
	Why     string    // of all but Run, for people
	Replace []LiveRun // runs to cancel before
}

// Delay is how much later than its tick a run starts for the schedule's
// jitter: the same for everybody who asks.
func Delay(id string, tick time.Time, jitter time.Duration) time.Duration {
	if jitter <= 0 {
		return 0
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", id, tick.Unix()))
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(jitter))
}

// Tick is one that has no outcome yet.
type Tick struct {
	At time.Time
	// Seen: somebody noticed it in time, and it had to wait.
	Seen bool
	// Paused: the schedule rested when it was due.
	Paused bool
}

// Decide says what becomes of ticks that have no outcome yet: oldest first,
// none of them in the future. id is the schedule's, live its runs.
//
// Whether a run overlaps is judged now, not at the time of the tick: a tick
// whose turn comes late runs if nothing is in its way any more.
// starting says that the run of another tick is about to start.
func Decide(id string, p Policy, ticks []Tick, now time.Time, live []LiveRun, starting bool) []Verdict {
	out := make([]Verdict, 0, len(ticks))
	var candidates []time.Time
	add := func(t time.Time, a Action, why string) { out = append(out, Verdict{Tick: t, Action: a, Why: why}) }
	for _, tick := range ticks {
		t := tick.At
		age := now.Sub(t)
		switch {
		case p.Paused || tick.Paused:
			add(t, Skip, "paused")
		case age < Delay(id, t, p.Jitter):
			add(t, Wait, "its start is spread by jitter")
		case p.Deadline > 0 && age > p.Deadline:
			add(t, Miss, "it could not start within the deadline of "+p.Deadline.String()+blame(t, live))
		case p.Catchup == "none" && p.Deadline == 0 && age > OnTime+p.Jitter && !tick.Seen:
			add(t, Miss, "nobody looked after the schedule at the time, and catchup is none")
		default:
			candidates = append(candidates, t)
		}
	}
	if p.Catchup != "all" && len(candidates) > 1 {
		last := candidates[len(candidates)-1]
		for _, t := range candidates[:len(candidates)-1] {
			if p.Overlap == "skip" && len(during(t, live)) > 0 {
				add(t, Skip, "run "+during(t, live)[0].Run+" was still running")
				continue
			}
			add(t, Miss, "the tick of "+last.UTC().Format(time.RFC3339)+" runs in its place (catchup: "+p.Catchup+")")
		}
		candidates = candidates[len(candidates)-1:]
	}
	for _, t := range candidates {
		switch {
		case p.Overlap == "allow":
			add(t, Run, "")
		case starting:
			add(t, Wait, "the run of another tick is just starting")
		case len(live) == 0:
			add(t, Run, "")
			starting = true
		case p.Overlap == "replace":
			out = append(out, Verdict{Tick: t, Action: Run, Replace: live})
			starting = true
		case p.Overlap == "skip" && len(during(t, live)) > 0:
			add(t, Skip, "run "+during(t, live)[0].Run+" was still running")
		default: // queue, or to be caught up one after the other
			add(t, Wait, "run "+live[0].Run+" is still running")
		}
	}
	return out
}

// during is the live runs that had begun when a tick came.
func during(t time.Time, live []LiveRun) []LiveRun {
	var list []LiveRun
	for _, r := range live {
		if !r.Started.After(t) {
			list = append(list, r)
		}
	}
	return list
}

func blame(t time.Time, live []LiveRun) string {
	if d := during(t, live); len(d) > 0 {
		return ": run " + d[0].Run + " was in the way"
	}
	return ""
}
