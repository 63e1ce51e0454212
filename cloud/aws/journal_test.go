package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

func open(t *testing.T, s *Store, key string) *journal {
	t.Helper()
	j, err := s.OpenJournal(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j.(*journal)
}

func add(t *testing.T, j cloud.Journal, recs ...string) []int64 {
	t.Helper()
	var bs [][]byte
	for _, r := range recs {
		bs = append(bs, []byte(r))
	}
	pos, err := j.Append(bs...)
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func recordsOf(t *testing.T, s *Store, key string) (recs []string) {
	t.Helper()
	_, err := s.ReadJournal(context.Background(), key, 0, func(_ int64, rec []byte) error {
		recs = append(recs, string(rec))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return recs
}

// crash leaves a journal as a writer does that is gone: nothing is written
// any more, nothing says that it is closed.
func crash(j *journal) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.closed = true
		close(j.quit)
	}
}

// fencing: a writer that was paused, and meanwhile replaced, writes nothing
// more, ever, and knows it.
func fencing(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	paused := open(t, s, "j")
	add(t, paused, "one")
	other := r.again(s)
	if _, err := other.OpenJournal(t.Context(), "j"); cloud.KindOf(err) != cloud.KindConflict || !strings.Contains(err.Error(), "is writing it") {
		t.Fatalf("two writers: %v", err)
	}
	other.silence = 0 // as if a minute had passed
	second := open(t, other, "j")
	if second.header.Epoch != paused.header.Epoch+1 {
		t.Errorf("epoch %d after %d", second.header.Epoch, paused.header.Epoch)
	}
	for range 3 {
		_, err := paused.Append([]byte("late"))
		wantKind(t, "append of the paused writer", err, cloud.KindConflict)
	}
	select {
	case <-paused.Lost():
	default:
		t.Error("the paused writer is not told")
	}
	if _, err := paused.Append(); cloud.KindOf(err) != cloud.KindConflict {
		t.Errorf("append of nothing: %v", err)
	}
	add(t, second, "two")
	if err := paused.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if alive, err := s.JournalAlive(t.Context(), "j"); err != nil || !alive {
		t.Errorf("the old writer's close released the journal: %v, %v", alive, err)
	}
	add(t, second, "three")
	if recs := recordsOf(t, s, "j"); !slices.Equal(recs, []string{"one", "two", "three"}) {
		t.Errorf("journal has %q", recs)
	}
}

// fencedWhileIdle: a writer with nothing to record learns it from its sign of life.
func fencedWhileIdle(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	s.beat = 10 * time.Millisecond
	idle := open(t, s, "j")
	other := r.again(s)
	other.silence = 0
	// The sign of life may come in between: then it has the next number.
	for {
		j, err := other.OpenJournal(t.Context(), "j")
		if err == nil {
			t.Cleanup(func() { j.Close() })
			break
		}
		wantKind(t, "open", err, cloud.KindConflict)
	}
	select {
	case <-idle.Lost():
	case <-time.After(2 * time.Minute):
		t.Fatal("the idle writer does not notice")
	}
	_, err := idle.Append([]byte("late"))
	wantKind(t, "append", err, cloud.KindConflict)
}

// deadWriter: a process of this machine that is gone is not waited for, one
// that cannot be looked at is.
func deadWriter(t *testing.T, r *rig) {
	if self().Place == "" {
		t.Skip("processes cannot be told apart on this system")
	}
	child := exec.Command(os.Args[0], "-test.run=^$")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	here := self()
	for _, tt := range []struct {
		name  string
		owner owner
		alive bool
	}{
		{"this process", here, true},
		{"ended", owner{here.Place, child.Process.Pid, "1"}, false},
		{"its id belongs to another one now", owner{here.Place, here.PID, "1"}, false},
		{"on another machine", owner{"elsewhere", child.Process.Pid, "1"}, true},
		{"unknown", owner{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := r.store(r.URL, nil)
			j := open(t, s, "j")
			j.header.owner = tt.owner
			add(t, j, "one")
			crash(j)
			if alive, err := s.JournalAlive(t.Context(), "j"); err != nil || alive != tt.alive {
				t.Errorf("alive: %v, %v", alive, err)
			}
			k, err := r.again(s).OpenJournal(t.Context(), "j")
			if tt.alive {
				wantKind(t, "open", err, cloud.KindConflict)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			add(t, k, "two")
			if err := k.Close(); err != nil {
				t.Error(err)
			}
			if recs := recordsOf(t, s, "j"); !slices.Equal(recs, []string{"one", "two"}) {
				t.Errorf("journal has %q", recs)
			}
		})
	}
}

// silence is measured by the server's clock, from the last segment.
func silence(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	j := open(t, s, "j")
	j.header.owner = owner{}
	add(t, j, "one")
	crash(j)
	other := r.again(s)
	dir := filepath.Join(r.Dir, "stores", s.prefix, "j")
	age := func(d time.Duration) {
		t.Helper()
		for _, n := range []int64{1, 2} {
			if err := os.Chtimes(filepath.Join(dir, segmentName(n)), time.Time{}, time.Now().Add(-d)); err != nil {
				t.Fatal(err)
			}
		}
	}
	age(50 * time.Second)
	if alive, err := other.JournalAlive(t.Context(), "j"); err != nil || !alive {
		t.Errorf("after 50 s: alive %v, %v", alive, err)
	}
	age(62 * time.Second)
	if alive, err := other.JournalAlive(t.Context(), "j"); err != nil || alive {
		t.Errorf("after 62 s: alive %v, %v", alive, err)
	}
	add(t, open(t, other, "j"), "two")
}

// lostSegmentReply: the segment is there, its answer got lost.
func lostSegmentReply(t *testing.T, r *rig) {
	var n atomic.Int32
	endpoint, client := r.proxy(t, &proxy{after: func(r *http.Request, status int) bool {
		return r.Method == http.MethodPut && status == http.StatusOK && n.Add(1)%2 == 1
	}}, false)
	s := r.store(endpoint, client)
	j := open(t, s, "j")
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint(i))
		pos := add(t, j, want[i])
		if rec, err := s.ReadRecord(t.Context(), "j", pos[0]); err != nil || string(rec) != want[i] {
			t.Errorf("record %d: %q, %v", i, rec, err)
		}
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if recs := recordsOf(t, s, "j"); !slices.Equal(recs, want) {
		t.Errorf("journal has %q", recs)
	}
	if n.Load() < 10 {
		t.Errorf("only %d writes", n.Load())
	}
}

// outage: the writer waits for S3 to come back, and closing it does not.
func outage(t *testing.T, r *rig) {
	var failures, down atomic.Int64
	endpoint, client := r.proxy(t, &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		if down.Add(-1) < 0 {
			return false
		}
		failures.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}}, false)
	s := r.store(endpoint, client)
	j := open(t, s, "j")
	down.Store(10)
	add(t, j, "one")
	if failures.Load() != 10 {
		t.Errorf("%d failures", failures.Load())
	}
	s.patience = 0
	down.Store(1 << 40)
	_, err := j.Append([]byte("two"))
	wantKind(t, "append", err, cloud.KindThrottled)
	_, err = j.Append([]byte("three"))
	wantKind(t, "append after that", err, cloud.KindThrottled)
	if err := j.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	down.Store(0)
	if recs := recordsOf(t, s, "j"); !slices.Equal(recs, []string{"one"}) {
		t.Errorf("journal has %q", recs)
	}
}

// longJournal has more segments than a page; its end is found without reading
// through it.
func longJournal(t *testing.T, r *rig) {
	var lists atomic.Int32
	endpoint, client := r.proxy(t, &proxy{before: func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("list-type") == "2" {
			lists.Add(1)
		}
		return false
	}}, false)
	s := r.store(endpoint, client)
	j := open(t, s, "j")
	add(t, j, "first")
	crash(j)
	// What lies in the server's folder is an object.
	dir := filepath.Join(r.Dir, "stores", s.prefix, "j")
	const segments = 12345
	for n := int64(3); n <= segments; n++ {
		h := j.header
		h.Number = n
		recs, _ := appendRecord(nil, n, fmt.Append(nil, n))
		data, err := encodeHeader(h, len(recs))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, segmentName(n)), append(data, recs...), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	cold := r.open(endpoint, client, s.prefix)
	lists.Store(0)
	last, _, err := cold.lastSegment(t.Context(), "j")
	if err != nil || last == nil || last.number != segments {
		t.Fatalf("last segment: %+v, %v", last, err)
	}
	if n := lists.Load(); n > 8 {
		t.Errorf("%d lists to find the end", n)
	}
	lists.Store(0)
	if alive, err := cold.JournalAlive(t.Context(), "j"); err != nil || !alive {
		t.Errorf("alive: %v, %v", alive, err)
	}
	if n := lists.Load(); n != 1 {
		t.Errorf("%d lists to look again", n)
	}
	want, stop := 3, errors.New("enough")
	_, err = cold.ReadJournal(t.Context(), "j", position(3, 0), func(pos int64, rec []byte) error {
		if string(rec) != fmt.Sprint(want) {
			return fmt.Errorf("record %q where %d should be", rec, want)
		}
		if want++; want > 2500 {
			return stop
		}
		return nil
	})
	if err != stop {
		t.Error(err)
	}
}

func damagedSegments(t *testing.T, r *rig) {
	for name, damage := range map[string]func(dir string, b []byte) error{
		"a flipped bit": func(dir string, b []byte) error {
			b[len(b)-9] ^= 1
			return os.WriteFile(filepath.Join(dir, segmentName(2)), b, 0o666)
		},
		"cut off": func(dir string, b []byte) error {
			return os.WriteFile(filepath.Join(dir, segmentName(2)), b[:len(b)-8], 0o666)
		},
		"a flipped bit in the header": func(dir string, b []byte) error {
			b[prefixSize+3] ^= 1
			return os.WriteFile(filepath.Join(dir, segmentName(2)), b, 0o666)
		},
		"another version": func(dir string, b []byte) error {
			b[7] = 9
			return os.WriteFile(filepath.Join(dir, segmentName(2)), b, 0o666)
		},
		"missing":            func(dir string, _ []byte) error { return os.Remove(filepath.Join(dir, segmentName(2))) },
		"the first missing":  func(dir string, _ []byte) error { return os.Remove(filepath.Join(dir, segmentName(1))) },
		"under another name": func(dir string, b []byte) error { return os.WriteFile(filepath.Join(dir, segmentName(3)), b, 0o666) },
	} {
		t.Run(name, func(t *testing.T) {
			s := r.store(r.URL, nil)
			j := open(t, s, "j")
			add(t, j, "first", "record", "and more")
			add(t, j, "last")
			crash(j)
			dir := filepath.Join(r.Dir, "stores", s.prefix, "j")
			b, err := os.ReadFile(filepath.Join(dir, segmentName(2)))
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(dir, b); err != nil {
				t.Fatal(err)
			}
			_, err = r.again(s).ReadJournal(t.Context(), "j", 0, func(int64, []byte) error { return nil })
			wantKind(t, "read", err, cloud.KindCorrupt)
		})
	}
}

// pollCost: who follows a journal pays one request when there is nothing new.
func pollCost(t *testing.T, r *rig) {
	var requests atomic.Int32
	endpoint, client := r.proxy(t, &proxy{before: func(http.ResponseWriter, *http.Request) bool {
		requests.Add(1)
		return false
	}}, false)
	s := r.store(endpoint, client)
	add(t, open(t, r.again(s), "j"), "one")
	next, err := s.ReadJournal(t.Context(), "j", 0, func(int64, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.JournalAlive(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	requests.Store(0)
	for range 10 {
		if n, err := s.ReadJournal(t.Context(), "j", next, func(int64, []byte) error { return nil }); err != nil || n != next {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if n := requests.Load(); n != 10 {
		t.Errorf("%d requests for 10 looks", n)
	}
	requests.Store(0)
	if alive, err := s.JournalAlive(t.Context(), "j"); err != nil || !alive {
		t.Error(alive, err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests to ask whether it is alive", n)
	}
}

// hugeRecords are longer than a segment otherwise is; those behind them wait
// for the next one.
func hugeRecords(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	j := open(t, s, "j")
	_, err := j.Append([]byte("fine"), make([]byte, maxRecord+1))
	wantKind(t, "too long", err, cloud.KindInvalid)
	big := bytes.Repeat([]byte("x"), 20<<20)
	var mu sync.Mutex
	want := map[int64]int{}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			recs := [][]byte{[]byte("a"), big[:len(big)-i], []byte("b"), big[:100+i]}
			pos, err := j.Append(recs...)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for k, p := range pos {
				want[p] = len(recs[k])
			}
		})
	}
	wg.Wait()
	got := map[int64]int{}
	if _, err := r.again(s).ReadJournal(t.Context(), "j", 0, func(pos int64, rec []byte) error {
		got[pos] = len(rec)
		if pos >= 1<<54 {
			t.Errorf("position %d", pos)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(want) != 12 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read %v, want %v", got, want)
	}
}
