package software

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// machines share one folder on this disk, as environments need the same path:
// move makes it that of another machine.
func move(t testing.TB, root string) {
	t.Helper()
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
}

func reqs(t testing.TB) (dir string, sw spec.Software) {
	t.Helper()
	dir = t.TempDir()
	write(t, dir, map[string]string{"requirements.txt": "some==1\n"})
	return dir, spec.Software{}
}

func TestBuildOnceThenUnpack(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	store, root := cloudtest.NewStore(), filepath.Join(t.TempDir(), "root")
	a, b := newMachine(t, "i-a"), newMachine(t, "i-b")
	a.program("uv", fakeUV)
	b.program("uv", "echo must not be called >>\"$LOG\"; exit 1")
	first, err := Ensure(t.Context(), a.config(store, sw, dir, root))
	if err != nil || !first.Built || first.Unpacked {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := Ensure(t.Context(), a.config(store, sw, dir, root))
	if err != nil || again.Built || again.Unpacked || again.Python != first.Python {
		t.Errorf("again: %+v, %v", again, err)
	}
	info := func() string {
		out := ""
		err := filepath.Walk(filepath.Join(root, first.ID), func(p string, i os.FileInfo, err error) error {
			if err == nil && i.Name() != readyFile && p != filepath.Join(root, first.ID) {
				out += fmt.Sprintln(p, i.Mode())
				if i.Mode()&os.ModeSymlink == 0 {
					out += fmt.Sprintln(i.ModTime().UnixNano())
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := info()
	move(t, root)
	second, err := Ensure(t.Context(), b.config(store.Process(), sw, dir, root))
	if err != nil || second.Built || !second.Unpacked {
		t.Fatalf("%+v, %v", second, err)
	}
	same(t, "the environment", before, info())
	same(t, "calls", []string{}, b.calls())
	out, err := exec.Command(second.Python).Output()
	if err != nil || string(out) != "python of "+root+"/"+second.ID+"/env\n" {
		t.Errorf("%q, %v", out, err)
	}
	if want := "PATH=" + root + "/" + second.ID + "/env/bin:"; !strings.HasPrefix(second.Env[0], want) || second.Env[1] != "VIRTUAL_ENV="+root+"/"+second.ID+"/env" {
		t.Errorf("env %q", second.Env)
	}
	// Elsewhere it would not work: it is built.
	c := newMachine(t, "i-c")
	c.program("uv", fakeUV)
	third, err := Ensure(t.Context(), c.config(store, sw, dir, filepath.Join(t.TempDir(), "other")))
	if err != nil || !third.Built {
		t.Errorf("at another path: %+v, %v", third, err)
	}
}

// Twenty machines that need the same at once: one builds, the others unpack.
func TestOneBuilder(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	store := cloudtest.NewStore()
	var built, unpacked atomic.Int32
	var wg sync.WaitGroup
	m := newMachine(t, "i-any")
	m.program("uv", fakeUV)
	for i := range 20 {
		root := filepath.Join(t.TempDir(), "root")
		wg.Go(func() {
			c := m.config(store.Process(), sw, dir, root)
			c.Machine, c.at = fmt.Sprintf("i-%d", i), "here"
			c.pace.dead = time.Minute // nobody dies, however slow the disk is
			env, err := Ensure(t.Context(), c)
			switch {
			case err != nil:
				t.Errorf("machine %d: %v", i, err)
			case env.Built:
				built.Add(1)
			case env.Unpacked:
				unpacked.Add(1)
			}
		})
	}
	wg.Wait()
	if built.Load() != 1 || unpacked.Load() != 19 {
		t.Errorf("%d machines built it, %d unpacked it", built.Load(), unpacked.Load())
	}
	packs := 0
	if err := store.List(t.Context(), "software/", func(o cloud.ObjectInfo) bool {
		if strings.Contains(o.Key, "/pack-") {
			packs++
		}
		return true
	}); err != nil || packs != 1 {
		t.Errorf("%d packs, %v", packs, err)
	}
}

func (e *ensurer) forTest(t testing.TB, id string) *ensurer {
	t.Helper()
	e.c.ID, e.home = id, filepath.Join(e.c.Root, id)
	n, err := resolve(e.c.Software, e.c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	e.n, e.out = n, &Environment{ID: id}
	return e
}

// A machine that comes while another builds waits for it, however long it
// takes, and unpacks.
func TestWaitForBuilder(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	store, root := cloudtest.NewStore(), filepath.Join(t.TempDir(), "root")
	m := newMachine(t, "i-waits")
	m.program("uv", "echo built >>\"$LOG\"; exit 1")
	id, err := ID(&sw, dir, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	c := m.config(store, sw, dir, root)
	c.ID = id
	// The other machine has the claim, refreshes it, and takes longer than the
	// dead may be silent.
	b := newMachine(t, "i-builds")
	b.program("uv", fakeUV)
	other := (&ensurer{c: b.config(store, sw, dir, filepath.Join(t.TempDir(), "x"))}).forTest(t, id)
	waiter := (&ensurer{c: c}).forTest(t, id)
	claim := builder{Machine: "i-builds", Nonce: "n"}
	if err := store.Create(t.Context(), builderKey(waiter.prefix(), 1), mustJSON(claim)); err != nil {
		t.Fatal(err)
	}
	stop := other.refresh(t.Context(), builderKey(waiter.prefix(), 1), claim)
	done := make(chan error, 1)
	var env *Environment
	go func() {
		var err error
		env, err = Ensure(t.Context(), c)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(c.pace.dead + time.Second):
	}
	if err := other.install(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Its pack, as for the waiter's path.
	var buf bytes.Buffer
	if err := writeArchive(t.Context(), &buf, other.home); err != nil {
		t.Fatal(err)
	}
	putPack(t, store, waiter.prefix(), buf.Bytes())
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	stop()
	if !env.Unpacked {
		t.Errorf("%+v", env)
	}
	same(t, "calls", []string{}, m.calls())
	if !m.logged("waiting for i-builds") {
		t.Error("nobody was told of the wait")
	}
}

func putPack(t testing.TB, store cloud.Store, prefix string, data []byte) {
	t.Helper()
	rec := packRecord{Key: prefix + "pack-test", Size: int64(len(data)), SHA256: sum(data), By: "i-builds"}
	if err := store.Put(t.Context(), rec.Key, data); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), prefix+"pack.json", mustJSON(rec)); err != nil {
		t.Fatal(err)
	}
}

// A builder that died is replaced, by one of those who wait.
func TestDeadBuilderIsReplaced(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	store, root := cloudtest.NewStore(), filepath.Join(t.TempDir(), "root")
	// It is killed while it installs: its context ends, its store is dead.
	a := newMachine(t, "i-dies")
	process := store.Process()
	ctx, cancel := context.WithCancelCause(t.Context())
	a.env = append(a.env, "SLOW=100")
	a.program("uv", fakeUV)
	c := a.config(process, sw, dir, root)
	c.Log = func(line string) {
		if strings.Contains(line, "install the packages") {
			process.Kill()
			cancel(errors.New("killed"))
		}
	}
	if _, err := Ensure(ctx, c); err == nil || IsInstall(err) {
		t.Fatalf("killed: %v", err)
	}
	if _, err := os.Stat(root); err != nil {
		t.Fatal("nothing was begun: the test proves nothing")
	}
	// Another machine on what is left of the folder.
	b := newMachine(t, "i-b")
	b.program("uv", fakeUV)
	c = b.config(store, sw, dir, root)
	c.pace.dead = 200 * time.Millisecond
	start := time.Now()
	env, err := Ensure(t.Context(), c)
	if err != nil || !env.Built {
		t.Fatalf("%+v, %v", env, err)
	}
	if d := time.Since(start); d < 200*time.Millisecond {
		t.Errorf("it was taken for dead after %v", d)
	}
}

func TestFailingInstall(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	store, root := cloudtest.NewStore(), filepath.Join(t.TempDir(), "root")
	a := newMachine(t, "i-a")
	a.program("uv", fakeUV)
	bad := a.config(store, sw, dir, root)
	bad.Env = append(bad.Env, "FAIL=1")
	_, err := Ensure(t.Context(), bad)
	if !IsInstall(err) || !strings.Contains(err.Error(), "install the packages of requirements.txt") ||
		!strings.HasSuffix(err.Error(), "line 1\nline 2\nline 3\nno such package: nonsense") {
		t.Errorf("error %v", err)
	}
	// Who comes later tries again: it may work by now.
	env, err := Ensure(t.Context(), a.config(store, sw, dir, root))
	if err != nil || !env.Built {
		t.Errorf("later: %+v, %v", env, err)
	}
}

// Who waits for a builder that fails fails with its reason, instead of trying
// the same thirty times.
func TestWaiterSharesFailure(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	store, root := cloudtest.NewStore(), filepath.Join(t.TempDir(), "root")
	m := newMachine(t, "i-w")
	m.program("uv", fakeUV)
	c := m.config(store, sw, dir, root)
	id, _ := ID(&sw, dir, "linux/amd64")
	c.ID = id
	prefix := (&ensurer{c: c}).forTest(t, id).prefix()
	if err := store.Create(t.Context(), builderKey(prefix, 1), mustJSON(builder{Machine: "i-b", Nonce: "n"})); err != nil {
		t.Fatal(err)
	}
	watcher := cloudtest.Faulty(store, cloudtest.Fault{Op: cloudtest.OpGet, Key: "failed-", Nth: 2, Kind: cloud.KindNotFound, Do: func() {
		_ = store.Put(context.Background(), failedKey(prefix, 1), mustJSON(failure{What: "install x", Error: "exit status 1", Output: "no wheel"}))
	}})
	c.Store = watcher
	_, err := Ensure(t.Context(), c)
	if !IsInstall(err) || !strings.Contains(err.Error(), "install x (on i-b): exit status 1:\nno wheel") {
		t.Errorf("error %v", err)
	}
	same(t, "calls", []string{}, m.calls())
}

// A pack that is damaged, cut or gone is built again.
func TestDamagedPack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(b []byte) []byte
	}{
		{"a bit", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"cut", func(b []byte) []byte { return b[:len(b)/2] }},
		{"empty", func([]byte) []byte { return []byte{} }},
		{"gone", func([]byte) []byte { return nil }},
		{"another archive", func([]byte) []byte {
			return archive(t, tar.Header{Name: "env/bin/python", Typeflag: tar.TypeReg, Mode: 0o755})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, sw := reqs(t)
			store, root := cloudtest.NewStore(), filepath.Join(t.TempDir(), "root")
			m := newMachine(t, "i-a")
			m.program("uv", fakeUV)
			if _, err := Ensure(t.Context(), m.config(store, sw, dir, root)); err != nil {
				t.Fatal(err)
			}
			var key string
			_ = store.List(t.Context(), "software/", func(o cloud.ObjectInfo) bool {
				if strings.Contains(o.Key, "/pack-") {
					key = o.Key
				}
				return true
			})
			b, err := store.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if b = c.spoil(bytes.Clone(b)); b == nil {
				err = store.Delete(t.Context(), key)
			} else {
				err = store.Put(t.Context(), key, b)
			}
			if err != nil {
				t.Fatal(err)
			}
			move(t, root)
			// At once: nobody is waited for. And without deleting, which machines
			// may not.
			cfg := m.config(cloudtest.Faulty(store, cloudtest.Fault{Op: cloudtest.OpDelete, Times: -1, Kind: cloud.KindDenied}), sw, dir, root)
			cfg.pace.dead = time.Hour
			env, err := Ensure(t.Context(), cfg)
			if err != nil || !env.Built {
				t.Fatalf("%+v, %v", env, err)
			}
			move(t, root)
			if env, err = Ensure(t.Context(), m.config(store, sw, dir, root)); err != nil || !env.Unpacked {
				t.Errorf("after it was mended: %+v, %v", env, err)
			}
		})
	}
}

// The store failing while a pack is stored does not spoil the run here.
func TestPackNotStored(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	m := newMachine(t, "i-a")
	m.program("uv", fakeUV)
	store := cloudtest.Faulty(cloudtest.NewStore(), cloudtest.Fault{Op: cloudtest.OpPut, Key: "/pack-", Times: -1, Kind: cloud.KindFull})
	env, err := Ensure(t.Context(), m.config(store, sw, dir, filepath.Join(t.TempDir(), "root")))
	if err != nil || !env.Built || !m.logged("pack the environment for other machines") {
		t.Errorf("%+v, %v", env, err)
	}
}

func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	z, _ := zstd.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, h := range headers {
		h.ModTime = time.Unix(1, 0)
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestHostileArchive(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	for _, c := range []struct {
		name string
		list []tar.Header
	}{
		{"parent", []tar.Header{{Name: "../x", Typeflag: tar.TypeReg}}},
		{"absolute", []tar.Header{{Name: outside + "/x", Typeflag: tar.TypeReg}}},
		{"hidden parent", []tar.Header{{Name: "a/../../x", Typeflag: tar.TypeReg}}},
		{"through a link", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "l/x", Typeflag: tar.TypeReg}}},
		{"folder through a link", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "l/x", Typeflag: tar.TypeDir, Mode: 0o755}}},
		{"over a link", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside + "/x"}, {Name: "l", Typeflag: tar.TypeReg}}},
		{"hard link out", []tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}}},
		{"hard link through a link", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "l/passwd"}}},
		{"device", []tar.Header{{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}},
		{"pipe", []tar.Header{{Name: "p", Typeflag: tar.TypeFifo}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := readArchive(t.Context(), bytes.NewReader(archive(t, c.list...)), t.TempDir())
			if cloud.KindOf(err) != cloud.KindCorrupt {
				t.Errorf("%v; want it refused", err)
			}
		})
	}
	t.Cleanup(func() {
		if list, _ := os.ReadDir(outside); len(list) > 0 {
			t.Errorf("outside there is %v", list)
		}
	})
	dir := t.TempDir()
	good := archive(t, tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "bin/x", Typeflag: tar.TypeReg, Mode: 0o4755}, tar.Header{Name: "bin/py", Typeflag: tar.TypeSymlink, Linkname: "/usr/bin/python3"})
	if err := readArchive(t.Context(), bytes.NewReader(good), dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/bin/x"); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v %v: setuid must not survive", info.Mode(), err)
	}
	if to, _ := os.Readlink(dir + "/bin/py"); to != "/usr/bin/python3" {
		t.Errorf("link to %q", to)
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	dir, sw := reqs(t)
	store, root := cloudtest.NewStore(), filepath.Join(t.TempDir(), "root")
	m := newMachine(t, "i-a")
	m.program("uv", fakeUV)
	if _, err := Ensure(t.Context(), m.config(store, sw, dir, root)); err != nil {
		t.Fatal(err)
	}
	if n, err := Collect(t.Context(), store, time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("a young one: %d, %v", n, err)
	}
	// A use is noted when the last one was long ago.
	e := (&ensurer{c: m.config(store, sw, dir, root)}).forTest(t, firstID(t, store))
	rec, err := readPack(t.Context(), store, e.prefix())
	if err != nil {
		t.Fatal(err)
	}
	rec.At = time.Now().Add(-48 * time.Hour)
	if err := store.Put(t.Context(), e.prefix()+"pack.json", mustJSON(rec)); err != nil {
		t.Fatal(err)
	}
	move(t, root)
	if env, err := Ensure(t.Context(), m.config(store, sw, dir, root)); err != nil || !env.Unpacked {
		t.Fatalf("%+v %v", env, err)
	}
	if rec, err = readPack(t.Context(), store, e.prefix()); err != nil || time.Since(rec.At) > time.Minute {
		t.Errorf("the use was not noted: %v %v", rec.At, err)
	}
	if n, err := Collect(t.Context(), store, time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("an old one: %d, %v", n, err)
	}
	_ = store.List(t.Context(), "software/", func(o cloud.ObjectInfo) bool {
		t.Errorf("%s was left", o.Key)
		return true
	})
}

func firstID(t testing.TB, store cloud.Store) (id string) {
	t.Helper()
	_ = store.List(t.Context(), "software/", func(o cloud.ObjectInfo) bool {
		id = strings.Split(o.Key, "/")[1]
		return false
	})
	return id
}
