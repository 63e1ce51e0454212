package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/cloud"
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
	e, err := o.app.engine()
	if err != nil {
		return err
	}
	// All are looked up before one is deleted: a typo deletes nothing.
	var runs []string
	seen := map[string]bool{}
	for _, ref := range o.runs {
		run, _, err := e.Find(ctx, ref)
		if err != nil {
			return err
		}
		if !seen[run] {
			seen[run] = true
			runs = append(runs, run)
		}
	}
	for _, run := range runs {
		if err := e.Remove(ctx, run); err != nil {
			if cloud.KindOf(err) == cloud.KindConflict {
				return usagef("run %s is live: end it first with: %s cancel %s", run, program, run)
			}
			return err
		}
		fmt.Fprintf(o.app.messages, "deleted run %s\n", run)
	}
	return nil
}
