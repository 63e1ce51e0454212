package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

// Who stops waiting for a coordinator that has not begun leaves no machine: it
// would begin, and rent others, with nobody knowing.
func TestCoordinatorIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped by a signal")
	c.region.Started = func(i cloudtest.Instance) { // it never gets that far
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lives[i.ID] = func(error) {}
		time.AfterFunc(50*time.Millisecond, func() { cancel(stopped) })
	}
	e := c.engine()
	o := ApplyOptions{File: write(t, "pipeline.yaml", "name: t\ncloud: aws\nfunctions: {f: {run: \"true\"}}\n"), Detach: true}
	p, err := e.Plan(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = e.Apply(ctx, p, o); !errors.Is(err, stopped) {
		t.Errorf("apply: %v", err)
	}
	if live := c.region.Live(); len(live) > 0 || c.region.Count("launch") != 1 {
		t.Errorf("left: %v, %d launches", live, c.region.Count("launch"))
	}
}
