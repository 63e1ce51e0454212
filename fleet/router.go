package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// router is the queue of the coordinator: it sends each range to the queue of
// the kind that works on it, in the background, for as long as it takes.
type router struct {
	f *Fleet

	mu     sync.Mutex
	closed bool
	kinds  []*kindState
	fresh  []*heldRange // not yet known to the loop
	boxes  map[*kindState]*outbox
	// parked are ranges that wait for a kind of machines with more memory,
	// which is being made for their function.
	parked map[string][]cloud.Range
}

// outbox is what waits to be sent to the queue of a kind.
type outbox struct {
	queue Queue // nil: it is not there yet
	list  []cloud.Range
	busy  bool
}

func newRouter(f *Fleet) *router {
	r := &router{f: f, kinds: f.s.kinds, boxes: map[*kindState]*outbox{}, parked: map[string][]cloud.Range{}}
	for _, k := range f.s.kinds {
		r.boxes[k] = &outbox{}
	}
	return r
}

// Send takes ranges and returns at once.
func (r *router) Send(ctx context.Context, ranges ...cloud.Range) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return &cloud.Error{Op: "send to", Resource: "queue", Kind: cloud.KindClosed, Err: errors.New("the queue was closed")}
	}
	for _, x := range ranges {
		k := kindFor(r.kinds, x.Function, x.Memory)
		switch {
		case k == nil:
			r.mu.Unlock()
			return &cloud.Error{Op: "send to", Resource: "queue", Kind: cloud.KindInvalid, Err: errors.New("no machines work for " + x.Function)}
		case k.Memory < x.Memory && r.f.cfg.Larger != nil:
			r.park(x)
		default:
			r.route(x, k)
		}
	}
	r.mu.Unlock()
	// The loop looks at the demand anew. It must not be waited for: it asks the
	// coordinator, which may be the caller.
	select {
	case r.f.in <- func() {}:
	default:
	}
	return nil
}

// route puts a range into the outbox of a kind. The caller holds mu.
func (r *router) route(x cloud.Range, k *kindState) {
	if k.Memory > 0 && x.Memory > k.Memory {
		x.Memory = k.Memory // more is not to be had
	}
	r.fresh = append(r.fresh, &heldRange{Range: x, kind: k, sent: time.Now()})
	b := r.boxes[k]
	b.list = append(b.list, x)
	r.kick(b)
}

// kick starts to empty an outbox. The caller holds mu.
func (r *router) kick(b *outbox) {
	if b.busy || b.queue == nil || len(b.list) == 0 || r.closed {
		return
	}
	b.busy = true
	r.f.run(func() { r.empty(b) })
}

// sendAtATime is how many ranges are given to a queue in one call.
const sendAtATime = 500

func (r *router) empty(b *outbox) {
	for {
		r.mu.Lock()
		n := min(len(b.list), sendAtATime)
		list := b.list[:n:n]
		b.list = b.list[n:]
		if n == 0 || r.closed {
			b.busy = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		err := retry(r.f.ctx, func() error { return b.queue.Send(r.f.ctx, list...) })
		if err != nil && r.f.ctx.Err() == nil && !r.isClosed() {
			r.f.fail(err)
		}
	}
}

func (r *router) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// open says where the ranges of a kind go.
func (r *router) open(k *kindState, q Queue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boxes[k]
	b.queue = q
	r.kick(b)
}

// again sends a range once more.
func (r *router) again(x *heldRange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boxes[x.kind]
	b.list = append(b.list, x.Range)
	r.kick(b)
}

// register tells the loop what was sent. Only the loop calls it.
func (r *router) register() {
	r.mu.Lock()
	fresh := r.fresh
	r.fresh = nil
	r.mu.Unlock()
	for _, x := range fresh {
		r.f.s.ranges[x.ID] = x
		x.kind.opening = false
	}
}

// Receive is for machines.
func (r *router) Receive(context.Context) (cloud.Delivery, error) {
	return cloud.Delivery{}, &cloud.Error{Op: "receive from", Resource: "queue", Kind: cloud.KindInvalid, Err: errors.New("only machines receive")}
}

// Done is for machines.
func (r *router) Done(context.Context, cloud.Delivery) error { return nil }

// Return is for machines.
func (r *router) Return(context.Context, cloud.Delivery, time.Duration) error { return nil }

// Close ends the sending. The queues of the machines are deleted with the fleet.
func (r *router) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// queues are the queues of the kinds that are there.
func (r *router) queues() []Queue {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Queue
	for _, b := range r.boxes {
		if b.queue != nil {
			list = append(list, b.queue)
		}
	}
	return list
}

func putJSON(ctx context.Context, store cloud.Store, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return store.Put(ctx, key, b)
}
