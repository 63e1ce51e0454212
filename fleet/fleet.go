package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// Fleet is the machines of one run. Its methods may be called from any
// goroutine.
type Fleet struct {
	cfg    Config
	ctx    context.Context // of the loop and what works for it
	cancel context.CancelFunc
	in     chan func()   // for the loop: it alone touches s
	done   chan struct{} // closed when the loop has ended
	work   sync.WaitGroup
	s      *state
	first  []*kindState  // those of Config: others may come later
	making chan struct{} // has room while no other is made
	out    *router
	hints  Queue
	old    []string // URLs of queues of earlier coordinators, until they are deleted
	reads  chan struct{}

	// after are called when the next control that is begun from now on is written.
	after []func()

	view view

	stopOnce  sync.Once
	agentOnce sync.Once
	failOnce  sync.Once
	closeOnce sync.Once
	left      Left
	closeErr  error
	abandoned atomic.Bool
	failed    atomic.Bool
	started   bool
}

// view is what others may see; the loop writes it.
type view struct {
	mu       sync.Mutex
	capacity map[*kindState]int
	live     map[string][]task.Live // by machine
	machines []MachineStatus
	cost     float64
}

const (
	// tick is how often the loop looks at what has become due.
	tick = time.Second
	// parallel is how many requests are on their way to the store at a time.
	parallel = 32
	// stopWithin is how long tasks have to end after StopWork before their
	// machines are terminated, and endWithin when nobody waits for them longer.
	stopWithin, endWithin = 4 * time.Second, 8 * time.Second
)

// New makes a Fleet. It rents nothing yet.
func New(cfg Config) *Fleet {
	if cfg.Unattended <= 0 {
		cfg.Unattended = 15 * time.Minute
	}
	if cfg.Notice == nil {
		cfg.Notice = func(string) {}
	}
	if cfg.Warn == nil {
		cfg.Warn = cfg.Notice
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{cfg: cfg, s: newState(&cfg), in: make(chan func(), 256), done: make(chan struct{}), reads: make(chan struct{}, parallel), making: make(chan struct{}, 1)}
	f.s.unattended, f.first = cfg.Unattended, f.s.kinds
	f.view.live, f.view.capacity = map[string][]task.Live{}, map[*kindState]int{}
	f.out = newRouter(f)
	return f
}

// Start begins to work in the background: it takes over from an earlier
// coordinator as soon as this one has the run, and rents what is needed. The
// work ends with Close. ctx is for values alone. It is called once.
func (f *Fleet) Start(ctx context.Context) {
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.started = true
	f.s.began, f.s.lastBusy = time.Now(), time.Now()
	go f.loop()
	f.run(func() {
		if err := f.begin(); err != nil && f.ctx.Err() == nil {
			f.fail(err)
		}
	})
}

// run starts a worker; Close waits for it.
func (f *Fleet) run(work func()) { f.work.Go(work) }

// do gives the loop something to do. It says whether the loop still works.
func (f *Fleet) do(act func()) bool {
	select {
	case f.in <- act:
		return true
	case <-f.done:
		return false
	}
}

// loop owns the state. It takes what has happened as it comes, and decides soon
// after; later the more there is to look at.
func (f *Fleet) loop() {
	defer close(f.done)
	t := time.NewTimer(tick)
	defer t.Stop()
	var last time.Time
	for {
		var due time.Time
		select {
		case act := <-f.in:
			act()
			for more := true; more; {
				select {
				case act := <-f.in:
					act()
				default:
					more = false
				}
			}
			due = last.Add(restFor(len(f.s.machines)))
		case <-t.C:
		case <-f.ctx.Done():
			return
		}
		if wait := time.Until(due); wait > 0 {
			t.Reset(wait)
			continue
		}
		last = time.Now()
		f.decide(last)
		t.Reset(tick)
	}
}

// restFor is the least time between two decisions.
func restFor(machines int) time.Duration {
	return min(time.Duration(machines)*time.Millisecond, tick)
}

func (f *Fleet) decide(now time.Time) {
	if f.s.epoch == 0 {
		return
	}
	f.out.register()
	f.s.pruneLost(now)
	if f.s.stop == "" {
		f.s.demand, f.s.stopped = f.cfg.Coordinator.Demand(), f.cfg.Coordinator.StoppedFunctions()
	}
	for _, a := range decide(f.s, now) {
		f.perform(a, now)
	}
	f.show(now)
}

// perform does what decide found. It changes the state so that it is not found
// again.
func (f *Fleet) perform(a action, now time.Time) {
	s := f.s
	switch a := a.(type) {
	case actLaunch:
		f.launch(a.kind, a.n, now)
	case actControl:
		f.writeControl(a.control)
	case actGiveUp:
		f.giveUp(a.m, a.why, a.terminate, now)
	case actBootLog:
		f.noBoot(a.m, a.why)
	case actEnded:
		if a.m.kind == nil || a.m.kind.Setup.KeepAlive == 0 {
			now = a.m.seen // it powered off as soon as it had left
		}
		f.end(a.m, a.why, now)
	case actTerminate:
		f.terminate(a.list, a.why)
	case actLimit:
		s.stopAsked = true
		f.run(func() { f.cfg.Coordinator.Limit(a.reason) })
	case actFail:
		s.failed = true
		f.fail(a.err)
	case actResend:
		for _, r := range a.list {
			r.sent = now
			f.out.again(r)
		}
	case actWarn:
		if at, ok := s.warned[a.key]; !ok || now.Sub(at) > sayAgain {
			s.warned[a.key] = now
			f.cfg.Warn(a.text)
		}
	}
}

// show updates what others see.
func (f *Fleet) show(now time.Time) {
	s := f.s
	caps := make(map[*kindState]int, len(s.kinds))
	for _, m := range s.machines {
		if m.kind != nil && m.counts() {
			caps[m.kind] += max(1, m.slots)
		}
		if m.busy() {
			s.lastBusy = now
		}
	}
	for _, k := range s.kinds {
		caps[k] += k.asked * k.Slots(k.firstType())
		if k.Max > 0 {
			caps[k] = max(caps[k], k.Slots(k.firstType()))
		}
	}
	list := make([]MachineStatus, 0, len(s.machines))
	for _, m := range s.machines {
		list = append(list, MachineStatus{Machine: m.Machine, State: m.stateName(), Slots: m.slots, Tasks: len(m.beat.Live), Seen: m.seen, Metrics: m.beat.Metrics})
	}
	v := &f.view
	v.mu.Lock()
	changed := false
	for k, n := range caps {
		changed = changed || v.capacity[k] != n
	}
	v.capacity, v.machines, v.cost = caps, list, s.spent(now)
	v.mu.Unlock()
	if changed {
		f.cfg.Coordinator.CapacityChanged()
	}
}

func (m *machine) stateName() string {
	switch m.phase {
	case booting:
		return "booting"
	case ended:
		return "ended"
	}
	return m.beat.State
}

// Queue is what the coordinator hands its ranges to. Receive is not for it.
func (f *Fleet) Queue() cloud.Queue { return f.out }

// Capacity is how many tasks of a function machines can work on at a time, now
// or soon: those that live, and those that are being launched. It is never less
// than what a single machine can do.
func (f *Fleet) Capacity(fn string) int {
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	k := kindFor(f.first, fn, 0)
	if k == nil {
		return 0
	}
	if n := f.view.capacity[k]; n > 0 {
		return n
	}
	return k.Slots(k.firstType())
}

// Live is the tasks that run now, as far as machines have told.
func (f *Fleet) Live() []task.Live {
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	var list []task.Live
	for _, l := range f.view.live {
		list = append(list, l...)
	}
	return list
}

// setLive says what runs on a machine.
func (f *Fleet) setLive(machine string, live []task.Live) {
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	if len(live) == 0 {
		delete(f.view.live, machine)
		return
	}
	f.view.live[machine] = live
}

// Machines is what is known of the machines of the run.
func (f *Fleet) Machines() []MachineStatus {
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	return f.view.machines
}

// Cost is what the machines have cost until now, in dollars.
func (f *Fleet) Cost() float64 {
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	return f.view.cost
}

// writeControl writes what machines are to be told, in the background.
func (f *Fleet) writeControl(c wire.Control) {
	s := f.s
	s.writing = true
	after := f.after
	f.after = nil
	look := s.written.Epoch > 0 // else it was read just before
	f.run(func() {
		var err error
		if look {
			err = f.superseded(f.ctx)
		}
		if err == nil {
			err = putJSON(f.ctx, f.cfg.Store, wire.ControlKey(f.cfg.Run), c)
		}
		if errors.Is(err, errSuperseded) {
			f.Abandon()
			f.fail(err)
			return
		}
		if err != nil {
			f.cfg.Logger.Warn("control not written", "err", err)
			if k := cloud.KindOf(err); k == cloud.KindDenied {
				f.fail(err)
			}
			pause(f.ctx, tick)
		}
		f.do(func() {
			s.writing, s.dirty = false, err != nil
			if err != nil {
				f.after = append(after, f.after...)
				return
			}
			s.written = c
			for _, do := range after {
				do()
			}
		})
	})
}

var errSuperseded = errors.New("another coordinator has taken the run over")

// superseded looks whether machines already hear another coordinator. It is
// not the fence, which is the journal; it keeps this one from ending machines
// that are not its own any more.
func (f *Fleet) superseded(ctx context.Context) error {
	b, err := f.cfg.Store.Get(ctx, wire.ControlKey(f.cfg.Run))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	var c wire.Control
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil && c.Epoch > f.cfg.Epoch() {
		return errSuperseded
	}
	return err
}

// Abandon ends the work without a word to machines: another coordinator has the
// run, or will have it.
func (f *Fleet) Abandon() {
	if f.started {
		f.abandoned.Store(true)
		_ = f.out.Close()
		f.cancel()
	}
}

// afterControl calls do, in the loop, when what machines are to be told from
// now on is written.
func (f *Fleet) afterControl(do func()) {
	f.after = append(f.after, do)
	f.s.dirty = true
}

// pause waits, but not longer than ctx lasts.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// retry does something until it succeeds, ctx ends, or it is refused for a
// reason that waiting does not change.
func retry(ctx context.Context, do func() error) error {
	wait := 200 * time.Millisecond
	for {
		err := do()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		switch cloud.KindOf(err) {
		case cloud.KindDenied, cloud.KindInvalid, cloud.KindNotFound, cloud.KindClosed, cloud.KindCorrupt, cloud.KindConflict:
			return err
		}
		pause(ctx, wait)
		wait = min(2*wait, 15*time.Second)
	}
}

// errText is an error for people, in one line.
func errText(err error) string {
	var e *cloud.Error
	if errors.As(err, &e) && e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Resource, e.Err)
	}
	return err.Error()
}
