package sim

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/fleet"
)

const latency = 30 * time.Millisecond

// bound is the least time in which so many slots can do the tasks of f.
func bound(n, slots int, seconds func(string, int, int) float64) float64 {
	work, longest := 0.0, 0.0
	for i := range n {
		s := seconds("f", i, 1)
		work += s
		longest = max(longest, s)
	}
	return max(longest, work/float64(slots))
}

// TestCloseToTheBound is the simulation of the issue, but smaller;
// bench/fleet has the whole.
func TestCloseToTheBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, machines, boot = 4000, 25, 40.0
		seconds := lognormal(1, 30, 0.5)
		w := world(t, Config{Source: mapOf(n, ""), Seconds: seconds, Kind: fleet.Kind{Max: machines}, Latency: latency})
		o := whole(t, w)
		succeeded(t, o, n)
		least := bound(n, machines, seconds)
		used := w.Used / w.Billed()
		t.Logf("makespan %.0f s, %.3f of the bound of %.0f s and %.0f s of boot; %.3f of the billed %.0f s were used", o.makespan,
			o.makespan/(least+boot), least, boot, used, w.Billed())
		if o.makespan > 1.05*(least+boot) {
			t.Errorf("makespan %.0f s, more than 5 %% above %.0f s", o.makespan, least+boot)
		}
		if used < 0.9 {
			t.Errorf("%.3f of the billed seconds were used", used)
		}
		if o.left.String() != "0 machines left" {
			t.Error(o.left)
		}
		if len(w.Doubled) > 0 || w.Starts != n {
			t.Errorf("%d starts of %d tasks, %d of them twice at the same time", w.Starts, n, len(w.Doubled))
		}
	})
}

// TestTaxi is the case of the seeds: 156 files took five hours on a laptop,
// 35.9 minutes on one machine, 4.7 minutes on 33 of another service.
func TestTaxi(t *testing.T) {
	t.Parallel()
	const n = 156
	shape := lognormal(3, 1, 0.4)
	sum := 0.0
	for i := range n {
		sum += shape("f", i, 1)
	}
	boot := func(rng *rand.Rand) time.Duration { return time.Duration(45+rng.IntN(30)) * time.Second }
	seconds := func(fn string, i, a int) float64 { return shape(fn, i, a) * (35.9*60 - 60) / sum }
	for machines, least := range map[int]float64{1: 35.9, 33: 4.7} {
		synctest.Test(t, func(t *testing.T) {
			w := world(t, Config{Source: mapOf(n, ""), Seconds: seconds, Kind: fleet.Kind{Max: machines}, Latency: latency, Boot: boot})
			o := whole(t, w)
			succeeded(t, o, n)
			t.Logf("%d machines: %.1f minutes (there: %.1f), %.2f of the billed seconds were used", w.Machines(), o.makespan/60, least, w.Used/w.Billed())
			if o.makespan/60 > least*1.02 {
				t.Errorf("%d machines took %.1f minutes", machines, o.makespan/60)
			}
		})
	}
}

// TestStagesShareMachines: a function behind another finds the machines that
// are still there, and does not find too many waiting.
func TestStagesShareMachines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := mapOf(100, "  g:\n    map: {from: f}\n    command: [x]\n  h:\n    needs: g\n    command: [x]\n")
		w := world(t, Config{Source: src, Seconds: lognormal(5, 20, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency, Log: logTo()})
		o := whole(t, w)
		succeeded(t, o, 201)
		if n := w.Machines(); n != 10 {
			t.Errorf("%d machines were rented, 10 were enough", n)
		}
		if used := w.Used / w.Billed(); used < 0.8 {
			t.Errorf("%.2f of the billed seconds were used in %.0f s", used, o.makespan)
		}
	})
}

// TestWarm: the machines of a run wait for the next, which starts at once.
func TestWarm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kind := fleet.Kind{Max: 4}
		kind.Setup.KeepAlive = time.Minute
		w := world(t, Config{Source: mapOf(40, ""), Seconds: lognormal(5, 5, 0.3), Kind: kind, Latency: 10 * time.Millisecond, Log: logTo()})
		ctx := t.Context()
		for _, run := range []string{"one", "two"} {
			if err := w.Create(ctx, run); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			w.First = time.Time{}
			r, err := w.Start(ctx, run)
			if err != nil {
				t.Fatal(err)
			}
			report, left, err := r.Wait()
			succeeded(t, outcome{report: report, err: err}, 40)
			if left.Waiting != 4 || len(left.Alive) > 0 {
				t.Errorf("run %s left %+v", run, left)
			}
			first := w.First.Sub(begun)
			t.Logf("run %s: first task after %v, %s", run, first, left)
			if run == "two" && first > 300*time.Millisecond {
				t.Errorf("the first task of the second run started after %v", first)
			}
		}
		w.Wait()
		if w.Machines() != 4 || w.Alive() > 0 {
			t.Errorf("%d machines were rented, %d live", w.Machines(), w.Alive())
		}
	})
}

// TestNobodyComesBack: the machines of a coordinator that died end by themselves.
func TestNobodyComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kind := fleet.Kind{Max: 10, Types: []string{"fake.large"}, Price: func(string, string, bool) float64 { return 1 }}
		w := world(t, Config{Source: mapOf(300, ""), Seconds: lognormal(5, 60, 0.3), Kind: kind, Latency: latency, Unattended: 5 * time.Minute})
		r := begin(t, w)
		time.Sleep(4 * time.Minute)
		died := time.Now()
		r.Kill()
		if w.Alive() != 10 {
			t.Fatalf("%d machines work", w.Alive())
		}
		w.Wait()
		if gone := time.Since(died); gone > 6*time.Minute || gone < 3*time.Minute {
			t.Errorf("the machines ended %v after their coordinator; unattended is 5m", gone)
		}
		time.Sleep(24 * time.Hour)
		r = start(t, w) // and another goes on
		report, _, err := r.Wait()
		succeeded(t, outcome{report: report, err: err}, 300)
		w.Wait()
		if d := report.CostUSD / (w.Billed() / 3600); d < 0.95 || d > 1.1 {
			t.Errorf("$%.2f were reported, $%.2f spent", report.CostUSD, w.Billed()/3600)
		}
	})
}

// TestLostWithTheCoordinator: machines that are lost while there is no
// coordinator are charged to the tasks that ran there, as any others.
func TestLostWithTheCoordinator(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := world(t, Config{Source: mapOf(300, ""), Seconds: lognormal(5, 60, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency})
		r := begin(t, w)
		time.Sleep(4 * time.Minute)
		r.Kill()
		w.Region.PowerOff(w.Pick(nil))
		w.Region.PowerOff(w.Pick(nil))
		w.Cut(w.Pick(nil), true)
		time.Sleep(time.Minute)
		r = start(t, w)
		report, _, err := r.Wait()
		w.Wait()
		succeeded(t, outcome{report: report, err: err}, 300)
		if n := report.Functions[0].Retries; n != 3 {
			t.Errorf("%d retries, want one for each of three machines", n)
		}
		if len(w.Doubled) > 0 {
			t.Errorf("%d tasks ran twice at the same time", len(w.Doubled))
		}
	})
}

// TestNoneToBeHad: a cloud that has few machines, and an account that allows few.
func TestNoneToBeHad(t *testing.T) {
	t.Parallel()
	for name, region := range map[string]*cloudtest.Region{
		"capacity": {Capacity: map[cloudtest.Pool]int{{Type: "fake.large", Zone: "zone-a"}: 3}},
		"quota":    {Default: 100, VCPUs: map[bool]int{true: 2, false: 6}},
	} {
		synctest.Test(t, func(t *testing.T) {
			kind := fleet.Kind{Max: 20, Types: []string{"fake.large"}}
			w := world(t, Config{Source: mapOf(100, ""), Seconds: lognormal(5, 20, 0.3), Kind: kind, Region: region, Latency: latency})
			o := whole(t, w)
			succeeded(t, o, 100)
			want := map[string]string{"capacity": "17 of 20 machines are not to be had", "quota": "the run goes on with 4 machines"}[name]
			told(t, w, want)
		})
	}
}

// TestDeaf: all hints are lost, and the heartbeats say the same a little later.
func TestDeaf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := world(t, Config{Source: mapOf(200, ""), Seconds: lognormal(5, 20, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency, Deaf: true})
		o := whole(t, w)
		succeeded(t, o, 200)
		if w.Starts != 200 {
			t.Errorf("%d starts of 200 tasks", w.Starts)
		}
		if least := bound(200, 10, lognormal(5, 20, 0.3)) + 40; o.makespan > 1.25*least {
			t.Errorf("%.0f s, where %.0f s are possible", o.makespan, least)
		}
	})
}

// TestOutage: a store that nobody can reach for a while costs no machine. Beyond
// their grant machines end, and others go on.
func TestOutage(t *testing.T) {
	t.Parallel()
	for down, lose := range map[time.Duration]bool{25 * time.Second: false, 5 * time.Minute: true, time.Hour: true} {
		synctest.Test(t, func(t *testing.T) {
			w := world(t, Config{Source: mapOf(200, ""), Seconds: lognormal(5, 30, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency, Log: logTo()})
			r := begin(t, w)
			time.Sleep(3 * time.Minute)
			w.Outage(r, true)
			time.Sleep(down)
			w.Outage(r, false)
			report, _, err := r.Wait()
			w.Wait()
			succeeded(t, outcome{report: report, err: err}, 200)
			want := 10
			if down > 15*time.Minute {
				want = 20
			}
			if n := w.Machines(); n != want {
				t.Errorf("after %v: %d machines were rented, want %d", down, n, want)
			}
			if repeated := w.Starts - 200; (repeated > 0) != lose || repeated > 20 {
				t.Errorf("after %v: %d tasks ran again", down, repeated)
			}
			if len(w.Doubled) > 0 {
				t.Errorf("after %v: %d tasks ran twice at the same time", down, len(w.Doubled))
			}
		})
	}
}

// TestOutageWhileBooting: nobody is blamed for a boot during which the store
// could not be reached. Machines wait for it, for as long as they may without a
// grant; then others are rented.
func TestOutageWhileBooting(t *testing.T) {
	t.Parallel()
	for down, rented := range map[time.Duration]int{10 * time.Minute: 10, 15 * time.Minute: 20} {
		synctest.Test(t, func(t *testing.T) {
			w := world(t, Config{Source: mapOf(200, ""), Seconds: lognormal(5, 30, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency, Log: logTo()})
			r := begin(t, w)
			time.Sleep(20 * time.Second) // they boot for 40 s
			w.Outage(r, true)
			time.Sleep(down)
			w.Outage(r, false)
			report, _, err := r.Wait()
			w.Wait()
			succeeded(t, outcome{report: report, err: err}, 200)
			if n := w.Machines(); n != rented {
				t.Errorf("after %v: %d machines were rented, want %d", down, n, rented)
			}
		})
	}
}
