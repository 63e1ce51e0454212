package fleet

import (
	"context"
	"log/slog"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// Config is what a Fleet works with.
type Config struct {
	Run string
	// Epoch counts the coordinators of the run. It returns 0 until this one has
	// recorded that it has the run.
	Epoch       func() int
	Store       cloud.Store
	Machines    cloud.Machines
	Coordinator Coordinator
	// OpenQueue makes a queue of the run; name tells it from the others.
	// JoinQueue opens one that an earlier coordinator made, by its URL.
	OpenQueue func(ctx context.Context, name string) (Queue, error)
	JoinQueue func(ctx context.Context, url string) (cloud.Queue, error)
	// Kinds are the sorts of machines, in the order of the functions.
	Kinds []Kind
	// Larger makes a further kind for a function, of machines with at least so
	// many bytes: for a task that ran out of memory on all others. It may take
	// long. Its Min is not looked at. KindInvalid if there are none so large; nil:
	// there never are.
	Larger func(ctx context.Context, fn string, memory int64) (Kind, error)
	Limits Limits
	// Unattended is how long machines go on without a coordinator. Default 15m.
	Unattended time.Duration
	// Expect is how long a task takes, by function, where the file or earlier
	// runs say so.
	Expect map[string]time.Duration
	// Tidy removes what launches left behind beside the machines: templates,
	// secrets of the run. It is called at the end; machines says whether some
	// still wait for another run. May be nil.
	Tidy func(ctx context.Context, machines bool) error
	// Notice is told what people should know, a line at a time, and Warn what they
	// should do something about. They must not block. May be nil; without Warn all
	// goes to Notice.
	Notice func(text string)
	Warn   func(text string)
	Logger *slog.Logger // may be nil
}

// Queue is a queue that machines can open by its URL.
type Queue interface {
	cloud.Queue
	URL() string
}

// Kind is a sort of machines within a run.
type Kind struct {
	Name      string   // tells it from the others of the run and its other coordinators
	Functions []string // what it works for
	// Setup is what its machines are told. Run, Kind and Pool are filled in.
	Setup wire.Setup
	Pool  string // of Setup: which machines of other runs can take part
	// Types, Spot, Region, DiskGB and Tags go into the launch.
	Types  []string // best first
	Spot   string
	Region string
	DiskGB int
	Tags   map[string]string
	// Min and Max are how many there may be. Max 0: no machine can be rented.
	Min, Max int
	// Slots is the tasks that a machine of a type runs at a time, VCPUs its
	// CPUs, Price its dollars per hour with all that belongs to it, where the
	// machine does not say itself; zone "": in the dearest zone. They must not
	// wait. May be nil: 1, 0 and 0.
	Slots func(instanceType string) int
	VCPUs func(instanceType string) int
	Price func(instanceType, zone string, spot bool) float64
	// Memory is the bytes that tasks can have. Of several kinds for a function
	// the first is for all its tasks, the others for those that ask for more.
	Memory int64
}

// Limits bound what a run rents. Zero values are no limit.
type Limits struct {
	Cost     float64 // dollars
	Machines int
	VCPUs    int
	// Deadline is when limits.duration ends the run.
	Deadline time.Time
	// Spent is what earlier coordinators of the run spent, beside the machines
	// that Past names.
	Spent float64
	// Past are the machines of the run that were recorded by earlier coordinators.
	Past []task.Machine
	// Own is the machine that this coordinator is on, which costs money too; the
	// zero Machine if nobody rented it.
	Own task.Machine
}

// Coordinator is what a Fleet wants of the coordinator of its run. The methods
// may be called from any goroutine and may wait while the journal is behind.
type Coordinator interface {
	// Demand is the work that is left.
	Demand() []task.Demand
	// StoppedFunctions are the functions of which no further task may start.
	StoppedFunctions() []string
	// ReportSegment takes the nth segment of a machine in a session.
	ReportSegment(machine string, session, n int, batches []task.Batch, ended []string)
	// Folded is the last segment that was taken, by "<machine>/<session>".
	Folded() map[string]int
	// Lost says that a machine is no more that held ranges, after all that it
	// had reported was passed on.
	Lost(machine, message string, ranges []string)
	// Held says, once, which ranges are in machines' hands when this
	// coordinator begins: only then anything is handed out.
	Held([]cloud.Range)
	// CapacityChanged says that Fleet.Capacity has other answers.
	CapacityChanged()
	// MachineChanged records that a machine joined or ended.
	MachineChanged(task.Machine)
	// Limit stops the run because of a limit.
	Limit(reason string)
	// AgentsDone says that no machine works any more. With an error before
	// the run was being stopped, the run could not go on, and why.
	AgentsDone(err error)
}

// Retagger is what Machines may be, too: it says on the machines which run they
// work for now, after they were invited from a pool.
type Retagger interface {
	Retag(ctx context.Context, run string, ids ...string) error
}

// MachineStatus is what is known of a machine now.
type MachineStatus struct {
	task.Machine
	State   string // "booting", or that of its heartbeat; "ended"
	Slots   int
	Tasks   int // running now
	Seen    time.Time
	Metrics wire.Metrics
}
