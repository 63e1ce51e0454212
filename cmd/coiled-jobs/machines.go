package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// machinesOptions are the flags of machines.
type machinesOptions struct {
	app       *app
	all, json bool
}

func newMachinesCmd(a *app, runF func(context.Context, *machinesOptions) error) *cobra.Command {
	o := &machinesOptions{app: a}
	cmd := &cobra.Command{
		Use:   "machines",
		Short: "List machines that work for live runs",
		Args:  arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runF(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "everybody's")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// machineLine is a machine in the JSON of machines.
type machineLine struct {
	Machine string    `json:"machine"`
	Run     string    `json:"run"`
	Owner   string    `json:"owner"`
	Since   time.Time `json:"since"`
	Running int       `json:"running"` // tasks now
	CostUSD float64   `json:"cost_usd"`
}

func runMachines(ctx context.Context, o *machinesOptions) error {
	a := o.app
	e, err := a.reader(ctx)
	if err != nil {
		return err
	}
	runs, err := e.Runs(ctx, o.all)
	if err != nil {
		return err
	}
	lines := []machineLine{}
	for _, s := range runs {
		if s.Status != string(executor.RunRunning) && s.Status != string(executor.RunPending) {
			continue
		}
		v, err := a.openRun(ctx, s.Run)
		if err != nil {
			return err
		}
		r, err := v.Report(ctx)
		if err != nil {
			return err
		}
		if ended(r) {
			continue // the list was a hint
		}
		lines = append(lines, machineLine{"this machine", s.Run, s.Owner, r.Started, ui.Sum(r).Running, r.CostUSD})
	}
	if o.json {
		return a.printJSON(lines)
	}
	if len(lines) == 0 {
		fmt.Fprintln(a.messages, "no machine works for a run now")
		return nil
	}
	t := &ui.Table{Header: []string{"MACHINE", "RUN", "OWNER", "SINCE", "RUNNING", "COST"}, Right: []bool{false, false, false, false, true, true}}
	for _, l := range lines {
		t.Rows = append(t.Rows, []string{l.Machine, l.Run, l.Owner, l.Since.Local().Format("2006-01-02 15:04:05"), ui.Plural(l.Running, "task"),
			ui.Dollars(l.CostUSD)})
	}
	return a.printTable(t)
}
