package engine

import (
	"context"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

func TestRegions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	east, west := &cloudtest.Region{Default: 10}, &cloudtest.Region{Default: 10}
	by := map[string]Machines{"east": newFakeMachines(east, "east-a"), "west": newFakeMachines(west, "west-a")}
	first := newRegions("east", "", by)
	launch := func(region string, n int) []cloud.Machine {
		t.Helper()
		list, err := first.Launch(ctx, cloud.MachineSpec{Run: "r", Region: region, Count: n, Spot: "spot"})
		if err != nil || len(list) != n {
			t.Fatalf("launch in %q: %v, %v", region, list, err)
		}
		return list
	}
	for range 5 { // the fake counts its machines: no two of ours have the same id
		if _, err := by["west"].Launch(ctx, cloud.MachineSpec{Run: "other", Count: 1}); err != nil {
			t.Fatal(err)
		}
	}
	self := launch("", 1)[0] // at home
	launch("east", 1)
	gone := launch("west", 2)[1]
	if _, err := first.Launch(ctx, cloud.MachineSpec{Run: "r", Region: "north", Count: 1}); cloud.KindOf(err) != cloud.KindInvalid {
		t.Errorf("launch where nothing is: %v", err)
	}
	if e, w := len(east.Live()), len(west.Live()); e != 2 || w != 7 {
		t.Fatalf("%d machines in the east and %d in the west, want 2 and 7", e, w)
	}
	// Another coordinator, on one of the machines.
	r := newRegions("east", self.ID, by)
	if err := r.Terminate(ctx, gone.ID, self.ID); err != nil {
		t.Fatal(err)
	}
	list, err := r.List(ctx, "r")
	if err != nil {
		t.Fatal(err)
	}
	alive := 0
	for _, m := range list {
		if m.ID == self.ID {
			t.Error("the machine of the coordinator is shown")
		}
		if m.State != "ended" {
			alive++
		}
	}
	if alive != 2 {
		t.Errorf("%d other machines are alive, want one in each region", alive)
	}
	if err := r.Clean(ctx, "r"); err != nil {
		t.Fatal(err)
	}
	if left := east.Live(); len(left) != 1 || left[0].ID != self.ID {
		t.Errorf("left in the east: %v, want the coordinator's machine alone", left)
	}
	if left := west.Live(); len(left) != 5 {
		t.Errorf("left in the west: %v, want those of the other run", left)
	}
}
