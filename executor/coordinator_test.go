package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// rig is a coordinator with agents of the test's own.
type rig struct {
	t       testing.TB
	store   cloud.Store
	header  *Header
	yaml    string
	run     func(ctx context.Context, c *Coordinator, fn string, r cloud.Range, index int) task.Outcome
	slots   int
	begin   Begin
	notices []Notice
	mu      sync.Mutex
	live    []task.Live
}

func newRig(t testing.TB, store cloud.Store, yaml string) *rig {
	return &rig{t: t, store: store, yaml: yaml, slots: 2,
		header: &Header{Run: "r1", Pipeline: "p", File: "test.yaml", Created: time.Now(), Token: "tok"},
		run: func(_ context.Context, _ *Coordinator, fn string, _ cloud.Range, i int) task.Outcome {
			return task.Outcome{Status: task.Succeeded, Result: fmt.Appendf(nil, `"%s/%d"`, fn, i)}
		}}
}

// create records the run as the engine does.
func (g *rig) create() {
	g.t.Helper()
	ctx := context.Background()
	p := bind(g.t, g.yaml)
	g.header.Planned = map[string]int{}
	plan, err := planner.Make(ctx, p, planner.Inputs{Dir: g.t.TempDir(), Run: g.header.Info()}, planner.Options{})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range plan.Functions {
		if f.Tasks >= 0 {
			g.header.Planned[f.Name] = f.Tasks
		}
		if f.Items != nil {
			if err := SaveItems(ctx, g.store, g.header.Run, f.Name, f.Items); err != nil {
				g.t.Fatal(err)
			}
		}
	}
	if err := Create(ctx, g.store, g.header, []byte(g.yaml)); err != nil {
		g.t.Fatal(err)
	}
}

// coordinate runs a coordinator with agents until the run ends.
func (g *rig) coordinate(ctx context.Context) (Report, error) {
	g.t.Helper()
	work, stop := context.WithCancel(context.Background())
	defer stop()
	q := local.NewQueue()
	scratch := g.t.TempDir()
	c, err := NewCoordinator(ctx, Config{Store: g.store, Queue: q, Header: g.header, Pipeline: bind(g.t, g.yaml),
		Slots: g.slots, CPUs: g.slots, Scratch: scratch, StopWork: stop, Begin: g.begin,
		Notice: func(n Notice) { g.notices = append(g.notices, n) },
		Live: func() []task.Live {
			g.mu.Lock()
			defer g.mu.Unlock()
			return append([]task.Live(nil), g.live...)
		}})
	if err != nil {
		return Report{}, err
	}
	var wg sync.WaitGroup
	for range g.slots {
		wg.Go(func() {
			for {
				d, err := q.Receive(work)
				if err != nil {
					return
				}
				g.work(work, c, d.Range)
				q.Done(work, d)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); c.AgentsDone(nil); close(ended) }()
	r, err := c.Run(ctx)
	<-ended
	return r, err
}

func (g *rig) work(ctx context.Context, c *Coordinator, r cloud.Range) {
	b := task.Batch{Function: r.Function}
	for i := r.From; i < r.To; i++ {
		if ctx.Err() != nil || c.Stopped(r.Function) {
			b.Unrun = append(b.Unrun, i)
			continue
		}
		o := g.run(ctx, c, r.Function, r, i)
		o.Index, o.Attempt = i, r.Attempt
		b.Outcomes = append(b.Outcomes, o)
	}
	c.Report(b)
}

func TestCoordinatorRunsToTheEndAndReadersSeeIt(t *testing.T) {
	t.Parallel()
	g := newRig(t, cloudtest.NewStore(), `
name: p
functions:
  a: {command: [x], map: {range: 300}}
  b: {command: [x], map: {from: a}}
  c: {command: [x], needs: [a, b]}
`)
	g.create()
	var lines []string
	inner := g.run
	g.run = func(ctx context.Context, c *Coordinator, fn string, r cloud.Range, i int) task.Outcome {
		switch fn {
		case "b":
			up, err := c.Upstream(ctx, "a", i)
			if err != nil || string(up) != fmt.Sprintf(`"a/%d"`, i) {
				t.Errorf("upstream of b/%d: %s, %v", i, up, err)
			}
		case "c":
			infos, dir, err := c.Needs(ctx, "c")
			if err != nil {
				t.Error(err)
				break
			}
			text, err := os.ReadFile(filepath.Join(dir, "b.jsonl"))
			if err != nil {
				t.Error(err)
			}
			lines = strings.Split(strings.TrimSpace(string(text)), "\n")
			if infos["a"].Count != 300 || infos["a"].Status != "succeeded" {
				t.Errorf("c sees of a: %+v", infos["a"])
			}
		}
		return inner(ctx, c, fn, r, i)
	}
	r, err := g.coordinate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := summaryOf(r), "succeeded; a succeeded 300/0/0/0; b succeeded 300/0/0/0; c succeeded 1/0/0/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(lines) != 300 || lines[17] != `"b/17"` || lines[299] != `"b/299"` {
		t.Errorf("b.jsonl has %d lines", len(lines))
	}

	v, err := OpenView(context.Background(), g.store, "r1")
	if err != nil {
		t.Fatal(err)
	}
	seen, err := v.Report(context.Background())
	if err != nil || summaryOf(seen) != summaryOf(r) || seen.Status != RunSucceeded || seen.Finished == nil {
		t.Errorf("a reader sees %s, %v", summaryOf(seen), err)
	}
	n := 0
	err = v.EachResult(context.Background(), "a", func(tr TaskReport, res []byte) bool {
		if tr.Index != n || string(res) != fmt.Sprintf(`"a/%d"`, n) {
			t.Errorf("result %d of a: index %d, %s", n, tr.Index, res)
		}
		n++
		return true
	})
	if err != nil || n != 300 {
		t.Errorf("%d results, %v", n, err)
	}
	var items []any
	if err := v.EachItem(context.Background(), "b", 5, 8, func(_ int, item any) bool { items = append(items, item); return true }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(items) != "[a/5 a/6 a/7]" {
		t.Errorf("items of b: %v", items)
	}
}

func TestTwoCoordinatorsAreImpossible(t *testing.T) {
	t.Parallel()
	store := cloudtest.NewStore()
	g := newRig(t, store, `{name: p, functions: {a: {command: [x]}}}`)
	g.create()
	var second error
	inner := g.run
	g.run = func(ctx context.Context, c *Coordinator, fn string, r cloud.Range, i int) task.Outcome {
		h := newRig(t, store, g.yaml)
		h.header = g.header
		_, second = h.coordinate(ctx)
		return inner(ctx, c, fn, r, i)
	}
	if _, err := g.coordinate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if cloud.KindOf(second) != cloud.KindConflict {
		t.Errorf("the second coordinator got %v, want a conflict", second)
	}
}

func TestDurationLimitStopsTheRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, cloudtest.NewStore(), `{name: p, limits: {duration: 10s}, functions: {a: {command: [x], map: {range: 100}, hardware: {threads_per_worker: 2}}}}`)
		g.create()
		sleepy := func(ctx context.Context, _ *Coordinator, _ string, _ cloud.Range, _ int) task.Outcome {
			select {
			case <-time.After(time.Second):
				return task.Outcome{Status: task.Succeeded, Seconds: 1}
			case <-ctx.Done():
				return task.Outcome{Status: task.Cancelled, Cause: task.CauseCancelled}
			}
		}
		g.run = sleepy
		start := time.Now()
		r, err := g.coordinate(context.Background())
		if err != nil || r.Status != RunStopped {
			t.Fatalf("%s, %v", summaryOf(r), err)
		}
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("stopped after %s", d)
		}
		f := r.Functions[0]
		if f.Succeeded+f.Cancelled != 100 || f.Succeeded < 18 || f.Succeeded > 20 {
			t.Errorf("%s", summaryOf(r))
		}
		if !strings.Contains(r.Reason, "limits.duration") {
			t.Errorf("reason %q does not name the limit", r.Reason)
		}
		// Each resume gets the same time again.
		g.begin = Begin{Reopen: true}
		r, err = g.coordinate(context.Background())
		if err != nil || r.Status != RunStopped || r.Functions[0].Succeeded < 2*f.Succeeded-2 {
			t.Errorf("resumed: %s, %v", summaryOf(r), err)
		}
	})
}

func TestCancelThroughTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, cloudtest.NewStore(), `{name: p, functions: {a: {command: [x]}}}`)
		g.create()
		g.run = func(ctx context.Context, _ *Coordinator, _ string, _ cloud.Range, _ int) task.Outcome {
			g.store.Put(ctx, CancelKey("r1"), []byte("cancelled by somebody"))
			<-ctx.Done()
			return task.Outcome{Status: task.Cancelled, Cause: task.CauseCancelled}
		}
		r, err := g.coordinate(context.Background())
		if err != nil || r.Status != RunCancelled || r.Reason != "cancelled by somebody" {
			t.Errorf("%s %q, %v", summaryOf(r), r.Reason, err)
		}
	})
}

func TestCancelledContextEndsTheRun(t *testing.T) {
	t.Parallel()
	g := newRig(t, cloudtest.NewStore(), `{name: p, functions: {a: {command: [x]}, b: {command: [x], needs: a}}}`)
	g.create()
	ctx, cancel := context.WithCancelCause(context.Background())
	g.run = func(ctx context.Context, _ *Coordinator, _ string, _ cloud.Range, _ int) task.Outcome {
		cancel(errors.New("SIGINT"))
		<-ctx.Done()
		return task.Outcome{Status: task.Cancelled, Cause: task.CauseCancelled}
	}
	r, err := g.coordinate(ctx)
	if err != nil || r.Status != RunCancelled || r.Reason != "SIGINT" || r.Functions[1].Cancelled != 1 {
		t.Errorf("%s %q, %v", summaryOf(r), r.Reason, err)
	}
}

// While a task runs, readers are told; when nobody coordinates any more, a
// reader says so.
func TestReadersSeeLiveTasksAndDeadCoordinators(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := cloudtest.NewStore()
		g := newRig(t, store, `{name: p, functions: {a: {command: [x], map: {range: 3}}}}`)
		g.create()
		v, err := OpenView(context.Background(), store, "r1")
		if err != nil {
			t.Fatal(err)
		}
		if r, err := v.Report(context.Background()); err != nil || r.Status != RunPending {
			t.Fatalf("before the start: %s, %v", summaryOf(r), err)
		}
		g.slots = 1
		g.run = func(ctx context.Context, _ *Coordinator, fn string, _ cloud.Range, i int) task.Outcome {
			if i == 1 {
				g.mu.Lock()
				g.live = []task.Live{{Function: fn, Index: i, Attempt: 1, Started: time.Now().UnixNano()}}
				g.mu.Unlock()
				time.Sleep(2 * time.Second)
				r, err := v.Report(ctx)
				if err != nil || r.Status != RunRunning || r.Functions[0].Running != 1 || r.Functions[0].Succeeded != 1 || r.Functions[0].Pending != 1 {
					t.Errorf("in the middle: %+v, %v", r, err)
				}
				g.mu.Lock()
				g.live = nil
				g.mu.Unlock()
			}
			if i == 2 {
				time.Sleep(time.Second) // until the outcome before is recorded
				store.Kill()            // as kill -9: the lock goes, nothing is written any more
			}
			return task.Outcome{Status: task.Succeeded}
		}
		if _, err := g.coordinate(context.Background()); err == nil {
			t.Error("a killed coordinator ended without an error")
		}
		after := store.Process()
		v, err = OpenView(context.Background(), after, "r1")
		if err != nil {
			t.Fatal(err)
		}
		if r, err := v.Report(context.Background()); err != nil || r.Status != RunInterrupted || r.Functions[0].Succeeded != 2 {
			t.Errorf("after the kill: %s, %v", summaryOf(r), err)
		}
	})
}

func TestReportJSONKeepsTheContract(t *testing.T) {
	t.Parallel()
	g := newRig(t, cloudtest.NewStore(), `{name: p, functions: {zeta: {command: [x]}, alpha: {command: [x], needs: zeta}}}`)
	g.create()
	r, err := g.coordinate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Index(string(b), `"zeta"`) > strings.Index(string(b), `"alpha"`) {
		t.Error("functions are not in file order")
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"run", "pipeline", "status", "started", "finished", "seconds", "cost_usd", "machines", "functions"} {
		if _, ok := m[key]; !ok {
			t.Errorf("no key %q in %s", key, b)
		}
	}
	f := m["functions"].(map[string]any)["zeta"].(map[string]any)
	for _, key := range []string{"status", "tasks", "succeeded", "failed", "skipped", "cancelled", "running", "pending", "cached", "retries", "seconds"} {
		if _, ok := f[key]; !ok {
			t.Errorf("no key %q in a function of %s", key, b)
		}
	}
}

func TestCancelDeadRun(t *testing.T) {
	t.Parallel()
	store := cloudtest.NewStore()
	g := newRig(t, store, `{name: p, functions: {a: {command: [x], map: {range: 4}}, b: {command: [x], needs: a}}}`)
	g.create()
	g.slots = 1
	g.run = func(_ context.Context, _ *Coordinator, _ string, _ cloud.Range, i int) task.Outcome {
		if i == 2 {
			store.Kill()
		}
		return task.Outcome{Status: task.Succeeded}
	}
	if _, err := g.coordinate(context.Background()); err == nil {
		t.Fatal("killed, but no error")
	}
	after := store.Process()
	v, err := OpenView(context.Background(), after, "r1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := CancelDead(context.Background(), after, v, "cancelled by me", time.Now)
	if err != nil || r.Status != RunCancelled || r.Functions[0].Cancelled == 0 || r.Functions[1].Cancelled != 1 || r.Finished == nil {
		t.Errorf("%s, %v", summaryOf(r), err)
	}
}

func TestDeadBeforeItBegan(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	begun := func(cloud string, ago time.Duration) *View {
		g := newRig(t, cloudtest.NewStore(), `{name: p, functions: {a: {command: [x], map: {range: 4}}, b: {command: [x], needs: a}}}`)
		g.header.Cloud, g.header.Created = cloud, time.Now().Add(-ago)
		g.create()
		v, err := OpenView(ctx, g.store, "r1")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		cloud string
		ago   time.Duration
		want  RunStatus
	}{
		{"local", 0, RunPending},
		{"local", time.Hour, RunInterrupted},
		{"aws", 5 * time.Minute, RunPending}, // its coordinator may need a machine
		{"aws", time.Hour, RunInterrupted},
	} {
		r, err := begun(c.cloud, c.ago).Report(ctx)
		if err != nil || r.Status != c.want || r.Functions[0].Pending != 4 {
			t.Errorf("%s, recorded %s ago: %s, want %s (%v)", c.cloud, c.ago, summaryOf(r), c.want, err)
		}
	}
	v := begun("local", 0)
	r, err := CancelDead(ctx, v.store, v, "cancelled by me", time.Now)
	if err != nil || r.Status != RunCancelled || r.Functions[0].Cancelled != 4 || r.Functions[1].Cancelled != 1 {
		t.Errorf("cancelled: %s, %v", summaryOf(r), err)
	}
}
