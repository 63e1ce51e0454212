package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

// link is the network between one process and its store: it takes time, can be
// cut, and loses replies.
type link struct {
	*cloudtest.Store
	latency time.Duration
	lossy   float64 // share of writes of which the reply is lost

	mu   sync.Mutex
	rng  *rand.Rand
	down bool
}

var _ cloud.Store = (*link)(nil)

var errCut = errors.New("the network is down")

func (l *link) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

func (l *link) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

func (l *link) lose() bool {
	if l.lossy == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Float64() < l.lossy
}

// wait is the way of a request.
func (l *link) wait(ctx context.Context, key string) error {
	l.mu.Lock()
	latency := l.latency
	l.mu.Unlock()
	if latency > 0 {
		t := time.NewTimer(latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if l.isDown() {
		return &cloud.Error{Op: "reach", Resource: key, Kind: cloud.KindTransient, Err: errCut}
	}
	return nil
}

func (l *link) reply(key string, err error) error {
	if err == nil && l.lose() {
		return &cloud.Error{Op: "hear of", Resource: key, Kind: cloud.KindTransient, Err: errCut}
	}
	return err
}

func (l *link) Get(ctx context.Context, key string) ([]byte, error) {
	if err := l.wait(ctx, key); err != nil {
		return nil, err
	}
	return l.Store.Get(ctx, key)
}

func (l *link) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := l.wait(ctx, key); err != nil {
		return 0, err
	}
	return l.Store.ReadAt(ctx, key, p, off)
}

func (l *link) Put(ctx context.Context, key string, data []byte) error {
	if err := l.wait(ctx, key); err != nil {
		return err
	}
	return l.reply(key, l.Store.Put(ctx, key, data))
}

func (l *link) PutFrom(ctx context.Context, key string, r io.Reader) error {
	if err := l.wait(ctx, key); err != nil {
		return err
	}
	return l.Store.PutFrom(ctx, key, r)
}

func (l *link) Create(ctx context.Context, key string, data []byte) error {
	if err := l.wait(ctx, key); err != nil {
		return err
	}
	return l.reply(key, l.Store.Create(ctx, key, data))
}

func (l *link) List(ctx context.Context, prefix string, fn func(cloud.ObjectInfo) bool) error {
	if err := l.wait(ctx, prefix); err != nil {
		return err
	}
	return l.Store.List(ctx, prefix, fn)
}
