package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// logsOptions are the flags of logs.
type logsOptions struct {
	app            *app
	run, task      string
	follow, failed bool
	attempt        int
}

func newLogsCmd(a *app, runF func(context.Context, *logsOptions) error) *cobra.Command {
	o := &logsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "logs RUN [FN[/I]]",
		Short: "Print what tasks wrote to standard output and standard error",
		Args:  arguments(1, 2, "a run and perhaps a task"), ValidArgsFunction: a.completeTasks,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			if len(args) > 1 {
				o.task = args[1]
			}
			if cmd.Flags().Changed("attempt") && o.attempt < 1 {
				return usagef("--attempt %d: attempts count from 1", o.attempt)
			}
			if o.follow && o.attempt > 0 {
				return usagef("-f follows the attempt that runs: leave out --attempt")
			}
			return runF(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until the run (or the task) has ended")
	f.BoolVar(&o.failed, "failed", false, "only tasks that failed")
	f.IntVar(&o.attempt, "attempt", 0, "the log of this attempt; default: the last one")
	return cmd
}

// followEvery is how often -f looks for more.
const followEvery = 150 * time.Millisecond

// followOften is how often at least, where a look costs something: somebody
// watches. With agent.LogDelay it is less than three seconds.
const followOften = 400 * time.Millisecond

// logPrinter prints logs, with a header where there are several.
type logPrinter struct {
	view    *runView
	w       io.Writer
	clean   *ui.LogWriter // on a terminal
	headers bool
	style   ui.Style
	cut     bool   // the run was interrupted: nothing runs
	current string // the log that the last line came from
	newline bool   // the last byte was a line break
	any     bool
}

func runLogs(ctx context.Context, o *logsOptions) error {
	a := o.app
	v, r, err := a.openReport(ctx, o.run)
	if err != nil {
		return err
	}
	p := &logPrinter{view: v, w: a.stdout, style: a.style(a.stdout), cut: r.Status == executor.RunInterrupted, headers: true, newline: true}
	if isTerminal(a.stdout) {
		p.clean = &ui.LogWriter{W: a.stdout, Colour: p.style.Colour}
		p.w = p.clean
	}
	functions := v.Functions()
	if o.task != "" {
		ref, all, err := v.resolve(r, o.task)
		if err != nil {
			return err
		}
		if !all {
			return o.one(ctx, p, r, ref)
		}
		functions = []string{ref.fn}
	}
	if o.follow {
		return o.followAll(ctx, p, functions)
	}
	running, err := v.running(ctx, r)
	if err != nil {
		return err
	}
	found := false
	for _, fn := range functions {
		for t := range v.Tasks(fn) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if running[taskRef{fn, t.Index}] > 0 && t.Status == task.Pending {
				t.Status = task.Running
			}
			if t.Status == task.Pending || o.failed && t.Status != task.Failed || t.Status.Final() && t.Attempts == 0 {
				continue
			}
			found = true
			if err := p.whole(ctx, fn, t, o.attempt); err != nil {
				return err
			}
		}
	}
	if !p.any {
		what := "no logs yet"
		switch {
		case o.failed && !found:
			what = "no task has failed"
		case o.failed:
			what = "what failed printed nothing"
		case r.Status.Final():
			what = "nothing was printed"
		}
		fmt.Fprintf(a.messages, "run %s: %s\n", v.run, what)
	}
	return nil
}

// running is the attempts that run now; of an interrupted run, those that were
// seen last.
func (v *runView) running(ctx context.Context, r executor.Report) (map[taskRef]int, error) {
	if r.Status.Final() {
		return nil, nil
	}
	live, err := v.Live(ctx)
	attempts := make(map[taskRef]int, len(live))
	for _, l := range live {
		attempts[taskRef{l.Function, l.Index}] = l.Attempt
	}
	return attempts, err
}

// one prints the log of one task.
func (o *logsOptions) one(ctx context.Context, p *logPrinter, r executor.Report, ref taskRef) error {
	v := p.view
	p.headers = false
	t, _ := v.Task(ref.fn, ref.index)
	if o.follow {
		return p.followOne(ctx, ref)
	}
	if o.failed && t.Status != task.Failed {
		fmt.Fprintf(o.app.messages, "%s has not failed: %s\n", v.label(ref), t.Status)
		return nil
	}
	running, err := v.running(ctx, r)
	if err != nil {
		return err
	}
	if running[ref] > 0 && !t.Status.Final() {
		t.Status = task.Running
	}
	if o.attempt > max(t.Attempts, running[ref]) {
		return usagef("%s has had %s, not %d", v.label(ref), ui.Plural(t.Attempts, "attempt"), o.attempt)
	}
	if t.Attempts == 0 && t.Status != task.Running {
		why := fmt.Sprintf("%s has not run: %s", v.label(ref), t.Status)
		if t.Cached {
			why = v.label(ref) + " has not run here: an earlier result was used"
		}
		fmt.Fprintf(o.app.messages, "%s; %s why %s %s says more\n", why, v.command, v.run, v.label(ref))
		return nil
	}
	return p.whole(ctx, ref.fn, t, o.attempt)
}

// whole prints a log from its start, without a header if it is empty.
func (p *logPrinter) whole(ctx context.Context, fn string, t executor.TaskReport, attempt int) error {
	if attempt > t.Attempts && t.Status.Final() {
		return nil
	}
	for off := int64(0); ; {
		data, done, err := p.view.Log(ctx, fn, t.Index, attempt, off)
		if err != nil {
			return err
		}
		if err := p.print(p.title(fn, t, attempt), data); err != nil {
			return err
		}
		off += int64(len(data))
		if done || len(data) == 0 {
			return p.end()
		}
	}
}

func (p *logPrinter) title(fn string, t executor.TaskReport, attempt int) string {
	status := t.Status.String()
	if t.Status == task.Running && p.cut {
		status = "unfinished"
	}
	title := p.view.label(taskRef{fn, t.Index}) + " " + status
	if t.Attempts > 1 || attempt > 0 {
		n := attempt
		if n == 0 {
			n = t.Attempts
		}
		title += fmt.Sprintf(", attempt %d of %d", n, max(t.Attempts, n))
	}
	return title
}

func (p *logPrinter) print(title string, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if p.headers && p.current != title {
		head := p.style.Bold("==> " + ui.Clean(title) + " <==")
		if !p.newline {
			head = "\n" + head
		}
		if _, err := io.WriteString(p.raw(), head+"\n"); err != nil {
			return err
		}
	}
	p.current, p.any = title, true
	p.newline = data[len(data)-1] == '\n'
	_, err := p.w.Write(data)
	return err
}

// raw is the writer behind the cleaning one, for our own lines.
func (p *logPrinter) raw() io.Writer {
	if p.clean != nil {
		return p.clean.W
	}
	return p.w
}

func (p *logPrinter) end() error {
	if p.clean != nil {
		return p.clean.End()
	}
	return nil
}
