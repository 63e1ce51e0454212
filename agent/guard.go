//go:build unix

package agent

import (
	"fmt"
	"syscall"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// guard ends a process that takes too long or is cancelled: SIGTERM to its
// group, a grace, SIGKILL.
type guard struct {
	a       *Agent
	ch      *child
	timeout time.Duration
	started time.Time
	// allowance is added to the timeout of the first call of an interpreter.
	allowance time.Duration
	cause     task.Cause // why it is being ended; NoCause: it is not
	killAt    time.Time
	killed    bool
}

// next is when check wants to be called again.
func (g *guard) next() time.Time {
	switch {
	case g.killed:
		return time.Time{}
	case g.cause != task.NoCause:
		return g.killAt
	case g.timeout > 0:
		return g.started.Add(g.timeout + g.allowance)
	}
	return time.Time{}
}

func (g *guard) check(now time.Time) {
	switch {
	case g.killed:
	case g.cause != task.NoCause:
		if !now.Before(g.killAt) {
			g.ch.signal(syscall.SIGKILL)
			g.killed = true
		}
	case g.timeout > 0 && now.Sub(g.started) >= g.timeout+g.allowance:
		g.end(task.CauseTimeout, now.Add(g.a.graceTimeout))
	}
}

// cancel begins to end the process because of a cancel.
func (g *guard) cancel(now time.Time) {
	at := now.Add(g.a.graceCancel)
	if g.cause == task.NoCause {
		g.end(task.CauseCancelled, at)
	} else if at.Before(g.killAt) {
		g.killAt = at
	}
}

func (g *guard) end(cause task.Cause, killAt time.Time) {
	g.cause, g.killAt = cause, killAt
	g.ch.signal(syscall.SIGTERM)
	g.ch.signal(syscall.SIGCONT) // a stopped process must be able to die
}

// judge says in the outcome how a process ended. True: it did so by itself and
// with exit code 0.
func (g *guard) judge(o *task.Outcome, ws syscall.WaitStatus, oom func() bool) bool {
	o.Exit = ws.ExitStatus()
	if ws.Signaled() {
		o.Exit = 128 + int(ws.Signal())
		o.Signal = signalName(ws.Signal())
	}
	o.Status = task.Failed
	switch {
	case g.cause == task.CauseTimeout:
		o.Cause, o.Exit = task.CauseTimeout, 124
		o.Message = fmt.Sprintf("took longer than its timeout of %s", g.timeout)
	case g.cause == task.CauseCancelled:
		o.Status, o.Cause = task.Cancelled, task.CauseCancelled
		o.Message = "ended because the run was cancelled"
	case o.Exit == 128+int(syscall.SIGKILL) && oom():
		// Also a shell whose program was killed, and that passed the code on.
		o.Cause = task.CauseOOM
		o.Message = "killed by the system, which ran out of memory"
	case ws.Signaled():
		o.Cause = task.CauseSignal
		o.Message = "killed by " + o.Signal
	case o.Exit != 0:
		o.Cause = task.CauseExit
		o.Message = fmt.Sprintf("exit code %d", o.Exit)
	default:
		o.Status = task.Succeeded
		return true
	}
	return false
}
