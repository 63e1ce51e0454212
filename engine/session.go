package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// session is one coordinator's work on a run in this process: the journal's
// writer, and who works for it, which is an agent in a goroutine or a fleet.
type session struct {
	coord *executor.Coordinator
	live  func() []task.Live
	fleet *fleetSession // nil: locally

	ctx     context.Context // of the run
	cancel  context.CancelCauseFunc
	hurried atomic.Pointer[time.Time] // when somebody who waits asked to end it

	notices  chan executor.Notice
	done     chan struct{} // closed when the run has ended here
	notified chan struct{} // closed when the notifications are sent
	report   executor.Report
	err      error
}

// openSession makes a session. Its run outlives ctx's deadline and cancellation:
// it ends by an event.
func openSession(ctx context.Context) *session {
	s := &session{notices: make(chan executor.Notice, 1024), done: make(chan struct{}), notified: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// begin takes a run's journal and starts to work on it. KindConflict if
// somebody else has it. The run goes on when ctx ends; see session.cancel.
func (e *Engine) begin(ctx context.Context, h *executor.Header, p *spec.Pipeline, noCache bool, begin executor.Begin, rec *fleetRecord) (*session, error) {
	if rec != nil {
		return e.beginFleet(ctx, h, p, begin, rec)
	}
	return e.beginLocal(ctx, h, p, noCache, begin)
}

// run coordinates until the run ends. after returns when nobody works any
// more, with what went wrong with the work.
func (s *session) run(after func() error) {
	s.report, s.err = s.coord.Run(s.ctx)
	err := after()
	if s.err == nil && err != nil && !errors.Is(err, context.Canceled) && cloud.KindOf(err) != cloud.KindClosed {
		s.err = err
	}
	if s.err != nil && !s.report.Status.Final() && cloud.KindOf(s.err) != cloud.KindNotFound {
		s.err = fmt.Errorf("%w\nwhat was recorded until then is kept; when that is mended, go on with: coiled-jobs resume %s", s.err, s.report.Run)
	}
	close(s.notices)
	close(s.done)
}

// notice passes a notice on. Nobody may be reading: then the oldest is
// dropped, the journal has them all.
func (s *session) notice(n executor.Notice) {
	for {
		select {
		case s.notices <- n:
			return
		default:
		}
		select {
		case <-s.notices:
		default:
		}
	}
}

// wait ends with the session, or cancels it when ctx ends.
func (s *session) wait(ctx context.Context) (executor.Report, error) {
	select {
	case <-s.done:
		return s.report, s.err
	case <-ctx.Done():
	}
	now := time.Now()
	s.hurried.Store(&now)
	s.cancel(context.Cause(ctx))
	// Tasks get 5 s; what takes longer is left to the kernel with our end.
	select {
	case <-s.done:
		return s.report, s.err
	case <-time.After(9 * time.Second):
	}
	if s.fleet != nil {
		return s.coord.Snapshot(), errors.New("the machines were told to end, and have not all done so yet; they power off by themselves")
	}
	return s.coord.Snapshot(), errors.New("tasks did not end in time; they are killed now")
}
