package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// backfillOptions are the flags of backfill.
type backfillOptions struct {
	app         *app
	file        string
	from, to    string
	schedule    int
	only, order string
	parallel    int
	dryRun, yes bool
	json        bool
	params      []string
}

func newBackfillCmd(a *app, runF func(context.Context, *backfillOptions) error) *cobra.Command {
	o := &backfillOptions{app: a}
	cmd := &cobra.Command{
		Use:   "backfill FILE --from DATE --to DATE",
		Short: "Run the ticks of a past time",
		Long: `Run a scheduled pipeline for the ticks between two dates (the last day included) or times: run.scheduled is
the tick. A tick that has succeeded, by its schedule or an earlier backfill, is left alone; one that failed is
retried. --dry-run shows what would run. On a terminal it asks before it starts.`,
		Example: "  coiled-jobs backfill pipeline.yaml --from 2024-01-01 --to 2024-01-31 --parallel 4",
		Args:    arguments(1, 1, "a pipeline file"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			if o.from == "" || o.to == "" {
				return usagef("backfill needs --from and --to: dates such as 2024-01-31, or times such as 2024-01-31T06:00:00Z")
			}
			if !slices.Contains([]string{"", "missing", "failed"}, o.only) {
				return usagef("--only %s: write missing or failed", o.only)
			}
			if !slices.Contains([]string{"oldest", "newest"}, o.order) {
				return usagef("--order %s: write oldest or newest", o.order)
			}
			if o.parallel < 1 {
				return usagef("--parallel %d: write a number from 1", o.parallel)
			}
			return runF(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "the first `date` or time")
	f.StringVar(&o.to, "to", "", "the last `date` (included) or time")
	f.IntVar(&o.schedule, "schedule", 1, "the `n`th schedule of the file")
	f.StringVar(&o.only, "only", "", "only ticks that are `missing` or failed")
	f.StringVar(&o.order, "order", "oldest", "which come first: `oldest` or newest")
	f.IntVar(&o.parallel, "parallel", 1, "`n` runs at a time")
	f.StringArrayVar(&o.params, "param", nil, "set a parameter, `name=value` (repeatable)")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would run")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// backfillLine is a tick in the JSON of backfill.
type backfillLine struct {
	Tick   time.Time `json:"tick"`
	Status string    `json:"status"` // missing, or that of its run
	Run    string    `json:"run,omitempty"`
	Runs   bool      `json:"runs"` // it is run now
	Error  string    `json:"error,omitempty"`
}

// maxBackfill bounds what one command starts.
const maxBackfill = 10000

func runBackfill(ctx context.Context, o *backfillOptions) error {
	a := o.app
	if err := checkFile(o.file); err != nil {
		return err
	}
	e, err := a.engine(ctx)
	if err != nil {
		return err
	}
	s, err := o.find(e)
	if err != nil {
		return err
	}
	lines, err := o.plan(ctx, e, s)
	if err != nil {
		return err
	}
	n := 0
	for _, l := range lines {
		if l.Runs {
			n++
		}
	}
	if !o.json || isTerminal(a.stderr) {
		fmt.Fprintf(a.messages, "%s of %s between %s and %s, %s to run\n", ui.Plural(len(lines), "tick"), ui.Clean(s.Pipeline), o.from, o.to, ui.Count(n))
	}
	if o.dryRun || n == 0 {
		return o.print(lines)
	}
	if !o.yes && isTerminal(a.stdin) && isTerminal(a.stderr) && !a.confirm("start "+ui.Plural(n, "run")+"?") {
		return usagef("nothing was started")
	}
	return o.run(ctx, e, s, lines)
}

// find is the schedule that is meant, with the parameters of the flags.
func (o *backfillOptions) find(e *engine.Engine) (s schedule.Schedule, err error) {
	files, err := e.ScheduledFiles([]string{o.file})
	if err != nil {
		return s, err
	}
	f := files[0]
	switch {
	case f.Err != nil:
		return s, f.Err
	case len(f.Schedules) == 0:
		return s, usagef("%s has no schedule, so it has no ticks; `apply --param` runs it for one date", o.file)
	case o.schedule < 1 || o.schedule > len(f.Schedules):
		return s, usagef("--schedule %d: %s has %s", o.schedule, o.file, ui.Plural(len(f.Schedules), "schedule"))
	}
	s = f.Schedules[o.schedule-1]
	given, err := parseParams(o.params)
	if err != nil {
		return s, err
	}
	params := map[string]string{}
	for _, set := range []map[string]string{s.Params, given} {
		for k, v := range set {
			params[k] = v
		}
	}
	s.Params = params
	return s, nil
}

// plan finds the ticks and what became of them.
func (o *backfillOptions) plan(ctx context.Context, e *engine.Engine, s schedule.Schedule) ([]backfillLine, error) {
	from, err := dayOrTime(o.from, s.Times.Location(), 0)
	if err != nil {
		return nil, usagef("--from %s: %v", o.from, err)
	}
	to, err := dayOrTime(o.to, s.Times.Location(), 1)
	if err != nil {
		return nil, usagef("--to %s: %v", o.to, err)
	}
	if !from.Before(to) {
		return nil, usagef("--from %s is not before --to %s", o.from, o.to)
	}
	list, before := s.Times.Between(from.Add(-time.Nanosecond), to, maxBackfill)
	if before > 0 {
		return nil, usagef("there are %d ticks between %s and %s; at most %d at a time", before+len(list), o.from, o.to, maxBackfill)
	}
	lines := make([]backfillLine, 0, len(list))
	for _, tick := range list {
		l := backfillLine{Tick: tick, Status: "missing"}
		if l.Run, l.Status, err = e.TickRun(ctx, schedule.RunKey(s, tick)); err != nil {
			return nil, err
		}
		switch l.Status {
		case "":
			l.Status, l.Runs = "missing", o.only != "failed"
		case string(executor.RunSucceeded), string(executor.RunRunning):
		default:
			l.Runs = o.only != "missing"
		}
		lines = append(lines, l)
	}
	if o.order == "newest" {
		slices.Reverse(lines)
	}
	return lines, nil
}

// dayOrTime reads a date in a time zone (plus is added to it), or a time.
func dayOrTime(text string, loc *time.Location, plus int) (time.Time, error) {
	if at, err := time.ParseInLocation("2006-01-02", text, loc); err == nil {
		return at.AddDate(0, 0, plus).Add(-time.Duration(plus) * time.Nanosecond), nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.ParseInLocation(layout, text, loc); err == nil {
			return at, nil
		}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("expected a date such as 2024-01-31 or a time such as 2024-01-31T06:00:00Z")
	}
	return at, nil
}

// run starts the runs, some at a time, and waits for them.
func (o *backfillOptions) run(ctx context.Context, e *engine.Engine, s schedule.Schedule, lines []backfillLine) error {
	a := o.app
	a.coordinating.Store(true)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		free = make(chan struct{}, o.parallel)
	)
	code, k := exitDone, e.Keeper()
	note := func(l *backfillLine, text string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(a.messages, "%s  %s\n", l.Tick.Format(time.RFC3339), ui.Clean(text))
	}
	for i := range lines {
		l := &lines[i]
		if !l.Runs {
			continue
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-free }()
			h, err := e.StartTick(ctx, s, schedule.RunKey(s, l.Tick), l.Tick)
			var r executor.Report
			if err == nil {
				l.Run = h.Run
				note(l, h.Run+" started")
				err = k.Backfilled(ctx, s, l.Tick, h.Run, "", time.Now())
				var waited error
				r, waited = h.Wait(ctx)
				l.Status = string(r.Status)
				if waited == nil && r.Status.Final() {
					waited = k.Backfilled(context.WithoutCancel(ctx), s, l.Tick, h.Run, l.Status, time.Now())
				}
				err = cmp.Or(waited, err)
			}
			if err != nil && ctx.Err() == nil {
				l.Error = strings.TrimPrefix(err.Error(), schedule.ErrBroken.Error()+": ")
				note(l, "error: "+l.Error)
			} else {
				note(l, l.Run+" "+l.Status)
			}
			mu.Lock()
			defer mu.Unlock()
			if c := exitCodeOf(r.Status, err); c != exitDone && code == exitDone {
				code = c
			}
		})
	}
	wg.Wait()
	if err := o.print(lines); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return &exitError{code: exitCancelled}
	case code != exitDone:
		return &exitError{code: code}
	}
	return nil
}

func exitCodeOf(status executor.RunStatus, err error) int {
	if err == nil {
		err = exitOf(status)
	}
	code, _ := exitCode(context.Background(), err)
	return code
}

func (o *backfillOptions) print(lines []backfillLine) error {
	a := o.app
	if o.json {
		return a.printJSON(lines)
	}
	for _, l := range lines {
		will := ""
		if l.Runs && o.dryRun {
			will = "would run"
		}
		if _, err := fmt.Fprintf(a.stdout, "%s\t%s\t%s\t%s\n", l.Tick.Format(time.RFC3339), l.Status, l.Run, will); err != nil {
			return err
		}
	}
	return nil
}
