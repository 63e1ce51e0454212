package main

import (
	"context"
	"encoding/json"
	"sort"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// statusOptions are the flags of status.
type statusOptions struct {
	app  *app
	run  string
	json bool
}

func newStatusCmd(a *app, runF func(context.Context, *statusOptions) error) *cobra.Command {
	o := &statusOptions{app: a}
	cmd := &cobra.Command{
		Use:   "status RUN",
		Short: "Show the state of a run, live or ended",
		Args:  arguments(1, 1, "a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func runStatus(ctx context.Context, o *statusOptions) error {
	a := o.app
	v, r, err := a.openReport(ctx, o.run)
	if err != nil {
		return err
	}
	if o.json {
		return a.printJSON(json.Marshaler(r))
	}
	groups := new(failures.Grouper)
	if ui.Sum(r).Failed > 0 {
		groups = groupView(ctx, v.View)
	}
	s := ui.Summary{Report: r, Groups: groups.Groups(), Grouped: groups.Total(), Local: v.Header.Cloud != "aws", Program: v.command, Width: width(a.stdout)}
	if live, err := v.Live(ctx); err == nil && !ended(r) { // of a dead coordinator, it is what ran then
		sort.SliceStable(live, func(i, j int) bool { return live[i].Started < live[j].Started })
		s.Live = live
	}
	return s.Write(a.stdout, a.style(a.stdout))
}
