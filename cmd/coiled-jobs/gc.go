package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// gcOptions are the flags of gc.
type gcOptions struct {
	app    *app
	cloud  cloudOptions
	dryRun bool
	now    bool
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
	cmd.Flags().BoolVar(&o.now, "now", false, "in the account: remove at once, not only what an earlier gc has seen, too")
	o.cloud.flags(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print what was removed as JSON")
	return cmd
}

func runGC(ctx context.Context, o *gcOptions) error {
	a := o.app
	use, err := a.account(&o.cloud)
	if err != nil {
		return err
	}
	e, err := a.reader(ctx)
	if err != nil {
		return err
	}
	lines, err := e.GC(ctx, o.dryRun)
	left := []aws.Leftover{}
	if err == nil && use != accountNone {
		found, did, aerr := o.gcAccount(ctx, e)
		left, lines = append(left, found...), append(lines, did...)
		if aerr != nil && use == accountMaybe {
			fmt.Fprintf(a.messages, "%s: what runs left on aws is not known: %v\n", program, aerr)
		} else {
			err = aerr
		}
	}
	if o.json {
		for _, l := range left {
			if l.State != "marked" {
				lines = append(lines, leftoverLine(l))
			}
		}
		return errors.Join(a.printJSON(map[string]any{"dry_run": o.dryRun, "removed": append([]string{}, lines...), "leftovers": left}), err)
	}
	for _, l := range left {
		lines = append(lines, leftoverLine(l))
	}
	for _, line := range lines {
		fmt.Fprintln(a.stdout, ui.Clean(line))
	}
	if err == nil && len(lines) == 0 {
		fmt.Fprintln(a.messages, "nothing to remove")
	}
	return err
}
