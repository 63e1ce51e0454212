package sim

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/machine"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// Config is a world to try a run in.
type Config struct {
	Source string // of the pipeline file
	// Seconds is how long an attempt takes.
	Seconds func(fn string, index, attempt int) float64
	// Kind is what the run's machines are; Functions, Name and Pool are filled
	// in. Only Setup.KeepAlive and the like need to be given.
	Kind       fleet.Kind
	Limits     fleet.Limits
	Unattended time.Duration
	// Boot is the time from the launch of a machine to its agent; nil: 40 s.
	Boot func(rng *rand.Rand) time.Duration
	// Deaf coordinators get no hints.
	Deaf bool
	// Stillborn machines never come to their agent: they end after their boot.
	Stillborn bool
	// Latency is that of each request to the store and queues, Lossy the share
	// of writes of which the reply is lost.
	Latency time.Duration
	Lossy   float64
	// Region is where machines are; nil: one with enough of all.
	Region *cloudtest.Region
	Seed   uint64
	Log    io.Writer // what machines log; nil: nothing
}

// World is a cloud, a store and whatever runs there.
type World struct {
	cfg      Config
	Region   *cloudtest.Region
	store    *cloudtest.Store
	machines *cloudtest.Fleet
	pipeline *spec.Pipeline
	begun    time.Time

	mu      sync.Mutex
	rng     *rand.Rand
	queues  map[string]*queue
	procs   map[string]*proc
	all     []*proc
	work    sync.WaitGroup
	Notices []string

	// What tasks did.
	running map[taskKey]string // machine
	Doubled []string           // machines on which a task ran that was started elsewhere
	Used    float64            // seconds of attempts
	Starts  int
	First   time.Time // when the last run's first task started
}

type taskKey struct {
	fn string
	i  int
}

// proc is a machine that runs.
type proc struct {
	id     string
	spot   bool
	link   *link
	cancel context.CancelFunc
	begun  time.Time
	ended  time.Time
	timer  *time.Timer
}

// New makes a world.
func New(cfg Config) (*World, error) {
	p, err := executor.Bind([]byte(cfg.Source), "pipeline.yaml", nil, "aws")
	if err != nil {
		return nil, err
	}
	if cfg.Boot == nil {
		cfg.Boot = func(*rand.Rand) time.Duration { return 40 * time.Second }
	}
	w := &World{cfg: cfg, Region: cfg.Region, store: cloudtest.NewStore(), pipeline: p, rng: rand.New(rand.NewPCG(cfg.Seed, 1)),
		queues: map[string]*queue{}, procs: map[string]*proc{}, running: map[taskKey]string{}, begun: time.Now()}
	if w.Region == nil {
		w.Region = &cloudtest.Region{Default: 1 << 20}
	}
	w.Region.Started, w.Region.Ended = w.started, w.ended
	w.machines = cloudtest.NewFleet(w.Region, "zone-a", "zone-b", "zone-c")
	return w, nil
}

// starts and ends note what tasks do.
func (w *World) starts(fn string, i int, id string) {
	key := taskKey{fn, i}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Starts++
	if w.First.IsZero() {
		w.First = time.Now()
	}
	if other, ok := w.running[key]; ok && other != id {
		w.Doubled = append(w.Doubled, other)
	}
	w.running[key] = id
}

func (w *World) ends(fn string, i int, id string, seconds float64) {
	key := taskKey{fn, i}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running[key] == id {
		delete(w.running, key)
	}
	w.Used += seconds
}

func (w *World) link(store *cloudtest.Store) *link {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &link{Store: store, latency: w.cfg.Latency, lossy: w.cfg.Lossy, rng: rand.New(rand.NewPCG(w.rng.Uint64(), 2))}
}

// started boots a machine that was launched.
func (w *World) started(i cloudtest.Instance) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &proc{id: i.ID, spot: i.Spot, link: w.link(w.store.Process()), cancel: cancel, begun: time.Now()}
	w.mu.Lock()
	w.procs[i.ID] = p
	w.all = append(w.all, p)
	boot := w.cfg.Boot(w.rng)
	w.mu.Unlock()
	w.work.Go(func() {
		if !sleep(ctx, boot) {
			return
		}
		if w.cfg.Stillborn {
			w.Region.PowerOff(i.ID)
			return
		}
		log := slog.New(slog.DiscardHandler)
		if w.cfg.Log != nil {
			log = slog.New(slog.NewTextHandler(w.cfg.Log, nil)).With("m", i.ID)
		}
		kind := i.Tags["pool"] // one kind, one pool
		err := machine.Run(ctx, machine.Config{Run: i.Tags["run"], Kind: kind, Store: p.link, JoinQueue: w.join(p.link), Host: &host{w, i},
			Prepare: func(context.Context, *machine.Job) (*machine.Prepared, error) { return &machine.Prepared{}, nil },
			NewWorker: func(c agent.Config) machine.Worker {
				return &worker{w: w, cfg: c, power: ctx, live: map[*task.Live]bool{}}
			}, Logger: log})
		if err != nil {
			log.Error("machine", "err", err)
			w.Region.PowerOff(i.ID)
		}
	})
}

// ended is a machine that has no power any more.
func (w *World) ended(i cloudtest.Instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.procs[i.ID]; p != nil && p.ended.IsZero() {
		p.ended = time.Now()
		p.link.Store.Kill()
		p.link.cut(true)
		p.cancel()
	}
}

func (w *World) join(l *link) func(context.Context, string) (cloud.Queue, error) {
	return func(ctx context.Context, url string) (cloud.Queue, error) {
		if err := l.wait(ctx, url); err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		q := w.queues[url]
		if q == nil {
			return nil, closedError()
		}
		return port{q, l}, nil
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// host is the computer of a machine.
type host struct {
	w *World
	i cloudtest.Instance
}

func (h *host) Identity(context.Context) (machine.Identity, error) {
	return machine.Identity{ID: h.i.ID, Type: h.i.Type, Zone: h.i.Zone, Spot: h.i.Spot, CPUs: 2, Launched: h.i.Launched}, nil
}

func (h *host) Notice(context.Context) (time.Time, error) {
	at, _ := h.w.Region.Notice(h.i.ID)
	return at, nil
}

func (h *host) Arm(at time.Time) error {
	h.w.arm(h.i.ID, at)
	return nil
}

func (h *host) PowerOff() { h.w.Region.PowerOff(h.i.ID) }

func (h *host) Metrics() wire.Metrics { return wire.Metrics{CPUs: 2} }

// arm is the timer of a machine's system: it works whatever became of its agent.
func (w *World) arm(id string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.procs[id]
	if p == nil {
		return
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timer = time.AfterFunc(time.Until(at), func() { w.Region.PowerOff(id) })
}

// Alive is the machines that live.
func (w *World) Alive() int { return len(w.Region.Live()) }

// Pick is a machine that lives and pleases want; "" if there is none.
func (w *World) Pick(want func(id string, spot bool) bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for _, p := range w.all {
		if p.ended.IsZero() && (want == nil || want(p.id, p.spot)) {
			ids = append(ids, p.id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return ids[w.rng.IntN(len(ids))]
}

// Cut cuts a machine's network, or mends it.
func (w *World) Cut(id string, down bool) {
	w.mu.Lock()
	p := w.procs[id]
	w.mu.Unlock()
	p.link.cut(down)
}

// Outage makes the store and the queues unreachable for everybody, or mends
// them. What is launched meanwhile is not concerned.
func (w *World) Outage(r *Run, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.all {
		p.link.cut(down)
	}
	r.link.cut(down)
}

// Billed is the seconds that machines were billed for.
func (w *World) Billed() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := 0.0
	for _, p := range w.all {
		end := p.ended
		if end.IsZero() {
			end = time.Now()
		}
		sum += max(60, end.Sub(p.begun).Seconds())
	}
	return sum
}

// Machines is how many machines there ever were.
func (w *World) Machines() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// Started is how many attempts have started.
func (w *World) Started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Starts
}

// Wait waits until no machine works any more.
func (w *World) Wait() { w.work.Wait() }

// Store is what a process without troubles sees of the store.
func (w *World) Store() cloud.Store { return w.store }

// Log is what people were told, in order.
func (w *World) Log() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.Notices)
}

// The codec of segments makes channels when it is first used. It must not be
// first used in a bubble of synctest, which owns the channels made in it.
func init() {
	b, err := (&wire.Segment{}).Encode()
	if err == nil {
		_, err = wire.DecodeSegment(b)
	}
	if err != nil {
		panic(err) // an empty segment can be encoded
	}
}
