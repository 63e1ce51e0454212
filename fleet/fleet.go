package fleet

import (
	"context"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Fleet is the machines of one run. Its methods may be called from any
// goroutine.
type Fleet struct {
	cfg Config
}

// New makes a Fleet. It rents nothing yet.
func New(cfg Config) *Fleet { return &Fleet{cfg: cfg} }

// Start begins to work in the background: it takes over from an earlier
// coordinator as soon as this one has the run, and rents what is needed. The
// work ends with Close. ctx is for values alone.
func (f *Fleet) Start(ctx context.Context) {}

// Queue is what the coordinator hands its ranges to. Receive is not for it.
func (f *Fleet) Queue() cloud.Queue { return nil }

// Capacity is how many tasks of a function machines can work on at a time, now
// or soon: those that live, that boot and that are wanted.
func (f *Fleet) Capacity(fn string) int { return 0 }

// Live is the tasks that run now, as far as machines have told.
func (f *Fleet) Live() []task.Live { return nil }

// StopWork ends all tasks, because the run is cancelled or stopped by a limit,
// and releases the machines. It returns at once; AgentsDone follows within
// eight seconds.
func (f *Fleet) StopWork() {}

// Close ends the run for its machines and waits, as long as ctx lasts, until
// none is left but those that wait for another run. It returns how many of these
// there are. Then the fleet is of no more use.
func (f *Fleet) Close(ctx context.Context) (Left, error) { return Left{}, nil }

// Left is what the cloud says is left of a run's machines.
type Left struct {
	// Waiting for another run, until Until at the latest.
	Waiting int
	Until   string
	// Alive though they should not be.
	Alive []string
}

// Machines is what is known of the machines of the run.
func (f *Fleet) Machines() []MachineStatus { return nil }

// Cost is what the machines have cost until now, in dollars.
func (f *Fleet) Cost() float64 { return 0 }
