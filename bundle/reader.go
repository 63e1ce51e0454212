package bundle

import (
	"context"
	"errors"
	"io"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

const (
	rangeSize  = 8 << 20 // of one request for a large object
	readsAhead = 4       // requests under way
)

// reader reads a large object by several requests at a time.
type reader struct {
	ctx    context.Context
	cancel context.CancelFunc
	store  cloud.Store
	key    string
	size   int64
	next   int64 // where the next request begins
	queue  []chan chunk
	cur    []byte
	err    error
}

type chunk struct {
	data []byte
	err  error
}

// Open reads an object of a known size, in parallel ranges. It is an error if
// the object is shorter. Close ends what is under way.
func Open(ctx context.Context, store cloud.Store, key string, size int64) io.ReadCloser {
	r := &reader{store: store, key: key, size: size}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

func (r *reader) ask() {
	for len(r.queue) < readsAhead && r.next < r.size {
		from, n := r.next, min(rangeSize, r.size-r.next)
		r.next += n
		c := make(chan chunk, 1)
		r.queue = append(r.queue, c)
		go func() {
			b, err := readRange(r.ctx, r.store, r.key, from, n)
			c <- chunk{b, err}
		}()
	}
}

// Read is that of io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.cur) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.ask()
		if len(r.queue) == 0 {
			return 0, io.EOF
		}
		c := <-r.queue[0]
		r.queue = r.queue[1:]
		r.cur, r.err = c.data, c.err
	}
	n := copy(p, r.cur)
	r.cur = r.cur[n:]
	return n, nil
}

// Close ends what is under way and waits for it.
func (r *reader) Close() error {
	r.cancel()
	for _, c := range r.queue {
		<-c
	}
	r.queue = nil
	return nil
}

// readRange reads n bytes of an object, which must have them.
func readRange(ctx context.Context, store cloud.Store, key string, from, n int64) ([]byte, error) {
	b := make([]byte, n)
	got := 0
	for got < len(b) {
		m, err := store.ReadAt(ctx, key, b[got:], from+int64(got))
		got += m
		if got == len(b) {
			break
		}
		if errors.Is(err, io.EOF) || err == nil && m == 0 {
			return nil, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: io.ErrUnexpectedEOF}
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}
