package aws

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// TestSweepServer leaves things of several runs behind, on a server that nobody
// here wrote, and finds those that are left over.
func TestSweepServer(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	ctx := t.Context()
	m, err := OpenMachines(ctx, MachinesOptions{Types: []string{"m5.large"}, Template: func(s cloud.MachineSpec) (Template, error) {
		x := Template{Store: "s3://team/" + s.Run}
		if s.Run == "expired" {
			x.Expires = time.Now().Add(time.Hour)
		}
		return x, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := OpenSecrets(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string][]string{}
	for _, run := range []string{"over", "lives", "unknown", "expired"} {
		got, err := m.Launch(ctx, cloud.MachineSpec{Run: run, Token: run, Count: 2, Spot: "spot"})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range got {
			ids[run] = append(ids[run], x.ID)
		}
		if _, err := OpenQueue(ctx, QueueOptions{Run: run, Kind: "m-1", Store: "s3://team/" + run}); err != nil {
			t.Fatal(err)
		}
		secrets.Store = "s3://team/" + run
		if _, err := secrets.PutSecrets(ctx, run, map[string]string{"TOKEN": "hunter2"}); err != nil {
			t.Fatal(err)
		}
	}
	// A machine of the run that is over works for another by now.
	if err := m.Retag(ctx, "lives", ids["over"][0]); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSweeper(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the store does not answer")
	o := SweepOptions{Marks: map[string]time.Time{}, Over: func(_ context.Context, x Thing) (bool, string, error) {
		if want := "s3://team/" + x.Run; x.Store != want && !slices.Contains(ids["over"], x.ID) {
			t.Errorf("%s %s of %s: its store is %q", x.Kind, x.ID, x.Run, x.Store)
		}
		switch x.Run {
		case "over":
			return true, "the run ended", nil
		case "unknown":
			return true, "", broken // an error is no answer, whatever else is said
		}
		return false, "", nil
	}}
	live := func() (n int) {
		t.Helper()
		list, err := m.Instances(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	count := func(list []Leftover, state string) map[string]int {
		n := map[string]int{}
		for _, l := range list {
			if l.State != state {
				t.Errorf("%s %s is %s, not %s", l.Kind, l.ID, l.State, state)
			}
			if l.Why == "" {
				t.Errorf("%s %s: no reason", l.Kind, l.ID)
			}
			n[l.Kind]++
		}
		return n
	}

	if list, err := s.Sweep(ctx, o); err != nil || len(list) != 0 {
		t.Fatalf("all of it is young: %v, %v", list, err)
	}
	s.now = func() time.Time { return time.Now().Add(30 * time.Minute) }
	dry := o
	dry.Dry = true
	list, err := s.Sweep(ctx, dry)
	// The fleet launched a machine that works for another run.
	want := map[string]int{ThingMachine: 1, ThingTemplate: 1, ThingQueue: 1, ThingSecret: 1}
	if got := count(list, "found"); !errors.Is(err, broken) || len(got) != 4 || got[ThingMachine] != 1 || len(o.Marks) != 0 {
		t.Fatalf("dry: %v, %v, marks %v", got, err, o.Marks)
	}
	if list, _ = s.Sweep(ctx, o); count(list, "marked")[ThingQueue] != 1 || len(o.Marks) != 4 || live() != 8 {
		t.Fatalf("first sight: %v, marks %v, %d live", list, o.Marks, live())
	}
	list, err = s.Sweep(ctx, o)
	got := count(list, "removed")
	for kind, n := range want {
		if got[kind] != n {
			t.Errorf("%d of kind %s were removed, want %d", got[kind], kind, n)
		}
	}
	if !errors.Is(err, broken) || live() != 7 || len(o.Marks) != 0 || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("%d live, marks %v, %v", live(), o.Marks, err)
	}
	// Its life is over: whatever anybody says of the run.
	s.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	o.Now = true
	if list, _ = s.Sweep(ctx, o); count(list, "removed")[ThingMachine] != 2 || live() != 5 {
		t.Fatalf("expired: %v, %d live", list, live())
	}
	o.Over = func(context.Context, Thing) (bool, string, error) { return true, "all runs ended", nil }
	list, err = s.Sweep(ctx, o)
	if got := count(list, "removed"); err != nil || live() != 0 || got[ThingFleet] < 3 {
		t.Fatalf("%v, %v, %d live", got, err, live())
	}
	if list, err = s.Sweep(ctx, o); err != nil || len(list) != 0 {
		t.Errorf("nothing should be left: %v, %v", list, err)
	}
}
