package machine

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// session is a part of a stay during which nobody had a reason to give the
// machine up. Everything below mu is guarded by it; goroutines wait for
// changes of it with wait.
type session struct {
	m    *machine
	st   *stay
	n    int    // from 1, over all stays of the machine in this run
	name string // "<machine>/<n>"
	log  *slog.Logger

	ctx  context.Context // of reading and writing; ends after the last beat
	stop context.CancelFunc
	work context.Context // of tasks
	kill context.CancelFunc
	// patience is for what tasks need of the store; it ends a little after work.
	patience context.Context
	giveUp   context.CancelFunc
	sub      sync.WaitGroup // goroutines that end with ctx

	mu      sync.Mutex
	changed chan struct{} // closed at the next change

	state     string
	why       string
	control   *wire.Control
	heardAt   time.Time // Control was read, seen from before the request
	beatAt    time.Time // the beat was written, likewise
	notice    time.Time
	ending    bool // the process was asked to end
	trouble   error
	worker    Worker
	worked    bool // the worker has ended
	idleSince time.Time

	// What was taken.
	taking    map[string]bool // ranges whose claims are on their way
	closed    bool            // nothing more is taken
	stopTake  context.CancelFunc
	taker     context.Context
	tap       *tap
	held      map[string]*hold // by range
	heldDirty bool

	// What is to be reported.
	discard bool   // nothing any more
	blame   string // not "": tasks that were ended failed with their machine, because of this
	pending []entry
	flush   bool // write segments without waiting

	seq      int
	beatNow  bool // a beat must not wait
	saidGone bool // the last beat is written
	poke     bool // Control must be read now
	errands  []*hold
	hintDue  int // the segment to hint at
}

// hold is a range that was claimed and has not ended.
type hold struct {
	d    cloud.Delivery
	from *tap
}

// entry is a batch of outcomes, or the end of a range behind its outcomes.
type entry struct {
	batch task.Batch
	end   *hold
}

func newSession(ctx context.Context, st *stay, n int) *session {
	m := st.m
	s := &session{m: m, st: st, n: n, name: sessionName(m.id.ID, n), changed: make(chan struct{}),
		log: m.log.With("run", st.run, "session", n), state: wire.StatePreparing, control: st.control,
		held: map[string]*hold{}, taking: map[string]bool{}, beatNow: true}
	s.heardAt, s.beatAt = st.controlAt, time.Now()
	// Trouble of the process must not cut short what is still to be told.
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.work, s.kill = context.WithCancel(s.ctx)
	s.patience, s.giveUp = context.WithCancel(s.ctx)
	s.taker, s.stopTake = context.WithCancel(s.work)
	return s
}

// change wakes everybody who waits. The caller holds mu.
func (s *session) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// update changes the session and wakes everybody.
func (s *session) update(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
	s.change()
}

// wait waits until a time (zero: for ever), a change behind ch, or the end of
// ctx, which it tells.
func wait(ctx context.Context, until time.Time, ch <-chan struct{}) bool {
	var due <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-due:
	case <-ch:
	}
	return ctx.Err() == nil
}

// run is the session from its first beat to its last. Trouble of ctx ends it
// politely.
func (s *session) run(ctx context.Context) decision {
	s.log.Info("session begins", "machine", s.m.id.ID)
	stopAsking := context.AfterFunc(ctx, func() { s.update(func() { s.ending = true }) })
	defer stopAsking()
	s.sub.Go(s.writeBeats)
	s.sub.Go(s.readControl)
	s.sub.Go(s.writeSegments)
	s.sub.Go(s.runErrands)
	if s.m.id.Spot {
		s.sub.Go(s.watchNotice)
	}
	go func() { // owned by run, which waits for worked
		err := s.runWorker()
		s.update(func() { s.trouble, s.worked = err, true })
	}()

	var d decision
	for {
		s.mu.Lock()
		f := facts{now: time.Now(), name: s.name, setup: s.st.setup, control: s.control, launched: s.m.launched,
			notice: s.notice, ending: s.ending, preparing: s.state == wire.StatePreparing, held: len(s.held) + len(s.taking),
			idleSince: s.idleSince, heard: earliest(s.heardAt, s.beatAt), trouble: s.trouble}
		worked, ch := s.worked, s.changed
		draining := s.closed
		s.mu.Unlock()
		next := decide(&f)
		if draining && (next.act == goOn || next.act == drain) {
			if worked {
				break // what was decided then
			}
			wait(s.ctx, next.next, ch)
			continue
		}
		d = next
		if d.act == drain {
			s.log.Info("takes no more work", "why", d.why)
			s.st.setDraining(d.hurry)
			s.close()
			continue
		}
		if d.act != goOn {
			break
		}
		if worked {
			// It ended without trouble and nobody told it to.
			d = decision{act: leave, why: "stopped working", blameMachine: true}
			break
		}
		wait(s.ctx, d.next, ch)
	}
	if d.act == cutOff {
		s.cut(d)
	} else {
		s.leave(d)
	}
	return d
}

// close makes the queue seem closed to the worker: it ends when it has done
// what it has. Claims that are on their way still count.
func (s *session) close() {
	s.update(func() { s.closed = true })
	s.stopTake()
}

// endTasks ends the tasks and waits until none is left.
func (s *session) endTasks() {
	s.close()
	s.kill()
	t := time.AfterFunc(patientFor, s.giveUp)
	defer t.Stop()
	if !s.waitFor(time.Now().Add(endWithin), func() bool { return s.worked }) {
		s.log.Error("tasks did not end in time", "within", endWithin)
	}
}

// endWithin is how long tasks may take to end (5 s until SIGKILL), with what
// they have printed on its way to the store.
const endWithin = 30 * time.Second

// patientFor is how long a store that does not answer may hold up the end of
// tasks.
const patientFor = 10 * time.Second

// waitFor waits until ok holds, but not beyond a time.
func (s *session) waitFor(until time.Time, ok func() bool) bool {
	for {
		s.mu.Lock()
		good, ch := ok(), s.changed
		s.mu.Unlock()
		if good || !time.Now().Before(until) {
			return good
		}
		wait(s.ctx, until, ch)
	}
}

// cut ends the session without a word: others may have its work by now.
func (s *session) cut(d decision) {
	s.log.Warn("cut off", "why", d.why)
	s.update(func() { s.discard, s.pending = true, nil })
	s.giveUp() // nothing that they store counts
	s.endTasks()
	s.end()
}

// leave ends the tasks that still run, reports everything, and says gone.
func (s *session) leave(d decision) {
	s.log.Info("leaves the run", "why", d.why)
	s.update(func() {
		if d.blameMachine {
			s.blame = d.why
		}
		s.state, s.why, s.beatNow, s.flush = wire.StateLeaving, d.why, true, true
	})
	s.endTasks()
	until := time.Now().Add(reportWithin)
	s.mu.Lock()
	if !s.notice.IsZero() {
		until = earliest(until, s.notice.Add(-5*time.Second))
	}
	s.mu.Unlock()
	if !s.waitFor(until, func() bool { return len(s.pending) == 0 }) {
		s.log.Error("not everything could be reported in time")
	}
	s.storeLog(until)
	s.update(func() { s.state, s.beatNow = wire.StateGone, true })
	s.waitFor(earliest(until, time.Now().Add(goneWithin)), func() bool { return s.saidGone && len(s.errands) == 0 && s.hintDue == 0 })
	s.end()
}

const (
	reportWithin = time.Minute      // for the last segments, while a coordinator may listen
	goneWithin   = 20 * time.Second // for the last beat
)

// end stops reading and writing.
func (s *session) end() {
	s.stop()
	s.sub.Wait()
	s.mu.Lock()
	t := s.tap
	s.tap = nil
	s.mu.Unlock()
	t.leave()
}

func (s *session) storeLog(until time.Time) {
	if s.m.cfg.Log == nil {
		return
	}
	ctx, cancel := context.WithDeadline(s.ctx, until)
	defer cancel()
	if err := s.m.cfg.Store.Put(ctx, wire.AgentLogKey(s.st.run, s.m.id.ID), s.m.cfg.Log()); err != nil {
		s.log.Warn("the log was not stored", "err", err)
	}
}

// watchNotice asks whether the cloud takes the machine back.
func (s *session) watchNotice() {
	for {
		ctx, cancel := context.WithTimeout(s.ctx, askWithin)
		at, err := s.m.cfg.Host.Notice(ctx)
		cancel()
		switch {
		case err != nil && s.ctx.Err() == nil:
			s.log.Warn("cannot tell whether the machine is taken back", "err", err)
		case err == nil && !at.IsZero():
			s.log.Warn("the machine is taken back", "at", at)
			s.update(func() { s.notice = at })
			return
		}
		if !wait(s.ctx, time.Now().Add(noticeEvery), nil) {
			return
		}
	}
}

const (
	noticeEvery = 5 * time.Second // as Amazon says
	askWithin   = 10 * time.Second
)

// runWorker prepares the machine and works until there is nothing to take.
func (s *session) runWorker() error {
	w, err := s.st.worker(s)
	if s.work.Err() != nil {
		return nil
	}
	if err != nil {
		s.log.Error("the machine could not be prepared", "err", err)
		return err
	}
	// Nothing is taken before others can see that this session is alive.
	if !s.waitFor(time.Now().Add(24*time.Hour), func() bool { return s.seq > 0 || s.closed }) {
		return nil
	}
	s.update(func() {
		s.worker = w
		s.idleSince = time.Now()
		if s.state == wire.StatePreparing {
			s.state, s.beatNow = wire.StateWorking, true
		}
	})
	s.log.Info("works", "slots", s.st.slots)
	return w.Work(s.work)
}

// heldRanges is what the session holds, in the order of names. What has ended
// and was not reported yet is among it: another coordinator would hand it out
// again. The caller holds mu.
func (s *session) heldRanges() []cloud.Range {
	all := maps.Clone(s.held)
	for _, e := range s.pending {
		if e.end != nil {
			all[e.end.d.ID] = e.end
		}
	}
	var list []cloud.Range
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[id].d.Range)
	}
	return list
}
