package executor

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Upstream is what a task that follows another one must know of that.
type Upstream struct {
	Result  []byte // as compact JSON
	Outputs []task.Output
	ID      task.ID // identity of its work, for the cache
}

// encodeUpstream is cloud.Range.Upstream: the index of the first task, then
// runs of adjacent positions, each as its distance from the end of the last one
// and its length. Neighbours often lie in one record.
func encodeUpstream(from int, pos []int64) string {
	b := binary.AppendUvarint(nil, uint64(from))
	last := int64(0)
	for k := 0; k < len(pos); {
		n := 1
		for k+n < len(pos) && pos[k+n] == pos[k]+int64(n) {
			n++
		}
		b = binary.AppendVarint(b, pos[k]-last)
		b = binary.AppendUvarint(b, uint64(n))
		last = pos[k] + int64(n)
		k += n
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// upstreamPos finds the position for an index.
func upstreamPos(encoded string, index int) (int64, error) {
	bad := fmt.Errorf("malformed upstream %q of task %d", encoded, index)
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return 0, bad
	}
	r := &reader{b: b}
	left := int64(index) - int64(r.uvarint())
	if left < 0 || r.bad {
		return 0, bad
	}
	at := int64(0)
	for len(r.b) > 0 {
		at += r.varint()
		n := r.uvarint()
		if r.bad {
			break
		}
		if uint64(left) < n {
			return at + left, nil
		}
		left -= int64(n)
		at += int64(n)
	}
	return 0, bad
}

// UpstreamReader reads what tasks follow, for a machine. Its methods may be
// called from several goroutines.
type UpstreamReader struct {
	rd journalReader

	mu     sync.Mutex
	recent [8]recentRecord // neighbours lie in one record
	oldest int
}

// NewUpstreamReader makes one for a run.
func NewUpstreamReader(store cloud.Store, run string) *UpstreamReader {
	return &UpstreamReader{rd: journalReader{store, run}}
}

// Read is what task index of a range with this Upstream follows.
func (u *UpstreamReader) Read(ctx context.Context, upstream string, index int) (Upstream, error) {
	pos, err := upstreamPos(upstream, index)
	if err != nil {
		return Upstream{}, err
	}
	rec, ordinal := splitPos(pos)
	o, err := u.record(ctx, rec)
	if err != nil {
		return Upstream{}, err
	}
	if ordinal >= len(o.list) {
		return Upstream{}, errRecord
	}
	oc := &o.list[ordinal]
	res, err := u.rd.result(ctx, oc)
	return Upstream{Result: res, Outputs: oc.Outputs, ID: oc.ID}, err
}

func (u *UpstreamReader) record(ctx context.Context, pos int64) (*outcomes, error) {
	u.mu.Lock()
	for _, r := range u.recent {
		if r.pos == pos && r.o != nil {
			u.mu.Unlock()
			return r.o, nil
		}
	}
	u.mu.Unlock()
	o, err := u.rd.record(ctx, pos)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recent[u.oldest] = recentRecord{pos, o}
	u.oldest = (u.oldest + 1) % len(u.recent)
	return o, nil
}

// ReadUpstream is UpstreamReader.Read for a single task.
func ReadUpstream(ctx context.Context, store cloud.Store, run, upstream string, index int) (Upstream, error) {
	return NewUpstreamReader(store, run).Read(ctx, upstream, index)
}
