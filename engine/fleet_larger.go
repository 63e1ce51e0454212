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

// memoryOf is the bytes that a type of machine has; 0 if nobody knows it.
func (f *fleetSession) memoryOf(instanceType string) int64 {
	f.rec.mu.Lock()
	kinds := f.rec.Kinds
	f.rec.mu.Unlock()
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
	rec.mu.Lock()
	defer rec.mu.Unlock()
	first := slices.IndexFunc(rec.Kinds, func(r kindRecord) bool { return r.Base == k.Base })
	c, err := e.catalogue(ctx, rec.Kinds[first].Region)
	if err != nil {
		c = hardware.BuiltIn(rec.Kinds[first].Region) // it knows enough of sizes
	}
	s, err := hardware.Choose(hardware.RequestOf(k.Hardware).Larger(c, memory), c)
	if err != nil {
		return fleet.Kind{}, &cloud.Error{Op: "choose", Resource: "larger machines for " + fn, Kind: cloud.KindInvalid, Err: err}
	}
	r := rec.Kinds[first]
	r.Memory, r.Choices = memory, s.Choices
	before := rec.Kinds
	rec.Kinds = append(slices.Clone(before), r)
	rec.settle(h, p, e.Store.URL())
	if err := rec.save(ctx, e.Store, h.Run); err != nil {
		rec.Kinds = before
		return fleet.Kind{}, err
	}
	return rec.Kinds[len(before)].fleet(k, f.prices), nil
}
