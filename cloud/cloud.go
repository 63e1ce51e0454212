// Package cloud is the contract between the job runner and the place where
// jobs run. Three small interfaces, Store, Queue and Machines, have one
// implementation per place: cloud/local (this machine), cloud/aws (S3, SQS,
// EC2). The rest of the program knows only this package.
package cloud

import (
	"context"
	"io"
	"time"
)

// Store keeps the objects of runs under slash-separated keys such as
// "runs/<id>/plan.json". Keys are made by this program, are valid UTF-8, never
// start with "/" and have no "." or ".." elements; implementations refuse
// others with KindInvalid.
//
// All methods are safe for concurrent use and may be retried: every write is
// atomic (a reader sees the old object or the new one, never a part).
type Store interface {
	// URL is the address with which the store can be opened again:
	// an absolute folder or s3://bucket/prefix.
	URL() string
	// Get reads a whole object. KindNotFound if there is none.
	Get(ctx context.Context, key string) ([]byte, error)
	// ReadAt reads up to len(p) bytes from off on, like io.ReaderAt: io.EOF
	// with what there was if the object ends before. KindNotFound if there is
	// no object. The object may be growing.
	ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error)
	// Put writes an object, replacing one that exists.
	Put(ctx context.Context, key string, data []byte) error
	// PutFrom writes an object from a reader; for large ones.
	PutFrom(ctx context.Context, key string, r io.Reader) error
	// Create writes an object only if there is none: KindConflict if there is.
	// Exactly one of many concurrent callers succeeds.
	Create(ctx context.Context, key string, data []byte) error
	// List calls fn for each object whose key starts with prefix, in key
	// order, until fn returns false.
	List(ctx context.Context, prefix string, fn func(ObjectInfo) bool) error
	// Delete removes objects. Deleting one that is gone is not an error.
	Delete(ctx context.Context, keys ...string) error
	// DeletePrefix removes every object whose key starts with prefix + "/".
	DeletePrefix(ctx context.Context, prefix string) error
	// OpenJournal opens the journal with this key for writing, creating it if
	// needed, after recovering a torn tail. KindConflict if another live
	// writer has it: there is never more than one.
	OpenJournal(ctx context.Context, key string) (Journal, error)
	// ReadJournal calls fn with each record from position pos on (0 is the
	// start) and returns the position behind the last whole record. A torn or
	// half-written tail is not an error: reading ends before it. A record in
	// the middle that fails its checksum is KindCorrupt. fn must not keep rec;
	// an error of fn ends the reading and is returned as it is. A pos where no
	// record begins is KindInvalid: a follower may hold one when a torn tail
	// that it had seen was cut off; it starts again from 0.
	ReadJournal(ctx context.Context, key string, pos int64, fn func(pos int64, rec []byte) error) (next int64, err error)
	// ReadRecord reads one record at a position that ReadJournal or
	// Journal.Append gave.
	ReadRecord(ctx context.Context, key string, pos int64) ([]byte, error)
	// JournalAlive says whether a live writer holds the journal now.
	JournalAlive(ctx context.Context, key string) (bool, error)
}

// ObjectInfo describes a stored object.
type ObjectInfo struct {
	Key      string
	Size     int64 // bytes
	Modified time.Time
}

// Journal is the append-only record of one run, held by its only writer.
type Journal interface {
	// Append writes records and returns their positions once all of them are
	// durable. After an error nothing more may be appended; what was already
	// acknowledged stays readable. A disk without room is KindFull; after Close
	// it is KindClosed; a record that is too large (64 MiB) is KindInvalid and
	// does no harm. Concurrent callers share a write.
	Append(recs ...[]byte) (pos []int64, err error)
	// Close releases the journal to another writer.
	Close() error
}

// Range is a piece of work: tasks From to To-1 of one function, each at
// attempt Attempt (the first is 1). It carries indices, never items.
type Range struct {
	Run      string `json:"run"`
	Function string `json:"function"`
	From     int    `json:"from"`
	To       int    `json:"to"` // excluded
	Attempt  int    `json:"attempt"`
	// Memory, in bytes, asks for a machine with at least that much (a retry
	// after out of memory); the local machine runs such a task alone. 0: any.
	Memory int64 `json:"memory,omitempty"`
	// ID names the range among those of its run, where machines claim what
	// they take; "" on this machine.
	ID string `json:"id,omitempty"`
	// Upstream, of a function whose tasks follow those of another one by one,
	// says where in the journal the outcomes of these lie. Only the executor
	// reads it.
	Upstream string `json:"upstream,omitempty"`
	// Hint, if set, makes this a message that carries no work.
	Hint string `json:"hint,omitempty"`
}

// Delivery is a received range. It must be given back with Done or Return.
type Delivery struct {
	Range
	Receipt string
}

// Queue hands out ranges, at least once each, in no promised order. A queue
// carries work and hints, never the only copy of a fact.
type Queue interface {
	// Send adds ranges.
	Send(ctx context.Context, ranges ...Range) error
	// Receive waits until it can hand out a range or ctx ends.
	Receive(ctx context.Context) (Delivery, error)
	// Done removes a received range for good. Doing it twice is not an error.
	Done(ctx context.Context, d Delivery) error
	// Return makes a received range available again after a delay. After Done,
	// and on a closed queue, it does nothing.
	Return(ctx context.Context, d Delivery, after time.Duration) error
	// Close ends the queue: Receive and Send return KindClosed everywhere.
	Close() error
}

// MachineSpec says which machines to launch for a run.
type MachineSpec struct {
	Run    string            // run id
	Pool   string            // hash over everything that went into the launch
	Token  string            // idempotency token: same token, same machines
	Count  int               // how many
	Types  []string          // acceptable instance types, best first
	Spot   string            // on-demand | spot | spot_with_fallback
	Region string            // empty: the default
	DiskGB int               // root disk
	Tags   map[string]string // on everything that is created
	Role   string            // "": it runs tasks; RoleCoordinator
}

// RoleCoordinator is the role of a machine that a detached run's coordinator
// lives on. It runs no tasks.
const RoleCoordinator = "coordinator"

// Machine is a rented (or this) machine.
type Machine struct {
	ID, Run, Pool, Type, Zone string
	Spot                      bool
	State                     string // pending | running | ended
	Launched                  time.Time
	PricePerHour              float64 // dollars
	Role                      string  // as it was launched
}

// Machines rents and releases machines.
type Machines interface {
	// Launch starts up to spec.Count machines. Fewer than asked for together
	// with an error of KindNoCapacity or KindQuota is a normal outcome.
	Launch(ctx context.Context, spec MachineSpec) ([]Machine, error)
	// List finds the machines of a run (all of this program's if run is "")
	// by what the cloud says, not by what was recorded. Those of a run are the
	// ones that run tasks: the machine of its coordinator is only among all.
	List(ctx context.Context, run string) ([]Machine, error)
	// Terminate ends machines. One that is already gone is not an error and
	// does not spare the others.
	Terminate(ctx context.Context, ids ...string) error
}
