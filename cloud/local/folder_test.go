package local_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
)

func wantError(t *testing.T, what string, err error, kind cloud.Kind, parts ...string) {
	t.Helper()
	if err == nil || cloud.KindOf(err) != kind {
		t.Errorf("%s: %v; want kind %q", what, err, kind)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %q does not say %q", what, err, p)
		}
	}
}

func TestOpenStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b c")
	s := open(t, deep)
	if s.URL() != deep {
		t.Errorf("URL %q; want %q", s.URL(), deep)
	}
	fi, err := os.Stat(deep)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the new folder has mode %v, %v", fi.Mode(), err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = local.OpenStore(file)
	wantError(t, "open a file", err, cloud.KindInvalid, file, "not a folder")
	_, err = local.OpenStore(filepath.Join(file, "below"))
	wantError(t, "open below a file", err, cloud.KindInvalid, file+" is a file, not a folder")
}

// Results may be private: nobody else can read them.
func TestPermissions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	ctx := t.Context()
	if err := s.Put(ctx, "a/put", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(ctx, "a/b/created", nil); err != nil {
		t.Fatal(err)
	}
	f, err := s.OpenAppend("c/log")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	j, err := s.OpenJournal(ctx, "d/journal")
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o700)
		if !d.IsDir() {
			want = 0o600
			files++
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		return nil
	})
	if err != nil || files != 4 {
		t.Errorf("%d files (a temporary one left?), %v", files, err)
	}
}

// A link in the store must not lead a key out of it.
func TestLinksLeadNowhere(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"dir": outside, "file": secret, "up": ".."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir)
	ctx := t.Context()
	for _, key := range []string{"dir/secret", "file", "dir/new/deep", "up/x"} {
		_, err := s.Get(ctx, key)
		wantError(t, "get "+key, err, cloud.KindInvalid, "link")
		if key != "file" { // which Put would replace
			wantError(t, "put "+key, s.Put(ctx, key, nil), cloud.KindInvalid, "link")
			wantError(t, "create "+key, s.Create(ctx, key, nil), cloud.KindInvalid, "link")
			wantError(t, "delete "+key, s.Delete(ctx, key), cloud.KindInvalid, "link")
		}
		_, err = s.OpenAppend(key)
		wantError(t, "append "+key, err, cloud.KindInvalid, "link")
		_, err = s.OpenJournal(ctx, key)
		wantError(t, "journal "+key, err, cloud.KindInvalid, "link")
	}
	if err := s.DeletePrefix(ctx, "dir"); err != nil {
		t.Errorf("delete prefix: %v", err)
	}
	if err := s.Put(ctx, "file", []byte("new")); err != nil {
		t.Errorf("put over a link: %v", err)
	}
	if b, err := os.ReadFile(secret); string(b) != "s" {
		t.Errorf("the file outside: %q, %v", b, err)
	}
	var keys []string
	if err := s.List(ctx, "", func(o cloud.ObjectInfo) bool { keys = append(keys, o.Key); return true }); err != nil || len(keys) != 1 {
		t.Errorf("list: %q, %v", keys, err)
	}
}

func TestReservedAndImpossibleKeys(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	ctx := t.Context()
	wantError(t, "put .tmp/x", s.Put(ctx, ".tmp/x", nil), cloud.KindInvalid, "reserved")
	wantError(t, "put .tmp", s.Put(ctx, ".tmp", nil), cloud.KindInvalid, "reserved")
	wantError(t, "delete .tmp", s.DeletePrefix(ctx, ".tmp"), cloud.KindInvalid, "reserved")
	wantError(t, "long name", s.Put(ctx, strings.Repeat("x", 300), nil), cloud.KindInvalid, "too long")
	if err := s.Put(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	wantError(t, "put under an object", s.Put(ctx, "a/b", nil), cloud.KindInvalid, "not a directory")
	if err := s.Put(ctx, ".tmpx/.hidden", []byte("x")); err != nil {
		t.Errorf("put: %v", err)
	}
}

func TestOpenAppend(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	ctx := t.Context()
	var got []byte
	p := make([]byte, 100)
	for _, part := range []string{"one ", "two ", "three"} {
		f, err := s.OpenAppend("runs/1/logs/f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
		// A reader that was there before sees the object grow.
		n, err := s.ReadAt(ctx, "runs/1/logs/f", p, int64(len(got)))
		if err != io.EOF {
			t.Errorf("read: %v", err)
		}
		got = append(got, p[:n]...)
		f.Close()
	}
	if string(got) != "one two three" {
		t.Errorf("read %q", got)
	}
}

// From a file the kernel copies; what arrives is what was there.
func TestPutFromFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store"))
	data := bytes.Repeat([]byte("0123456789abcdef"), 70000)
	if err := os.WriteFile(filepath.Join(dir, "src"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := s.PutFrom(t.Context(), "copy", f); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "copy"); err != nil || !bytes.Equal(got, data[5:]) {
		t.Errorf("copied %d bytes of %d, %v", len(got), len(data)-5, err)
	}
}

// What a killed process left behind is removed, what a living one is writing is not.
func TestStaleTemporaryFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tmp := filepath.Join(dir, ".tmp")
	if err := os.MkdirAll(filepath.Join(tmp, "trash", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old", "new"} {
		if err := os.WriteFile(filepath.Join(tmp, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{"old", "trash"} {
		if err := os.Chtimes(filepath.Join(tmp, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, dir).Put(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 1 || left[0].Name() != "new" {
		t.Errorf("left %v, %v", left, err)
	}
}

// Reading a store takes no write permission and leaves no trace.
func TestReadingWritesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	ctx := t.Context()
	j, err := s.OpenJournal(ctx, "j")
	if err != nil {
		t.Fatal(err)
	}
	pos, err := j.Append([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	_, _ = r.Get(ctx, "none/at/all")
	_, _ = r.ReadRecord(ctx, "j", pos[0])
	_, _ = r.ReadJournal(ctx, "k", 0, func(int64, []byte) error { return nil })
	_, _ = r.JournalAlive(ctx, "l")
	_ = r.List(ctx, "", func(cloud.ObjectInfo) bool { return true })
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "j" {
		t.Errorf("the store has %v, %v", left, err)
	}
}

func TestQueueOrderAndDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := local.NewQueue()
		ctx := t.Context()
		for i := range 200 {
			if err := q.Send(ctx, cloud.Range{From: i}); err != nil {
				t.Fatal(err)
			}
		}
		first, err := q.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := q.Return(ctx, first, time.Hour); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 200; i++ {
			if d, err := q.Receive(ctx); err != nil || d.From != i {
				t.Fatalf("received %d, %v; want %d", d.From, err, i)
			}
		}
		if d, err := q.Receive(ctx); err != nil || d.From != 0 || time.Since(start) != time.Hour {
			t.Errorf("received %d after %v, %v", d.From, time.Since(start), err)
		}
	})
}

// A machine whose work is over has ended; its token launches no other.
func TestMachineEndsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ran := 0
		m := local.NewMachines(func(context.Context, cloud.Machine) { ran++ })
		spec := cloud.MachineSpec{Run: "r", Token: "t", Count: 1}
		if _, err := m.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if list, err := m.List(t.Context(), ""); len(list) > 0 || err != nil {
			t.Errorf("list: %v, %v", list, err)
		}
		again, err := m.Launch(t.Context(), spec)
		if err != nil || len(again) != 1 || again[0].State != "ended" {
			t.Errorf("the same token: %+v, %v", again, err)
		}
		spec.Token = "t2"
		if _, err := m.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if ran != 2 {
			t.Errorf("ran %d times", ran)
		}
	})
}
