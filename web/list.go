package web

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

// lister keeps the list of runs for everybody: read when somebody asks, at
// most as often as its pace, and again and again while somebody watches.
// Runs that have ended are remembered: they change only when somebody retries
// them, which is noticed within a minute.
type lister struct {
	engine *engine.Engine
	hub    *hub
	every  time.Duration

	reading sync.Mutex // one reads at a time
	frames  frames     // what is shown of the newest version

	mu       sync.Mutex
	known    map[string]knownRun
	list     []engine.RunSummary // newest first; never changed once it is here
	problem  error               // why that is old; nil: it is not
	version  int
	changed  chan struct{}
	looked   time.Time
	watchers int
	polling  bool
}

type knownRun struct {
	engine.RunSummary
	at time.Time
}

// resting says whether nobody works on a run of a status.
func resting(status string) bool {
	return executor.RunStatus(status).Final() || status == string(executor.RunInterrupted)
}

// trusted is how long a run that nobody works on is taken as that.
func trusted(run string) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(run)) // never fails
	return 30*time.Second + time.Duration(h.Sum32()%30)*time.Second
}

func newLister(e *engine.Engine, h *hub, every time.Duration) *lister {
	return &lister{engine: e, hub: h, every: every, known: map[string]knownRun{}, changed: make(chan struct{})}
}

// now is the list, at most a moment old; with an error it is what was known
// last.
func (l *lister) now(ctx context.Context) (list []engine.RunSummary, version int, changed <-chan struct{}, err error) {
	l.mu.Lock()
	fresh := !l.looked.IsZero() && (time.Since(l.looked) < l.every || l.polling)
	l.mu.Unlock()
	if !fresh {
		err = l.look(ctx, false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list, l.version, l.changed, cmp.Or(err, l.problem)
}

// forget makes the next look read a run again.
func (l *lister) forget(run string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.known[run]; ok {
		k.at = time.Time{}
		l.known[run] = k
	}
	l.looked = time.Time{}
}

// atOnceRuns is how many runs are read at a time.
const atOnceRuns = 16

func (l *lister) look(ctx context.Context, poll bool) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	l.mu.Lock()
	if !poll && time.Since(l.looked) < l.every { // somebody else just did
		l.mu.Unlock()
		return nil
	}
	known := l.known
	l.mu.Unlock()
	ids, err := l.engine.RunIDs(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.looked = time.Now() // nobody else waits for a store that is away
		if l.problem == nil || l.problem.Error() != err.Error() {
			l.problem = err
			l.grown()
		}
		return err
	}
	next := make(map[string]knownRun, len(ids))
	var mu sync.Mutex
	var wg sync.WaitGroup
	free := make(chan struct{}, atOnceRuns)
	for _, id := range ids {
		have, ok := known[id]
		if ok && resting(have.Status) && time.Since(have.at) < trusted(id) {
			next[id] = have
			continue
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			s, err := l.one(ctx, id, have, ok)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				next[id] = knownRun{s, time.Now()}
			case cloud.KindOf(err) != cloud.KindNotFound && ok:
				next[id] = have // what was known last
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	list := make([]engine.RunSummary, 0, len(next))
	for _, k := range next {
		list = append(list, k.RunSummary)
	}
	slices.SortFunc(list, func(a, b engine.RunSummary) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(b.Run, a.Run)
	})
	l.mu.Lock()
	l.known, l.looked = next, time.Now()
	if l.version == 0 || l.problem != nil || !slices.EqualFunc(l.list, list, sameSummary) {
		l.list, l.problem = list, nil
		l.grown()
	}
	l.mu.Unlock()
	return nil
}

// grown tells watchers of a new version. The caller holds l.mu.
func (l *lister) grown() {
	l.version++
	close(l.changed)
	l.changed = make(chan struct{})
}

func sameSummary(a, b engine.RunSummary) bool {
	if (a.Finished == nil) != (b.Finished == nil) || a.Finished != nil && !a.Finished.Equal(*b.Finished) || !a.Started.Equal(b.Started) {
		return false
	}
	a.Finished, b.Finished, a.Started, b.Started = nil, nil, time.Time{}, time.Time{}
	return a == b
}

// one reads a run: one that went on last time through the hub, which reads
// only what its journal has got since.
func (l *lister) one(ctx context.Context, id string, have knownRun, ok bool) (engine.RunSummary, error) {
	if !ok || executor.RunStatus(have.Status).Final() {
		return l.engine.Summary(ctx, id)
	}
	w, err := l.hub.open(ctx, id)
	if err != nil {
		return engine.RunSummary{}, err
	}
	_, r, _, _ := w.now()
	s := have.RunSummary
	s.Status, s.Started, s.Finished, s.Seconds, s.CostUSD = string(r.Status), r.Started, r.Finished, r.Seconds, r.CostUSD
	s.Tasks, s.Failed = 0, 0
	for _, f := range r.Functions {
		s.Tasks += f.Tasks
		s.Failed += f.Failed
	}
	return s, nil
}

// watch keeps the list up to date until the caller calls stop.
func (l *lister) watch(ctx context.Context) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers++
	if !l.polling {
		l.polling = true
		go l.poll(context.WithoutCancel(ctx))
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.watchers--
		})
	}
}

func (l *lister) poll(ctx context.Context) {
	t := time.NewTicker(l.every)
	defer t.Stop()
	for range t.C {
		l.mu.Lock()
		if l.watchers == 0 {
			l.polling = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		_ = l.look(ctx, true) // a store that is away is asked again
	}
}
