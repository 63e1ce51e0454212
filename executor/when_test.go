package executor

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestWhenDecidesRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, cloudtest.NewStore(), `{name: p, functions: {a: {command: [x], map: {range: 2}, retries: {max: 3, when: 'exit_code != 2 && stderr contains "soon"'}}}}`)
		g.create()
		starts := [2]int{}
		var mu sync.Mutex
		g.run = func(_ context.Context, _ *Coordinator, _ string, _ cloud.Range, i int) task.Outcome {
			mu.Lock()
			starts[i]++
			mu.Unlock()
			return task.Outcome{Status: task.Failed, Cause: task.CauseExit, Exit: 1 + i, Stderr: []byte("try again soon")}
		}
		r, err := g.coordinate(context.Background())
		if err != nil || r.Status != RunFailed || starts != [2]int{4, 1} {
			t.Errorf("starts %v, %s, %v", starts, summaryOf(r), err)
		}
	})
}

// retries.when sees the item and the index of the attempt that failed, and env.
func TestWhenKnowsTheTask(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, cloudtest.NewStore(), `{name: p, env: {LEVEL: "2", RUN: "${{ run.id }}"}, functions: {
			a: {command: [x], map: {items: [{k: 0}, {k: 1}, {k: 2}, {k: 3}]}, max_failures: 4, retries: {max: 1, when: 'item.k == 1 || string(index) == env.LEVEL'}},
			b: {command: [x], map: {range: 3}},
			c: {command: [x], map: {from: b}, retries: {max: 1, when: 'item == "b/1" && env.RUN == "r1"'}}}}`)
		g.create()
		starts := map[string][]int{"a": make([]int, 4), "b": make([]int, 3), "c": make([]int, 3)}
		var mu sync.Mutex
		g.run = func(_ context.Context, _ *Coordinator, fn string, _ cloud.Range, i int) task.Outcome {
			mu.Lock()
			starts[fn][i]++
			mu.Unlock()
			if fn == "b" {
				return task.Outcome{Status: task.Succeeded, Result: fmt.Appendf(nil, `"b/%d"`, i)}
			}
			return task.Outcome{Status: task.Failed, Cause: task.CauseExit, Exit: 1}
		}
		r, err := g.coordinate(context.Background())
		want := map[string][]int{"a": {1, 2, 2, 1}, "b": {1, 1, 1}, "c": {1, 2, 1}}
		if err != nil || r.Status != RunFailed || fmt.Sprint(starts) != fmt.Sprint(want) {
			t.Errorf("starts %v, want %v; %s, %v", starts, want, summaryOf(r), err)
		}
	})
}
