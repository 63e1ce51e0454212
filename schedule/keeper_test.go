package schedule

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

// runs is a Runner whose runs last a while of a clock that the test moves.
type runs struct {
	mu     sync.Mutex
	now    time.Time
	lasts  time.Duration
	byKey  map[string]*started
	starts int // calls of Start, with those that joined
	broken bool
	most   int // runs alive at a time
}

type started struct {
	LiveRun
	ends time.Time
}

func newRuns(now time.Time, lasts time.Duration) *runs {
	return &runs{now: now, lasts: lasts, byKey: map[string]*started{}}
}

func (r *runs) Start(_ context.Context, _ Schedule, key string, tick time.Time) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts++
	if r.broken {
		return "", fmt.Errorf("pipeline.yaml:3:1: %w", ErrBroken)
	}
	if s := r.byKey[key]; s != nil {
		return s.Run, nil
	}
	r.byKey[key] = &started{LiveRun{Run: "run-" + key, Tick: tick, Started: r.now}, r.now.Add(r.lasts)}
	alive := 0
	for _, s := range r.byKey {
		if s.ends.After(r.now) {
			alive++
		}
	}
	r.most = max(r.most, alive)
	return "run-" + key, nil
}

func (r *runs) Status(_ context.Context, run string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.byKey[strings.TrimPrefix(run, "run-")]
	switch {
	case s == nil:
		return "", &cloud.Error{Op: "find", Resource: run, Kind: cloud.KindNotFound}
	case s.ends.After(r.now):
		return "running", nil
	}
	return "succeeded", nil
}

func (r *runs) Cancel(_ context.Context, run string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.byKey {
		if s.Run == run {
			s.ends = r.now
		}
	}
	return nil
}

func nightly(t *testing.T, zone string, p Policy) Schedule {
	t.Helper()
	times, err := ParseTimes("30 2 * * *", zone)
	if err != nil {
		t.Fatal(err)
	}
	return Schedule{Pipeline: "p", ID: "id", Cron: "30 2 * * *", Zone: zone, Times: times, Policy: p}
}

// TestRace lets several servers look after a schedule for ten years in eight
// time zones. They race, die between any two accesses to the store, and stay
// away for days. Every tick has one outcome, and those that ran, ran once.
func TestRace(t *testing.T) {
	t.Parallel()
	policies := []Policy{
		{Overlap: "skip", Catchup: "latest"}, {Overlap: "skip", Catchup: "all"}, {Overlap: "queue", Catchup: "none"},
		{Overlap: "allow", Catchup: "all"}, {Overlap: "replace", Catchup: "latest", Deadline: 30 * time.Hour},
	}
	for i, zone := range zones {
		policy := policies[i%len(policies)]
		t.Run(zone+" "+policy.Overlap+" "+policy.Catchup, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			s := nightly(t, zone, policy)
			begin := time.Date(2021, 1, 1, 12, 0, 0, 0, time.UTC)
			end := begin.AddDate(10, 0, 0)
			r := newRuns(begin, 3*time.Hour)
			store := cloudtest.NewStore()
			round := func(servers int) {
				var wg sync.WaitGroup
				for n := range servers {
					mine := store.Process()
					faulty := cloudtest.Faulty(mine)
					if rng.IntN(3) == 0 {
						faulty = cloudtest.Faulty(mine, cloudtest.Fault{Nth: 1 + rng.IntN(8), After: rng.IntN(2) == 0, Times: -1})
					}
					k := &Keeper{Store: faulty, Runner: r, By: fmt.Sprint(n)}
					now := r.now.Add(time.Duration(rng.IntN(5)) * time.Second) // clocks differ
					wg.Go(func() { _, _ = k.Round(context.Background(), s, now) })
				}
				wg.Wait()
			}
			for now := begin; now.Before(end); {
				r.mu.Lock()
				r.now = now
				r.mu.Unlock()
				round(2 + rng.IntN(4))
				step := time.Duration(1+rng.IntN(12)) * time.Hour
				if rng.IntN(60) == 0 {
					step = time.Duration(rng.IntN(120)) * time.Hour
				}
				now = now.Add(step)
			}
			k := &Keeper{Store: store, Runner: r, By: "last"}
			for range 50 { // let all be caught up
				r.now = r.now.Add(3*time.Hour + takeOver)
				if _, err := k.Round(context.Background(), s, r.now); err != nil {
					t.Fatal(err)
				}
			}
			check(t, k, s, begin, end, r)
			if policy.Overlap != "allow" && r.most > 1 {
				t.Errorf("%d runs at a time", r.most)
			}
		})
	}
}

func check(t *testing.T, k *Keeper, s Schedule, begin, end time.Time, r *runs) {
	t.Helper()
	records, err := k.Records(context.Background(), s, begin)
	if err != nil {
		t.Fatal(err)
	}
	by := map[int64]Record{}
	count := map[string]int{}
	for _, rec := range records {
		by[rec.Tick.Unix()] = rec
		count[rec.State]++
	}
	ran, ended := 0, 0
	for at := s.Times.Next(begin); at.Before(end); at = s.Times.Next(at) {
		rec, ok := by[at.Unix()]
		_, has := r.byKey[RunKey(s, at)]
		switch {
		case !ok:
			t.Fatalf("%s has no outcome", at)
		case rec.State == Starting:
			t.Fatalf("%s is still to start", at)
		case (rec.State == Ran) != has:
			t.Fatalf("%s: %s, and there is a run: %v", at, rec.State, has)
		case rec.State == Ran && rec.Run != "run-"+RunKey(s, at):
			t.Fatalf("%s: %+v", at, rec)
		case rec.State != Ran && rec.Why == "":
			t.Fatalf("%s: %s without a reason", at, rec.State)
		}
		if has {
			ran++
		}
		if rec.Status == "succeeded" {
			ended++
		}
	}
	if ended < ran*99/100 {
		t.Errorf("%d ran, of %d it is known how they ended", ran, ended)
	}
	if ran < 2000 && s.Policy.Catchup != "none" || ran == 0 {
		t.Errorf("of 3652 ticks %d ran: %v", ran, count)
	}
}

func TestStoreIsAway(t *testing.T) {
	t.Parallel()
	s := nightly(t, "UTC", Policy{Overlap: "skip", Catchup: "latest"})
	now := time.Date(2026, 5, 1, 2, 0, 0, 0, time.UTC)
	r := newRuns(now, time.Minute)
	store := cloudtest.NewStore()
	ctx := context.Background()
	if _, err := (&Keeper{Store: store, Runner: r}).Round(ctx, s, now); err != nil {
		t.Fatal(err)
	}
	away := &Keeper{Store: cloudtest.Faulty(store, cloudtest.Fault{Times: -1, Err: errors.New("away")}), Runner: r}
	for range 4 {
		now = now.Add(15 * time.Minute)
		if _, err := away.Round(ctx, s, now); err == nil {
			t.Fatal("no error without a store")
		}
	}
	if len(r.byKey) != 0 {
		t.Fatal("a run whose tick nobody recorded")
	}
	settled, err := (&Keeper{Store: store, Runner: r}).Round(ctx, s, now)
	if err != nil || len(settled) != 1 || settled[0].State != Ran || settled[0].Late != (30*time.Minute).Seconds() {
		t.Fatalf("%+v, %v", settled, err)
	}
}

func TestPauseAndBroken(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := nightly(t, "UTC", Policy{Overlap: "skip", Catchup: "latest"})
	now := time.Date(2026, 5, 1, 2, 0, 0, 0, time.UTC)
	r := newRuns(now, time.Minute)
	told := 0
	k := &Keeper{Store: cloudtest.NewStore(), Runner: r, Missed: func(context.Context, Schedule, Record) { told++ }}
	round := func(at time.Time) []Record {
		t.Helper()
		list, err := k.Round(ctx, s, at)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	round(now)
	if err := k.Pause(ctx, "p", now); err != nil {
		t.Fatal(err)
	}
	if list := round(now.Add(time.Hour)); len(list) != 1 || list[0].State != Skipped || list[0].Why != "paused" {
		t.Fatalf("%+v", list)
	}
	if err := k.Resume(ctx, "p", now.Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.broken = true
	if list := round(now.Add(25 * time.Hour)); len(list) != 1 || list[0].State != Missed || !strings.Contains(list[0].Why, "pipeline.yaml:3:1") {
		t.Fatalf("%+v", list)
	}
	if told != 1 {
		t.Errorf("one missed tick was told of %d times", told)
	}
	r.broken = false
	if list := round(now.Add(49 * time.Hour)); len(list) != 1 || list[0].State != Ran {
		t.Fatalf("%+v", list)
	}
	if _, err := k.Record(ctx, s, now); cloud.KindOf(err) != cloud.KindNotFound {
		t.Fatalf("a record of what never was: %v", err)
	}
}
