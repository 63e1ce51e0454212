package machine

import (
	"context"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// failing stands in for the agent where no task can start: each fails with the
// reason, so that people see it and the run ends.
type failing struct {
	s   *session
	err error
}

// Work fails every task that it receives.
func (f *failing) Work(ctx context.Context) error {
	q := taken{f.s}
	for {
		d, err := q.Receive(ctx)
		switch {
		case err != nil && (ctx.Err() != nil || cloud.KindOf(err) == cloud.KindClosed):
			return nil
		case err != nil:
			return err
		}
		b := task.Batch{Function: d.Function}
		now := time.Now().UnixNano()
		for i := d.From; i < d.To; i++ {
			if ctx.Err() != nil || f.s.st.stopped(d.Function) {
				b.Unrun = append(b.Unrun, i)
				continue
			}
			b.Outcomes = append(b.Outcomes, task.Outcome{Index: i, Attempt: d.Attempt, Status: task.Failed, Cause: task.CauseSetup,
				Exit: 1, Started: now, Message: f.err.Error(), Machine: f.s.m.id.ID})
		}
		f.s.report(b)
		if err := q.Done(ctx, d); err != nil {
			return err
		}
	}
}

// Live is nothing: no task starts.
func (f *failing) Live() []task.Live { return nil }
