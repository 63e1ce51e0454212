package engine

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// regions rents machines in several regions as if they were one place. It
// never shows, ends or counts the machine that the coordinator itself is on.
type regions struct {
	by   map[string]Machines
	home string
	self string // id of this machine, "": it is none that was rented

	mu    sync.Mutex
	where map[string]string // machine -> region
}

func newRegions(home, self string, by map[string]Machines) *regions {
	return &regions{by: by, home: home, self: self, where: map[string]string{}}
}

func (r *regions) note(region string, list []cloud.Machine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range list {
		r.where[m.ID] = region
	}
}

// Launch starts machines in the region of spec.
func (r *regions) Launch(ctx context.Context, spec cloud.MachineSpec) ([]cloud.Machine, error) {
	if spec.Region == "" {
		spec.Region = r.home
	}
	m := r.by[spec.Region]
	if m == nil {
		return nil, &cloud.Error{Op: "launch", Resource: "machines in " + spec.Region, Kind: cloud.KindInvalid,
			Err: errors.New("the run has no machines in this region")}
	}
	list, err := m.Launch(ctx, spec)
	r.note(spec.Region, list)
	return list, err
}

// each calls act for every region at the same time.
func (r *regions) each(act func(region string, m Machines) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for name, m := range r.by {
		wg.Go(func() {
			err := act(name, m)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// List finds the machines of a run in all regions.
func (r *regions) List(ctx context.Context, run string) ([]cloud.Machine, error) {
	var mu sync.Mutex
	var all []cloud.Machine
	err := r.each(func(region string, m Machines) error {
		list, err := m.List(ctx, run)
		r.note(region, list)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, list...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(m cloud.Machine) bool { return m.ID == r.self }), nil
}

// Terminate ends machines.
func (r *regions) Terminate(ctx context.Context, ids ...string) error {
	return r.sorted(ids, func(m Machines, ids []string) error { return m.Terminate(ctx, ids...) })
}

// sorted acts on machines in the region where each is; one of which that is
// not known is looked for everywhere.
func (r *regions) sorted(ids []string, act func(m Machines, ids []string) error) error {
	in := map[string][]string{}
	r.mu.Lock()
	for _, id := range ids {
		region, known := r.where[id]
		switch {
		case id == r.self:
		case known:
			in[region] = append(in[region], id)
		default:
			for name := range r.by {
				in[name] = append(in[name], id)
			}
		}
	}
	r.mu.Unlock()
	return r.each(func(region string, m Machines) error {
		if len(in[region]) == 0 {
			return nil
		}
		return act(m, in[region])
	})
}

// Retag says on machines which run they work for now.
func (r *regions) Retag(ctx context.Context, run string, ids ...string) error {
	return r.sorted(ids, func(m Machines, ids []string) error { return m.Retag(ctx, run, ids...) })
}

// Clean ends the machines of a run in all regions and removes what was made
// for their launches.
func (r *regions) Clean(ctx context.Context, run string, keep ...string) error {
	if r.self != "" {
		keep = append(slices.Clone(keep), r.self)
	}
	return r.each(func(_ string, m Machines) error { return m.Clean(ctx, run, keep...) })
}
