package engine

import (
	"context"
	"slices"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// known is the kinds that are recorded now.
func (rec *fleetRecord) known() []kindRecord {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.Kinds
}

// memoryOf is the bytes that a type of machine has; 0 if nobody knows it.
func (f *fleetSession) memoryOf(instanceType string) int64 {
	kinds := f.rec.known()
	for i := range kinds {
		if c := kinds[i].choice(instanceType); c != nil {
			return c.MemoryMiB << 20
		}
	}
	return hardware.TypeNamed(instanceType).MemoryMiB << 20
}

// larger makes a kind of machines with at least so much memory for tasks that
// ran out of it: like those of their function in all else. Who goes on with the
// run finds it recorded.
func (f *fleetSession) larger(ctx context.Context, p *spec.Pipeline, fn string, memory int64) (fleet.Kind, error) {
	e, h, rec := f.e, f.h, f.rec
	kinds := kindsOf(executor.Selected(p, h.Functions, h.Only))
	i := slices.IndexFunc(kinds, func(k *kind) bool { return slices.Contains(k.Functions, fn) })
	k := kinds[i] // fn has machines, or it would not have run out of their memory
	rec.making.Lock()
	defer rec.making.Unlock()
	before := rec.known()
	r := before[slices.IndexFunc(before, func(r kindRecord) bool { return r.Base == k.Base })]
	c, err := e.catalogue(ctx, r.Region)
	if err != nil {
		c = hardware.BuiltIn(r.Region) // it knows enough of sizes
	}
	s, err := hardware.Choose(requestOf(k.Hardware, p.Limits.VCPUs).Larger(c, memory), c)
	if err != nil {
		return fleet.Kind{}, &cloud.Error{Op: "choose", Resource: "larger machines for " + fn, Kind: cloud.KindInvalid, Err: err}
	}
	r.Memory, r.Choices = memory, s.Choices
	next := &fleetRecord{Region: rec.Region, Agent: rec.Agent, Notify: rec.Notify, MaxCost: rec.MaxCost, Expect: rec.Expect,
		Kinds: append(slices.Clone(before), r)}
	next.settle(h, p, e.Store.URL())
	if err := next.save(ctx, e.Store, h.Run); err != nil {
		return fleet.Kind{}, err
	}
	rec.mu.Lock()
	rec.Kinds = next.Kinds
	rec.mu.Unlock()
	return next.Kinds[len(before)].fleet(k, f.prices), nil
}
