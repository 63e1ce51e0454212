package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// followed is what was learned by following a run to its end.
type followed struct {
	report executor.Report
	failed failures.Grouper
}

// How often the live view is drawn and plain progress looked at.
const (
	drawEvery  = 100 * time.Millisecond
	plainEvery = time.Second
)

// follower shows the progress of a run on standard error.
type follower struct {
	app     *app
	handle  *engine.Handle
	notices ui.Notices
	plain   *ui.Plain  // or
	screen  *ui.Screen // one of them
	pace    ui.Pace
	tasks   map[string]int
	note    string
	broken  bool // standard error is gone; the run goes on
	out     followed
}

// follow shows a run until it ends.
func (a *app) follow(ctx context.Context, h *engine.Handle) (*followed, error) {
	f := &follower{app: a, handle: h, tasks: map[string]int{}}
	f.notices.Style = a.style(a.stderr)
	every := plainEvery
	if isTerminal(a.stderr) && !a.plain() {
		every = drawEvery
		f.screen = ui.NewScreen(a.stderr, func() (int, int) { return size(a.stderr) })
		a.messages.attach(f.screen)
		defer a.messages.restore()
	} else {
		f.plain = &ui.Plain{W: a.messages, Notices: &f.notices}
	}
	type end struct {
		report executor.Report
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		r, err := h.Wait(ctx)
		ended <- end{r, err}
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	notices, stopping := h.Notices(), ctx.Done()
	for {
		select {
		case n, ok := <-notices:
			if !ok {
				notices = nil
				continue
			}
			f.notice(n)
		case <-tick.C:
			f.tick(time.Now())
		case <-stopping:
			stopping = nil
			f.note = "ending; press Ctrl-C again to exit at once"
		case e := <-ended:
			f.drain(notices)
			f.out.report = e.report
			return &f.out, e.err
		}
	}
}

// drain takes what was said before the end. The channel is closed by then, or
// about to be.
func (f *follower) drain(notices <-chan executor.Notice) {
	if notices == nil {
		return
	}
	timeout := time.After(time.Second)
	for {
		select {
		case n, ok := <-notices:
			if !ok {
				return
			}
			f.notice(n)
		case <-timeout:
			return
		}
	}
}

func (f *follower) notice(n executor.Notice) {
	if n.Kind == executor.NoticeFailed && n.Outcome != nil {
		f.out.failed.Add(n.Function, n.Outcome)
	}
	if f.broken {
		return
	}
	count, known := f.tasks[n.Function]
	if n.Function != "" && (!known || count == 0) {
		for _, fn := range f.handle.Snapshot().Functions {
			f.tasks[fn.Name] = fn.Tasks
		}
		count = f.tasks[n.Function]
	}
	var err error
	if f.plain != nil {
		err = f.plain.Notice(n, count)
	} else if line := f.notices.Line(n, count); line != "" && f.onScreen(n) {
		err = f.screen.Print(line)
	}
	f.broken = err != nil
}

// onScreen says whether a notice scrolls by above the live view, which itself
// shows what starts, is planned and ends well.
func (f *follower) onScreen(n executor.Notice) bool {
	switch n.Kind {
	case executor.NoticeStarted, executor.NoticePlanned, executor.NoticeFunction, executor.NoticeFinished:
		return false
	}
	return true
}

func (f *follower) tick(now time.Time) {
	if f.broken {
		return
	}
	r := f.handle.Snapshot()
	var err error
	if f.plain != nil {
		err = f.plain.Tick(r, now)
	} else {
		f.pace.Observe(ui.Sum(r).Done, now)
		width, height := size(f.app.stderr)
		starting, working := f.handle.Fleet()
		frame := ui.Frame{Starting: starting, Working: working, Report: r, Live: f.handle.Live(), Pace: &f.pace, Now: now, Note: f.note, Hidden: f.notices.Hidden()}
		err = f.screen.Draw(frame.Lines(f.notices.Style, width, height))
	}
	f.broken = err != nil
}

// waiting is what apply, wait, resume and retry have in common: how they show
// a run and what they leave.
type waiting struct {
	json       bool
	noDownload bool
	onTerm     string
	noOutputs  bool   // the pipeline declares none
	dir        string // where the pipeline file is that was given; "": where the run began
}

func (w *waiting) flags(cmd *cobra.Command, coordinates bool) {
	f := cmd.Flags()
	f.BoolVar(&w.json, "json", false, "print the final state as JSON on standard output")
	f.BoolVar(&w.noDownload, "no-download", false, "leave declared outputs in the store")
	if coordinates {
		f.StringVar(&w.onTerm, "on-term", "cancel", "what SIGTERM does: cancel the run, or leave it to be resumed")
	}
}

func (w *waiting) check() error {
	switch w.onTerm {
	case "", "cancel", "leave":
		return nil
	}
	return usagef("--on-term %s: write cancel or leave", w.onTerm)
}

// attend follows a run to its end, brings its outputs back, prints the summary
// and gives the exit code as an error.
func (a *app) attend(ctx context.Context, e *engine.Engine, h *engine.Handle, w *waiting) error {
	if h.Joined != "" {
		fmt.Fprintf(a.messages, "%s: %s\n", program, ui.Clean(h.Joined))
	}
	a.coordinating.Store(!h.Detached)
	a.leaveOnTerm.Store(w.onTerm == "leave")
	a.leaving.Store(&h.Run)
	out, err := a.follow(ctx, h)
	a.leaving.Store(nil)
	var signal *signalError
	if err != nil {
		if errors.As(context.Cause(ctx), &signal) && !out.report.Status.Final() {
			fmt.Fprintf(a.messages, "%s: run %s goes on; end it with: %s cancel %s\n", program, h.Run, a.command(), h.Run)
			return &exitError{code: exitCancelled}
		}
		return err
	}
	// What comes now is quick, and happens after Ctrl-C too.
	ctx = context.WithoutCancel(ctx)
	outputs, outErr := a.bringBack(ctx, e, h.Run, w)
	if outErr != nil {
		fmt.Fprintf(a.messages, "%s: outputs: %s\n", program, ui.Clean(outErr.Error()))
	}
	groups := &out.failed
	if ui.Sum(out.report).Failed != groups.Total() {
		groups = a.groupFailures(ctx, e, h.Run)
	}
	summary := a.summary(out.report, groups, outputs)
	if hd, err := executor.LoadHeader(ctx, e.Store, h.Run); err == nil {
		summary.Local = hd.Cloud != "aws"
	}
	if err := summary.Write(a.messages, a.style(a.stderr)); err != nil && !w.json {
		return exitOf(out.report.Status) // standard error is gone, the run is what counts
	}
	if w.json {
		if err := a.printJSON(out.report); err != nil && exitOf(out.report.Status) == nil {
			return err
		}
	}
	if err := exitOf(out.report.Status); err != nil || outErr == nil {
		return err
	}
	return &exitError{code: exitCannot}
}

func (a *app) summary(r executor.Report, g *failures.Grouper, outputs []string) *ui.Summary {
	return &ui.Summary{Report: r, Groups: g.Groups(), Grouped: g.Total(), Local: true, Outputs: outputs, Program: a.command(),
		Width: width(a.stderr)}
}

// bringBack puts the outputs of a run beside its pipeline file, and names them.
// Where there is no such folder they stay in the store.
func (a *app) bringBack(ctx context.Context, e *engine.Engine, run string, w *waiting) ([]string, error) {
	if w.noDownload || w.noOutputs {
		return nil, nil
	}
	h, err := executor.LoadHeader(ctx, e.Store, run)
	if err != nil {
		return nil, err
	}
	dir := cmp.Or(w.dir, h.Dir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		all, err := e.Outputs(ctx, run, "", -1)
		if slices.ContainsFunc(all, func(o engine.Output) bool { return o.Key != "" }) {
			fmt.Fprintf(a.messages, "%s: outputs stay in the store, as %s is no folder on this machine; bring them here with: %s outputs %s --to .\n",
				program, ui.Clean(dir), a.command(), run)
		}
		return nil, err
	}
	all, _, err := e.FetchOutputs(ctx, run, "", -1, dir)
	var paths []string
	for end := len(all); end > 0; { // later functions first: a report before its parts
		start := end - 1
		for start > 0 && all[start-1].Function == all[end-1].Function {
			start--
		}
		for _, o := range all[start:end] {
			path := o.Path
			if o.Key != "" {
				path = shortPath(filepath.Join(dir, path))
			}
			paths = append(paths, path)
		}
		end = start
	}
	return paths, err
}

// shortPath is an absolute path as people would type it here: relative where
// that does not lead upwards.
func shortPath(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

// maxGrouped bounds how many failed tasks are read to be grouped.
const maxGrouped = 2000

// groupFailures groups the failed tasks of a recorded run. What cannot be read
// is left out: the summary says how many tasks it is made from.
func (a *app) groupFailures(ctx context.Context, e *engine.Engine, run string) *failures.Grouper {
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return new(failures.Grouper)
	}
	return groupView(ctx, v)
}

func groupView(ctx context.Context, v *executor.View) *failures.Grouper {
	g := new(failures.Grouper)
	for _, fn := range v.Functions() {
		for t := range v.Tasks(fn) {
			if t.Status.String() != "failed" || t.Pos < 0 {
				continue
			}
			if g.Total() >= maxGrouped {
				return g
			}
			if o, err := v.Outcome(ctx, fn, t); err == nil && o != nil {
				g.Add(fn, o)
			}
		}
	}
	return g
}
