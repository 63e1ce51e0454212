package fleet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// park keeps a range until there is a kind of machines with the memory that it
// asks for. The caller holds mu.
func (r *router) park(x cloud.Range) {
	waiting, asked := r.parked[x.Function]
	r.parked[x.Function] = append(waiting, x)
	if !asked {
		r.f.run(func() { r.f.makeLarger(x.Function, x.Memory) })
	}
}

// unpark sends on what waited for larger machines of a function: what asks for
// more than there is now waits on, unless more is not to be had.
func (r *router) unpark(fn string, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.parked[fn]
	delete(r.parked, fn)
	for _, x := range list {
		if k := kindFor(r.kinds, fn, x.Memory); k.Memory < x.Memory && more {
			r.park(x)
		} else {
			r.route(x, k)
		}
	}
}

// has says whether there are machines with so much memory for a function.
func (r *router) has(fn string, memory int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return kindFor(r.kinds, fn, memory).Memory >= memory
}

// add makes a kind known that ranges can go to.
func (r *router) add(k *kindState, q Queue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds = append(slices.Clone(r.kinds), k)
	r.boxes[k] = &outbox{queue: q}
}

// makeLarger adds a kind of machines for tasks of a function that ran out of
// memory. Where there is none so large, they are tried on the largest there is.
func (f *Fleet) makeLarger(fn string, memory int64) {
	select {
	case f.making <- struct{}{}: // functions that share machines ask for the same
		defer func() { <-f.making }()
	case <-f.ctx.Done():
		return
	}
	if f.out.has(fn, memory) {
		f.out.unpark(fn, true)
		return
	}
	k, q, err := f.larger(fn, memory)
	if f.ctx.Err() != nil {
		return
	}
	if err != nil {
		f.cfg.Notice(fmt.Sprintf("%s: no machines with %s for tasks that ran out of memory: %s; they are tried alone on the largest there are",
			fn, gib(memory), errText(err)))
		f.out.unpark(fn, false)
		return
	}
	// Machines that come at once, from a pool, must find that there is work.
	written := make(chan struct{})
	f.do(func() {
		k.queue, k.opening = q.URL(), true
		f.s.kinds = append(slices.Clone(f.s.kinds), k)
		f.afterControl(func() { close(written) })
	})
	select {
	case <-written:
	case <-f.ctx.Done():
		return
	}
	f.out.add(k, q)
	f.cfg.Notice(fmt.Sprintf("%s: tasks that ran out of memory go on with %s (%s, up to $%.3f an hour)", fn, k.firstType(), gib(k.Memory), k.price()))
	f.out.unpark(fn, true)
}

func (f *Fleet) larger(fn string, memory int64) (*kindState, Queue, error) {
	var made Kind
	err := retry(f.ctx, func() (err error) { made, err = f.cfg.Larger(f.ctx, fn, memory); return err })
	if err == nil && made.Memory < memory {
		err = errors.New("the largest have " + gib(made.Memory))
	}
	if err != nil {
		return nil, nil, err
	}
	made.Min = 0
	k := newKind(f.cfg.Run, made)
	if err := retry(f.ctx, func() error { return putJSON(f.ctx, f.cfg.Store, wire.SetupKey(f.cfg.Run, k.Name), k.Setup) }); err != nil {
		return nil, nil, err
	}
	q, err := f.openQueue(f.ctx, k.Name, f.cfg.Epoch())
	return k, q, err
}

// openQueue makes a queue of this coordinator: names are its own, since that of
// a deleted queue is blocked for a while.
func (f *Fleet) openQueue(ctx context.Context, name string, epoch int) (q Queue, err error) {
	err = retry(ctx, func() error { q, err = f.cfg.OpenQueue(ctx, fmt.Sprintf("%s-%d", name, epoch)); return err })
	return q, err
}

// gib is a size for people.
func gib(bytes int64) string {
	return strconv.FormatFloat(math.Round(float64(bytes)/(1<<30)*10)/10, 'f', -1, 64) + " GiB"
}
