package bundle

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Collect removes versions of code and indexes of files that were last pushed
// before a time and are not in use, and then the contents that nothing refers
// to any more. inUse says of a key that Push or PushFiles returned whether a run
// that is kept needs it. What is younger than a little more than a week stays
// in any case: a push that is under way may be building on it.
func Collect(ctx context.Context, store cloud.Store, inUse func(key string) bool, before time.Time) (removed int, err error) {
	if limit := time.Now().Add(-spared); before.After(limit) {
		before = limit
	}
	// The contents first: what comes while this works is not among them.
	var contents, roots []cloud.ObjectInfo
	list := func(prefix string, fn func(o cloud.ObjectInfo)) error {
		return store.List(ctx, prefix, func(o cloud.ObjectInfo) bool {
			fn(o)
			return true
		})
	}
	for _, prefix := range []string{packPrefix, filePrefix} {
		err := list(prefix, func(o cloud.ObjectInfo) {
			if !strings.HasSuffix(o.Key, ".json") && o.Modified.Before(before) {
				contents = append(contents, o)
			}
		})
		if err != nil {
			return 0, err
		}
	}
	for _, prefix := range []string{codePrefix, indexPrefix} {
		err := list(prefix, func(o cloud.ObjectInfo) {
			if strings.HasSuffix(o.Key, ".json") {
				roots = append(roots, o)
			}
		})
		if err != nil {
			return 0, err
		}
	}
	var old []string
	needed := map[string]bool{}
	for _, o := range roots {
		if o.Modified.Before(before) && !inUse(o.Key) {
			old = append(old, o.Key)
			continue
		}
		if err := mark(ctx, store, o.Key, needed); err != nil {
			return 0, err
		}
	}
	for _, o := range contents {
		if !needed[o.Key] {
			old = append(old, o.Key)
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	return len(old), store.Delete(ctx, old...)
}

// mark notes the objects that a version of code or an index refers to. One
// that cannot be understood is an error: its contents may be needed.
func mark(ctx context.Context, store cloud.Store, key string, needed map[string]bool) error {
	if strings.HasPrefix(key, codePrefix) {
		b, err := store.Get(ctx, key)
		if err != nil {
			return ignoreGone(err)
		}
		var s stored
		if err := json.Unmarshal(b, &s); err != nil {
			return &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
		}
		for _, k := range s.objects() {
			needed[k] = true
		}
		return nil
	}
	f, err := OpenFiles(ctx, store, key)
	if err != nil {
		return ignoreGone(err)
	}
	for i, c := range f.root.Chunks {
		needed[indexPrefix+c.Hash] = true
		files, err := f.chunk(ctx, i)
		if err != nil {
			return ignoreGone(err)
		}
		for j := range files {
			needed[fileKey(files[j].Hash)] = true
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	return err
}
