package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// RerunLocal runs one task here, with the item and environment that are
// recorded of it and the code as it is now. Its output goes to out as it
// comes. The run is not touched: logs, result and outputs go to a store that
// is removed afterwards. The outcome tells how it ended.
func (e *Engine) RerunLocal(ctx context.Context, run, fn string, index int, out io.Writer) (*task.Outcome, error) {
	if err := agent.Supported(); err != nil {
		return nil, err
	}
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return nil, err
	}
	p, h := v.Pipeline(), v.Header
	f := p.Function(fn)
	if f == nil {
		return nil, usagef("the run has no function %q%s", fn, suggestion(fn, p))
	}
	if _, ok := v.Task(fn, index); !ok {
		return nil, usagef("%s has no task %d in this run", fn, index)
	}
	scratch, err := scratchFolder(run + "-rerun")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	store, err := local.OpenStore(scratch + "/store")
	if err != nil {
		return nil, err
	}
	secrets, err := e.secrets(executor.Selected(p, []string{fn}, nil))
	if err != nil {
		return nil, err
	}
	env, err := e.baseEnv(p, h.Dir)
	if err != nil {
		return nil, err
	}
	past := executor.NewPast(v, scratch)
	if err := e.placeMissing(ctx, past, f, index, h.Dir); err != nil {
		return nil, err
	}
	queue := local.NewQueue()
	outcomes := make(chan task.Outcome, 1)
	a := agent.New(agent.Config{
		Run: &agent.Run{
			ID: run, Pipeline: p, Info: *h.Info(), Dir: h.Dir, Scratch: scratch, Store: store, Prefix: executor.Prefix(run),
			BaseEnv: env, Secrets: secrets, NoCache: true,
			Items: past.Items,
			Count: past.Count, Needs: past.Needs, Upstream: past.Upstream, NeedsID: past.NeedsID,
			Stopped: func(string) bool { return false },
		},
		Queue: queue, Slots: 1, Warden: []string{e.Exe, "__warden"}, Look: e.look(),
		Report: func(b task.Batch) {
			for _, o := range b.Outcomes {
				outcomes <- o
			}
			if len(b.Outcomes) > 0 || len(b.Unrun) > 0 {
				_ = queue.Close()
			}
		},
	})
	if err := queue.Send(ctx, cloud.Range{Run: run, Function: fn, From: index, To: index + 1, Attempt: 1}); err != nil {
		return nil, err
	}
	worked := make(chan error, 1)
	go func() { worked <- a.Work(ctx) }()
	return followRerun(ctx, a, store, worked, outcomes, out)
}

// followRerun copies the output of the only task of an agent until it ends.
func followRerun(ctx context.Context, a *agent.Agent, store cloud.Store, worked <-chan error, outcomes <-chan task.Outcome, out io.Writer) (*task.Outcome, error) {
	var shown int64
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	copyFrom := func(span task.Span, n int64) {
		buf := make([]byte, n)
		got, err := store.ReadAt(ctx, span.Key, buf, span.Off+shown)
		if err == nil || errors.Is(err, io.EOF) {
			_, _ = out.Write(buf[:got]) // a terminal that is gone
			shown += int64(got)
		}
	}
	for {
		select {
		case err := <-worked:
			select {
			case o := <-outcomes:
				if left := o.Log.Len - shown; left > 0 {
					copyFrom(o.Log, left)
				}
				return &o, nil
			default:
			}
			if err == nil {
				err = fmt.Errorf("the task did not start")
			}
			return nil, err
		case <-tick.C:
			for _, l := range a.Live() {
				if l.Log.Key != "" {
					copyFrom(l.Log, 1<<20)
				}
			}
		}
	}
}
