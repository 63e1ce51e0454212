package aws

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

func launchFor(t *testing.T, m *Machines, run, role string, n int) []string {
	t.Helper()
	list, err := m.Launch(t.Context(), cloud.MachineSpec{Run: run, Token: "t" + role, Count: n, Types: []string{"m5.large"}, Spot: "on-demand", Role: role})
	if err != nil || len(list) != n {
		t.Fatalf("%d machines, %v", len(list), err)
	}
	var ids []string
	for _, x := range list {
		ids = append(ids, x.ID)
	}
	return ids
}

func runsOf(t *testing.T, m *Machines) map[string]int {
	t.Helper()
	list, err := m.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, x := range list {
		if x.State != "ended" {
			n[x.Run+x.Role]++
		}
	}
	return n
}

// A machine that joined another run is that run's: it is listed there, and the
// clean-up of its first run spares it, though one fleet launched them all.
func TestRetag(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEC2(&cloudtest.Region{Default: 60})
		m := newMachines(f, f, "us-east-1", MachinesOptions{})
		ids := launchFor(t, m, "r1", "", 3)
		if err := m.Retag(t.Context(), "r2", ids[0], "i-gone"); err != nil {
			t.Fatal(err)
		}
		other := newMachines(f, f, "us-east-1", MachinesOptions{}) // remembers no launch
		for _, c := range []*Machines{m, other} {
			if n := runsOf(t, c); n["r1"] != 2 || n["r2"] != 1 {
				t.Errorf("after retagging: %v", n)
			}
		}
		if f.retagged["vol-"+ids[0]][tagRun] != "r2" || f.retagged["vol-"+ids[1]] != nil {
			t.Errorf("tags of disks: %v", f.retagged)
		}
		for range 2 { // it may be repeated
			if err := other.Clean(t.Context(), "r1"); err != nil {
				t.Fatal(err)
			}
		}
		if live := f.region.Live(); len(live) != 1 || live[0].ID != ids[0] {
			t.Errorf("left: %+v", live)
		}
		if err := other.Clean(t.Context(), "r2"); err != nil {
			t.Fatal(err)
		}
		if live := f.region.Live(); len(live) != 0 {
			t.Errorf("left: %+v", live)
		}
		for _, bad := range []string{"", "a\nb", "r<1>"} {
			if err := m.Retag(t.Context(), bad, ids[0]); cloud.KindOf(err) != cloud.KindInvalid {
				t.Errorf("retag to %q: %v", bad, err)
			}
		}
	})
}

// A disk that is gone does not spare the others.
func TestRetagDisks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEC2(&cloudtest.Region{Default: 60})
		m := newMachines(f, f, "us-east-1", MachinesOptions{})
		ids := launchFor(t, m, "r1", "", 20)
		f.diskless = map[string]bool{ids[3]: true}
		if err := m.Retag(t.Context(), "r2", ids...); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			if got := f.retagged["vol-"+id][tagRun] == "r2"; got == f.diskless[id] {
				t.Errorf("the disk of %s: %v", id, f.retagged["vol-"+id])
			}
		}
	})
}

func TestCleanKeeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEC2(&cloudtest.Region{Default: 60})
		m := newMachines(f, f, "us-east-1", MachinesOptions{})
		ids := launchFor(t, m, "r1", "", 3)
		self := launchFor(t, m, "r1", cloud.RoleCoordinator, 1)
		if list, err := m.List(t.Context(), "r1"); err != nil || len(list) != 3 {
			t.Fatalf("the machines that work for the run: %+v, %v", list, err)
		}
		if n := runsOf(t, m); n["r1"] != 3 || n["r1coordinator"] != 1 {
			t.Fatalf("all: %v", n)
		}
		if err := m.Clean(t.Context(), "r1", self[0], ids[1]); err != nil {
			t.Fatal(err)
		}
		if n := runsOf(t, m); n["r1"] != 1 || n["r1coordinator"] != 1 || len(n) != 2 {
			t.Fatalf("kept: %v", n)
		}
		if err := m.Clean(t.Context(), "r1"); err != nil {
			t.Fatal(err)
		}
		if live := f.region.Live(); len(live) != 0 || len(f.fleets) != 0 || len(f.templates) != 0 {
			t.Errorf("left: %v, %v, %v", live, f.fleets, f.templates)
		}
	})
}

func TestTagsOfABill(t *testing.T) {
	t.Parallel()
	got := Tags(map[string]string{"team": "data", "bad": "a\nb", tagOwner: "somebody else"}, "taxi", "me@here")
	if want := map[string]string{"team": "data", tagPipeline: "taxi", tagOwner: "me@here"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Tags(nil, "", ""); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

// Whoever applies, machines and queues say who it was, in words that Amazon
// takes.
func TestOwnerIsATag(t *testing.T) {
	t.Parallel()
	for owner, want := range map[string]string{
		"me@here": "me@here", `DOMAIN\user@pc`: "DOMAIN_user@pc", "jörg, Zoë <x>@h": "j_rg_ Zo_ _x_@h", "a\nb\xff": "a_b_", strings.Repeat("ü", 300): strings.Repeat("_", 256), "": "",
	} {
		queue, machine := Tags(nil, "p", owner)[tagOwner], tagsOf(cloud.MachineSpec{Run: "r"}, Template{Owner: owner})[tagOwner]
		if queue != want || machine != want {
			t.Errorf("%q: %q on a queue and %q on a machine, want %q", owner, queue, machine, want)
		}
	}
}
