package planner

import (
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// maxOutputChecks bounds the paths that are looked at before a run; more are
// looked at as the tasks start.
const maxOutputChecks = 200_000

// checkOutputs finds outputs that lead out of the folder, or that two tasks
// would write, as far as it can be told before anything runs.
func checkOutputs(p *spec.Pipeline, order []*spec.Function, plan *Plan, run *spec.RunInfo) error {
	c := &outputCheck{seed: maphash.MakeSeed(), owners: map[uint64]outputOwner{}, left: maxOutputChecks}
	for _, fn := range order {
		f := plan.Function(fn.Name)
		for _, t := range fn.Outputs {
			r := t.Refs()
			// The env of a function may differ from task to task, and results are
			// not there yet.
			if f == nil || f.Tasks < 0 || r.Env || len(r.EnvVars) > 0 || len(r.Needs) > 0 || r.Item && f.Items == nil {
				continue
			}
			if err := c.function(&spec.Env{Params: p.Params, Run: run}, fn, f, t); err != nil {
				return err
			}
		}
	}
	return nil
}

type outputOwner struct {
	fn    *spec.Function
	index int
}

type outputCheck struct {
	seed   maphash.Seed
	owners map[uint64]outputOwner
	left   int
}

var errEnough = errors.New("enough")

func (c *outputCheck) function(env *spec.Env, fn *spec.Function, f *FunctionPlan, t *spec.Template) error {
	env.Count = f.Tasks
	one := func(i int, item any) error {
		if c.left--; c.left < 0 {
			return errEnough
		}
		env.Index = i
		env.Item, env.HasItem = item, f.Items != nil
		paths, err := t.Texts(env)
		if err != nil {
			return nil //nolint:nilerr // the task fails and says so; others may be fine
		}
		for _, text := range paths {
			if err := c.claim(fn, i, text, t.Pos); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	switch r := t.Refs(); {
	case f.Tasks == 0:
	case !f.Mapped:
		err = one(0, nil)
	case !r.Item && !r.Index:
		if err = one(0, nil); err == nil && f.Tasks > 1 {
			err = one(1, nil)
		}
	case f.Items != nil:
		err = f.Items.Each(0, f.Items.Len(), func(i int, item any) error { return one(IndexOf(f.Items, i), item) })
	default:
		for i := 0; i < f.Tasks && err == nil; i++ {
			err = one(i, nil)
		}
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (c *outputCheck) claim(fn *spec.Function, i int, text string, pos spec.Pos) error {
	if err := spec.CheckOutput(text); err != nil {
		return spec.Problems{{Pos: pos, Message: fmt.Sprintf("functions.%s.outputs: %v", fn.Name, err)}}
	}
	if !strings.Contains(text, "://") {
		text = path.Clean(text)
	}
	h := maphash.String(c.seed, text)
	me := outputOwner{fn, i}
	o, taken := c.owners[h]
	switch {
	case !taken:
		c.owners[h] = me
	case o.fn == fn && o.index != i:
		return spec.Problems{{Pos: pos, Message: fmt.Sprintf("functions.%s.outputs: task %d and task %d would both write %q: give each its own path, for example with ${{ index }}",
			fn.Name, o.index, i, text)}}
	case o.fn != fn && o.fn.If == nil && fn.If == nil: // one of the two may never run
		return spec.Problems{{Pos: pos, Message: fmt.Sprintf("functions.%s.outputs: %q is also written by %s: give each its own path", fn.Name, text, o.fn.Name)}}
	}
	return nil
}
