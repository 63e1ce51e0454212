package machine

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// patient is the store as tasks see it: what fails for a moment is tried again,
// so that an outage fails no task and ends no machine before it is cut off.
type patient struct {
	cloud.Store
	patience func() context.Context // ends when trying is of no use any more
}

func (p *patient) again(ctx context.Context, do func() error) error {
	limit := p.patience()
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := do()
		if k := cloud.KindOf(err); err == nil || k != cloud.KindTransient && k != cloud.KindThrottled {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-limit.Done():
		}
		t.Stop()
		if ctx.Err() != nil || limit.Err() != nil {
			return err
		}
	}
}

// Get reads an object.
func (p *patient) Get(ctx context.Context, key string) (b []byte, err error) {
	err = p.again(ctx, func() error { b, err = p.Store.Get(ctx, key); return err })
	return b, err
}

// ReadAt reads a part of an object.
func (p *patient) ReadAt(ctx context.Context, key string, b []byte, off int64) (n int, err error) {
	err = p.again(ctx, func() error { n, err = p.Store.ReadAt(ctx, key, b, off); return err })
	return n, err
}

// ReadRecord reads a record of a journal.
func (p *patient) ReadRecord(ctx context.Context, key string, pos int64) (b []byte, err error) {
	err = p.again(ctx, func() error { b, err = p.Store.ReadRecord(ctx, key, pos); return err })
	return b, err
}

// Put writes an object.
func (p *patient) Put(ctx context.Context, key string, b []byte) error {
	return p.again(ctx, func() error { return p.Store.Put(ctx, key, b) })
}

// PutFrom writes an object from a reader; again only if that can go back.
func (p *patient) PutFrom(ctx context.Context, key string, r io.Reader) error {
	s, ok := r.(io.Seeker)
	if !ok {
		return p.Store.PutFrom(ctx, key, r)
	}
	first := true
	return p.again(ctx, func() error {
		if !first {
			if _, err := s.Seek(0, io.SeekStart); err != nil {
				return err
			}
		}
		first = false
		return p.Store.PutFrom(ctx, key, r)
	})
}

// Create writes an object if there is none; one with these bytes is ours, if a
// reply may have been lost.
func (p *patient) Create(ctx context.Context, key string, b []byte) error {
	tries := 0
	return p.again(ctx, func() error {
		tries++
		err := p.Store.Create(ctx, key, b)
		if tries > 1 && cloud.KindOf(err) == cloud.KindConflict {
			if have, gerr := p.Store.Get(ctx, key); gerr == nil && bytes.Equal(have, b) {
				return nil
			}
		}
		return err
	})
}
