package sim

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// lognormal is task times with a median, always the same for a seed.
func lognormal(seed uint64, median, sigma float64) func(string, int, int) float64 {
	return func(_ string, i, _ int) float64 {
		return median * math.Exp(sigma*rand.New(rand.NewPCG(seed, uint64(i))).NormFloat64())
	}
}

func mapOf(n int, more string) string {
	return fmt.Sprintf("name: sim\ncloud: aws\nfunctions:\n  f:\n    map: {range: %d}\n    command: [x]\n%s", n, more)
}

// outcome is how a simulated run went.
type outcome struct {
	report   executor.Report
	left     fleet.Left
	err      error
	makespan float64 // seconds until the run had its final status
	closing  float64 // and from there until Close was over
}

// whole runs a pipeline from its beginning to its end and waits until no machine is left.
func whole(t *testing.T, w *World) outcome {
	t.Helper()
	ctx := t.Context()
	if err := w.Create(ctx); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	r, err := w.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var o outcome
	o.report, o.left, o.err = r.Wait()
	o.makespan, o.closing = r.Closed.Sub(begun).Seconds(), time.Since(r.Closed).Seconds()
	w.Wait()
	if n := w.Alive(); n > 0 {
		t.Errorf("%d machines live after the end", n)
	}
	return o
}

func world(t *testing.T, cfg Config) *World {
	t.Helper()
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func say(t *testing.T, w *World) {
	t.Helper()
	for _, n := range w.Log() {
		t.Log(n)
	}
}

func succeeded(t *testing.T, o outcome, tasks int) {
	t.Helper()
	if o.err != nil || o.report.Status != executor.RunSucceeded {
		t.Fatalf("%s: %v", o.report.Status, o.err)
	}
	got := 0
	for _, f := range o.report.Functions {
		got += f.Succeeded
	}
	if got != tasks {
		t.Errorf("%d of %d tasks succeeded", got, tasks)
	}
}

func TestSmall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := world(t, Config{Source: mapOf(200, ""), Seconds: lognormal(1, 30, 0.5), Kind: fleet.Kind{Max: 20}, Latency: 30 * time.Millisecond})
		o := whole(t, w)
		say(t, w)
		succeeded(t, o, 200)
		t.Logf("%.0f s, closing %.1f s, %d machines, billed %.0f s, used %.0f s, %s", o.makespan, o.closing, w.Machines(), w.Billed(), w.Used, o.left)
		_ = wire.CutOff
		_ = context.Background
	})
}

func TestBig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		real := clock()
		const n = 100_000
		secs := lognormal(1, 30, 0.8)
		work, longest := 0.0, 0.0
		for i := range n {
			work += secs("f", i, 1)
			longest = max(longest, secs("f", i, 1))
		}
		w := world(t, Config{Source: mapOf(n, ""), Seconds: secs, Kind: fleet.Kind{Max: 500}, Latency: 30 * time.Millisecond})
		o := whole(t, w)
		say(t, w)
		succeeded(t, o, n)
		bound := max(longest, work/500)
		t.Logf("%.0f s = %.3f of the bound of %.0f s + 40 s boot; closing %.1f s, %d machines, used %.3f of billed %.0f s, %s; real %v", o.makespan, o.makespan/(bound+40), bound, o.closing, w.Machines(), w.Used/w.Billed(), w.Billed(), o.left, clock()-real)
	})
}

func clock() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano()).Round(time.Millisecond)
}
