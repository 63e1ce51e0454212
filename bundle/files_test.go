package bundle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	dir, store := t.TempDir(), watch(newStore())
	files := map[string]string{"odd/caf\xe9 $(x).csv": "odd", "large.bin": noise(1, rangeSize+5), "dup": "same", "dup2": "same", "empty": ""}
	var list []string
	for i := range 2*filesPerChunk + 10 {
		files[fmt.Sprintf("data/%05d", i)] = fmt.Sprint("content ", i%50)
	}
	write(t, dir, files)
	for p := range files {
		list = append(list, p)
	}
	write(t, dir, map[string]string{"link": "-> large.bin"})
	list = append(list, "link", "link")
	files["link"] = files["large.bin"]
	opts := Options{CacheDir: t.TempDir(), Name: "p"}
	key, stats, err := PushFiles(t.Context(), store, dir, list, opts)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Files != len(files) || stats.SentObjects != 54 {
		t.Errorf("stats %+v", stats)
	}
	store.wrote = nil
	again, stats, err := PushFiles(t.Context(), store, dir, list, opts)
	if err != nil || again != key || !stats.Unchanged || len(store.wrote) > 0 {
		t.Errorf("again: %q %+v %v, wrote %d", again, stats, err, len(store.wrote))
	}
	write(t, dir, map[string]string{"one": "more"})
	store.reads = nil
	key, stats, err = PushFiles(t.Context(), store, dir, append(list, "one"), opts)
	if err != nil || stats.SentObjects != 1 {
		t.Errorf("one more: %+v %v", stats, err)
	}
	if len(store.reads) > 8 {
		t.Errorf("%d reads to send one file", len(store.reads))
	}
	files["one"] = "more"
	f, err := OpenFiles(t.Context(), store, key)
	if err != nil || f.Count() != len(files) || f.Bytes() == 0 {
		t.Fatalf("%v %v", f, err)
	}
	to := t.TempDir()
	var wg sync.WaitGroup
	want := map[string]string{}
	for i, p := range slices.Concat(list[:100], list[:100], []string{"odd/caf\xe9 $(x).csv", "large.bin", "link", "empty", "one"}) {
		want[p] = files[p]
		wg.Go(func() {
			if err := f.Place(t.Context(), to, p); err != nil {
				t.Errorf("place %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	same(t, "in place", want, tree(t, to))
	// What a task did to it is undone, and nothing is fetched for nothing.
	store.reads = nil
	for p := range want {
		if err := f.Place(t.Context(), to, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range store.reads {
		if !strings.HasPrefix(k, indexPrefix) {
			t.Errorf("%s was fetched again", k)
		}
	}
	write(t, to, map[string]string{"dup": "SAME", "one": "longer than before"})
	for _, p := range []string{"dup", "one"} {
		if err := f.Place(t.Context(), to, p); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(filepath.Join(to, p)); string(b) != files[p] {
			t.Errorf("%s is %q", p, b)
		}
	}
	if err := f.Place(t.Context(), to, "none"); cloud.KindOf(err) != cloud.KindNotFound {
		t.Errorf("an unknown item: %v", err)
	}
	if ok, err := f.Has(t.Context(), "dup"); !ok || err != nil {
		t.Errorf("has: %v %v", ok, err)
	}
	// A wrong content never lies at its path.
	key2, _, err := PushFiles(t.Context(), store, dir, []string{"large.bin"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := scan(t, dir, spec.Files{Include: []string{"large.bin"}}, Options{})
	if err := store.Store.Put(t.Context(), fileKey(m.Entries[0].Hash), []byte(noise(2, rangeSize+5))); err != nil {
		t.Fatal(err)
	}
	f2, err := OpenFiles(t.Context(), store, key2)
	if err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	if err := f2.Place(t.Context(), fresh, "large.bin"); cloud.KindOf(err) != cloud.KindCorrupt {
		t.Errorf("a wrong content: %v", err)
	}
	same(t, "in place", map[string]string{}, tree(t, fresh))
	for _, p := range []string{"../x", "/etc/passwd", "", "a/../../b"} {
		if _, _, err := PushFiles(t.Context(), store, dir, []string{p}, Options{}); err == nil {
			t.Errorf("%q was pushed", p)
		}
	}
	// A link that leads out of the folder does not lead Place out of it.
	outside, trap := t.TempDir(), t.TempDir()
	write(t, trap, map[string]string{"data": "-> " + outside})
	if err := f.Place(t.Context(), trap, "data/00000"); err == nil {
		t.Error("placed through a link out of the folder")
	}
	same(t, "outside", map[string]string{}, tree(t, outside))
}

// aged is a store whose objects look older than they are.
type aged struct {
	cloud.Store
	by map[string]time.Duration
}

func (a *aged) List(ctx context.Context, prefix string, fn func(cloud.ObjectInfo) bool) error {
	return a.Store.List(ctx, prefix, func(o cloud.ObjectInfo) bool {
		o.Modified = time.Now().Add(-a.by[o.Key])
		return fn(o)
	})
}

func TestCollect(t *testing.T) {
	t.Parallel()
	store := &aged{newStore(), map[string]time.Duration{}}
	version := func(n string) (code, files string) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"common": "c", "own": n, "large": noise(uint64(n[0]), 2*smallFile), "item": "item " + n})
		code, _ = push(t, store, scan(t, dir, spec.Files{Exclude: []string{"item"}}, Options{Name: n}))
		files, _, err := PushFiles(t.Context(), store, dir, []string{"item", "large"}, Options{Name: n})
		if err != nil {
			t.Fatal(err)
		}
		return code, files
	}
	c1, f1 := version("1")
	c2, f2 := version("2")
	c3, f3 := version("3")
	all := keys(t, store.Store, "")
	for _, k := range all {
		store.by[k] = 40 * 24 * time.Hour
	}
	store.by[c3], store.by[f3] = time.Hour, time.Hour // used lately; what they refer to is old
	inUse := func(k string) bool { return k == c2 || k == f2 }
	n, err := Collect(t.Context(), store, inUse, time.Now())
	if err != nil || n != 6 { // two roots, a pack, a large file, an item, a part of an index
		t.Errorf("removed %d, %v of %q", n, err, all)
	}
	for _, k := range []string{c2, c3} {
		pull(t, store, k, t.TempDir())
	}
	for _, k := range []string{f2, f3} {
		f, err := OpenFiles(t.Context(), store, k)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"item", "large"} {
			if err := f.Place(t.Context(), t.TempDir(), p); err != nil {
				t.Error(err)
			}
		}
	}
	if err := Pull(t.Context(), store, c1, t.TempDir()); cloud.KindOf(err) != cloud.KindNotFound {
		t.Errorf("an old version: %v", err)
	}
	if _, err := OpenFiles(t.Context(), store, f1); cloud.KindOf(err) != cloud.KindNotFound {
		t.Errorf("an old index: %v", err)
	}
	if n, err := Collect(t.Context(), store, inUse, time.Now()); n != 0 || err != nil {
		t.Errorf("the second time: %d, %v", n, err)
	}
}

// What is old may be on its way out: it is not built upon, but sent again.
func TestPushDoesNotBuildOnOldObjects(t *testing.T) {
	t.Parallel()
	dir, store := t.TempDir(), &aged{newStore(), map[string]time.Duration{}}
	write(t, dir, map[string]string{"a": "a", "large": noise(1, 2*smallFile)})
	m := scan(t, dir, spec.Files{}, Options{})
	key, _ := push(t, store, m)
	old := func(d time.Duration) {
		s, err := fetchStored(t.Context(), store, key)
		if err != nil {
			t.Fatal(err)
		}
		s.Pushed = time.Now().Add(-d)
		b, _ := json.Marshal(s)
		if err := store.Put(t.Context(), key, b); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys(t, store.Store, "") {
			store.by[k] = d
		}
	}
	old(2 * 24 * time.Hour)
	if _, stats := push(t, store, m); !stats.Unchanged {
		t.Errorf("two days old: %+v", stats)
	}
	s, err := fetchStored(t.Context(), store, key)
	if err != nil || time.Since(s.Pushed) > time.Minute {
		t.Errorf("it was not made young again: %v %v", s.Pushed, err)
	}
	old(10 * 24 * time.Hour)
	if _, stats := push(t, store, m); stats.Unchanged || stats.SentObjects != 2 {
		t.Errorf("ten days old: %+v", stats)
	}
}
