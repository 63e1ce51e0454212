package cloudtest

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Queue is a cloud.Queue in memory that behaves as a queue in a cloud does: a
// range that was received and not given back becomes visible again, some come
// twice, some come late. It goes by time.Now, for testing/synctest.
type Queue struct {
	// Visibility is how long a received range is hidden; 0 is two minutes.
	Visibility time.Duration
	// Twice says whether the n-th range that is sent (from 1) is delivered
	// twice, Late how long after Send it can be received first. nil: none.
	Twice func(n int) bool
	Late  func(n int) time.Duration
	// Fail may fail an operation (send, receive, done, return) before it has an
	// effect. n counts the calls of the operation from 1.
	Fail func(op string, n int) error

	mu       sync.Mutex
	messages []*message // in the order they were sent
	sent     int
	receipts int
	counts   map[string]int
	changed  chan struct{} // closed when something may have become visible
	closed   bool
}

type message struct {
	cloud.Range
	visible time.Time
	receipt string // the last one
}

var _ cloud.Queue = (*Queue)(nil)

// NewQueue makes an empty queue without faults.
func NewQueue() *Queue { return &Queue{} }

// begin counts an operation and fails it if the script says so. On success the
// caller unlocks.
func (q *Queue) begin(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	if q.counts == nil {
		q.counts, q.changed = map[string]int{}, make(chan struct{})
	}
	q.counts[op]++
	n := q.counts[op]
	q.mu.Unlock()
	if q.Fail != nil {
		if err := q.Fail(op, n); err != nil {
			return err
		}
	}
	q.mu.Lock()
	return nil
}

// wake wakes the receivers. The caller holds mu.
func (q *Queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

func queueClosed(op string) error {
	return &cloud.Error{Op: op, Resource: "queue", Kind: cloud.KindClosed}
}

// Send adds ranges.
func (q *Queue) Send(ctx context.Context, ranges ...cloud.Range) error {
	if err := q.begin(ctx, "send"); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if q.closed {
		return queueClosed("send")
	}
	for _, r := range ranges {
		q.sent++
		visible := time.Now()
		if q.Late != nil {
			visible = visible.Add(q.Late(q.sent))
		}
		q.messages = append(q.messages, &message{Range: r, visible: visible})
		if q.Twice != nil && q.Twice(q.sent) {
			q.messages = append(q.messages, &message{Range: r, visible: visible})
		}
	}
	q.wake()
	return nil
}

// Receive waits for a range that is visible.
func (q *Queue) Receive(ctx context.Context) (cloud.Delivery, error) {
	if err := q.begin(ctx, "receive"); err != nil {
		return cloud.Delivery{}, err
	}
	for {
		if q.closed {
			q.mu.Unlock()
			return cloud.Delivery{}, queueClosed("receive")
		}
		now := time.Now()
		var next *message
		for _, m := range q.messages {
			if next == nil || m.visible.Before(next.visible) {
				next = m
			}
			if !next.visible.After(now) {
				break
			}
		}
		if next != nil && !next.visible.After(now) {
			q.receipts++
			next.receipt = strconv.Itoa(q.receipts)
			hidden := q.Visibility
			if hidden == 0 {
				hidden = 2 * time.Minute
			}
			next.visible = now.Add(hidden)
			d := cloud.Delivery{Range: next.Range, Receipt: next.receipt}
			q.mu.Unlock()
			return d, nil
		}
		changed := q.changed
		var due <-chan time.Time
		stop := func() bool { return true }
		if next != nil {
			t := time.NewTimer(next.visible.Sub(now))
			due, stop = t.C, t.Stop
		}
		q.mu.Unlock()
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
			stop()
			return cloud.Delivery{}, ctx.Err()
		}
		stop()
		q.mu.Lock()
	}
}

// find is the message that a receipt is for; nil if it was received again
// since, or is done. The caller holds mu.
func (q *Queue) find(d cloud.Delivery) (int, *message) {
	for i, m := range q.messages {
		if m.receipt == d.Receipt && d.Receipt != "" {
			return i, m
		}
	}
	return 0, nil
}

// Done removes a range.
func (q *Queue) Done(ctx context.Context, d cloud.Delivery) error {
	if err := q.begin(ctx, "done"); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if i, m := q.find(d); m != nil {
		q.messages = append(q.messages[:i:i], q.messages[i+1:]...)
	}
	return nil
}

// Return makes a range visible after a delay.
func (q *Queue) Return(ctx context.Context, d cloud.Delivery, after time.Duration) error {
	return q.hide(ctx, "return", d, after)
}

// Extend hides a range for a time from now on.
func (q *Queue) Extend(ctx context.Context, d cloud.Delivery, by time.Duration) error {
	return q.hide(ctx, "extend", d, by)
}

func (q *Queue) hide(ctx context.Context, op string, d cloud.Delivery, by time.Duration) error {
	if err := q.begin(ctx, op); err != nil {
		return err
	}
	defer q.mu.Unlock()
	if _, m := q.find(d); m != nil && !q.closed {
		m.visible = time.Now().Add(max(by, 0))
		q.wake()
	}
	return nil
}

// Len is how many ranges are there, hidden ones included.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

// Close ends the queue.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.changed == nil {
		q.counts, q.changed = map[string]int{}, make(chan struct{})
	}
	q.closed = true
	q.wake()
	return nil
}
