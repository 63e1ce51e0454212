package sim

import (
	"context"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// worker runs tasks that sleep.
type worker struct {
	w     *World
	cfg   agent.Config
	power context.Context // ends with the machine

	mu   sync.Mutex
	live map[*task.Live]bool
}

func (k *worker) Live() []task.Live {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]task.Live, 0, len(k.live))
	for l := range k.live {
		list = append(list, *l)
	}
	return list
}

func (k *worker) Work(ctx context.Context) error {
	var wg sync.WaitGroup
	for range k.cfg.Slots {
		wg.Go(func() { k.slot(ctx) })
	}
	wg.Wait()
	return nil
}

func (k *worker) slot(ctx context.Context) {
	for {
		d, err := k.cfg.Queue.Receive(ctx)
		if err != nil {
			return // closed, or ctx ended
		}
		k.run(ctx, d)
		_ = k.cfg.Queue.Done(context.WithoutCancel(ctx), d)
	}
}

// quick tasks are reported together.
const quick = 0.1

func (k *worker) run(ctx context.Context, d cloud.Delivery) {
	b := task.Batch{Function: d.Function}
	send := func() {
		if len(b.Outcomes)+len(b.Unrun) > 0 {
			k.cfg.Report(b)
			b = task.Batch{Function: d.Function}
		}
	}
	for i := d.From; i < d.To; i++ {
		if ctx.Err() != nil || k.power.Err() != nil || k.cfg.Run.Stopped(d.Function) {
			b.Unrun = append(b.Unrun, i)
			continue
		}
		b.Outcomes = append(b.Outcomes, k.task(ctx, d, i))
		if b.Outcomes[len(b.Outcomes)-1].Seconds >= quick {
			send()
		}
	}
	send()
}

func (k *worker) task(ctx context.Context, d cloud.Delivery, i int) task.Outcome {
	seconds := k.w.cfg.Seconds(d.Function, i, d.Attempt)
	begun := time.Now()
	l := &task.Live{Function: d.Function, Index: i, Attempt: d.Attempt, Started: begun.UnixNano()}
	k.w.starts(d.Function, i, k.cfg.Name)
	k.mu.Lock()
	k.live[l] = true
	k.mu.Unlock()
	t := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer t.Stop()
	o := task.Outcome{Index: i, Attempt: d.Attempt, Status: task.Succeeded, Started: begun.UnixNano(), Machine: k.cfg.Name, Result: []byte("1")}
	select {
	case <-t.C:
	case <-k.power.Done():
		o.Status, o.Cause, o.Result = task.Cancelled, task.CauseCancelled, nil // nobody hears it
	case <-ctx.Done():
		o.Status, o.Cause, o.Result = task.Cancelled, task.CauseCancelled, nil
	}
	k.mu.Lock()
	delete(k.live, l)
	k.mu.Unlock()
	o.Seconds = time.Since(begun).Seconds()
	k.w.ends(d.Function, i, k.cfg.Name, o.Seconds)
	return o
}
