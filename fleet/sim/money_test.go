package sim

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/fleet"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// till is what a cloud bills, by its own prices.
type till struct {
	price func(cloudtest.Pool) float64

	mu    sync.Mutex
	ended map[string]cloudtest.Instance
	began map[string]cloudtest.Instance
}

// watch counts the machines of a world.
func watch(w *World, price func(cloudtest.Pool) float64) *till {
	x := &till{price: price, began: map[string]cloudtest.Instance{}, ended: map[string]cloudtest.Instance{}}
	started, ended := w.Region.Started, w.Region.Ended
	w.Region.Started = func(i cloudtest.Instance) {
		x.mu.Lock()
		x.began[i.ID] = i
		x.mu.Unlock()
		started(i)
	}
	w.Region.Ended = func(i cloudtest.Instance) {
		x.mu.Lock()
		i.Ends = time.Now()
		x.ended[i.ID] = i
		x.mu.Unlock()
		ended(i)
	}
	return x
}

// bill is what all machines cost until they ended, and what those that lived
// at the same time cost an hour at most. markets counts the machines of each.
func (x *till) bill() (total, peak float64, markets map[bool]int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	markets = map[bool]int{}
	for _, i := range x.ended {
		total += x.price(i.Pool) * max(i.Ends.Sub(i.Launched), time.Minute).Hours()
		markets[i.Spot]++
		at := 0.0
		for _, j := range x.ended {
			if !j.Launched.After(i.Launched) && j.Ends.After(i.Launched) {
				at += x.price(j.Pool)
			}
		}
		peak = max(peak, at)
	}
	return total, peak, markets
}

// largest is the greatest number of machines that lived at the same time.
func (x *till) largest() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	most := 0
	for _, i := range x.ended {
		n := 0
		for _, j := range x.ended {
			if !j.Launched.After(i.Launched) && j.Ends.After(i.Launched) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// addsUp checks that what the tasks of a run cost, and what nobody used, is
// what its machines cost.
func addsUp(t *testing.T, w *World) executor.Report {
	t.Helper()
	v, err := executor.OpenView(t.Context(), w.Store(), "r")
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := r.IdleUSD
	for _, f := range r.Functions {
		costs, err := v.TaskCosts(t.Context(), f.Name, -1)
		if err != nil {
			t.Fatal(err)
		}
		of := 0.0
		for i, c := range costs {
			if c < 0 || i >= f.Tasks {
				t.Errorf("%s/%d costs $%f", f.Name, i, c)
			}
			of += c
		}
		if math.Abs(of-f.CostUSD) > 1e-9 {
			t.Errorf("%s costs $%f, its tasks $%f", f.Name, f.CostUSD, of)
		}
		sum += of
	}
	if math.Abs(sum-r.CostUSD) > 1e-9 {
		t.Errorf("tasks and idle machines cost $%f, the run $%f", sum, r.CostUSD)
	}
	return r
}

// TestMoney: whatever machines cost, wherever they turn up and however they
// end, and whether anybody watches or not, a run costs no more than its limit and
// what machines need to end; it keeps to limits.machines; and what it says that
// its tasks cost is what its machines cost.
func TestMoney(t *testing.T) {
	for seed := range uint64(2 * seeds()) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { money(t, seed) })
		})
	}
}

func money(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	types, zones := []string{"small", "large"}, []string{"zone-a", "zone-b", "zone-c"}
	prices := map[cloudtest.Pool]float64{}
	region := &cloudtest.Region{Capacity: map[cloudtest.Pool]int{}, Hidden: 2 * time.Second}
	for _, kind := range types {
		for _, zone := range zones {
			demand := 0.2 + 2*rng.Float64()
			prices[cloudtest.Pool{Type: kind, Zone: zone}] = demand
			prices[cloudtest.Pool{Type: kind, Zone: zone, Spot: true}] = demand * (0.2 + 0.8*rng.Float64())
			region.Capacity[cloudtest.Pool{Type: kind, Zone: zone}] = 4
			region.Capacity[cloudtest.Pool{Type: kind, Zone: zone, Spot: true}] = rng.IntN(4)
		}
	}
	price := func(kind, zone string, spot bool) float64 {
		if zone != "" {
			return prices[cloudtest.Pool{Type: kind, Zone: zone, Spot: spot}]
		}
		most := 0.0
		for _, z := range zones {
			most = max(most, prices[cloudtest.Pool{Type: kind, Zone: z, Spot: spot}])
		}
		return most
	}
	limit := 0.2 + 4*rng.Float64()
	machines := 3 + rng.IntN(12)
	w := world(t, Config{Region: region, Source: mapOf(300, "    retries: {machine: 50}\n"), Seconds: lognormal(seed, 60, 0.8), Latency: latency, Seed: seed,
		Kind: fleet.Kind{Max: 20, Types: types, Price: price}, Limits: fleet.Limits{Cost: limit, Machines: machines}, Unattended: 10 * time.Minute})
	x := watch(w, func(p cloudtest.Pool) float64 { return prices[p] })
	if err := w.Create(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	r, err := w.Start(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	deserted := !harm(t, w, &r, rng)
	w.Wait()
	spent, peak, markets := x.bill()
	report := addsUp(t, w)
	t.Logf("%s, deserted %v: $%.3f of $%.3f (reported $%.3f, idle $%.3f), %d spot machines and %d others, %d of %d at a time, up to $%.2f an hour",
		report.Status, deserted, spent, limit, report.CostUSD, report.IdleUSD, markets[true], markets[false], x.largest(), machines, peak)
	if spent > limit+peak/60 {
		t.Errorf("$%.3f were spent of $%.3f; a minute costs $%.3f", spent, limit, peak/60)
	}
	if n := x.largest(); n > machines {
		t.Errorf("%d machines at a time, limits.machines is %d", n, machines)
	}
	if !deserted && report.Status != executor.RunStopped && report.Status != executor.RunSucceeded {
		t.Errorf("the run is %s: %s", report.Status, report.Reason)
	}
	// A machine that ended while there was no coordinator counts until its grant did.
	if diff := report.CostUSD - spent; !deserted && (diff < -0.02-0.03*spent || diff > 0.02+0.15*spent) {
		t.Errorf("$%.3f were reported, $%.3f spent", report.CostUSD, spent)
	}
	if t.Failed() {
		say(t, w)
		for _, m := range machinesOf(t, w) {
			i := x.ended[m.ID]
			t.Logf("%s %s: %.0f s to %.0f s, counted to %.0f s: %s", m.ID, m.Kind, m.Joined.Sub(w.begun).Seconds(), i.Ends.Sub(w.begun).Seconds(), m.Ended.Sub(w.begun).Seconds(), m.Why)
		}
	}
}

// harm ends machines and coordinators until the run has ended, or its last
// coordinator has died for good: then it is false.
func harm(t *testing.T, w *World, r **Run, rng *rand.Rand) bool {
	t.Helper()
	for {
		wait, stop := context.WithTimeout(t.Context(), time.Duration(20+rng.IntN(80))*time.Second)
		select {
		case <-(*r).Done():
			stop()
			return true
		case <-wait.Done():
		}
		stop()
		switch x := rng.IntN(20); {
		case x < 8:
			if id := w.Pick(nil); id != "" {
				w.Region.PowerOff(id)
			}
		case x < 12:
			if id := w.Pick(func(_ string, spot bool) bool { return spot }); id != "" {
				w.Region.Reclaim(id)
			}
		case x < 15:
			(*r).Kill()
			time.Sleep(time.Duration(rng.IntN(400)) * time.Second)
			next, err := w.Start(t.Context(), "r")
			if err != nil {
				t.Fatal(err)
			}
			*r = next
		case x == 15:
			(*r).Kill()
			return false
		}
	}
}

// machinesOf is the machines that a run has recorded.
func machinesOf(t *testing.T, w *World) []task.Machine {
	t.Helper()
	v, err := executor.OpenView(t.Context(), w.Store(), "r")
	if err != nil {
		t.Fatal(err)
	}
	return v.Machines()
}
