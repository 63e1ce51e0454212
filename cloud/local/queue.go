package local

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Queue hands out ranges in memory, first in first out. A range is handed out
// once unless it is returned: nothing is lost here without this process.
type Queue struct {
	mu      sync.Mutex
	ready   []cloud.Range // from head on
	head    int
	waiters []*waiter // receivers, in the order they came; only while nothing is ready
	taken   map[string]*time.Timer
	last    uint64 // the last receipt
	closed  bool
}

// waiter is a Receive that found nothing.
type waiter struct {
	got    chan cloud.Delivery // buffered: the giver never waits
	closed chan struct{}
}

var _ cloud.Queue = (*Queue)(nil)

// NewQueue makes an empty queue.
func NewQueue() *Queue { return &Queue{taken: map[string]*time.Timer{}} }

// Send adds ranges at the end.
func (q *Queue) Send(ctx context.Context, ranges ...cloud.Range) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return closedError("send")
	}
	q.add(ranges)
	return nil
}

// add queues ranges and serves who waits. The caller holds mu.
func (q *Queue) add(ranges []cloud.Range) {
	for _, r := range ranges {
		if len(q.waiters) > 0 {
			w := q.waiters[0]
			q.waiters = q.waiters[1:]
			w.got <- q.take(r)
			continue
		}
		if q.head > len(q.ready)/2 && q.head > 64 { // forget what was handed out
			n := copy(q.ready, q.ready[q.head:])
			q.ready, q.head = q.ready[:n], 0
		}
		q.ready = append(q.ready, r)
	}
}

// take notes that a range is in somebody's hands. The caller holds mu.
func (q *Queue) take(r cloud.Range) cloud.Delivery {
	q.last++
	d := cloud.Delivery{Range: r, Receipt: strconv.FormatUint(q.last, 10)}
	q.taken[d.Receipt] = nil
	return d
}

// Receive waits until it can hand out a range, ctx ends or the queue is closed.
func (q *Queue) Receive(ctx context.Context) (cloud.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return cloud.Delivery{}, err
	}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return cloud.Delivery{}, closedError("receive")
	}
	if q.head < len(q.ready) {
		d := q.take(q.ready[q.head])
		q.ready[q.head] = cloud.Range{}
		if q.head++; q.head == len(q.ready) {
			q.ready, q.head = q.ready[:0], 0
		}
		q.mu.Unlock()
		return d, nil
	}
	w := &waiter{got: make(chan cloud.Delivery, 1), closed: make(chan struct{})}
	q.waiters = append(q.waiters, w)
	q.mu.Unlock()

	select {
	case d := <-w.got:
		return d, nil
	case <-w.closed:
		return cloud.Delivery{}, closedError("receive")
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.waiters {
		if q.waiters[i] == w {
			q.waiters = append(q.waiters[:i:i], q.waiters[i+1:]...)
			break
		}
	}
	select {
	case d := <-w.got: // it came at the same moment: the next one gets it
		delete(q.taken, d.Receipt)
		if !q.closed {
			q.giveBack(d.Range)
		}
	default:
	}
	return cloud.Delivery{}, ctx.Err()
}

// giveBack puts a range where it came from, at the front. The caller holds mu.
func (q *Queue) giveBack(r cloud.Range) {
	if len(q.waiters) > 0 {
		q.add([]cloud.Range{r})
		return
	}
	if q.head > 0 {
		q.head--
		q.ready[q.head] = r
		return
	}
	q.ready = append([]cloud.Range{r}, q.ready...)
}

// Done removes a received range for good.
func (q *Queue) Done(_ context.Context, d cloud.Delivery) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.taken[d.Receipt]; t != nil {
		t.Stop() // it was returned with a delay that has not passed
	}
	delete(q.taken, d.Receipt)
	return nil
}

// Return makes a received range available again after a delay, at the end of
// the queue. After Done it does nothing; on a closed queue neither.
func (q *Queue) Return(_ context.Context, d cloud.Delivery, after time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	timer, ok := q.taken[d.Receipt]
	if !ok || q.closed {
		return nil
	}
	if timer != nil { // returned before: the later word counts
		timer.Stop()
	}
	if after <= 0 {
		delete(q.taken, d.Receipt)
		q.add([]cloud.Range{d.Range})
		return nil
	}
	var mine *time.Timer
	mine = time.AfterFunc(after, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.closed || q.taken[d.Receipt] != mine {
			return
		}
		delete(q.taken, d.Receipt)
		q.add([]cloud.Range{d.Range})
	})
	q.taken[d.Receipt] = mine
	return nil
}

// Close ends the queue: every Receive, waiting or to come, returns KindClosed.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, w := range q.waiters {
		close(w.closed)
	}
	for _, t := range q.taken {
		if t != nil {
			t.Stop()
		}
	}
	q.waiters, q.ready, q.head, q.taken = nil, nil, 0, map[string]*time.Timer{}
	return nil
}

func closedError(op string) error {
	return &cloud.Error{Op: op, Resource: "queue", Kind: cloud.KindClosed}
}
