package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// TestQueue proves that a queue keeps the contract of cloud.Queue. newQueue
// makes an empty one each time.
func TestQueue(t *testing.T, newQueue func(t testing.TB) cloud.Queue) {
	TestQueueOf(t, 3000, newQueue)
}

// TestQueueOf is TestQueue with up to n ranges in a queue, for servers on
// which the usual number would take minutes.
func TestQueueOf(t *testing.T, n int, newQueue func(t testing.TB) cloud.Queue) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, q cloud.Queue)
	}{
		{"every range once", func(t *testing.T, q cloud.Queue) { queueOnce(t, q, n) }},
		{"receive waits", queueWaits},
		{"receive ends with its context", queueContext},
		{"return", queueReturn},
		{"done twice", queueDone},
		{"close", queueClose},
		{"concurrent", func(t *testing.T, q cloud.Queue) { queueConcurrent(t, q, n*2/3/8) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, newQueue(t))
		})
	}
}

// patience is how long a test waits for what must come, from a server on a
// loaded machine too.
const patience = 3 * time.Minute

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func mustReceive(t *testing.T, q cloud.Queue) cloud.Delivery {
	t.Helper()
	d, err := q.Receive(testContext(t))
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return d
}

func piece(i int) cloud.Range {
	return cloud.Range{Run: "r", Function: "f", From: 10 * i, To: 10*i + 10, Attempt: 1}
}

func mustSend(t *testing.T, q cloud.Queue, ranges ...cloud.Range) {
	t.Helper()
	if err := q.Send(t.Context(), ranges...); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func queueOnce(t *testing.T, q cloud.Queue, n int) {
	var all []cloud.Range
	for i := range n {
		all = append(all, piece(i))
	}
	all[7].Memory = 1 << 30
	mustSend(t, q, all[:n/2]...)
	mustSend(t, q, all[n/2:]...)
	got := map[cloud.Range]int{}
	for range n {
		d := mustReceive(t, q)
		got[d.Range]++
		if err := q.Done(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range all {
		if got[r] == 0 {
			t.Errorf("range %+v never came", r)
		}
	}
}

func queueWaits(t *testing.T, q cloud.Queue) {
	got := make(chan cloud.Delivery)
	ctx := testContext(t)
	go func() {
		d, err := q.Receive(ctx)
		if err != nil {
			t.Errorf("receive: %v", err)
		}
		got <- d
	}()
	mustSend(t, q, piece(1))
	if d := <-got; d.Range != piece(1) {
		t.Errorf("received %+v", d.Range)
	}
}

func queueContext(t *testing.T, q cloud.Queue) {
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	go func() {
		_, err := q.Receive(ctx)
		errs <- err
	}()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("receive under a cancelled context: %v", err)
	}
	if _, err := q.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("receive with a cancelled context: %v", err)
	}
	// What comes now is for the next receiver.
	mustSend(t, q, piece(1))
	mustReceive(t, q)
}

func queueReturn(t *testing.T, q cloud.Queue) {
	mustSend(t, q, piece(1))
	d := mustReceive(t, q)
	for _, after := range []time.Duration{0, -1, 20 * time.Millisecond} {
		start := time.Now()
		if err := q.Return(t.Context(), d, after); err != nil {
			t.Fatal(err)
		}
		d = mustReceive(t, q)
		if d.Range != piece(1) {
			t.Fatalf("received %+v", d.Range)
		}
		if waited := time.Since(start); waited < after {
			t.Errorf("returned for %v, came after %v", after, waited)
		}
	}
	// The later word counts: at once instead of in an hour.
	if err := q.Return(t.Context(), d, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := q.Return(t.Context(), d, 0); err != nil {
		t.Fatal(err)
	}
	d = mustReceive(t, q)
	if err := q.Done(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func queueDone(t *testing.T, q cloud.Queue) {
	mustSend(t, q, piece(1), piece(2))
	d := mustReceive(t, q)
	for range 2 {
		if err := q.Done(t.Context(), d); err != nil {
			t.Errorf("done: %v", err)
		}
	}
	if e := mustReceive(t, q); e.Range == d.Range {
		t.Errorf("range %+v came again after it was done", e.Range)
	}
}

func queueClose(t *testing.T, q cloud.Queue) {
	const n = 8
	errs := make(chan error, n)
	ctx := testContext(t)
	for range n {
		go func() {
			_, err := q.Receive(ctx)
			errs <- err
		}()
	}
	for range 2 {
		if err := q.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	for range n {
		if err := <-errs; cloud.KindOf(err) != cloud.KindClosed {
			t.Errorf("receive on a closed queue: %v", err)
		}
	}
	if _, err := q.Receive(ctx); cloud.KindOf(err) != cloud.KindClosed {
		t.Errorf("receive after close: %v", err)
	}
	if err := q.Send(ctx, piece(1)); cloud.KindOf(err) != cloud.KindClosed {
		t.Errorf("send after close: %v", err)
	}
}

func queueConcurrent(t *testing.T, q cloud.Queue, each int) {
	const senders, receivers = 8, 8
	ctx := testContext(t)
	var work sync.WaitGroup
	for s := range senders {
		work.Go(func() {
			for i := range each {
				if err := q.Send(ctx, piece(s*each+i)); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	var mu sync.Mutex
	got := map[int]bool{}
	returned := map[int]bool{}
	all, once := make(chan struct{}), sync.Once{}
	var rcv sync.WaitGroup
	for range receivers {
		rcv.Go(func() {
			for {
				d, err := q.Receive(ctx)
				if cloud.KindOf(err) == cloud.KindClosed {
					return
				}
				if err != nil {
					t.Errorf("receive: %v", err)
					return
				}
				i := d.From / 10
				mu.Lock()
				again := i%7 == 0 && !returned[i]
				returned[i] = true
				got[i] = got[i] || !again
				complete := len(got) == senders*each && !again
				for _, ok := range got {
					complete = complete && ok
				}
				mu.Unlock()
				if again {
					err = q.Return(ctx, d, time.Microsecond)
				} else {
					err = q.Done(ctx, d)
				}
				if err != nil {
					t.Error(fmt.Errorf("give back: %w", err))
				}
				if complete {
					once.Do(func() { close(all) })
				}
			}
		})
	}
	work.Wait()
	select {
	case <-all:
	case <-ctx.Done():
		t.Errorf("%d of %d ranges came", len(got), senders*each)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	rcv.Wait()
}
