package sim

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// hidden is for how long a queue hides what was received.
const hidden = 2 * time.Minute

// queue is a queue in memory that is quick with thousands of receivers. Like a
// real one it hands out again what was not given back.
type queue struct {
	url  string
	void bool // what is sent is lost

	mu      sync.Mutex
	ready   []cloud.Range
	head    int
	waiters map[*waiter]bool
	order   []*waiter
	flight  map[string]*flight
	last    int
	closed  bool
}

type waiter struct{ got chan cloud.Delivery }

type flight struct {
	cloud.Range
	timer *time.Timer
}

func newQueue(url string) *queue {
	return &queue{url: url, waiters: map[*waiter]bool{}, flight: map[string]*flight{}}
}

func (q *queue) URL() string { return q.url }

func closedError() error {
	return &cloud.Error{Op: "use", Resource: "queue", Kind: cloud.KindClosed}
}

func (q *queue) Send(ctx context.Context, ranges ...cloud.Range) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return closedError()
	}
	if q.void {
		return nil
	}
	q.ready = append(q.ready, ranges...)
	q.serve()
	return nil
}

// serve gives what is ready to who waits. The caller holds mu.
func (q *queue) serve() {
	for q.head < len(q.ready) && len(q.order) > 0 {
		w := q.order[0]
		q.order = q.order[1:]
		if !q.waiters[w] {
			continue
		}
		delete(q.waiters, w)
		w.got <- q.take()
	}
	if q.head > 4096 && q.head*2 > len(q.ready) {
		q.ready = append(q.ready[:0:0], q.ready[q.head:]...)
		q.head = 0
	}
}

// take hands out the first. The caller holds mu.
func (q *queue) take() cloud.Delivery {
	r := q.ready[q.head]
	q.head++
	q.last++
	receipt := strconv.Itoa(q.last)
	q.flight[receipt] = &flight{r, time.AfterFunc(hidden, func() { q.again(receipt) })}
	return cloud.Delivery{Range: r, Receipt: receipt}
}

func (q *queue) again(receipt string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flight[receipt]
	if f == nil || q.closed {
		return
	}
	delete(q.flight, receipt)
	q.ready = append(q.ready, f.Range)
	q.serve()
}

func (q *queue) Receive(ctx context.Context) (cloud.Delivery, error) {
	if ctx.Err() != nil {
		return cloud.Delivery{}, ctx.Err()
	}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return cloud.Delivery{}, closedError()
	}
	w := &waiter{make(chan cloud.Delivery, 1)}
	q.waiters[w] = true
	q.order = append(q.order, w)
	q.serve()
	q.mu.Unlock()
	select {
	case d, ok := <-w.got:
		if !ok {
			return d, closedError()
		}
		return d, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiters[w] {
		delete(q.waiters, w)
		return cloud.Delivery{}, ctx.Err()
	}
	if d, ok := <-w.got; ok {
		return d, nil
	}
	return cloud.Delivery{}, closedError()
}

func (q *queue) Done(_ context.Context, d cloud.Delivery) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if f := q.flight[d.Receipt]; f != nil {
		f.timer.Stop()
		delete(q.flight, d.Receipt)
	}
	return nil
}

func (q *queue) Return(_ context.Context, d cloud.Delivery, after time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if f := q.flight[d.Receipt]; f != nil {
		f.timer.Reset(after)
	}
	return nil
}

func (q *queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	for w := range q.waiters {
		close(w.got)
	}
	for _, f := range q.flight {
		f.timer.Stop()
	}
	q.waiters, q.order, q.flight, q.ready = map[*waiter]bool{}, nil, map[string]*flight{}, nil
	return nil
}

// port is a queue as one process reaches it.
type port struct {
	*queue
	link *link
}

func (p port) Send(ctx context.Context, ranges ...cloud.Range) error {
	if err := p.link.wait(ctx, "queue"); err != nil {
		return err
	}
	return p.link.reply("queue", p.queue.Send(ctx, ranges...))
}

func (p port) Receive(ctx context.Context) (cloud.Delivery, error) {
	if err := p.link.wait(ctx, "queue"); err != nil {
		return cloud.Delivery{}, err
	}
	return p.queue.Receive(ctx)
}

func (p port) Done(ctx context.Context, d cloud.Delivery) error {
	if err := p.link.wait(ctx, "queue"); err != nil {
		return err
	}
	return p.queue.Done(ctx, d)
}

func (p port) Return(ctx context.Context, d cloud.Delivery, after time.Duration) error {
	if err := p.link.wait(ctx, "queue"); err != nil {
		return err
	}
	return p.queue.Return(ctx, d, after)
}
