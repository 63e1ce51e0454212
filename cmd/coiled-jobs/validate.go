package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// validateOptions are the flags of validate.
type validateOptions struct {
	app   *app
	files []string
	json  bool
}

func newValidateCmd(a *app, runF func(context.Context, *validateOptions) error) *cobra.Command {
	o := &validateOptions{app: a}
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Print the problems of pipeline files as file:line:col: message",
		Args:  arguments(1, -1, "a pipeline file"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// problemJSON is a problem in the JSON of validate.
type problemJSON struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Col     int    `json:"col"`
	Message string `json:"message"`
	Warning bool   `json:"warning"`
}

func runValidate(_ context.Context, o *validateOptions) error {
	a := o.app
	bad := 0
	var failed error // the first problem with printing; the files are judged all the same
	all := []problemJSON{}
	for _, file := range o.files {
		src, err := readPipeline(a.stdin, file)
		if err != nil { // the others are judged all the same
			fmt.Fprintln(a.messages, message(err))
			bad++
			continue
		}
		name := file
		if file == "-" {
			name = "<stdin>"
		}
		problems := spec.Validate(src, name)
		if problems.Err() != nil {
			bad++
		}
		for _, p := range problems {
			if o.json {
				all = append(all, problemJSON{p.Pos.File, p.Pos.Line, p.Pos.Col, p.Message, p.Warning})
			} else if failed == nil {
				_, failed = fmt.Fprintln(a.stdout, problemLine(p))
			}
		}
		if problems.Err() == nil && !o.json {
			fmt.Fprintf(a.messages, "%s: ok\n", ui.Clean(name))
		}
	}
	if o.json {
		failed = a.printJSON(all)
	}
	if bad > 0 && (failed == nil || errors.Is(failed, syscall.EPIPE)) {
		return &exitError{code: exitUsage} // also if who reads has seen enough
	}
	return failed
}

// maxFile bounds what is read: longer files are refused by their length.
const maxFile = 64 << 20

// readPipeline reads a pipeline file, or standard input for "-".
func readPipeline(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(stdin, maxFile))
	}
	f, err := os.Open(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errors.New(noFile(file))
		}
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	src, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read pipeline file: %w", err)
	}
	return src, nil
}
