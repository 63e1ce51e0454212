package engine

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// dear is a catalogue in which a machine costs something else in each zone and
// market. disk is what disk and address cost.
func dear(factor float64) *hardware.Catalogue {
	return hardware.NewCatalogue("east-1", time.Now(), []hardware.Offer{{
		Type: hardware.Type{Name: "m6i.large", VCPUs: 2, MemoryMiB: 8 << 10, Arch: hardware.AMD64}, OnDemand: 8 * factor,
		Spot: map[string]float64{"east-1a": 1 * factor, "east-1b": 3 * factor}}})
}

// all is the price of an instance with all that belongs to it.
func all(instance float64) float64 {
	r := hardware.RatesOf("east-1")
	return instance + 30*r.DiskGBMonth/730 + r.AddressHour
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// What machines cost depends on their zone and on how they were rented, also
// of one that takes the place of another, and one that is no spot machine.
func TestMachinesAreCountedAtTheirPrice(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.silent, c.zones = true, []string{"east-1a", "east-1b"}
	c.region.Default = 0
	c.region.Capacity = map[cloudtest.Pool]int{{Type: "m6i.large", Zone: "east-1a", Spot: true}: 1,
		{Type: "m6i.large", Zone: "east-1b", Spot: true}: 1, {Type: "m6i.large", Zone: "east-1b"}: 1}
	e := c.engine("TOKEN=geheim")
	read := func(context.Context, string) (*hardware.Catalogue, error) { return dear(1), nil }
	e.AWS.Catalogue, e.AWS.Known = read, read
	dir := t.TempDir()
	touch(t, dir+"/go")
	file := write(t, "pipeline.yaml", `name: p
cloud: aws
functions:
  f:
    map: {range: 4}
    retries: {machine: 3}
    run: |
      touch `+dir+`/began-${{ index }}-$COILED_JOBS_ATTEMPT
      until test -e `+dir+`/stop; do sleep 0.05; done
    hardware: {vm_type: m6i.large, keepalive: 0s, n_workers: [3, 3]}
`)
	h := apply(t, e, ApplyOptions{File: file})
	marks(t, dir, 3)
	touch(t, dir+"/stop")
	r := ended(t, h, executor.RunSucceeded)
	v, err := executor.OpenView(t.Context(), e.Store, h.Run)
	if err != nil {
		t.Fatal(err)
	}
	want := map[bool]map[string]float64{true: {"east-1a": all(1), "east-1b": all(3)}, false: {"east-1b": all(8)}}
	sum := 0.0
	for _, m := range v.Machines() {
		if !near(m.Price, want[m.Spot][m.Zone]) {
			t.Errorf("%s in %s, spot %v: $%f an hour, want $%f", m.Type, m.Zone, m.Spot, m.Price, want[m.Spot][m.Zone])
		}
		sum += m.Cost(*r.Finished)
	}
	if len(v.Machines()) != 3 || r.CostUSD < sum/2 {
		t.Errorf("%d machines, $%f of $%f", len(v.Machines()), r.CostUSD, sum)
	}
}

// Prices are looked at while a run goes on; what is not known costs what it did.
func TestPricesAreFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rec := &fleetRecord{Kinds: []kindRecord{{Region: "east-1", Choices: []hardware.Choice{{Offer: dear(1).Offers[0]}}}}}
		b := newPriceBook(rec)
		price := func(zone string, spot bool) float64 { return b.price("east-1", "m6i.large", zone, spot, 0) }
		if !near(price("", true), all(3)) || !near(price("east-1a", true), all(1)) || !near(price("east-1a", false), all(8)) {
			t.Errorf("as recorded: %f, %f, %f", price("", true), price("east-1a", true), price("east-1a", false))
		}
		if b.price("east-1", "m7i.large", "", false, 0) < 0.05 || b.price("nowhere-1", "m7i.large", "", false, 0) < 0.05 {
			t.Error("a machine that nobody knows is free")
		}
		var factor atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		go b.follow(ctx, func(context.Context, string) (*hardware.Catalogue, error) {
			if n := factor.Add(1); n < 3 {
				return dear(float64(1 + n)), nil
			}
			return nil, errors.New("no answer")
		})
		for _, want := range []float64{1, 2, 3, 3} {
			synctest.Wait()
			if !near(price("east-1a", true), all(want)) {
				t.Errorf("$%f, want $%f", price("east-1a", true), all(want))
			}
			if want == 1 { // not while the first machines are asked for
				time.Sleep(pricesAfter)
			} else {
				time.Sleep(pricesEvery)
			}
		}
		stop()
		synctest.Wait()
	})
}

// The machine that a coordinator is on costs money too.
func TestOwnMachineCounts(t *testing.T) {
	t.Parallel()
	e := &Engine{}
	past := []task.Machine{{ID: "i-1"}, {ID: "me"}}
	p, err := executor.Bind([]byte("name: p\ncloud: aws\nlimits: {cost: 3}\nfunctions:\n  f: {command: [x]}\n"), "p.yaml", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	l := e.limits(p, &fleetRecord{}, &executor.Header{}, past, task.Machine{ID: "me", Price: 1})
	if l.Cost != 3 || l.Own.Price != 1 || len(l.Past) != 1 || l.Past[0].ID != "i-1" {
		t.Errorf("%+v", l)
	}
}
