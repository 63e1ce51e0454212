package cloudtest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Op is an operation of a store or its journals, for fault scripts.
type Op string

// The operations. AnyOp in a Fault matches all of them.
const (
	AnyOp         Op = ""
	OpGet         Op = "get"
	OpReadAt      Op = "read"
	OpPut         Op = "put" // PutFrom too
	OpCreate      Op = "create"
	OpList        Op = "list"
	OpDelete      Op = "delete" // DeletePrefix too
	OpOpenJournal Op = "open journal"
	OpAppend      Op = "append"
	OpReadJournal Op = "read journal"
	OpReadRecord  Op = "read record"
	OpAlive       Op = "alive"
)

// Fault is a line of a fault script: some calls fail.
type Fault struct {
	Op  Op     // of this operation, AnyOp: of all
	Key string // whose key contains this

	// Nth is the first call that fails, counted from 1 among those that match;
	// 0 is 1. Times is how many fail from there on: 0 is 1, -1 all.
	Nth, Times int

	Kind cloud.Kind // how they fail
	Err  error      // the cause; a general one if nil

	// After: the operation takes effect and only its reply is lost.
	After bool
	// Do is called at that moment (before the error is returned): to kill
	// something, to cancel. The store is not locked.
	Do func()
}

// FaultyStore is a store in which things go wrong as written in a script.
type FaultyStore struct {
	store cloud.Store

	mu     sync.Mutex
	faults []Fault
	seen   []int // how many calls matched each fault
	counts map[Op]int
	limit  int64 // bytes that may still be written; negative: no limit
}

var _ cloud.Store = (*FaultyStore)(nil)

// Faulty wraps a store with a fault script. The first fault that matches a
// call decides; a fault counts the calls that reach it.
func Faulty(store cloud.Store, script ...Fault) *FaultyStore {
	return &FaultyStore{store: store, faults: script, seen: make([]int, len(script)), counts: map[Op]int{}, limit: -1}
}

// FullAfter makes every write fail with KindFull that would bring what is
// written from now on over n bytes; -1 frees the disk again.
func (f *FaultyStore) FullAfter(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = n
}

// Count is how many calls of an operation there were, failed ones included.
func (f *FaultyStore) Count(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op != AnyOp {
		return f.counts[op]
	}
	n := 0
	for _, c := range f.counts {
		n += c
	}
	return n
}

var errScripted = errors.New("the fault script says so")

// do performs an operation that writes size bytes, or not.
func (f *FaultyStore) do(op Op, key string, size int, act func() error) error {
	f.mu.Lock()
	f.counts[op]++
	var fault *Fault
	for i := range f.faults {
		x := &f.faults[i]
		if (x.Op != AnyOp && x.Op != op) || !strings.Contains(key, x.Key) {
			continue
		}
		f.seen[i]++
		first := max(x.Nth, 1)
		if f.seen[i] >= first && (x.Times < 0 || f.seen[i] < first+max(x.Times, 1)) {
			fault = x
			break
		}
	}
	full := fault == nil && f.limit >= 0 && int64(size) > f.limit
	if f.limit >= 0 && !full && (fault == nil || fault.After) {
		f.limit -= int64(size)
	}
	f.mu.Unlock()

	if full {
		return &cloud.Error{Op: string(op), Resource: key, Kind: cloud.KindFull, Err: errScripted}
	}
	if fault == nil {
		return act()
	}
	if fault.After {
		if err := act(); err != nil {
			return err
		}
	}
	if fault.Do != nil {
		fault.Do()
	}
	cause := fault.Err
	if cause == nil {
		cause = errScripted
	}
	return &cloud.Error{Op: string(op), Resource: key, Kind: fault.Kind, Err: cause}
}

// URL is that of the store.
func (f *FaultyStore) URL() string { return f.store.URL() }

// Get reads an object.
func (f *FaultyStore) Get(ctx context.Context, key string) (data []byte, err error) {
	err = f.do(OpGet, key, 0, func() (err error) { data, err = f.store.Get(ctx, key); return err })
	if err != nil {
		return nil, err
	}
	return data, nil
}

// ReadAt reads a part of an object.
func (f *FaultyStore) ReadAt(ctx context.Context, key string, p []byte, off int64) (n int, err error) {
	err = f.do(OpReadAt, key, 0, func() (err error) { n, err = f.store.ReadAt(ctx, key, p, off); return err })
	return n, err
}

// Put writes an object.
func (f *FaultyStore) Put(ctx context.Context, key string, data []byte) error {
	return f.do(OpPut, key, len(data), func() error { return f.store.Put(ctx, key, data) })
}

// PutFrom writes an object from a reader.
func (f *FaultyStore) PutFrom(ctx context.Context, key string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return &cloud.Error{Op: string(OpPut), Resource: key, Err: err}
	}
	return f.Put(ctx, key, data)
}

// Create writes an object if there is none.
func (f *FaultyStore) Create(ctx context.Context, key string, data []byte) error {
	return f.do(OpCreate, key, len(data), func() error { return f.store.Create(ctx, key, data) })
}

// List lists objects.
func (f *FaultyStore) List(ctx context.Context, prefix string, fn func(cloud.ObjectInfo) bool) error {
	return f.do(OpList, prefix, 0, func() error { return f.store.List(ctx, prefix, fn) })
}

// Delete removes objects.
func (f *FaultyStore) Delete(ctx context.Context, keys ...string) error {
	return f.do(OpDelete, strings.Join(keys, " "), 0, func() error { return f.store.Delete(ctx, keys...) })
}

// DeletePrefix removes the objects under a prefix.
func (f *FaultyStore) DeletePrefix(ctx context.Context, prefix string) error {
	return f.do(OpDelete, prefix, 0, func() error { return f.store.DeletePrefix(ctx, prefix) })
}

// OpenJournal opens a journal, whose operations obey the script too.
func (f *FaultyStore) OpenJournal(ctx context.Context, key string) (j cloud.Journal, err error) {
	err = f.do(OpOpenJournal, key, 0, func() (err error) { j, err = f.store.OpenJournal(ctx, key); return err })
	if err != nil {
		if j != nil { // opened, but nobody is told: its process would be gone
			_ = j.Close()
		}
		return nil, err
	}
	return &faultyJournal{f: f, key: key, j: j}, nil
}

// ReadJournal reads records.
func (f *FaultyStore) ReadJournal(ctx context.Context, key string, pos int64, fn func(pos int64, rec []byte) error) (next int64, err error) {
	next = pos
	err = f.do(OpReadJournal, key, 0, func() (err error) { next, err = f.store.ReadJournal(ctx, key, pos, fn); return err })
	return next, err
}

// ReadRecord reads a record.
func (f *FaultyStore) ReadRecord(ctx context.Context, key string, pos int64) (rec []byte, err error) {
	err = f.do(OpReadRecord, key, 0, func() (err error) { rec, err = f.store.ReadRecord(ctx, key, pos); return err })
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// JournalAlive says whether a writer holds the journal.
func (f *FaultyStore) JournalAlive(ctx context.Context, key string) (alive bool, err error) {
	err = f.do(OpAlive, key, 0, func() (err error) { alive, err = f.store.JournalAlive(ctx, key); return err })
	return alive && err == nil, err
}

// faultyJournal takes nothing more after an error, as every journal.
type faultyJournal struct {
	f   *FaultyStore
	key string
	j   cloud.Journal

	mu  sync.Mutex
	err error
}

func (j *faultyJournal) Append(recs ...[]byte) (pos []int64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil, j.err
	}
	size := 0
	for _, r := range recs {
		size += len(r)
	}
	err = j.f.do(OpAppend, j.key, size, func() (err error) { pos, err = j.j.Append(recs...); return err })
	if err != nil {
		j.err = err
		return nil, err
	}
	return pos, nil
}

func (j *faultyJournal) Close() error { return j.j.Close() }
