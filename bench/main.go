// Command bench measures coiled-jobs side by side with the tools that people
// would use instead, and prints medians and ratios. It builds the program
// first. README.md in this folder says what each row means.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	scale  float64
	rounds int
	jobs   int
	only   string
	work   string
	binary string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 2 && args[0] == pageByPageArg {
		return pageByPage(ctx, args[1], stdout)
	}
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Float64Var(&o.scale, "scale", 1, "size of the work; below 1 nothing is compared with its target")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each contender runs, in turns")
	fs.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "tasks at a time, for every contender")
	fs.StringVar(&o.only, "only", "", "only the cases whose name contains one of these words (comma-separated)")
	fs.StringVar(&o.work, "work", "", "folder for everything that is made (default: in the user's cache folder)")
	fs.StringVar(&o.binary, "binary", "", "measure this program instead of building it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.scale <= 0 || o.rounds < 1 || o.jobs < 1 {
		return fmt.Errorf("-scale, -rounds and -jobs must be positive")
	}
	b, err := setUp(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.tmp)
	fmt.Fprintf(stdout, "%s, %d CPUs, %d tasks at a time, scale %g, median of %d rounds\n\n",
		runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), o.jobs, o.scale, o.rounds)
	t := newTable(stdout)
	failed := 0
	for _, c := range b.cases() {
		if !wanted(o.only, c.name) {
			continue
		}
		if err := b.runCase(ctx, c, t); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failed++
			t.note(c.name, "FAILED: "+err.Error())
		}
	}
	t.end()
	if failed > 0 {
		return fmt.Errorf("%d cases failed", failed)
	}
	return nil
}

func wanted(only, name string) bool {
	if only == "" {
		return true
	}
	for _, w := range strings.Split(only, ",") {
		if w = strings.TrimSpace(w); w != "" && strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// n scales a number of things, to at least one.
func (b *bench) n(full int) int { return max(1, int(float64(full)*b.scale)) }

// dir makes a new empty folder that is removed at the end.
func (b *bench) dir(name string) (string, error) {
	return os.MkdirTemp(b.tmp, filepath.Base(name)+"-")
}
