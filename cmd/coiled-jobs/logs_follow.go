package main

import (
	"bytes"
	"context"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// ended says that nothing more will be written by a run.
func ended(r executor.Report) bool {
	return r.Status.Final() || r.Status == executor.RunInterrupted
}

// pause waits a moment between two looks.
func (p *logPrinter) pause(ctx context.Context) error {
	t := time.NewTimer(min(p.view.engine.PollEvery(followEvery), followOften))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// followOne prints the log of a task as it grows, through all its attempts,
// until the task or the run has ended.
func (p *logPrinter) followOne(ctx context.Context, ref taskRef) error {
	attempt, off := 0, int64(0)
	for {
		// What is known of the task is read before its log: then a log that is
		// at its end really is.
		t, r, err := p.look(ctx, ref)
		if err != nil {
			return err
		}
		if attempt == 0 {
			attempt = max(t.Attempts, 1)
		}
		data, done, err := p.view.Log(ctx, ref.fn, ref.index, attempt, off)
		if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
			return err
		}
		if err := p.print(p.view.label(ref), data); err != nil {
			return err
		}
		off += int64(len(data))
		switch {
		case len(data) > 0:
			continue
		case done && attempt < t.Attempts:
			attempt, off = attempt+1, 0
			continue
		case t.Status.Final() || ended(r):
			return p.end()
		}
		if err := p.pause(ctx); err != nil {
			return err
		}
	}
}

func (p *logPrinter) look(ctx context.Context, ref taskRef) (executor.TaskReport, executor.Report, error) {
	if err := p.view.Refresh(ctx); err != nil {
		return executor.TaskReport{}, executor.Report{}, err
	}
	r, err := p.view.Report(ctx)
	if err != nil {
		return executor.TaskReport{}, executor.Report{}, err
	}
	t, _ := p.view.Task(ref.fn, ref.index)
	return t, r, nil
}

// tail is where following a task's log has got to.
type tail struct {
	attempt int
	off     int64
	part    []byte // a line that is not whole yet
}

// followAll prints the logs of all tasks of some functions as they grow, line
// by line, with a header where the task changes, until the run has ended.
func (o *logsOptions) followAll(ctx context.Context, p *logPrinter, functions []string) error {
	printed := make(map[string]*doneSet, len(functions))
	tails := make(map[taskRef]*tail)
	for {
		if err := p.view.Refresh(ctx); err != nil {
			return err
		}
		r, err := p.view.Report(ctx)
		if err != nil {
			return err
		}
		running, err := p.view.running(ctx, r)
		if err != nil {
			return err
		}
		over := ended(r)
		for _, fn := range functions {
			set := printed[fn]
			if set == nil {
				set = &doneSet{}
				printed[fn] = set
			}
			if err := o.followFunction(ctx, p, fn, set, tails, running, over); err != nil {
				return err
			}
		}
		if over {
			return p.end()
		}
		if err := p.pause(ctx); err != nil {
			return err
		}
	}
}

// followFunction prints what is new in the logs of a function. over says that
// nothing follows.
func (o *logsOptions) followFunction(ctx context.Context, p *logPrinter, fn string, set *doneSet, tails map[taskRef]*tail, running map[taskRef]int, over bool) error {
	for t := range p.view.Tasks(fn) {
		ref := taskRef{fn, t.Index}
		attempt, live := running[ref]
		if set.has(t.Index) || !t.Status.Final() && !live || live && o.failed {
			continue
		}
		if t.Status.Final() && (t.Attempts == 0 || o.failed && t.Status != task.Failed) {
			set.add(t.Index)
			continue
		}
		if !live || t.Status.Final() {
			attempt = t.Attempts
		}
		tl := tails[ref]
		if tl == nil {
			tl = &tail{attempt: attempt}
			tails[ref] = tl
		}
		for ; ; tl.attempt, tl.off = tl.attempt+1, 0 {
			if err := p.grow(ctx, ref, tl, over || tl.attempt < attempt || t.Status.Final()); err != nil {
				return err
			}
			if tl.attempt >= attempt {
				break
			}
		}
		if t.Status.Final() {
			set.add(t.Index)
			delete(tails, ref)
		}
	}
	return nil
}

// grow prints the new whole lines of a log, and the rest too if it is final.
func (p *logPrinter) grow(ctx context.Context, ref taskRef, tl *tail, final bool) error {
	for {
		data, _, err := p.view.Log(ctx, ref.fn, ref.index, tl.attempt, tl.off)
		if err != nil {
			if cloud.KindOf(err) == cloud.KindNotFound {
				return nil
			}
			return err
		}
		tl.off += int64(len(data))
		whole := append(tl.part, data...)
		tl.part = nil
		if i := bytes.LastIndexByte(whole, '\n'); !final && len(whole) < maxPart {
			tl.part = append([]byte(nil), whole[i+1:]...)
			whole = whole[:i+1]
		}
		if err := p.print(p.view.label(ref), whole); err != nil {
			return err
		}
		if len(data) == 0 {
			return nil
		}
	}
}

// maxPart is the longest line that is held back until it is whole.
const maxPart = 64 << 10

// doneSet is a set of indices that mostly are the first ones.
type doneSet struct {
	bits []uint64
}

func (s *doneSet) has(i int) bool { return i/64 < len(s.bits) && s.bits[i/64]&(1<<(i%64)) != 0 }

func (s *doneSet) add(i int) {
	for i/64 >= len(s.bits) {
		s.bits = append(s.bits, 0)
	}
	s.bits[i/64] |= 1 << (i % 64)
}
