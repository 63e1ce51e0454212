package engine

import (
	"context"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// pastTimes is how long the tasks of a function took in an earlier run.
type pastTimes struct {
	run           string
	tasks         int
	mean, slowest float64
}

// pastRuns is how many earlier runs are looked into.
const pastRuns = 5

// past finds how long the tasks of functions took: in the newest run of the
// pipeline in which there were some. What cannot be read is as if it had never
// been: an estimate does without.
func (e *Engine) past(ctx context.Context, p *spec.Pipeline) map[string]pastTimes {
	found := map[string]pastTimes{}
	for _, r := range e.earlier(ctx, p.Name) {
		if len(found) == len(p.Functions) || ctx.Err() != nil {
			break
		}
		v, err := executor.OpenView(ctx, r.store, r.run)
		if err != nil || v.Header.Pipeline != p.Name {
			continue
		}
		there := v.Functions()
		for _, f := range p.Functions {
			if _, ok := found[f.Name]; ok || !slices.Contains(there, f.Name) {
				continue
			}
			t := pastTimes{run: r.run}
			sum := 0.0
			for x := range v.Tasks(f.Name) {
				if x.Status != task.Succeeded || x.Cached {
					continue
				}
				t.tasks++
				sum += x.Seconds
				t.slowest = max(t.slowest, x.Seconds)
			}
			if t.tasks > 0 {
				t.mean = sum / float64(t.tasks)
				found[f.Name] = t
			}
		}
	}
	return found
}

// pastPatience is how long a run waits to learn how long tasks took before.
const pastPatience = 500 * time.Millisecond

// askPast begins to look into earlier runs. The func that it returns gives the
// seconds of a task, by function: none if it is not known soon.
func (e *Engine) askPast(ctx context.Context, p *spec.Pipeline) func() map[string]float64 {
	ctx, stop := context.WithTimeout(ctx, pastPatience)
	came := make(chan map[string]float64, 1)
	go func() {
		by := map[string]float64{}
		for name, t := range e.past(ctx, p) {
			by[name] = t.mean
		}
		came <- by
	}()
	return func() map[string]float64 {
		defer stop()
		select {
		case by := <-came:
			return by
		case <-ctx.Done():
			return nil
		}
	}
}

type earlierRun struct {
	run   string
	store cloud.Store
}

// earlier is the newest runs of a pipeline: the caller's own, else those in
// the store.
func (e *Engine) earlier(ctx context.Context, pipeline string) []earlierRun {
	var runs []earlierRun
	if e.StateDir != "" {
		own, err := e.own()
		if err != nil {
			own = nil
		}
		for _, p := range own {
			if p.Pipeline != pipeline || len(runs) == pastRuns {
				continue
			}
			if store, err := e.storeOf(p); err == nil {
				runs = append(runs, earlierRun{p.Run, store})
			}
		}
	}
	if len(runs) > 0 || e.Store == nil {
		return runs
	}
	ids, err := e.stored(ctx)
	if err != nil {
		return nil
	}
	sort.Sort(sort.Reverse(sort.StringSlice(ids)))
	for _, id := range ids {
		if strings.HasPrefix(id, pipeline+"-") && len(runs) < pastRuns {
			runs = append(runs, earlierRun{id, e.Store})
		}
	}
	return runs
}
