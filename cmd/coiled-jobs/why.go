package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// whyOptions are the arguments of why.
type whyOptions struct {
	app       *app
	run, task string
}

func newWhyCmd(a *app, runF func(context.Context, *whyOptions) error) *cobra.Command {
	o := &whyOptions{app: a}
	return &cobra.Command{
		Use:   "why RUN FN/I",
		Short: "Explain why a task ran, was skipped or failed",
		Args:  arguments(2, 2, "a run and a task"), ValidArgsFunction: a.completeTasks,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run, o.task = args[0], args[1]
			return runF(cmd.Context(), o)
		},
	}
}

// The end of a log that why shows.
const (
	whyLines = 40
	whyBytes = 16 << 10
)

func runWhy(ctx context.Context, o *whyOptions) error {
	a := o.app
	v, r, err := a.openReport(ctx, o.run)
	if err != nil {
		return err
	}
	ref, err := parseTaskRef(o.task)
	if err != nil {
		return err
	}
	if err := v.function(ref.fn); err != nil {
		return err
	}
	// A function that was skipped as a whole has no tasks to ask about.
	if n := v.count(r, ref.fn); n > 0 || ref.index > 0 {
		if ref, err = v.resolveOne(r, o.task); err != nil {
			return err
		}
	} else {
		ref.index = 0
	}
	lines, err := v.Why(ctx, ref.fn, ref.index)
	if err != nil {
		return err
	}
	st := a.style(a.stdout)
	var b bytes.Buffer
	for _, line := range lines {
		b.WriteString(ui.Clean(line) + "\n")
	}
	costs, err := v.TaskCosts(ctx, ref.fn, ref.index)
	if err != nil {
		return err
	}
	if c := costs[ref.index]; c > 0 {
		fmt.Fprintf(&b, "its attempts cost %s of their machines\n", ui.Dollars(c))
	}
	t, _ := v.Task(ref.fn, ref.index)
	if t.Status == task.Failed || r.Status == executor.RunInterrupted && !t.Status.Final() {
		a.whyLog(ctx, &b, v, ref, st)
	}
	whyNext(&b, v, ref, t, r, st)
	_, err = a.stdout.Write(b.Bytes())
	return err
}

// whyLog shows the end of the log of the last attempt.
func (a *app) whyLog(ctx context.Context, b *bytes.Buffer, v *runView, ref taskRef, st ui.Style) {
	tail, err := logTail(ctx, v.View, ref)
	tail = bytes.TrimRight(tail, "\n")
	if err != nil || len(tail) == 0 {
		return
	}
	b.WriteString("\n" + st.Bold("the end of its log:") + "\n")
	var clean bytes.Buffer
	w := &ui.LogWriter{W: &clean, Colour: st.Colour}
	_, _ = w.Write(tail)
	_ = w.End()
	for _, line := range strings.Split(strings.TrimRight(clean.String(), "\n"), "\n") {
		b.WriteString("  " + line + "\n")
	}
}

// logTail reads the last lines of the log of a task's last attempt.
func logTail(ctx context.Context, v *executor.View, ref taskRef) ([]byte, error) {
	var tail []byte
	for off := int64(0); ; {
		data, done, err := v.Log(ctx, ref.fn, ref.index, 0, off)
		if err != nil {
			return tail, err
		}
		off += int64(len(data))
		tail = append(tail, data...)
		if cut := len(tail) - whyBytes; cut > 0 {
			tail = append(tail[:0], tail[cut:]...)
			if i := bytes.IndexByte(tail, '\n'); i >= 0 {
				tail = tail[i+1:]
			}
		}
		if done || len(data) == 0 {
			break
		}
	}
	lines := bytes.SplitAfter(tail, []byte("\n"))
	if n := len(lines) - whyLines; n > 0 {
		lines = lines[n:]
	}
	return bytes.Join(lines, nil), nil
}

// whyNext names the commands that go on from here.
func whyNext(w io.Writer, v *runView, ref taskRef, t executor.TaskReport, r executor.Report, st ui.Style) {
	var next [][2]string
	add := func(what, format string, args ...any) {
		next = append(next, [2]string{v.command + " " + ui.Clean(fmt.Sprintf(format, args...)), what})
	}
	if t.Attempts > 0 {
		add("all it printed", "logs %s %s", v.run, v.label(ref))
	}
	if t.Status == task.Failed {
		add("run it here, alone, to debug it", "rerun %s %s --local", v.run, v.label(ref))
		if ended(r) {
			add("after a fix, run again what failed", "retry %s", v.run)
		}
	}
	switch {
	case r.Status == executor.RunInterrupted && !t.Status.Final(), r.Status == executor.RunStopped && t.Status == task.Cancelled:
		add("go on where it stopped", "resume %s", v.run)
	case r.Status == executor.RunCancelled && t.Status == task.Cancelled:
		add("run again what is not done", "retry %s", v.run)
	}
	ui.WriteNext(w, st, next)
}
