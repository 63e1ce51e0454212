package web

import (
	"context"
	"encoding/json"
	"fmt"
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

	// What use guards: a View serves one reader at a time.
	use      sync.Mutex
	view     *executor.View
	live     map[string]map[int]task.Live // running tasks by function
	cells    map[string]*shown            // the grids that somebody asked for
	past     history
	grouped  []failureGroup // at groupedAt
	groupsAt mark

	frames frames // what is shown of the newest version

	mu       sync.Mutex
	version  int           // grows with each change
	changed  chan struct{} // closed at the next change
	state    []byte        // the report as JSON
	report   executor.Report
	diffs    []gridDiff // the last ones, oldest first
	watchers int
	used     time.Time // somebody asked
	looked   time.Time // the store was asked
	polling  bool
}

// mark is when something was worked out, and of which version.
type mark struct {
	version int
	at      time.Time
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
		w = &watched{run: run, hub: h, changed: make(chan struct{}), used: time.Now(), cells: map[string]*shown{}}
		h.runs[run] = w
	}
	h.mu.Unlock()
	if err := w.look(ctx, false); err != nil {
		h.mu.Lock()
		if h.runs[run] == w && w.unread() {
			delete(h.runs, run)
		}
		h.mu.Unlock()
		return nil, err
	}
	return w, nil
}

// forget drops what is known of a run, so that the next look is at the store,
// and what is shown is made anew.
func (h *hub) forget(run string) {
	h.mu.Lock()
	w := h.runs[run]
	h.mu.Unlock()
	if w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.looked = time.Time{}
		if w.version > 0 {
			w.grown()
		}
	}
}

// grown tells watchers of a new version. The caller holds w.mu.
func (w *watched) grown() {
	w.version++
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watched) unread() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.version == 0
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
	fresh := w.version > 0 && !poll && !w.looked.IsZero() && (time.Since(w.looked) < w.hub.every || w.polling)
	if !poll {
		w.used = time.Now()
	}
	ended := w.report.Status.Final()
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
	} else if ended { // retry may have gone on with it; of others Report reads what is new
		if err := w.view.Refresh(ctx); err != nil {
			return err
		}
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
	diff := w.regrid()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked = time.Now()
	if w.version > 0 && string(state) == string(w.state) && diff == nil {
		return nil
	}
	w.state, w.report = state, report
	w.grown()
	if diff != nil {
		if len(w.diffs) >= maxDiffs {
			w.diffs = append(w.diffs[:0], w.diffs[len(w.diffs)-maxDiffs/2:]...)
		}
		w.diffs = append(w.diffs, gridDiff{w.version, eventOf("grid", fmt.Appendf(nil, `{"v":%d,"fn":%s}`, w.version, diff))})
	}
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

// slower is how much longer each watcher makes the others wait: what is shown
// to hundreds need not be shown to them twice a second.
const slower = 5 * time.Millisecond

// poll looks at the run while somebody watches it and it may change. It ends
// by itself.
func (w *watched) poll(ctx context.Context) {
	t := time.NewTimer(w.hub.every)
	defer t.Stop()
	for range t.C {
		w.mu.Lock()
		watchers := w.watchers
		if watchers == 0 {
			w.polling = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		// A store that is away for a while is asked again; the page shows what
		// was known last.
		_ = w.look(ctx, true)
		t.Reset(w.hub.every + time.Duration(watchers)*slower)
	}
}
