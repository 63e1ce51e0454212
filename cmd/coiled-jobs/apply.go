package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// selection is the flags that say which file, parameters and tasks: those of
// apply and plan.
type selection struct {
	params    []string
	cloud     string
	local     bool
	functions []string
	first     int
	only      []string
	noCache   bool
	maxCost   string
}

func (s *selection) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.params, "param", nil, "set a parameter, `name=value` (repeatable)")
	f.StringVar(&s.cloud, "cloud", "", "run on `local` or aws, whatever the file says")
	f.BoolVar(&s.local, "local", false, "run on this machine: --cloud local")
	f.StringSliceVar(&s.functions, "function", nil, "only this `function` and what it needs (repeatable, or a,b)")
	f.IntVar(&s.first, "first", 0, "only the first `n` tasks of every map")
	f.StringArrayVar(&s.only, "only", nil, "only these tasks of a function: `FN/I[,I]` (repeatable)")
	f.BoolVar(&s.noCache, "no-cache", false, "run everything, whatever is remembered")
	f.StringVar(&s.maxCost, "max-cost", "", "stop at this many `dollars`, or none")
	_ = cmd.RegisterFlagCompletionFunc("cloud", cobra.FixedCompletions(clouds, cobra.ShellCompDirectiveNoFileComp))
}

// options checks the flags.
func (s *selection) options(cmd *cobra.Command, file string) (engine.ApplyOptions, error) {
	o := engine.ApplyOptions{File: file, Cloud: s.cloud, Functions: s.functions, First: s.first, NoCache: s.noCache}
	if s.cloud != "" && !slices.Contains(clouds, s.cloud) {
		return o, usagef("--cloud %s: write %s", s.cloud, strings.Join(clouds, " or "))
	}
	if s.local {
		if s.cloud == "aws" {
			return o, usagef("--local and --cloud aws contradict each other")
		}
		o.Cloud = "local"
	}
	if cmd.Flags().Changed("first") && s.first < 1 {
		return o, usagef("--first %d: write a number of tasks from 1", s.first)
	}
	var err error
	if o.Params, err = parseParams(s.params); err != nil {
		return o, err
	}
	if o.Only, err = parseOnly(s.only); err != nil {
		return o, err
	}
	if s.maxCost != "" {
		if o.MaxCost, err = parseDollars(s.maxCost); err != nil {
			return o, err
		}
	}
	return o, nil
}

// checkFile makes a mistyped name of a pipeline file bad usage; everything else
// that may be wrong with it is found by reading it.
func checkFile(file string) error {
	switch info, err := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		return usagef("%s", noFile(file))
	case err == nil && info.IsDir():
		return usagef("%s is a folder; name the pipeline file in it", file)
	}
	return nil
}

// noFile says that there is no such pipeline file, and which one beside it
// may have been meant.
func noFile(file string) string {
	var names []string
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(file), pattern))
		if err != nil {
			continue // a folder with a [ in its name
		}
		for _, path := range found {
			names = append(names, filepath.Base(path))
		}
	}
	if near := spec.Suggest(filepath.Base(file), names); near != "" {
		return fmt.Sprintf("no file %s (did you mean %s?)", file, filepath.Join(filepath.Dir(file), near))
	}
	return fmt.Sprintf("no file %s; \"%s init\" writes a first pipeline.yaml", file, program)
}

// applyOptions are the flags of apply.
type applyOptions struct {
	app *app
	selection
	waiting
	engine.ApplyOptions
	key    string
	detach bool
	yes    bool
}

func newApplyCmd(a *app, runF func(context.Context, *applyOptions) error) *cobra.Command {
	o := &applyOptions{app: a}
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Plan a pipeline, run it and wait for its end",
		Long: `Plan a pipeline, run it and wait for its end.

Progress and the summary go to standard error; with --json the final state is one JSON document on
standard output. Ctrl-C cancels the run.`,
		Example: "  coiled-jobs apply pipeline.yaml --param year=2019\n  coiled-jobs apply pipeline.yaml --first 3\n" +
			"  coiled-jobs apply pipeline.yaml --key nightly-2024-05-01 --detach",
		Args: arguments(1, 1, "a pipeline file"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.ApplyOptions, err = o.selection.options(cmd, args[0]); err != nil {
				return err
			}
			if cmd.Flags().Changed("key") && o.key == "" {
				return usagef("--key is empty: give the run a name, or leave the flag out")
			}
			if err := o.waiting.check(); err != nil {
				return err
			}
			o.Key, o.Detach = o.key, o.detach
			return runF(cmd.Context(), o)
		},
	}
	o.selection.flags(cmd)
	o.waiting.flags(cmd, true)
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "a live or finished run with this `key` is joined, not repeated")
	f.BoolVar(&o.detach, "detach", false, "return at once; the run goes on in the background")
	f.BoolVar(&o.yes, "yes", false, "rent machines without asking")
	return cmd
}

func runApply(ctx context.Context, o *applyOptions) error {
	a := o.app
	if err := checkFile(o.File); err != nil {
		return err
	}
	e, err := a.engine(ctx)
	if err != nil {
		return err
	}
	p, err := e.Plan(ctx, o.ApplyOptions)
	if err != nil {
		return err
	}
	a.warn(p.Warnings)
	for _, w := range p.Plan.Warnings {
		fmt.Fprintln(a.messages, "warning: "+ui.Clean(w))
	}
	if e, err = e.For(ctx, p.Pipeline.Cloud); err != nil {
		return err
	}
	var quote *engine.Quote
	o.Confirm = func(q *engine.Quote) error {
		if !o.yes && isTerminal(a.stdin) && isTerminal(a.stderr) {
			return o.ask(ctx, e, p, q)
		}
		a.tellQuote(p, q)
		quote = q
		return nil
	}
	h, err := e.Apply(ctx, p, o.ApplyOptions)
	if err != nil {
		return err
	}
	a.hint(e, h.Run)
	if o.detach {
		return a.detached(h, o.json)
	}
	if p.Pipeline.Cloud == "aws" {
		defer afterLaunch(ctx, h, func(ctx context.Context) {
			if quote != nil { // nobody was asked: machines start before the estimate is made
				o.tell(ctx, e, p)
			}
			stop := a.sweepQuietly(ctx, e)
			<-ctx.Done()
			stop()
		})()
	}
	o.noOutputs, o.dir = true, p.Dir
	for _, f := range p.Pipeline.Functions {
		o.noOutputs = o.noOutputs && len(f.Outputs) == 0
	}
	return a.attend(ctx, e, h, &o.waiting)
}

// errNotRented ends an apply whose question was not answered with yes.
var errNotRented = errors.New("nothing was rented and nothing was recorded")

// ask tells what a run would rent and asks for consent.
func (o *applyOptions) ask(ctx context.Context, e *engine.Engine, p *engine.Planned, q *engine.Quote) error {
	o.app.tellQuote(p, q)
	o.tell(ctx, e, p)
	if o.app.confirm("rent machines for it?") {
		return nil
	}
	return &exitError{code: exitCancelled, err: errNotRented}
}

// tellQuote shows what a run would rent.
func (a *app) tellQuote(p *engine.Planned, q *engine.Quote) {
	fmt.Fprintf(a.messages, "%s: %s\n", ui.Clean(p.Pipeline.Name), ui.Clean(q.String()))
	for _, w := range q.Warnings {
		fmt.Fprintln(a.messages, "warning: "+ui.Clean(w))
	}
}

// launchPatience is how long other questions to the cloud wait for the launch of
// the first machines.
const launchPatience = 30 * time.Second

// afterLaunch does what asks the cloud much, once the first machines of a run
// were asked for: nothing may hold these up. The func it returns ends that.
func afterLaunch(ctx context.Context, h *engine.Handle, act func(context.Context)) func() {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(drawEvery)
		defer t.Stop()
		for began := time.Now(); h.Snapshot().Machines == 0 && time.Since(began) < launchPatience; {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
		act(ctx)
	})
	return func() { stop(); wg.Wait() }
}

// tell shows what a run would cost and what stands against it.
func (o *applyOptions) tell(ctx context.Context, e *engine.Engine, p *engine.Planned) {
	a := o.app
	r := planner.NewReport(p.Pipeline, p.Plan)
	known := len(r.Warnings) // told already
	limited, cancel := context.WithTimeout(ctx, estimatePatience)
	defer cancel()
	// An estimate helps to decide; without one the question is still the same.
	err := e.Estimate(limited, p, engine.EstimateOptions{ApplyOptions: o.ApplyOptions, Assume: assumed}, &r)
	if err == nil && r.Estimate != nil {
		est := r.Estimate
		fmt.Fprintf(a.messages, "expected: %s and %s, up to %s and %s\n", ui.Seconds(est.Seconds), ui.Dollars(est.CostUSD), ui.Seconds(est.MaxSeconds), ui.Dollars(est.MaxCostUSD))
	}
	for _, w := range r.Warnings[known:] {
		fmt.Fprintln(a.messages, "warning: "+ui.Clean(w))
	}
}

// estimatePatience is how long a run waits for its estimate.
const estimatePatience = 3 * time.Second

// assumed is how long a task takes of which nothing is known, in estimates.
const assumed = 30 * time.Second

// detached reports a run that goes on without this process: its id on
// standard output, for scripts, or its state as JSON.
func (a *app) detached(h *engine.Handle, json bool) error {
	if h.Joined != "" {
		fmt.Fprintf(a.messages, "%s: %s\n", program, ui.Clean(h.Joined))
	}
	r := h.Snapshot()
	if r.Status.Final() {
		fmt.Fprintf(a.messages, "run %s: %s\n", h.Run, r.Status)
	} else {
		fmt.Fprintf(a.messages, "run %s goes on in the background; look: %s status %s, wait: %s wait %s\n",
			h.Run, a.command(), h.Run, a.command(), h.Run)
	}
	if json {
		if r.Run == "" {
			r.Run, r.Status = h.Run, executor.RunPending
		}
		return a.printJSON(r)
	}
	_, err := fmt.Fprintln(a.stdout, h.Run)
	return err
}

// warn prints the warnings among problems.
func (a *app) warn(ps spec.Problems) {
	for _, p := range ps {
		if p.Warning {
			fmt.Fprintln(a.messages, problemLine(p))
		}
	}
}
