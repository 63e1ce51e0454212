package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// remoteRig is a coordinator with one machine that reports each range in a
// segment of its own.
type remoteRig struct {
	*rig
	coord   *Coordinator
	begins  func() // before the loop
	close   func()
	stopped bool // StopWork was called
	sendErr error
}

func newRemoteRig(t testing.TB, yaml string) *remoteRig {
	g := &remoteRig{rig: newRig(t, cloudtest.NewStore(), yaml), begins: func() {}, close: func() {}}
	g.header.Cloud = "aws"
	g.create()
	return g
}

// sendQueue refuses ranges if the test says so.
type sendQueue struct {
	cloud.Queue
	g *remoteRig
}

func (q sendQueue) Send(ctx context.Context, rs ...cloud.Range) error {
	if q.g.sendErr != nil {
		return q.g.sendErr
	}
	return q.Queue.Send(ctx, rs...)
}

func (g *remoteRig) coordinate(ctx context.Context) (r Report, err error) {
	g.t.Helper()
	q := local.NewQueue()
	work, stop := context.WithCancel(context.Background())
	defer stop()
	g.coord, err = NewCoordinator(ctx, Config{Store: g.store, Queue: sendQueue{q, g}, Header: g.header, Pipeline: bind(g.t, g.yaml),
		Begin: g.begin, Scratch: g.t.TempDir(), StopWork: func() { g.stopped = true; stop() },
		Remote: &RemoteConfig{Capacity: func(string) int { return 1 }, Close: func(context.Context, RunStatus) { g.close() }}})
	if err != nil {
		return Report{}, err
	}
	if g.coord.Epoch() != 0 {
		g.t.Errorf("epoch %d before it is recorded", g.coord.Epoch())
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			d, err := q.Receive(work)
			if err != nil {
				return
			}
			b := task.Batch{Function: d.Function}
			for i := d.From; i < d.To; i++ {
				o := g.run(work, g.coord, d.Function, d.Range, i)
				o.Index, o.Attempt, o.Machine = i, d.Attempt, "i-1"
				b.Outcomes = append(b.Outcomes, o)
			}
			g.coord.ReportSegment("i-1", g.coord.Epoch(), n, []task.Batch{b}, []string{d.ID})
		}
	})
	wg.Go(func() { g.begins() })
	r, err = g.coord.Run(ctx)
	stop()
	wg.Wait()
	return r, err
}

func get(t *testing.T, store cloud.Store, key string, v any) {
	t.Helper()
	b, err := store.Get(context.Background(), key)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Error(err)
	}
}

func seen(t *testing.T, store cloud.Store) Report {
	t.Helper()
	v, err := OpenView(context.Background(), store, "r1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.Report(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What tasks must know lies ready when they start, and what machines cost is
// recorded until the last has gone, after the run has ended; readers see it.
func TestRunOnMachines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRemoteRig(t, `
name: p
functions:
  a: {command: [x], map: {range: 3}, outputs: ["${{ index }}.csv"], max_failures: 1}
  b: {command: [x], needs: a}
`)
		handed := map[string]bool{}
		g.run = func(ctx context.Context, c *Coordinator, fn string, r cloud.Range, i int) task.Outcome {
			// Who reports a segment is held up until it is recorded.
			if n := c.Folded()[SegmentsKey("i-1", c.Epoch())]; !handed[r.ID] && n != len(handed) {
				t.Errorf("%d segments are recorded of %d", n, len(handed))
			}
			handed[r.ID] = true
			time.Sleep(time.Minute)
			if fn == "a" && i == 1 {
				return task.Outcome{Status: task.Failed, Cause: task.CauseExit, Seconds: 60}
			}
			if fn == "a" {
				return task.Outcome{Status: task.Succeeded, Seconds: 60, Result: fmt.Appendf(nil, "%d", i), ID: task.ID{byte(i)},
					Outputs: []task.Output{{Path: fmt.Sprintf("%d.csv", i), Key: "k"}}}
			}
			var s wire.Start
			get(t, g.store, wire.StartKey("r1", "b", 1), &s)
			n := s.Needs["a"]
			if s.Count != 1 || n.Count != 3 || n.Failed != 1 || n.Status != "succeeded" || !n.Mapped || fmt.Sprint(n.Without) != "[[1 2]]" {
				t.Errorf("b starts with %+v", s)
			}
			if id, err := g.coord.NeedsID(ctx, "a", -1); err != nil || n.ID != id || id == (task.ID{}) {
				t.Errorf("identity of a: %v, %v, %v", n.ID, id, err)
			}
			if res, err := g.store.Get(ctx, n.Results); string(res) != "0\nnull\n2\n" {
				t.Errorf("results of a: %q, %v", res, err)
			}
			if outs, err := g.store.Get(ctx, n.Outputs); strings.Count(string(outs), "\n") != 2 || !strings.Contains(string(outs), `"2.csv"`) {
				t.Errorf("outputs of a: %q, %v", outs, err)
			}
			d := g.coord.Demand()
			if d[0].Left != 0 || !d[0].Done || d[0].Mean != 60 || d[1].Done || !d[1].Running || d[1].InHand != 1 || d[1].Ready != 0 || d[1].Mean >= 0 {
				t.Errorf("demand: %+v", d)
			}
			return task.Outcome{Status: task.Succeeded, Seconds: 60}
		}
		m := task.Machine{ID: "i-1", Kind: "k", Price: 36, Joined: time.Now()}
		g.begins = func() { g.coord.MachineChanged(m) }
		g.close = func() {
			if r := seen(t, g.store); r.Status != RunSucceeded {
				t.Errorf("the machines end while the run is %s", r.Status)
			}
			time.Sleep(time.Minute)
			m.Ended = time.Now()
			g.coord.MachineChanged(m)
		}
		r, err := g.coordinate(context.Background())
		if err != nil || r.Status != RunSucceeded || r.Machines != 1 {
			t.Fatalf("%s on %d machines, %v", summaryOf(r), r.Machines, err)
		}
		a, b := r.Functions[0].CostUSD, r.Functions[1].CostUSD
		if math.Abs(r.CostUSD-3) > 0.05 || math.Abs(a-1.8) > 1e-6 || math.Abs(b-0.6) > 1e-6 || math.Abs(a+b+r.IdleUSD-r.CostUSD) > 1e-9 {
			t.Errorf("cost %g, a %g, b %g, idle %g", r.CostUSD, a, b, r.IdleUSD)
		}
		if s := seen(t, g.store); s.CostUSD != r.CostUSD || s.Machines != 1 {
			t.Errorf("a reader sees %g dollars on %d machines, not %g", s.CostUSD, s.Machines, r.CostUSD)
		}
		var s summary
		get(t, g.store, SummaryKey("r1"), &s)
		if s.CostUSD != r.CostUSD || s.Machines != 1 {
			t.Errorf("summary: %+v", s)
		}
	})
}

// A machine that does not end its task when the run is stopped holds up
// nothing; what it says later counts no more.
func TestLimitOnDeafMachines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRemoteRig(t, `{name: p, functions: {a: {command: [x], map: {range: 3}}}}`)
		var asked time.Time
		g.run = func(context.Context, *Coordinator, string, cloud.Range, int) task.Outcome {
			time.Sleep(10 * time.Second)
			asked = time.Now()
			g.coord.Limit("limits.cost of 1 dollar reached")
			time.Sleep(time.Minute)
			return task.Outcome{Status: task.Succeeded}
		}
		var took time.Duration
		g.close = func() { took = time.Since(asked) }
		r, err := g.coordinate(context.Background())
		if err != nil || summaryOf(r) != "stopped; a cancelled 0/0/0/3" || r.Reason != "limits.cost of 1 dollar reached" {
			t.Fatalf("%s %q, %v", summaryOf(r), r.Reason, err)
		}
		if !g.stopped || took != stopGrace {
			t.Errorf("ended after %s; told to stop: %v", took, g.stopped)
		}
		if s := seen(t, g.store); summaryOf(s) != summaryOf(r) {
			t.Errorf("a reader sees %s", summaryOf(s))
		}
	})
}

// A coordinator that cannot go on leaves the machines to the next one.
func TestTroubleDoesNotStopMachines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRemoteRig(t, `{name: p, functions: {a: {command: [x]}}}`)
		g.sendErr = errors.New("no such queue")
		g.close = func() { t.Error("the machines are ended") }
		r, err := g.coordinate(context.Background())
		if !errors.Is(err, g.sendErr) || r.Status.Final() || g.stopped {
			t.Fatalf("%s, %v; told to stop: %v", r.Status, err, g.stopped)
		}
		// The next one waits to hear what is held, however long that takes.
		g.sendErr = nil
		var began time.Time
		start := time.Now()
		g.begins = func() {
			time.Sleep(time.Hour)
			g.coord.Held(nil)
		}
		g.close = func() {}
		g.run = func(context.Context, *Coordinator, string, cloud.Range, int) task.Outcome {
			began = time.Now()
			return task.Outcome{Status: task.Succeeded}
		}
		if r, err = g.coordinate(context.Background()); err != nil || r.Status != RunSucceeded || began.Sub(start) < time.Hour {
			t.Fatalf("%s, %v after %s", summaryOf(r), err, began.Sub(start))
		}
	})
}
