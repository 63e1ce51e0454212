package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Fleet is cloud.Machines on a Region: what executors and simulations are
// tested with. Errors of the region come through as kinds; a reply that is
// lost after the effect is found again with the token.
type Fleet struct {
	region *Region
	zones  []string

	mu    sync.Mutex
	fresh map[string]cloud.Machine // launched, perhaps not known yet
}

var _ cloud.Machines = (*Fleet)(nil)

// NewFleet makes Machines in zones of a region; in "zone-a" if none is named.
func NewFleet(region *Region, zones ...string) *Fleet {
	if len(zones) == 0 {
		zones = []string{"zone-a"}
	}
	return &Fleet{region: region, zones: zones, fresh: map[string]cloud.Machine{}}
}

var kindsOfCodes = map[string]cloud.Kind{
	"RequestLimitExceeded": cloud.KindThrottled, "IdempotentParameterMismatch": cloud.KindConflict,
	"InvalidInstanceID.NotFound": cloud.KindNotFound, "InsufficientInstanceCapacity": cloud.KindNoCapacity,
	"MaxSpotInstanceCountExceeded": cloud.KindQuota, "VcpuLimitExceeded": cloud.KindQuota,
}

func fleetError(op string, err error) error {
	var code *CodeError
	if err == nil || !errors.As(err, &code) {
		return err
	}
	return &cloud.Error{Op: op, Resource: "machines", Kind: kindsOfCodes[code.Code], Err: err}
}

// Launch starts machines: spot ones first where spec.Spot lets it.
func (f *Fleet) Launch(ctx context.Context, spec cloud.MachineSpec) ([]cloud.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if spec.Count < 1 {
		return nil, &cloud.Error{Op: "launch", Resource: "machines", Kind: cloud.KindInvalid, Err: fmt.Errorf("%d machines", spec.Count)}
	}
	types := spec.Types
	if len(types) == 0 {
		types = []string{"fake.large"}
	}
	var list []cloud.Machine
	kind := cloud.KindNoCapacity
	for _, spot := range []bool{true, false} {
		if len(list) == spec.Count || spot && spec.Spot == "on-demand" || !spot && spec.Spot == "spot" {
			continue
		}
		req := Request{Count: spec.Count - len(list), Tags: map[string]string{"run": spec.Run, "pool": spec.Pool}}
		if spec.Token != "" {
			req.Token = fmt.Sprintf("%s %s %v", spec.Run, spec.Token, spot)
		}
		for _, t := range types {
			for _, z := range f.zones {
				req.Pools = append(req.Pools, Pool{Type: t, Zone: z, Spot: spot})
			}
		}
		answer, err := f.region.Launch(req)
		if err != nil {
			return list, fleetError("launch", err)
		}
		for _, i := range answer.Machines {
			x := f.machine(i)
			list = append(list, x)
			f.mu.Lock()
			f.fresh[x.ID] = x
			f.mu.Unlock()
		}
		for _, e := range answer.Failures {
			if k := kindsOfCodes[e.Code]; k == cloud.KindQuota {
				kind = k
			}
		}
	}
	if len(list) < spec.Count {
		return list, &cloud.Error{Op: "launch", Resource: types[0], Kind: kind, Err: fmt.Errorf("%d of %d machines", len(list), spec.Count)}
	}
	return list, nil
}

func (f *Fleet) machine(i Instance) cloud.Machine {
	return cloud.Machine{ID: i.ID, Run: i.Tags["run"], Pool: i.Tags["pool"], Type: i.Type, Zone: i.Zone, Spot: i.Spot,
		State: f.region.State(i), Launched: i.Launched}
}

// List finds machines by their run.
func (f *Fleet) List(ctx context.Context, run string) ([]cloud.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, err := f.region.Describe(func(i Instance) bool { return run == "" || i.Tags["run"] == run })
	if err != nil {
		return nil, fleetError("list", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []cloud.Machine
	for _, i := range found {
		delete(f.fresh, i.ID)
		list = append(list, f.machine(i))
	}
	for _, x := range f.fresh {
		if run == "" || x.Run == run {
			list = append(list, x)
		}
	}
	return list, nil
}

// Terminate ends machines. Those that are not known yet end too: a launch is
// certain to have been real.
func (f *Fleet) Terminate(ctx context.Context, ids ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var errs []error
	for _, id := range ids {
		err := fleetError("terminate", f.region.Terminate(id))
		if cloud.KindOf(err) == cloud.KindNotFound {
			err = nil
			f.region.PowerOff(id)
		}
		f.mu.Lock()
		if err == nil {
			delete(f.fresh, id)
		}
		f.mu.Unlock()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
