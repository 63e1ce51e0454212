package executor

import (
	"context"
	"slices"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// TaskCosts is what each task of a function has cost, by index, in dollars: for
// each of its attempts the share of the machine that it ran on. The costs of all
// tasks of all functions and Report.IdleUSD add up to Report.CostUSD. Nil where
// nothing was rented. only, if it is not negative, is the one task that matters.
func (v *View) TaskCosts(ctx context.Context, fn string, only int) (map[int]float64, error) {
	if !slices.ContainsFunc(v.state.fleet.machines, func(m task.Machine) bool { return m.Price > 0 }) {
		return nil, nil
	}
	rates := v.Rates()
	costs := map[int]float64{}
	// Which reports count is what the fold says.
	s := newState(v.Header.Run, Selected(v.pipeline, v.Header.Functions, v.Header.Only), v.Header.Only)
	s.counted = func(name string, oc *task.Outcome) {
		if c := oc.Seconds * rates[oc.Machine]; name == fn && c > 0 && (only < 0 || only == oc.Index) {
			costs[oc.Index] += c
		}
	}
	_, err := v.store.ReadJournal(ctx, journalKey(v.Header.Run), 0, folder{s}.record)
	return costs, err
}
