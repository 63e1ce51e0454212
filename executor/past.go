package executor

import (
	"context"
	"math"

	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Past gives an agent what a coordinator would, from the journal of a run
// that nobody works on here: to run one of its tasks again beside it.
type Past struct{ c *Coordinator }

// NewPast makes the functions for agents from a View. scratch is a folder on
// a local disk for the files of _NEEDS.
func NewPast(v *View, scratch string) *Past {
	return &Past{&Coordinator{
		cfg:   Config{Store: v.store, Header: v.Header, Pipeline: v.pipeline, Scratch: scratch},
		rd:    v.rd,
		state: v.state,
		first: math.MaxInt64, // it has seen none of it
	}}
}

// Count is the number of tasks of a function.
func (p *Past) Count(fn string) int { return p.c.Count(fn) }

// Needs is Coordinator.Needs.
func (p *Past) Needs(ctx context.Context, fn string) (map[string]*spec.NeedsInfo, string, error) {
	return p.c.Needs(ctx, fn)
}

// Upstream is Coordinator.Upstream.
func (p *Past) Upstream(ctx context.Context, fn string, index int) ([]byte, error) {
	return p.c.Upstream(ctx, fn, index)
}

// NeedsID is Coordinator.NeedsID.
func (p *Past) NeedsID(ctx context.Context, fn string, index int) (task.ID, error) {
	return p.c.NeedsID(ctx, fn, index)
}

// Outputs is Coordinator.Outputs.
func (p *Past) Outputs(ctx context.Context, fn string, index int) ([]task.Output, error) {
	return p.c.Outputs(ctx, fn, index)
}

// Items is Coordinator.Items.
func (p *Past) Items(ctx context.Context, fn string) (planner.Items, error) {
	return p.c.Items(ctx, fn)
}
