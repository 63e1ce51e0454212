//go:build unix

package agent

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/task"
)

const (
	// quickCall is how long calls take at most that are sent several at a time,
	// batchTime how long a batch may take, and batchCalls how many it has.
	quickCall  = 0.002
	batchTime  = 0.010
	batchCalls = 64
	// startAllowance is how long an interpreter may take to start, which is not
	// the task's time.
	startAllowance = 30 * time.Second
)

// batch is calls that a worker has been sent.
type batch struct {
	s    *slot
	w    *worker
	g    *guard
	jobs []*job
	next int // the first without a reply: the one that runs
	oom  int64
	exit bool // the worker said that it ends
}

// runPython runs a job, and others behind it if such calls are quick, in a
// warm interpreter. What a crash kept from running goes to a fresh one.
func (s *slot) runPython(ctx context.Context, q *jobs, first *job) {
	todo := []*job{first}
	if q.d.Memory == 0 {
		for n := s.batchSize(q.fn); len(todo) < n; {
			j := q.next(ctx)
			if j == nil {
				break
			}
			todo = append(todo, j)
		}
	}
	for len(todo) > 0 {
		w, err := s.worker(q.fn, todo[0])
		if err != nil {
			o := todo[0].outcome()
			s.add(ctx, setupFailed(o, err))
			todo = todo[1:]
		} else {
			todo = s.runBatch(ctx, w, todo)
		}
		if len(todo) > 0 && s.stopped(ctx, q.fn) {
			for _, j := range todo {
				s.unrun = append(s.unrun, j.index)
			}
			return
		}
	}
}

func (s *slot) batchSize(fn *function) int {
	pace, known := s.pace[fn.name]
	if !known || pace > quickCall {
		return 1
	}
	return max(1, min(batchCalls, int(batchTime/max(pace, 1e-6))))
}

// worker is the warm interpreter for a function.
func (s *slot) worker(fn *function, j *job) (*worker, error) {
	for i, w := range s.workers {
		if w.fn == fn {
			s.workers = append(append(s.workers[:i:i], s.workers[i+1:]...), w)
			return w, nil
		}
	}
	if len(s.workers) >= maxWorkers {
		s.workers[0].stop()
		s.workers = s.workers[1:]
	}
	w, err := s.startWorker(fn, j, s.started)
	s.started++
	if err != nil {
		return nil, err
	}
	s.workers = append(s.workers, w)
	return w, nil
}

func (s *slot) freeCell() int {
	for c := s.n*slotGroups + 1; ; c++ {
		free := true
		for _, w := range s.workers {
			free = free && w.cell != c
		}
		if free {
			return c
		}
	}
}

func (s *slot) dropWorker(w *worker) {
	for i, o := range s.workers {
		if o == w {
			s.workers = append(s.workers[:i:i], s.workers[i+1:]...)
		}
	}
	w.stop()
}

func (s *slot) stopWorkers() {
	for _, w := range s.workers {
		w.stop()
	}
	s.workers = nil
}

// runBatch sends calls to a worker and takes its replies. It gives back the
// jobs that were not run because the worker ended.
func (s *slot) runBatch(ctx context.Context, w *worker, jobs []*job) []*job {
	now := time.Now()
	b := &batch{s: s, w: w, jobs: jobs, oom: s.a.oom.before(),
		g: &guard{a: s.a, ch: w.ch, timeout: w.fn.f.Timeout, started: now}}
	frame := []byte{'['}
	for i, j := range jobs {
		if i > 0 {
			frame = append(frame, ',')
		}
		frame = w.appendCall(frame, j)
	}
	frame = append(frame, ']')
	if !w.ready {
		b.g.allowance = startAllowance
	}
	b.showLive()
	s.logDue = now.Add(followEvery)
	if w.send(frame, func() bool { return ctx.Err() != nil }) == nil {
		b.wait(ctx)
	} else if ctx.Err() != nil {
		b.g.cancel(time.Now())
	}
	if b.collect(ctx); b.next < len(jobs) || b.exit {
		return b.crashed(ctx)
	}
	w.rest()
	if s.failure != nil || w.bloated() {
		s.dropWorker(w)
	}
	return nil
}

// wait returns when the calls are done or the worker has ended.
func (b *batch) wait(ctx context.Context) {
	s, w := b.s, b.w
	fds := []unix.PollFd{
		{Fd: int32(w.notify), Events: unix.POLLIN},
		{Fd: int32(w.ch.exit), Events: unix.POLLIN},
		{Fd: int32(s.a.cancelR), Events: unix.POLLIN},
	}
	var look time.Time // when to look for replies without being told
	pause := reportAfter
	if len(b.jobs) > 1 {
		look = b.g.started.Add(pause)
	}
	for {
		if !w.ready && look.IsZero() && b.g.timeout > 0 {
			look = b.g.started.Add(min(b.g.timeout, followEvery)) // to learn when it was ready
		}
		until := earliest(earliest(b.g.next(), s.due()), look)
		// Only the last call of a batch can be followed: of the others nobody
		// knows yet where their output ends.
		follow := w.logKey == "" && b.next == len(b.jobs)-1
		if follow {
			until = earliest(until, s.logDue)
		}
		poll(fds, until)
		if fds[0].Revents&unix.POLLIN != 0 {
			var buf [64]byte
			if n, _ := unix.Read(w.notify, buf[:]); n > 0 {
				return
			}
		}
		if fds[1].Revents != 0 {
			return
		}
		if fds[0].Revents != 0 {
			fds[0].Fd = -1 // a call closed the pipe: the end of the worker tells
		}
		now := time.Now()
		if fds[2].Revents != 0 {
			fds[2].Fd = -1
			if ctx.Err() != nil {
				b.g.cancel(now)
			}
		}
		if !look.IsZero() && !now.Before(look) || b.g.timeout > 0 && !now.Before(b.g.started.Add(b.g.timeout)) {
			if b.collect(ctx) {
				pause = reportAfter
			} else {
				pause = min(2*pause, followEvery)
			}
			if !look.IsZero() {
				look = now.Add(pause)
			}
			if b.next == len(b.jobs) || len(b.jobs) == 1 && w.ready {
				look = time.Time{}
			}
		}
		b.g.check(now)
		if follow && !now.Before(s.logDue) {
			w.follow(-1)
			if len(s.pack.buf) == 0 {
				s.logDue = now.Add(followEvery)
			}
		}
		s.tick(ctx, now)
	}
}

// showLive makes the call that runs visible.
func (b *batch) showLive() {
	if b.next < len(b.jobs) {
		j := b.jobs[b.next]
		b.s.setLive(task.Live{Function: j.fn.name, Index: j.index, Attempt: j.attempt,
			Started: b.g.started.UnixNano(), Log: b.w.begin()})
	}
}

// collect turns the replies that are there into outcomes; false if there is
// none.
func (b *batch) collect(ctx context.Context) bool {
	before := b.next
	err := b.w.collect(func(r *record) {
		if b.next >= len(b.jobs) {
			return
		}
		j := b.jobs[b.next]
		if b.next > before && b.w.logKey == "" {
			b.w.begin()
		}
		o := b.outcome(ctx, j, r)
		b.next++
		b.g.started = time.Unix(0, r.started+r.took)
		b.s.add(ctx, b.s.finish(ctx, j, o))
	})
	if err != nil && b.s.failure == nil {
		b.s.failure = err
	}
	if b.g.allowance > 0 && b.w.ready {
		b.g.allowance = 0
		if at := time.Unix(0, b.w.helloAt); b.next == before && at.After(b.g.started) {
			b.g.started = at
		}
	}
	if b.next > before {
		b.showLive()
	}
	return b.next > before
}

// outcome is what a reply says.
func (b *batch) outcome(ctx context.Context, j *job, r *record) task.Outcome {
	from := b.w.logEnd
	o := task.Outcome{Index: j.index, Attempt: j.attempt, Started: r.started, Seconds: float64(r.took) / 1e9,
		Exit: r.code, MaxRSS: r.peak * rssUnit, Status: task.Failed, Message: string(r.msg)}
	stderr := r.stderr
	if r.kind != replyOK && len(stderr) == 0 {
		stderr = b.w.logTail(from, r.logEnd)
	}
	o.Log = b.w.end(r.logEnd)
	if r.seq > 1 { // the first call of an interpreter imports the module
		b.s.setPace(j.fn.name, o.Seconds)
	}
	switch r.kind {
	case replyOK:
		o.Status = task.Succeeded
	case replyExited:
		b.exit = true
		if r.code == 0 {
			o.Status = task.Succeeded
			break
		}
		o.Cause = task.CauseExit
		o.Message = withLastLine(fmt.Sprintf("exit code %d", r.code), stderr)
	case replyBadResult:
		o.Cause = task.CauseOutput
	case replyNoMemory:
		o.Cause = task.CauseOOM
	default:
		o.Cause = task.CauseExit
	}
	if o.Status == task.Succeeded {
		if err := b.s.a.keepResult(ctx, &o, j.fn.name, bytes.Clone(r.result)); err != nil {
			b.s.storeFailed(err)
			return outputFailed(o, err)
		}
		return o
	}
	o.Message = short(o.Message)
	o.Stderr = bytes.Clone(b.s.a.secrets.mask(stderr))
	return o
}

func (s *slot) setPace(fn string, seconds float64) {
	old, known := s.pace[fn]
	if !known || seconds > quickCall {
		s.pace[fn] = seconds
		return
	}
	s.pace[fn] = 0.8*old + 0.2*seconds
}

// crashed takes care of a worker that has ended, or has to. It gives back what
// was not run.
func (b *batch) crashed(ctx context.Context) []*job {
	s, w := b.s, b.w
	ws, usage := w.ch.finish()
	s.a.groups.Set(w.cell, 0)
	w.ch = nil
	b.collect(ctx) // what it still wrote
	rest := b.jobs[b.next:]
	if len(rest) > 0 && !b.exit {
		j := rest[0]
		rest = rest[1:]
		o := task.Outcome{Index: j.index, Attempt: j.attempt, Started: b.g.started.UnixNano(),
			Seconds: time.Since(b.g.started).Seconds(), MaxRSS: maxRSS(&usage)}
		end := w.logSize()
		stderr := bytes.Clone(w.logTail(w.logEnd, end))
		o.Log = w.end(end)
		if b.g.judge(&o, ws, func() bool { return s.a.oom.since(b.oom) }) {
			o.Status, o.Cause, o.Exit = task.Failed, task.CauseExit, 1
			o.Message = "the interpreter ended in the middle of the call, with exit code 0 (os._exit?)"
		} else if o.Cause == task.CauseExit {
			o.Message = withLastLine(o.Message, stderr)
		}
		if !w.ready && o.Cause == task.CauseExit {
			o.Cause = task.CauseSetup
			o.Message = fmt.Sprintf("start Python (%s): %s", w.path, strings.TrimPrefix(o.Message, "exit code 1: "))
		}
		if o.Status == task.Failed {
			o.Stderr = stderr
		}
		delete(s.pace, j.fn.name) // carefully, in case it happens again
		s.add(ctx, s.finish(ctx, j, o))
	}
	s.dropWorker(w)
	return rest
}
