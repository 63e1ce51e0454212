package main

import (
	"bufio"
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// resultsOptions are the flags of results.
type resultsOptions struct {
	app      *app
	run, fn  string
	format   string
	json     bool
	terminal bool
}

func newResultsCmd(a *app, runF func(context.Context, *resultsOptions) error) *cobra.Command {
	o := &resultsOptions{app: a, terminal: isTerminal(a.stdout)}
	formats := []string{"json", "jsonl", "csv", "table"}
	cmd := &cobra.Command{
		Use:   "results RUN FN",
		Short: "Print the results of a function, in the order of its items",
		Args:  arguments(1, 2, "a run and a function"), ValidArgsFunction: a.completeTasks,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			if len(args) > 1 {
				o.fn = args[1]
			}
			switch {
			case o.json && cmd.Flags().Changed("format") && o.format != "json":
				return usagef("--json and --format %s contradict each other", o.format)
			case o.json:
				o.format = "json"
			case o.format == "" && o.terminal:
				o.format = "table"
			case o.format == "":
				o.format = "json"
			}
			for _, f := range formats {
				if f == o.format {
					return runF(cmd.Context(), o)
				}
			}
			return usagef("--format %s: write %s", o.format, strings.Join(formats, ", "))
		},
	}
	cmd.Flags().StringVar(&o.format, "format", "", "json, jsonl, csv or table (default: table on a terminal, json elsewhere)")
	cmd.Flags().BoolVar(&o.json, "json", false, "the same as --format json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runResults(ctx context.Context, o *resultsOptions) error {
	v, err := o.app.openRun(ctx, o.run)
	if err != nil {
		return err
	}
	if o.fn == "" {
		names := v.Functions()
		if len(names) != 1 {
			return usagef("whose results? run %s has %s", v.run, strings.Join(names, ", "))
		}
		o.fn = names[0]
	}
	ref, err := parseTaskRef(o.fn)
	if err != nil {
		return err
	}
	if err := v.function(ref.fn); err != nil {
		return err
	}
	if ref.index >= 0 {
		r, err := v.Report(ctx)
		if err != nil {
			return err
		}
		if _, _, err := v.resolve(r, o.fn); err != nil {
			return err
		}
	}
	w := bufio.NewWriterSize(o.app.stdout, 64<<10)
	sink := newSink(o.format, w, o.app)
	if err := sink.begin(); err != nil {
		return err
	}
	if err := eachRow(ctx, v, ref, sink.row); err != nil {
		return err
	}
	if err := sink.end(); err != nil {
		return err
	}
	return w.Flush()
}

// row is a task with its item and result.
type row struct {
	executor.TaskReport
	item    any
	hasItem bool
	result  []byte // compact JSON, nil: null
	cost    float64
	paid    bool // machines were rented for the run
}

// rowsAtOnce is how many results are held while their items are read.
const rowsAtOnce = 500

var errEnough = errors.New("enough")

// eachRow joins the results of a function with its items, a few at a time.
func eachRow(ctx context.Context, v *runView, ref taskRef, yield func(*row) error) error {
	rows := make([]row, 0, rowsAtOnce)
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		from := rows[0].Index
		if v.Mapped(ref.fn) {
			err := v.EachItem(ctx, ref.fn, from, rows[len(rows)-1].Index+1, func(index int, item any) bool {
				if i := index - from; i >= 0 && i < len(rows) && rows[i].Index == index {
					rows[i].item, rows[i].hasItem = item, true
				}
				return true
			})
			if err != nil {
				return err
			}
		}
		for i := range rows {
			if ref.index >= 0 && rows[i].Index != ref.index {
				continue
			}
			if err := yield(&rows[i]); err != nil {
				return err
			}
		}
		rows = rows[:0]
		return nil
	}
	costs, err := v.TaskCosts(ctx, ref.fn, ref.index)
	if err != nil {
		return err
	}
	running := map[int]executor.TaskReport{}
	if err := v.Now(ctx, ref.fn, func(t executor.TaskReport) { running[t.Index] = t }); err != nil {
		return err
	}
	var stop error
	err = v.EachResult(ctx, ref.fn, func(t executor.TaskReport, result []byte) bool {
		if now, ok := running[t.Index]; ok && !t.Status.Final() {
			t = now
		}
		if ref.index >= 0 && t.Index < ref.index {
			return true
		}
		rows = append(rows, row{TaskReport: t, result: append([]byte(nil), result...), cost: costs[t.Index], paid: costs != nil})
		if ref.index >= 0 {
			stop = errEnough
			return false
		}
		if len(rows) == rowsAtOnce {
			stop = flush()
		}
		return stop == nil
	})
	if err != nil {
		return err
	}
	if stop != nil && !errors.Is(stop, errEnough) {
		return stop
	}
	return flush()
}
