package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/agent"
)

// runHelper is what this program is when it starts itself: the warden that
// ends what a dead coordinator left. It takes no flags and must not wait for
// the command tree to be built.
func runHelper(args []string) (code int, ok bool) {
	if len(args) > 0 && args[0] == "__warden" {
		agent.WardenMain()
		return exitDone, true
	}
	return 0, false
}

// coordinateOptions are the arguments of the hidden command that a detached
// run lives in; engine passes them.
type coordinateOptions struct {
	app   *app
	run   string
	begin string
}

func newCoordinateCmd(a *app, runF func(context.Context, *coordinateOptions) error) *cobra.Command {
	o := &coordinateOptions{app: a}
	cmd := &cobra.Command{
		Use: "__coordinate RUN", Hidden: true, Args: arguments(1, 1, "a run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.run = args[0]
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.begin, "begin", "", "how the run begins")
	return cmd
}

func runCoordinate(ctx context.Context, o *coordinateOptions) error {
	e, err := o.app.reader(ctx)
	if err != nil {
		return err
	}
	o.app.coordinating.Store(true)
	if _, err := e.Coordinate(ctx, o.run, o.begin); err != nil {
		return fmt.Errorf("coordinate run %s: %w", o.run, err)
	}
	return nil
}
