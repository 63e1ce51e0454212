// Command coiled-jobs runs one YAML file's functions over many inputs, here or
// on rented machines. This package is its command line: flags, environment,
// wiring, output and exit codes; the only place that reads the environment or
// ends the process.
package main

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// program is the name of the command in messages.
const program = "coiled-jobs"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}

// run is the program: everything it reads and writes is an argument. It
// returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	if code, ok := runHelper(args); ok {
		return code
	}
	if code, ok := machineHelper(args, stderr); ok {
		return code
	}
	a := newApp(stdin, stdout, stderr, environ)
	ctx, stop := a.watchSignals(ctx)
	defer stop()
	root := newRoot(a)
	root.SetArgs(args)
	if args == nil {
		root.SetArgs([]string{}) // nil would mean os.Args
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return a.exit(ctx, suggested(root, args, root.ExecuteContext(ctx)))
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   program,
		Short: "Run a function over a thousand files, here or on machines rented for it",
		Long: `coiled-jobs runs the functions of a pipeline file over their inputs, in parallel, retries what
deserves it, and explains what failed.

  ` + program + ` init                   write a first pipeline.yaml
  ` + program + ` apply pipeline.yaml    run it

RUN is "latest", a run id or its beginning. FN/I is task I of function FN.
Exit codes: 0 done, 1 a function failed, 2 bad usage or pipeline file, 3 could not run,
4 stopped by a limit, 130 cancelled.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.Version = buildVersion()
	root.SetVersionTemplate(program + " {{.Version}}\n")
	root.SetHelpCommand(&cobra.Command{Use: "help [command]", Short: "Explain a command", Hidden: true, GroupID: "more",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("no command %q to help with; see %s --help", strings.Join(args, " "), program)
			}
			return cmd.Help()
		}})
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&a.storeFlag, "store", "",
		"folder or s3://bucket/prefix that keeps runs (default: $COILED_JOBS_STORE, or a folder in the user's state directory)")
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run a pipeline:"}, &cobra.Group{ID: "look", Title: "Look into runs:"},
		&cobra.Group{ID: "act", Title: "Act on runs:"},
		&cobra.Group{ID: "schedule", Title: "Run by the clock:"}, &cobra.Group{ID: "more", Title: "More:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", newApplyCmd(a, runApply), newPlanCmd(a, runPlan), newValidateCmd(a, runValidate), newInitCmd(a, runInit))
	add("look", newRunsCmd(a, runRuns), newStatusCmd(a, runStatus), newLogsCmd(a, runLogs), newResultsCmd(a, runResults),
		newWhyCmd(a, runWhy), newOutputsCmd(a, runOutputs), newReportCmd(a, runReport))
	add("act", newWaitCmd(a, runWait), newResumeCmd(a, runResume), newRetryCmd(a, runRetry), newCancelCmd(a, runCancel),
		newRmCmd(a, runRm), newRerunCmd(a, runRerun))
	add("more", newMachinesCmd(a, runMachines), newInstancesCmd(a, runInstances), newGCCmd(a, runGC), newDoctorCmd(a, runDoctor), newSetupCmd(a, runSetup), newSchemaCmd(a),
		newVersionCmd(a), newCompletionCmd(a))
	add("schedule", newServeCmd(a, runServe), newTickCmd(a, runTick), newSchedulesCmd(a, runSchedules), newTriggerCmd(a, runTrigger),
		newBackfillCmd(a, runBackfill), newPauseCmd(a, runPause))
	add("more", newCoordinateCmd(a, runCoordinate), newGithubCmd(a)) // hidden, like those that come later
	return root
}
