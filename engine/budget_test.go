package engine

import (
	"testing"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

func TestCostLimit(t *testing.T) {
	t.Parallel()
	d := func(v float64) *float64 { return &v }
	for name, c := range map[string]struct {
		limits  spec.Limits
		maxCost *float64
		want    float64
	}{
		"nothing is said":         {want: 20},
		"the file":                {limits: spec.Limits{HasCost: true, Cost: 5}, want: 5},
		"the file says none":      {limits: spec.Limits{NoCost: true}, want: 0},
		"the flag":                {limits: spec.Limits{HasCost: true, Cost: 5}, maxCost: d(7), want: 7},
		"the flag, over none":     {limits: spec.Limits{NoCost: true}, maxCost: d(7), want: 7},
		"the flag says none":      {limits: spec.Limits{HasCost: true, Cost: 5}, maxCost: d(NoLimit), want: 0},
		"nothing may be spent":    {limits: spec.Limits{HasCost: true}, want: 1e-9},
		"the flag allows nothing": {maxCost: d(0), want: 1e-9},
	} {
		if got := costLimit(&spec.Pipeline{Limits: c.limits}, c.maxCost); got != c.want {
			t.Errorf("%s: $%g, want $%g", name, got, c.want)
		}
	}
}

// A limit that resume gave holds for a later retry that gives none.
func TestLimitOfResumeIsKept(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine()
	dir := t.TempDir()
	file := write(t, "pipeline.yaml", "name: p\ncloud: aws\nfunctions:\n  f:\n    run: test -e "+dir+"/go\n    hardware: {vm_type: m6i.large, keepalive: 0s}\n")
	least, more := 0.001, 5.0 // of machines that cost $0.36 an hour
	h := apply(t, e, ApplyOptions{File: file, MaxCost: &least})
	if r := ended(t, h, executor.RunStopped); r.CostUSD > 0 || c.region.Count("launch") > 0 {
		t.Errorf("$%f were spent by %d machines", r.CostUSD, c.region.Count("launch"))
	}
	limit := func(want float64) {
		t.Helper()
		rec, err := loadFleet(t.Context(), c.store, h.Run)
		if err != nil || rec.MaxCost == nil || *rec.MaxCost != want {
			t.Errorf("the limit is %v, %v, want $%g", rec.MaxCost, err, want)
		}
	}
	h, err := e.Resume(t.Context(), h.Run, ContinueOptions{MaxCost: &more})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, h, executor.RunFailed)
	limit(5)
	touch(t, dir+"/go")
	if h, err = e.Retry(t.Context(), h.Run, ContinueOptions{}); err != nil {
		t.Fatal(err)
	}
	ended(t, h, executor.RunSucceeded)
	limit(5)
}
