package fleet

import (
	"fmt"
	"reflect"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// action is something to do that decide found.
type action any

type (
	// actLaunch rents or invites n machines of a kind.
	actLaunch struct {
		kind *kindState
		n    int
	}
	// actControl writes what machines are to be told.
	actControl struct{ control wire.Control }
	// actGiveUp ends the session of a machine for the run: what it held and did
	// not report is handed out again. terminate: the machine, too.
	actGiveUp struct {
		m         *machine
		why       string
		terminate bool
	}
	// actTerminate ends machines that hold nothing of the run.
	actTerminate struct {
		list []*machine
		why  string
	}
	// actBootLog fetches what a machine that never said hello left behind.
	actBootLog struct {
		m   *machine
		why string
	}
	// actEnded notes that a machine that had left is gone.
	actEnded struct {
		m   *machine
		why string
	}
	// actLimit stops the run.
	actLimit struct{ reason string }
	// actFail ends the run: it cannot go on.
	actFail struct{ err error }
	// actResend puts ranges on the queue once more.
	actResend struct{ list []*heldRange }
	// actWarn tells people, once in a while for the same key.
	actWarn struct{ key, text string }
)

const (
	// bootWithin is how long a machine may take until its first heartbeat.
	bootWithin = 10 * time.Minute
	// invitedWithin is the same for one that was invited from a pool, where
	// machines look for invitations every second: it may have ended by now.
	invitedWithin = 30 * time.Second
	// bootFailures in a row, with nothing that ever worked, end the run.
	bootFailures = 3
	// waitingTooLong is how long a range may lie on the queue while machines
	// have nothing to do; then it is sent again.
	waitingTooLong = 10 * time.Minute
	// idleRun is how long machines may have nothing to do until people are told.
	idleRun = 5 * time.Minute
	// preparesTooLong is how long a machine may install software until people
	// are told.
	preparesTooLong = 10 * time.Minute
	// enoughEnded tasks say how long the others will take.
	enoughEnded = 5
	// sayAgain is how long the same is not told again.
	sayAgain = 15 * time.Minute
	// vanished listings without a machine mean that it has ended.
	vanished = 2
)

// decide finds what is to be done. It changes nothing.
func decide(s *state, now time.Time) []action {
	var acts []action
	if s.epoch == 0 {
		return nil
	}
	acts = append(acts, s.decideMachines(now)...)
	if s.stop == "" && s.open && !s.failed {
		acts = append(acts, s.decideMoney(now)...)
		if err := s.noMachineStarts(); err != nil {
			acts = append(acts, actFail{err})
		} else if !s.stopAsked && s.looking == 0 {
			for k, n := range s.launches(now) {
				acts = append(acts, actLaunch{k, n})
			}
		}
		acts = append(acts, s.decideWarnings(now)...)
	}
	if c, ok := s.decideControl(now); ok {
		acts = append(acts, actControl{c})
	}
	return acts
}

// decideMachines looks for machines that are lost, or not needed.
func (s *state) decideMachines(now time.Time) []action {
	var acts []action
	for _, m := range s.machines { // in any order: each is for itself
		gone := m.missing >= vanished && m.confirmed
		switch {
		case m.losing || m.phase == ended:
		case m.phase == booting && gone:
			acts = append(acts, actBootLog{m, "it ended before it said hello"})
		case m.phase == booting && m.silent > m.bootWithin():
			acts = append(acts, actBootLog{m, fmt.Sprintf("it did not say hello within %s", m.bootWithin())})
		case m.phase == booting:
		case (gone || m.phase == left) && (m.reading || m.folded < m.known): // its last words first
		case m.phase == left && s.holds(m):
			acts = append(acts, actGiveUp{m: m, why: orText(m.beat.Why, "it left with work that it had not done")})
		case gone && (m.phase == left || m.phase == leaving && !s.holds(m)):
			acts = append(acts, actEnded{m, orText(m.dismissed, orText(m.beat.Why, "it left"))})
		case gone:
			acts = append(acts, actGiveUp{m: m, why: orText(m.dismissed, orText(m.beat.Why, "it has ended"))})
		case m.phase == left:
		case m.silent >= wire.Silence:
			acts = append(acts, actGiveUp{m: m, why: fmt.Sprintf("no sign of life for %s", m.silent.Round(time.Second)), terminate: true})
		}
	}
	return acts
}

func orText(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// bootWithin is how long the machine may take until its first heartbeat, while
// heartbeats can be read.
func (m *machine) bootWithin() time.Duration {
	if m.token == "" && !m.listed {
		return invitedWithin
	}
	return bootWithin
}

// holds says whether a machine holds ranges.
func (s *state) holds(m *machine) bool {
	for _, r := range s.ranges {
		if r.holder == m.name() {
			return true
		}
	}
	return false
}

func (s *state) decideMoney(now time.Time) []action {
	if s.stopAsked {
		return nil
	}
	drop, over := s.tooMany(now)
	if over {
		return []action{actLimit{fmt.Sprintf("limits.cost of $%.2f reached: $%.2f were spent, and what is left does not last for %s of a machine",
			s.limits.Cost, s.spent(now), shortest)}}
	}
	var acts []action
	for _, m := range drop {
		acts = append(acts, actGiveUp{m: m, why: fmt.Sprintf("it was ended to keep within limits.cost of $%.2f", s.limits.Cost), terminate: true})
	}
	return acts
}

// decideControl says what to write now, and whether that needs to be.
func (s *state) decideControl(now time.Time) (wire.Control, bool) {
	if s.writing {
		return wire.Control{}, false
	}
	c := s.control(now)
	old := s.written
	if s.dirty || old.Epoch != c.Epoch || !sameControl(old, c) {
		return c, true
	}
	// A grant that must be shorter is written at once, a longer one each minute.
	if c.Until.Before(old.Until.Add(-time.Second)) {
		return c, true
	}
	return c, now.Sub(old.Written) >= wire.GrantEvery-time.Second
}

// sameControl compares all but the times, and the pace, which may drift.
func sameControl(a, b wire.Control) bool {
	near := a.Pace <= 2*b.Pace && b.Pace <= 2*a.Pace
	a.Written, a.Until, a.Pace = b.Written, b.Until, b.Pace
	return near && reflect.DeepEqual(a, b)
}

// decideWarnings finds what people should know, and ranges that lie too long.
func (s *state) decideWarnings(now time.Time) []action {
	var acts []action
	for _, k := range s.kinds {
		// A heartbeat between two ranges shows a machine without any: who finds
		// none has had none for a while.
		idle := 0
		for _, m := range s.machines {
			if m.kind == k && m.phase == working && !m.idleFrom.IsZero() && now.Sub(m.idleFrom) > idleRun {
				idle++
			}
		}
		if idle == 0 {
			continue
		}
		var old []*heldRange
		stuck := false
		for _, r := range s.ranges {
			if r.kind != k || r.holder != "" {
				continue
			}
			stuck = stuck || now.Sub(r.sent) > idleRun
			if now.Sub(r.sent) > waitingTooLong {
				old = append(old, r)
			}
		}
		if stuck {
			acts = append(acts, actWarn{"queue " + k.Name, fmt.Sprintf("work for %s has lain on its queue for more than %s, and %d machines have nothing to do: is sqs:ReceiveMessage allowed to the machines' role?",
				k.Name, idleRun, idle)})
		}
		if len(old) > 0 {
			acts = append(acts, actResend{old})
		}
	}
	machines, preparing, price, slowPrice := 0, 0, 0.0, 0.0
	for _, m := range s.machines {
		switch {
		case m.phase != working || !m.counts():
		case m.beat.State == wire.StateWorking:
			machines++
			price += m.Price
		case m.beat.State == wire.StatePreparing && now.Sub(m.Joined) > preparesTooLong:
			preparing++
			slowPrice += m.Price
		}
	}
	if since := now.Sub(s.lastBusy); machines > 0 && since > idleRun {
		acts = append(acts, actWarn{"idle", fmt.Sprintf("%s had nothing to do for %s and cost $%.2f an hour", haveHas(machines), since.Round(time.Minute), price)})
	}
	if preparing > 0 {
		acts = append(acts, actWarn{"preparing", fmt.Sprintf("%s been preparing for more than %s, at $%.2f an hour: is the software slow to install?",
			haveHas(preparing), preparesTooLong, slowPrice)})
	}
	for _, d := range s.demand {
		if e := s.expect[d.Function].Seconds(); e > 0 && d.Mean > 2*e && !d.Done && d.Ended >= min(enoughEnded, d.Ended+d.Left) {
			acts = append(acts, actWarn{"slow " + d.Function, fmt.Sprintf("tasks of %s take %s where %s were planned: time and cost grow alike",
				d.Function, secondsText(d.Mean), secondsText(e))})
		}
		k := s.kindFor(d.Function, 0)
		if k != nil && k.Max == 0 && d.Running && d.Ready+d.InHand > 0 {
			acts = append(acts, actFail{&cloud.Error{Op: "launch", Resource: "machines for " + d.Function, Kind: cloud.KindInvalid,
				Err: fmt.Errorf("hardware.n_workers allows none")}})
		}
	}
	return acts
}

// haveHas is a number of machines with its verb.
func haveHas(n int) string {
	if n == 1 {
		return "1 machine has"
	}
	return fmt.Sprintf("%d machines have", n)
}

// secondsText is a time for people: as exact as matters.
func secondsText(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.1f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
