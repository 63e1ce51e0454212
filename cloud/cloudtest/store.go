package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// TestStore proves that a store keeps the contract of cloud.Store, journals
// included. newStore makes an empty one each time.
func TestStore(t *testing.T, newStore func(t testing.TB) cloud.Store) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s cloud.Store)
	}{
		{"put and get", storePut},
		{"put from a reader", storePutFrom},
		{"read at", storeReadAt},
		{"create", storeCreate},
		{"create race", storeCreateRace},
		{"keys", storeKeys},
		{"list", storeList},
		{"delete", storeDelete},
		{"delete prefix", storeDeletePrefix},
		{"whole objects only", storeAtomic},
		{"delete and create race", storeDeleteRace},
		{"cancelled context", storeContext},
		{"journal", journalRecords},
		{"journal goes on", journalReopen},
		{"journal has one writer", journalOneWriter},
		{"journal writer race", journalWriterRace},
		{"journal closed", journalClosed},
		{"journal missing", journalMissing},
		{"journal concurrent appends", journalConcurrent},
		{"journal read while written", journalReadWhileWritten},
		{"journal stop reading", journalStop},
		{"journal deleted", journalDeleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, newStore(t))
		})
	}
}

func mustPut(t testing.TB, s cloud.Store, key, data string) {
	t.Helper()
	if err := s.Put(context.Background(), key, []byte(data)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func wantObject(t testing.TB, s cloud.Store, key, want string) {
	t.Helper()
	got, err := s.Get(context.Background(), key)
	if err != nil || string(got) != want {
		t.Errorf("get %s: %.40q, %v; want %.40q", key, got, err, want)
	}
}

func wantKind(t testing.TB, what string, err error, kind cloud.Kind) {
	t.Helper()
	if err == nil || cloud.KindOf(err) != kind {
		t.Errorf("%s: %v; want kind %q", what, err, kind)
	}
}

func storePut(t *testing.T, s cloud.Store) {
	if s.URL() == "" {
		t.Error("the store has no URL")
	}
	_, err := s.Get(t.Context(), "runs/1/plan.json")
	wantKind(t, "get of no object", err, cloud.KindNotFound)
	for _, data := range []string{"first", "the second is longer", "", "3", strings.Repeat("0123456789", 50000)} {
		mustPut(t, s, "runs/1/plan.json", data)
		wantObject(t, s, "runs/1/plan.json", data)
	}
	_, err = s.Get(t.Context(), "runs/1")
	wantKind(t, "get of a prefix", err, cloud.KindNotFound)
	_, err = s.Get(t.Context(), "runs/1/plan.json/x")
	wantKind(t, "get under an object", err, cloud.KindNotFound)
	// The store keeps nothing of the caller's.
	b := []byte("mine")
	if err := s.Put(t.Context(), "a", b); err != nil {
		t.Fatal(err)
	}
	b[0] = 'X'
	wantObject(t, s, "a", "mine")
	for _, key := range []string{"with space", "ünï/日本", "a-b", "quote\"'", "new\nline", "x/.hidden", "-dash", strings.Repeat("d/", 20) + "deep"} {
		mustPut(t, s, key, key)
		wantObject(t, s, key, key)
	}
}

func storePutFrom(t *testing.T, s cloud.Store) {
	for _, n := range []int{0, 1, 3 << 20} {
		data := bytes.Repeat([]byte{'x'}, n)
		if err := s.PutFrom(t.Context(), "big", bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, "big", string(data))
	}
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("line is dead")))
	if err := s.PutFrom(t.Context(), "broken", broken); err == nil || !strings.Contains(err.Error(), "line is dead") {
		t.Errorf("put from a broken reader: %v", err)
	}
	_, err := s.Get(t.Context(), "broken")
	wantKind(t, "get of what was half read", err, cloud.KindNotFound)
	if list := keysOf(t, s, ""); !slices.Equal(list, []string{"big"}) {
		t.Errorf("after a broken put the store has %q", list)
	}
}

func storeReadAt(t *testing.T, s cloud.Store) {
	mustPut(t, s, "o", "0123456789")
	for _, c := range []struct {
		off  int64
		n    int
		want string
		err  error
	}{
		{0, 10, "0123456789", nil}, {3, 4, "3456", nil}, {8, 4, "89", io.EOF}, {10, 1, "", io.EOF}, {99, 1, "", io.EOF}, {2, 0, "", nil},
	} {
		p := make([]byte, c.n)
		n, err := s.ReadAt(t.Context(), "o", p, c.off)
		// Like io.ReaderAt: at the very end both nil and io.EOF are right.
		atEnd := c.off+int64(n) == 10 && n == c.n && err == io.EOF
		if string(p[:n]) != c.want || (err != c.err && !atEnd) {
			t.Errorf("read %d at %d: %q, %v; want %q, %v", c.n, c.off, p[:n], err, c.want, c.err)
		}
	}
	_, err := s.ReadAt(t.Context(), "none", make([]byte, 1), 0)
	wantKind(t, "read of no object", err, cloud.KindNotFound)
	_, err = s.ReadAt(t.Context(), "o", make([]byte, 1), -1)
	wantKind(t, "read at -1", err, cloud.KindInvalid)
	// A replaced object is the new one, a deleted one is gone.
	mustPut(t, s, "o", "abc")
	p := make([]byte, 3)
	if n, _ := s.ReadAt(t.Context(), "o", p, 0); string(p[:n]) != "abc" {
		t.Errorf("read of a replaced object: %q", p[:n])
	}
	if err := s.Delete(t.Context(), "o"); err != nil {
		t.Fatal(err)
	}
	_, err = s.ReadAt(t.Context(), "o", p, 0)
	wantKind(t, "read of a deleted object", err, cloud.KindNotFound)
}

func storeCreate(t *testing.T, s cloud.Store) {
	if err := s.Create(t.Context(), "runs/1/lock", []byte("me")); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "create again", s.Create(t.Context(), "runs/1/lock", []byte("you")), cloud.KindConflict)
	wantObject(t, s, "runs/1/lock", "me")
	mustPut(t, s, "runs/1/put", "x")
	wantKind(t, "create over a put", s.Create(t.Context(), "runs/1/put", nil), cloud.KindConflict)
	if err := s.Delete(t.Context(), "runs/1/lock"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "runs/1/lock", []byte("you")); err != nil {
		t.Errorf("create after delete: %v", err)
	}
	wantObject(t, s, "runs/1/lock", "you")
}

// storeCreateRace: of 32 callers one succeeds, and whoever looks finds the
// winner's object whole.
func storeCreateRace(t *testing.T, s cloud.Store) {
	const callers, rounds = 32, 8
	pad := strings.Repeat("=", 20000)
	for round := range rounds {
		key := fmt.Sprintf("race/%d/key", round)
		var winner atomic.Int32
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				err := s.Create(t.Context(), key, fmt.Appendf(nil, "%d%s", i, pad))
				if err == nil {
					if w := winner.Swap(int32(i + 1)); w != 0 {
						t.Errorf("callers %d and %d both created %s", w-1, i, key)
					}
				} else {
					wantKind(t, "loser", err, cloud.KindConflict)
				}
				got, err := s.Get(t.Context(), key)
				if err != nil || !strings.HasSuffix(string(got), pad) || len(got) > len(pad)+2 {
					t.Errorf("after the race: %d bytes, %v", len(got), err)
				}
			})
		}
		wg.Wait()
		wantObject(t, s, key, fmt.Sprintf("%d%s", winner.Load()-1, pad))
	}
}

func storeKeys(t *testing.T, s cloud.Store) {
	ctx := t.Context()
	for _, key := range []string{"", ".", "..", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a/..", "a\x00b", "a\xffb"} {
		_, err := s.Get(ctx, key)
		wantKind(t, fmt.Sprintf("get %q", key), err, cloud.KindInvalid)
		wantKind(t, fmt.Sprintf("put %q", key), s.Put(ctx, key, nil), cloud.KindInvalid)
		wantKind(t, fmt.Sprintf("put from %q", key), s.PutFrom(ctx, key, strings.NewReader("")), cloud.KindInvalid)
		wantKind(t, fmt.Sprintf("create %q", key), s.Create(ctx, key, nil), cloud.KindInvalid)
		wantKind(t, fmt.Sprintf("delete %q", key), s.Delete(ctx, key), cloud.KindInvalid)
		_, err = s.ReadAt(ctx, key, nil, 0)
		wantKind(t, fmt.Sprintf("read %q", key), err, cloud.KindInvalid)
		_, err = s.OpenJournal(ctx, key)
		wantKind(t, fmt.Sprintf("open journal %q", key), err, cloud.KindInvalid)
		_, err = s.ReadJournal(ctx, key, 0, nil)
		wantKind(t, fmt.Sprintf("read journal %q", key), err, cloud.KindInvalid)
		_, err = s.ReadRecord(ctx, key, 0)
		wantKind(t, fmt.Sprintf("read record %q", key), err, cloud.KindInvalid)
		_, err = s.JournalAlive(ctx, key)
		wantKind(t, fmt.Sprintf("journal alive %q", key), err, cloud.KindInvalid)
		if key != "a/" { // which is "a", said differently
			wantKind(t, fmt.Sprintf("delete prefix %q", key), s.DeletePrefix(ctx, key), cloud.KindInvalid)
		}
	}
	if keys := keysOf(t, s, ""); len(keys) > 0 {
		t.Errorf("bad keys left %q", keys)
	}
}

func keysOf(t testing.TB, s cloud.Store, prefix string) []string {
	t.Helper()
	var keys []string
	err := s.List(context.Background(), prefix, func(o cloud.ObjectInfo) bool {
		keys = append(keys, o.Key)
		return true
	})
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	return keys
}

func storeList(t *testing.T, s cloud.Store) {
	if keys := keysOf(t, s, "runs/"); len(keys) > 0 {
		t.Errorf("an empty store lists %q", keys)
	}
	// "-" sorts before "/", "0" behind it: the order is that of the whole keys.
	keys := []string{"a", "b-c", "b/1", "b/10", "b/2/x", "b/2-", "b/2/y/z", "b0", "runs/1/journal", "runs/10/journal", "Z", "ü"}
	before := time.Now().Add(-time.Minute)
	for i, k := range keys {
		mustPut(t, s, k, strings.Repeat("x", i))
	}
	size := map[string]int{}
	for i, k := range keys {
		size[k] = i
	}
	slices.Sort(keys)
	for _, prefix := range []string{"", "b", "b/", "b/2", "b/2/", "runs/1", "runs/1/", "none", "none/x", "a/", "b/2/y/z"} {
		var want []string
		for _, k := range keys {
			if strings.HasPrefix(k, prefix) {
				want = append(want, k)
			}
		}
		var got []string
		err := s.List(t.Context(), prefix, func(o cloud.ObjectInfo) bool {
			got = append(got, o.Key)
			if o.Size != int64(size[o.Key]) || o.Modified.Before(before) || o.Modified.After(time.Now().Add(time.Minute)) {
				t.Errorf("list says %+v", o)
			}
			return true
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("list %q: %q, %v; want %q", prefix, got, err, want)
		}
	}
	n := 0
	if err := s.List(t.Context(), "b", func(cloud.ObjectInfo) bool { n++; return n < 4 }); err != nil || n != 4 {
		t.Errorf("list went on to %d objects, %v; want 4", n, err)
	}
}

func storeDelete(t *testing.T, s cloud.Store) {
	for _, k := range []string{"a", "b", "c/d"} {
		mustPut(t, s, k, k)
	}
	for range 2 {
		if err := s.Delete(t.Context(), "a", "none", "none/at/all", "a/under", "c/d", "c"); err != nil {
			t.Errorf("delete: %v", err)
		}
		if keys := keysOf(t, s, ""); !slices.Equal(keys, []string{"b"}) {
			t.Errorf("left %q", keys)
		}
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("delete nothing: %v", err)
	}
}

func storeDeletePrefix(t *testing.T, s cloud.Store) {
	for _, k := range []string{"runs/1/a", "runs/1/b/c", "runs/10/a", "runs/1-/a", "other"} {
		mustPut(t, s, k, k)
	}
	for _, prefix := range []string{"runs/1", "runs/1", "runs/2", "none/at/all", "other"} {
		if err := s.DeletePrefix(t.Context(), prefix); err != nil {
			t.Errorf("delete prefix %s: %v", prefix, err)
		}
		if keys := keysOf(t, s, ""); !slices.Equal(keys, []string{"other", "runs/1-/a", "runs/10/a"}) {
			t.Errorf("after deleting %s: %q", prefix, keys)
		}
	}
	if err := s.DeletePrefix(t.Context(), "runs/"); err != nil {
		t.Errorf("delete prefix runs/: %v", err)
	}
	if keys := keysOf(t, s, ""); !slices.Equal(keys, []string{"other"}) {
		t.Errorf("left %q", keys)
	}
	mustPut(t, s, "runs/1/a", "again")
	wantObject(t, s, "runs/1/a", "again")
}

// storeAtomic: who reads while an object is replaced gets one of its versions.
func storeAtomic(t *testing.T, s cloud.Store) {
	version := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), 1000+i%7*5000) }
	mustPut(t, s, "o", version(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := s.Get(t.Context(), "o")
				if err != nil || len(got) < 1000 || strings.Trim(string(got), string(got[:1])) != "" || (len(got)-1000)%5000 != 0 {
					t.Errorf("read %d bytes of a mixture, %v", len(got), err)
					return
				}
			}
		})
	}
	for i := range 200 {
		mustPut(t, s, "o", version(i))
	}
	close(stop)
	wg.Wait()
}

// storeDeleteRace: writing into a prefix that is being deleted works.
func storeDeleteRace(t *testing.T, s cloud.Store) {
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				if err := s.Put(t.Context(), fmt.Sprintf("p/%d/x/%d", w, i), []byte("x")); err != nil {
					t.Errorf("put: %v", err)
				}
			}
		})
	}
	for range 50 {
		if err := s.DeletePrefix(t.Context(), "p"); err != nil {
			t.Errorf("delete prefix: %v", err)
		}
		_ = keysOf(t, s, "p/")
	}
	wg.Wait()
	if err := s.DeletePrefix(t.Context(), "p"); err != nil {
		t.Error(err)
	}
	if keys := keysOf(t, s, ""); len(keys) > 0 {
		t.Errorf("left %q", keys)
	}
}

func storeContext(t *testing.T, s cloud.Store) {
	mustPut(t, s, "o", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, get := s.Get(ctx, "o")
	_, readAt := s.ReadAt(ctx, "o", make([]byte, 1), 0)
	_, open := s.OpenJournal(ctx, "j")
	_, read := s.ReadJournal(ctx, "j", 0, func(int64, []byte) error { return nil })
	_, record := s.ReadRecord(ctx, "j", 0)
	_, alive := s.JournalAlive(ctx, "j")
	for op, err := range map[string]error{
		"get": get, "read": readAt, "open journal": open, "read journal": read, "read record": record, "alive": alive,
		"put":           s.Put(ctx, "p", nil),
		"put from":      s.PutFrom(ctx, "p", strings.NewReader("x")),
		"create":        s.Create(ctx, "p", nil),
		"list":          s.List(ctx, "", func(cloud.ObjectInfo) bool { return true }),
		"delete":        s.Delete(ctx, "o"),
		"delete prefix": s.DeletePrefix(ctx, "o"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", op, err)
		}
	}
	if keys := keysOf(t, s, ""); !slices.Equal(keys, []string{"o"}) {
		t.Errorf("left %q", keys)
	}
}
