package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

var epoch = time.Unix(1_000_000_000, 0)

// noise is content that does not compress.
func noise(seed uint64, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b) // cannot fail
	return string(b)
}

func TestPushPull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{"empty": "", "deep/er/x.py": "print(1)", "same1": "same", "same2": "same", "link": "-> deep/er/x.py"}
	for i := range 300 {
		files[fmt.Sprintf("many/%03d", i)] = noise(uint64(i), 100*i)
	}
	files["exactly"] = noise(1, smallFile)
	files["large1"] = noise(2, smallFile+1)
	files["large2"] = files["large1"]
	files["huge"] = noise(3, rangeSize+rangeSize/2)
	write(t, dir, files)
	if err := os.Chmod(filepath.Join(dir, "deep/er/x.py"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "same1"), 0o400); err != nil {
		t.Fatal(err)
	}
	store, err := local.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, stats := push(t, store, scan(t, dir, spec.Files{}, Options{}))
	if hash, ok := HashOfKey(key); !ok || key != "code/"+hash+".json" {
		t.Errorf("key %q", key)
	}
	// One pack and two large contents for more than 300 files.
	if stats.SentObjects != 3 || stats.Files != len(files) || stats.Unchanged {
		t.Errorf("stats %+v", stats)
	}
	to := t.TempDir()
	pull(t, store, key, to)
	same(t, "on the machine", files, tree(t, to))
	for name, mode := range map[string]os.FileMode{"deep/er/x.py": 0o755, "same1": 0o400, "same2": 0o644} {
		if info, err := os.Stat(filepath.Join(to, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
}

func TestPushSendsOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	for _, cached := range []bool{true, false} {
		t.Run(fmt.Sprint("cache ", cached), func(t *testing.T) {
			t.Parallel()
			dir, store := t.TempDir(), watch(newStore())
			files := map[string]string{"large": noise(9, 2*smallFile)}
			for i := range 200 {
				files[fmt.Sprintf("f%d", i)] = noise(uint64(i), 2000)
			}
			write(t, dir, files)
			opts := Options{Name: "p"}
			if cached {
				opts.CacheDir = t.TempDir()
			}
			_, first := push(t, store, scan(t, dir, spec.Files{}, opts))
			if first.SentFiles != 201 {
				t.Errorf("first push: %+v", first)
			}
			store.wrote = nil
			_, again := push(t, store, scan(t, dir, spec.Files{}, opts))
			if !again.Unchanged || again.SentBytes != 0 || len(store.wrote) != 0 {
				t.Errorf("unchanged push: %+v, wrote %q", again, store.wrote)
			}
			write(t, dir, map[string]string{"f7": "changed", "new": "new", "f8copy": files["f8"]})
			_, third := push(t, store, scan(t, dir, spec.Files{}, opts))
			if third.SentFiles != 2 || third.SentBytes != 10 || third.SentObjects != 1 {
				t.Errorf("push of two changes: %+v", third)
			}
			// A name that nobody knows shares nothing but what is found by its hash.
			other := scan(t, dir, spec.Files{}, Options{Name: "other"})
			if err := store.Delete(t.Context(), other.Key()); err != nil {
				t.Fatal(err)
			}
			_, fourth := push(t, store, other)
			if fourth.SentFiles != 201 { // 203 files, one of them twice, the large one is there
				t.Errorf("push under another name: %+v", fourth)
			}
		})
	}
}

// Many small changes do not scatter a version over ever more packs.
func TestPacksStayFew(t *testing.T) {
	t.Parallel()
	dir, store := t.TempDir(), newStore()
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("f%d", i)] = noise(uint64(i), 500)
	}
	write(t, dir, files)
	key := ""
	for i := range 30 {
		name := fmt.Sprintf("f%d", i)
		files[name] = noise(uint64(1000+i), 500)
		write(t, dir, map[string]string{name: files[name]})
		key, _ = push(t, store, scan(t, dir, spec.Files{}, Options{}))
		s, err := fetchStored(t.Context(), store, key)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Packs) > maxPacks {
			t.Fatalf("version %d lies in %d packs", i, len(s.Packs))
		}
	}
	to := t.TempDir()
	pull(t, store, key, to)
	same(t, "on the machine", files, tree(t, to))
}

func TestPullIsIncremental(t *testing.T) {
	t.Parallel()
	dir, to, store := t.TempDir(), filepath.Join(t.TempDir(), "work"), watch(newStore())
	files := map[string]string{"gone": "x", "dir/gone": "x", "was file": "x", "was dir/x": "x", "was link": "-> gone", "tolink": "x", "large": noise(1, 3*smallFile)}
	for i := range 50 {
		files[fmt.Sprintf("f%d", i)] = noise(uint64(i), 20000)
	}
	write(t, dir, files)
	key, _ := push(t, store, scan(t, dir, spec.Files{}, Options{}))
	pull(t, store, key, to)
	// A task leaves things behind, and spoils others.
	outside := t.TempDir()
	write(t, outside, map[string]string{"precious": "keep me"})
	write(t, to, map[string]string{"made/by/task": "x", "f3": "spoilt", "evil": "-> " + outside})
	for _, f := range []string{"f4", "f5"} {
		if err := os.Remove(filepath.Join(to, f)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, to, map[string]string{"f5": "-> " + filepath.Join(outside, "precious")})
	if err := os.Chmod(filepath.Join(to, "f6"), 0o777); err != nil {
		t.Fatal(err)
	}
	// The next version.
	for _, f := range []string{"gone", "dir", "was file", "was dir", "was link", "tolink"} {
		if err := os.RemoveAll(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
		for p := range files {
			if p == f || strings.HasPrefix(p, f+"/") {
				delete(files, p)
			}
		}
	}
	next := map[string]string{"was file/now/dir": "x", "was dir": "now file", "was link": "now file", "tolink": "-> f1", "f9": "changed"}
	write(t, dir, next)
	for p, c := range next {
		files[p] = c
	}
	key, _ = push(t, store, scan(t, dir, spec.Files{}, Options{}))
	store.readBytes = 0
	pull(t, store, key, to)
	same(t, "on the machine", files, tree(t, to))
	same(t, "outside", map[string]string{"precious": "keep me"}, tree(t, outside))
	if info, err := os.Stat(filepath.Join(to, "f6")); err != nil || info.Mode() != 0o644 {
		t.Errorf("f6: %v, %v", info.Mode(), err)
	}
	if store.readBytes > 1<<20 { // of 2.5 MB; the frames of f3 to f5 among them
		t.Errorf("%d bytes were read for a few small changes", store.readBytes)
	}
	store.reads = nil
	pull(t, store, key, to)
	same(t, "reads for nothing new", []string{key}, store.reads)
}

func TestPullChecks(t *testing.T) {
	t.Parallel()
	dir, good := t.TempDir(), newStore()
	write(t, dir, map[string]string{"a": noise(1, 3000), "large": noise(2, 2*smallFile)})
	m := scan(t, dir, spec.Files{}, Options{})
	key, _ := push(t, good, m)
	s, err := fetchStored(t.Context(), good, key)
	if err != nil {
		t.Fatal(err)
	}
	pack, large := s.Packs[0].Key, fileKey(m.Find("large").Hash)
	spoil := func(key string, change func(b []byte) []byte) func(cloud.Store) {
		return func(st cloud.Store) {
			b, err := st.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Put(t.Context(), key, change(bytes.Clone(b))); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	for _, c := range []struct {
		name string
		do   func(cloud.Store)
		kind cloud.Kind
	}{
		{"a bit in the pack", spoil(pack, flip), cloud.KindCorrupt},
		{"half a pack", spoil(pack, cut), cloud.KindCorrupt},
		{"a bit in a large file", spoil(large, flip), cloud.KindCorrupt},
		{"half a large file", spoil(large, cut), cloud.KindCorrupt},
		{"a longer large file is read to its size", spoil(large, func(b []byte) []byte { return append(b, 'x') }), -1},
		{"half a manifest", spoil(key, cut), cloud.KindCorrupt},
		{"another manifest", spoil(key, func(b []byte) []byte { return bytes.Replace(b, []byte(`"p":"a"`), []byte(`"p":"b"`), 1) }), cloud.KindCorrupt},
		{"no pack", func(st cloud.Store) { _ = st.Delete(t.Context(), pack) }, cloud.KindNotFound},
		{"no manifest", func(st cloud.Store) { _ = st.Delete(t.Context(), key) }, cloud.KindNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := newStore()
			for _, k := range keys(t, good, "") {
				b, err := good.Get(t.Context(), k)
				if err != nil {
					t.Fatal(err)
				}
				_ = store.Put(t.Context(), k, b)
			}
			c.do(store)
			to := t.TempDir()
			err := Pull(t.Context(), store, key, to)
			if c.kind < 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if cloud.KindOf(err) != c.kind {
				t.Fatalf("%v; want kind %v", err, c.kind)
			}
			// Nothing wrong got a name.
			for p, content := range tree(t, to) {
				if want, _ := os.ReadFile(filepath.Join(dir, p)); string(want) != content {
					t.Errorf("%s has a wrong content", p)
				}
			}
			// A good store makes it good.
			pull(t, good, key, to)
			same(t, "mended", tree(t, dir), tree(t, to))
		})
	}
}

// A manifest with the right hash that was made to do harm.
func TestPullHostile(t *testing.T) {
	t.Parallel()
	h := strings.Repeat("a", 64)
	for _, c := range []struct {
		name  string
		files []storedFile
		packs []storedPack
	}{
		{"parent", []storedFile{{Path: "../x", Hash: h}}, nil},
		{"absolute", []storedFile{{Path: "/etc/x", Hash: h}}, nil},
		{"in the middle", []storedFile{{Path: "a/../../x", Hash: h}}, nil},
		{"empty", []storedFile{{Path: "", Hash: h}}, nil},
		{"dot", []storedFile{{Path: ".", Hash: h}}, nil},
		{"NUL", []storedFile{{Path: "a\x00b", Hash: h}}, nil},
		{"twice", []storedFile{{Path: "a", Hash: h}, {Path: "a", Hash: h}}, nil},
		{"file and folder", []storedFile{{Path: "a", Hash: h}, {Path: "a/b", Hash: h}}, nil},
		{"through a link", []storedFile{{Path: "a", Link: "b"}, {Path: "a/b", Hash: h}}, nil},
		{"link out", []storedFile{{Path: "a", Link: "../x"}}, nil},
		{"link to the root", []storedFile{{Path: "a", Link: "/etc"}}, nil},
		{"setuid", []storedFile{{Path: "a", Hash: h, Mode: 0o644 | os.ModeSetuid}}, nil},
		{"hash is a path", []storedFile{{Path: "a", Hash: "../../x"}}, nil},
		{"no such pack", []storedFile{{Path: "a", Hash: h, At: &[3]int64{0, 0, 0}}}, nil},
		{"negative", []storedFile{{Path: "a", Hash: h, At: &[3]int64{0, -1, 0}}}, []storedPack{{Key: packPrefix + h}}},
		{"another object as pack", []storedFile{{Path: "a", Hash: h, At: &[3]int64{0, 0, 0}}}, []storedPack{{Key: "runs/x", Frames: [][3]int64{{0, 1, 1}}}}},
		{"behind the frame", []storedFile{{Path: "a", Size: 2, Hash: h, At: &[3]int64{0, 0, 0}}}, []storedPack{{Key: packPrefix + h, Frames: [][3]int64{{0, 1, 1}}}}},
		{"a huge frame", []storedFile{{Path: "a", Size: 2, Hash: h, At: &[3]int64{0, 0, 0}}}, []storedPack{{Key: packPrefix + h, Frames: [][3]int64{{0, 1, 1 << 40}}}}},
		{"overflow", []storedFile{{Path: "a", Size: 1 << 62, Hash: h, At: &[3]int64{0, 0, 1}}}, []storedPack{{Key: packPrefix + h, Frames: [][3]int64{{0, 1, 1}}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := stored{Version: storedVersion, Files: c.files, Packs: c.packs}
			key := keyOf(hashEntries(s.entries()))
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			store, to := newStore(), t.TempDir()
			if err := store.Put(t.Context(), key, b); err != nil {
				t.Fatal(err)
			}
			if err := Pull(t.Context(), store, key, to); cloud.KindOf(err) != cloud.KindCorrupt {
				t.Errorf("%v; want it refused", err)
			}
			same(t, "on the machine", map[string]string{}, tree(t, to))
		})
	}
	if err := Pull(t.Context(), newStore(), "runs/../x", t.TempDir()); cloud.KindOf(err) != cloud.KindInvalid {
		t.Errorf("a key that is none: %v", err)
	}
}

// Whichever call a push dies at, the store has no version that cannot be
// pulled, and the next push goes on.
func TestPushKilledAnywhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": noise(1, 3000), "b": "b", "large": noise(2, 2*smallFile), "large2": noise(3, 2*smallFile)})
	died := 0
	for n := 2; n < 60; n++ {
		store := newStore()
		process := store.Process()
		faulty := cloudtest.Faulty(process, cloudtest.Fault{Op: cloudtest.AnyOp, Nth: n / 2, Kind: cloud.KindOther, Do: process.Kill, After: n%2 == 1})
		m := scan(t, dir, spec.Files{}, Options{})
		key, _, err := Push(t.Context(), faulty, m)
		if err == nil {
			pull(t, store, key, t.TempDir())
			continue
		}
		died++
		if ok, _ := exists(t.Context(), store, m.Key()); ok {
			pull(t, store, m.Key(), t.TempDir())
		}
		before := len(keys(t, store, packPrefix)) + len(keys(t, store, filePrefix))
		key, stats := push(t, store, m)
		if !stats.Unchanged && stats.SentObjects+before != 3 {
			t.Errorf("killed at call %d: %d contents were there, then %d were sent", n, before, stats.SentObjects)
		}
		to := t.TempDir()
		pull(t, store, key, to)
		same(t, "on the machine", tree(t, dir), tree(t, to))
	}
	if died < 10 {
		t.Errorf("only %d pushes died: that proves little", died)
	}
}

func TestPullKilledAnywhere(t *testing.T) {
	t.Parallel()
	dir, store := t.TempDir(), newStore()
	write(t, dir, map[string]string{"a": noise(1, 3000), "d/b": "b", "large": noise(2, 2*smallFile)})
	key, _ := push(t, store, scan(t, dir, spec.Files{}, Options{}))
	for n := 1; ; n++ {
		to := t.TempDir()
		process := store.Process()
		err := Pull(t.Context(), cloudtest.Faulty(process, cloudtest.Fault{Op: cloudtest.AnyOp, Nth: n, Kind: cloud.KindOther, Do: process.Kill}), key, to)
		if err == nil {
			if n < 3 {
				t.Fatalf("a pull took only %d calls", n)
			}
			break
		}
		pull(t, store, key, to)
		same(t, "on the machine", tree(t, dir), tree(t, to))
	}
}

func TestConcurrentPushers(t *testing.T) {
	t.Parallel()
	store := newStore()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			dir := t.TempDir()
			files := map[string]string{"common": noise(1, 3000), "own": fmt.Sprint(i / 2), "large": noise(2, 2*smallFile)}
			write(t, dir, files)
			m, err := Scan(t.Context(), dir, spec.Files{}, nil, Options{Name: "p"})
			if err != nil {
				t.Error(err)
				return
			}
			key, _, err := Push(t.Context(), store.Process(), m)
			if err != nil {
				t.Error(err)
				return
			}
			to := t.TempDir()
			if err := Pull(t.Context(), store, key, to); err != nil {
				t.Error(err)
				return
			}
			same(t, "on the machine", files, tree(t, to))
		})
	}
	wg.Wait()
}

func TestPushChangedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, size := range []int{10, 2 * smallFile} {
		write(t, dir, map[string]string{"a": strings.Repeat("x", size)})
		m := scan(t, dir, spec.Files{}, Options{})
		write(t, dir, map[string]string{"a": strings.Repeat("y", size)})
		store := newStore()
		if _, _, err := Push(t.Context(), store, m); !errors.Is(err, ErrChanged) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if k := keys(t, store, ""); len(k) > 0 {
			t.Errorf("the store has %q", k)
		}
	}
}

func TestPushCancelled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "x"})
	m := scan(t, dir, spec.Files{}, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Push(ctx, newStore(), m); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
