package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// tickOptions are the flags of tick.
type tickOptions struct {
	app   *app
	paths []string
	json  bool
}

func newTickCmd(a *app, runF func(context.Context, *tickOptions) error) *cobra.Command {
	o := &tickOptions{app: a}
	cmd := &cobra.Command{
		Use:   "tick FILE|FOLDER...",
		Short: "Start the scheduled runs that are due now",
		Long: `Do one round of what "serve" does all the time: start the scheduled runs that are due, and record what
became of every tick. For a cron, a timer of systemd, or the schedule of a CI service; it may be called as often
as you like, from several places at once: a tick runs once. The first round sees a schedule for the first time,
and its ticks count from then on. Runs go on in the background.`,
		Example: "  */5 * * * * coiled-jobs tick ~/pipelines --store s3://my-bucket/jobs",
		Args:    arguments(1, -1, "pipeline files or folders"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = args
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func runTick(ctx context.Context, o *tickOptions) error {
	a := o.app
	files, broken, k, err := a.scheduled(ctx, o.paths)
	if err != nil {
		return err
	}
	all := []schedule.Record{}
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		failed error
		free   = make(chan struct{}, atOnceSchedules)
	)
	for _, f := range files {
		for _, s := range f.Schedules {
			wg.Go(func() { // one that takes long does not hold up the others
				free <- struct{}{}
				defer func() { <-free }()
				settled, err := k.Round(ctx, s, time.Now())
				mu.Lock()
				defer mu.Unlock()
				all = append(all, settled...)
				if err != nil {
					fmt.Fprintf(a.messages, "%s: %s: %s\n", program, ui.Clean(s.Pipeline), ui.Clean(err.Error()))
					failed = err
				}
				if o.json {
					return
				}
				for i := range settled {
					fmt.Fprintf(a.stdout, "%s\t%s\t%s\n", ui.Clean(s.Pipeline), settled[i].Tick.UTC().Format(time.RFC3339), ui.Clean(outcomeText(&settled[i])))
				}
			})
		}
	}
	wg.Wait()
	if o.json {
		if err := a.printJSON(all); err != nil {
			return err
		}
	}
	switch {
	case failed != nil:
		return &exitError{code: exitCannot}
	case broken > 0:
		return &exitError{code: exitUsage}
	}
	return nil
}
