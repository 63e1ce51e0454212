package software

import (
	"context"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// usedAgain is after how long the use of a pack is noted anew.
const usedAgain = 24 * time.Hour

// touch notes that a pack is in use, so that Collect spares it. It is not
// worth failing for.
func (e *ensurer) touch(ctx context.Context, rec packRecord) {
	if time.Since(rec.At) < usedAgain {
		return
	}
	rec.At = time.Now().UTC()
	if err := e.c.Store.Put(ctx, e.prefix()+"pack.json", mustJSON(rec)); err != nil {
		e.c.Log("software: " + err.Error())
	}
}

// Collect removes environments that nobody has built or used since a time. One
// that is removed while a machine fetches it is built again.
func Collect(ctx context.Context, store cloud.Store, before time.Time) (removed int, err error) {
	newest := map[string]time.Time{} // by "software/<id>/<place>"
	err = store.List(ctx, "software/", func(o cloud.ObjectInfo) bool {
		if i := strings.LastIndexByte(o.Key, '/'); strings.Count(o.Key, "/") == 3 && newest[o.Key[:i]].Before(o.Modified) {
			newest[o.Key[:i]] = o.Modified
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	for prefix, at := range newest {
		if !at.Before(before) {
			continue
		}
		if err := store.DeletePrefix(ctx, prefix); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
