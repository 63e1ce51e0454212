package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// decideRetries evaluates retries.when for failed attempts, so that the
// decision is recorded with them and a fold need not repeat it.
func (c *Coordinator) decideRetries(ctx context.Context, o *outcomes) {
	f := c.state.byName[o.function]
	if f == nil || f.spec.Retries.When == nil {
		return
	}
	for i := range o.list {
		oc := &o.list[i]
		if oc.Status != task.Failed {
			continue
		}
		again := false
		env, err := c.failureEnv(ctx, f, oc)
		if err == nil {
			again, err = f.spec.Retries.When.Bool(env)
		}
		if err != nil {
			oc.Message += fmt.Sprintf(" (and retries.when could not be evaluated: %v)", err)
		}
		if err != nil || !again {
			if o.noRetry == nil {
				o.noRetry = make([]bool, len(o.list))
			}
			o.noRetry[i] = true
		}
	}
}

// failureEnv is what retries.when may look at.
func (c *Coordinator) failureEnv(ctx context.Context, f *function, oc *task.Outcome) (*spec.Env, error) {
	p := c.cfg.Pipeline
	env := &spec.Env{Params: p.Params, Run: c.cfg.Header.Info(), Index: oc.Index, Failure: &spec.FailureInfo{
		ExitCode: oc.Exit, Signal: oc.Signal, Cause: oc.Cause.String(), Attempt: oc.Attempt, Stderr: string(oc.Stderr)}}
	refs := f.spec.Retries.When.Refs()
	if refs.Env || len(refs.EnvVars) > 0 {
		env.Env = make(map[string]string, len(p.Env))
		for _, v := range p.Env {
			text, err := v.Value.Text(&spec.Env{Params: p.Params, Run: env.Run})
			if err != nil {
				return nil, err
			}
			env.Env[v.Name] = text
		}
	}
	if refs.Item && f.spec.Map != nil {
		item, err := c.item(ctx, f, oc.Index)
		if err != nil {
			return nil, fmt.Errorf("read item %d: %w", oc.Index, err)
		}
		env.Item, env.HasItem = item, true
	}
	return env, nil
}

// item is the item of one task.
func (c *Coordinator) item(ctx context.Context, f *function, index int) (item any, err error) {
	if f.from != nil {
		b, err := c.Upstream(ctx, f.from.spec.Name, index)
		if err != nil || len(b) == 0 {
			return nil, err
		}
		return value.DecodeOrdered(b)
	}
	it, err := c.Items(ctx, f.spec.Name)
	if err != nil {
		return nil, err
	}
	if index >= it.Len() {
		return nil, errors.New("there is no such item")
	}
	err = it.Each(index, index+1, func(_ int, v any) error {
		item = v
		return nil
	})
	return item, err
}
