package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Machines is this machine: launching it for a run starts an agent as a
// goroutine. There is one of it, so a run has at most one at a time.
type Machines struct {
	run func(ctx context.Context, m cloud.Machine)

	mu       sync.Mutex
	launched int
	live     []*agent
	tokens   map[string]cloud.Machine // what a token got, also when it has ended
}

// agent is a machine that was launched.
type agent struct {
	machine cloud.Machine
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when the goroutine has returned
}

var _ cloud.Machines = (*Machines)(nil)

// errTerminated is the cause with which an agent's context is cancelled.
var errTerminated = errors.New("the machine was terminated")

// NewMachines makes Machines that work by calling run, each in a goroutine of
// its own. run returns when its work is over or ctx ends; then the machine has
// ended.
func NewMachines(run func(ctx context.Context, m cloud.Machine)) *Machines {
	return &Machines{run: run, tokens: map[string]cloud.Machine{}}
}

// Launch starts the machine for a run. The agent lives on when ctx ends, until
// Terminate or its own end. More than one machine for a run is KindNoCapacity.
func (m *Machines) Launch(ctx context.Context, spec cloud.MachineSpec) ([]cloud.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if spec.Count < 1 {
		return nil, &cloud.Error{Op: "launch", Resource: "this machine", Kind: cloud.KindInvalid,
			Err: fmt.Errorf("%d machines", spec.Count)}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var full error
	if spec.Count > 1 {
		full = onlyOne(spec.Run)
	}
	if was, ok := m.tokens[spec.Token]; ok && spec.Token != "" {
		if !slices.ContainsFunc(m.live, func(a *agent) bool { return a.machine.ID == was.ID }) {
			was.State = "ended"
		}
		return []cloud.Machine{was}, full
	}
	for _, a := range m.live {
		if a.machine.Run == spec.Run {
			return nil, onlyOne(spec.Run)
		}
	}
	m.launched++
	a := &agent{
		machine: cloud.Machine{ID: fmt.Sprintf("local-%d", m.launched), Run: spec.Run, Pool: spec.Pool,
			Type: "local", Zone: "local", State: "running", Launched: time.Now()},
		done: make(chan struct{}),
	}
	if spec.Token != "" {
		m.tokens[spec.Token] = a.machine
	}
	var actx context.Context
	actx, a.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	m.live = append(m.live, a)
	go func() {
		defer close(a.done)
		defer m.remove(a)
		m.run(actx, a.machine)
	}()
	return []cloud.Machine{a.machine}, full
}

func onlyOne(run string) error {
	return &cloud.Error{Op: "launch", Resource: "this machine", Kind: cloud.KindNoCapacity,
		Err: fmt.Errorf("run %s has it already, and there is only one", run)}
}

func (m *Machines) remove(a *agent) {
	a.cancel(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = slices.DeleteFunc(m.live, func(b *agent) bool { return a == b })
}

// List finds the machines of a run that have not ended; all if run is "".
func (m *Machines) List(ctx context.Context, run string) ([]cloud.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []cloud.Machine
	for _, a := range m.live {
		if run == "" || a.machine.Run == run {
			list = append(list, a.machine)
		}
	}
	return list, nil
}

// Terminate ends machines and returns when their agents have returned, or ctx
// ends.
func (m *Machines) Terminate(ctx context.Context, ids ...string) error {
	m.mu.Lock()
	var ending []*agent
	for _, a := range m.live {
		if slices.Contains(ids, a.machine.ID) {
			ending = append(ending, a)
			a.cancel(errTerminated)
		}
	}
	m.mu.Unlock()
	for _, a := range ending {
		select {
		case <-a.done:
		case <-ctx.Done():
			return fmt.Errorf("terminate %s: %w", a.machine.ID, ctx.Err())
		}
	}
	return nil
}
