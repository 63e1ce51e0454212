package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// rerunOptions are the flags of rerun.
type rerunOptions struct {
	app       *app
	run, task string
	local     bool
}

func newRerunCmd(a *app, runF func(context.Context, *rerunOptions) error) *cobra.Command {
	o := &rerunOptions{app: a}
	cmd := &cobra.Command{
		Use:   "rerun RUN FN/I --local",
		Short: "Run one task here, with its recorded item and environment, to debug it",
		Args:  arguments(2, 2, "a run and a task"), ValidArgsFunction: a.completeTasks,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run, o.task = args[0], args[1]
			if !o.local {
				return usagef("rerun works on this machine only: add --local (retry %s runs failed tasks again as part of the run)", o.run)
			}
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.local, "local", false, "run it on this machine")
	return cmd
}

func runRerun(ctx context.Context, o *rerunOptions) error {
	v, r, err := o.app.openReport(ctx, o.run)
	if err != nil {
		return err
	}
	ref, err := v.resolveOne(r, o.task)
	if err != nil {
		return err
	}
	o.app.coordinating.Store(true)
	out, err := v.engine.RerunLocal(ctx, v.run, ref.fn, ref.index, o.app.stdout)
	if err != nil {
		return err
	}
	if out.Status != task.Succeeded {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s %s%s", v.label(ref), out.Status, ui.Reason(out))}
	}
	fmt.Fprintf(o.app.messages, "%s succeeded in %s; result: %s\n", v.label(ref), ui.Seconds(out.Seconds), rerunResult(out))
	return nil
}

// rerunResult is the result of a task that ran here, on one line.
func rerunResult(out *task.Outcome) string {
	switch {
	case out.Result == nil && out.ResultAt.Len > 0:
		return "of " + ui.Bytes(out.ResultAt.Len)
	case len(out.Result) == 0:
		return "null"
	}
	return ui.Truncate(ui.Clean(clip(string(out.Result))), 200)
}
