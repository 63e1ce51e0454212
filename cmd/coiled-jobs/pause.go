package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// pauseOptions are the arguments of pause.
type pauseOptions struct {
	app      *app
	pipeline string // a name or a file
}

func newPauseCmd(a *app, runF func(context.Context, *pauseOptions) error) *cobra.Command {
	o := &pauseOptions{app: a}
	return &cobra.Command{
		Use:   "pause PIPELINE",
		Short: "Let the schedules of a pipeline rest",
		Long: `Let the schedules of a pipeline (its name, or its file) rest: ticks are recorded as skipped until
"resume PIPELINE". A run that is going on is not touched.`,
		Args: arguments(1, 1, "a pipeline"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.pipeline = args[0]
			return runF(cmd.Context(), o)
		},
	}
}

func runPause(ctx context.Context, o *pauseOptions) error {
	a := o.app
	e, err := a.engine(ctx)
	if err != nil {
		return err
	}
	name, err := pipelineName(ctx, e, o.pipeline)
	if err != nil {
		return err
	}
	if err := e.Keeper().Pause(ctx, name, time.Now()); err != nil {
		return err
	}
	fmt.Fprintf(a.messages, "the schedules of %s are paused; %s resume %s ends that\n", name, program, name)
	return nil
}

// pipelineName is the pipeline that a file or a name means. A name must have
// been seen by serve, tick or pause, so that a typo is noticed.
func pipelineName(ctx context.Context, e *engine.Engine, ref string) (string, error) {
	if _, err := os.Stat(ref); err == nil {
		files, err := e.ScheduledFiles([]string{ref})
		if err != nil {
			return "", err
		}
		switch {
		case len(files) != 1:
			return "", usagef("%s has %s; name one", ref, ui.Plural(len(files), "pipeline file"))
		case files[0].Err != nil:
			return "", files[0].Err
		case len(files[0].Schedules) == 0:
			return "", usagef("%s has no schedule", ref)
		}
		return files[0].Pipeline, nil
	}
	known, err := e.Keeper().Known(ctx, ref)
	if err != nil {
		return "", err
	}
	if !known {
		return "", usagef("no schedule of a pipeline %q was ever looked after with this store; name its file", ref)
	}
	return ref, nil
}

// resumeSchedules ends the pause of a pipeline if ref means one that is
// paused; false: ref is something else.
func (a *app) resumeSchedules(ctx context.Context, ref string) (bool, error) {
	e, err := a.engine(ctx)
	if err != nil {
		return false, err
	}
	name, err := pipelineName(ctx, e, ref)
	var usage *engine.UsageError
	switch {
	case errors.As(err, &usage):
		return false, nil
	case err != nil:
		return false, err
	}
	k := e.Keeper()
	paused, err := k.Paused(ctx, name)
	if err != nil || !paused {
		return false, err
	}
	if err := k.Resume(ctx, name, time.Now()); err != nil {
		return false, err
	}
	fmt.Fprintf(a.messages, "the schedules of %s go on\n", name)
	return true, nil
}
