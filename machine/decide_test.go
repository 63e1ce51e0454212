package machine

import (
	"errors"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	boot := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		name string
		f    func(f *facts)
		want decision // without next and the end of why
	}{
		{"works", func(*facts) {}, decision{}},
		{"asked to end", func(f *facts) { f.ending = true }, decision{act: leave, why: "is shutting down", blameMachine: true}},
		{"no grant", func(f *facts) { f.control.Until = f.now }, decision{act: leave, why: "had no grant any more", blameMachine: true}},
		{"no grant while cut off", func(f *facts) { f.control.Until, f.heard = f.now, boot },
			decision{act: leave, why: "had no grant any more", blameMachine: true}},
		{"too old", func(f *facts) { f.launched = f.now.Add(-24 * time.Hour) },
			decision{act: leave, why: "had reached its max_life", blameMachine: true}},
		{"nearly too old", func(f *facts) { f.launched = f.now.Add(-24*time.Hour + 10*time.Minute) },
			decision{act: drain, why: "is near its max_life", hurry: true}},
		{"given up", func(f *facts) { f.control.Lost = []string{"i-1/1"} }, decision{act: cutOff, why: "was given up"}},
		{"an earlier session was given up", func(f *facts) { f.control.Lost = []string{"i-1/2", "i-11/1"} }, decision{}},
		{"unheard", func(f *facts) { f.heard = f.now.Add(-wire.CutOff) }, decision{act: cutOff, why: "could not reach the store"}},
		{"taken back", func(f *facts) { f.notice = f.now.Add(time.Minute) }, decision{act: leave, why: "was taken back", blameMachine: true}},
		{"trouble", func(f *facts) { f.trouble = errors.New("disk full") },
			decision{act: leave, why: "could not go on: disk full", blameMachine: true}},
		{"cancel", func(f *facts) { f.control.Stop = wire.StopCancel }, decision{act: leave, why: "left: the run was cancelled"}},
		{"finished", func(f *facts) { f.control.Stop = wire.StopFinished },
			decision{act: leave, why: "left: the run has ended", pool: true, blameMachine: true}},
		{"nothing more, with work", func(f *facts) { f.control.Kinds = nil }, decision{}},
		{"nothing more", func(f *facts) { f.control.Kinds, f.held = nil, 0 }, decision{act: drain, why: "left: there is nothing more", pool: true}},
		{"nothing more, while preparing", func(f *facts) { f.control.Kinds, f.held, f.preparing = nil, 0, true },
			decision{act: leave, why: "left: there is nothing for it", pool: true, blameMachine: true}},
		{"waits for work", func(f *facts) { f.held = 0 }, decision{}},
		{"waited for long", func(f *facts) { f.held, f.idleSince = 0, f.now.Add(-10*time.Minute) },
			decision{act: drain, why: "left: it had nothing to do"}},
		{"prepares for long", func(f *facts) { f.held, f.idleSince, f.preparing = 0, f.now.Add(-10*time.Minute), true }, decision{}},
	} {
		now := boot.Add(time.Hour)
		f := &facts{now: now, name: "i-1/1", launched: boot, held: 1, idleSince: now.Add(-time.Minute), heard: now.Add(-10 * time.Second),
			setup:   &wire.Setup{Kind: "k", IdleTimeout: 10 * time.Minute, MaxLife: 24 * time.Hour},
			control: &wire.Control{Until: now.Add(5 * time.Minute), Kinds: map[string]wire.KindControl{"k": {More: true}}}}
		c.f(f)
		got := decide(f)
		if len(got.why) > len(c.want.why) {
			got.why = got.why[:len(c.want.why)]
		}
		next := got.next
		if got.next = (time.Time{}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if got.act == goOn && (!next.After(now) || next.After(now.Add(wire.CutOff))) {
			t.Errorf("%s: decides again %v from now", c.name, next.Sub(now))
		}
	}
}

func TestBeatAt(t *testing.T) {
	t.Parallel()
	last := time.Unix(1000, 0)
	for _, c := range []struct {
		name string
		f    beatFacts
		want time.Duration // after last
	}{
		{"nothing new", beatFacts{}, 30 * time.Second},
		{"state", beatFacts{now: true}, 0},
		{"held", beatFacts{held: true}, time.Second},
		{"live", beatFacts{live: true}, 1500 * time.Millisecond},
		{"live, in a large fleet", beatFacts{live: true, pace: 10 * time.Second}, 20 * time.Second},
		{"live, in the largest: it must not seem dead", beatFacts{live: true, pace: 100 * time.Second}, wire.BeatEvery},
		{"held and live", beatFacts{held: true, live: true, pace: 20 * time.Second}, time.Second},
		{"after a failure", beatFacts{now: true, retry: last.Add(3 * time.Second)}, 3 * time.Second},
	} {
		c.f.last = last
		if got := beatAt(&c.f).Sub(last); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if at := beatAt(&beatFacts{}); !at.IsZero() {
		t.Errorf("the first one is due at %v", at)
	}
}

func TestSegmentAt(t *testing.T) {
	t.Parallel()
	last := time.Unix(1000, 0)
	for _, c := range []struct {
		name string
		f    segmentFacts
		want time.Duration
	}{
		{"work goes on", segmentFacts{pending: true}, time.Second},
		{"work goes on, in a large fleet", segmentFacts{pending: true, pace: 9 * time.Second}, 9 * time.Second},
		{"nothing left to do", segmentFacts{pending: true, done: true, pace: 9 * time.Second}, 0},
		{"after a failure", segmentFacts{pending: true, done: true, retry: last.Add(time.Second)}, time.Second},
	} {
		c.f.last = last
		if got := segmentAt(&c.f).Sub(last); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if at := segmentAt(&segmentFacts{last: last, done: true}); !at.IsZero() {
		t.Errorf("nothing is to be written at %v", at)
	}
}

// A range ends in the segment that has the last of its outcomes, or in a later one.
func TestCutSegment(t *testing.T) {
	t.Parallel()
	batch := func(fn string, n int) entry {
		return entry{batch: task.Batch{Function: fn, Outcomes: make([]task.Outcome, n)}}
	}
	end := func(id string) entry { return entry{end: &hold{d: cloud.Delivery{Range: cloud.Range{ID: id}}}} }
	list := []entry{batch("f", 3), batch("f", 2), end("a"), batch("g", 1), batch("f", segmentOutcomes), end("b"), batch("f", 1), end("c")}
	batches, ended, rest := cutSegment(list)
	if len(batches) != 3 || len(batches[0].Outcomes) != 5 || batches[1].Function != "g" || len(batches[2].Outcomes) != segmentOutcomes {
		t.Errorf("%d batches", len(batches))
	}
	if len(ended) != 2 || len(rest) != 2 {
		t.Errorf("%d ended, %d left", len(ended), len(rest))
	}
	batches, ended, rest = cutSegment(rest)
	if len(batches) != 1 || len(ended) != 1 || ended[0].d.ID != "c" || len(rest) != 0 {
		t.Errorf("%d batches, %d ended, %d left", len(batches), len(ended), len(rest))
	}
}
