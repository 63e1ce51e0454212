//go:build unix

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

const (
	slotGroups   = 1 + maxWorkers       // process groups a slot can have at a time
	reportAfter  = 5 * time.Millisecond // an outcome is not kept back longer
	reportCount  = 64                   // nor are more than these
	itemsAtATime = 256
)

// slot runs one task at a time. Everything but live belongs to its goroutine,
// which is locked to its thread: processes die with the thread that started
// them.
type slot struct {
	a    *Agent
	n    int
	dir  string // private folder
	null *os.File

	pack   *pack
	stdout spool
	buf    []byte
	items  itemFile
	tmp    tmpDir
	result string // path of the result file

	workers []*worker          // the one used last is the last
	started int                // how many there were
	pace    map[string]float64 // seconds per call of Python functions, lately

	fn      string // of the outcomes below
	done    []task.Outcome
	unrun   []int
	since   time.Time // when the first of them came
	ended   []cloud.Delivery
	logDue  time.Time
	failure error // trouble that ends the agent

	mu   sync.Mutex
	live task.Live
	busy bool
}

func newSlot(a *Agent, n int) *slot {
	dir := filepath.Join(a.dir, "s"+strconv.Itoa(n))
	return &slot{
		pace: map[string]float64{},
		a:    a, n: n, dir: dir, buf: make([]byte, 64<<10), result: filepath.Join(dir, "result"),
		pack:   newPack(a.run.Store, fmt.Sprintf("%s/logs/%s-%d", a.run.Prefix, a.session, n), dir),
		stdout: spool{dir: dir}, items: itemFile{path: filepath.Join(dir, "item.json")}, tmp: tmpDir{base: filepath.Join(dir, "tmp")},
	}
}

func (s *slot) nowLive() (task.Live, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live, s.busy
}

func (s *slot) setLive(l task.Live) {
	s.mu.Lock()
	s.live, s.busy = l, true
	s.mu.Unlock()
}

func (s *slot) setIdle() {
	s.mu.Lock()
	s.busy = false
	s.mu.Unlock()
}

// work is the life of the slot.
func (s *slot) work(ctx context.Context) (err error) {
	// Never unlocked: the thread ends with the goroutine, and with it whatever
	// it started.
	runtime.LockOSThread()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return fmt.Errorf("make the scratch folder: %w", err)
	}
	if s.null, err = os.Open(os.DevNull); err != nil {
		return err
	}
	keep := context.WithoutCancel(ctx)
	defer func() {
		s.flush(keep)
		s.stopWorkers()
		if cerr := s.pack.close(keep); s.failure == nil {
			s.failure = cerr
		}
		err = errors.Join(err, s.failure)
		s.items.close()
		_ = s.null.Close()
	}()
	for {
		d, err := s.a.cfg.Queue.Receive(ctx)
		if err != nil {
			if ctx.Err() != nil || cloud.KindOf(err) == cloud.KindClosed {
				return nil
			}
			return fmt.Errorf("receive work: %w", err)
		}
		s.runRange(ctx, d)
		s.ended = append(s.ended, d)
		s.flush(keep)
		if s.failure != nil {
			return nil
		}
	}
}

// runRange runs the tasks of a range in order; each of them has an outcome or
// is among unrun afterwards.
func (s *slot) runRange(ctx context.Context, d cloud.Delivery) {
	s.fn = d.Function
	fn, err := s.a.function(ctx, d.Function)
	if err != nil {
		for i := d.From; i < d.To; i++ {
			if ctx.Err() != nil {
				s.unrun = append(s.unrun, i)
				continue
			}
			o := task.Outcome{Index: i, Attempt: d.Attempt, Started: time.Now().UnixNano()}
			s.add(ctx, setupFailed(o, err))
		}
		return
	}
	lock, unlock := s.a.alone.RLock, s.a.alone.RUnlock
	if d.Memory > 0 {
		lock, unlock = s.a.alone.Lock, s.a.alone.Unlock
	}
	q := &jobs{s: s, fn: fn, d: d, at: d.From}
	for !s.stopped(ctx, fn) {
		j := q.next(ctx)
		if j == nil {
			break
		}
		if s.a.alone.TryRLock() {
			s.a.alone.RUnlock()
		} else {
			s.flush(context.WithoutCancel(ctx)) // it may take long until our turn
		}
		lock()
		if d.Memory > 0 {
			s.stopWorkers()
		}
		switch {
		case ctx.Err() != nil: // while we waited
			s.unrun = append(s.unrun, j.index)
		case fn.f.Python != nil:
			s.runPython(ctx, q, j)
		default:
			s.add(ctx, s.finish(ctx, j, s.runProcess(ctx, j)))
		}
		s.setIdle()
		unlock()
	}
	for ; q.at < d.To; q.at++ {
		s.unrun = append(s.unrun, q.at)
	}
}

func (s *slot) stopped(ctx context.Context, fn *function) bool {
	return ctx.Err() != nil || s.failure != nil || s.a.run.Stopped != nil && s.a.run.Stopped(fn.name)
}

// add takes an outcome; it is reported now or a little later.
func (s *slot) add(ctx context.Context, o task.Outcome) {
	if s.failure != nil && o.Status != task.Succeeded {
		// The store is in trouble, and what it could not take looks like the
		// task's own failure. It runs again when there is a store.
		s.unrun = append(s.unrun, o.Index)
		return
	}
	o.Machine = s.a.cfg.Name
	o.Message = s.a.secrets.maskString(o.Message)
	now := time.Now()
	if len(s.done) == 0 {
		s.since = now
	}
	s.done = append(s.done, o)
	if len(s.done) >= reportCount || now.Sub(s.since) >= reportAfter {
		s.flush(context.WithoutCancel(ctx))
	}
}

// flush stores what was logged, then reports what has ended.
func (s *slot) flush(ctx context.Context) {
	if err := s.pack.flush(ctx); err != nil && s.failure == nil {
		s.failure = err
	}
	if len(s.done)+len(s.unrun) > 0 {
		b := task.Batch{Function: s.fn, Outcomes: s.done, Unrun: s.unrun}
		s.done, s.unrun = make([]task.Outcome, 0, len(s.done)), nil
		s.a.cfg.Report(b)
	}
	for _, d := range s.ended {
		if err := s.a.cfg.Queue.Done(ctx, d); err != nil && s.failure == nil {
			s.failure = fmt.Errorf("give back work: %w", err)
		}
	}
	s.ended = s.ended[:0]
}

// storeFailed ends the agent if the store cannot take any more; what is wrong
// with one task alone does not.
func (s *slot) storeFailed(err error) {
	if k := cloud.KindOf(err); (k == cloud.KindFull || k == cloud.KindDenied) && s.failure == nil {
		s.failure = err
	}
}

// due is when tick wants to be called while a task runs.
func (s *slot) due() time.Time {
	switch {
	case len(s.done) > 0:
		return s.since.Add(reportAfter)
	case s.pack.unseen() && len(s.pack.buf) > 0:
		return earliest(s.pack.copy.due, s.logDue)
	case s.pack.unseen():
		return s.pack.copy.due
	case len(s.pack.buf) > 0:
		return s.logDue
	}
	return time.Time{}
}

// tick does what must not wait for the end of a long task.
func (s *slot) tick(ctx context.Context, now time.Time) {
	if len(s.done) > 0 && now.Sub(s.since) >= reportAfter {
		s.flush(context.WithoutCancel(ctx))
	}
	if s.pack.unseen() {
		s.pack.show(context.WithoutCancel(ctx), now)
	}
	if len(s.pack.buf) > 0 && !now.Before(s.logDue) {
		s.logDue = now.Add(followEvery)
		if err := s.pack.flush(context.WithoutCancel(ctx)); err != nil && s.failure == nil {
			s.failure = err
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func setupFailed(o task.Outcome, err error) task.Outcome {
	o.Status, o.Cause, o.Exit, o.Message = task.Failed, task.CauseSetup, 1, err.Error()
	var missing *noProgramError
	if errors.As(err, &missing) {
		o.Exit = 127
	}
	return o
}

func outputFailed(o task.Outcome, err error) task.Outcome {
	o.Status, o.Cause, o.Message = task.Failed, task.CauseOutput, err.Error()
	o.Result, o.ResultAt, o.Outputs = nil, task.Span{}, nil
	return o
}
