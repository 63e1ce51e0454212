package web

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// hub reads runs for everybody who looks at them: each run once, however many
// watch it, and only while somebody does.
type hub struct {
	store func() cloud.Store
	every time.Duration // how often a watched run is looked at

	mu   sync.Mutex
	runs map[string]*watched
}

// lingers is how long a run is kept in memory after the last look at it.
const lingers = time.Minute

// watched is a run that somebody looks at.
type watched struct {
	run string
	hub *hub

	// view is guarded by use: a View serves one reader at a time.
	use  sync.Mutex
	view *executor.View
	live map[string]map[int]task.Live // running tasks by function

	mu       sync.Mutex
	version  int           // grows with each change
	changed  chan struct{} // closed at the next change
	state    []byte        // the report as JSON
	report   executor.Report
	watchers int
	used     time.Time
	polling  bool
}

func newHub(store func() cloud.Store, every time.Duration) *hub {
	return &hub{store: store, every: every, runs: map[string]*watched{}}
}

// open gives a run, read at least once. KindNotFound if there is none.
func (h *hub) open(ctx context.Context, run string) (*watched, error) {
	h.mu.Lock()
	for id, w := range h.runs {
		if id != run && w.idle() {
			delete(h.runs, id)
		}
	}
	w := h.runs[run]
	if w == nil {
		w = &watched{run: run, hub: h, changed: make(chan struct{}), used: time.Now()}
		h.runs[run] = w
	}
	h.mu.Unlock()
	if err := w.look(ctx, false); err != nil {
		h.mu.Lock()
		if h.runs[run] == w && w.version == 0 {
			delete(h.runs, run)
		}
		h.mu.Unlock()
		return nil, err
	}
	return w, nil
}

func (w *watched) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watchers == 0 && time.Since(w.used) > lingers
}

// look reads what the run has got since; at most as often as the hub's pace.
func (w *watched) look(ctx context.Context, poll bool) error {
	w.use.Lock()
	defer w.use.Unlock()
	w.mu.Lock()
	fresh := w.version > 0 && !poll && (time.Since(w.used) < w.hub.every || w.polling)
	if fresh {
		w.used = time.Now()
	}
	w.mu.Unlock()
	if fresh {
		return nil
	}
	if w.view == nil {
		v, err := executor.OpenView(ctx, w.hub.store(), w.run)
		if err != nil {
			return err
		}
		w.view = v
	}
	report, err := w.view.Report(ctx)
	if err != nil {
		return err
	}
	live := map[string]map[int]task.Live{}
	if !report.Status.Final() && report.Status != executor.RunInterrupted {
		tasks, err := w.view.Live(ctx)
		if err != nil {
			return err
		}
		for _, l := range tasks {
			if live[l.Function] == nil {
				live[l.Function] = map[int]task.Live{}
			}
			live[l.Function][l.Index] = l
		}
	}
	w.live = live
	state, err := json.Marshal(report)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !poll {
		w.used = time.Now()
	}
	if w.version > 0 && string(state) == string(w.state) {
		return nil
	}
	w.version++
	w.state, w.report = state, report
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

// now is the run as it was read last; changed is closed when it is not that
// any more.
func (w *watched) now() (state []byte, report executor.Report, version int, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = time.Now()
	return w.state, w.report, w.version, w.changed
}

// read lets fn read the view.
func (w *watched) read(fn func(v *executor.View, live map[string]map[int]task.Live) error) error {
	w.use.Lock()
	defer w.use.Unlock()
	return fn(w.view, w.live)
}

// watch keeps the run up to date until the caller calls stop.
func (w *watched) watch(ctx context.Context) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchers++
	if !w.polling {
		w.polling = true
		go w.poll(context.WithoutCancel(ctx))
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.watchers--
			w.used = time.Now()
		})
	}
}

// poll looks at the run while somebody watches it and it may change. It ends
// by itself.
func (w *watched) poll(ctx context.Context) {
	t := time.NewTicker(w.hub.every)
	defer t.Stop()
	for range t.C {
		w.mu.Lock()
		if w.watchers == 0 {
			w.polling = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		// A store that is away for a while is asked again; the page shows what
		// was known last.
		_ = w.look(ctx, true)
	}
}
