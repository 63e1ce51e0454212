package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// ContinueOptions are the flags of resume and retry.
type ContinueOptions struct {
	CodeNew bool     // resume: go on although local code changed
	Cause   string   // retry: only tasks that failed for this cause
	Detach  bool     // the coordinator becomes a process of its own
	MaxCost *float64 // a new limit, or NoLimit, on what the run costs in all
	NoCache bool
	// File is where the pipeline file is now: of use for a run on this machine
	// whose recorded folder is not here, such as one of another CI runner.
	File string
}

// placed is the header of a run with the place where its file is now.
func (o ContinueOptions) placed(h *executor.Header) *executor.Header {
	if o.File == "" || h.Cloud == "aws" || folderHere(h.Dir) {
		return h
	}
	file, err := filepath.Abs(o.File)
	if err != nil {
		return h
	}
	moved := *h
	moved.File, moved.Dir = file, filepath.Dir(file)
	return &moved
}

// Attach watches a run that another process coordinates, or returns a finished one.
func (e *Engine) Attach(ctx context.Context, run string) (*Handle, error) {
	return e.watch(ctx, run, "")
}

// Resume continues an interrupted or stopped run with the recorded file and
// items; a live run is joined, a finished one returned.
func (e *Engine) Resume(ctx context.Context, run string, o ContinueOptions) (*Handle, error) {
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return nil, err
	}
	r, err := v.Report(ctx)
	if err != nil {
		return nil, err
	}
	v.Header = o.placed(v.Header)
	alive, err := settled(ctx, v)
	if err != nil {
		return nil, err
	}
	switch {
	case alive && !r.Status.Final():
		return e.join(ctx, run, "joined: the run is going on", func(ctx context.Context) (*Handle, error) { return e.Resume(ctx, run, o) })
	case r.Status == executor.RunSucceeded:
		return finishedHandle(r, "the run has succeeded; nothing is left to do"), nil
	case r.Status == executor.RunFailed:
		return finishedHandle(r, "the run has ended; `coiled-jobs retry "+run+"` runs failed tasks again"), nil
	}
	p := v.Pipeline()
	if fn := e.changedCode(v, p, v.Header.Dir); fn != "" && !o.CodeNew {
		return nil, usagef("the code of %s has changed since the run began; `resume --code new` goes on with it as it is now, `retry` takes file and code as they are now", fn)
	}
	begin := executor.Begin{Reopen: r.Status.Final(), Code: e.codes(p, v.Header.Dir)}
	return e.start(ctx, v.Header, p, o, begin, nil)
}

// settled says whether a coordinator works on the run. One that was killed
// here may seem alive for a moment, while a child that it was just starting
// still has its lock: that is waited for.
func settled(ctx context.Context, v *executor.View) (alive bool, err error) {
	host, pid := v.Coordinator()
	here, _ := os.Hostname()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(5 * time.Second); ; {
		alive, err = v.Alive(ctx)
		if err != nil || !alive || host != here || pid == 0 || processExists(pid) || time.Now().After(until) {
			return alive, err
		}
		select {
		case <-ctx.Done():
			return alive, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// settledView reads a run, with a coordinator that was just killed taken as gone.
func (e *Engine) settledView(ctx context.Context, run string) (*executor.View, executor.Report, error) {
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return nil, executor.Report{}, err
	}
	if _, err := settled(ctx, v); err != nil {
		return nil, executor.Report{}, err
	}
	r, err := v.Report(ctx)
	return v, r, err
}

// Retry runs failed, cancelled and skipped tasks again, with the file and
// code as they are now.
func (e *Engine) Retry(ctx context.Context, run string, o ContinueOptions) (*Handle, error) {
	v, r, err := e.settledView(ctx, run)
	if err != nil {
		return nil, err
	}
	switch r.Status {
	case executor.RunRunning:
		return nil, usagef("run %s is still running; wait for its end or cancel it first", run)
	case executor.RunSucceeded:
		if !slices.ContainsFunc(r.Functions, func(f executor.FunctionReport) bool { return f.Failed > 0 }) {
			return finishedHandle(r, "the run has succeeded; nothing has failed"), nil
		} // max_failures let it succeed all the same
	}
	if o.Cause != "" && r.Status.Final() && !anyFor(v, r, o.Cause) {
		return finishedHandle(r, "no task has failed for the cause "+o.Cause+"; nothing is run again"), nil
	}
	v.Header = o.placed(v.Header)
	p, file, err := e.currentFile(ctx, v)
	if err != nil {
		return nil, err
	}
	if r.Status == executor.RunSucceeded {
		for _, name := range built(p, r) {
			e.say("%s: has run without what failed before, and keeps its result; apply anew to have it made again", name)
		}
	}
	begin := executor.Begin{Retry: true, Cause: o.Cause, File: file, Code: e.codes(p, v.Header.Dir)}
	return e.start(ctx, v.Header, p, o, begin, nil)
}

// built is the functions that went on without failures that were tolerated, in
// the order of the file. Those that follow item by item take what comes.
func built(p *spec.Pipeline, r executor.Report) []string {
	failed := map[string]bool{}
	for _, f := range r.Functions {
		failed[f.Name] = f.Failed > 0
	}
	var names []string
	for _, f := range p.Functions {
		if slices.ContainsFunc(f.AllNeeds(), func(need string) bool {
			return failed[need] && (f.Map == nil || f.Map.From != need)
		}) {
			names = append(names, f.Name)
		}
	}
	return names
}

// anyFor says whether a retry for one cause has something to run.
func anyFor(v *executor.View, r executor.Report, cause string) bool {
	for _, f := range r.Functions {
		if f.Cancelled > 0 || f.Status == task.Cancelled.String() {
			return true
		}
		if f.Failed == 0 {
			continue
		}
		for t := range v.Tasks(f.Name) {
			if t.Status == task.Failed && t.Cause.String() == cause {
				return true
			}
		}
	}
	return false
}

// currentFile is the pipeline file as it is now, recorded under a new number
// if it has changed (0 otherwise). Its name, parameters and maps must be those
// of the run: an index is always the same item.
func (e *Engine) currentFile(ctx context.Context, v *executor.View) (*spec.Pipeline, int, error) {
	h := v.Header
	if retryRecorded(h) {
		e.say("the pipeline file of run %s is not on this machine: what is recorded of it is run again", h.Run)
		return v.Pipeline(), 0, nil
	}
	src, err := os.ReadFile(h.File)
	if err != nil {
		return nil, 0, usagef("retry takes the pipeline file as it is now: %v", err)
	}
	p, err := executor.Bind(src, h.File, h.Params, h.Cloud)
	if err != nil {
		return nil, 0, err
	}
	was := v.Pipeline()
	if p.Name != was.Name {
		return nil, 0, usagef("%s is now pipeline %q, the run is of %q", h.File, p.Name, was.Name)
	}
	if now := string(value.JSON(p.Params)); now != h.Values {
		return nil, 0, usagef("the parameters have changed: %s", differences(keyRecord{Values: h.Values}, keyRecord{Values: now}))
	}
	if err := e.sameTasks(ctx, v, p); err != nil {
		return nil, 0, err
	}
	if bytes.Equal(src, was.Source) {
		return p, 0, nil
	}
	for n := 1; ; n++ {
		err := e.Store.Create(ctx, executor.PipelineKey(h.Run, n), src)
		if cloud.KindOf(err) != cloud.KindConflict {
			return p, n, err
		}
	}
}

// sameTasks checks that the file as it is now has the functions and items of the run.
func (e *Engine) sameTasks(ctx context.Context, v *executor.View, p *spec.Pipeline) error {
	h := v.Header
	now := executor.Selected(p, h.Functions, h.Only)
	names := map[string]bool{}
	for _, f := range now {
		names[f.Name] = true
	}
	for _, fn := range v.Functions() {
		if !names[fn] {
			return usagef("function %s is not in %s any more; `apply` starts a new run", fn, h.File)
		}
		delete(names, fn)
	}
	for fn := range names {
		return usagef("function %s was not in the run; `apply` starts a new run", fn)
	}
	plan, err := planner.Make(ctx, narrowed(p, h.Functions, h.Only), e.inputs(h.Dir, h.Info()), planner.Options{First: h.First})
	if err != nil {
		return err
	}
	for _, f := range plan.Functions {
		if f.Items == nil {
			continue
		}
		old, err := executor.LoadItems(ctx, e.Store, h.Run, f.Name)
		if err != nil {
			return err
		}
		same, err := sameItems(old, f.Items)
		if err != nil {
			return err
		}
		if !same {
			return usagef("the map of %s gives other items now than when the run began; `apply` starts a new run", f.Name)
		}
	}
	return nil
}

func sameItems(a, b planner.Items) (bool, error) {
	if a.Len() != b.Len() {
		return false, nil
	}
	x, err := itemsHash(a)
	if err != nil {
		return false, err
	}
	y, err := itemsHash(b)
	return x == y, err
}

// itemsHash is over what items are as data: a touched file is the same item.
func itemsHash(it planner.Items) ([32]byte, error) {
	h := sha256.New()
	var buf []byte
	err := it.Each(0, it.Len(), func(_ int, item any) error {
		buf = append(value.Append(buf[:0], item), '\n')
		h.Write(buf)
		return nil
	})
	return [32]byte(h.Sum(nil)), err
}

// codes is the hash of each function's code as it is now, as far as it is here.
func (e *Engine) codes(p *spec.Pipeline, dir string) map[string]string {
	codes := map[string]string{}
	if !folderHere(dir) {
		return codes
	}
	for _, f := range p.Functions {
		if hash, _, err := agent.CodeOf(f, dir); err == nil {
			codes[f.Name] = hash
		}
	}
	return codes
}

// changedCode names the functions whose code is not what was last recorded;
// "" if there are none.
func (e *Engine) changedCode(v *executor.View, p *spec.Pipeline, dir string) string {
	var changed []string
	for fn, hash := range e.codes(p, dir) {
		if old := v.Code(fn); old != "" && old != hash {
			changed = append(changed, fn)
		}
	}
	sort.Strings(changed)
	return strings.Join(changed, ", ")
}

// start begins a session in this process, or a detached coordinator. c is what
// a run on aws takes along, where that is known already.
func (e *Engine) start(ctx context.Context, h *executor.Header, p *spec.Pipeline, o ContinueOptions, begin executor.Begin, c *cargo) (*Handle, error) {
	if h.Cloud == "aws" {
		return e.startFleet(ctx, h, p, o, begin, c)
	}
	if err := agent.Supported(); err != nil {
		return nil, fmt.Errorf("cloud: local: %w", err)
	}
	if !folderHere(h.Dir) {
		return nil, usagef("run %s works in %s, which is not a folder on this machine: continue it where %s applied it", h.Run, h.Dir, h.Owner)
	}
	// An old request to cancel is not meant for what begins now.
	if err := e.Store.Delete(ctx, executor.CancelKey(h.Run)); err != nil {
		return nil, err
	}
	if o.Detach {
		return e.detach(ctx, h, o, begin)
	}
	return e.attend(ctx, h, p, h.NoCache || o.NoCache, begin, nil)
}

// attend begins a session in this process.
func (e *Engine) attend(ctx context.Context, h *executor.Header, p *spec.Pipeline, noCache bool, begin executor.Begin, rec *fleetRecord) (*Handle, error) {
	s, err := e.begin(ctx, h, p, noCache, begin, rec)
	if cloud.KindOf(err) == cloud.KindConflict {
		return e.watch(ctx, h.Run, "joined: another process has taken the run")
	}
	if err != nil {
		return nil, err
	}
	go e.notifyAtEnd(s, h)
	return &Handle{Run: h.Run, session: s, notices: s.notices}, nil
}

// detached is what a detached coordinator is told.
type detached struct {
	NoCache bool           `json:"no_cache,omitempty"`
	Begin   executor.Begin `json:"begin"`
}

// detach starts a coordinator as a process of its own, in its own session, so
// that it outlives the terminal, and watches it.
func (e *Engine) detach(ctx context.Context, h *executor.Header, o ContinueOptions, begin executor.Begin) (*Handle, error) {
	arg, err := json.Marshal(detached{NoCache: o.NoCache, Begin: begin})
	if err != nil {
		return nil, err
	}
	log, err := e.detachedLog(h.Run)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	v, err := executor.OpenView(ctx, e.Store, h.Run) // before it starts: it may be quick
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), e.Exe, "__coordinate", h.Run, "--store", e.Store.URL(), "--begin", string(arg))
	cmd.Env, cmd.Stdout, cmd.Stderr = e.Environ, log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = newSession()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a coordinator of its own: %w", err)
	}
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	if err := e.awaitCoordinator(ctx, v, died, log.Name()); err != nil {
		return nil, err
	}
	w, err := e.watch(ctx, h.Run, "")
	if err != nil {
		return nil, err
	}
	w.Detached = true
	return w, nil
}

// detachedLog is where a detached coordinator may write: in the state folder or,
// where that cannot be, for temporary files.
func (e *Engine) detachedLog(run string) (*os.File, error) {
	logs := filepath.Join(e.StateDir, "logs")
	err := os.MkdirAll(logs, 0o700)
	if err == nil {
		var log *os.File
		if log, err = os.OpenFile(filepath.Join(logs, run+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			return log, nil
		}
	}
	log, terr := os.CreateTemp("", run+".*.log")
	if terr != nil {
		return nil, fmt.Errorf("a detached run needs a file for its messages: %w", errors.Join(err, terr))
	}
	return log, nil
}

// awaitCoordinator returns when another process has taken the run that v shows
// as it was before.
func (e *Engine) awaitCoordinator(ctx context.Context, v *executor.View, died <-chan error, log string) error {
	epoch := v.Epoch()
	deadline := time.After(startGrace)
	t := time.NewTicker(min(e.PollEvery(20*time.Millisecond), 250*time.Millisecond))
	defer t.Stop()
	for {
		if err := v.Refresh(ctx); err != nil {
			return err
		}
		if v.Epoch() > epoch {
			return nil
		}
		select {
		case err := <-died:
			if verr := v.Refresh(ctx); verr == nil && v.Epoch() > epoch {
				return nil
			}
			text, _ := os.ReadFile(log)
			return fmt.Errorf("the coordinator ended before it began (%w): %s", err, lastLine(text))
		case <-deadline:
			return fmt.Errorf("the coordinator did not begin within %s; see %s", startGrace, log)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// Coordinate runs the coordinator of a recorded run in this process until the
// run ends: what a detached coordinator calls. begin is what detach passed; ""
// on a machine of its own, where it is in the store.
func (e *Engine) Coordinate(ctx context.Context, run, begin string) (executor.Report, error) {
	if begin == "" {
		b, err := e.Store.Get(ctx, beginKey(run))
		if err != nil {
			return executor.Report{}, err
		}
		begin = string(b)
	}
	var d detached
	if err := json.Unmarshal([]byte(begin), &d); err != nil {
		return executor.Report{}, usagef("--begin: %v", err)
	}
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return executor.Report{}, err
	}
	p := v.Pipeline()
	if d.Begin.File > 0 {
		src, err := e.Store.Get(ctx, executor.PipelineKey(run, d.Begin.File))
		if err != nil {
			return executor.Report{}, err
		}
		if p, err = executor.Bind(src, v.Header.File, v.Header.Params, v.Header.Cloud); err != nil {
			return executor.Report{}, err
		}
	}
	var rec *fleetRecord
	if v.Header.Cloud == "aws" {
		if rec, err = loadFleet(ctx, e.Store, run); err != nil {
			return executor.Report{}, err
		}
		if rec == nil {
			return executor.Report{}, fmt.Errorf("nothing is recorded of the machines of run %s", run)
		}
		if err := e.learnSecrets(ctx, rec); err != nil {
			return executor.Report{}, err
		}
	}
	s, err := e.begin(ctx, v.Header, p, v.Header.NoCache || d.NoCache, d.Begin, rec)
	if err != nil {
		return executor.Report{}, err
	}
	go func() {
		for range s.notices {
		}
	}()
	r, err := s.wait(ctx)
	e.notify(v.Header, p, r)
	return r, err
}
