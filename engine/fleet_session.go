package engine

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// fleetSession is the machines of a session.
type fleetSession struct {
	e        *Engine
	h        *executor.Header
	rec      *fleetRecord
	fleet    *fleet.Fleet
	machines *regions
	prices   *priceBook
}

// handing is the queue of a coordinator, whose fleet is made after it.
type handing struct{ cloud.Queue }

// beginFleet takes a run's journal and starts to work on it with rented
// machines.
func (e *Engine) beginFleet(ctx context.Context, h *executor.Header, p *spec.Pipeline, begin executor.Begin, rec *fleetRecord) (began *session, err error) {
	scratch, err := scratchFolder(h.Run)
	if err != nil {
		return nil, err
	}
	defer func() {
		if began == nil {
			os.RemoveAll(scratch)
		}
	}()
	s := openSession(ctx)
	f := &fleetSession{e: e, h: h, rec: rec, prices: newPriceBook(rec)}
	s.fleet = f
	self, _ := e.identity(ctx)
	if f.machines, err = e.openMachines(ctx, h, p, rec, self); err != nil {
		return nil, err
	}
	kinds, err := rec.kinds(executor.Selected(p, h.Functions, h.Only), f.prices)
	if err != nil {
		return nil, err
	}
	queue := &handing{}
	host, _ := os.Hostname()
	s.coord, err = executor.NewCoordinator(ctx, executor.Config{
		Store: e.Store, Queue: queue, Header: h, Pipeline: p, Inputs: e.inputs(h.Dir, h.Info()),
		Slots: 1, CPUs: runtime.NumCPU(), Scratch: scratch, Host: host, PID: os.Getpid(), Begin: begin,
		StopWork: func() { f.fleet.StopWork() }, Notice: s.notice, Live: func() []task.Live { return f.fleet.Live() }, Now: e.Now,
		Remote: &executor.RemoteConfig{
			Capacity: func(fn string) int { return f.fleet.Capacity(fn) },
			Memory:   f.memoryOf,
			Close:    func(ctx context.Context, _ executor.RunStatus) { f.close(ctx, s) },
		},
	})
	if err != nil {
		return nil, err
	}
	p = s.coord.Pipeline()
	own := e.ownMachine(self)
	limits := e.limits(p, rec, h, s.coord.Machines(), own)
	if !limits.Deadline.IsZero() { // what is left of limits.duration
		limits.Deadline = limits.Deadline.Add(-s.coord.Worked())
	}
	f.fleet = fleet.New(fleet.Config{
		Run: h.Run, Epoch: s.coord.Epoch, Store: e.Store, Machines: f.machines, Coordinator: s.coord,
		OpenQueue: func(ctx context.Context, name string) (fleet.Queue, error) {
			return e.AWS.OpenQueue(ctx, rec.Region, h.Run, name, QueueTags{h.Pipeline, h.Owner, e.Store.URL(), rec.Kinds[0].Hardware.Tags})
		},
		JoinQueue: func(ctx context.Context, url string) (cloud.Queue, error) { return e.AWS.JoinQueue(ctx, url) },
		Kinds:     kinds, Larger: func(ctx context.Context, fn string, memory int64) (fleet.Kind, error) {
			return f.larger(ctx, p, fn, memory)
		},
		Limits: limits, Unattended: p.Limits.Unattended, Expect: expected(p, rec),
		Tidy: f.tidy, Notice: func(text string) { s.notice(machineNotice(text)) },
		Warn: func(text string) {
			s.notice(executor.Notice{Time: time.Now(), Kind: executor.NoticeWarning, Text: text})
		},
	})
	queue.Queue = f.fleet.Queue()
	s.live = f.fleet.Live
	if own.ID != "" {
		go s.coord.MachineChanged(own) // it waits for the loop, which begins later
	}
	following, stop := context.WithCancel(s.ctx)
	go f.prices.follow(following, e.AWS.Catalogue)
	f.fleet.Start(s.ctx)
	go s.run(func() error {
		stop()
		switch {
		case s.report.Status.Final():
		case f.fleet.Failed():
			f.close(context.WithoutCancel(s.ctx), s)
		default:
			f.fleet.Abandon() // its machines go on for the next coordinator
		}
		os.RemoveAll(scratch)
		return nil
	})
	return s, nil
}

// identity is the machine this process is on, if it was rented for a run.
func (e *Engine) identity(ctx context.Context) (cloud.Machine, bool) {
	if e.AWS.Identity == nil {
		return cloud.Machine{}, false
	}
	return e.AWS.Identity(ctx)
}

// noticeMachines is the kind of a notice about machines.
const noticeMachines executor.NoticeKind = "machines"

// machineNotice is a line about machines.
func machineNotice(text string) executor.Notice {
	return executor.Notice{Time: time.Now(), Kind: noticeMachines, Text: text}
}

// ownMachine is the machine of a coordinator as the run records it: it costs
// money too. The zero Machine if nobody rented it.
func (e *Engine) ownMachine(self cloud.Machine) task.Machine {
	if self.ID == "" {
		return task.Machine{}
	}
	m := task.Machine{ID: self.ID, Kind: coordinatorKind, Type: self.Type, Zone: self.Zone, Price: self.PricePerHour, Joined: self.Launched}
	if m.Joined.IsZero() {
		m.Joined = e.now()
	}
	return m
}

// coordinatorKind is the kind of the machine that a detached coordinator is on.
const coordinatorKind = "coordinator"

const (
	// releaseWithin is how long the end of a run may take until its machines are
	// gone, and hurriedWithin when somebody waits who has sent a signal: counted
	// from that.
	releaseWithin = 90 * time.Second
	hurriedWithin = 8800 * time.Millisecond
)

// close ends the run for its machines and tells what is left.
func (f *fleetSession) close(ctx context.Context, s *session) {
	ctx, stop := context.WithTimeout(ctx, releaseWithin)
	defer stop()
	if at := s.hurried.Load(); at != nil {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, at.Add(hurriedWithin))
		defer stop()
	}
	left, err := f.fleet.Close(ctx)
	if err != nil {
		s.notice(executor.Notice{Time: time.Now(), Kind: executor.NoticeWarning, Text: fmt.Sprintf(
			"releasing the machines: %v; what is left powers off by itself, and `coiled-jobs gc` removes it", err)})
	}
	s.notice(machineNotice(left.String()))
}

// tidy removes what a run has beside its machines. Of these some may wait for
// another run. A run that could not go on keeps its secrets: whoever resumes it
// may not have them.
func (f *fleetSession) tidy(ctx context.Context, waiting bool) error {
	return allOf(
		func() error {
			if f.fleet.Failed() {
				return nil
			}
			return f.e.AWS.DeleteSecrets(ctx, f.rec.Region, f.h.Run)
		},
		func() error {
			var keep []string
			if waiting {
				list, err := f.machines.List(ctx, f.h.Run)
				if err != nil {
					return err
				}
				for _, m := range list {
					keep = append(keep, m.ID)
				}
			}
			return f.machines.Clean(ctx, f.h.Run, keep...)
		},
	)
}

// openMachines opens the regions of a run.
func (e *Engine) openMachines(ctx context.Context, h *executor.Header, p *spec.Pipeline, rec *fleetRecord, self cloud.Machine) (*regions, error) {
	names := map[string]bool{}
	for _, k := range rec.Kinds {
		names[k.Region] = true
	}
	by := map[string]Machines{}
	for region := range names {
		m, err := e.AWS.Machines(ctx, region, h.Run, e.Store, func(s cloud.MachineSpec) (Launch, error) { return e.launch(h, p, rec, s) })
		if err != nil {
			return nil, err
		}
		by[region] = m
	}
	return newRegions(rec.Region, self.ID, by), nil
}

// launch says what goes into the machines of a spec.
func (e *Engine) launch(h *executor.Header, p *spec.Pipeline, rec *fleetRecord, s cloud.MachineSpec) (Launch, error) {
	kinds := rec.known()
	i := slices.IndexFunc(kinds, func(k kindRecord) bool { return k.Setup.Pool == s.Pool })
	if i < 0 {
		return Launch{}, &cloud.Error{Op: "launch", Resource: "machines of " + h.Run, Kind: cloud.KindInvalid,
			Err: fmt.Errorf("no kind of them has the pool %s", s.Pool)}
	}
	k := &kinds[i]
	l := Launch{Pipeline: h.Pipeline, Owner: h.Owner, MaxLife: k.Setup.MaxLife, Arch: k.arch(), BootLog: wire.BootLogKey(h.Run, k.Setup.Kind),
		Agent: rec.Agent[k.arch()], Hardware: k.Hardware,
		Args: []string{"__agent", "--store", e.Store.URL(), "--run", h.Run, "--kind", k.Setup.Kind}}
	l.Expires = e.now().Truncate(time.Hour).Add(l.MaxLife + 2*time.Hour)
	return l, nil
}

// kinds is what a fleet is told of the kinds of machines.
func (rec *fleetRecord) kinds(fs []*spec.Function, prices *priceBook) ([]fleet.Kind, error) {
	var all []fleet.Kind
	for _, k := range kindsOf(fs) {
		i := slices.IndexFunc(rec.Kinds, func(r kindRecord) bool { return r.Base == k.Base })
		if i < 0 {
			return nil, fmt.Errorf("nothing is recorded of the machines for %s: start the run anew, or continue it where the pipeline file is, with --code new", k.Base)
		}
		all = append(all, rec.Kinds[i].fleet(k, prices))
		for j := range rec.Kinds { // the first is for all tasks
			if j != i && rec.Kinds[j].Base == k.Base {
				all = append(all, rec.Kinds[j].fleet(k, prices))
			}
		}
	}
	return all, nil
}

func (r *kindRecord) fleet(k *kind, prices *priceBook) fleet.Kind {
	disk := diskOf(k.Hardware, r.Choices)
	f := fleet.Kind{
		Name: r.Setup.Kind, Functions: k.Functions, Setup: r.Setup, Pool: r.Setup.Pool,
		Spot: k.Hardware.SpotPolicy, Region: r.Region, DiskGB: disk, Tags: k.Hardware.Tags,
		Min: k.Hardware.Workers[0], Max: k.Hardware.Workers[1],
		Slots: func(t string) int {
			if c := r.choice(t); c != nil {
				return c.Slots(r.Setup.Threads)
			}
			return max(1, r.Setup.Threads)
		},
		VCPUs: func(t string) int {
			if c := r.choice(t); c != nil {
				return c.VCPUs
			}
			return 0
		},
		Price:  func(t, zone string, spot bool) float64 { return prices.price(r.Region, t, zone, spot, disk) },
		Memory: r.leastMemory(),
	}
	if r.Memory > 0 {
		f.Min, f.Max = 0, max(1, f.Max)
	}
	for _, c := range r.Choices {
		f.Types = append(f.Types, c.Name)
	}
	return f
}

// limits bound what a run rents from now on.
func (e *Engine) limits(p *spec.Pipeline, rec *fleetRecord, h *executor.Header, past []task.Machine, own task.Machine) fleet.Limits {
	limit := h.MaxCost
	if rec.MaxCost != nil {
		limit = rec.MaxCost
	}
	l := fleet.Limits{Cost: costLimit(p, limit), Machines: p.Limits.Machines, VCPUs: p.Limits.VCPUs, Own: own,
		Past: slices.DeleteFunc(past, func(m task.Machine) bool { return m.ID == own.ID })}
	if p.Limits.Duration > 0 {
		l.Deadline = e.now().Add(p.Limits.Duration)
	}
	return l
}

// expected is how long tasks take, by earlier runs or where the file says so.
func expected(p *spec.Pipeline, rec *fleetRecord) map[string]time.Duration {
	by := map[string]time.Duration{}
	for _, f := range p.Functions {
		switch past := rec.Expect[f.Name]; {
		case past > 0:
			by[f.Name] = time.Duration(past * float64(time.Second))
		case f.Expect > 0:
			by[f.Name] = f.Expect
		}
	}
	return by
}
