package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/ui"
)

// outputsOptions are the flags of outputs.
type outputsOptions struct {
	app       *app
	run, task string
	json      bool
	dir       string
}

func newOutputsCmd(a *app, runF func(context.Context, *outputsOptions) error) *cobra.Command {
	o := &outputsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "outputs RUN [FN[/I]]",
		Short: "List the files that tasks declared as outputs, or bring them back",
		Args:  arguments(1, 2, "a run and perhaps a task"), ValidArgsFunction: a.completeTasks,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			if len(args) > 1 {
				o.task = args[1]
			}
			if cmd.Flags().Changed("to") && o.dir == "" {
				return usagef("--to is empty: name a folder")
			}
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	cmd.Flags().StringVar(&o.dir, "to", "", "write the files below this `folder`")
	return cmd
}

// outputLine is a declared output in the JSON of outputs.
type outputLine struct {
	Function string `json:"function"`
	Index    int    `json:"index"`
	Path     string `json:"path"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256,omitempty"`
}

func runOutputs(ctx context.Context, o *outputsOptions) error {
	a := o.app
	v, err := a.openRun(ctx, o.run)
	if err != nil {
		return err
	}
	ref := taskRef{"", -1}
	if o.task != "" {
		r, err := v.Report(ctx)
		if err != nil {
			return err
		}
		if ref, _, err = v.resolve(r, o.task); err != nil {
			return err
		}
	}
	if o.dir != "" {
		return o.fetch(ctx, v, ref)
	}
	found, err := v.engine.Outputs(ctx, v.run, ref.fn, ref.index)
	if err != nil {
		return err
	}
	lines := make([]outputLine, 0, len(found))
	for _, f := range found {
		lines = append(lines, outputLine{f.Function, f.Index, f.Path, f.Size, f.Hash})
	}
	if o.json {
		return a.printJSON(lines)
	}
	if len(lines) == 0 {
		fmt.Fprintf(a.messages, "run %s: no outputs\n", v.run)
		return nil
	}
	t := &ui.Table{Header: []string{"PATH", "SIZE", "TASK"}, Right: []bool{false, true, false}}
	terminal := isTerminal(a.stdout)
	for _, l := range lines {
		size := fmt.Sprint(l.Size)
		if terminal {
			size = ui.Bytes(l.Size)
		}
		t.Rows = append(t.Rows, []string{l.Path, size, v.label(taskRef{l.Function, l.Index})})
	}
	return a.printTable(t)
}

// fetch writes the kept outputs below a folder and prints their paths.
func (o *outputsOptions) fetch(ctx context.Context, v *runView, ref taskRef) error {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	_, paths, err := v.engine.FetchOutputs(ctx, v.run, ref.fn, ref.index, dir)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(append([]string{}, paths...))
	}
	for _, p := range paths {
		fmt.Fprintln(o.app.stdout, ui.Clean(p))
	}
	if len(paths) == 0 {
		fmt.Fprintf(o.app.messages, "nothing to write: the outputs are in place, or there are none\n")
	}
	return nil
}
