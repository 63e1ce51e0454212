package sim

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
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
	if err := w.Create(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	r := start(t, w)
	var o outcome
	o.report, o.left, o.err = r.Wait()
	o.makespan, o.closing = r.Closed.Sub(begun).Seconds(), time.Since(r.Closed).Seconds()
	w.Wait()
	if n := w.Alive(); n > 0 {
		t.Errorf("%d machines live after the end", n)
	}
	for _, line := range w.Log() {
		if strings.Contains(line, " was lost:") || strings.Contains(line, " lain on its queue ") {
			t.Errorf("nobody did harm, but %s", line)
		}
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

// chaos does harm to a run until it ends.
func TestChaos(t *testing.T) {
	for seed := range uint64(seeds()) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { chaos(t, seed) })
		})
	}
}

func seeds() int {
	if v, _ := strconv.Atoi(os.Getenv("SIM_SEEDS")); v > 0 {
		return v
	}
	return 4
}

// begin records the run "r" and starts a coordinator for it.
func begin(t *testing.T, w *World) *Run {
	t.Helper()
	if err := w.Create(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	return start(t, w)
}

// start starts a coordinator for the run "r", the first or a further one.
func start(t *testing.T, w *World) *Run {
	t.Helper()
	r, err := w.Start(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func chaos(t *testing.T, seed uint64) {
	const n = 600
	rng := rand.New(rand.NewPCG(seed, 7))
	region := &cloudtest.Region{Default: 12, Hidden: 3 * time.Second, Rates: map[string]cloudtest.Rate{"launch": {Burst: 5, PerSecond: 0.5}, "terminate": {Burst: 1, PerSecond: 0.02}},
		After: func(op string, n int) error { // some replies are lost
			if n%7 == 3 {
				return &cloud.Error{Op: op, Resource: "machines", Kind: cloud.KindTransient, Err: errCut}
			}
			return nil
		}}
	w := world(t, Config{Region: region, Source: mapOf(n, "    retries: {machine: 30}\n"), Seconds: lognormal(seed, 25, 1), Kind: fleet.Kind{Max: 20, Min: 2}, Log: logTo(),
		Latency: 30 * time.Millisecond, Lossy: 0.02, Seed: seed, Unattended: 15 * time.Minute})
	r := begin(t, w)
	kills, harms := 0, 0
	for end := false; !end; {
		wait := time.NewTimer(time.Duration(5+rng.IntN(40)) * time.Second)
		select {
		case <-r.Done():
			end = true
			continue
		case <-wait.C:
		}
		if harms++; harms > 40 {
			continue // it must end some time
		}
		switch x := rng.IntN(10); {
		case x < 3:
			if id := w.Pick(nil); id != "" {
				w.Region.PowerOff(id)
			}
		case x < 5:
			if id := w.Pick(func(_ string, spot bool) bool { return spot }); id != "" {
				w.Region.Reclaim(id)
			}
		case x < 8:
			if id := w.Pick(nil); id != "" {
				w.Cut(id, true)
				time.AfterFunc(time.Duration(20+rng.IntN(300))*time.Second, func() { w.Cut(id, false) })
			}
		default:
			kills++
			r.Kill()
			time.Sleep(time.Duration(rng.IntN(100)) * time.Second)
			r = start(t, w)
		}
	}
	var o outcome
	o.report, o.left, o.err = r.Wait()
	w.Wait()
	if t.Failed() || testing.Verbose() {
		say(t, w)
	}
	succeeded(t, o, n)
	if a := w.Alive(); a > 0 {
		t.Errorf("%d machines live", a)
	}
	log := strings.Join(w.Log(), "\n")
	for _, id := range w.Doubled {
		if !strings.Contains(log, id+" was lost") {
			t.Errorf("a task ran twice at the same time, and %s was not lost", id)
		}
	}
	t.Logf("%d coordinators killed, %d harms, %d machines, %d starts, %d at the same time", kills, harms, w.Machines(), w.Starts, len(w.Doubled))
}

func logTo() io.Writer {
	if name := os.Getenv("SIM_LOG"); name != "" {
		f, _ := os.Create(name)
		return f
	}
	return nil
}
