package machine

import (
	"context"
	"log/slog"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// Config is what a machine's life needs. The functions may be called from
// several goroutines.
type Config struct {
	// Run and Kind are what the machine was launched for.
	Run, Kind string
	Store     cloud.Store
	// JoinQueue opens a queue that a coordinator made. The machine never closes
	// it; one with a method Leave() is left.
	JoinQueue func(ctx context.Context, url string) (cloud.Queue, error)
	Host      Host
	// Secrets finds the values behind references ("ssm:/name"), by the variables
	// that they become. nil: there are none to be had.
	Secrets func(ctx context.Context, refs map[string]string) (map[string]string, error)
	// Prepare makes the machine ready for the tasks of a run; nil: with packages
	// bundle and software. It may be called again after it was interrupted.
	Prepare func(ctx context.Context, j *Job) (*Prepared, error)
	// NewWorker makes what runs tasks; nil: agent.New.
	NewWorker func(agent.Config) Worker
	// Look looks up a URI among a function's outputs; nil: they cannot be checked.
	Look func(ctx context.Context, uri string) (cloud.S3Look, error)
	// Dir is a folder of the machine's own, for working folders and scratch.
	Dir string
	// Exe is this program, to start the warden; "": there is no warden.
	Exe string
	// Environ is the environment that tasks inherit beneath the pipeline's.
	Environ []string
	Logger  *slog.Logger // nil: nothing is logged
	// Log gives the end of the machine's log, which is stored when it leaves.
	Log func() []byte
}

// Worker runs the tasks of one run; an agent.Agent.
type Worker interface {
	// Work takes ranges from the queue it was made with until that is closed or
	// ctx ends, and returns when no task runs any more.
	Work(ctx context.Context) error
	Live() []task.Live
}

// Host is the computer and the cloud around it.
type Host interface {
	// Identity says which machine this is.
	Identity(ctx context.Context) (Identity, error)
	// Notice is when the cloud takes the machine back; zero: it has not said so.
	Notice(ctx context.Context) (time.Time, error)
	// Arm makes the machine power off at a time, whatever has become of this
	// process by then. A later call replaces the earlier.
	Arm(at time.Time) error
	// PowerOff ends the machine. It may return before that has happened.
	PowerOff()
	// Metrics measures the machine since the last call.
	Metrics() wire.Metrics
}

// Identity is which machine this is.
type Identity struct {
	ID, Type, Zone string
	Spot           bool
	CPUs           int       // 0: as many as this process may use
	Launched       time.Time // zero: now
}

// Job is what Prepare works from.
type Job struct {
	Setup    *wire.Setup
	Header   *executor.Header
	Pipeline *spec.Pipeline
	Store    cloud.Store
	// Dir is where the files of the run belong: the working directory of tasks.
	Dir string
	// Scratch is a folder on the machine's disk, removed when the run is left.
	Scratch string
	// Home is the HOME of tasks, removed as well.
	Home string
	// Software is a folder that stays when the run is left.
	Software string
	Machine  string
	Exe      string   // this program
	Environ  []string // for what installs
	Logger   *slog.Logger
}

// Prepared is what Prepare has made.
type Prepared struct {
	// Env is put over the environment of tasks ("NAME=value").
	Env []string
	// Wrap goes before the command of every task; see agent.Run.
	Wrap []string
	// Place puts what one task reads where it expects it; nil: nothing has to be.
	Place func(ctx context.Context, fn string, index int, item any) error
}

// SetupError is trouble with what the pipeline asks for, that every machine
// would have: tasks fail with it, where trouble of one machine ends that.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return e.Err.Error() }

func (e *SetupError) Unwrap() error { return e.Err }
