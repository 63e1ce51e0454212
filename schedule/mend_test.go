package schedule

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

// What cannot be read does not stop a schedule, hides no other tick, and makes
// no run happen twice.
func TestWhatCannotBeReadIsMended(t *testing.T) {
	t.Parallel()
	s := nightly(t, "UTC", Policy{Overlap: "skip", Catchup: "latest"})
	first := time.Date(2026, 5, 1, 2, 30, 0, 0, time.UTC)
	second := first.AddDate(0, 0, 1)
	for _, key := range []string{RecordKey(s, first), RecordKey(s, second), liveKey(s, "run-"+RunKey(s, first)), base(s) + "live/gone.json", base(s) + "since.json", base(s) + "cursor.json"} {
		for _, text := range []string{"", "{", "null"} {
			t.Run(strings.ReplaceAll(key, "/", " ")+text, func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				r := newRuns(first.Add(-time.Hour), 3*time.Hour)
				k := &Keeper{Store: cloudtest.NewStore(), Runner: r}
				round := func(at time.Time) {
					t.Helper()
					r.now = at
					if _, err := k.Round(ctx, s, at); err != nil {
						t.Fatal(err)
					}
				}
				round(first.Add(-time.Hour))
				round(first)
				if err := k.Store.Put(ctx, key, []byte(text)); err != nil {
					t.Fatal(err)
				}
				if _, err := k.Last(ctx, s); err != nil {
					t.Fatal(err)
				}
				if _, err := k.Recent(ctx, s, 10, nil); err != nil {
					t.Fatal(err)
				}
				round(first.Add(time.Hour))
				round(second)
				round(second.Add(5 * time.Hour))
				third := second.AddDate(0, 0, 1)
				round(third)
				for _, tick := range []time.Time{second, third} {
					if rec, err := k.Record(ctx, s, tick); err != nil || rec.State != Ran {
						t.Errorf("%s: %+v, %v", tick, rec, err)
					}
				}
				if len(r.byKey) != 3 || r.most > 1 {
					t.Errorf("%d runs, %d at a time", len(r.byKey), r.most)
				}
			})
		}
	}
}

// Who saw a schedule first had a clock that went wrong: it counts from now.
func TestFirstSeenInTheFuture(t *testing.T) {
	t.Parallel()
	s := nightly(t, "UTC", Policy{Overlap: "skip", Catchup: "latest"})
	now := time.Date(2026, 5, 1, 2, 0, 0, 0, time.UTC)
	r := newRuns(now, time.Minute)
	k := &Keeper{Store: cloudtest.NewStore(), Runner: r}
	for _, at := range []time.Time{now.AddDate(10, 0, 0), now, now.Add(time.Hour)} {
		if _, err := k.Round(t.Context(), s, at); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.byKey) != 1 {
		t.Errorf("%d runs of the night", len(r.byKey))
	}
}

// A keeper whose clock is far behind for a moment does not make a year of nights
// run that were over before the schedule was seen.
func TestClockThatWasBehind(t *testing.T) {
	t.Parallel()
	s := nightly(t, "UTC", Policy{Overlap: "all", Catchup: "all"})
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r := newRuns(now, time.Minute)
	k := &Keeper{Store: cloudtest.NewStore(), Runner: r}
	for _, at := range []time.Time{now, now.AddDate(-1, 0, 0), now.Add(time.Hour), now.Add(2 * time.Hour)} {
		if _, err := k.Round(t.Context(), s, at); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.byKey) != 0 {
		t.Errorf("%d runs of nights before it was first seen", len(r.byKey))
	}
	if _, err := k.Round(t.Context(), s, now.Add(15*time.Hour)); err != nil || len(r.byKey) != 1 {
		t.Errorf("%d runs of the next night, %v", len(r.byKey), err)
	}
}

// What became of a backfill that was killed is asked of its run.
func TestBackfillThatWasKilled(t *testing.T) {
	t.Parallel()
	s := nightly(t, "UTC", Policy{Overlap: "skip", Catchup: "latest"})
	now := time.Date(2026, 5, 5, 12, 0, 0, 0, time.UTC)
	r := newRuns(now, time.Minute)
	r.byKey["k"] = &started{LiveRun: LiveRun{Run: "run-k"}, ends: now.Add(-time.Hour)}
	k := &Keeper{Store: cloudtest.NewStore(), Runner: r}
	if err := k.Backfilled(t.Context(), s, now.Add(-9*time.Hour), "run-k", "", now); err != nil {
		t.Fatal(err)
	}
	if rec, err := k.Last(t.Context(), s); err != nil || rec == nil || rec.Status != "succeeded" {
		t.Errorf("%+v, %v", rec, err)
	}
}

// After a backfill the ticks look as if the nights had gone well.
func TestBackfilled(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := nightly(t, "UTC", Policy{Overlap: "skip", Catchup: "latest"})
	now := time.Date(2026, 5, 5, 12, 0, 0, 0, time.UTC)
	night := func(d int) time.Time { return time.Date(2026, 5, d, 2, 30, 0, 0, time.UTC) }
	for _, c := range []struct {
		name string
		had  *Record
		want Record
	}{
		{"nothing was recorded", nil, Record{State: Ran, Run: "r", Why: "backfill", Status: "succeeded", Late: 120600}},
		{"it was missed", &Record{State: Missed, Why: "nobody was there"}, Record{State: Ran, Run: "r", Why: "backfill", Status: "succeeded", Late: 120600}},
		{"it had failed", &Record{State: Ran, Run: "r", Status: "failed", Late: 3}, Record{State: Ran, Run: "r", Status: "succeeded", Late: 3}},
		{"its run was removed", &Record{State: Ran, Run: "old", Status: "failed"}, Record{State: Ran, Run: "r", Why: "backfill", Status: "succeeded", Late: 120600}},
		{"somebody starts it", &Record{State: Starting}, Record{State: Starting}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := &Keeper{Store: cloudtest.NewStore(), Runner: newRuns(now, time.Minute)}
			tick := night(4)
			if c.had != nil {
				c.had.Tick = tick
				if err := k.put(ctx, RecordKey(s, tick), c.had); err != nil {
					t.Fatal(err)
				}
			}
			for _, status := range []string{"", "succeeded"} {
				if err := k.Backfilled(ctx, s, tick, "r", status, now); err != nil {
					t.Fatal(err)
				}
			}
			got, err := k.Record(ctx, s, tick)
			if err != nil {
				t.Fatal(err)
			}
			if g := (Record{State: got.State, Run: got.Run, Why: got.Why, Status: got.Status, Late: got.Late}); g != c.want || !got.Tick.Equal(tick) {
				t.Errorf("%+v, want %+v", g, c.want)
			}
		})
	}
	k := &Keeper{Store: cloudtest.Faulty(cloudtest.NewStore(), cloudtest.Fault{Times: -1, Err: &cloud.Error{Kind: cloud.KindTransient}}), Runner: newRuns(now, time.Minute)}
	if err := k.Backfilled(ctx, s, night(4), "r", "", now); err == nil {
		t.Error("no error without a store")
	}
}

// What was due in a pause is skipped, also where nobody looked until it ended;
// what is due after it runs.
func TestPauseThatNobodySaw(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := nightly(t, "UTC", Policy{Overlap: "skip", Catchup: "latest"})
	day := func(d, h int) time.Time { return time.Date(2026, 5, d, h, 0, 0, 0, time.UTC) }
	r := newRuns(day(1, 0), time.Minute)
	k := &Keeper{Store: cloudtest.NewStore(), Runner: r}
	round := func(at time.Time) []Record {
		t.Helper()
		r.now = at
		list, err := k.Round(ctx, s, at)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	round(day(1, 0))
	for range 3 * maxPauses { // earlier ones, of which not all are remembered
		do(k.Pause(ctx, "p", day(1, 1)))
		do(k.Resume(ctx, "p", day(1, 1)))
	}
	do(k.Pause(ctx, "p", day(1, 12)))
	do(k.Pause(ctx, "p", day(3, 12))) // again changes nothing
	do(k.Resume(ctx, "p", day(4, 12)))
	do(k.Resume(ctx, "p", day(9, 12)))
	states := map[int]string{}
	for _, rec := range round(day(4, 13)) {
		states[rec.Tick.Day()] = rec.State
	}
	if len(states) != 4 || states[1] != Ran || states[2] != Skipped || states[3] != Skipped || states[4] != Skipped {
		t.Errorf("%v", states)
	}
	if list := round(day(5, 3)); len(list) != 1 || list[0].State != Ran {
		t.Errorf("after the pause: %+v", list)
	}
	do(k.Store.Put(ctx, pausesKey("p"), []byte("{")))
	if list := round(day(6, 3)); len(list) != 1 || list[0].State != Ran {
		t.Errorf("with pauses that cannot be read: %+v", list)
	}
}
