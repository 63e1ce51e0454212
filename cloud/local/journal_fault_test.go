package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// memFile is a journal file in memory that can fail.
type memFile struct {
	mu       sync.Mutex
	data     []byte
	syncs    int
	room     int   // bytes that may be written, if limited
	limited  bool  //
	syncErr  error // what SyncData returns
	gate     chan struct{}
	truncErr error
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.limited && len(p) > f.room {
		p, err = p[:f.room], &os.PathError{Op: "write", Path: "j", Err: syscall.ENOSPC}
	}
	f.room -= len(p)
	if grow := off + int64(len(p)) - int64(len(f.data)); grow > 0 {
		f.data = append(f.data, make([]byte, grow)...)
	}
	return copy(f.data[off:], p), err
}

func (f *memFile) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.truncErr == nil {
		f.data = f.data[:size]
	}
	return f.truncErr
}

func (f *memFile) SyncData() error {
	if f.gate != nil {
		<-f.gate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncs++
	return f.syncErr
}

func (f *memFile) SyncName() error { return nil }
func (f *memFile) Close() error    { return nil }

// A full disk at every possible point: the error has its kind, nothing
// acknowledged is lost, what is left is a clean journal, and no more is taken.
func TestJournalOnAFullDisk(t *testing.T) {
	t.Parallel()
	full := testImage(t)
	path := filepath.Join(t.TempDir(), "j")
	for room := range len(full.data) {
		for _, truncErr := range []error{nil, syscall.EIO} {
			f := &memFile{room: room, limited: true, truncErr: truncErr}
			j, err := newJournal(f, path)
			if err != nil {
				t.Fatal(err)
			}
			acked := 0
			for acked < len(full.recs) {
				if _, err = j.Append(full.recs[acked]); err != nil {
					break
				}
				acked++
			}
			if cloud.KindOf(err) != cloud.KindFull || !strings.Contains(err.Error(), "free of") {
				t.Fatalf("room for %d bytes: %v", room, err)
			}
			f.limited = false
			if _, err := j.Append([]byte("more")); cloud.KindOf(err) != cloud.KindFull {
				t.Fatalf("append after the error: %v", err)
			}
			n := 0
			end, err := newScanner(f).each(0, func(int64, []byte) error { n++; return nil })
			if err != nil || n != acked {
				t.Fatalf("room for %d bytes: %d acknowledged, %d read, %v", room, acked, n, err)
			}
			if truncErr == nil && end != int64(len(f.data)) {
				t.Fatalf("room for %d bytes: %d bytes of a record are left", room, int64(len(f.data))-end)
			}
			if recs, _, err := recoverImage(f.data); err != nil || len(recs) != acked {
				t.Fatalf("room for %d bytes: recovered %d of %d, %v", room, len(recs), acked, err)
			}
		}
	}
}

// If the disk cannot say that it has the records, nobody is told it does.
func TestJournalSyncFails(t *testing.T) {
	t.Parallel()
	f := &memFile{}
	j, err := newJournal(f, "j")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte("good")); err != nil {
		t.Fatal(err)
	}
	f.syncErr = syscall.EIO
	for range 2 {
		if _, err := j.Append([]byte("bad")); !errors.Is(err, syscall.EIO) {
			t.Errorf("append: %v", err)
		}
		f.syncErr = nil
	}
	if recs, _, err := recoverImage(f.data); err != nil || len(recs) != 1 {
		t.Errorf("recovered %q, %v", recs, err)
	}
}

// While one group is on its way to the disk, all others gather in the next.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	f := &memFile{gate: make(chan struct{})}
	j, err := newJournal(f, "j")
	if err != nil {
		t.Fatal(err)
	}
	const callers = 100
	var wg sync.WaitGroup
	add := func(rec string) {
		wg.Go(func() {
			if _, err := j.Append([]byte(rec)); err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	add("first")
	f.gate <- struct{}{} // its sync is over: whoever comes now is of another group
	wg.Wait()
	add("leader")
	for taken := false; !taken; { // until the leader's group is closed to others
		j.mu.Lock()
		taken = j.cur.base > 0 && len(j.cur.buf) == 0 && len(j.turn) == 1
		j.mu.Unlock()
	}
	for i := range callers {
		add(fmt.Sprint(i))
	}
	for size := 0; size < callers; {
		j.mu.Lock()
		size = 0
		for b := j.cur.buf; len(b) > 0; size++ {
			h, _ := parseHeader(b, j.cur.base+int64(len(j.cur.buf)-len(b)))
			b = b[headerSize+h.length:]
		}
		j.mu.Unlock()
	}
	close(f.gate)
	wg.Wait()
	if f.syncs != 3 {
		t.Errorf("%d syncs for %d callers; want 3", f.syncs, callers+2)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	n := 0
	if _, err := newScanner(f).each(0, func(int64, []byte) error { n++; return nil }); err != nil || n != callers+2 {
		t.Errorf("%d records, %v", n, err)
	}
}

func TestRecordTooLong(t *testing.T) {
	t.Parallel()
	j, err := newJournal(&memFile{}, "j")
	if err != nil {
		t.Fatal(err)
	}
	long := make([]byte, maxRecord+1)
	for name, recs := range map[string][][]byte{
		"record": {long},
		"group":  slices.Repeat([][]byte{long[:maxRecord]}, maxGroup/maxRecord),
	} {
		if _, err := j.Append(recs...); cloud.KindOf(err) != cloud.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := j.Append([]byte("still fine")); err != nil {
		t.Errorf("append after a refused one: %v", err)
	}
}
