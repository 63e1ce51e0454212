package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// startFleet begins or goes on with a run on rented machines. c is what it
// takes along, nil: what was recorded, or what is found where the file is.
func (e *Engine) startFleet(ctx context.Context, h *executor.Header, p *spec.Pipeline, o ContinueOptions, begin executor.Begin, c *cargo) (*Handle, error) {
	if err := e.checkAWS(); err != nil {
		return nil, err
	}
	if c == nil { // an old request to cancel is not meant for what begins now
		if err := e.Store.Delete(ctx, executor.CancelKey(h.Run)); err != nil {
			return nil, err
		}
	}
	rec, err := e.outfit(ctx, h, p, o, begin, c)
	if err != nil {
		return nil, err
	}
	if o.Detach {
		return e.detachFleet(ctx, h, p, rec, o, begin)
	}
	return e.attend(ctx, h, p, h.NoCache || o.NoCache, begin, rec)
}

// outfit records what the machines of a run are made of.
func (e *Engine) outfit(ctx context.Context, h *executor.Header, p *spec.Pipeline, o ContinueOptions, begin executor.Begin, c *cargo) (*fleetRecord, error) {
	noCache := h.NoCache || o.NoCache
	if c != nil {
		return e.settle(ctx, h, p, c, noCache)
	}
	rec, err := loadFleet(ctx, e.Store, h.Run)
	if err != nil {
		return nil, err
	}
	here := folderHere(h.Dir)
	if rec == nil && !here {
		return nil, usagef("the code of run %s was never sent: continue it where %s applied it, on the machine with %s", h.Run, h.Owner, h.Dir)
	}
	if rec == nil || here && (begin.Retry || o.CodeNew) {
		if c, err = e.regather(ctx, h, p); err != nil {
			return nil, err
		}
		next, err := e.settle(ctx, h, p, c, noCache)
		if err != nil {
			return nil, err
		}
		next.MaxCost = o.MaxCost
		if rec != nil {
			next.Expect = rec.Expect
			if o.MaxCost == nil {
				next.MaxCost = rec.MaxCost
			}
		}
		return next, next.save(ctx, e.Store, h.Run)
	}
	return rec, e.renew(ctx, h, p, o, begin, rec)
}

// regather is gather for a run that exists.
func (e *Engine) regather(ctx context.Context, h *executor.Header, p *spec.Pipeline) (*cargo, error) {
	q, err := e.quote(ctx, p, h.Functions, h.Only)
	if err != nil {
		return nil, err
	}
	items := map[string]planner.Items{}
	for fn := range h.Planned {
		it, err := executor.LoadItems(ctx, e.Store, h.Run, fn)
		if cloud.KindOf(err) == cloud.KindNotFound {
			continue // it is not mapped
		}
		if err != nil {
			return nil, err
		}
		items[fn] = it
	}
	c, err := e.gather(ctx, h, p, q, items)
	if err != nil {
		return nil, err
	}
	return c, e.upload(ctx, c)
}

// renew brings a record up to date that a coordinator goes on with which has
// no folder, or needs nothing of it: secrets that were removed when the run
// ended, another version of this program, other limits.
func (e *Engine) renew(ctx context.Context, h *executor.Header, p *spec.Pipeline, o ContinueOptions, begin executor.Begin, rec *fleetRecord) error {
	for arch := range rec.Agent {
		program, err := e.AWS.Publish(ctx, e.Store, arch)
		if err != nil {
			return err
		}
		rec.Agent[arch] = program
	}
	if begin.Retry || begin.Reopen {
		c := &cargo{}
		if err := e.gatherSecrets(c, p, h); err != nil {
			return err
		}
		secrets, envFile, err := e.keepSecrets(ctx, h.Run, rec, c)
		if err != nil {
			return err
		}
		for i := range rec.Kinds {
			rec.Kinds[i].Setup.Secrets, rec.Kinds[i].Setup.EnvFile = secrets, envFile
		}
	}
	if o.MaxCost != nil {
		rec.MaxCost = o.MaxCost
	}
	for i := range rec.Kinds {
		rec.Kinds[i].Setup.NoCache = rec.Kinds[i].Setup.NoCache || o.NoCache
	}
	rec.settle(h, p, e.Store.URL())
	return rec.save(ctx, e.Store, h.Run)
}

// folderHere says whether the folder of a pipeline file is on this machine.
func folderHere(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// release ends what a run has that no coordinator looks after: its machines,
// queues and secrets.
func (e *Engine) release(ctx context.Context, h *executor.Header) error {
	if h.Cloud != "aws" {
		return nil
	}
	if err := e.checkAWS(); err != nil {
		return err
	}
	rec, err := loadFleet(ctx, e.Store, h.Run)
	if err != nil || rec == nil {
		return err // it never came to rent anything
	}
	p, err := executor.LoadPipeline(ctx, e.Store, h, 0)
	if err != nil {
		return err
	}
	machines, err := e.openMachines(ctx, h, p, rec, cloud.Machine{})
	if err != nil {
		return err
	}
	return allOf(
		func() error { return machines.Clean(ctx, h.Run) },
		func() error { return e.AWS.DeleteQueues(ctx, rec.Region, h.Run) },
		func() error { return e.AWS.DeleteSecrets(ctx, rec.Region, h.Run) },
	)
}

// tellStop writes for the machines of a run that it is cancelled: those that
// cannot be ended leave by themselves.
func (e *Engine) tellStop(ctx context.Context, h *executor.Header, epoch int) error {
	if h.Cloud != "aws" {
		return nil
	}
	return writeJSON(ctx, e.Store, wire.ControlKey(h.Run), wire.Control{Epoch: epoch, Written: e.now(), Stop: wire.StopCancel})
}

// retryRecorded says whether a retry goes on with the file as it was recorded:
// there is none on this machine, and the machines of the run have its code.
func retryRecorded(h *executor.Header) bool {
	_, err := os.Stat(h.File)
	return h.Cloud == "aws" && errors.Is(err, fs.ErrNotExist)
}
