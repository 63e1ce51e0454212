package main

import (
	"context"
	"maps"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
)

// triggerOptions are the flags of trigger.
type triggerOptions struct {
	app    *app
	file   string
	params []string
	key    string
	wait   bool
	waiting
}

func newTriggerCmd(a *app, runF func(context.Context, *triggerOptions) error) *cobra.Command {
	o := &triggerOptions{app: a}
	cmd := &cobra.Command{
		Use:   "trigger FILE",
		Short: "Start a scheduled pipeline now",
		Long: `Start a run of a pipeline now, with the parameters of its first schedule, in the background. Its ticks are
not touched by that. The run's id is printed on standard output.`,
		Args: arguments(1, 1, "a pipeline file"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			if err := o.waiting.check(); err != nil {
				return err
			}
			return runF(cmd.Context(), o)
		},
	}
	o.waiting.flags(cmd, true)
	f := cmd.Flags()
	f.StringArrayVar(&o.params, "param", nil, "set a parameter, `name=value` (repeatable)")
	f.StringVar(&o.key, "key", "", "a live or finished run with this `key` is joined, not repeated")
	f.BoolVar(&o.wait, "wait", false, "wait for the end of the run, as apply does")
	return cmd
}

func runTrigger(ctx context.Context, o *triggerOptions) error {
	a := o.app
	if err := checkFile(o.file); err != nil {
		return err
	}
	e, err := a.engine(ctx)
	if err != nil {
		return err
	}
	files, err := e.ScheduledFiles([]string{o.file})
	if err != nil {
		return err
	}
	if files[0].Err != nil {
		return files[0].Err
	}
	params := map[string]string{}
	if len(files[0].Schedules) > 0 {
		maps.Copy(params, files[0].Schedules[0].Params)
	}
	given, err := parseParams(o.params)
	if err != nil {
		return err
	}
	maps.Copy(params, given)
	opts := engine.ApplyOptions{File: filepath.Clean(o.file), Params: params, Key: o.key, Detach: !o.wait}
	p, err := e.Plan(ctx, opts)
	if err != nil {
		return err
	}
	h, err := e.Apply(ctx, p, opts)
	if err != nil {
		return err
	}
	if !o.wait {
		return a.detached(h, o.json)
	}
	return a.attend(ctx, e, h, &o.waiting)
}
