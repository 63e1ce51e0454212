package fleet

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/fleet/sim"
)

var full = flag.Bool("full", false, "run the simulations; the largest takes many minutes")

// TestFleets runs maps with log-normal task times on simulated machines and
// compares the makespan with the least that is possible, and the seconds that
// machines were billed with those that tasks used.
func TestFleets(t *testing.T) {
	if !*full {
		t.Skip("only with -full")
	}
	for _, c := range []struct {
		machines, tasks int
		median, sigma   float64
		within, used    float64 // of the bound and boot; of what is billed
	}{
		{500, 100_000, 30, 0.5, 1.05, 0.9},
		{500, 100_000, 30, 1, 0, 0.9}, // the last tasks are as long as a third of the run: nobody could know which
		{5000, 1_000_000, 30, 0.5, 1.05, 0.9},
	} {
		t.Run(fmt.Sprintf("%d machines, %d tasks, sigma %v", c.machines, c.tasks, c.sigma), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const boot = 40.0
				seconds := func(_ string, i, _ int) float64 {
					return c.median * math.Exp(c.sigma*rand.New(rand.NewPCG(1, uint64(i))).NormFloat64())
				}
				work, longest := 0.0, 0.0
				for i := range c.tasks {
					s := seconds("", i, 1)
					work, longest = work+s, max(longest, s)
				}
				least := max(longest, work/float64(c.machines)) + boot
				began, cpu := clock(unix.CLOCK_MONOTONIC), clock(unix.CLOCK_PROCESS_CPUTIME_ID)
				w, err := sim.New(sim.Config{Seconds: seconds, Kind: fleet.Kind{Max: c.machines}, Latency: 30 * time.Millisecond,
					Source: fmt.Sprintf("name: sim\ncloud: aws\nfunctions:\n  f:\n    map: {range: %d}\n    command: [x]\n", c.tasks)})
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Create(t.Context(), "r"); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				r, err := w.Start(t.Context(), "r")
				if err != nil {
					t.Fatal(err)
				}
				for done := false; !done; {
					progress := time.NewTimer(10 * time.Minute)
					select {
					case <-r.Done():
						done = true
					case <-progress.C:
						told := append([]string{""}, w.Log()...)
						fmt.Fprintf(os.Stderr, "%5.0f s: %d tasks started, %d machines live of %d, %d notices %s\n", time.Since(start).Seconds(),
							w.Started(), w.Alive(), w.Machines(), len(told)-1, told[len(told)-1])
					}
					progress.Stop()
				}
				report, left, err := r.Wait()
				makespan := r.Closed.Sub(start).Seconds()
				w.Wait()
				if err != nil || report.Status != executor.RunSucceeded || report.Functions[0].Succeeded != c.tasks {
					t.Fatalf("%s: %v, %+v", report.Status, err, report.Functions)
				}
				used := w.Used / w.Billed()
				fmt.Fprintf(os.Stderr, "%d machines, %d tasks: makespan %.0f s = %.3f of %.0f s (%.0f s of work for each, longest %.0f s, boot %.0f s); "+
					"used %.3f of %.0f billed machine-seconds; %s; simulated in %.0f s with %.0f s of CPU\n", w.Machines(), c.tasks, makespan, makespan/least,
					least, work/float64(c.machines), longest, boot, used, w.Billed(), left, clock(unix.CLOCK_MONOTONIC)-began, clock(unix.CLOCK_PROCESS_CPUTIME_ID)-cpu)
				if c.within > 0 && makespan > c.within*least {
					t.Errorf("the makespan is %.3f of the bound", makespan/least)
				}
				for _, line := range w.Log() {
					t.Errorf("nobody did harm, but %s", line)
				}
				if used < c.used {
					t.Errorf("%.3f of the billed seconds were used", used)
				}
			})
		})
	}
}

// clock is a real clock in seconds, also in a bubble of synctest.
func clock(id int32) float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}
