package planner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// Make plans every function: it expands the maps that do not depend on results.
//
// Mistakes of the file and its data (a pattern without a match, an unequal zip,
// a bad row) are spec.Problems with the position of the map; what could not be
// done (network, permissions) is another error. All of them are reported: an
// error with both is a joined one, in which errors.As finds the Problems.
func Make(ctx context.Context, p *spec.Pipeline, in Inputs, opt Options) (*Plan, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	order := inOrder(p.Functions)
	opt, err := checkOnly(order, opt)
	if err != nil {
		return nil, err
	}
	in.S3 = once(in.S3)
	plans := make([]*FunctionPlan, len(order))
	errs := make([]error, len(order))
	// Listings wait for disks and networks: a few at a time.
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i, fn := range order {
		f := &FunctionPlan{Name: fn.Name, Needs: fn.AllNeeds(), Mapped: fn.Map != nil, Tasks: 1}
		plans[i] = f
		if fn.Map == nil {
			for _, index := range opt.Only[fn.Name] {
				if index != 0 {
					errs[i] = noSuchIndex(fn, index, 1)
				}
			}
			continue
		}
		if from, ok := fn.Streams(); ok {
			f.StreamsFrom, f.Tasks = from, -1
			continue
		}
		if from, ok := fn.Follows(); ok {
			f.WaitsFor, f.Tasks = from, -1
			continue
		}
		if Dynamic(fn.Map) {
			f.Dynamic, f.Tasks = true, -1
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			env, err := baseEnv(p, fn, in.Run)
			if err == nil {
				f.Items, err = Expand(ctx, p, fn, in, opt, env)
			}
			if err != nil {
				errs[i] = err
				return
			}
			f.Tasks, f.Elements, f.Bytes = f.Items.Len(), f.Items.Elements(), f.Items.Bytes()
		})
	}
	wg.Wait()
	if err := join(errs); err != nil {
		return nil, err
	}
	plan := &Plan{Functions: plans}
	for _, f := range plans {
		if from := f.StreamsFrom + f.WaitsFor; from != "" {
			f.Tasks = plan.Function(from).Tasks
			f.Elements = max(f.Tasks, 0)
		}
	}
	if err := checkOutputs(p, order, plan, in.Run); err != nil {
		return nil, err
	}
	plan.Warnings = warnings(p, plan)
	return plan, nil
}

// once makes the S3 client one time for all functions.
func once(s3 func() (S3, error)) func() (S3, error) {
	if s3 == nil {
		return nil
	}
	return sync.OnceValues(s3)
}

// join is the errors as one, the problems first and in file order.
func join(errs []error) error {
	var problems spec.Problems
	var others []error
	for _, err := range errs {
		var ps spec.Problems
		switch {
		case errors.As(err, &ps):
			problems = append(problems, ps...)
		case err != nil:
			others = append(others, err)
		}
	}
	if len(problems) > 0 {
		problems.Sort()
		others = append([]error{problems}, others...)
	}
	if len(others) == 1 {
		return others[0]
	}
	return errors.Join(others...)
}

// Dynamic says whether a map depends on results, so that its items are only
// known while the run goes on. One that streams is not dynamic.
func Dynamic(m *spec.Map) bool {
	if m.Form == spec.FormFrom || len(mapRefs(m).Needs) > 0 {
		return true
	}
	return slices.ContainsFunc(m.Parts, func(p spec.NamedMap) bool { return Dynamic(p.Map) })
}

// mapRefs is the names that the expressions of a map use, without its parts'.
func mapRefs(m *spec.Map) spec.Refs {
	var r spec.Refs
	for _, t := range slices.Concat(m.Glob, m.Exclude) {
		r = r.Merge(t.Refs())
	}
	for _, v := range []*spec.Value{m.Items, m.Range} {
		if v != nil {
			r = r.Merge(v.Refs())
		}
	}
	if m.Path != nil {
		r = r.Merge(m.Path.Refs())
	}
	if m.Where != nil {
		r = r.Merge(m.Where.Refs())
	}
	return r
}

// baseEnv is what expressions of static maps see.
func baseEnv(p *spec.Pipeline, fn *spec.Function, run *spec.RunInfo) (*spec.Env, error) {
	env := &spec.Env{Params: p.Params, Run: run}
	vars := make(map[string]string, len(p.Env))
	for _, v := range p.Env {
		text, err := v.Value.Text(env)
		if err != nil {
			return nil, spec.Problems{{Pos: v.Value.Pos, Message: fmt.Sprintf("env.%s: %v", v.Name, err)}}
		}
		vars[v.Name] = text
	}
	env.Env = vars
	return env, nil
}

// inOrder is the functions with needs first, otherwise in file order. Each is
// visited once, so a deep diamond is no trouble.
func inOrder(fns []*spec.Function) []*spec.Function {
	byName := make(map[string]*spec.Function, len(fns))
	for _, f := range fns {
		byName[f.Name] = f
	}
	var order []*spec.Function
	seen := make(map[string]bool, len(fns))
	var visit func(f *spec.Function)
	visit = func(f *spec.Function) {
		if f == nil || seen[f.Name] {
			return
		}
		seen[f.Name] = true
		for _, n := range f.AllNeeds() {
			visit(byName[n])
		}
		order = append(order, f)
	}
	for _, f := range fns {
		visit(f)
	}
	return order
}

// checkOnly checks the names in Options.Only. A function that streams needs
// the same indices of the one before it.
func checkOnly(order []*spec.Function, opt Options) (Options, error) {
	if len(opt.Only) == 0 {
		return opt, nil
	}
	only := maps.Clone(opt.Only)
	var problems spec.Problems
	for _, name := range slices.Sorted(maps.Keys(only)) {
		if !slices.ContainsFunc(order, func(f *spec.Function) bool { return f.Name == name }) {
			pos := spec.Pos{}
			if len(order) > 0 {
				pos.File = order[0].Pos.File
			}
			problems = append(problems, spec.Problem{Pos: pos, Message: fmt.Sprintf("no function %q to take tasks of", name)})
		}
	}
	for _, f := range slices.Backward(order) {
		if from, ok := f.Streams(); ok && only[f.Name] != nil && only[from] == nil {
			only[from] = only[f.Name]
		}
	}
	opt.Only = only
	return opt, problems.Err()
}

// warnings is what is worth saying before the plan is carried out.
func warnings(p *spec.Pipeline, plan *Plan) []string {
	var all []string
	for _, fn := range p.Functions {
		f := plan.Function(fn.Name)
		if f == nil || !f.Mapped || f.StreamsFrom+f.WaitsFor != "" {
			continue
		}
		switch {
		case f.Tasks == 0:
			all = append(all, fmt.Sprintf("functions.%s has no tasks: its map is empty", f.Name))
		case f.Tasks >= 100_000 && fn.Python == nil && fn.Map.Batch == (spec.Batch{}):
			all = append(all, fmt.Sprintf("functions.%s starts %d programs; where each has little to do, batch: gives several items to one, and python: keeps interpreters warm",
				f.Name, f.Tasks))
		}
		all = append(all, uselessExcludes(fn)...)
	}
	return all
}

// uselessExcludes finds patterns in exclude that cannot match any item because
// they are of the other kind: local or S3.
func uselessExcludes(fn *spec.Function) []string {
	if fn.Map.Form != spec.FormGlob {
		return nil
	}
	isS3 := func(t *spec.Template) bool {
		return len(t.Source) >= len(s3Scheme) && t.Source[:len(s3Scheme)] == s3Scheme
	}
	local, remote := false, false
	for _, t := range fn.Map.Glob {
		if _, static := t.Static(); !static && !isS3(t) {
			return nil // it may turn out as either
		}
		local, remote = local || !isS3(t), remote || isS3(t)
	}
	var all []string
	for _, t := range fn.Map.Exclude {
		if _, static := t.Static(); !static {
			continue
		}
		if isS3(t) && !remote || !isS3(t) && !local {
			all = append(all, fmt.Sprintf("functions.%s.map.exclude: %q can never match: it must begin as the items do, with s3://bucket/ or without",
				fn.Name, t.Source))
		}
	}
	return all
}
