package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Store is a store in memory. It is what one process sees of it: Process makes
// the handle of another process, Kill ends this one as kill -9 does.
type Store struct {
	data *storeData
	dead bool // under data.mu
}

var _ cloud.Store = (*Store)(nil)

// storeData is what all handles share.
type storeData struct {
	mu       sync.Mutex
	objects  map[string]object
	journals map[string]*memJournal
}

type object struct {
	data     []byte
	modified time.Time
}

// memJournal is a journal. A record's position is the sum of the sizes before
// it, each with a made-up header, so that positions are not indices.
type memJournal struct {
	recs   [][]byte
	pos    []int64
	end    int64
	writer *memWriter
}

const memHeader = 16

// NewStore makes an empty store.
func NewStore() *Store {
	return &Store{data: &storeData{objects: map[string]object{}, journals: map[string]*memJournal{}}}
}

// Process is the same store as another process has it open.
func (s *Store) Process() *Store { return &Store{data: s.data} }

// errKilled is what a killed process gets: it cannot notice anything else.
var errKilled = errors.New("this process was killed")

// Kill ends the process of this handle: nothing it does has an effect any more
// and every call fails. Its journals are free for others.
func (s *Store) Kill() {
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	s.dead = true
	for _, j := range s.data.journals {
		if j.writer != nil && j.writer.store == s {
			j.writer = nil
		}
	}
}

func storeError(op, key string, kind cloud.Kind, err error) error {
	return &cloud.Error{Op: op, Resource: key, Kind: kind, Err: err}
}

// begin checks what every method checks, and locks. On success the caller
// unlocks.
func (s *Store) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !fs.ValidPath(key) || key == "." || !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0 {
		return storeError(op, fmt.Sprintf("%q", key), cloud.KindInvalid, nil)
	}
	return s.lock(op, key)
}

func (s *Store) lock(op, key string) error {
	s.data.mu.Lock()
	if s.dead {
		s.data.mu.Unlock()
		return storeError(op, key, cloud.KindOther, errKilled)
	}
	return nil
}

// URL names the store.
func (s *Store) URL() string { return fmt.Sprintf("memory:%p", s.data) }

// Get reads an object.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	defer s.data.mu.Unlock()
	o, ok := s.data.objects[key]
	if !ok {
		return nil, storeError("get", key, cloud.KindNotFound, nil)
	}
	return append([]byte{}, o.data...), nil
}

// ReadAt reads a part of an object.
func (s *Store) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := s.begin(ctx, "read", key); err != nil {
		return 0, err
	}
	defer s.data.mu.Unlock()
	o, ok := s.data.objects[key]
	if !ok {
		return 0, storeError("read", key, cloud.KindNotFound, nil)
	}
	if off < 0 {
		return 0, storeError("read", key, cloud.KindInvalid, fmt.Errorf("negative offset %d", off))
	}
	return bytes.NewReader(o.data).ReadAt(p, off)
}

// Put writes an object.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	if err := s.begin(ctx, "put", key); err != nil {
		return err
	}
	defer s.data.mu.Unlock()
	s.data.objects[key] = object{append([]byte{}, data...), time.Now()}
	return nil
}

// PutFrom writes an object from a reader.
func (s *Store) PutFrom(ctx context.Context, key string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return storeError("put", key, cloud.KindOther, err)
	}
	return s.Put(ctx, key, data)
}

// Append adds to an object that grows, as an agent's log does.
func (s *Store) Append(ctx context.Context, key string, data []byte) error {
	if err := s.begin(ctx, "append", key); err != nil {
		return err
	}
	defer s.data.mu.Unlock()
	s.data.objects[key] = object{slices.Concat(s.data.objects[key].data, data), time.Now()}
	return nil
}

// Create writes an object if there is none.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	if err := s.begin(ctx, "create", key); err != nil {
		return err
	}
	defer s.data.mu.Unlock()
	if _, ok := s.data.objects[key]; ok {
		return storeError("create", key, cloud.KindConflict, nil)
	}
	s.data.objects[key] = object{append([]byte{}, data...), time.Now()}
	return nil
}

// List lists objects, journals too, as a folder would.
func (s *Store) List(ctx context.Context, prefix string, fn func(cloud.ObjectInfo) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.lock("list", prefix); err != nil {
		return err
	}
	var list []cloud.ObjectInfo
	for key, o := range s.data.objects {
		if strings.HasPrefix(key, prefix) {
			list = append(list, cloud.ObjectInfo{Key: key, Size: int64(len(o.data)), Modified: o.modified})
		}
	}
	for key, j := range s.data.journals {
		if strings.HasPrefix(key, prefix) {
			list = append(list, cloud.ObjectInfo{Key: key, Size: j.end})
		}
	}
	s.data.mu.Unlock()
	slices.SortFunc(list, func(a, b cloud.ObjectInfo) int { return strings.Compare(a.Key, b.Key) })
	for _, o := range list {
		if !fn(o) {
			break
		}
	}
	return nil
}

// Delete removes objects.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := s.begin(ctx, "delete", key); err != nil {
			return err
		}
		delete(s.data.objects, key)
		delete(s.data.journals, key)
		s.data.mu.Unlock()
	}
	return nil
}

// DeletePrefix removes the objects under a prefix.
func (s *Store) DeletePrefix(ctx context.Context, prefix string) error {
	prefix = strings.TrimSuffix(prefix, "/")
	if err := s.begin(ctx, "delete", prefix); err != nil {
		return err
	}
	defer s.data.mu.Unlock()
	for key := range s.data.objects {
		if strings.HasPrefix(key, prefix+"/") {
			delete(s.data.objects, key)
		}
	}
	for key := range s.data.journals {
		if strings.HasPrefix(key, prefix+"/") {
			delete(s.data.journals, key)
		}
	}
	return nil
}

// memWriter is an open journal.
type memWriter struct {
	store  *Store
	key    string
	j      *memJournal
	closed bool
}

// OpenJournal opens a journal for writing.
func (s *Store) OpenJournal(ctx context.Context, key string) (cloud.Journal, error) {
	if err := s.begin(ctx, "open journal", key); err != nil {
		return nil, err
	}
	defer s.data.mu.Unlock()
	j := s.data.journals[key]
	if j == nil {
		j = &memJournal{}
		s.data.journals[key] = j
	}
	if j.writer != nil {
		return nil, storeError("open journal", key, cloud.KindConflict, errors.New("another process is writing it"))
	}
	j.writer = &memWriter{store: s, key: key, j: j}
	return j.writer, nil
}

// Append adds records.
func (w *memWriter) Append(recs ...[]byte) ([]int64, error) {
	if err := w.store.lock("append to journal", w.key); err != nil {
		return nil, err
	}
	defer w.store.data.mu.Unlock()
	if w.closed {
		return nil, storeError("append to journal", w.key, cloud.KindClosed, nil)
	}
	var pos []int64
	for _, r := range recs {
		pos = append(pos, w.j.end)
		w.j.pos = append(w.j.pos, w.j.end)
		w.j.recs = append(w.j.recs, append([]byte{}, r...))
		w.j.end += memHeader + int64(len(r))
	}
	return pos, nil
}

// Close releases the journal.
func (w *memWriter) Close() error {
	if err := w.store.lock("close journal", w.key); err != nil {
		return err
	}
	defer w.store.data.mu.Unlock()
	w.closed = true
	if w.j.writer == w {
		w.j.writer = nil
	}
	return nil
}

// ReadJournal reads records from a position on.
func (s *Store) ReadJournal(ctx context.Context, key string, pos int64, fn func(pos int64, rec []byte) error) (int64, error) {
	if err := s.begin(ctx, "read journal", key); err != nil {
		return pos, err
	}
	j := s.data.journals[key]
	var from int
	found := false
	var recs [][]byte
	var at []int64
	if j != nil {
		from, found = slices.BinarySearch(j.pos, pos)
		found = found || pos == j.end
		recs, at = j.recs[from:], j.pos[from:]
	}
	s.data.mu.Unlock()
	switch {
	case j == nil:
		return pos, storeError("read journal", key, cloud.KindNotFound, nil)
	case !found:
		return pos, storeError("read journal", key, cloud.KindInvalid, fmt.Errorf("no record begins at %d", pos))
	}
	for i, rec := range recs {
		err := ctx.Err()
		if err == nil {
			err = fn(at[i], append([]byte{}, rec...))
		}
		if err != nil {
			return at[i], err
		}
		pos = at[i] + memHeader + int64(len(rec))
	}
	return pos, nil
}

// ReadRecord reads one record.
func (s *Store) ReadRecord(ctx context.Context, key string, pos int64) ([]byte, error) {
	if err := s.begin(ctx, "read record", key); err != nil {
		return nil, err
	}
	defer s.data.mu.Unlock()
	j := s.data.journals[key]
	if j == nil {
		return nil, storeError("read record", key, cloud.KindNotFound, nil)
	}
	i, ok := slices.BinarySearch(j.pos, pos)
	if !ok {
		return nil, storeError("read record", key, cloud.KindCorrupt, fmt.Errorf("no record at %d", pos))
	}
	return append([]byte{}, j.recs[i]...), nil
}

// JournalAlive says whether a writer holds the journal.
func (s *Store) JournalAlive(ctx context.Context, key string) (bool, error) {
	if err := s.begin(ctx, "look at journal", key); err != nil {
		return false, err
	}
	defer s.data.mu.Unlock()
	j := s.data.journals[key]
	return j != nil && j.writer != nil, nil
}
