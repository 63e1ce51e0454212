package sim

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// told checks what people were told.
func told(t *testing.T, w *World, want string) {
	t.Helper()
	log := strings.Join(w.Log(), "\n")
	if !strings.Contains(log, want) {
		t.Errorf("nobody was told %q, but:\n%s", want, log)
	}
}

// TestCancel: what runs is ended and machines are released, also by a
// coordinator that hears slowly.
func TestCancel(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]time.Duration{"quick": latency, "slow": 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			w := world(t, Config{Source: mapOf(100, ""), Seconds: lognormal(5, 600, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency})
			ctx := t.Context()
			r := begin(t, w)
			time.Sleep(3 * time.Minute)
			r.Slow(slow)
			asked := time.Now()
			r.Cancel("enough")
			time.Sleep(5 * time.Second)
			if _, err := w.Store().Get(ctx, "runs/r/control/release.json"); err != nil {
				t.Errorf("%s: the release is not recorded after 5 s: %v", name, err)
			}
			report, left, err := r.Wait()
			if err != nil || report.Status != executor.RunCancelled {
				t.Fatalf("%s: %s, %v", name, report.Status, err)
			}
			if took := r.Closed.Sub(asked); took > 10*time.Second {
				t.Errorf("%s: the run ended %v after its cancel", name, took)
			}
			if s := left.String(); s != "0 machines left" || w.Alive() > 0 {
				t.Errorf("%s: %s; %d live", name, s, w.Alive())
			}
			f := report.Functions[0]
			if f.Cancelled != 100 || f.Failed > 0 {
				t.Errorf("%s: %+v", name, f)
			}
			w.Wait()
		})
	}
}

// TestStillborn: machines that never say hello end the run, with what they
// have left behind.
func TestStillborn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := world(t, Config{Source: mapOf(100, ""), Seconds: lognormal(5, 60, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency, Stillborn: true})
		go func() {
			time.Sleep(time.Minute)
			if err := w.Store().Put(t.Context(), wire.BootLogKey("r", "k"), []byte("boot\ncurl: (6) could not resolve host\n")); err != nil {
				t.Error(err)
			}
		}()
		o := whole(t, w)
		if o.err == nil || !strings.Contains(o.err.Error(), "did not start") || !strings.Contains(o.err.Error(), "could not resolve host") {
			t.Errorf("%s: %v", o.report.Status, o.err)
		}
		if o.report.Status.Final() {
			t.Errorf("the run is %s, and cannot be resumed", o.report.Status)
		}
	})
}

// TestDenied: a missing permission ends the run and is named.
func TestDenied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		denied := &cloud.Error{Op: "launch", Resource: "machines", Kind: cloud.KindDenied, Err: errors.New("ec2:CreateFleet is not allowed")}
		region := &cloudtest.Region{Default: 10, Before: func(op string, _ int) error {
			if op == "launch" {
				return denied
			}
			return nil
		}}
		w := world(t, Config{Source: mapOf(10, ""), Seconds: lognormal(5, 60, 0.3), Kind: fleet.Kind{Max: 10}, Latency: latency, Region: region})
		o := whole(t, w)
		if !errors.Is(o.err, denied) && (o.err == nil || !strings.Contains(o.err.Error(), "ec2:CreateFleet")) {
			t.Errorf("%v", o.err)
		}
	})
}

// TestBudget: a run stops at its limit, and stays below it whatever happens to
// its coordinator.
func TestBudget(t *testing.T) {
	t.Parallel()
	const price = 1.2 // dollars per hour
	for name, c := range map[string]struct {
		cost   float64
		die    time.Duration // when the coordinator dies for good; 0: never
		status executor.RunStatus
	}{
		"reached":                {cost: 2, status: executor.RunStopped},
		"small":                  {cost: 0.3, status: executor.RunStopped},
		"too small for anything": {cost: 0.01, status: executor.RunStopped},
		"enough":                 {cost: 20, status: executor.RunSucceeded},
		"coordinator dies":       {cost: 1, die: 4 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			kind := fleet.Kind{Max: 20, Types: []string{"fake.large"}, Price: func(string, string, bool) float64 { return price }}
			w := world(t, Config{Source: mapOf(400, ""), Seconds: lognormal(5, 60, 0.3), Kind: kind, Latency: latency, Log: logTo(), Limits: fleet.Limits{Cost: c.cost}})
			r := begin(t, w)
			if c.die > 0 {
				time.Sleep(c.die)
				r.Kill()
			} else {
				report, _, err := r.Wait()
				if err != nil || report.Status != c.status {
					t.Errorf("%s: %s, %v, %s", name, report.Status, err, report.Reason)
				}
				if d := report.CostUSD - w.Billed()/3600*price; math.Abs(d) > 0.01+0.03*report.CostUSD {
					t.Errorf("%s: $%.2f were reported, $%.2f spent", name, report.CostUSD, w.Billed()/3600*price)
				}
			}
			w.Wait()
			spent := w.Billed() / 3600 * price
			t.Logf("%s: $%.2f of $%.2f, %d machines", name, spent, c.cost, w.Machines())
			if grace := float64(w.Machines()) * price / 60; spent > c.cost+min(grace, 0.4) {
				t.Errorf("%s: $%.2f were spent of $%.2f", name, spent, c.cost)
			}
		})
	}
}
