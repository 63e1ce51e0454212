package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// pointer is a file in the state folder that tells where a run of the caller is.
type pointer struct {
	Run      string    `json:"run"`
	Pipeline string    `json:"pipeline"`
	Store    string    `json:"store"`
	Region   string    `json:"region,omitempty"`
	Created  time.Time `json:"created"`
}

func (e *Engine) pointers() string { return filepath.Join(e.StateDir, "runs") }

// point leaves a pointer to a run, or renews its time: it is the caller's latest
// now. A run does not need it, and in a container there may be no place for it.
func (e *Engine) point(h *executor.Header, region string) {
	if err := e.writePointer(h, region); err != nil {
		e.say("warning: the list of your own runs cannot be kept, set HOME or XDG_STATE_HOME to a folder that can be written (%v); "+
			"run %s is found by its id and --store %s", err, h.Run, e.Store.URL())
	}
}

func (e *Engine) writePointer(h *executor.Header, region string) error {
	if err := os.MkdirAll(e.pointers(), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(pointer{Run: h.Run, Pipeline: h.Pipeline, Store: e.Store.URL(), Region: region, Created: e.now()})
	if err != nil {
		return err
	}
	// A name of its own: several processes with one key may be here at once.
	f, err := os.CreateTemp(e.pointers(), h.Run+".*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(e.pointers(), h.Run+".json"))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// own reads the caller's pointers, newest first.
func (e *Engine) own() ([]pointer, error) {
	entries, err := os.ReadDir(e.pointers())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil // a home that is nobody's has no runs of anybody's own
	}
	if err != nil {
		return nil, err
	}
	var all []pointer
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(e.pointers(), entry.Name()))
		if err != nil {
			continue // removed meanwhile
		}
		var p pointer
		if json.Unmarshal(b, &p) == nil && p.Run != "" {
			all = append(all, p)
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		if !all[i].Created.Equal(all[j].Created) {
			return all[i].Created.After(all[j].Created)
		}
		return all[i].Run > all[j].Run
	})
	return all, nil
}

// storeOf opens the store of a pointer.
func (e *Engine) storeOf(p pointer) (cloud.Store, error) {
	if e.Store != nil && p.Store == e.Store.URL() {
		return e.Store, nil
	}
	if e.OpenStore == nil {
		return nil, usagef("run %s is in the store %s; give --store", p.Run, p.Store)
	}
	return e.OpenStore(p.Store)
}

// Find resolves "latest", a run id or an unambiguous prefix (or the last part
// of an id) to a run and the store it is in. Errors are *UsageError.
func (e *Engine) Find(ctx context.Context, ref string) (run string, store cloud.Store, err error) {
	own, err := e.own()
	if err != nil {
		return "", nil, err
	}
	if ref == "latest" {
		return e.latest(ctx, own)
	}
	if ref == "" {
		return "", nil, usagef("the run is an empty text; `coiled-jobs runs` lists yours")
	}
	matches := map[string]*pointer{}
	for i := range own {
		if own[i].Run == ref {
			return e.pointed(ctx, own[i])
		}
		if matchesRun(own[i].Run, ref) {
			matches[own[i].Run] = &own[i]
		}
	}
	ids, err := e.stored(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, id := range ids {
		if id == ref {
			return e.inStore(ctx, id)
		}
		if matchesRun(id, ref) && matches[id] == nil {
			matches[id] = nil
		}
	}
	return e.oneOf(ctx, ref, matches)
}

// latest is the newest of the caller's runs that is still there.
func (e *Engine) latest(ctx context.Context, own []pointer) (string, cloud.Store, error) {
	for _, p := range own {
		run, store, err := e.pointed(ctx, p)
		var gone *UsageError
		if !errors.As(err, &gone) {
			return run, store, err
		}
	}
	return "", nil, usagef("you have no run yet; `coiled-jobs runs --all` lists everybody's in the store")
}

// pointed is the run of a pointer, unless it was deleted behind the caller's back.
func (e *Engine) pointed(ctx context.Context, p pointer) (string, cloud.Store, error) {
	store, err := e.storeOf(p)
	if err == nil {
		_, err = executor.LoadHeader(ctx, store, p.Run)
	}
	if cloud.KindOf(err) == cloud.KindNotFound {
		return "", nil, usagef("run %s is not in its store %s any more", p.Run, p.Store)
	}
	return p.Run, store, err
}

// inStore is a run that the store lists, unless only its name is left.
func (e *Engine) inStore(ctx context.Context, run string) (string, cloud.Store, error) {
	_, err := executor.LoadHeader(ctx, e.Store, run)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return "", nil, usagef("run %s is not in the store any more, or was never recorded", run)
	}
	return run, e.Store, err
}

func (e *Engine) oneOf(ctx context.Context, ref string, matches map[string]*pointer) (string, cloud.Store, error) {
	var names []string
	for id := range matches {
		names = append(names, id)
	}
	sort.Strings(names)
	switch len(names) {
	case 0:
		return "", nil, usagef("no run %q; `coiled-jobs runs` lists yours, `runs --all` everybody's in the store", ref)
	case 1:
		if p := matches[names[0]]; p != nil {
			return e.pointed(ctx, *p)
		}
		return e.inStore(ctx, names[0])
	}
	shown := strings.Join(names[:min(5, len(names))], ", ")
	return "", nil, usagef("%q could be %d runs: %s", ref, len(names), shown)
}

func matchesRun(id, ref string) bool {
	return strings.HasPrefix(id, ref) || strings.HasSuffix(id, "-"+ref)
}

// RunIDs is the ids of all runs in the store.
func (e *Engine) RunIDs(ctx context.Context) ([]string, error) { return e.stored(ctx) }

// Summary is a line of runs. KindNotFound if there is no such run.
func (e *Engine) Summary(ctx context.Context, run string) (RunSummary, error) {
	return e.summary(ctx, e.Store, run)
}

// stored is the ids of all runs in the store.
func (e *Engine) stored(ctx context.Context) ([]string, error) {
	if e.Store == nil {
		return nil, nil // none was made yet
	}
	var ids []string
	err := e.Store.List(ctx, executor.IndexPrefix, func(o cloud.ObjectInfo) bool {
		ids = append(ids, strings.TrimPrefix(o.Key, executor.IndexPrefix))
		return true
	})
	return ids, err
}

// runsAtATime is how many runs are looked at together: in a bucket a look is
// mostly waiting.
const runsAtATime = 16

// RunsHere is those of the caller's own runs that are in the store, newest first.
func (e *Engine) RunsHere(ctx context.Context) ([]RunSummary, error) {
	own, err := e.own()
	if err != nil {
		return nil, err
	}
	return e.summaries(ctx, slices.DeleteFunc(own, func(p pointer) bool { return e.Store == nil || !samePlace(p.Store, e.Store.URL()) }))
}

// samePlace says whether two stores are one, also by way of links to a folder.
func samePlace(a, b string) bool {
	if a == b || strings.HasPrefix(a, "s3://") || strings.HasPrefix(b, "s3://") {
		return a == b
	}
	x, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	y, err := filepath.EvalSymlinks(b)
	return err == nil && x == y
}

// Runs lists runs, newest first: the caller's own, or all in the store.
func (e *Engine) Runs(ctx context.Context, all bool) ([]RunSummary, error) {
	if !all {
		own, err := e.own()
		if err != nil {
			return nil, err
		}
		return e.summaries(ctx, own)
	}
	ids, err := e.stored(ctx)
	if err != nil {
		return nil, err
	}
	runs := make([]pointer, 0, len(ids))
	for _, id := range ids {
		runs = append(runs, pointer{Run: id, Store: e.Store.URL()})
	}
	return e.summaries(ctx, runs)
}

// summaries are lines of runs, newest first. What cannot be read is told of
// and left out.
func (e *Engine) summaries(ctx context.Context, runs []pointer) ([]RunSummary, error) {
	list := []RunSummary{}
	unread := map[string][]string{} // by the reason, which is often that of a whole store
	var mu sync.Mutex
	var wg sync.WaitGroup
	turn := make(chan struct{}, runsAtATime)
	add := func(store cloud.Store, run string) {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			s, err := e.summary(ctx, store, run)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				list = append(list, s)
			case cloud.KindOf(err) == cloud.KindNotFound: // removed, or not recorded yet
			default: // one that cannot be read does not hide the others
				unread[err.Error()] = append(unread[err.Error()], run)
			}
		})
	}
	for _, p := range runs {
		store, err := e.storeOf(p)
		if err != nil {
			continue // a store that is away does not hide the others
		}
		add(store, p.Run)
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, reason := range slices.Sorted(maps.Keys(unread)) {
		runs := unread[reason]
		which := "run " + slices.Max(runs)
		if n := len(runs) - 1; n > 0 {
			which += fmt.Sprintf(" and %d more", n)
		}
		fmt.Fprintf(e.Stderr, "coiled-jobs: %s cannot be read: %s\n", which, reason)
	}
	sort.Slice(list, func(i, j int) bool {
		if !list[i].Started.Equal(list[j].Started) {
			return list[i].Started.After(list[j].Started)
		}
		return list[i].Run > list[j].Run
	})
	return list, nil
}

// summary is a line of runs: from the summary the coordinator left, if that
// is of a finished run, else from the journal.
func (e *Engine) summary(ctx context.Context, store cloud.Store, run string) (RunSummary, error) {
	h, err := executor.LoadHeader(ctx, store, run)
	if err != nil {
		return RunSummary{}, err
	}
	s := RunSummary{Run: run, Pipeline: h.Pipeline, Owner: h.Owner, Key: h.Key, Store: store.URL()}
	if b, err := store.Get(ctx, executor.SummaryKey(run)); err == nil && json.Unmarshal(b, &s) == nil &&
		executor.RunStatus(s.Status).Final() {
		alive, err := store.JournalAlive(ctx, executor.Prefix(run)+"/journal")
		if err == nil && !alive {
			return s, nil
		}
	}
	v, err := executor.OpenView(ctx, store, run)
	if err != nil {
		return s, err
	}
	r, err := v.Report(ctx)
	if err != nil {
		return s, err
	}
	s.Status, s.Started, s.Finished, s.Seconds = string(r.Status), r.Started, r.Finished, r.Seconds
	s.CostUSD = r.CostUSD
	s.Tasks, s.Failed = 0, 0
	for _, f := range r.Functions {
		s.Tasks += f.Tasks
		s.Failed += f.Failed
	}
	return s, nil
}

// Cancel asks the coordinator of a run to cancel it, or, where none is alive,
// records the end of the run itself; it returns when the run has ended, or
// after wait with the state it is in.
func (e *Engine) Cancel(ctx context.Context, run string, wait time.Duration) (executor.Report, error) {
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return executor.Report{}, err
	}
	r, err := v.Report(ctx)
	if err != nil || r.Status.Final() {
		return r, err
	}
	alive, err := v.Alive(ctx)
	if err != nil {
		return r, err
	}
	if !alive {
		r, err := e.cancelDead(ctx, v)
		if cloud.KindOf(err) != cloud.KindConflict {
			return r, err
		}
	}
	if err := e.Store.Put(ctx, executor.CancelKey(run), []byte("cancelled by "+e.Owner)); err != nil {
		return r, err
	}
	h, err := e.watch(ctx, run, "")
	if err != nil {
		return r, err
	}
	caller := ctx
	ctx, stop := context.WithTimeout(ctx, wait)
	defer stop()
	r, err = h.Wait(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return r, nil // asked for; the coordinator is at it
	case err == nil && r.Status == executor.RunInterrupted:
		// It died without an answer, or was dead and seemed alive.
		if err := v.Refresh(caller); err != nil {
			return r, err
		}
		return e.cancelDead(caller, v)
	}
	return r, err
}

// cancelDead ends a run that has no live coordinator, and what it has rented.
func (e *Engine) cancelDead(ctx context.Context, v *executor.View) (executor.Report, error) {
	r, err := executor.CancelDead(ctx, e.Store, v, "cancelled by "+e.Owner, e.now)
	if err != nil {
		return r, err
	}
	err = allOf(
		func() error { return e.tellStop(ctx, v.Header, v.Epoch()) },
		func() error { return e.release(ctx, v.Header) },
	)
	if err != nil {
		return r, fmt.Errorf("run %s is cancelled, but not all that it rented could be released: %w\n"+
			"its machines power off by themselves; `coiled-jobs gc` removes what is left", v.Header.Run, err)
	}
	return r, nil
}

// Remove deletes a run that is not live (KindConflict if it is), and the
// caller's pointer to it.
func (e *Engine) Remove(ctx context.Context, run string) error {
	journal := executor.Prefix(run) + "/journal"
	alive, err := e.Store.JournalAlive(ctx, journal)
	if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
		return err
	}
	if alive {
		return &cloud.Error{Op: "remove", Resource: "run " + run, Kind: cloud.KindConflict,
			Err: errors.New("it is running; cancel it first")}
	}
	if h, err := executor.LoadHeader(ctx, e.Store, run); err == nil && h.Cloud == "aws" && e.AWS != nil {
		// What is left of it could not be found any more afterwards.
		if err := e.release(ctx, h); err != nil {
			return err
		}
	}
	if err := e.Store.DeletePrefix(ctx, executor.Prefix(run)); err != nil {
		return err
	}
	if err := e.Store.Delete(ctx, executor.IndexPrefix+run); err != nil {
		return err
	}
	err = os.Remove(filepath.Join(e.pointers(), run+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// finalOutcome says whether a task's declared outputs can be had.
func finalOutcome(t executor.TaskReport) bool { return t.Status == task.Succeeded && t.Pos >= 0 }
