package executor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// maxResults is how many bytes of results an expression may ask for.
const maxResults = 64 << 20

// prepare evaluates the if of a function and expands its map.
func (c *Coordinator) prepare(ctx context.Context, f *function) *event {
	e := &event{Kind: evPrepared, Function: f.spec.Name}
	env, err := c.env(ctx, f)
	if err != nil {
		e.Fail, e.Reason = true, err.Error()
		return e
	}
	c.mu.Lock()
	planned, n := f.planned, f.n
	c.mu.Unlock()
	e.Tasks = n
	if f.spec.If != nil {
		ok, err := f.spec.If.RunsIf(env)
		switch {
		case err != nil:
			e.Fail, e.Reason = true, "if: "+err.Error()
			return e
		case !ok:
			e.Skip, e.Reason = true, "if: "+f.spec.If.Source+" is false"
			return e
		}
	}
	switch {
	case f.from != nil, planned && !c.dynamic(f):
	case f.spec.Map == nil:
		e.Tasks = 1
	default:
		n, err := c.expand(ctx, f, env)
		if err != nil {
			e.Fail, e.Reason = true, err.Error()
			return e
		}
		e.Tasks = n
	}
	return e
}

// dynamic says whether the map of f is expanded during the run.
func (c *Coordinator) dynamic(f *function) bool {
	_, static := c.cfg.Header.Planned[f.spec.Name]
	return f.spec.Map != nil && f.from == nil && !static
}

// expand makes and records the items of a map that depends on results. Items
// that an earlier coordinator recorded are taken as they are: an index is
// always the same item.
func (c *Coordinator) expand(ctx context.Context, f *function, env *spec.Env) (int, error) {
	h := c.cfg.Header
	it, err := LoadItems(ctx, c.cfg.Store, h.Run, f.spec.Name)
	if cloud.KindOf(err) == cloud.KindNotFound || err == nil && f.table.status == nil && f.planned {
		in := c.cfg.Inputs
		in.Run = h.Info()
		it, err = planner.Expand(ctx, c.cfg.Pipeline, f.spec, in, planner.Options{First: h.First}, env)
		if err == nil {
			err = SaveItems(ctx, c.cfg.Store, h.Run, f.spec.Name, it)
		}
	}
	if err != nil {
		return 0, err
	}
	return it.Len(), nil
}

// env is what the if and the map of a function may refer to.
func (c *Coordinator) env(ctx context.Context, f *function) (*spec.Env, error) {
	env := &spec.Env{Params: c.cfg.Pipeline.Params, Run: c.cfg.Header.Info(), Needs: c.needsInfo(ctx, f)}
	vars, err := PipelineEnv(c.cfg.Pipeline, env.Run)
	env.Env = vars
	return env, err
}

// PipelineEnv evaluates the env of the pipeline.
func PipelineEnv(p *spec.Pipeline, run *spec.RunInfo) (map[string]string, error) {
	vars := map[string]string{}
	for _, v := range p.Env {
		text, err := v.Value.Text(&spec.Env{Params: p.Params, Env: vars, Run: run})
		if err != nil {
			return nil, fmt.Errorf("env.%s: %w", v.Name, err)
		}
		vars[v.Name] = text
	}
	return vars, nil
}

// needsInfo is what expressions see of the functions that f needs.
func (c *Coordinator) needsInfo(ctx context.Context, f *function) map[string]*spec.NeedsInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	infos := map[string]*spec.NeedsInfo{}
	for _, need := range f.needs {
		infos[need.spec.Name] = &spec.NeedsInfo{
			Status: need.shown(), Count: need.n, Failed: need.counts[task.Failed], Mapped: need.spec.Map != nil,
			BehindFailure: need.behindFailure,
			Results:       sync.OnceValues(func() ([]any, error) { return c.results(ctx, need) }),
			// Read when need has ended: its table does not change any more.
			Without: func(i int) bool {
				return i >= len(need.table.status) || need.table.status[i] != task.Succeeded
			},
		}
	}
	return infos
}

// results decodes all results of a function for an expression.
func (c *Coordinator) results(ctx context.Context, f *function) ([]any, error) {
	all := make([]any, 0, f.n)
	size := 0
	var failed error
	err := c.rd.eachResult(ctx, f, func(i int, res []byte) bool {
		if size += len(res); size > maxResults {
			failed = fmt.Errorf("the results of %s are over %d MiB together: too large for an expression; read them from the file $COILED_JOBS_NEEDS/%s.jsonl", f.spec.Name, maxResults>>20, f.spec.Name)
			return false
		}
		var v any
		if res != nil {
			if v, failed = value.DecodeOrdered(res); failed != nil {
				failed = fmt.Errorf("result %d of %s: %w", i, f.spec.Name, failed)
				return false
			}
		}
		all = append(all, v)
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// needsCache holds, per function, what its tasks see of its needs.
type needsCache struct {
	mu sync.Mutex
	by map[string]func() (needsEntry, error)
}

type needsEntry struct {
	infos map[string]*spec.NeedsInfo
	dir   string
}

// Needs gives agents what tasks of fn see of the functions in needs: for
// expressions, and as a folder with <function>.jsonl, one result a line in
// index order, null where there is none.
func (c *Coordinator) Needs(ctx context.Context, fn string) (map[string]*spec.NeedsInfo, string, error) {
	f := c.state.byName[fn]
	if f == nil {
		return nil, "", fmt.Errorf("no function %q in this run", fn)
	}
	c.needs.mu.Lock()
	if c.needs.by == nil {
		c.needs.by = map[string]func() (needsEntry, error){}
	}
	get := c.needs.by[fn]
	if get == nil {
		get = sync.OnceValues(func() (needsEntry, error) { return c.writeNeeds(context.WithoutCancel(ctx), f) })
		c.needs.by[fn] = get
	}
	c.needs.mu.Unlock()
	e, err := get()
	return e.infos, e.dir, err
}

func (c *Coordinator) writeNeeds(ctx context.Context, f *function) (needsEntry, error) {
	e := needsEntry{infos: c.needsInfo(ctx, f), dir: filepath.Join(c.cfg.Scratch, "needs", f.spec.Name)}
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return e, err
	}
	for _, need := range f.needs {
		if need == f.from && !f.barrier {
			continue // it may still run; its result of the same index is the item
		}
		if err := c.writeResults(ctx, need, filepath.Join(e.dir, need.spec.Name+".jsonl")); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (c *Coordinator) writeResults(ctx context.Context, f *function, path string) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 1<<16)
	err = c.rd.eachResult(ctx, f, func(_ int, res []byte) bool {
		if res == nil {
			res = []byte("null")
		}
		_, _ = w.Write(res) // the next write reports it too
		return w.WriteByte('\n') == nil
	})
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// itemsCache opens the recorded items of each function once.
type itemsCache struct {
	mu sync.Mutex
	by map[string]planner.Items
}

// Items gives agents the items of a mapped function.
func (c *Coordinator) Items(ctx context.Context, fn string) (planner.Items, error) {
	c.items.mu.Lock()
	defer c.items.mu.Unlock()
	if it, ok := c.items.by[fn]; ok {
		return it, nil
	}
	it, err := LoadItems(ctx, c.cfg.Store, c.cfg.Header.Run, fn)
	if err != nil {
		return nil, err
	}
	if c.items.by == nil {
		c.items.by = map[string]planner.Items{}
	}
	c.items.by[fn] = it
	return it, nil
}

// Count is the number of tasks of a function that agents were given work of.
func (c *Coordinator) Count(fn string) int {
	if f := c.state.byName[fn]; f != nil {
		return f.n
	}
	return 0
}

// Stopped says whether no further task of a function may start.
func (c *Coordinator) Stopped(fn string) bool {
	b := c.stopped[fn]
	return b != nil && b.Load()
}

// Upstream is the result of a task behind which another one streams.
func (c *Coordinator) Upstream(ctx context.Context, fn string, index int) ([]byte, error) {
	f := c.state.byName[fn]
	if f == nil || index >= len(f.table.pos) || f.table.pos[index] < 0 {
		return nil, fmt.Errorf("task %d of %s has no result", index, fn)
	}
	o, err := c.rd.outcome(ctx, f.table.pos[index])
	if err != nil {
		return nil, err
	}
	return c.rd.result(ctx, o)
}

// NeedsID is the identity of the work of a function: of all its tasks
// together, or of one (index >= 0).
func (c *Coordinator) NeedsID(ctx context.Context, fn string, index int) (task.ID, error) {
	f := c.state.byName[fn]
	if f == nil {
		return task.ID{}, fmt.Errorf("no function %q in this run", fn)
	}
	if index >= 0 {
		if index >= len(f.table.pos) || f.table.pos[index] < 0 {
			return task.ID{}, nil
		}
		o, err := c.rd.outcome(ctx, f.table.pos[index])
		if err != nil {
			return task.ID{}, err
		}
		return o.ID, nil
	}
	h := newNeedsHash(f)
	err := c.rd.eachKept(ctx, f, func(i int, k kept) bool {
		h.add(i, k.id)
		return true
	})
	return h.sum(), err
}
