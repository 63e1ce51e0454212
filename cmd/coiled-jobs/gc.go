package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/ui"
)

// gcOptions are the flags of gc.
type gcOptions struct {
	app    *app
	dryRun bool
	json   bool
}

func newGCCmd(a *app, runF func(context.Context, *gcOptions) error) *cobra.Command {
	o := &gcOptions{app: a}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove runs beyond their retention and what dead runs left behind",
		Args:  arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runF(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be removed")
	cmd.Flags().BoolVar(&o.json, "json", false, "print what was removed as JSON")
	return cmd
}

func runGC(ctx context.Context, o *gcOptions) error {
	e, err := o.app.reader(ctx)
	if err != nil {
		return err
	}
	lines, err := e.GC(ctx, o.dryRun)
	if o.json && err == nil {
		return o.app.printJSON(map[string]any{"dry_run": o.dryRun, "removed": append([]string{}, lines...)})
	}
	for _, line := range lines {
		fmt.Fprintln(o.app.stdout, ui.Clean(line))
	}
	if err == nil && len(lines) == 0 {
		fmt.Fprintln(o.app.messages, "nothing to remove")
	}
	return err
}
