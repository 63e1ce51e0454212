package executor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// Why is lines that explain how a task came to its state.
func (v *View) Why(ctx context.Context, fn string, index int) ([]string, error) {
	f := v.state.byName[fn]
	if f == nil {
		return nil, fmt.Errorf("no function %q in this run", fn)
	}
	if f.n == 0 {
		return v.whyNone(ctx, f)
	}
	t, ok := v.Task(fn, index)
	if !ok {
		return nil, fmt.Errorf("%s has no task %d", fn, index)
	}
	if err := v.Now(ctx, fn, func(live TaskReport) {
		if live.Index == index {
			t = live
		}
	}); err != nil {
		return nil, err
	}
	lines := []string{fmt.Sprintf("%s/%d: %s", fn, index, t.Status)}
	attempts, err := v.Attempts(ctx, fn, index)
	if err != nil {
		return nil, err
	}
	for _, o := range attempts {
		lines = append(lines, describe(&o)...)
	}
	switch t.Status {
	case task.Skipped:
		lines = append(lines, "skipped because "+v.whySkipped(f, index))
	case task.Cancelled:
		if len(attempts) == 0 {
			lines = append(lines, "it never started: "+orElse(f.reason, "the run was cancelled"))
		}
	case task.Running:
		lines = append(lines, fmt.Sprintf("it runs, for %s now (attempt %d)", seconds(t.Seconds), t.Attempts))
	case task.Pending:
		alive, err := v.Alive(ctx)
		if err != nil {
			return nil, err
		}
		if v.interrupted(alive) {
			lines = append(lines, "nobody works on the run: it was interrupted")
		} else {
			lines = append(lines, v.whyPending(f, index, len(attempts)))
		}
	case task.Failed:
		lines = append(lines, v.whyNoRetry(f, &attempts[len(attempts)-1], len(attempts)))
	}
	return lines, nil
}

// whyNone explains a function that has no tasks, or none yet.
func (v *View) whyNone(ctx context.Context, f *function) ([]string, error) {
	lines := []string{f.spec.Name + ": " + f.shown()}
	alive, err := v.Alive(ctx)
	switch {
	case err != nil:
		return nil, err
	case f.phase == done && f.status == task.Succeeded:
		return append(lines, "it has no tasks: its map is empty"), nil
	case f.phase == done:
		return append(lines, f.status.String()+" as a whole, before its tasks were known: "+orElse(f.reason, "a function that it needs did not succeed")), nil
	case v.interrupted(alive):
		return append(lines, "nobody works on the run: it was interrupted"), nil
	case f.phase == waiting:
		return append(lines, v.whyPending(f, 0, 0)+", and its tasks are not known before"), nil
	}
	return append(lines, "its tasks are being found out"), nil
}

// describe says what one attempt ended with.
func describe(o *task.Outcome) []string {
	switch {
	case o.Cached:
		l := []string{"its work was already done: the result of " + orElse(o.From, "an earlier run") + " was used (cache)"}
		return append(l, messageLine(o)...)
	case o.Attempt == 0:
		return messageLine(o)
	}
	s := fmt.Sprintf("attempt %d, %s, took %s: %s", o.Attempt, time.Unix(0, o.Started).Format("2006-01-02 15:04:05"),
		seconds(o.Seconds), o.Status)
	if o.Status == task.Failed {
		s += fmt.Sprintf(" (cause %s, exit code %d", o.Cause, o.Exit)
		if o.Signal != "" {
			s += ", " + o.Signal
		}
		s += ")"
	}
	if o.Code != "" {
		s += ", code " + o.Code[:min(12, len(o.Code))]
	}
	lines := append([]string{s}, messageLine(o)...)
	if o.From != "" {
		lines = append(lines, "  it ran, not taken from the cache: "+o.From)
	}
	return lines
}

func messageLine(o *task.Outcome) []string {
	if o.Message == "" {
		return nil
	}
	return []string{"  " + o.Message}
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (v *View) whySkipped(f *function, i int) string {
	switch {
	case f.only != nil && !f.only[i]:
		return "--only names other tasks"
	case f.table.flags != nil && f.table.flags[i]&taskLeftOut != 0:
		return "its where is false for this item"
	case f.from != nil && f.from.table.status != nil && i < f.from.n && f.from.table.status[i] != task.Succeeded:
		return fmt.Sprintf("%s/%d %s", f.from.spec.Name, i, past(f.from.table.status[i]))
	case f.stopped:
		return "another task of " + f.spec.Name + " failed and on_failure is stop"
	}
	return orElse(f.reason, "a function that it needs did not succeed")
}

func (v *View) whyPending(f *function, i, attempts int) string {
	switch {
	case f.phase == waiting:
		var open []string
		for _, n := range f.needs {
			if n.phase != done {
				open = append(open, n.spec.Name)
			}
		}
		if len(open) == 0 {
			return "the run is about to begin"
		}
		return "it waits for " + strings.Join(open, ", ")
	case f.from != nil && f.held():
		return "it waits for " + f.from.spec.Name
	case f.from != nil && !f.mayRun(i):
		return fmt.Sprintf("it waits for %s/%d", f.from.spec.Name, i)
	case attempts > 0:
		return "it waits for its next attempt, or runs"
	}
	return "it waits for a free slot, or runs"
}

// whyNoRetry says why the last failure was final.
func (v *View) whyNoRetry(f *function, last *task.Outcome, attempts int) string {
	r := &f.spec.Retries
	switch last.Cause {
	case task.CauseMachine:
		return fmt.Sprintf("no attempt left: machines were lost %d times (retries.machine is %d)", attempts, r.Machine)
	case task.CauseOOM:
		if r.OOMMax == 0 {
			return "not tried again: retries.oom is not set"
		}
		return fmt.Sprintf("no attempt left: out of memory (retries.oom.max is %d)", r.OOMMax)
	case task.CauseCancelled:
		return "cancelled"
	}
	if r.Max == 0 {
		return "not tried again: retries is 0"
	}
	if attempts <= r.Max {
		if r.When != nil {
			return "not tried again: retries.when (" + r.When.Source + ") is false for this failure"
		}
		return "not tried again: the run or the function was being stopped"
	}
	return fmt.Sprintf("no attempt left: retries is %d", r.Max)
}
