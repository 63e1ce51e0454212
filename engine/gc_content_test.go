package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// What a run needs stays, whatever its age; what no run needs goes when it is
// old.
func TestGCContent(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := engineIn(t)
	store, err := local.OpenStore(filepath.Join(t.TempDir(), "store")) // whose objects can be made older
	if err != nil {
		t.Fatal(err)
	}
	e.Store = store
	dir := t.TempDir()
	push := func(text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "a.py"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := bundle.Scan(ctx, dir, spec.Files{}, nil, bundle.Options{})
		if err != nil {
			t.Fatal(err)
		}
		key, _, err := bundle.Push(ctx, e.Store, m)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	needed, unneeded := push("needed"), push("unneeded")
	put := func(key, text string) {
		t.Helper()
		if err := e.Store.Put(ctx, key, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	put(wire.SetupKey("r", "k"), `{"code":"`+needed+`"}`)
	if did, err := e.gcContent(ctx, []string{"r"}); err != nil || len(did) != 0 {
		t.Fatalf("young things went: %v, %v", did, err)
	}
	age(t, e.Store, 20*24*time.Hour)
	did, err := e.gcContent(ctx, []string{"r"})
	if err != nil || !strings.Contains(strings.Join(did, "\n"), "code and files") {
		t.Fatalf("%v, %v", did, err)
	}
	to := filepath.Join(t.TempDir(), "work")
	if err := bundle.Pull(ctx, e.Store, needed, to); err != nil {
		t.Errorf("the code of a run that is kept: %v", err)
	}
	if _, err := e.Store.Get(ctx, unneeded); cloud.KindOf(err) != cloud.KindNotFound {
		t.Errorf("the code that nobody needs is still there: %v", err)
	}
	put(wire.SetupKey("r", "k"), "{")
	if _, err := e.gcContent(ctx, []string{"r"}); err == nil {
		t.Error("a run whose needs cannot be read kept nothing from being removed")
	}
}

// age makes every object of a store in a folder older.
func age(t *testing.T, store cloud.Store, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	err := filepath.Walk(store.URL(), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}
