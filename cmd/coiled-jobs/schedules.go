package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// schedulesOptions are the flags of schedules.
type schedulesOptions struct {
	app   *app
	paths []string
	next  int
	json  bool
}

func newSchedulesCmd(a *app, runF func(context.Context, *schedulesOptions) error) *cobra.Command {
	o := &schedulesOptions{app: a}
	cmd := &cobra.Command{
		Use:   "schedules [FILE|FOLDER...]",
		Short: "Show when pipelines run by themselves",
		Long: `Show the schedules of pipeline files (of the current folder if none is named): their next times and what
became of their last tick. "serve" keeps them, or "tick" called by any cron.`,
		Args: arguments(0, -1, "pipeline files or folders"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.paths = args; len(args) == 0 {
				o.paths = []string{"."}
			}
			if o.next < 1 || o.next > 1000 {
				return usagef("--next %d: write a number from 1 to 1000", o.next)
			}
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().IntVar(&o.next, "next", 5, "show so many coming `times`")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// scheduleJSON is a schedule in the JSON of schedules.
type scheduleJSON struct {
	Pipeline string            `json:"pipeline"`
	File     string            `json:"file"`
	Schedule string            `json:"schedule"`
	Cron     string            `json:"cron"`
	Timezone string            `json:"timezone"`
	Params   map[string]string `json:"params,omitempty"`
	Overlap  string            `json:"overlap"`
	Catchup  string            `json:"catchup"`
	Paused   bool              `json:"paused"`
	Next     []time.Time       `json:"next"`
	Last     *schedule.Record  `json:"last"` // null: no tick yet
}

func runSchedules(ctx context.Context, o *schedulesOptions) error {
	a := o.app
	files, broken, k, err := a.scheduled(ctx, o.paths)
	if err != nil {
		return err
	}
	now := time.Now()
	list := []scheduleJSON{}
	for _, f := range files {
		for _, s := range f.Schedules {
			j, err := describeSchedule(ctx, k, s, now, o.next)
			if err != nil {
				return err
			}
			list = append(list, j)
		}
	}
	switch {
	case o.json:
		if err := a.printJSON(list); err != nil {
			return err
		}
	case len(list) == 0:
		fmt.Fprintf(a.messages, "no schedules: add one to a pipeline file, for example schedule: {cron: \"0 2 * * *\"}\n")
	default:
		if err := a.printSchedules(list); err != nil {
			return err
		}
	}
	if broken > 0 {
		return &exitError{code: exitUsage}
	}
	return nil
}

func describeSchedule(ctx context.Context, k *schedule.Keeper, s schedule.Schedule, now time.Time, n int) (scheduleJSON, error) {
	j := scheduleJSON{Pipeline: s.Pipeline, File: s.File, Schedule: s.ID, Cron: s.Cron, Timezone: s.Zone, Params: s.Params,
		Overlap: s.Policy.Overlap, Catchup: s.Policy.Catchup, Next: []time.Time{}}
	paused, err := k.Paused(ctx, s.Pipeline)
	if err != nil {
		return j, err
	}
	j.Paused = paused || s.Policy.Paused
	for at := s.Times.Next(now); len(j.Next) < n && !at.IsZero(); at = s.Times.Next(at) {
		j.Next = append(j.Next, at)
	}
	if j.Last, err = k.Last(ctx, s); j.Last != nil {
		j.Last.Tick = j.Last.Tick.In(s.Times.Location())
	}
	return j, err
}

// scheduled reads pipeline files, prints what is wrong with those that are
// broken and counts them, and gives the keeper of their schedules.
func (a *app) scheduled(ctx context.Context, paths []string) (files []engine.ScheduledFile, broken int, k *schedule.Keeper, err error) {
	e, err := a.engine(ctx)
	if err != nil {
		return nil, 0, nil, err
	}
	if files, err = e.ScheduledFiles(paths); err != nil {
		return nil, 0, nil, err
	}
	for _, f := range files {
		if f.Err != nil {
			broken++
			fmt.Fprintln(a.messages, message(f.Err))
		}
	}
	return files, broken, e.Keeper(), nil
}

func (a *app) printSchedules(list []scheduleJSON) error {
	if !isTerminal(a.stdout) {
		t := ui.Table{Header: make([]string, 7)}
		for _, j := range list {
			next, last := "", ""
			if len(j.Next) > 0 {
				next = j.Next[0].Format(time.RFC3339)
			}
			if j.Last != nil {
				last = outcomeText(j.Last)
			}
			t.Rows = append(t.Rows, []string{j.Pipeline, j.Schedule, j.Cron, j.Timezone, fmt.Sprint(j.Paused), next, last})
		}
		return t.WriteTSV(a.stdout)
	}
	for i, j := range list {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		paused := ""
		if j.Paused {
			paused = "  (paused)"
		}
		fmt.Fprintf(a.stdout, "%s  %s  %s%s\n", ui.Clean(j.Pipeline), ui.Clean(j.Cron), j.Timezone, paused)
		for _, at := range j.Next {
			fmt.Fprintf(a.stdout, "  next  %s\n", at.Format("Mon 2 Jan 2006 15:04 MST"))
		}
		if j.Last != nil {
			fmt.Fprintf(a.stdout, "  last  %s  %s\n", j.Last.Tick.Format("Mon 2 Jan 2006 15:04 MST"), ui.Clean(outcomeText(j.Last)))
		}
	}
	return nil
}

// outcomeText says what became of a tick in a line.
func outcomeText(r *schedule.Record) string {
	text := r.State
	if r.Count > 1 {
		text += fmt.Sprintf(" (%d ticks)", r.Count)
	}
	if r.Run != "" {
		text += ": " + r.Run
		if r.Status != "" {
			text += " " + r.Status
		}
		if r.Late >= 60 {
			text += ", " + ui.Seconds(r.Late) + " late"
		}
	}
	if r.Why != "" {
		text += ": " + r.Why
	}
	return text
}
