package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
)

// resumeOptions are the flags of resume.
type resumeOptions struct {
	app *app
	continuing
	run, code string
}

func newResumeCmd(a *app, runF func(context.Context, *resumeOptions) error) *cobra.Command {
	o := &resumeOptions{app: a}
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Go on with a run that was interrupted or stopped",
		Long: `Go on with a run that was interrupted or stopped by a limit, with the file, items and code that apply
recorded. A live run is joined, a finished one is just reported. Exits as apply would have.

"resume PIPELINE" ends the pause of its schedules.`,
		Args: arguments(1, 1, "a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			switch o.code {
			case "", "recorded":
			case "new":
				o.CodeNew = true
			default:
				return usagef("--code %s: write new, or leave it out", o.code)
			}
			if err := o.continuing.check(); err != nil {
				return err
			}
			return runF(cmd.Context(), o)
		},
	}
	o.continuing.flags(cmd)
	cmd.Flags().StringVar(&o.code, "code", "", "`new`: go on although the code has changed since apply")
	return cmd
}

func runResume(ctx context.Context, o *resumeOptions) error {
	if done, err := o.app.resumeSchedules(ctx, o.run); done || err != nil {
		return err
	}
	e, run, err := o.app.findRun(ctx, o.run)
	if err != nil {
		return err
	}
	h, err := e.Resume(ctx, run, o.ContinueOptions)
	if err != nil {
		return err
	}
	return o.app.goOn(ctx, e, h, &o.continuing)
}

// continuing is the flags of commands that go on with a run.
type continuing struct {
	waiting
	engine.ContinueOptions
	maxCost string
}

func (c *continuing) flags(cmd *cobra.Command) {
	c.waiting.flags(cmd, true)
	f := cmd.Flags()
	f.BoolVar(&c.Detach, "detach", false, "return at once; the run goes on in the background")
	f.BoolVar(&c.NoCache, "no-cache", false, "run everything, whatever is remembered")
	f.StringVar(&c.maxCost, "max-cost", "", "stop when the run has cost this many `dollars` in all, or none")
}

func (c *continuing) check() (err error) {
	if c.maxCost != "" {
		if c.MaxCost, err = parseDollars(c.maxCost); err != nil {
			return err
		}
	}
	return c.waiting.check()
}

// goOn follows a run that goes on, or leaves it to itself.
func (a *app) goOn(ctx context.Context, e *engine.Engine, h *engine.Handle, c *continuing) error {
	if c.Detach {
		return a.detached(h, c.json)
	}
	return a.attend(ctx, e, h, &c.waiting)
}
