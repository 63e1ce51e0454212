package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// cancelOptions are the flags of cancel.
type cancelOptions struct {
	app  *app
	run  string
	json bool
}

func newCancelCmd(a *app, runF func(context.Context, *cancelOptions) error) *cobra.Command {
	o := &cancelOptions{app: a}
	cmd := &cobra.Command{
		Use:   "cancel RUN",
		Short: "End a run: its tasks are ended, its machines released",
		Args:  arguments(1, 1, "a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print the state of the run as JSON")
	return cmd
}

// cancelWait is how long cancel waits for the end of the run: a little longer
// than ending its tasks may take.
const cancelWait = 12 * time.Second

func runCancel(ctx context.Context, o *cancelOptions) error {
	a := o.app
	v, err := a.openRun(ctx, o.run)
	if err != nil {
		return err
	}
	before, err := v.Report(ctx)
	if err != nil {
		return err
	}
	if before.Status.Final() {
		fmt.Fprintf(a.messages, "run %s has already ended: %s\n", v.run, before.Status)
		if o.json {
			return a.printJSON(before)
		}
		return nil
	}
	r, err := v.engine.Cancel(ctx, v.run, cancelWait)
	if err != nil {
		return err
	}
	if o.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	}
	switch {
	case r.Status == executor.RunCancelled:
		t := ui.Sum(r)
		fmt.Fprintf(a.messages, "run %s is cancelled; %s of %s had ended before; run the rest with: %s retry %s\n",
			v.run, ui.Count(t.Done-cancelledTasks(r)), ui.Plural(t.Tasks, "task"), v.command, v.run)
	case r.Status.Final():
		fmt.Fprintf(a.messages, "run %s ended by itself: %s\n", v.run, r.Status)
	default:
		return fmt.Errorf("run %s was asked to end, but has not after %s; it is still %s", v.run, cancelWait, r.Status)
	}
	return nil
}

func cancelledTasks(r executor.Report) int {
	n := 0
	for _, f := range r.Functions {
		n += f.Cancelled
	}
	return n
}
