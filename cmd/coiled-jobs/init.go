package main

import (
	"context"
	_ "embed" // the first pipeline
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

//go:embed first/pipeline.yaml
var firstPipeline []byte

// firstFile is what init writes.
const firstFile = "pipeline.yaml"

// initOptions are the settings of init.
type initOptions struct{ app *app }

func newInitCmd(a *app, runF func(context.Context, *initOptions) error) *cobra.Command {
	o := &initOptions{app: a}
	return &cobra.Command{
		Use:   "init",
		Short: "Write a first pipeline.yaml that runs as it is",
		Args:  arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runF(cmd.Context(), o) },
	}
}

func runInit(_ context.Context, o *initOptions) error {
	f, err := os.OpenFile(firstFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s is here already and stays as it is; init writes a new one only", firstFile)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(firstPipeline)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(firstFile) // half a file would only be in the way
		return fmt.Errorf("write %s: %w", firstFile, err)
	}
	fmt.Fprintf(o.app.messages, `wrote %[2]s; next:
  %[1]s plan %[2]s         # what it would do
  %[1]s apply %[2]s        # run it
  %[1]s results latest square      # what came out
`, program, firstFile)
	return nil
}
