package machine

import (
	"context"
	"strings"
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
	message := headed(f.err.Error())
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
				Exit: 1, Started: now, Message: message, Machine: f.s.m.id.ID})
		}
		f.s.report(b)
		if err := q.Done(ctx, d); err != nil {
			return err
		}
	}
}

// headed puts the last line of what a program printed into the first line of a
// message, which is all that lists show: that is where most say what is wrong.
func headed(text string) string {
	head, printed, ok := strings.Cut(text, ":\n")
	if !ok {
		return text
	}
	lines := strings.Split(strings.TrimSpace(printed), "\n")
	return head + ": " + strings.TrimSpace(lines[len(lines)-1]) + "\n" + printed
}

// Live is nothing: no task starts.
func (f *failing) Live() []task.Live { return nil }
