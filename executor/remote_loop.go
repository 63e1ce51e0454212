package executor

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// stopGrace is how long machines may take to end what they run.
const stopGrace = 8 * time.Second

// steps takes what came to the loop apart: what must be seen alone is a step
// of its own, everything else is recorded together.
func (c *Coordinator) steps(ctx context.Context, batch []input) error {
	if c.cfg.Remote == nil {
		return c.step(ctx, batch)
	}
	var plain []input
	var segments *event
	flush := func() error {
		if segments != nil {
			// Behind the outcomes: an append that was cut off repeats them.
			plain = append(plain, input{event: segments})
		}
		err := c.step(ctx, plain)
		plain, segments = nil, nil
		return err
	}
	for _, in := range batch {
		switch {
		case in.err != nil:
			return in.err
		case in.started != nil:
			in.started.start = startWritten
		case in.seg != nil:
			known := c.state.fleet.segments[in.seg.key]
			if segments == nil {
				segments = &event{Kind: evSegments, Segments: map[string]int{}}
			}
			if in.seg.n <= max(known, segments.Segments[in.seg.key]) {
				break
			}
			for i := range in.seg.batches {
				plain = append(plain, input{batch: &in.seg.batches[i]})
			}
			segments.Segments[in.seg.key] = in.seg.n
			segments.ended = append(segments.ended, in.seg.ended...)
		case in.held != nil:
			if err := flush(); err != nil {
				return err
			}
			c.mu.Lock()
			if c.waits {
				c.state.holdRanges(*in.held)
			}
			c.mu.Unlock()
			c.waits = false
		case in.lost != nil:
			if err := flush(); err != nil {
				return err
			}
			batches := c.state.lose(in.lost.machine, in.lost.message, in.lost.ids)
			for i := range batches {
				plain = append(plain, input{batch: &batches[i]})
			}
		case in.batch != nil || in.event != nil:
			plain = append(plain, in)
		}
	}
	if segments != nil && len(segments.Segments) == 0 {
		segments = nil // all were known
	}
	return flush()
}

// capacity asks how many tasks machines can run.
func (c *Coordinator) capacity() map[string]int {
	if c.cfg.Remote == nil {
		return nil
	}
	slots := map[string]int{}
	for _, f := range c.state.order {
		if f.phase == running || f.phase == preparing {
			slots[f.spec.Name] = c.cfg.Remote.Capacity(f.spec.Name)
		}
	}
	return slots
}

func (c *Coordinator) handOut(slots map[string]int) []cloud.Range {
	now := c.cfg.Now().UnixNano()
	switch {
	case c.cfg.Remote == nil:
		return c.state.handOut(c.cfg.Slots, c.cfg.CPUs, now)
	case c.waits:
		return nil
	}
	return c.state.handOutRemote(slots, now)
}

// outbox holds ranges on their way to the queue, which may be slow.
type outbox struct {
	mu   sync.Mutex
	list []cloud.Range
	wake chan struct{}
}

// sendRanges puts ranges on the queue: at once on this machine.
func (c *Coordinator) sendRanges(ctx context.Context, ranges []cloud.Range) error {
	if len(ranges) == 0 {
		return nil
	}
	if c.cfg.Remote == nil {
		return c.cfg.Queue.Send(ctx, ranges...)
	}
	c.outbox.mu.Lock()
	c.outbox.list = append(c.outbox.list, ranges...)
	c.outbox.mu.Unlock()
	select {
	case c.outbox.wake <- struct{}{}:
	default:
	}
	return nil
}

// sendOutbox sends until ctx ends. What is lost with this process was never
// recorded as handed out.
func (c *Coordinator) sendOutbox(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.outbox.wake:
		}
		c.outbox.mu.Lock()
		list := c.outbox.list
		c.outbox.list = nil
		c.outbox.mu.Unlock()
		if len(list) == 0 {
			continue
		}
		if err := c.cfg.Queue.Send(ctx, list...); err != nil && ctx.Err() == nil {
			c.put(input{err: err})
			return
		}
	}
}

func (c *Coordinator) stopWork() {
	c.cfg.StopWork()
	if r := c.cfg.Remote; r != nil {
		c.graceEnds = c.cfg.Now().Add(cmp.Or(r.StopGrace, stopGrace))
	}
}

// graceOver says, once, that machines had their time to end what they ran.
func (c *Coordinator) graceOver() bool {
	if c.graceEnds.IsZero() || c.cfg.Now().Before(c.graceEnds) || c.state.status.Final() {
		return false
	}
	c.graceEnds = time.Time{}
	return true
}

// windUp waits until the machines are gone, and records what they cost until
// then.
func (c *Coordinator) windUp(ctx context.Context) {
	if c.cfg.Remote.Close == nil {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c.cfg.Remote.Close(ctx, c.state.status)
	}()
	take := func(in input) {
		if in.seg != nil {
			close(in.seg.taken)
		}
		if in.event == nil || in.event.Kind != evMachine {
			return // of a run that has ended
		}
		if err := c.step(ctx, []input{in}); err != nil {
			c.cfg.Notice(Notice{Time: c.cfg.Now(), Kind: NoticeWarning, Text: "what machines cost in the end is not recorded: " + err.Error()})
		}
	}
	for {
		select {
		case in := <-c.in:
			take(in)
			continue
		case <-gone:
		}
		for {
			select {
			case in := <-c.in:
				take(in)
				continue
			default:
			}
			return
		}
	}
}
