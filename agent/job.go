//go:build unix

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// job is one task, ready to run.
type job struct {
	fn       *function
	index    int
	attempt  int
	mapped   bool
	item     any
	itemJSON []byte // "null" if not mapped
	*rendered
	vars    []string // environment that only this task has
	outputs []string
	before  []fileState // of the outputs, before the attempt
	parts   *identity   // nil: not wanted
	whyRun  string      // with the cache on: why earlier work was not used
}

func (j *job) outcome() task.Outcome {
	return task.Outcome{Index: j.index, Attempt: j.attempt, Started: time.Now().UnixNano()}
}

// jobs makes the jobs of a range one after the other.
type jobs struct {
	s  *slot
	fn *function
	d  cloud.Delivery
	at int // the next index

	items []any // from index base on
	base  int
}

// next is the next job to run, nil at the end of the range. Tasks that have
// not to run (a where, the cache, a template that fails) get their outcome on
// the way.
func (q *jobs) next(ctx context.Context) *job {
	for q.at < q.d.To && !q.s.stopped(ctx, q.fn) {
		i := q.at
		q.at++
		j := &job{fn: q.fn, index: i, attempt: q.d.Attempt}
		o, err := q.prepare(ctx, j)
		switch {
		case err != nil && ctx.Err() != nil:
			q.s.unrun = append(q.s.unrun, i)
		case err != nil:
			q.s.add(ctx, setupFailed(j.outcome(), err))
		case o != nil:
			q.s.add(ctx, *o)
		default:
			return j
		}
	}
	return nil
}

// prepare fills in the job. An outcome: the task need not run.
func (q *jobs) prepare(ctx context.Context, j *job) (*task.Outcome, error) {
	fn := q.fn
	if err := q.item(ctx, j); err != nil {
		return nil, err
	}
	env := fn.scope
	env.Item, env.HasItem, env.Index = j.item, j.mapped, j.index
	env.Env = fn.visible
	if fn.from != "" && fn.f.Map.Where != nil {
		wanted, err := fn.f.Map.Where.Bool(&env)
		if err != nil {
			return nil, fmt.Errorf("where: %w", err)
		}
		if !wanted {
			return &task.Outcome{Index: j.index, Status: task.Skipped, Started: time.Now().UnixNano(),
				Message: "left out by where"}, nil
		}
	}
	if fn.from != "" {
		if err := fn.a.place(ctx, fn.from, j.index); err != nil {
			return nil, err
		}
	}
	if place := fn.a.run.Place; place != nil && j.mapped {
		if err := place(ctx, fn.name, j.index, j.item); err != nil {
			return nil, fmt.Errorf("put the item of the task in place: %w", err)
		}
	}
	if fn.envTask {
		vars, visible, err := fn.taskVars(&env)
		if err != nil {
			return nil, err
		}
		j.vars, env.Env = vars, visible
	} else if fn.fixedErr != nil {
		return nil, fn.fixedErr
	}
	if j.rendered = fn.rendered; j.rendered == nil {
		j.rendered = fn.render(&env)
	}
	if j.setup != nil {
		return nil, j.setup
	}
	if err := fn.taskOutputs(j, &env); err != nil {
		return nil, err
	}
	if fn.a.run.CacheOn {
		if o, err := fn.a.recall(ctx, j); o != nil || err != nil {
			return o, err
		}
	}
	if len(j.outputs) > 0 {
		return nil, fn.a.checkOutputs(ctx, j)
	}
	return nil, nil
}

func (fn *function) taskOutputs(j *job, env *spec.Env) (err error) {
	if len(fn.f.Outputs) == 0 {
		return nil
	}
	for i, t := range fn.f.Outputs {
		paths, err := t.Texts(env)
		if err != nil {
			return fmt.Errorf("outputs[%d]: %w", i, err)
		}
		j.outputs = append(j.outputs, paths...)
	}
	return nil
}

// item reads the item of a job.
func (q *jobs) item(ctx context.Context, j *job) error {
	fn := q.fn
	j.itemJSON = []byte("null")
	switch {
	case fn.from != "":
		b, err := fn.a.run.Upstream(ctx, fn.from, j.index)
		if err != nil {
			return fmt.Errorf("read result %d of %s: %w", j.index, fn.from, err)
		}
		if len(b) > 0 {
			if j.item, err = value.DecodeOrdered(b); err != nil {
				return fmt.Errorf("read result %d of %s: %w", j.index, fn.from, err)
			}
		}
	case fn.items != nil:
		if j.index < q.base || j.index >= q.base+len(q.items) {
			q.base, q.items = j.index, q.items[:0]
			err := fn.items.Each(j.index, min(j.index+itemsAtATime, q.d.To), func(_ int, item any) error {
				q.items = append(q.items, item)
				return nil
			})
			if err == nil && len(q.items) == 0 {
				err = errors.New("there is no such item")
			}
			if err != nil {
				return fmt.Errorf("read item %d: %w", j.index, err)
			}
		}
		j.item = q.items[j.index-q.base]
	default:
		return nil
	}
	j.mapped = true
	if value.HasNUL(j.item) {
		return errors.New("the item has a NUL byte, which can neither be an argument nor stand in the environment")
	}
	j.itemJSON = value.JSON(j.item)
	return nil
}
