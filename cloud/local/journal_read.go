package local

import (
	"context"
	"fmt"
	"io"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// ReadJournal calls fn with each record from pos on; see cloud.Store. A
// position behind the end, which a reader may hold when a torn end that it had
// seen was cut off, is KindInvalid: read again from 0.
func (s *Store) ReadJournal(ctx context.Context, key string, pos int64, fn func(pos int64, rec []byte) error) (int64, error) {
	const op = "read journal"
	if err := s.begin(ctx, op, key); err != nil {
		return pos, err
	}
	if pos < 0 {
		return pos, journalError(op, s.Path(key), errPosition)
	}
	f, err := s.files.get(s, key)
	if err != nil {
		return pos, s.fail(op, key, err)
	}
	defer s.files.put(f)
	var ferr error
	next, err := newScanner(f).each(pos, func(pos int64, rec []byte) error {
		if ferr = ctx.Err(); ferr == nil {
			ferr = fn(pos, rec)
		}
		return ferr
	})
	if ferr != nil {
		return next, ferr // the caller's own, as it is
	}
	if err != nil {
		return next, journalError(op, s.Path(key), err)
	}
	return next, nil
}

// ReadRecord reads the record at a position; see cloud.Store.
func (s *Store) ReadRecord(ctx context.Context, key string, pos int64) ([]byte, error) {
	const op = "read record"
	if err := s.begin(ctx, op, key); err != nil {
		return nil, err
	}
	f, err := s.files.get(s, key)
	if err != nil {
		return nil, s.fail(op, key, err)
	}
	defer s.files.put(f)
	// Most records are short: one read gets them whole.
	b := make([]byte, 2048)
	for {
		n, err := f.ReadAt(b, max(pos, 0))
		if err != nil && err != io.EOF {
			return nil, s.fail(op, key, err)
		}
		payload, need, perr := parseRecord(b[:n], pos)
		if perr == errShort && need > len(b) {
			b = make([]byte, need)
			continue
		}
		if perr != nil || pos < int64(len(magic)) {
			return nil, &cloud.Error{Op: op, Resource: s.Path(key), Kind: cloud.KindCorrupt,
				Err: fmt.Errorf("no valid record at byte %d", pos)}
		}
		return payload, nil
	}
}

// JournalAlive says whether a live writer holds the journal. It only asks: no
// writer is kept from starting.
func (s *Store) JournalAlive(ctx context.Context, key string) (bool, error) {
	const op = "look at journal"
	if err := s.begin(ctx, op, key); err != nil {
		return false, err
	}
	f, err := s.openObject(key)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, s.fail(op, key, err)
	}
	defer f.Close()
	held, err := locked(f)
	return held, s.fail(op, key, err)
}
