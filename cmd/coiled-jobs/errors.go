package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// The exit codes.
const (
	exitDone      = 0
	exitFailed    = 1 // a function failed
	exitUsage     = 2 // bad usage or pipeline file
	exitCannot    = 3 // could not run
	exitLimit     = 4 // stopped by a limit
	exitCancelled = 130
)

// exitError ends the program with a code; with a nil err nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is a mistake on the command line.
func usagef(format string, args ...any) error {
	return &engine.UsageError{Message: fmt.Sprintf(format, args...)}
}

// exit prints an error, unless it is a silent one, and picks the exit code.
func (a *app) exit(ctx context.Context, err error) int {
	a.messages.restore()
	code, show := exitCode(ctx, err)
	if show {
		fmt.Fprintln(a.stderr, message(err))
	}
	return code
}

func exitCode(ctx context.Context, err error) (code int, show bool) {
	var (
		exit     *exitError
		problems spec.Problems
		usage    *engine.UsageError
		signal   *signalError
	)
	switch {
	case err == nil:
		return exitDone, false
	case errors.As(err, &exit):
		return exit.code, exit.err != nil
	case errors.Is(err, syscall.EPIPE):
		return exitDone, false // who read our output has seen enough
	case errors.As(err, &problems), errors.As(err, &usage):
		return exitUsage, true
	case errors.As(err, &signal):
		return exitCancelled, false
	case errors.As(context.Cause(ctx), &signal) && errors.Is(err, context.Canceled):
		return exitCancelled, false
	}
	return exitCannot, true
}

// message is an error as it is printed. Problems of a file are printed as
// they are, so that editors can jump to them; everything else says who speaks.
func message(err error) string {
	var problems spec.Problems
	if errors.As(err, &problems) {
		lines := make([]string, 0, len(problems))
		for _, p := range problems {
			lines = append(lines, problemLine(p))
		}
		return strings.Join(lines, "\n")
	}
	lines := strings.Split(strings.TrimRight(err.Error(), "\n"), "\n")
	for i := range lines {
		lines[i] = ui.Clean(lines[i])
	}
	return program + ": " + strings.Join(lines, "\n")
}

func problemLine(p spec.Problem) string {
	if p.Warning {
		p.Message = "warning: " + p.Message
	}
	return ui.Clean(p.String())
}

// exitOf is the exit code that belongs to the end of a run.
func exitOf(status executor.RunStatus) error {
	switch status {
	case executor.RunSucceeded:
		return nil
	case executor.RunFailed:
		return &exitError{code: exitFailed}
	case executor.RunStopped:
		return &exitError{code: exitLimit}
	case executor.RunCancelled:
		return &exitError{code: exitCancelled}
	}
	return &exitError{code: exitCannot}
}

// notHere explains that something is not part of this version.
func notHere(format string, args ...any) error {
	return &exitError{code: exitCannot, err: fmt.Errorf(format, args...)}
}

// flagError makes a bad flag a usage error, with the flag that was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		f := invalid.GetFlag()
		text = fmt.Sprintf("--%s %s: write %s", f.Name, invalid.GetValue(), valueOf(f.Value.Type()))
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if s := spec.Suggest(unknown.GetSpecifiedName(), names); s != "" && len(unknown.GetSpecifiedName()) > 1 {
			text += fmt.Sprintf(" (did you mean --%s?)", s)
		}
	}
	return usagef("%s; see %s --help", text, cmd.CommandPath())
}

// valueOf is what a flag of a type takes, in words.
func valueOf(kind string) string {
	switch kind {
	case "int":
		return "a whole number"
	case "bool":
		return "true or false"
	case "duration":
		return "a time such as 5s or 2m"
	}
	return "another value"
}

// suggested turns cobra's own errors into usage errors.
func suggested(root *cobra.Command, args []string, err error) error {
	if err == nil || !strings.HasPrefix(err.Error(), "unknown command") {
		return err
	}
	var name string
	for i := 0; i < len(args); i++ {
		if args[i] == "--store" {
			i++ // its value is not the command
			continue
		}
		if !strings.HasPrefix(args[i], "-") {
			name = args[i]
			break
		}
	}
	var names []string
	for _, c := range root.Commands() {
		if !strings.HasPrefix(c.Name(), "__") {
			names = append(names, c.Name())
		}
	}
	near := spec.Suggest(name, names)
	if near == "" {
		if _, statErr := os.Stat(name); statErr == nil && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")) {
			return usagef("unknown command %q: to run a pipeline file, %s apply %s", name, program, name)
		}
		return usagef("unknown command %q; see %s --help", name, program)
	}
	return usagef("unknown command %q (did you mean %q?); see %s --help", name, near, program)
}

// arguments checks the number of arguments of a command in words.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least && len(args) == 0:
			return usagef("%s needs %s: %s", cmd.Name(), what, cmd.UseLine())
		case len(args) < least:
			return usagef("%s needs %s, got only %q: %s", cmd.Name(), what, args[0], cmd.UseLine())
		case most >= 0 && len(args) > most && most == 0:
			return usagef("%s takes no arguments, got %q", cmd.Name(), args[0])
		case most >= 0 && len(args) > most:
			return usagef("%s takes %s, what is %q for?", cmd.Name(), what, args[most])
		}
		return nil
	}
}
