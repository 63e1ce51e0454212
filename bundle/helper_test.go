package bundle

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// write makes files: content by path. A content "-> x" is a link to x.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for p, content := range files {
		name := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			_ = os.Remove(name)
			err = os.Symlink(target, name)
		} else {
			err = os.WriteFile(name, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tree is what is in a folder: content by path, "-> x" for links.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(name)
			out[rel] = "-> " + target
			return err
		}
		b, err := os.ReadFile(name)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t testing.TB, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func git(t testing.TB, dir string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func scan(t testing.TB, dir string, files spec.Files, opts Options, extra ...string) *Manifest {
	t.Helper()
	m, err := Scan(t.Context(), dir, files, extra, opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func paths(m *Manifest) []string {
	out := []string{}
	for _, e := range m.Entries {
		out = append(out, e.Path)
	}
	return out
}

func leftPaths(m *Manifest) []string {
	out := []string{}
	for _, l := range m.Left {
		out = append(out, l.Path)
	}
	return out
}

func push(t testing.TB, store cloud.Store, m *Manifest) (string, *PushStats) {
	t.Helper()
	key, stats, err := Push(t.Context(), store, m)
	if err != nil {
		t.Fatal(err)
	}
	return key, stats
}

func pull(t testing.TB, store cloud.Store, key, dir string) {
	t.Helper()
	if err := Pull(t.Context(), store, key, dir); err != nil {
		t.Fatal(err)
	}
}

// watched is a store that notes what is read and written.
type watched struct {
	cloud.Store
	mu           sync.Mutex
	reads, wrote []string
	readBytes    int64
}

func watch(s cloud.Store) *watched { return &watched{Store: s} }

func (w *watched) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	n, err := w.Store.ReadAt(ctx, key, p, off)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads = append(w.reads, key)
	w.readBytes += int64(n)
	return n, err
}

func (w *watched) Get(ctx context.Context, key string) ([]byte, error) {
	b, err := w.Store.Get(ctx, key)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads = append(w.reads, key)
	w.readBytes += int64(len(b))
	return b, err
}

func (w *watched) Put(ctx context.Context, key string, data []byte) error {
	w.mu.Lock()
	w.wrote = append(w.wrote, key)
	w.mu.Unlock()
	return w.Store.Put(ctx, key, data)
}

func keys(t testing.TB, s cloud.Store, prefix string) []string {
	t.Helper()
	var out []string
	if err := s.List(t.Context(), prefix, func(o cloud.ObjectInfo) bool {
		out = append(out, o.Key)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func newStore() *cloudtest.Store { return cloudtest.NewStore() }
