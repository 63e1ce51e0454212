package engine

import (
	"context"
	"encoding/json"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

// ByKey is the run that a key belongs to: KindNotFound if there is none, or if
// it was claimed but never recorded.
func (e *Engine) ByKey(ctx context.Context, key string) (run string, err error) {
	object := keyObject(key)
	b, err := e.Store.Get(ctx, object)
	if err != nil {
		return "", err
	}
	var rec keyRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		return "", &cloud.Error{Op: "read", Resource: object, Kind: cloud.KindCorrupt, Err: err}
	}
	if _, err := executor.LoadHeader(ctx, e.Store, rec.Run); err != nil {
		return "", err
	}
	return rec.Run, nil
}

// Elsewhere says that the run was already going on in another process when
// this one asked for it.
func (h *Handle) Elsewhere() bool { return h.joined != nil }
