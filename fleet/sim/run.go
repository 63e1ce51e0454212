package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Run is a coordinator at work.
type Run struct {
	w      *World
	Coord  *executor.Coordinator
	Fleet  *fleet.Fleet
	link   *link
	done   chan struct{}
	cancel context.CancelCauseFunc
	report executor.Report
	left   fleet.Left
	err    error
	Closed time.Time // when the run had its final status and Close began
}

// Create records the run; Start begins or resumes it.
func (w *World) Create(ctx context.Context, run string) error {
	plan, err := planner.Make(ctx, w.pipeline, planner.Inputs{}, planner.Options{})
	if err != nil {
		return err
	}
	h := &executor.Header{Run: run, Pipeline: w.pipeline.Name, File: "pipeline.yaml", Cloud: "aws", Created: time.Now(), Token: "t", Planned: map[string]int{}}
	for _, f := range plan.Functions {
		if f.Tasks >= 0 {
			h.Planned[f.Name] = f.Tasks
		}
		if f.Items != nil {
			if err := executor.SaveItems(ctx, w.store, run, f.Name, f.Items); err != nil {
				return err
			}
		}
	}
	return executor.Create(ctx, w.store, h, []byte(w.cfg.Source))
}

// Start makes a coordinator that begins the run, or goes on with it.
func (w *World) Start(ctx context.Context, run string) (*Run, error) {
	l := w.link(w.store.Process())
	l.lossy = 0
	r := &Run{w: w, link: l, done: make(chan struct{})}
	h, err := executor.LoadHeader(ctx, l, run)
	if err != nil {
		return nil, err
	}
	kind := w.cfg.Kind
	kind.Name, kind.Pool = "k", "k"
	kind.Functions = nil
	for _, f := range w.pipeline.Functions {
		kind.Functions = append(kind.Functions, f.Name)
	}
	if kind.Setup.MaxLife == 0 {
		kind.Setup.MaxLife = 24 * time.Hour
	}
	if kind.Setup.IdleTimeout == 0 {
		kind.Setup.IdleTimeout = 10 * time.Minute
	}
	if kind.Setup.Threads == 0 {
		kind.Setup.Threads = 1
	}
	out := &lateQueue{}
	r.Coord, err = executor.NewCoordinator(ctx, executor.Config{Store: l, Queue: out, Header: h, Pipeline: w.pipeline,
		StopWork: func() { r.Fleet.StopWork() }, Live: func() []task.Live { return r.Fleet.Live() }, Host: "sim", Poll: 2 * time.Second,
		Remote: &executor.RemoteConfig{Capacity: func(fn string) int { return r.Fleet.Capacity(fn) }, Close: func(ctx context.Context, _ executor.RunStatus) {
			r.Closed = time.Now()
			left, err := r.Fleet.Close(ctx)
			r.left = left
			if err != nil {
				r.notice("close: " + err.Error())
			}
		}}})
	if err != nil {
		return nil, err
	}
	limits := w.cfg.Limits
	limits.Past = r.Coord.Machines()
	r.Fleet = fleet.New(fleet.Config{Run: run, Epoch: r.Coord.Epoch, Store: l, Machines: rental{w.machines, l},
		Coordinator: r.Coord, OpenQueue: func(_ context.Context, name string) (fleet.Queue, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			q := newQueue("q:" + run + "-" + name)
			q.void = w.cfg.Deaf && strings.HasPrefix(name, "hints")
			w.queues[q.url] = q
			return port{q, l}, nil
		}, JoinQueue: w.join(l), Kinds: []fleet.Kind{kind}, Limits: limits, Unattended: w.cfg.Unattended, Notice: r.notice})
	out.Queue = r.Fleet.Queue()
	running, cancel := context.WithCancelCause(ctx)
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.Fleet.Start(running)
		r.report, r.err = r.Coord.Run(running)
		if r.err != nil {
			r.Fleet.Abandon() // its machines go on for the next coordinator
			_, _ = r.Fleet.Close(running)
		}
	}()
	return r, nil
}

func (r *Run) notice(text string) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.Notices = append(r.w.Notices, fmt.Sprintf("%6.0fs %s", time.Since(r.w.begun).Seconds(), text))
}

// Wait waits for the end of the run.
func (r *Run) Wait() (executor.Report, fleet.Left, error) {
	<-r.done
	return r.report, r.left, r.err
}

// Kill ends the coordinator as kill -9 does.
func (r *Run) Kill() {
	r.link.Store.Kill()
	r.link.cut(true)
	r.Fleet.Abandon()
	go r.Coord.AgentsDone(errors.New("killed"))
	<-r.done
}

// Cancel asks for the end of the run.
func (r *Run) Cancel(why string) { r.cancel(errors.New(why)) }

// Slow makes every request of the coordinator take so long.
func (r *Run) Slow(d time.Duration) {
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	r.link.latency = d
}

// Done is closed when the run has ended.
func (r *Run) Done() <-chan struct{} { return r.done }

// rental is the cloud as a coordinator reaches it.
type rental struct {
	*cloudtest.Fleet
	link *link
}

func (r rental) Launch(ctx context.Context, s cloud.MachineSpec) ([]cloud.Machine, error) {
	if err := r.link.wait(ctx, "machines"); err != nil {
		return nil, err
	}
	return r.Fleet.Launch(ctx, s)
}

func (r rental) List(ctx context.Context, run string) ([]cloud.Machine, error) {
	if err := r.link.wait(ctx, "machines"); err != nil {
		return nil, err
	}
	return r.Fleet.List(ctx, run)
}

func (r rental) Terminate(ctx context.Context, ids ...string) error {
	if err := r.link.wait(ctx, "machines"); err != nil {
		return err
	}
	return r.Fleet.Terminate(ctx, ids...)
}

// lateQueue is a queue that is there after its coordinator.
type lateQueue struct{ cloud.Queue }
