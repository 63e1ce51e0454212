package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// runsOptions are the flags of runs.
type runsOptions struct {
	app       *app
	all, json bool
	key       string
}

func newRunsCmd(a *app, runF func(context.Context, *runsOptions) error) *cobra.Command {
	o := &runsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List runs, newest first",
		Long: `List runs, newest first: your own (with --store, those in it), or with --all everybody's in the store. In a pipe the columns are
separated by tabs: run, pipeline, status, started, seconds, tasks, failed, dollars, owner.`,
		Args: arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("key") && o.key == "" {
				return usagef("--key is empty: name the key that was given to apply")
			}
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "everybody's runs in the store")
	cmd.Flags().StringVar(&o.key, "key", "", "only the run with this `key`, whoever's it is")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func runRuns(ctx context.Context, o *runsOptions) error {
	a := o.app
	e, err := a.reader(ctx)
	if err != nil {
		return err
	}
	var runs []engine.RunSummary
	switch {
	case o.key != "":
		runs, err = e.RunsByKey(ctx, o.key, a.storeFlag == "")
	case a.storeFlag != "" && !o.all: // who names a store means what is in it
		runs, err = e.RunsHere(ctx)
	default:
		runs, err = e.Runs(ctx, o.all)
	}
	if err != nil {
		return err
	}
	if o.json {
		return a.printJSON(append([]engine.RunSummary{}, runs...))
	}
	if len(runs) == 0 && o.key != "" {
		fmt.Fprintf(a.messages, "no run has the key %s\n", ui.Clean(o.key))
		return nil
	}
	if len(runs) == 0 {
		fmt.Fprintf(a.messages, "no runs yet: %s apply FILE starts one%s\n", program, allHint(o.all))
		return nil
	}
	if !isTerminal(a.stdout) {
		t := ui.Table{Header: make([]string, 9)}
		for _, r := range runs {
			t.Rows = append(t.Rows, []string{r.Run, r.Pipeline, r.Status, r.Started.UTC().Format(time.RFC3339), fmt.Sprintf("%.3f", r.Seconds),
				fmt.Sprint(r.Tasks), fmt.Sprint(r.Failed), fmt.Sprintf("%.4f", r.CostUSD), r.Owner})
		}
		return t.WriteTSV(a.stdout)
	}
	st := a.style(a.stdout)
	return runsTable(runs, o.all, st).Write(a.stdout, st, width(a.stdout))
}

// runsTable is runs for people: what matters most comes first, as a narrow
// terminal cuts the rest. The name of the pipeline begins the run's id.
func runsTable(runs []engine.RunSummary, owners bool, st ui.Style) *ui.Table {
	t := &ui.Table{Header: []string{"RUN", "STATUS", "TASKS", "FAILED", "TIME", "STARTED"},
		Right: []bool{false, false, true, true, true, false}}
	if owners {
		t.Header = append(t.Header, "OWNER")
	}
	for _, r := range runs {
		row := []string{r.Run, r.Status, ui.Count(r.Tasks), ui.Count(r.Failed), ui.Seconds(r.Seconds), ago(time.Since(r.Started))}
		if owners {
			row = append(row, r.Owner)
		}
		t.Rows = append(t.Rows, row)
	}
	t.Paint = func(row, col int, text string) string {
		if col == 1 {
			return st.Status(runs[row].Status, text)
		}
		return text
	}
	return t
}

func allHint(all bool) string {
	if all {
		return ""
	}
	return " (" + program + " runs --all lists everybody's)"
}

// ago is how long ago something was, coarsely.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return ui.Plural(int(d/time.Minute), "minute") + " ago"
	case d < 48*time.Hour:
		return ui.Plural(int(d/time.Hour), "hour") + " ago"
	}
	return ui.Plural(int(d/(24*time.Hour)), "day") + " ago"
}
