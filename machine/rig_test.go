//go:build linux

package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__warden" {
		agent.WardenMain()
	}
	if len(os.Args) > 2 && os.Args[1] == "__deadline" {
		deadlineMain(os.Args[2])
	}
	// What is made once must not belong to the first bubble that asks for it.
	b, err := (&wire.Segment{}).Encode()
	if err == nil {
		_, err = wire.DecodeSegment(b)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// outage is a store that cannot be reached at times.
type outage struct {
	cloud.Store
	down atomic.Bool
	lost func(op, key string) error // after the effect
}

func (o *outage) try(op, key string) error {
	if o.down.Load() {
		return &cloud.Error{Op: op, Resource: key, Kind: cloud.KindTransient}
	}
	return nil
}

func (o *outage) after(op, key string, err error) error {
	if err == nil && o.lost != nil {
		return o.lost(op, key)
	}
	return err
}

func (o *outage) Get(ctx context.Context, key string) ([]byte, error) {
	if err := o.try("get", key); err != nil {
		return nil, err
	}
	return o.Store.Get(ctx, key)
}

func (o *outage) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := o.try("read", key); err != nil {
		return 0, err
	}
	return o.Store.ReadAt(ctx, key, p, off)
}

func (o *outage) Put(ctx context.Context, key string, b []byte) error {
	if err := o.try("put", key); err != nil {
		return err
	}
	return o.after("put", key, o.Store.Put(ctx, key, b))
}

func (o *outage) PutFrom(ctx context.Context, key string, r io.Reader) error {
	if err := o.try("put", key); err != nil {
		return err
	}
	return o.after("put", key, o.Store.PutFrom(ctx, key, r))
}

func (o *outage) Create(ctx context.Context, key string, b []byte) error {
	if err := o.try("create", key); err != nil {
		return err
	}
	return o.after("create", key, o.Store.Create(ctx, key, b))
}

// fakeHost is a machine that can be told what happens to it.
type fakeHost struct {
	id  Identity
	off chan struct{} // closed by PowerOff

	mu      sync.Mutex
	notice  time.Time
	armed   []time.Time
	offs    int
	offTime time.Time
}

func (h *fakeHost) Identity(context.Context) (Identity, error) { return h.id, nil }

func (h *fakeHost) Notice(context.Context) (time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.notice, nil
}

func (h *fakeHost) Arm(at time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed = append(h.armed, at)
	return nil
}

func (h *fakeHost) PowerOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.offs++; h.offs == 1 {
		h.offTime = time.Now()
		close(h.off)
	}
}

func (h *fakeHost) Metrics() wire.Metrics { return wire.Metrics{CPUs: 4, CPU: 0.5} }

func (h *fakeHost) take(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notice = at
}

// fakeWorker runs tasks that only take their time.
type fakeWorker struct {
	cfg agent.Config
	r   *rig

	mu   sync.Mutex
	live map[string]task.Live
}

func (w *fakeWorker) Work(ctx context.Context) error {
	var wg sync.WaitGroup
	for range w.cfg.Slots {
		wg.Go(func() {
			for {
				d, err := w.cfg.Queue.Receive(ctx)
				if err != nil {
					return
				}
				w.do(ctx, d)
				if err := w.cfg.Queue.Done(ctx, d); err != nil {
					w.r.t.Errorf("done: %v", err)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func (w *fakeWorker) do(ctx context.Context, d cloud.Delivery) {
	for i := d.From; i < d.To; i++ {
		if ctx.Err() != nil || w.cfg.Run.Stopped(d.Function) {
			w.cfg.Report(task.Batch{Function: d.Function, Unrun: []int{i}})
			continue
		}
		if n := w.cfg.Run.Count(d.Function); n != 1000 {
			w.r.t.Errorf("count %d", n)
		}
		w.r.started(d.Function, i, w.cfg.Name)
		key := fmt.Sprint(d.Function, i)
		o := task.Outcome{Index: i, Attempt: d.Attempt, Status: task.Succeeded, Started: time.Now().UnixNano(), Machine: w.cfg.Name}
		w.mu.Lock()
		w.live[key] = task.Live{Function: d.Function, Index: i, Attempt: d.Attempt, Started: o.Started}
		w.mu.Unlock()
		t := time.NewTimer(w.r.takes(i))
		select {
		case <-t.C:
		case <-ctx.Done():
			o.Status, o.Cause = task.Cancelled, task.CauseCancelled
			time.Sleep(100 * time.Millisecond) // SIGTERM
		}
		t.Stop()
		w.mu.Lock()
		delete(w.live, key)
		w.mu.Unlock()
		w.cfg.Report(task.Batch{Function: d.Function, Outcomes: []task.Outcome{o}})
	}
}

func (w *fakeWorker) Live() []task.Live {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []task.Live
	for _, l := range w.live {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b task.Live) int { return a.Index - b.Index })
	return all
}

// rig is a coordinator's side in memory, and a machine.
type rig struct {
	t     *testing.T
	ctx   context.Context
	store *cloudtest.Store // the coordinator's
	link  *outage          // the machine's
	host  *fakeHost
	cfg   Config
	hints *cloudtest.Queue
	takes func(index int) time.Duration

	mu      sync.Mutex
	queues  map[string]*cloudtest.Queue
	control map[string]*wire.Control
	starts  []string // tasks that were started: "f/3"
	sent    int
	done    chan error // Run's
	closers []func()
}

const pipelineText = `name: t
functions:
  f:
    map: {range: 1000}
    run: "true"
`

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer func() {
			for _, fn := range slices.Backward(r.closers) {
				fn()
			}
		}()
		test(r)
	})
}

func newRig(t *testing.T) *rig {
	store := cloudtest.NewStore()
	r := &rig{t: t, ctx: t.Context(), store: store, link: &outage{Store: store.Process()}, hints: cloudtest.NewQueue(),
		host:   &fakeHost{id: Identity{ID: "i-1", Type: "m6i.large", Zone: "z-1a", CPUs: 4}, off: make(chan struct{})},
		queues: map[string]*cloudtest.Queue{}, control: map[string]*wire.Control{}, takes: func(int) time.Duration { return time.Second }}
	r.queues["hints"] = r.hints
	r.addRun("r1", wire.Setup{Pool: "p", Threads: 2, IdleTimeout: 10 * time.Minute, MaxLife: 24 * time.Hour})
	r.cfg = Config{Run: "r1", Kind: "k", Store: r.link, Host: r.host,
		JoinQueue: func(_ context.Context, url string) (cloud.Queue, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if q := r.queues[url]; q != nil {
				return q, nil
			}
			return nil, &cloud.Error{Op: "join", Resource: url, Kind: cloud.KindTransient}
		},
		Prepare:   func(context.Context, *Job) (*Prepared, error) { return &Prepared{}, nil },
		NewWorker: func(c agent.Config) Worker { return &fakeWorker{cfg: c, r: r, live: map[string]task.Live{}} },
		Log:       func() []byte { return []byte("the log") },
	}
	return r
}

// addRun makes a run with work for machines of kind k.
func (r *rig) addRun(run string, setup wire.Setup) {
	r.t.Helper()
	setup.Run, setup.Kind = run, "k"
	h := &executor.Header{Run: run, Pipeline: "t", File: "/x/pipeline.yaml", Cloud: "aws", Token: "0123456789abcdef" + run, Created: time.Now()}
	if err := executor.Create(r.ctx, r.store, h, []byte(pipelineText)); err != nil {
		r.t.Fatal(err)
	}
	r.put(wire.SetupKey(run, "k"), setup)
	r.put(wire.StartKey(run, "f", 1), wire.Start{Function: "f", Count: 1000})
	q := run + "-1"
	r.queues[q] = cloudtest.NewQueue()
	r.control[run] = &wire.Control{Epoch: 1, Until: time.Now().Add(15 * time.Minute), Hints: "hints", Pace: time.Second,
		Kinds: map[string]wire.KindControl{"k": {Queue: q, More: true}}}
	r.tell(run, func(*wire.Control) {})
}

func (r *rig) put(key string, v any) {
	r.t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = r.store.Put(context.Background(), key, b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// tell changes what the coordinator says.
func (r *rig) tell(run string, change func(*wire.Control)) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.control[run])
	r.put(wire.ControlKey(run), r.control[run])
}

func (r *rig) more(run string, more bool) {
	r.tell(run, func(c *wire.Control) { c.Kinds["k"] = wire.KindControl{Queue: c.Kinds["k"].Queue, More: more} })
}

// extend keeps the grant from lapsing until the test ends.
func (r *rig) extend(run string) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r.mu.Lock()
			r.control[run].Until = time.Now().Add(15 * time.Minute)
			r.put(wire.ControlKey(run), r.control[run])
			r.mu.Unlock()
			select {
			case <-stop:
				return
			case <-time.After(wire.GrantEvery):
			}
		}
	}()
	r.closers = append(r.closers, func() { close(stop); <-done })
}

// start starts the machine.
func (r *rig) start() {
	r.done = make(chan error, 1)
	ctx, cancel := context.WithCancel(r.ctx)
	go func() { r.done <- Run(ctx, r.cfg) }()
	r.closers = append(r.closers, cancel)
}

// wait waits until the machine's life is over.
func (r *rig) wait() {
	r.t.Helper()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Fatalf("the machine could not work: %v", err)
		}
	case <-time.After(48 * time.Hour):
		r.t.Fatal("the machine lives on")
	}
	select {
	case <-r.host.off:
	default:
		r.t.Error("the machine ended without powering off")
	}
}

// finish says that there is nothing more, and waits.
func (r *rig) finish() {
	r.t.Helper()
	r.more("r1", false)
	r.wait()
}

// send hands out ranges of a run, each of them [from, to).
func (r *rig) send(run string, epoch int, ranges ...[2]int) []cloud.Range {
	r.t.Helper()
	var list []cloud.Range
	for _, x := range ranges {
		r.sent++
		list = append(list, cloud.Range{Run: run, Function: "f", From: x[0], To: x[1], Attempt: 1, ID: wire.RangeID(epoch, r.sent)})
	}
	if err := r.queue(run).Send(r.ctx, list...); err != nil {
		r.t.Fatal(err)
	}
	return list
}

func (r *rig) queue(run string) *cloudtest.Queue {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queues[r.control[run].Kinds["k"].Queue]
}

// newQueue adds a queue that machines can join.
func (r *rig) newQueue(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queues[url] = cloudtest.NewQueue()
}

func (r *rig) started(fn string, i int, _ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts = append(r.starts, fmt.Sprintf("%s/%d", fn, i))
}

func (r *rig) startCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.starts)
}

func (r *rig) beat(run string) wire.Beat {
	r.t.Helper()
	b, err := r.store.Get(context.Background(), wire.BeatKey(run, "i-1"))
	var x wire.Beat
	if err == nil {
		err = json.Unmarshal(b, &x)
	}
	if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
		r.t.Fatal(err)
	}
	return x
}

// segments are those of the machine, which must be numbered without gaps.
func (r *rig) segments(run string) []*wire.Segment {
	r.t.Helper()
	var all []*wire.Segment
	for n := 1; ; n++ {
		b, err := r.store.Get(context.Background(), wire.SegmentKey(run, "i-1", n))
		if cloud.KindOf(err) == cloud.KindNotFound {
			break
		}
		if err != nil {
			r.t.Fatal(err)
		}
		s, err := wire.DecodeSegment(b)
		if err != nil {
			r.t.Fatal(err)
		}
		if s.N != n {
			r.t.Errorf("segment %d says that it is %d", n, s.N)
		}
		all = append(all, s)
	}
	if got := r.keys("runs/" + run + "/agents/i-1/seg-"); len(got) != len(all) {
		r.t.Errorf("segments have gaps: %q", got)
	}
	return all
}

func (r *rig) keys(prefix string) []string {
	r.t.Helper()
	var keys []string
	err := r.store.List(context.Background(), prefix, func(o cloud.ObjectInfo) bool {
		keys = append(keys, strings.TrimPrefix(o.Key, prefix))
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return keys
}

// outcomes folds the segments of a run: every index is reported once.
func (r *rig) outcomes(run string) (by map[int]task.Outcome, unrun []int, ended []string) {
	r.t.Helper()
	by = map[int]task.Outcome{}
	for _, s := range r.segments(run) {
		for _, b := range s.Batches {
			for _, o := range b.Outcomes {
				if old, ok := by[o.Index]; ok {
					r.t.Errorf("%s/%d was reported twice: %v, %v", b.Function, o.Index, old.Status, o.Status)
				}
				by[o.Index] = o
			}
			unrun = append(unrun, b.Unrun...)
		}
		ended = append(ended, s.Ended...)
	}
	slices.Sort(unrun)
	return by, unrun, ended
}
