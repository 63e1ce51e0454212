package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// live is the runs of a schedule that go on. Those that have ended are noted
// in the records of their ticks; those that were left alone are gone on with.
func (k *Keeper) live(ctx context.Context, s Schedule, now time.Time) ([]LiveRun, error) {
	var keys []string
	if err := k.Store.List(ctx, base(s)+"live/", func(o cloud.ObjectInfo) bool { keys = append(keys, o.Key); return true }); err != nil {
		return nil, err
	}
	var list []LiveRun
	for _, key := range keys {
		b, err := k.Store.Get(ctx, key)
		if cloud.KindOf(err) == cloud.KindNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		var r liveRun
		if json.Unmarshal(b, &r) != nil || r.Run == "" {
			// Its name says which run it is; that is what counts.
			r = liveRun{LiveRun: LiveRun{Run: strings.TrimSuffix(strings.TrimPrefix(key, base(s)+"live/"), ".json")}, Resumed: maxResumed}
		}
		status, err := k.Runner.Status(ctx, r.Run)
		switch {
		case cloud.KindOf(err) == cloud.KindNotFound:
			status = "removed"
		case err != nil:
			return nil, err
		case status == "interrupted" && r.Resumed < maxResumed:
			r.Resumed++
			if err := k.put(ctx, key, r); err != nil {
				return nil, err
			}
			if _, err := k.Runner.Start(ctx, s, RunKey(s, r.Tick), r.Tick); err != nil && !errors.Is(err, ErrBroken) {
				return nil, err
			}
			status = "running"
		}
		if status == "running" || status == "pending" {
			list = append(list, r.LiveRun)
			continue
		}
		rec, err := k.Record(ctx, s, r.Tick)
		switch {
		case err != nil && !nothing(err):
			return nil, err
		case err == nil:
			if rec.State == Starting {
				list = append(list, r.LiveRun) // its tick is not settled yet
				continue
			}
			rec.Status = status
			if err := k.put(ctx, RecordKey(s, r.Tick), rec); err != nil {
				return nil, err
			}
		}
		if err := k.Store.Delete(ctx, key); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b LiveRun) int { return a.Tick.Compare(b.Tick) })
	return list, nil
}

// Backfilled records that the run of a tick was started by hand, for a past
// time; status is what it ended with, "" while it goes on. So the tick is shown
// as if its schedule had run it.
func (k *Keeper) Backfilled(ctx context.Context, s Schedule, tick time.Time, run, status string, now time.Time) error {
	rec, err := k.Record(ctx, s, tick)
	switch {
	case err != nil && !nothing(err):
		return err
	case err == nil && rec.State == Starting:
		return nil // whose keeper finds the same run, and records it
	case err == nil && rec.State == Ran && rec.Run == run:
		// Its schedule ran it; now it was retried, or gone on with.
	default:
		one := k.record(s, tick, now)
		rec = &one
		rec.State, rec.Run, rec.Why, rec.Late = Ran, run, "backfill", now.Sub(tick).Seconds()
	}
	rec.Status = status
	return k.put(ctx, RecordKey(s, tick), rec)
}

// pause is a time in which the schedules of a pipeline rested; To is zero while
// they do.
type pause struct {
	By   string    `json:"by"`
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

func (p pause) holds(t time.Time) bool { return t.After(p.From) && !t.After(p.To) }

// maxPauses is how many pauses are remembered that have ended.
const maxPauses = 20

func pausesKey(pipeline string) string { return "schedules/" + pipeline + "/pauses.json" }

// Pause stops the schedules of a pipeline; its ticks are skipped.
func (k *Keeper) Pause(ctx context.Context, pipeline string, now time.Time) error {
	if paused, err := k.Paused(ctx, pipeline); paused || err != nil {
		return err // since it was asked for first
	}
	return k.put(ctx, pausedKey(pipeline), pause{By: k.By, From: now.UTC()})
}

// Resume ends a pause. That there was one is remembered: what was due in it is
// skipped also where nobody looked at the time.
func (k *Keeper) Resume(ctx context.Context, pipeline string, now time.Time) error {
	b, err := k.Store.Get(ctx, pausedKey(pipeline))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	var p pause
	if json.Unmarshal(b, &p) == nil && !p.From.IsZero() {
		list, err := k.pauses(ctx, pipeline)
		if err != nil {
			return err
		}
		p.To = now.UTC()
		list = append(list, p)
		if err := k.put(ctx, pausesKey(pipeline), list[max(0, len(list)-maxPauses):]); err != nil {
			return err
		}
	}
	return k.Store.Delete(ctx, pausedKey(pipeline))
}

// pauses is the last pauses that have ended.
func (k *Keeper) pauses(ctx context.Context, pipeline string) (list []pause, err error) {
	b, err := k.Store.Get(ctx, pausesKey(pipeline))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, nil
	}
	if err == nil && json.Unmarshal(b, &list) != nil {
		list = nil // they are forgotten; the next one is not
	}
	return list, err
}

// Paused says whether the schedules of a pipeline were paused by Pause.
func (k *Keeper) Paused(ctx context.Context, pipeline string) (bool, error) {
	_, err := k.Store.Get(ctx, pausedKey(pipeline))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return false, nil
	}
	return err == nil, err
}

// Known says whether anybody ever looked after schedules of a pipeline.
func (k *Keeper) Known(ctx context.Context, pipeline string) (known bool, err error) {
	if pipeline == "" || pipeline[0] == '/' {
		return false, nil
	}
	err = k.Store.List(ctx, "schedules/"+pipeline+"/", func(cloud.ObjectInfo) bool { known = true; return false })
	if cloud.KindOf(err) == cloud.KindInvalid {
		return false, nil // no name of a pipeline
	}
	return known, err
}
