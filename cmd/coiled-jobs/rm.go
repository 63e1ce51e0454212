package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
)

// rmOptions are the arguments of rm.
type rmOptions struct {
	app  *app
	runs []string
}

func newRmCmd(a *app, runF func(context.Context, *rmOptions) error) *cobra.Command {
	o := &rmOptions{app: a}
	return &cobra.Command{
		Use:   "rm RUN...",
		Short: "Delete runs that have ended, with their logs and results",
		Args:  arguments(1, -1, "a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.runs = args
			return runF(cmd.Context(), o)
		},
	}
}

func runRm(ctx context.Context, o *rmOptions) error {
	// All are looked up before one is deleted: a typo deletes nothing.
	type found struct {
		engine *engine.Engine
		run    string
	}
	var runs []found
	seen := map[string]bool{}
	for _, ref := range o.runs {
		e, run, err := o.app.findRun(ctx, ref)
		if err != nil {
			return err
		}
		if !seen[run] {
			seen[run] = true
			runs = append(runs, found{e, run})
		}
	}
	for _, f := range runs {
		if err := f.engine.Remove(ctx, f.run); err != nil {
			if cloud.KindOf(err) == cloud.KindConflict {
				return usagef("run %s is live: end it first with: %s cancel %s", f.run, o.app.command(), f.run)
			}
			return err
		}
		fmt.Fprintf(o.app.messages, "deleted run %s\n", f.run)
	}
	return nil
}
