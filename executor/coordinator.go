package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Config is what a Coordinator works with.
type Config struct {
	Store    cloud.Store
	Queue    cloud.Queue
	Header   *Header
	Pipeline *spec.Pipeline // bound; replaced by the recorded one if a retry recorded another
	Inputs   planner.Inputs // for maps that are expanded during the run
	Slots    int            // tasks that agents run at a time
	CPUs     int
	Scratch  string // folder on a local disk for the files of _NEEDS
	Host     string
	PID      int
	// Begin is what to record when the coordinator takes over, after
	// evCoordinator: nothing, a reopen or a retry.
	Begin Begin
	// StopWork ends what agents run; it returns at once. They report what they held.
	StopWork func()
	// Live is the tasks that run now; may be nil.
	Live func() []task.Live
	// Notice is told what happens; it must not block. May be nil.
	Notice func(Notice)
	// Poll is how often the store is asked for a cancel, and live.json written.
	// Default 200 ms, or what a store with PollEvery says.
	Poll time.Duration
	Now  func() time.Time // default time.Now
	// Remote, if set, makes it work with machines elsewhere: Slots and CPUs
	// do not count.
	Remote *RemoteConfig
}

// Begin is how a coordinator goes on with a run that has a journal.
type Begin struct {
	Reopen bool   // a stopped or cancelled run goes on
	Retry  bool   // failed tasks run again
	Cause  string // only those that failed for this cause
	File   int    // number of a newly recorded pipeline file, 0: unchanged
	Code   map[string]string
}

// Coordinator runs one run: it owns the State and is the only writer of the
// journal. Report, Snapshot, Cancel and the functions for agents may be
// called from any goroutine.
type Coordinator struct {
	cfg     Config
	rd      journalReader
	journal cloud.Journal
	in      chan input
	done    chan struct{} // closed when Run has returned
	prep    sync.WaitGroup

	mu    sync.Mutex // guards state against readers; the loop alone writes
	state *State

	first   int64 // position of its first record, once begun
	begun   bool
	began   chan struct{} // closed when it is recorded that it has the run
	stopped map[string]*atomic.Bool
	needs   needsCache
	items   itemsCache
	buf     []byte
	remote
}

// input is what comes to the loop: one of these, or nothing but a reason to
// look again.
type input struct {
	batch *task.Batch
	event *event
	// Of a coordinator of machines:
	seg     *segment
	held    *[]cloud.Range
	lost    *lost
	started *function // what its tasks must know is written
	err     error     // nothing can go on
}

// NewCoordinator takes the journal of a run for writing and reads it.
// KindConflict if another coordinator is alive.
func NewCoordinator(ctx context.Context, cfg Config) (*Coordinator, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Poll == 0 {
		cfg.Poll = 200 * time.Millisecond
		if p, ok := cfg.Store.(interface{ PollEvery() time.Duration }); ok {
			cfg.Poll = max(cfg.Poll, p.PollEvery())
		}
	}
	if cfg.Notice == nil {
		cfg.Notice = func(Notice) {}
	}
	if cfg.Live == nil {
		cfg.Live = func() []task.Live { return nil }
	}
	run := cfg.Header.Run
	j, err := cfg.Store.OpenJournal(ctx, journalKey(run))
	if err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg, rd: journalReader{cfg.Store, run}, journal: j,
		in: make(chan input, 256), done: make(chan struct{}), began: make(chan struct{}), stopped: map[string]*atomic.Bool{}}
	if err := c.load(ctx); err != nil {
		_ = j.Close()
		return nil, err
	}
	if cfg.Remote != nil {
		c.state.keepHands()
		c.outbox.wake = make(chan struct{}, 1)
		c.waits = c.state.begun // a new run is in nobody's hands
	}
	for _, f := range c.state.order {
		c.stopped[f.spec.Name] = &atomic.Bool{}
	}
	return c, nil
}

func (c *Coordinator) load(ctx context.Context) error {
	h := c.cfg.Header
	c.state = newState(h.Run, Selected(c.cfg.Pipeline, h.Functions, h.Only), h.Only)
	if r := c.cfg.Remote; r != nil {
		c.state.memoryOf = r.Memory
	}
	fold := folder{state: c.state}
	if _, err := c.cfg.Store.ReadJournal(ctx, journalKey(h.Run), 0, fold.record); err != nil {
		return err
	}
	if c.state.file > 0 && c.cfg.Begin.File == 0 {
		p, err := loadPipeline(ctx, c.cfg.Store, h, c.state.file)
		if err != nil {
			return err
		}
		c.cfg.Pipeline = p
		c.state.setSpecs(p)
	}
	if c.cfg.Begin.File > 0 {
		c.state.setSpecs(c.cfg.Pipeline)
	}
	return nil
}

// folder applies records to a state, dropping the actions.
type folder struct{ state *State }

func (f folder) record(pos int64, rec []byte) error {
	if len(rec) > 0 && rec[0] == recordOutcomes {
		o, err := decodeOutcomes(rec)
		if err != nil {
			return err
		}
		f.state.applyOutcomes(o, pos)
		return nil
	}
	e, err := decodeEvent(rec)
	if err != nil {
		return err
	}
	f.state.applyEvent(e)
	return nil
}

// Pipeline is the file that holds for the run.
func (c *Coordinator) Pipeline() *spec.Pipeline { return c.cfg.Pipeline }

// Report takes outcomes from an agent. It waits while the journal is behind.
func (c *Coordinator) Report(b task.Batch) { c.put(input{batch: &b}) }

// Cancel ends the run: what runs is ended, what is left is cancelled.
func (c *Coordinator) Cancel(reason string) { c.send(&event{Kind: evCancel, Reason: reason}) }

// AgentsDone says that no agent works any more; it follows their last Report.
// Before the run was being stopped that is an error, and err says why.
func (c *Coordinator) AgentsDone(err error) {
	if err == nil {
		err = errors.New("the agent ended too early")
	}
	c.send(&event{Kind: evGone, err: err})
}

func (c *Coordinator) send(e *event) { c.put(input{event: e}) }

func (c *Coordinator) put(in input) {
	select {
	case c.in <- in:
	case <-c.done:
	}
}

// Snapshot is the state of the run now.
func (c *Coordinator) Snapshot() Report {
	live := map[string]int{}
	for _, l := range c.cfg.Live() {
		live[l.Function]++
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.status.Final() {
		return c.state.report(c.cfg.Header, live)
	}
	now := c.cfg.Now()
	r := c.state.reportAt(c.cfg.Header, live, now.UnixNano())
	r.Seconds = now.Sub(r.Started).Seconds()
	return r
}

// Run works until the run has its final status, and returns its report. The
// error says why the run could not go on (a full disk, a store that fails);
// what was recorded until then is kept and the run can be resumed. It closes
// the queue and the journal. When ctx ends it cancels the run. After an error
// agents on this machine are told to end their work, machines elsewhere are not:
// they go on for the next coordinator.
func (c *Coordinator) Run(ctx context.Context) (Report, error) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	side := c.background(work)
	if c.cfg.Remote != nil {
		side.Go(func() { c.sendOutbox(work) })
	}
	err := c.begin(work)
	if err == nil {
		err = c.loop(ctx, work)
	}
	switch {
	case c.cfg.Remote == nil && err != nil:
		c.cfg.StopWork()
	case c.cfg.Remote != nil && err == nil: // else machines go on until they hear of another coordinator
		c.windUp(work)
	}
	stop()
	close(c.done)
	_ = c.cfg.Queue.Close() // nobody needs the work in it any more
	c.prep.Wait()
	side.Wait()
	r := c.Snapshot()
	if err == nil && writeSummary(context.WithoutCancel(ctx), c.cfg.Store, c.cfg.Header, r) != nil {
		_ = c.cfg.Store.Delete(context.WithoutCancel(ctx), SummaryKey(c.cfg.Header.Run)) // better none than an old one
	}
	if cerr := c.journal.Close(); err == nil {
		err = cerr
	}
	return r, err
}

// begin records that this coordinator has the run and how it goes on.
func (c *Coordinator) begin(ctx context.Context) error {
	// What the last coordinator said of running tasks is not true any more.
	if err := c.cfg.Store.Delete(ctx, liveKey(c.cfg.Header.Run)); err != nil {
		return err
	}
	if c.state.begun { // how it ended the last time is not how it ends
		if err := c.cfg.Store.Delete(ctx, SummaryKey(c.cfg.Header.Run)); err != nil {
			return err
		}
	}
	var evs []*event
	if !c.state.begun {
		e := &event{Kind: evBegin}
		for _, f := range c.state.order {
			n, ok := c.cfg.Header.Planned[f.spec.Name]
			if !ok {
				n = -1
			}
			e.Functions = append(e.Functions, beginFunction{f.spec.Name, n})
		}
		evs = append(evs, e)
	}
	first := &event{Kind: evCoordinator, Epoch: c.state.epoch + 1, Host: c.cfg.Host, PID: c.cfg.PID, Code: c.cfg.Begin.Code}
	evs = append([]*event{first}, evs...)
	switch b := c.cfg.Begin; {
	case b.Retry:
		evs = append(evs, &event{Kind: evRetry, Cause: b.Cause, File: b.File})
	case b.Reopen, c.state.stopping != notStopping:
		evs = append(evs, &event{Kind: evReopen})
	}
	ins := make([]input, len(evs))
	for i, e := range evs {
		ins[i] = input{event: e}
	}
	return c.step(ctx, ins)
}

// loop takes events as they come, many at a time while the disk is busy with
// the last ones.
func (c *Coordinator) loop(ctx, work context.Context) error {
	cancelled, lost := ctx.Done(), lostJournal(c.journal)
	batch := make([]input, 0, 64)
	for {
		if c.state.status.Final() {
			return nil
		}
		timer := time.NewTimer(c.wait())
		batch = batch[:0]
		select {
		case in := <-c.in:
			batch = append(batch, in)
		case <-timer.C:
		case <-lost:
			timer.Stop()
			_, err := c.journal.Append() // says why
			return cmp.Or(err, errLost)
		case <-cancelled:
			cancelled = nil
			batch = append(batch, input{event: &event{Kind: evCancel, Reason: causeOf(ctx)}})
		}
		timer.Stop()
		for more := true; more && len(batch) < cap(batch); {
			select {
			case in := <-c.in:
				batch = append(batch, in)
			default:
				more = false
			}
		}
		if e := c.limit(); e != nil {
			batch = append(batch, input{event: e})
		}
		if c.graceOver() {
			batch = append(batch, input{event: &event{Kind: evGone}})
		}
		if err := c.steps(work, batch); err != nil {
			return err
		}
		for i := range batch {
			if s := batch[i].seg; s != nil {
				close(s.taken)
			}
		}
	}
}

var errLost = errors.New("the journal takes no more records")

// lostJournal is closed when another coordinator has taken the journal; nil
// where that cannot happen.
func lostJournal(j cloud.Journal) <-chan struct{} {
	if l, ok := j.(interface{ Lost() <-chan struct{} }); ok {
		return l.Lost()
	}
	return nil
}

func causeOf(ctx context.Context) string {
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err.Error()
	}
	return "cancelled"
}

// wait is how long nothing needs to be done unless an event comes.
func (c *Coordinator) wait() time.Duration {
	now := c.cfg.Now()
	wait := time.Hour
	if due := c.state.nextDue(); due != math.MaxInt64 && !c.waits {
		wait = min(wait, time.Duration(due-now.UnixNano()))
	}
	if d := c.cfg.Pipeline.Limits.Duration; d > 0 && c.state.stopping == notStopping {
		wait = min(wait, d-c.state.activeTime(now.UnixNano()))
	}
	if !c.graceEnds.IsZero() {
		wait = min(wait, c.graceEnds.Sub(now))
	}
	return max(0, wait)
}

// limit is the event of a limit that has been reached; nil if none has.
func (c *Coordinator) limit() *event {
	d := c.cfg.Pipeline.Limits.Duration
	if d == 0 || c.state.stopping != notStopping || c.state.status.Final() {
		return nil
	}
	if c.state.activeTime(c.cfg.Now().UnixNano()) < d {
		return nil
	}
	return &event{Kind: evLimit, Reason: fmt.Sprintf("limits.duration of %s reached", d)}
}

// step records events, folds them, and performs what follows.
func (c *Coordinator) step(ctx context.Context, batch []input) error {
	recs, evs, err := c.encode(ctx, batch)
	if err != nil {
		return err
	}
	pos, err := c.append(recs)
	if err != nil {
		return err
	}
	begins := !c.begun
	if begins {
		c.begun, c.first = true, pos[0] // before anything is given to an agent
	}
	capacity := c.capacity() // asked without the lock
	c.mu.Lock()
	var acts []action
	var gone error
	for i, in := range evs {
		switch {
		case in.event != nil && in.event.Kind == evGone:
			if c.state.stopping == notStopping && !c.state.status.Final() {
				gone = in.event.err
			}
			acts = append(acts, c.state.takeBackAll()...)
		case in.event != nil && in.event.Kind == evRefused:
			acts = append(acts, c.state.takeBack(in.event.Function, in.event.Indices)...)
		case in.event != nil && in.event.Kind == evSegments:
			c.state.applyEvent(in.event)
			acts = append(acts, c.state.endRanges(in.event.ended)...)
		case in.event != nil:
			acts = append(acts, c.state.applyEvent(in.event)...)
		default:
			acts = append(acts, c.state.applyOutcomes(in.outcomes, pos[i])...)
		}
	}
	for _, f := range c.state.order {
		if f.stopped || c.state.stopping != notStopping {
			c.stopped[f.spec.Name].Store(true)
		}
	}
	if gone != nil {
		c.mu.Unlock()
		return gone
	}
	ranges := c.handOut(capacity)
	c.mu.Unlock()
	if begins {
		close(c.began)
	}
	c.startFunctions(ctx)
	if err := c.sendRanges(ctx, ranges); err != nil {
		return err
	}
	return c.perform(ctx, acts)
}

func (c *Coordinator) perform(ctx context.Context, acts []action) error {
	finish := RunStatus("")
	for _, a := range acts {
		switch a := a.(type) {
		case actPrepare:
			c.prep.Add(1)
			go func() {
				defer c.prep.Done()
				c.send(c.prepare(ctx, a.f))
			}()
		case actStopWork:
			c.stopWork()
		case actNotice:
			c.cfg.Notice(a.n)
		case actFinish:
			finish = a.status
		}
	}
	if finish == "" || c.state.status.Final() {
		return nil
	}
	return c.step(ctx, []input{{event: &event{Kind: evFinish, Status: finish}}})
}
