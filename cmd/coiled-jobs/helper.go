package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/sethvargo/go-retry"
	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/machine"
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
	env   []string // NAME=VALUE: on a machine of its own, what agents are told so, too
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
	cmd.Flags().StringArrayVar(&o.env, "env", nil, "`NAME=VALUE` to set before anything is asked of the cloud")
	return cmd
}

func runCoordinate(ctx context.Context, o *coordinateOptions) error {
	if err := o.app.learnEnv(o.env); err != nil {
		return err
	}
	e, err := o.app.reader(ctx)
	if err != nil {
		return err
	}
	if len(o.env) > 0 {
		e.AWS.Identity = o.app.identity(e.Exe)
	}
	o.app.coordinating.Store(true)
	if _, err := e.Coordinate(ctx, o.run, o.begin); err != nil {
		return fmt.Errorf("coordinate run %s: %w", o.run, err)
	}
	return nil
}

// learnEnv sets variables of a machine that runs nothing else: for this
// program, and for the SDK, which reads the environment by itself.
func (a *app) learnEnv(env []string) error {
	for _, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return usagef("--env %s: it is written NAME=VALUE", kv)
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		a.environ = append(a.environ, kv)
	}
	return nil
}

// identityPatience is how long the metadata service may be silent after a boot.
const identityPatience = 30 * time.Second

// identity tells which machine this is, and what it costs.
func (a *app) identity(exe string) func(context.Context) (cloud.Machine, bool) {
	return func(ctx context.Context) (cloud.Machine, bool) {
		host := machine.NewEC2(a.getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"), os.TempDir(), exe, slog.New(slog.DiscardHandler))
		var id machine.Identity
		// Worth some patience: who does not know which machine it is cannot spare
		// it when it releases those of its run.
		err := retry.Do(ctx, retry.WithMaxDuration(identityPatience, retry.NewConstant(time.Second)), func(ctx context.Context) (err error) {
			ctx, stop := context.WithTimeout(ctx, 10*time.Second)
			defer stop()
			id, err = host.Identity(ctx)
			return retry.RetryableError(err)
		})
		if err != nil {
			fmt.Fprintf(a.messages, "which machine this is cannot be found out, so it is not counted: %v\n", err)
			return cloud.Machine{}, false
		}
		m := cloud.Machine{ID: id.ID, Type: id.Type, Zone: id.Zone, Spot: id.Spot, Launched: id.Launched}
		// What is built in knows its types, and the run waits for nobody.
		m.PricePerHour = hardware.BuiltIn(a.getenv("AWS_REGION")).MachinePrice(id.Type, id.Zone, id.Spot, engine.CoordinatorDisk)
		return m, true
	}
}
