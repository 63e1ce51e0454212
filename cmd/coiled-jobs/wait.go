package main

import (
	"context"

	"github.com/spf13/cobra"
)

// waitOptions are the flags of wait.
type waitOptions struct {
	app *app
	waiting
	run string
}

func newWaitCmd(a *app, runF func(context.Context, *waitOptions) error) *cobra.Command {
	o := &waitOptions{app: a}
	cmd := &cobra.Command{
		Use:   "wait RUN",
		Short: "Follow a run to its end; exits as apply would have",
		Args:  arguments(1, 1, "a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			return runF(cmd.Context(), o)
		},
	}
	o.waiting.flags(cmd, false)
	return cmd
}

func runWait(ctx context.Context, o *waitOptions) error {
	e, run, err := o.app.findRun(ctx, o.run)
	if err != nil {
		return err
	}
	h, err := e.Attach(ctx, run)
	if err != nil {
		return err
	}
	return o.app.attend(ctx, e, h, &o.waiting)
}
