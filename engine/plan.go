package engine

import (
	"context"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

func (e *Engine) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// Plan checks and plans a file. Errors are spec.Problems or *UsageError for
// what the caller can mend in the file or the flags, others for what could not
// be looked at.
func (e *Engine) Plan(ctx context.Context, o ApplyOptions) (*Planned, error) {
	p, warnings, err := e.load(o)
	if err != nil {
		return nil, err
	}
	dir, err := folderOf(o.File)
	if err != nil {
		return nil, err
	}
	run := &spec.RunInfo{Started: e.now(), Scheduled: o.Scheduled}
	plan, err := planner.Make(ctx, narrowed(p, o.Functions, o.Only), e.inputs(dir, run), planner.Options{First: o.First})
	if err != nil {
		return nil, err
	}
	if err := checkOnly(plan, o.Only); err != nil {
		return nil, err
	}
	return &Planned{Pipeline: p, Dir: dir, Plan: plan, Warnings: warnings}, nil
}

// load reads, checks and binds the file of o.
func (e *Engine) load(o ApplyOptions) (*spec.Pipeline, spec.Problems, error) {
	doc, err := spec.Load(o.File)
	if err != nil {
		return nil, nil, err
	}
	p, problems := doc.Bind(spec.BindOptions{Params: o.Params, Cloud: o.Cloud})
	if err := problems.Err(); err != nil {
		return nil, nil, err
	}
	names := append([]string(nil), o.Functions...)
	for fn := range o.Only {
		names = append(names, fn)
	}
	sort.Strings(names)
	for _, name := range names {
		if p.Function(name) == nil {
			return nil, nil, usagef("%s has no function %q%s", o.File, name, suggestion(name, p))
		}
	}
	return p, problems, nil
}

func suggestion(name string, p *spec.Pipeline) string {
	var names []string
	for _, f := range p.Functions {
		names = append(names, f.Name)
	}
	if s := spec.Suggest(name, names); s != "" {
		return " (did you mean " + s + "?)"
	}
	return "; it has " + strings.Join(names, ", ")
}

// narrowed is the pipeline with only the functions that take part.
func narrowed(p *spec.Pipeline, functions []string, only map[string][]int) *spec.Pipeline {
	q := *p
	q.Functions = executor.Selected(p, functions, only)
	return &q
}

func checkOnly(plan *planner.Plan, only map[string][]int) error {
	for _, f := range plan.Functions {
		for _, i := range only[f.Name] {
			if f.Tasks >= 0 && (i < 0 || i >= f.Tasks) {
				return usagef("--only %s/%d: %s has %d tasks, so the last index is %d", f.Name, i, f.Name, f.Tasks, f.Tasks-1)
			}
		}
	}
	return nil
}

func folderOf(file string) (string, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	return filepath.Dir(abs), nil
}

func (e *Engine) inputs(dir string, run *spec.RunInfo) planner.Inputs {
	return planner.Inputs{Dir: dir, S3: e.S3, Run: run}
}

// slots is how many tasks this machine runs at a time: one per CPU, or what
// the most demanding threads_per_worker asks for.
func slots(fs []*spec.Function) int {
	n := runtime.NumCPU()
	for _, f := range fs {
		n = max(n, f.Hardware.Threads)
	}
	return n
}
