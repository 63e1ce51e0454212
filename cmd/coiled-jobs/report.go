package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/report"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// reportOptions are the flags of report.
type reportOptions struct {
	app       *app
	run, file string
}

func newReportCmd(a *app, runF func(context.Context, *reportOptions) error) *cobra.Command {
	o := &reportOptions{app: a}
	cmd := &cobra.Command{
		Use:   "report RUN",
		Short: "Write a page about a run: one HTML file that needs nothing else",
		Args:  arguments(1, 1, "a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVarP(&o.file, "output", "o", "", "the `file` to write, - for standard output (default: RUN.html here on a terminal, standard output in a pipe)")
	return cmd
}

func runReport(ctx context.Context, o *reportOptions) error {
	a := o.app
	v, err := a.openRun(ctx, o.run)
	if err != nil {
		return err
	}
	d, err := report.Collect(ctx, v.View, time.Now())
	if err != nil {
		return err
	}
	file := o.file
	switch {
	case file == "" && isTerminal(a.stdout):
		file = v.run + ".html"
	case file == "" || file == "-":
		return report.Render(a.stdout, d)
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return usagef("-o %s is a folder; name a file in it", file)
	}
	// Written beside its place and moved there: nobody sees half a page.
	tmp, err := os.CreateTemp(filepath.Dir(file), ".report-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	err = errors.Join(report.Render(tmp, d), tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", file, err)
	}
	fmt.Fprintf(a.messages, "wrote %s\n", ui.Clean(file))
	return nil
}
