package engine

import (
	"context"
	"encoding/json"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// RunsByKey is the runs that a key belongs to: at most one in the store and,
// if elsewhere, in each other store that the caller's own runs are in.
func (e *Engine) RunsByKey(ctx context.Context, key string, elsewhere bool) ([]RunSummary, error) {
	list := []RunSummary{}
	add := func(store cloud.Store) error {
		s, err := e.keyed(ctx, store, key)
		switch {
		case err == nil:
			list = append(list, s)
		case cloud.KindOf(err) == cloud.KindNotFound:
			err = nil
		}
		return err
	}
	seen := map[string]bool{}
	if e.Store != nil {
		seen[e.Store.URL()] = true
		if err := add(e.Store); err != nil {
			return nil, err
		}
	}
	if !elsewhere {
		return list, nil
	}
	own, err := e.own()
	if err != nil {
		return nil, err
	}
	for _, p := range own {
		if seen[p.Store] {
			continue
		}
		seen[p.Store] = true
		if store, err := e.storeOf(p); err == nil {
			_ = add(store) // a store that is away does not hide the others
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return list, nil
}

// keyed is the run of a store that a key belongs to: KindNotFound if there is
// none, or if it was claimed but never recorded.
func (e *Engine) keyed(ctx context.Context, store cloud.Store, key string) (RunSummary, error) {
	object := keyObject(key)
	b, err := store.Get(ctx, object)
	if err != nil {
		return RunSummary{}, err
	}
	var rec keyRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		return RunSummary{}, &cloud.Error{Op: "read", Resource: object, Kind: cloud.KindCorrupt, Err: err}
	}
	return e.summary(ctx, store, rec.Run)
}
