package cloudtest

import (
	"context"
	"errors"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// TestMachines proves that an implementation keeps the contract of
// cloud.Machines. newMachines gives one on which no machine of the runs "run-a"
// and "run-b" lives, whose machines work until they are terminated.
func TestMachines(t *testing.T, newMachines func(t testing.TB) cloud.Machines) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, m cloud.Machines)
	}{
		{"life of a machine", machinesLife},
		{"token", machinesToken},
		{"fewer than asked for", machinesFewer},
		{"terminate what is gone", machinesGone},
		{"outlives the context of launch", machinesContext},
		{"bad count", machinesCount},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachines(t)
			t.Cleanup(func() {
				for _, x := range mustListMachines(t, m, "") {
					if err := m.Terminate(context.Background(), x.ID); err != nil {
						t.Errorf("terminate %s: %v", x.ID, err)
					}
				}
			})
			c.run(t, m)
		})
	}
}

func mustListMachines(t testing.TB, m cloud.Machines, run string) []cloud.Machine {
	t.Helper()
	list, err := m.List(context.Background(), run)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return list
}

func mustLaunch(t *testing.T, m cloud.Machines, run, token string) cloud.Machine {
	t.Helper()
	got, err := m.Launch(t.Context(), cloud.MachineSpec{Run: run, Pool: "pool", Token: token, Count: 1})
	if err != nil || len(got) != 1 {
		t.Fatalf("launch: %d machines, %v", len(got), err)
	}
	return got[0]
}

func machinesLife(t *testing.T, m cloud.Machines) {
	a := mustLaunch(t, m, "run-a", "ta")
	b := mustLaunch(t, m, "run-b", "tb")
	if a.ID == b.ID || a.ID == "" {
		t.Errorf("ids %q and %q", a.ID, b.ID)
	}
	if a.Run != "run-a" || a.Pool != "pool" || a.Launched.IsZero() || a.Type == "" {
		t.Errorf("launched %+v", a)
	}
	if list := mustListMachines(t, m, "run-a"); len(list) != 1 || list[0].ID != a.ID {
		t.Errorf("machines of run-a: %+v", list)
	}
	if list := mustListMachines(t, m, ""); len(list) != 2 {
		t.Errorf("all machines: %+v", list)
	}
	if err := m.Terminate(t.Context(), a.ID); err != nil {
		t.Fatalf("terminate: %v", err)
	}
	for _, x := range mustListMachines(t, m, "run-a") {
		if x.State != "ended" {
			t.Errorf("%+v lives after it was terminated", x)
		}
	}
	if list := mustListMachines(t, m, "run-b"); len(list) != 1 {
		t.Errorf("machines of run-b: %+v", list)
	}
}

func machinesToken(t *testing.T, m cloud.Machines) {
	a := mustLaunch(t, m, "run-a", "token")
	b := mustLaunch(t, m, "run-a", "token")
	if a.ID != b.ID {
		t.Errorf("the same token launched %s and %s", a.ID, b.ID)
	}
	if list := mustListMachines(t, m, "run-a"); len(list) != 1 {
		t.Errorf("%d machines", len(list))
	}
}

func machinesFewer(t *testing.T, m cloud.Machines) {
	got, err := m.Launch(t.Context(), cloud.MachineSpec{Run: "run-a", Token: "many", Count: 1 << 20})
	if k := cloud.KindOf(err); k != cloud.KindNoCapacity && k != cloud.KindQuota {
		t.Errorf("a million machines: %d and %v", len(got), err)
	}
	if list := mustListMachines(t, m, "run-a"); len(list) != len(got) {
		t.Errorf("%d machines launched, %d listed", len(got), len(list))
	}
}

func machinesGone(t *testing.T, m cloud.Machines) {
	a := mustLaunch(t, m, "run-a", "ta")
	if err := m.Terminate(t.Context(), "i-00000000000000000", a.ID, a.ID); err != nil {
		t.Errorf("terminate: %v", err)
	}
	if err := m.Terminate(t.Context(), a.ID); err != nil {
		t.Errorf("terminate again: %v", err)
	}
	if err := m.Terminate(t.Context()); err != nil {
		t.Errorf("terminate nothing: %v", err)
	}
	for _, x := range mustListMachines(t, m, "run-a") {
		if x.State != "ended" {
			t.Errorf("%+v lives after it was terminated", x)
		}
	}
}

func machinesContext(t *testing.T, m cloud.Machines) {
	ctx, cancel := context.WithCancel(t.Context())
	got, err := m.Launch(ctx, cloud.MachineSpec{Run: "run-a", Token: "ta", Count: 1})
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	if list := mustListMachines(t, m, "run-a"); len(list) != 1 || list[0].ID != got[0].ID {
		t.Errorf("machines: %+v", list)
	}
	if _, err := m.Launch(ctx, cloud.MachineSpec{Run: "run-b", Token: "tb", Count: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("launch with a cancelled context: %v", err)
	}
}

func machinesCount(t *testing.T, m cloud.Machines) {
	for _, n := range []int{0, -1} {
		if _, err := m.Launch(t.Context(), cloud.MachineSpec{Run: "run-a", Count: n}); cloud.KindOf(err) != cloud.KindInvalid {
			t.Errorf("launch of %d: %v", n, err)
		}
	}
}
