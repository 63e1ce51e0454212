package engine

import (
	"context"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// joined is a run that another process coordinates, watched by somebody who
// wants it done: if that process turns out to be dead, the run is continued
// here. A coordinator on another machine may seem alive for a while after its
// end.
type joined struct {
	mu     sync.Mutex
	cur    *Handle
	next   chan struct{} // closed when cur was replaced, or will not be
	failed error         // why the run could not be continued
	over   bool          // cur is the last
}

// join watches a run, and continues it with goOn when it is interrupted.
func (e *Engine) join(ctx context.Context, run, why string, goOn func(context.Context) (*Handle, error)) (*Handle, error) {
	w, err := e.watch(ctx, run, why)
	if err != nil {
		return nil, err
	}
	j := &joined{cur: w, next: make(chan struct{})}
	h := &Handle{Run: run, Joined: why, joined: j, notices: make(chan executor.Notice, 256)}
	go j.relay(ctx, h.notices, goOn)
	return h, nil
}

func (j *joined) handle() *Handle {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cur
}

// relay passes notices on, and replaces the handle of a dead coordinator.
func (j *joined) relay(ctx context.Context, to chan executor.Notice, goOn func(context.Context) (*Handle, error)) {
	defer close(to)
	tell := func(n executor.Notice) {
		select {
		case to <- n:
		default: // nobody reads; the journal has them all
		}
	}
	cur := j.handle()
	for n := range cur.Notices() {
		tell(n)
	}
	// Its notices end with the watcher.
	r, err := cur.Wait(context.WithoutCancel(ctx))
	if err != nil || r.Status != executor.RunInterrupted || ctx.Err() != nil {
		j.replace(nil, nil)
		return
	}
	h, err := goOn(ctx)
	j.replace(h, err)
	if err != nil {
		return
	}
	tell(executor.Notice{Time: time.Now(), Kind: executor.NoticeWarning, Text: "the coordinator of the run is gone; it goes on here"})
	for n := range h.Notices() {
		tell(n)
	}
}

// replace ends the first stage: with a handle for the next, or without.
func (j *joined) replace(h *Handle, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed, j.over = err, h == nil
	if h != nil {
		j.cur = h
	}
	close(j.next)
}

// wait returns when the run has ended, whoever ended it.
func (j *joined) wait(ctx context.Context) (executor.Report, error) {
	j.mu.Lock()
	first := j.cur
	replaced := false
	select {
	case <-j.next:
		replaced = !j.over
	default:
	}
	j.mu.Unlock()
	r, err := first.Wait(ctx)
	if replaced || err != nil || r.Status != executor.RunInterrupted {
		return r, err
	}
	select {
	case <-j.next:
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	j.mu.Lock()
	h, over, err := j.cur, j.over, j.failed
	j.mu.Unlock()
	if over {
		return r, err
	}
	return h.Wait(ctx)
}
