package executor

import (
	"fmt"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// action is what the coordinator is to do after a step, once the events that
// led to it are durable. Every action can be repeated harmlessly.
type action interface{ isAction() }

type (
	// actPrepare: evaluate the function's if and expand its map, then send evPrepared.
	actPrepare struct{ f *function }
	// actStopWork: end what runs; agents report what they held.
	actStopWork struct{}
	// actFinish: record evFinish with this status.
	actFinish struct{ status RunStatus }
	// actNotice: tell people.
	actNotice struct{ n Notice }
)

func (actPrepare) isAction()  {}
func (actStopWork) isAction() {}
func (actFinish) isAction()   {}
func (actNotice) isAction()   {}

// applyEvent folds one recorded event (outcomes apart, see applyOutcomes).
func (s *State) applyEvent(e *event) []action {
	s.last = max(s.last, e.At)
	var acts []action
	switch e.Kind {
	case evBegin:
		s.begun, s.status, s.started = true, RunRunning, e.At
		for _, b := range e.Functions {
			if f := s.byName[b.Name]; f != nil && b.Tasks >= 0 {
				f.plan(b.Tasks)
			}
		}
	case evCoordinator:
		s.takeOver(e)
		if s.stopping != notStopping {
			s.advance()
			return nil // it died while it was being stopped; evReopen follows
		}
	case evPrepared:
		if f := s.byName[e.Function]; f != nil && (f.phase == waiting || f.phase == preparing) {
			acts = s.prepared(f, e)
		}
	case evCancel, evLimit:
		acts = s.stop(e)
	case evReopen:
		s.reopen(func(task.Status, task.Cause) bool { return false })
	case evRetry:
		if e.File > 0 {
			s.file = e.File
		}
		s.retry(e)
	case evHeld:
		s.hold(e)
		return nil
	case evRefused:
		return s.takeBack(e.Function, e.Indices)
	case evGone:
		return s.takeBackAll()
	case evMachine:
		s.fleet.machine(*e.Machine)
		return nil
	case evSegments:
		s.fleet.folded(e.Segments)
		return nil
	case evFinish:
		s.takeBackAll() // a fold may not have seen that they gave it back
		for _, f := range s.order {
			if f.phase == preparing && s.stopping != notStopping {
				s.closeAs(f, task.Cancelled, s.reason) // its coordinator died, and nobody prepares it any more
			}
		}
		s.status, s.finished = e.Status, e.At
		s.endSession(e.At)
		return nil
	}
	for fn, hash := range e.Code {
		s.code[fn] = hash
	}
	return append(acts, s.advance()...)
}

func (s *State) endSession(at int64) {
	if s.session != 0 {
		s.active += max(0, at-s.session)
		s.session = 0
	}
}

// takeOver: a coordinator begins; nothing is in anybody's hands. A finished
// run stays finished until evRetry or evReopen opens it.
func (s *State) takeOver(e *event) {
	if s.session != 0 && s.last > s.session {
		s.active += s.last - s.session
	}
	s.epoch, s.session = e.Epoch, e.At
	s.host, s.pid = e.Host, e.PID
	for _, f := range s.order {
		if f.phase == preparing {
			f.phase = waiting
		}
		if f.phase != running {
			continue
		}
		for i, st := range f.table.status {
			switch {
			case st != task.Running:
			case s.stopping != notStopping:
				s.setFinal(f, i, task.Cancelled)
			case f.stopped:
				s.setFinal(f, i, task.Skipped)
			}
		}
		f.requeue()
	}
}

// requeue builds the queues of a running function from its table.
func (f *function) requeue() {
	f.ready.clear()
	f.retryAt = nil
	for i, st := range f.table.status {
		if st == task.Running {
			f.move(i, task.Pending)
			st = task.Pending
		}
		if st == task.Pending && f.mayRun(i) {
			f.putBack(i)
		}
	}
}

// mayRun says whether nothing but a slot is missing for a pending task.
func (f *function) mayRun(i int) bool {
	return f.from == nil || !f.held() && f.from.table.status != nil && i < f.from.n && f.from.table.status[i] == task.Succeeded
}

// held says that f waits for the whole function that its tasks follow.
func (f *function) held() bool { return f.barrier && f.from.phase != done }

// prepared: the function's if and map are evaluated.
func (s *State) prepared(f *function, e *event) []action {
	if !f.planned || f.table.status == nil && f.n != e.Tasks && !e.Skip && !e.Fail {
		f.plan(e.Tasks)
	}
	f.makeTable()
	switch {
	case s.stopping != notStopping:
		return s.closeAs(f, task.Cancelled, s.reason)
	case e.Skip:
		return s.closeAs(f, task.Skipped, e.Reason)
	case e.Fail:
		s.closeAs(f, task.Skipped, e.Reason)
		f.status = task.Failed
		return []action{actNotice{Notice{Time: time.Unix(0, e.At), Kind: NoticeFailed, Function: f.spec.Name, Text: e.Reason}},
			actNotice{Notice{Time: time.Unix(0, e.At), Kind: NoticeFunction, Function: f.spec.Name, Text: f.status.String()}}}
	}
	f.phase = running
	for i := 0; i < f.n; i++ {
		switch {
		case f.table.status[i] != task.Pending:
		case f.only != nil && !f.only[i]:
			f.move(i, task.Skipped)
		case f.from == nil:
			f.ready.push(i, i+1)
		default:
			s.follow(f, i)
		}
	}
	s.holdEarly(f)
	return []action{actNotice{Notice{Time: time.Unix(0, e.At), Kind: NoticePlanned, Function: f.spec.Name,
		Text: fmt.Sprintf("%d %s", f.n, plural(f.n, "task"))}}}
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// follow moves a pending task of a streaming function after its upstream task.
func (s *State) follow(f *function, i int) {
	if f.phase != running || f.table.status[i] != task.Pending || f.held() {
		return
	}
	up := task.Pending
	if f.from.table.status != nil && i < f.from.n {
		up = f.from.table.status[i]
	}
	switch up {
	case task.Succeeded:
		f.ready.push(i, i+1)
	case task.Failed, task.Skipped:
		s.setFinal(f, i, task.Skipped)
	case task.Cancelled:
		s.setFinal(f, i, task.Cancelled)
	}
}

// setFinal ends a task and lets those that stream behind it follow.
func (s *State) setFinal(f *function, i int, st task.Status) {
	f.move(i, st)
	for _, d := range f.dependents {
		if d.from == f {
			s.follow(d, i)
		}
	}
}

// closeAs ends a function: its open tasks get the status too.
func (s *State) closeAs(f *function, st task.Status, reason string) []action {
	f.makeTable()
	f.ready.clear()
	f.retryAt = nil
	for i, old := range f.table.status {
		if old == task.Pending {
			s.setFinal(f, i, st)
		}
	}
	f.phase, f.status, f.reason = done, st, reason
	f.behindFailure = false
	for _, need := range f.needs {
		f.behindFailure = f.behindFailure || st == task.Skipped && (need.status == task.Failed || need.behindFailure)
	}
	s.release(f)
	text := st.String()
	if reason != "" {
		text += ": " + reason
	}
	return []action{actNotice{Notice{Time: time.Unix(0, s.last), Kind: NoticeFunction, Function: f.spec.Name, Text: text}}}
}

// release lets the tasks follow that waited for all of f.
func (s *State) release(f *function) {
	for _, d := range f.dependents {
		if d.from != f || !d.barrier || d.phase != running {
			continue
		}
		for i := range d.table.status {
			s.follow(d, i)
		}
	}
}

// applyOutcomes folds what agents reported. pos is the position of the record.
func (s *State) applyOutcomes(o *outcomes, pos int64) []action {
	s.last = max(s.last, o.at)
	f := s.byName[o.function]
	if f == nil || f.table.status == nil {
		return nil
	}
	var acts []action
	for k := range o.list {
		oc := &o.list[k]
		if oc.Index >= f.n || f.table.status[oc.Index].Final() || oc.Attempt > 0 && oc.Attempt <= int(f.table.attempts[oc.Index]) {
			continue // a doubled report, or one of an attempt that was given up
		}
		if s.hands != nil && f.table.status[oc.Index] == task.Pending {
			f.unqueue(oc.Index) // who was thought to have lost it speaks
		}
		noRetry := o.noRetry != nil && o.noRetry[k]
		acts = append(acts, s.outcome(f, oc, noRetry, o.at, outcomePos(pos, k))...)
	}
	return append(acts, s.advance()...)
}

func (s *State) outcome(f *function, oc *task.Outcome, noRetry bool, at, pos int64) []action {
	i := oc.Index
	t := &f.table
	t.pos[i], t.cause[i] = pos, oc.Cause
	t.seconds[i] = float32(oc.Seconds)
	t.attempts[i] = uint16(min(max(int(t.attempts[i]), oc.Attempt), 65535))
	t.flags[i] &^= taskCached | taskLeftOut
	f.seconds += oc.Seconds
	if oc.Attempt > 0 && oc.Cause != task.CauseMachine && oc.Status != task.Cancelled { // a lost attempt says nothing
		f.timed++
		f.timedSeconds += oc.Seconds
	}
	s.fleet.worked(oc.Machine, f.spec.Name, oc.Seconds)
	if s.counted != nil {
		s.counted(f.spec.Name, oc)
	}
	if oc.Attempt > 0 {
		if f.mean < 0 {
			f.mean = oc.Seconds
		} else {
			f.mean += (oc.Seconds - f.mean) * 0.1
		}
	}
	switch oc.Status {
	case task.Succeeded:
		if oc.Cached {
			t.flags[i] |= taskCached
			f.cached++
		}
		s.setFinal(f, i, task.Succeeded)
	case task.Skipped:
		t.flags[i] |= taskLeftOut
		s.setFinal(f, i, task.Skipped)
	case task.Cancelled:
		if s.stopping == notStopping {
			// Nobody cancelled the run: its agent was ended by trouble of the
			// machine or the store, and takes no part in what becomes of the task.
			f.move(i, task.Pending)
			f.putBack(i)
			return nil
		}
		s.setFinal(f, i, task.Cancelled)
	case task.Failed:
		return s.failure(f, oc, noRetry, at)
	}
	return nil
}

// failure decides whether a failed attempt is followed by another.
func (s *State) failure(f *function, oc *task.Outcome, noRetry bool, at int64) []action {
	i := oc.Index
	kept := *oc
	if s.stopping == notStopping && !f.stopped {
		if wait, memory, again := s.nextAttempt(f, oc, noRetry); again {
			f.move(i, task.Pending)
			f.retries++
			f.pushRetry(retryItem{due: at + int64(wait), index: i, memory: memory})
			return []action{actNotice{Notice{Time: time.Unix(0, at), Kind: NoticeRetry, Function: f.spec.Name,
				Outcome: &kept, Delay: wait, Text: oc.Message}}}
		}
	}
	s.setFinal(f, i, task.Failed)
	acts := []action{actNotice{Notice{Time: time.Unix(0, at), Kind: NoticeFailed, Function: f.spec.Name, Outcome: &kept, Text: oc.Message}}}
	if f.spec.OnFailureStop && !f.stopped && f.failedTooOften() {
		f.stopped = true
		f.ready.clear()
		f.retryAt = nil
		for j, st := range f.table.status {
			if st == task.Pending {
				s.setFinal(f, j, task.Skipped)
			}
		}
	}
	return acts
}

// stop: a cancel or a limit ends the run.
func (s *State) stop(e *event) []action {
	if s.stopping != notStopping || s.status.Final() {
		return nil
	}
	s.stopping, s.reason = stopCancel, e.Reason
	if e.Kind == evLimit {
		s.stopping = stopLimit
	}
	acts := []action{actStopWork{}, actNotice{Notice{Time: time.Unix(0, e.At), Kind: NoticeStopping, Text: e.Reason}}}
	for _, f := range s.order {
		switch f.phase {
		case waiting:
			acts = append(acts, s.closeAs(f, task.Cancelled, e.Reason)...)
		case running:
			f.ready.clear()
			f.retryAt = nil
			for i, st := range f.table.status {
				if st == task.Pending {
					s.setFinal(f, i, task.Cancelled)
				}
			}
		}
	}
	return acts
}

// advance moves functions on after a change: prepares what may start, ends
// what is complete, finishes the run.
func (s *State) advance() []action {
	if !s.begun || s.status.Final() {
		return nil
	}
	var acts []action
	for changed := true; changed; {
		changed = false
		for _, f := range s.order {
			before := f.phase
			acts = append(acts, s.advanceOne(f)...)
			changed = changed || f.phase != before
		}
	}
	for _, f := range s.order {
		if f.phase != done {
			return acts
		}
	}
	return append(acts, actFinish{s.finalStatus()})
}

func (s *State) advanceOne(f *function) []action {
	switch f.phase {
	case waiting:
		if s.stopping != notStopping {
			return s.closeAs(f, task.Cancelled, s.reason)
		}
		return s.mayPrepare(f)
	case running:
		if f.counts[task.Pending]+f.counts[task.Running] == 0 && (f.from == nil || f.from.phase == done) {
			return s.complete(f)
		}
	}
	return nil
}

// mayPrepare starts a function whose needs allow it, or skips it.
func (s *State) mayPrepare(f *function) []action {
	var bad []string
	for _, need := range f.needs {
		streams := need == f.from && !f.barrier
		if streams && need.phase == running {
			continue
		}
		if need.phase != done {
			return nil
		}
		if !need.ok() && !(streams && need.table.status != nil && need.counts[task.Succeeded] > 0) {
			if !f.excuses(need) {
				bad = append(bad, need.spec.Name+" "+past(need.status))
			}
		}
	}
	if f.from != nil && (!f.planned || f.n != f.from.n) {
		f.plan(f.from.n) // once more, if the upstream function was skipped before its tasks were known
	}
	if len(bad) > 0 {
		return s.closeAs(f, task.Skipped, strings.Join(bad, ", "))
	}
	f.phase = preparing
	return []action{actPrepare{f}}
}

// excuses says whether the if of f decides what becomes of it although need
// did not succeed.
func (f *function) excuses(need *function) bool {
	return f.spec.If.Excuses(need.spec.Name, need.status.String())
}

func past(st task.Status) string {
	switch st {
	case task.Skipped:
		return "was skipped"
	case task.Cancelled:
		return "was cancelled"
	}
	return st.String()
}

// complete gives a function without open tasks its status.
func (s *State) complete(f *function) []action {
	var reason string
	st := task.Succeeded
	switch {
	case f.counts[task.Cancelled] > 0:
		st, reason = task.Cancelled, s.reason
	case f.failedTooOften():
		st = task.Failed
		reason = fmt.Sprintf("%d of %d %s failed", f.counts[task.Failed], f.n, plural(f.n, "task"))
	case f.from != nil && f.from.status != task.Succeeded && !f.excuses(f.from):
		st, reason = task.Skipped, f.from.spec.Name+" "+past(f.from.status)
	}
	return s.closeAs(f, st, reason)
}

func (s *State) finalStatus() RunStatus {
	switch s.stopping {
	case stopCancel:
		return RunCancelled
	case stopLimit:
		return RunStopped
	}
	for _, f := range s.order {
		if f.status == task.Failed {
			return RunFailed
		}
	}
	return RunSucceeded
}
