package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

const (
	// ahead is how many segments are fetched before their turn.
	ahead = 16
	// aheadSize is the longest segment that is: longer ones, of huge records,
	// are fetched one at a time, so that memory stays bounded.
	aheadSize = 2 * fullSegment
)

var errPosition = errors.New("no record begins at this position")

// ReadJournal calls fn with each record from pos on; see cloud.Store. Without
// news it costs one LIST.
func (s *Store) ReadJournal(ctx context.Context, key string, pos int64, fn func(pos int64, rec []byte) error) (int64, error) {
	const op = "read journal"
	if err := s.begin(ctx, op, key); err != nil {
		return pos, err
	}
	from, off := pos>>offsetBits, int(pos&(1<<offsetBits-1))*8
	if pos < 0 || from == 0 && off > 0 {
		return pos, s.journalError(op, key, cloud.KindInvalid, errPosition)
	}
	from = max(from, 1)
	// The page begins with the segment before the one that is wanted: that it
	// is there proves the position.
	page, err := s.segments(ctx, key, max(from-2, 0))
	if err != nil {
		return pos, err
	}
	proof := from
	if off == 0 && from > 1 {
		proof--
	}
	if len(page.list) == 0 || page.list[0].number > proof || page.list[len(page.list)-1].number < proof {
		return pos, s.noPosition(ctx, key, pos)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	queue := make(chan *fetch, ahead)
	go s.fetch(ctx, key, page, from, queue)
	next := max(pos, position(from, 0))
	for f := range queue {
		n, err := s.records(ctx, f, off, fn)
		if err != nil {
			return max(n, next), err
		}
		next, off = position(f.number+1, 0), 0
	}
	if ctx.Err() != nil {
		return next, context.Cause(ctx)
	}
	if pos == 0 && next == position(1, 0) {
		next = 0
	}
	return next, nil
}

// noPosition is the error for a position that was not found.
func (s *Store) noPosition(ctx context.Context, key string, pos int64) error {
	const op = "read journal"
	first, err := s.segments(ctx, key, 0)
	switch {
	case err != nil:
		return err
	case len(first.list) == 0:
		return s.journalError(op, key, cloud.KindNotFound, nil)
	case pos == 0:
		return s.journalError(op, key, cloud.KindCorrupt, errors.New("its first segment is missing"))
	}
	return s.journalError(op, key, cloud.KindInvalid, errPosition)
}

func (s *Store) journalError(op, key string, kind cloud.Kind, err error) error {
	return &cloud.Error{Op: op, Resource: s.path(key), Kind: kind, Err: err}
}

// fetch is a segment that is being read.
type fetch struct {
	journalSegment
	key  string
	data []byte
	err  error
	done chan struct{} // nil: nobody reads it yet
}

// fetch reads the segments from a number on, some of them at a time, and
// hands them out in order.
func (s *Store) fetch(ctx context.Context, key string, page segmentPage, from int64, queue chan<- *fetch) {
	defer close(queue)
	hand := func(f *fetch) bool {
		select {
		case queue <- f:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for want := from; ; {
		for _, g := range page.list {
			if g.number < from {
				continue
			}
			f := &fetch{journalSegment: g, key: key}
			if g.number != want {
				f.done = make(chan struct{})
				f.err = s.journalError("read journal", key, cloud.KindCorrupt, fmt.Errorf("segment %d is missing", want))
				close(f.done)
				hand(f)
				return
			}
			want++
			if g.size <= aheadSize {
				f.done = make(chan struct{})
				go func() {
					defer close(f.done)
					f.data, f.err = s.whole(ctx, key, g.number, g.etag)
				}()
			}
			if !hand(f) {
				return
			}
		}
		if !page.more {
			return
		}
		var err error
		if page, err = s.segments(ctx, key, want-1); err != nil {
			f := &fetch{key: key, err: err, done: make(chan struct{})}
			close(f.done)
			hand(f)
			return
		}
	}
}

// whole reads a segment; etag may be "" if it is not known.
func (s *Store) whole(ctx context.Context, key string, number int64, etag string) ([]byte, error) {
	if b := s.cache.get(key, number, etag); b != nil {
		return b, nil
	}
	b, etag, err := s.get(ctx, key+"/"+segmentName(number), "")
	if err == nil {
		s.cache.put(key, number, etag, b)
	}
	return b, err
}

// records calls fn with the records of a segment from an offset on. next is
// the position of the record at which an error stopped it.
func (s *Store) records(ctx context.Context, f *fetch, off int, fn func(int64, []byte) error) (next int64, err error) {
	if f.done != nil {
		<-f.done
	} else {
		f.data, f.err = s.whole(ctx, f.key, f.number, f.etag)
	}
	if f.err != nil {
		return 0, f.err
	}
	_, records, err := parseSegment(f.data, f.number)
	if err != nil {
		return 0, s.journalError("read journal", f.key+"/"+segmentName(f.number), cloud.KindCorrupt, err)
	}
	for start := off; off < len(records) || off == start && off > 0; {
		pos := position(f.number, off)
		payload, end, err := parseRecord(records, f.number, off)
		if err != nil {
			kind, why := cloud.KindCorrupt, fmt.Errorf("the record at %d fails its checksum", off)
			if off == start && off > 0 {
				kind, why = cloud.KindInvalid, errPosition
			}
			return pos, s.journalError("read journal", f.key+"/"+segmentName(f.number), kind, why)
		}
		if ctx.Err() != nil {
			return pos, context.Cause(ctx)
		}
		if err := fn(pos, payload); err != nil {
			return pos, err
		}
		off = end
	}
	return 0, nil
}

// ReadRecord reads the record at a position; see cloud.Store. Neighbours are
// likely to be wanted next, so the segment is read whole and kept for a while.
func (s *Store) ReadRecord(ctx context.Context, key string, pos int64) ([]byte, error) {
	const op = "read record"
	if err := s.begin(ctx, op, key); err != nil {
		return nil, err
	}
	number, off := pos>>offsetBits, int(pos&(1<<offsetBits-1))*8
	var b []byte
	err := s.journalError(op, key, cloud.KindNotFound, nil)
	if number > 0 && number < maxSegments {
		b, err = s.whole(ctx, key, number, "")
	}
	if cloud.KindOf(err) == cloud.KindNotFound {
		// A position of another journal, or is there none at all?
		if page, lerr := s.segments(ctx, key, 0); lerr != nil {
			return nil, lerr
		} else if len(page.list) == 0 {
			return nil, s.journalError(op, key, cloud.KindNotFound, nil)
		}
		return nil, s.journalError(op, key, cloud.KindCorrupt, fmt.Errorf("no valid record at %d", pos))
	}
	if err != nil {
		return nil, err
	}
	_, records, err := parseSegment(b, number)
	if err != nil {
		return nil, s.journalError(op, key+"/"+segmentName(number), cloud.KindCorrupt, err)
	}
	payload, _, err := parseRecord(records, number, off)
	if err != nil {
		return nil, s.journalError(op, key, cloud.KindCorrupt, fmt.Errorf("no valid record at %d", pos))
	}
	return bytes.Clone(payload), nil
}
