package engine

import (
	"context"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// Handle is a run that this process coordinates or watches. Its methods are
// safe for concurrent use.
type Handle struct {
	Run      string
	Joined   string // "" for a new run; otherwise why an existing one is used: a line for people
	Detached bool   // the coordinator is another process

	session *session // nil: watching
	watcher *watcher // nil: coordinating, or finished before
	joined  *joined  // neither: a run that is watched, and continued if its coordinator dies
	report  executor.Report
	notices chan executor.Notice
}

// finishedHandle is a run that needs nothing more.
func finishedHandle(r executor.Report, joined string) *Handle {
	h := &Handle{Run: r.Run, Joined: joined, report: r, notices: make(chan executor.Notice)}
	close(h.notices)
	return h
}

// Wait returns when the run has reached its end (or, watching, is found
// interrupted). When ctx ends first, a run that this process coordinates is
// cancelled: tasks are ended, and Wait returns within 10 s; a watched one is
// left alone and ctx's error returned.
func (h *Handle) Wait(ctx context.Context) (executor.Report, error) {
	switch {
	case h.session != nil:
		r, err := h.session.wait(ctx)
		select {
		case <-h.session.notified:
		case <-ctx.Done():
		}
		return r, err
	case h.watcher != nil:
		return h.watcher.wait(ctx)
	case h.joined != nil:
		return h.joined.wait(ctx)
	}
	return h.report, nil
}

// Snapshot is the state of the run now; cheap enough for ten calls a second.
func (h *Handle) Snapshot() executor.Report {
	switch {
	case h.session != nil:
		return h.session.coord.Snapshot()
	case h.watcher != nil:
		r, _ := h.watcher.now()
		return r
	case h.joined != nil:
		return h.joined.handle().Snapshot()
	}
	return h.report
}

// Live is the tasks that run now.
func (h *Handle) Live() []task.Live {
	switch {
	case h.session != nil:
		return h.session.live()
	case h.watcher != nil:
		_, live := h.watcher.now()
		return live
	case h.joined != nil:
		return h.joined.handle().Live()
	}
	return nil
}

// Fleet counts the rented machines that this process coordinates: those that
// start, and those that work or leave. None where it rents none.
func (h *Handle) Fleet() (starting, working int) {
	if h.session == nil || h.session.fleet == nil {
		return 0, 0
	}
	for _, m := range h.session.fleet.fleet.Machines() {
		switch m.State {
		case "ended", wire.StateGone:
		case "booting", wire.StatePreparing:
			starting++
		default:
			working++
		}
	}
	return starting, working
}

// Notices yields what happens; closed at the end of the run.
func (h *Handle) Notices() <-chan executor.Notice { return h.notices }

// watcher follows a run that another process coordinates.
type watcher struct {
	view    *executor.View
	every   time.Duration
	notices chan executor.Notice
	stop    context.CancelFunc
	done    chan struct{}
	err     error

	mu     sync.Mutex
	report executor.Report
	live   []task.Live
}

// watchEvery is how often a watcher looks where that costs a stat.
const watchEvery = 100 * time.Millisecond

// poller is a store that costs something to look at.
type poller interface{ PollEvery() time.Duration }

// PollEvery is how often to look at the store: no more often than every least,
// nor than is reasonable with it.
func (e *Engine) PollEvery(least time.Duration) time.Duration {
	if p, ok := e.Store.(poller); ok {
		return max(least, p.PollEvery())
	}
	return least
}

// startGrace is how long a coordinator has to take a run that was started for it.
const startGrace = 30 * time.Second

// watch follows a run to its end.
func (e *Engine) watch(ctx context.Context, run, joined string) (*Handle, error) {
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &watcher{view: v, every: e.PollEvery(watchEvery), notices: make(chan executor.Notice, 256), stop: stop, done: make(chan struct{})}
	if err := w.look(ctx); err != nil {
		stop()
		return nil, err
	}
	go w.follow(ctx)
	return &Handle{Run: run, Joined: joined, watcher: w, notices: w.notices}, nil
}

func (w *watcher) follow(ctx context.Context) {
	defer close(w.done)
	defer close(w.notices)
	t := time.NewTicker(w.every)
	defer t.Stop()
	for {
		r, _ := w.now()
		if r.Status.Final() || r.Status == executor.RunInterrupted {
			return
		}
		select {
		case <-ctx.Done():
			w.err = context.Cause(ctx)
			return
		case <-t.C:
		}
		if err := w.look(ctx); err != nil {
			w.err = err
			return
		}
	}
}

// look refreshes the picture and tells which functions ended.
func (w *watcher) look(ctx context.Context) error {
	r, err := w.view.Report(ctx)
	if err != nil {
		return err
	}
	live, err := w.view.Live(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	old := w.report
	w.report, w.live = r, live
	w.mu.Unlock()
	for i, f := range r.Functions {
		if i < len(old.Functions) && old.Functions[i].Status != f.Status && finalFunction(f.Status) {
			text := f.Status
			if f.Reason != "" {
				text += ": " + f.Reason
			}
			select {
			case w.notices <- executor.Notice{Time: time.Now(), Kind: executor.NoticeFunction, Function: f.Name, Text: text}:
			default:
			}
		}
	}
	return nil
}

func finalFunction(status string) bool {
	return status != task.Pending.String() && status != task.Running.String()
}

func (w *watcher) now() (executor.Report, []task.Live) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.report, w.live
}

func (w *watcher) wait(ctx context.Context) (executor.Report, error) {
	select {
	case <-w.done:
		r, _ := w.now()
		return r, w.err
	case <-ctx.Done():
		w.stop()
		<-w.done
		r, _ := w.now()
		return r, context.Cause(ctx)
	}
}
