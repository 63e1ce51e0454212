package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// EachItem calls yield for the items of the tasks from to to-1 in index order
// (nil for an unmapped function, and for a task whose item is not known yet).
func (v *View) EachItem(ctx context.Context, fn string, from, to int, yield func(index int, item any) bool) error {
	f := v.state.byName[fn]
	if f == nil {
		return fmt.Errorf("no function %q in this run", fn)
	}
	switch {
	case f.spec.Map == nil:
		for i := from; i < to; i++ {
			if !yield(i, nil) {
				return nil
			}
		}
		return nil
	case f.from != nil:
		return v.eachUpstream(ctx, f, from, to, yield)
	}
	it, err := v.loadItems(ctx, fn)
	if err != nil || it == nil {
		return err
	}
	err = it.Each(from, min(to, it.Len()), func(i int, item any) error {
		if !yield(i, item) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (v *View) eachUpstream(ctx context.Context, f *function, from, to int, yield func(int, any) bool) error {
	for i := from; i < to; i++ {
		b, err := v.Result(ctx, f.from.spec.Name, i)
		if err != nil {
			return err
		}
		item, err := value.DecodeOrdered(b)
		if err != nil {
			return err
		}
		if !yield(i, item) {
			return nil
		}
	}
	return nil
}

func (v *View) loadItems(ctx context.Context, fn string) (planner.Items, error) {
	if it, ok := v.items[fn]; ok {
		return it, nil
	}
	it, err := LoadItems(ctx, v.store, v.Header.Run, fn)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, nil // expanded later, or never
	}
	if err != nil {
		return nil, err
	}
	v.items[fn] = it
	return it, nil
}
