package engine

import (
	"context"
	"errors"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

var errLater = errors.New("not written yet")

// Handle is a run that this process coordinates or watches. Its methods are
// safe for concurrent use.
type Handle struct {
	Run      string
	Joined   string // "" for a new run; otherwise why an existing one is used: a line for people
	Detached bool   // the coordinator is another process
}

// Wait returns when the run has reached its end (or, watching, is found
// interrupted). When ctx ends first, a run that this process coordinates is
// cancelled: tasks are ended, and Wait returns within 10 s; a watched one is
// left alone and ctx's error returned.
func (h *Handle) Wait(ctx context.Context) (executor.Report, error) {
	return executor.Report{}, errLater
}

// Snapshot is the state of the run now; cheap enough for ten calls a second.
func (h *Handle) Snapshot() executor.Report { return executor.Report{} }

// Live is the tasks that run now.
func (h *Handle) Live() []task.Live { return nil }

// Notices yields what happens; closed at the end of the run. It must be read.
func (h *Handle) Notices() <-chan executor.Notice { return nil }

// Plan checks and plans a file. Errors: spec.Problems or *UsageError (exit 2), others (exit 3).
func (e *Engine) Plan(ctx context.Context, o ApplyOptions) (*Planned, error) { return nil, errLater }

// Apply starts a run of a planned file, or joins, continues or returns the one that
// o.Key names. o.Detach starts the coordinator as a process of its own.
func (e *Engine) Apply(ctx context.Context, p *Planned, o ApplyOptions) (*Handle, error) {
	return nil, errLater
}

// ContinueOptions are the flags of resume and retry.
type ContinueOptions struct {
	CodeNew bool   // resume: go on although local code changed
	Cause   string // retry: only tasks that failed for this cause
	Detach  bool
	MaxCost *float64
	NoCache bool
}

// Resume continues an interrupted or stopped run with the recorded file and
// items; a live run is joined, a finished one returned.
func (e *Engine) Resume(ctx context.Context, run string, o ContinueOptions) (*Handle, error) {
	return nil, errLater
}

// Retry runs failed, cancelled and skipped tasks again, with the file and code as they are now.
func (e *Engine) Retry(ctx context.Context, run string, o ContinueOptions) (*Handle, error) {
	return nil, errLater
}

// Attach watches a run.
func (e *Engine) Attach(ctx context.Context, run string) (*Handle, error) { return nil, errLater }

// Cancel asks the coordinator of a run to cancel it, or, where none is alive,
// records the end of the run itself; it returns when the run has ended, or
// after wait.
func (e *Engine) Cancel(ctx context.Context, run string, wait time.Duration) (executor.Report, error) {
	return executor.Report{}, errLater
}

// Remove deletes a run that is not live (KindConflict if it is).
func (e *Engine) Remove(ctx context.Context, run string) error { return errLater }

// Runs lists runs, newest first: the caller's own, or all in the store.
func (e *Engine) Runs(ctx context.Context, all bool) ([]RunSummary, error) { return nil, errLater }

// Find resolves "latest", a run id or an unambiguous prefix to a run and the
// store it is in. Errors are *UsageError.
func (e *Engine) Find(ctx context.Context, ref string) (run string, store cloud.Store, err error) {
	return "", nil, errLater
}

// GC removes runs older than their retention and leftovers of dead runs
// (processes, scratch folders), never live ones; what it did, as lines.
func (e *Engine) GC(ctx context.Context, dryRun bool) ([]string, error) { return nil, errLater }

// Coordinate runs the coordinator of a recorded run in this process: what a
// detached coordinator calls.
func (e *Engine) Coordinate(ctx context.Context, run string, o ContinueOptions) error {
	return errLater
}

// RerunLocal runs one task here with its recorded item and environment and
// its output on the terminal, without touching the run; its exit code.
func (e *Engine) RerunLocal(ctx context.Context, run, fn string, index int) (exit int, err error) {
	return 0, errLater
}

// FetchOutputs writes the kept outputs of a run (of fn, of one index; -1: all)
// below dir where they are missing or differ, and returns their paths.
func (e *Engine) FetchOutputs(ctx context.Context, run, fn string, index int, dir string) ([]string, error) {
	return nil, errLater
}
