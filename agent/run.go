package agent

import (
	"context"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Run is everything an agent must know of a run. The functions may be called
// from several goroutines.
type Run struct {
	ID       string
	Pipeline *spec.Pipeline
	Info     spec.RunInfo
	// Dir is the working directory of tasks: the folder of the pipeline file.
	Dir string
	// Scratch is an absolute, private, existing folder on a local disk for
	// temporary folders and item files; the agent owns what is in it.
	Scratch string
	// Store and Prefix ("runs/<id>") are where logs, large results and outputs go.
	Store  cloud.Store
	Prefix string
	// BaseEnv is the environment tasks inherit ("NAME=value").
	BaseEnv []string
	// Wrap goes before the command of every task and interpreter: an absolute
	// path and arguments, which start what follows them elsewhere, say in a
	// container. Programs are looked up there then. Empty: nothing.
	Wrap []string
	// Secrets are the resolved secrets by variable name. Their values never
	// appear in logs, messages or stored standard error: they become ***.
	Secrets map[string]string
	NoCache bool
	// CacheOn says that identities are wanted (some function uses the cache).
	CacheOn bool

	// Items gives the items of a mapped function (nil for one that streams).
	Items func(ctx context.Context, fn string) (planner.Items, error)
	// Count is the number of tasks of a function.
	Count func(fn string) int
	// Needs gives what expressions see of the functions in needs (without the
	// one it streams behind), and a folder with <fn>.jsonl for each of them.
	Needs func(ctx context.Context, fn string) (needs map[string]*spec.NeedsInfo, dir string, err error)
	// Upstream is the result, as JSON, of task index of a function; for tasks
	// that stream behind it.
	Upstream func(ctx context.Context, fn string, index int) ([]byte, error)
	// NeedsID is the identity of a needed function: of all its tasks, or (index
	// >= 0) of one, for the cache.
	NeedsID func(ctx context.Context, fn string, index int) (task.ID, error)
	// Outputs lists what a needed function kept (of one task, if index >= 0)
	// that may not lie in place, because others wrote it. nil: all does.
	Outputs func(ctx context.Context, fn string, index int) ([]task.Output, error)
	// Place puts what a task reads at its path before the task starts: files
	// among its items that came from another machine. nil: all are there.
	Place func(ctx context.Context, fn string, index int, item any) error
	// Stopped says whether no further task of a function may start.
	Stopped func(fn string) bool
}

// Reporter takes outcomes. It returns when they are accepted (not necessarily
// durable); it must not be called after the agent's Work has returned.
type Reporter func(task.Batch)
