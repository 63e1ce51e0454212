package executor

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// RemoteConfig makes a Coordinator work with machines elsewhere, through
// whoever rents them.
type RemoteConfig struct {
	// Capacity is how many tasks of a function machines run at a time, now or
	// soon. It is asked often and must not wait; it must not call the
	// Coordinator.
	Capacity func(fn string) int
	// Memory is the bytes that machines of a type have; 0 if that is not known.
	// A task that had too little asks for more than its machine had. May be nil.
	Memory func(instanceType string) int64
	// Close ends the work of the machines when the run has its final status, and
	// returns when they are gone. Until then MachineChanged is still recorded. nil:
	// nothing is waited for.
	Close func(ctx context.Context, status RunStatus)
	// StopGrace is how long machines may take to end what they run after
	// StopWork. Default 8s.
	StopGrace time.Duration
}

// remote is the part of a Coordinator that works with machines.
type remote struct {
	waits bool // for Held: nothing is handed out
	// graceEnds is when machines that were told to stop are not waited for any
	// more; zero: they were not told.
	graceEnds time.Time
	outbox    outbox
	gave      gaveCache
}

// segment is what one segment of a machine reports.
type segment struct {
	key     string // "<machine>/<session>"
	machine string
	n       int
	batches []task.Batch
	ended   []string
	taken   chan struct{} // closed when it is recorded
}

// lost is ranges that a machine held that is no more.
type lost struct {
	machine, message string
	ids              []string
}

// SegmentsKey is how a machine in one of its sessions is named in Folded.
func SegmentsKey(machine string, session int) string {
	return machine + "/" + strconv.Itoa(session)
}

// ReportSegment takes the nth segment of a machine in a session; segments of one
// come in order, and one that was taken before changes nothing. ended are the
// ids of ranges that need nothing more. It returns when the segment is recorded,
// or never will be: who reads segments thereby bounds how many are in memory.
func (c *Coordinator) ReportSegment(machine string, session, n int, batches []task.Batch, ended []string) {
	s := &segment{SegmentsKey(machine, session), machine, n, batches, ended, make(chan struct{})}
	c.put(input{seg: s})
	select {
	case <-s.taken:
	case <-c.done:
	}
}

// Folded is the number of the last segment that is recorded, by
// "<machine>/<session>".
func (c *Coordinator) Folded() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.state.fleet.segments)
}

// Held says which ranges machines hold when this coordinator begins, after
// what they had reported until then was passed on. Nothing is handed out before.
func (c *Coordinator) Held(ranges []cloud.Range) { c.put(input{held: &ranges}) }

// Lost says that a machine is no more that held ranges (by id), after all that
// it had reported was passed on: in each the first task without an outcome
// counts as having run, the others were not started.
func (c *Coordinator) Lost(machine, message string, ids []string) {
	c.put(input{lost: &lost{machine, message, ids}})
}

// MachineChanged records that a machine joined, or ended.
func (c *Coordinator) MachineChanged(m task.Machine) {
	c.send(&event{Kind: evMachine, Machine: &m})
}

// Limit stops the run because of a limit.
func (c *Coordinator) Limit(reason string) { c.send(&event{Kind: evLimit, Reason: reason}) }

// CapacityChanged says that Capacity has other answers. It does not wait.
func (c *Coordinator) CapacityChanged() {
	select {
	case c.in <- input{}:
	default: // it will look again anyway, so much is on its way
	}
}

// Worked is how much of limits.duration earlier coordinators have used. It is
// asked before Run.
func (c *Coordinator) Worked() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.state; !c.cfg.Begin.Reopen && !c.cfg.Begin.Retry { // these grant it anew
		return s.activeTime(s.last)
	}
	return 0
}

// Epoch counts the coordinators of the run; 0 until this one has recorded that
// it has the run.
func (c *Coordinator) Epoch() int {
	select {
	case <-c.began:
	default:
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.epoch
}

// File is the number of the recorded pipeline file that holds for this
// coordinator.
func (c *Coordinator) File() int {
	if c.cfg.Begin.File > 0 {
		return c.cfg.Begin.File
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.file
}

// Machines is the machines that are recorded, in the order in which they joined.
func (c *Coordinator) Machines() []task.Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]task.Machine(nil), c.state.fleet.machines...)
}

// StoppedFunctions are the functions of which no further task may start.
func (c *Coordinator) StoppedFunctions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var fns []string
	for _, f := range c.state.order {
		if f.stopped && f.phase != done {
			fns = append(fns, f.spec.Name)
		}
	}
	return fns
}

// Demand is the work that is left, by function in the order of the file.
func (c *Coordinator) Demand() []task.Demand {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]task.Demand, 0, len(c.state.order))
	for _, f := range c.state.order {
		d := task.Demand{Function: f.spec.Name, Done: f.phase == done, Running: f.phase == running,
			InHand: f.counts[task.Running], Mean: f.meanSeconds(), Ended: f.counts[task.Succeeded] + f.counts[task.Failed] - f.cached}
		if f.phase != done {
			d.Left = f.counts[task.Pending] + f.counts[task.Running]
		}
		if d.Running && c.state.stopping == notStopping {
			d.Ready = min(f.ready.size+len(f.retryAt), f.counts[task.Pending])
			d.Larger = f.larger()
		}
		list = append(list, d)
	}
	return list
}

// LoadPipeline reads and binds the nth recorded file of a run.
func LoadPipeline(ctx context.Context, store cloud.Store, h *Header, n int) (*spec.Pipeline, error) {
	return loadPipeline(ctx, store, h, n)
}
