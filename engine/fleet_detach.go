package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// coordinatorTypes are what a detached coordinator lives on: small, with memory
// for a million tasks. One of them is to be had everywhere.
var coordinatorTypes = []string{"t3.small", "t3a.small", "t3.medium", "t3a.medium", "t2.small", "t2.medium"}

const (
	// coordinatorPool tells the machine of a coordinator from those that work.
	coordinatorPool = "coordinator"
	// CoordinatorDisk is its root disk, in GiB.
	CoordinatorDisk = 10
	// coordinatorLife is how long it lives at most, where no limits.duration is
	// given: a run may take longer than one of its machines lives.
	coordinatorLife = 7 * 24 * time.Hour
	// coordinatorGrace is how long it may take from its launch until it has
	// the run.
	coordinatorGrace = 10 * time.Minute
)

// detachFleet puts the coordinator on a machine of its own, which does nothing
// else and ends with the run.
func (e *Engine) detachFleet(ctx context.Context, h *executor.Header, p *spec.Pipeline, rec *fleetRecord, o ContinueOptions, begin executor.Begin) (*Handle, error) {
	v, err := executor.OpenView(ctx, e.Store, h.Run)
	if err != nil {
		return nil, err
	}
	// Not among its arguments: those are short, and anybody on it can read them.
	if err := writeJSON(ctx, e.Store, beginKey(h.Run), detached{NoCache: o.NoCache, Begin: begin}); err != nil {
		return nil, err
	}
	l, err := e.coordinatorLaunch(ctx, h, p, rec)
	if err != nil {
		return nil, err
	}
	machines, err := e.AWS.Machines(ctx, rec.Region, h.Run, e.Store, func(cloud.MachineSpec) (Launch, error) { return l, nil })
	if err != nil {
		return nil, err
	}
	list, err := machines.Launch(ctx, cloud.MachineSpec{Run: h.Run, Pool: coordinatorPool, Role: cloud.RoleCoordinator,
		Token: fmt.Sprintf("coordinator-%d", v.Epoch()+1), Count: 1, Types: coordinatorTypes, Spot: "on-demand", Region: rec.Region, DiskGB: CoordinatorDisk})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("launch a machine for the coordinator: %w", err), e.giveUp(ctx, machines, h.Run))
	}
	e.say("the coordinator of run %s starts on machine %s, a %s; that takes a minute or so, and from then on this process is not needed", h.Run, list[0].ID, list[0].Type)
	if err := e.awaitMachine(ctx, v, machines, list[0].ID, l.BootLog); err != nil {
		return nil, errors.Join(err, e.giveUp(ctx, machines, h.Run, list[0].ID))
	}
	w, err := e.watch(ctx, h.Run, "")
	if err != nil {
		return nil, err
	}
	w.Detached = true
	return w, nil
}

// giveUp ends the machine of a coordinator that has not begun, and cancels its
// run if that was interrupted. Both at the same time: a signal leaves ten
// seconds for them.
func (e *Engine) giveUp(ctx context.Context, machines Machines, run string, ids ...string) error {
	ended := make(chan error, 1)
	go func() { ended <- endCoordinator(ctx, machines, run, ids...) }()
	var err error
	if ctx.Err() != nil {
		err = e.takeBack(ctx, run)
	}
	return errors.Join(err, <-ended)
}

// endCoordinator ends the machine of a coordinator that nobody waits for any
// more: it might begin later, and rent others. The reply to its launch may have
// been lost.
func endCoordinator(ctx context.Context, machines Machines, run string, ids ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endCoordinatorWithin)
	defer cancel()
	list, err := machines.List(ctx, "")
	for _, m := range list {
		if m.Run == run && m.Role == cloud.RoleCoordinator && m.State != "ended" && !slices.Contains(ids, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) > 0 {
		err = errors.Join(err, machines.Terminate(ctx, ids...))
	}
	if err != nil {
		return fmt.Errorf("end the machine of the coordinator: %w; `coiled-jobs cancel %s` ends it", err, run)
	}
	return nil
}

// endCoordinatorWithin is how long that may take: a signal leaves ten seconds.
const endCoordinatorWithin = 8 * time.Second

// takeBackWithin is how long somebody who interrupts a detached start waits for
// its end.
const takeBackWithin = 8 * time.Second

// takeBack cancels a run whose caller has interrupted it before its coordinator
// had begun elsewhere.
func (e *Engine) takeBack(ctx context.Context, run string) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), takeBackWithin)
	defer stop()
	r, err := e.Cancel(ctx, run, takeBackWithin-time.Second)
	if err != nil {
		return fmt.Errorf("run %s: %w", run, err)
	}
	if r.Status.Final() {
		e.say("run %s is cancelled, and the machine of its coordinator ends", run)
	} else {
		e.say("run %s was told to end; look: coiled-jobs status %s", run, run)
	}
	return nil
}

func beginKey(run string) string { return executor.Prefix(run) + "/control/begin.json" }

// coordinatorLaunch is what goes into the machine of a coordinator.
func (e *Engine) coordinatorLaunch(ctx context.Context, h *executor.Header, p *spec.Pipeline, rec *fleetRecord) (Launch, error) {
	program, err := e.AWS.Publish(ctx, e.Store, hardware.AMD64)
	if err != nil {
		return Launch{}, err
	}
	l := Launch{Pipeline: h.Pipeline, Owner: h.Owner, MaxLife: coordinatorLife, Arch: hardware.AMD64, Agent: program, Coordinator: true,
		BootLog: wire.BootLogKey(h.Run, coordinatorPool),
		Args:    []string{"__coordinate", h.Run, "--store", e.Store.URL()}}
	if p.Limits.Duration > 0 {
		l.MaxLife = p.Limits.Duration + time.Hour
	}
	// It is where the run's own machines are, so their network will do.
	hw := rec.Kinds[0].Hardware
	l.Hardware = spec.Hardware{Subnet: hw.Subnet, SecurityGroup: hw.SecurityGroup, Tags: hw.Tags}
	l.Expires = e.now().Truncate(time.Hour).Add(l.MaxLife + 2*time.Hour)
	return l, nil
}

// awaitMachine returns when the coordinator on a machine has taken the run. If
// the machine ends before, that is an error with what it left.
func (e *Engine) awaitMachine(ctx context.Context, v *executor.View, machines Machines, id, log string) error {
	epoch := v.Epoch()
	deadline := time.Now().Add(coordinatorGrace)
	t := time.NewTicker(e.PollEvery(100 * time.Millisecond))
	defer t.Stop()
	looked := time.Now()
	for {
		if err := v.Refresh(ctx); err != nil {
			return err
		}
		if v.Epoch() > epoch {
			return nil
		}
		if text, err := e.Store.Get(ctx, log); err == nil {
			return fmt.Errorf("the coordinator's machine %s could not begin; the end of its log:\n%s\ngo on without it: coiled-jobs resume %s", id, lastLines(text, bootLines), v.Header.Run)
		}
		if time.Since(looked) > lookAtMachines {
			looked = time.Now()
			if err := gone(ctx, machines, id); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the coordinator on machine %s did not begin within %s; go on without it: coiled-jobs resume %s", id, coordinatorGrace, v.Header.Run)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// bootLines is how much of a log people see.
const bootLines = 15

func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// lookAtMachines is how often the cloud is asked whether a machine is alive.
const lookAtMachines = 15 * time.Second

// gone is an error if a machine has ended.
func gone(ctx context.Context, machines Machines, id string) error {
	list, err := machines.List(ctx, "")
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.ID == id && m.State != "ended" {
			return nil
		}
	}
	return errors.New("the coordinator's machine " + id + " has ended before it began; try again")
}
