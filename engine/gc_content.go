package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/software"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// unusedFor is how long code, files and environments stay in the store that no
// run needs: long enough that a weekly run finds its environment built.
const unusedFor = 10 * 24 * time.Hour

// gcContent removes what runs share in the store and no run needs any more:
// code, local files, environments.
func (e *Engine) gcContent(ctx context.Context, runs []string) ([]string, error) {
	inUse := map[string]bool{}
	for _, run := range runs {
		var keys []string
		err := e.Store.List(ctx, "runs/"+run+"/kinds/", func(o cloud.ObjectInfo) bool { keys = append(keys, o.Key); return true })
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			b, err := e.Store.Get(ctx, key)
			if cloud.KindOf(err) == cloud.KindNotFound {
				continue // the run was just removed
			}
			var s wire.Setup
			if err == nil {
				err = json.Unmarshal(b, &s)
			}
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", key, err) // what it needs is not known
			}
			inUse[s.Code], inUse[s.Files] = true, true
		}
	}
	var did []string
	before := e.now().Add(-unusedFor)
	note := func(n int, what string) {
		if n > 0 {
			did = append(did, fmt.Sprintf("removed %d %s", n, what))
		}
	}
	n, err := bundle.Collect(ctx, e.Store, func(key string) bool { return inUse[key] }, before)
	note(n, "objects of code and files that no run needs")
	if err != nil {
		return did, err
	}
	n, err = software.Collect(ctx, e.Store, before)
	note(n, "environments that nobody has used for 10 days")
	return did, err
}
