package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// planOptions are the flags of plan.
type planOptions struct {
	app *app
	selection
	engine.ApplyOptions
	json, items bool
	assume      string
	machines    string
	prices      engine.EstimateOptions
}

func newPlanCmd(a *app, runF func(context.Context, *planOptions) error) *cobra.Command {
	o := &planOptions{app: a}
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "Show what apply would do: tasks, bytes, estimates, warnings",
		Long: `Show what apply would do: tasks, bytes, estimates, warnings. With --items, print the tasks of all maps
(or of those chosen by --function) as JSON lines.`,
		Args: arguments(1, 1, "a pipeline file"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.json && o.items {
				return usagef("--json and --items contradict each other: items are JSON lines already")
			}
			if o.ApplyOptions, err = o.selection.options(cmd, args[0]); err != nil {
				return err
			}
			o.prices.ApplyOptions = o.ApplyOptions
			if o.prices.Assume, err = spec.ParseDuration(o.assume); err != nil || o.prices.Assume <= 0 {
				return usagef("--assume %s: write how long a task takes, such as 30s or 5m", o.assume)
			}
			if o.prices.Machines, err = parseMachines(o.machines); err != nil {
				return err
			}
			return runF(cmd.Context(), o)
		},
	}
	o.selection.flags(cmd)
	cmd.Flags().StringVar(&o.assume, "assume", assumed.String(), "how `long` a task takes of which neither expect nor earlier runs say it (aws)")
	cmd.Flags().StringVar(&o.machines, "machines", "", "also show time and cost on these `numbers` of machines, such as 1,10,33,100 (aws)")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the plan as JSON")
	cmd.Flags().BoolVar(&o.items, "items", false, "print each task of each map as a JSON line")
	return cmd
}

func runPlan(ctx context.Context, o *planOptions) error {
	a := o.app
	if err := checkFile(o.File); err != nil {
		return err
	}
	e := a.planner(ctx)
	p, err := e.Plan(ctx, o.ApplyOptions)
	if err != nil {
		return err
	}
	a.warn(p.Warnings)
	if o.items {
		return o.printItems(p)
	}
	r := planner.NewReport(p.Pipeline, p.Plan)
	if p.Pipeline.Cloud == "aws" {
		e := a.pricer(ctx)
		if err := e.Estimate(ctx, p, o.prices, &r); err != nil {
			return err
		}
		o.travels(ctx, e, p, &r)
	} else if len(o.prices.Machines) > 0 {
		return usagef("--machines: a plan for this machine rents none; --cloud aws shows what it would cost there")
	}
	if o.json {
		return a.printJSON(r)
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(a.messages, "warning: "+ui.Clean(w))
	}
	if r.Estimate != nil {
		return a.printEstimate(r)
	}
	return a.printPlan(r)
}

// travels tells what apply would send of the folder of the file.
func (o *planOptions) travels(ctx context.Context, e *engine.Engine, p *engine.Planned, r *planner.Report) {
	t, err := e.Travel(ctx, p, o.ApplyOptions)
	switch {
	case err != nil && ctx.Err() == nil:
		r.Warnings = append(r.Warnings, "apply would refuse this: "+err.Error())
	case err == nil:
		r.Travels = &planner.Travels{Files: t.Files, Bytes: t.Bytes, Software: t.Software}
		if t.LeftOut != "" {
			r.Warnings = append(r.Warnings, t.LeftOut)
		}
	}
}

// printItems writes the items as lines. With --function, only those of the
// functions named, not of what they need.
func (o *planOptions) printItems(p *engine.Planned) error {
	chosen := map[string]bool{}
	for _, fn := range o.Functions {
		chosen[fn] = true
	}
	for _, f := range p.Plan.Functions {
		if len(chosen) > 0 && !chosen[f.Name] {
			continue
		}
		switch {
		case f.Items != nil:
			if err := planner.WriteItemsJSON(o.app.stdout, f.Name, f.Items); err != nil {
				return err
			}
		case f.Dynamic || f.StreamsFrom+f.WaitsFor != "":
			fmt.Fprintf(o.app.messages, "%s: its items are results of %s, known when the run is on\n", f.Name, strings.Join(f.Needs, ", "))
		}
	}
	return nil
}

// printPlan shows a plan to people.
func (a *app) printPlan(r planner.Report) error {
	t := &ui.Table{Header: []string{"FUNCTION", "TASKS", "ITEMS", "BYTES", "ESTIMATE", "NEEDS", ""},
		Right: []bool{false, true, true, true, true, false, false}}
	tasks, bytes, known := 0, int64(0), true
	for _, f := range r.Functions {
		row := []string{f.Name, "?", "", "", "", strings.Join(f.Needs, ", "), ""}
		if f.Tasks != nil {
			row[1] = ui.Count(*f.Tasks)
			tasks += *f.Tasks
		} else {
			known = false
		}
		if f.Items != nil {
			row[2] = ui.Count(*f.Items)
		}
		if f.Bytes > 0 {
			row[3] = ui.Bytes(f.Bytes)
			bytes += f.Bytes
		}
		if f.Estimate != nil {
			row[4] = ui.Seconds(f.Estimate.Seconds)
		}
		switch {
		case f.Streams != "":
			row[6] = "each task starts when its item of " + f.Streams + " is done"
		case len(f.Waits) > 0:
			row[6] = "waits for " + strings.Join(f.Waits, ", ")
			if f.Tasks == nil {
				row[6] += " to know its tasks"
			}
		}
		t.Rows = append(t.Rows, row)
	}
	if err := t.Write(a.stdout, a.style(a.stdout), width(a.stdout)); err != nil {
		return err
	}
	line := ui.Plural(tasks, "task")
	if !known {
		line = "at least " + line
	}
	line = fmt.Sprintf("\n%s in %s", line, ui.Plural(len(r.Functions), "function"))
	if bytes > 0 {
		line += ", " + ui.Bytes(bytes) + " of input"
	}
	_, err := fmt.Fprintln(a.stdout, line+", on this machine, "+ui.Dollars(0))
	return err
}
