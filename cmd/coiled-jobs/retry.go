package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// causes are the values of --cause.
var causes = []string{"exit", "signal", "timeout", "oom", "machine", "setup", "output", "cancelled"}

// retryOptions are the flags of retry.
type retryOptions struct {
	app *app
	continuing
	run string
}

func newRetryCmd(a *app, runF func(context.Context, *retryOptions) error) *cobra.Command {
	o := &retryOptions{app: a}
	cmd := &cobra.Command{
		Use:   "retry RUN",
		Short: "Run failed, cancelled and skipped tasks of a run again",
		Long: `Run failed, cancelled and skipped tasks of a run again, with the pipeline file and code as they are now.
What succeeded is kept. Exits as apply would have.`,
		Args: arguments(1, 1, "a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			if cmd.Flags().Changed("cause") {
				if _, ok := task.ParseCause(o.Cause); !ok {
					return usagef("--cause %s: write one of %s", o.Cause, strings.Join(causes, ", "))
				}
			}
			if err := o.continuing.check(); err != nil {
				return err
			}
			return runF(cmd.Context(), o)
		},
	}
	o.continuing.flags(cmd)
	cmd.Flags().StringVar(&o.Cause, "cause", "", "only tasks that failed for this `cause`: "+strings.Join(causes, ", "))
	_ = cmd.RegisterFlagCompletionFunc("cause", cobra.FixedCompletions(causes, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runRetry(ctx context.Context, o *retryOptions) error {
	e, run, err := o.app.findRun(ctx, o.run)
	if err != nil {
		return err
	}
	h, err := e.Retry(ctx, run, o.ContinueOptions)
	if err != nil {
		return err
	}
	return o.app.goOn(ctx, e, h, &o.continuing)
}
