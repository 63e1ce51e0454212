package executor

import (
	"context"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// CancelDead ends a run that has no live coordinator: it takes the journal,
// records the cancel and the end. KindConflict if a coordinator is alive
// after all. v is brought up to date.
func CancelDead(ctx context.Context, store cloud.Store, v *View, reason string, now func() time.Time) (Report, error) {
	run := v.Header.Run
	j, err := store.OpenJournal(ctx, journalKey(run))
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = j.Close() }() // every append was acknowledged
	if err := v.Refresh(ctx); err != nil {
		return Report{}, err
	}
	if v.state.status.Final() {
		return v.Report(ctx)
	}
	add := func(e *event) error {
		e.At = now().UnixNano()
		rec, err := e.encode(nil)
		if err != nil {
			return err
		}
		_, err = j.Append(rec)
		return err
	}
	events := []*event{{Kind: evCoordinator, Epoch: v.state.epoch + 1}}
	if !v.state.begun {
		b := &event{Kind: evBegin}
		for _, f := range v.state.order {
			n, ok := v.Header.Planned[f.spec.Name]
			if !ok {
				n = -1
			}
			b.Functions = append(b.Functions, beginFunction{f.spec.Name, n})
		}
		events = append(events, b)
	}
	events = append(events, &event{Kind: evCancel, Reason: reason}, &event{Kind: evFinish, Status: RunCancelled})
	for _, e := range events {
		if err := add(e); err != nil {
			return Report{}, err
		}
	}
	if err := v.Refresh(ctx); err != nil {
		return Report{}, err
	}
	r, err := v.Report(ctx)
	if err != nil {
		return r, err
	}
	return r, writeSummary(ctx, store, v.Header, r)
}
