package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// journalFile is what a journal does with its file. Tests put a file that
// fails in its place.
type journalFile interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	SyncData() error // makes the content durable
	SyncName() error // makes the name durable
	Close() error    // and releases the lock
}

// osJournalFile is a locked file of a store.
type osJournalFile struct {
	*os.File
	store *Store
	key   string
}

// SyncData also finds out that the file has no name any more: what is written
// to it is lost with this process.
func (f *osJournalFile) SyncData() error {
	gone := false
	err := syncData(f.File)
	if err == nil {
		err = control(f.File, func(fd uintptr) error { gone = unlinked(fd); return nil })
	}
	if gone {
		err = &cloud.Error{Op: "append to journal", Resource: f.store.Path(f.key), Kind: cloud.KindNotFound,
			Err: errors.New("it was deleted while it was written, and what it held is lost")}
	}
	return err
}

func (f *osJournalFile) SyncName() error { return f.store.syncParent(f.key) }
func (f *osJournalFile) Close() error {
	err := unlock(f.File)
	if cerr := f.File.Close(); err == nil {
		err = cerr
	}
	return err
}

// journal appends records to a file that it has locked. Concurrent callers
// share a write and a sync: while one group is on its way to the disk, the
// next collects in cur.
type journal struct {
	f    journalFile
	path string // for messages
	// turn is held (by sending) while a group is written.
	turn chan struct{}

	mu     sync.Mutex
	cur    *group
	err    error // why nothing can be appended any more
	closed bool
	named  bool // the name of the file is durable; only the holder of turn looks
}

// group is the records of one write.
type group struct {
	base int64 // where it starts in the file
	buf  []byte
	done chan struct{} // closed once it is durable, or failed
	err  error
}

func newGroup(base int64) *group { return &group{base: base, done: make(chan struct{})} }

var _ cloud.Journal = (*journal)(nil)

// OpenJournal opens a journal for writing; see cloud.Store.
func (s *Store) OpenJournal(ctx context.Context, key string) (cloud.Journal, error) {
	const op = "open journal"
	if err := s.begin(ctx, op, key); err != nil {
		return nil, err
	}
	f, err := s.lockJournal(key)
	if err != nil {
		return nil, s.fail(op, key, err)
	}
	j, err := newJournal(f, s.Path(key))
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

// lockJournal opens and locks the file. Between the two it may have been
// deleted, then a new one is made.
func (s *Store) lockJournal(key string) (*osJournalFile, error) {
	for {
		var f *os.File
		err := s.inParent(key, func() (err error) {
			f, err = s.openFile(key, os.O_RDWR|os.O_CREATE)
			return err
		})
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f)
		if err != nil {
			err = &cloud.Error{Op: "open journal", Resource: s.Path(key), Kind: cloud.KindInvalid,
				Err: fmt.Errorf("%w: the file system cannot lock files; keep the store on a local disk (--store)", err)}
		} else if !ok {
			err = &cloud.Error{Op: "open journal", Resource: s.Path(key), Kind: cloud.KindConflict,
				Err: errors.New("another process is writing it")}
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		mine, err := f.Stat()
		if err == nil {
			named, serr := s.root.Stat(key)
			if serr == nil && os.SameFile(mine, named) {
				return &osJournalFile{File: f, store: s, key: key}, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// newJournal recovers what is in the file and makes it durable: the first
// group to come proves that to every reader.
func newJournal(f journalFile, path string) (*journal, error) {
	end, err := newScanner(f).each(0, func(int64, []byte) error { return nil })
	if err != nil {
		return nil, journalError("open journal", path, err)
	}
	var b [1]byte
	if n, err := f.ReadAt(b[:], end); n > 0 {
		err = f.Truncate(end)
		if err != nil {
			return nil, fail("open journal", path, err)
		}
	} else if err != nil && err != io.EOF {
		return nil, fail("open journal", path, err)
	}
	j := &journal{f: f, path: path, turn: make(chan struct{}, 1), cur: newGroup(end)}
	if end == 0 {
		j.cur.buf = append(j.cur.buf, magic...)
		return j, nil
	}
	if err := f.SyncData(); err != nil {
		return nil, fail("open journal", path, err)
	}
	return j, nil
}

// Append writes records; see cloud.Journal.
func (j *journal) Append(recs ...[]byte) ([]int64, error) {
	total := 0
	for _, r := range recs {
		if len(r) > maxRecord {
			return nil, &cloud.Error{Op: "append to journal", Resource: j.path, Kind: cloud.KindInvalid,
				Err: fmt.Errorf("a record of %s; at most %s", bytesText(uint64(len(r))), bytesText(maxRecord))}
		}
		total += headerSize + len(r)
	}
	if total > maxGroup {
		return nil, &cloud.Error{Op: "append to journal", Resource: j.path, Kind: cloud.KindInvalid,
			Err: fmt.Errorf("%s at once; at most %s", bytesText(uint64(total)), bytesText(maxGroup))}
	}
	g, pos, err := j.enqueue(recs, total)
	if err != nil || len(recs) == 0 {
		return nil, err
	}
	if err := j.finish(g); err != nil {
		return nil, err
	}
	return pos, nil
}

// enqueue adds records to the group that is collecting.
func (j *journal) enqueue(recs [][]byte, total int) (*group, []int64, error) {
	for {
		j.mu.Lock()
		if err := j.usable(); err != nil {
			j.mu.Unlock()
			return nil, nil, err
		}
		g := j.cur
		if len(g.buf)+total > maxGroup+len(magic) { // wait for the next group
			j.mu.Unlock()
			if err := j.finish(g); err != nil {
				return nil, nil, err
			}
			continue
		}
		pos := make([]int64, len(recs))
		for i, r := range recs {
			pos[i] = g.base + int64(len(g.buf))
			g.buf = appendRecord(g.buf, g.base, pos[i], r)
		}
		j.mu.Unlock()
		return g, pos, nil
	}
}

// usable says why nothing can be appended, or nil. The caller holds mu.
func (j *journal) usable() error {
	if j.err != nil {
		return fmt.Errorf("%w (the journal takes no more records after this)", j.err)
	}
	if j.closed {
		return &cloud.Error{Op: "append to journal", Resource: j.path, Kind: cloud.KindClosed}
	}
	return nil
}

// finish returns when the group is durable. Whoever gets the turn while it is
// not writes it.
func (j *journal) finish(g *group) error {
	select {
	case <-g.done:
		return g.err
	case j.turn <- struct{}{}:
	}
	defer func() { <-j.turn }()
	select {
	case <-g.done:
		return g.err
	default:
	}
	// Nobody else takes cur, and g is not done: g is cur.
	j.mu.Lock()
	err := j.err
	j.cur = newGroup(g.base + int64(len(g.buf)))
	j.mu.Unlock()
	if err == nil {
		err = j.commit(g)
	}
	if err != nil {
		j.mu.Lock()
		j.err = err
		j.mu.Unlock()
	}
	g.err = err
	close(g.done)
	return err
}

// commit writes a group and makes it durable. The caller holds the turn.
func (j *journal) commit(g *group) error {
	n, err := j.f.WriteAt(g.buf, g.base)
	if err != nil {
		j.cut(g, n)
		return fail("append to journal", j.path, err)
	}
	if err = j.f.SyncData(); err == nil && !j.named {
		err = j.f.SyncName()
		j.named = err == nil
	}
	if err != nil {
		// What the disk has of the group is unknown.
		j.cut(g, 0)
		return fail("append to journal", j.path, err)
	}
	return nil
}

// cut shortens the file to the last whole record of a group of which n bytes
// were written, as a reader may have seen that much. If that fails too, the
// next writer does it.
func (j *journal) cut(g *group, n int) {
	end := 0
	if g.base == 0 && n >= len(magic) {
		end = len(magic)
	}
	for end < n {
		_, size, err := parseRecord(g.buf[end:n], g.base+int64(end))
		if err != nil {
			break
		}
		end += size
	}
	_ = j.f.Truncate(g.base + int64(end))
}

// Close releases the journal after the write that is under way. Closing it
// again is not an error.
func (j *journal) Close() error {
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	left := j.err
	if left == nil {
		left = &cloud.Error{Op: "append to journal", Resource: j.path, Kind: cloud.KindClosed}
	}
	j.closed = true
	g := j.cur
	j.cur = newGroup(g.base)
	j.mu.Unlock()
	g.err = left
	close(g.done)
	return fail("close journal", j.path, j.f.Close())
}

// journalError gives an error of the scanner its kind.
func journalError(op, path string, err error) error {
	var corrupt *corruptError
	switch {
	case errors.As(err, &corrupt):
		return &cloud.Error{Op: op, Resource: path, Kind: cloud.KindCorrupt, Err: err}
	case errors.Is(err, errNoJournal):
		return &cloud.Error{Op: op, Resource: path, Kind: cloud.KindCorrupt, Err: err}
	case errors.Is(err, errVersion), errors.Is(err, errPosition):
		return &cloud.Error{Op: op, Resource: path, Kind: cloud.KindInvalid, Err: err}
	}
	return fail(op, path, err)
}

// control runs fn on the descriptor of a file.
func control(f *os.File, fn func(fd uintptr) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = fn(fd) }); cerr != nil {
		return cerr
	}
	return err
}
