package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// parseParams reads the values of --param. The last one of a name counts.
func parseParams(given []string) (map[string]string, error) {
	params := make(map[string]string, len(given))
	for _, p := range given {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usagef("--param %s: write name=value", p)
		}
		params[k] = v
	}
	return params, nil
}

// parseOnly reads the values of --only: FN/I[,I], also FN/1,2,OTHER/3.
func parseOnly(given []string) (map[string][]int, error) {
	only := make(map[string][]int)
	for _, text := range given {
		fn := ""
		for _, part := range strings.Split(text, ",") {
			part = strings.TrimSpace(part)
			if name, index, ok := strings.Cut(part, "/"); ok {
				fn, part = name, index
			}
			i, err := parseIndex(part)
			if fn == "" || err != nil {
				return nil, usagef("--only %s: write function/index, or function/index,index", text)
			}
			only[fn] = append(only[fn], i)
		}
	}
	if len(only) == 0 {
		return nil, nil
	}
	return only, nil
}

func parseIndex(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && (n < 0 || s[0] == '+' || len(s) > 1 && s[0] == '0') {
		err = errors.New("not an index")
	}
	return n, err
}

// parseDollars reads --max-cost.
func parseDollars(s string) (*float64, error) {
	if s == "none" {
		none := engine.NoLimit
		return &none, nil
	}
	d, err := strconv.ParseFloat(strings.TrimPrefix(s, "$"), 64)
	if err != nil || d < 0 || math.IsNaN(d) || math.IsInf(d, 0) {
		return nil, usagef("--max-cost %s: write dollars, such as 5 or 2.50, or none", s)
	}
	return &d, nil
}

// taskRef is FN or FN/I on the command line.
type taskRef struct {
	fn    string
	index int // -1: all
}

func parseTaskRef(s string) (taskRef, error) {
	fn, index, ok := strings.Cut(s, "/")
	if fn == "" {
		return taskRef{}, usagef("%q: write FUNCTION/INDEX", s)
	}
	if !ok {
		return taskRef{fn, -1}, nil
	}
	i, err := parseIndex(index)
	if err != nil {
		return taskRef{}, usagef("%q: the index behind the slash is a number from 0", s)
	}
	return taskRef{fn, i}, nil
}

// findRun looks up RUN. The engine then works on the store that the run is in,
// which need not be the one for new runs.
func (a *app) findRun(ctx context.Context, ref string) (e *engine.Engine, run string, err error) {
	if e, err = a.reader(ctx); err != nil {
		return nil, "", err
	}
	if run, e.Store, err = e.Find(ctx, ref); err != nil {
		return e, run, err
	}
	a.hint(e, run)
	return e, run, nil
}

// hint sees to it that commands about a run find it, where only --store tells
// where it is.
func (a *app) hint(e *engine.Engine, run string) {
	if own, err := e.Owns(run); err == nil && !own && a.storeFlag != "" {
		a.hinted = program + " --store " + shellWord(a.storeFlag)
	}
}

// command is how the commands begin that people are told to type.
func (a *app) command() string { return cmp.Or(a.hinted, program) }

// shellWord is a text as one word of a shell.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/:._-+@%,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// runView is a run that was looked up, opened for reading.
type runView struct {
	*executor.View
	engine  *engine.Engine
	run     string
	command string // how commands about it begin
}

// openRun looks up RUN and opens it for reading.
func (a *app) openRun(ctx context.Context, ref string) (*runView, error) {
	e, run, err := a.findRun(ctx, ref)
	if err != nil {
		return nil, err
	}
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return nil, err
	}
	return &runView{View: v, engine: e, run: run, command: a.command()}, nil
}

// openReport is openRun with the state that the run is in.
func (a *app) openReport(ctx context.Context, ref string) (*runView, executor.Report, error) {
	v, err := a.openRun(ctx, ref)
	if err != nil {
		return nil, executor.Report{}, err
	}
	r, err := v.Report(ctx)
	return v, r, err
}

// function checks the name of a function of the run.
func (v *runView) function(fn string) error {
	names := v.Functions()
	for _, n := range names {
		if n == fn {
			return nil
		}
	}
	if s := spec.Suggest(fn, names); s != "" {
		return usagef("run %s has no function %q (did you mean %q?)", v.run, fn, s)
	}
	return usagef("run %s has no function %q; it has %s", v.run, fn, strings.Join(names, ", "))
}

// count is the number of tasks of a function that are known.
func (v *runView) count(r executor.Report, fn string) int {
	for _, f := range r.Functions {
		if f.Name == fn {
			return f.Tasks
		}
	}
	return 0
}

// over says whether a function has reached its end.
func (v *runView) over(r executor.Report, fn string) bool {
	return slices.ContainsFunc(r.Functions, func(f executor.FunctionReport) bool {
		return f.Name == fn && f.Status != task.Pending.String() && f.Status != task.Running.String()
	})
}

// resolve checks FN or FN/I against the run; all reports that no index was
// given and the function has more than one task (or none yet).
func (v *runView) resolve(r executor.Report, text string) (ref taskRef, all bool, err error) {
	if ref, err = parseTaskRef(text); err != nil {
		return ref, false, err
	}
	if err := v.function(ref.fn); err != nil {
		return ref, false, err
	}
	n := v.count(r, ref.fn)
	switch {
	case ref.index < 0 && !v.Mapped(ref.fn):
		ref.index = 0
	case ref.index < 0:
		return ref, true, nil
	}
	if _, ok := v.Task(ref.fn, ref.index); ok {
		return ref, false, nil
	}
	switch {
	case n == 0 && v.over(r, ref.fn):
		return ref, false, usagef("%s has no tasks; %s why %s %s says more", ref.fn, v.command, v.run, ref.fn)
	case n == 0:
		return ref, false, usagef("the tasks of %s are not known yet", ref.fn)
	case n == 1:
		return ref, false, usagef("%s has one task: %s/0", ref.fn, ref.fn)
	}
	return ref, false, usagef("%s has no task %d: its %d tasks are %s/0 to %s/%d", ref.fn, ref.index, n, ref.fn, ref.fn, n-1)
}

// resolveOne is resolve for commands about one task.
func (v *runView) resolveOne(r executor.Report, text string) (taskRef, error) {
	ref, all, err := v.resolve(r, text)
	switch {
	case err != nil:
		return ref, err
	case all && v.count(r, ref.fn) == 1:
		ref.index = 0
	case all:
		return ref, usagef("which task of %s? it has %d: write %s/INDEX", ref.fn, v.count(r, ref.fn), ref.fn)
	}
	return ref, nil
}

// label is how the task is written on the command line.
func (v *runView) label(ref taskRef) string {
	if !v.Mapped(ref.fn) {
		return ref.fn
	}
	return fmt.Sprintf("%s/%d", ref.fn, ref.index)
}
