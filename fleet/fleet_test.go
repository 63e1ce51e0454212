package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// The codec of segments makes channels when it is first used: not in a bubble of
// synctest, which would own them.
func init() {
	b, err := (&wire.Segment{}).Encode()
	if err == nil {
		_, err = wire.DecodeSegment(b)
	}
	if err != nil {
		panic(err) // an empty segment can be encoded
	}
}

// owner is a coordinator that wants machines and writes down what it hears.
type owner struct {
	mu      sync.Mutex
	demand  []task.Demand
	changed []task.Machine
	lost    [][]string
	folded  []string // "<machine>/<session> <n>", in order
	held    []cloud.Range
	open    bool // Held was called
	limit   string
	done    bool
	err     error
}

func (o *owner) note(do func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	do()
}

func (o *owner) Demand() []task.Demand {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.demand
}
func (o *owner) StoppedFunctions() []string     { return nil }
func (o *owner) Folded() map[string]int         { return nil }
func (o *owner) Held(r []cloud.Range)           { o.note(func() { o.held, o.open = r, true }) }
func (o *owner) CapacityChanged()               {}
func (o *owner) Lost(_, _ string, ids []string) { o.note(func() { o.lost = append(o.lost, ids) }) }
func (o *owner) MachineChanged(m task.Machine)  { o.note(func() { o.changed = append(o.changed, m) }) }
func (o *owner) ReportSegment(id string, session, n int, _ []task.Batch, _ []string) {
	o.note(func() { o.folded = append(o.folded, fmt.Sprint(sessionName(id, session), " ", n)) })
}
func (o *owner) Limit(reason string)  { o.note(func() { o.limit = reason }) }
func (o *owner) AgentsDone(err error) { o.note(func() { o.done, o.err = true, err }) }

// named is a queue with a URL.
type named struct {
	*cloudtest.Queue
	name string
}

func (n named) URL() string { return n.name }

// put writes what a machine or a coordinator would.
func put(t *testing.T, store cloud.Store, key string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = store.Put(t.Context(), key, b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func control(t *testing.T, store cloud.Store) wire.Control {
	t.Helper()
	b, err := store.Get(t.Context(), wire.ControlKey("r"))
	var c wire.Control
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func begin(store cloud.Store, machines cloud.Machines, o *owner) *Fleet {
	return beginAs(1, store, machines, o)
}

func beginAs(epoch int, store cloud.Store, machines cloud.Machines, o *owner) *Fleet {
	f := New(Config{Run: "r", Epoch: func() int { return epoch }, Store: store, Machines: machines, Coordinator: o,
		OpenQueue: func(_ context.Context, name string) (Queue, error) { return named{cloudtest.NewQueue(), name}, nil },
		Kinds:     []Kind{{Name: "k", Functions: []string{"f"}, Max: 3}}})
	f.Start(context.Background())
	return f
}

// TestSuperseded: who finds that machines hear another coordinator leaves them
// and what they are told alone.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		o := &owner{demand: []task.Demand{running("f", 3, 0, 1000)}}
		f := begin(store, cloudtest.NewFleet(region), o)
		time.Sleep(time.Minute)
		if n := len(region.Live()); n != 3 || control(t, store).Epoch != 1 {
			t.Fatalf("%d machines, %+v", n, control(t, store))
		}
		other, _ := json.Marshal(wire.Control{Epoch: 2})
		if err := store.Put(t.Context(), wire.ControlKey("r"), other); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		o.note(func() {
			if !errors.Is(o.err, errSuperseded) {
				t.Errorf("the coordinator was told %v", o.err)
			}
		})
		if _, err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if c := control(t, store); c.Epoch != 2 {
			t.Errorf("the other's word was replaced by %+v", c)
		}
		if n := len(region.Live()); n != 3 {
			t.Errorf("%d machines of the other are left", n)
		}
	})
}

// TestIntentComesFirst: nothing is rented before it is recorded.
func TestIntentComesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		faulty := cloudtest.Faulty(store, cloudtest.Fault{Op: cloudtest.OpPut, Key: "/intents/", Times: -1, Kind: cloud.KindTransient})
		o := &owner{demand: []task.Demand{running("f", 3, 0, 1000)}}
		f := begin(faulty, cloudtest.NewFleet(region), o)
		time.Sleep(10 * time.Minute)
		if n := region.Count("launch"); n > 0 {
			t.Errorf("%d launches without a record", n)
		}
		if _, err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestNothingIsRentedAfterAStop: a launch that is still being recorded when the
// run is stopped is not made.
func TestNothingIsRentedAfterAStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		faulty := cloudtest.Faulty(store, cloudtest.Fault{Op: cloudtest.OpPut, Key: "/intents/", Times: 5, Kind: cloud.KindTransient})
		o := &owner{demand: []task.Demand{running("f", 3, 0, 1000)}}
		f := begin(faulty, cloudtest.NewFleet(region), o)
		time.Sleep(time.Second)
		f.StopWork()
		time.Sleep(time.Minute)
		if n := region.Count("launch"); n > 0 {
			t.Errorf("%d launches", n)
		}
		if left, err := f.Close(t.Context()); err != nil || left.String() != "0 machines left" {
			t.Errorf("%s, %v", left, err)
		}
	})
}

// TestLaunchThatNobodyHeardOf: machines whose launch seems to have failed are
// found, also where the run has no others.
func TestLaunchThatNobodyHeardOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		o := &owner{demand: []task.Demand{running("f", 3, 0, 1000)}}
		f := begin(store, deafLaunch{cloudtest.NewFleet(region)}, o)
		time.Sleep(time.Second)
		o.note(func() { o.demand = nil }) // nothing is launched again
		time.Sleep(10 * time.Minute)
		if n := len(f.Machines()); n == 0 || n != len(region.Live()) {
			t.Errorf("%d machines are known of %d", n, len(region.Live()))
		}
		if left, err := f.Close(t.Context()); err != nil || left.String() != "0 machines left" || len(region.Live()) > 0 {
			t.Errorf("%s, %v", left, err)
		}
	})
}

// deafLaunch launches machines and says that it did not.
type deafLaunch struct{ *cloudtest.Fleet }

func (d deafLaunch) Launch(ctx context.Context, spec cloud.MachineSpec) ([]cloud.Machine, error) {
	if _, err := d.Fleet.Launch(ctx, spec); err != nil {
		return nil, err
	}
	return nil, &cloud.Error{Op: "launch", Resource: "machines", Kind: cloud.KindOther}
}

// TestSlowLaunch: machines that turn up while their launch is still going on,
// because EC2 lets so many start only one by one, are not paid for twice.
func TestSlowLaunch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		o := &owner{demand: []task.Demand{running("f", 3, 0, 1000)}}
		f := New(Config{Run: "r", Epoch: func() int { return 1 }, Store: store, Machines: slowLaunch{cloudtest.NewFleet(region)}, Coordinator: o,
			OpenQueue: func(_ context.Context, name string) (Queue, error) { return named{cloudtest.NewQueue(), name}, nil },
			Limits:    Limits{Cost: 0.3},
			Kinds: []Kind{{Name: "k", Functions: []string{"f"}, Max: 3, Types: []string{"fake.large"}, Spot: "on-demand",
				Price: func(string, string, bool) float64 { return 1 }}}})
		f.Start(context.Background())
		time.Sleep(2*time.Minute + 40*time.Second)
		if n := len(region.Live()); n != 3 || len(f.Machines()) != 3 {
			t.Errorf("%d of 3 machines live, %d are known", n, len(f.Machines()))
		}
		o.note(func() {
			if o.limit != "" {
				t.Error(o.limit)
			}
		})
		if _, err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// slowLaunch launches machines and takes long to say so.
type slowLaunch struct{ *cloudtest.Fleet }

func (s slowLaunch) Launch(ctx context.Context, spec cloud.MachineSpec) ([]cloud.Machine, error) {
	list, err := s.Fleet.Launch(ctx, spec)
	pause(ctx, 10*time.Minute)
	return list, err
}

// TestCostIsRecorded: each machine is recorded when it joins and when it ends.
func TestCostIsRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		o := &owner{demand: []task.Demand{running("f", 3, 0, 1000)}}
		f := begin(store, cloudtest.NewFleet(region), o)
		time.Sleep(time.Minute)
		left, err := f.Close(t.Context())
		if err != nil || left.String() != "0 machines left" || len(region.Live()) > 0 {
			t.Fatalf("%s, %v", left, err)
		}
		joined, ended := map[string]bool{}, map[string]time.Duration{}
		for _, m := range o.changed {
			joined[m.ID] = true
			if !m.Ended.IsZero() {
				ended[m.ID] = m.Ended.Sub(m.Joined)
			}
		}
		if len(joined) != 3 || len(ended) != 3 {
			t.Fatalf("%v joined, %v ended", joined, ended)
		}
		for id, d := range ended {
			if d < time.Minute-time.Second || d > time.Minute+5*time.Second {
				t.Errorf("%s worked for %v", id, d)
			}
		}
	})
}

// TestNobodyElseKnows: a range that a machine has claimed, and told nobody of,
// is given back with the machine; and one that it claims when it has been given
// up is found, too.
func TestNobodyElseKnows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		o := &owner{demand: []task.Demand{running("f", 1, 0, 10)}}
		f := begin(store, cloudtest.NewFleet(region), o)
		time.Sleep(10 * time.Second)
		id := region.Live()[0].ID
		put(t, store, wire.BeatKey("r", id), wire.Beat{Machine: id, Session: 1, Kind: "k", Seq: 1, Epoch: 1, State: wire.StateWorking, Slots: 1})
		told := cloud.Range{Run: "r", Function: "f", From: 0, To: 1, Attempt: 1, ID: "1-1"}
		late := cloud.Range{Run: "r", Function: "f", From: 1, To: 2, Attempt: 1, ID: "1-2"}
		if err := f.Queue().Send(t.Context(), told, late); err != nil {
			t.Fatal(err)
		}
		put(t, store, wire.ClaimKey("r", "1-1"), wire.Claim{Machine: id, Session: 1, Range: told})
		time.Sleep(2 * time.Minute) // it falls silent
		o.note(func() {
			if len(o.lost) != 1 || len(o.lost[0]) != 1 || o.lost[0][0] != "1-1" {
				t.Fatalf("given back: %v", o.lost)
			}
		})
		if c := control(t, store); len(c.Lost) != 1 || c.Lost[0] != id+"/1" {
			t.Errorf("lost: %v", c.Lost)
		}
		put(t, store, wire.ClaimKey("r", "1-2"), wire.Claim{Machine: id, Session: 1, Range: late})
		time.Sleep(3 * time.Minute)
		o.note(func() {
			if len(o.lost) != 2 || o.lost[1][0] != "1-2" {
				t.Errorf("given back: %v", o.lost)
			}
		})
		if _, err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestCutOffAfterReport: what a session had reported counts, also where nobody
// heard of it before the machine began another one.
func TestCutOffAfterReport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
		o := &owner{demand: []task.Demand{running("f", 1, 0, 10)}}
		f := begin(store, cloudtest.NewFleet(region), o)
		time.Sleep(10 * time.Second)
		id := region.Live()[0].ID
		r := cloud.Range{Run: "r", Function: "f", From: 0, To: 1, Attempt: 1, ID: "1-1"}
		if err := f.Queue().Send(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		beat := wire.Beat{Machine: id, Session: 1, Kind: "k", Seq: 1, Epoch: 1, State: wire.StateWorking, Slots: 1, Held: []cloud.Range{r}}
		put(t, store, wire.BeatKey("r", id), beat)
		time.Sleep(10 * time.Second)
		for n, s := range []wire.Segment{
			{Session: 1, Ended: []string{"1-1"}, Batches: []task.Batch{{Function: "f", Outcomes: []task.Outcome{{Attempt: 1, Status: task.Succeeded}}}}},
			{Session: 2},
		} {
			s.Machine, s.N = id, n+1
			b, err := s.Encode()
			if err == nil {
				err = store.Put(t.Context(), wire.SegmentKey("r", id, n+1), b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		beat.Session, beat.Seq, beat.Segments, beat.Held = 2, 1, 2, nil
		put(t, store, wire.BeatKey("r", id), beat)
		time.Sleep(20 * time.Second)
		o.note(func() {
			if len(o.lost) > 0 || !slices.Equal(o.folded, []string{id + "/1 1", id + "/2 2"}) {
				t.Errorf("taken: %q, given back: %q", o.folded, o.lost)
			}
		})
		if _, err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestUntaggedMachine: a machine that came by invitation, and does not carry the
// name of the run, is kept by the next coordinator. One whose heartbeats ended
// long ago is not waited for, and what it ran counts as lost with it.
func TestUntaggedMachine(t *testing.T) {
	t.Parallel()
	for _, dead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := cloudtest.NewStore()
			put(t, store, wire.ControlKey("r"), wire.Control{Epoch: 1, Until: time.Now().Add(10 * time.Minute)})
			r := cloud.Range{Run: "r", Function: "f", From: 0, To: 1, Attempt: 1, ID: "1-1"}
			beat := wire.Beat{Machine: "i-warm", Session: 1, Kind: "k", Seq: 7, Epoch: 1, At: time.Now(), State: wire.StateWorking, Slots: 1, Held: []cloud.Range{r}}
			if dead {
				beat.At = beat.At.Add(-5 * time.Minute)
			}
			put(t, store, wire.BeatKey("r", "i-warm"), beat)
			o := &owner{}
			f := beginAs(2, store, cloudtest.NewFleet(&cloudtest.Region{}), o)
			time.Sleep(20 * time.Second)
			o.note(func() {
				if o.open != dead {
					t.Errorf("dead %v: work is handed out: %v", dead, o.open)
				}
			})
			for range 10 {
				if !dead {
					beat.Epoch, beat.At = 2, time.Now()
					beat.Seq++
					put(t, store, wire.BeatKey("r", "i-warm"), beat)
				}
				time.Sleep(20 * time.Second)
			}
			o.note(func() {
				if !o.open || len(o.held) != 1 || len(o.lost) > 0 != dead {
					t.Errorf("dead %v: held %v, lost %v", dead, o.held, o.lost)
				}
			})
			if m := f.Machines(); len(m) != 1 || (m[0].State == "ended") != dead {
				t.Errorf("dead %v: %+v", dead, m)
			}
			if lost := control(t, store).Lost; len(lost) > 0 != dead {
				t.Errorf("dead %v: lost %v", dead, lost)
			}
			if _, err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGivenUpBefore: what a machine held that the last coordinator had given up
// is somebody else's by now, also if the machine is still listed.
func TestGivenUpBefore(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store, machines := cloudtest.NewStore(), cloudtest.NewFleet(&cloudtest.Region{Default: 1})
			list, err := machines.Launch(t.Context(), cloud.MachineSpec{Run: "r", Pool: "k", Token: "t", Count: 1})
			if err != nil {
				t.Fatal(err)
			}
			id := list[0].ID
			time.Sleep(time.Minute)
			c := wire.Control{Epoch: 1, Until: time.Now().Add(10 * time.Minute)}
			if before {
				c.Lost = []string{sessionName(id, 1)}
			}
			put(t, store, wire.ControlKey("r"), c)
			r := cloud.Range{Run: "r", Function: "f", From: 0, To: 1, Attempt: 1, ID: "1-1"}
			put(t, store, wire.BeatKey("r", id), wire.Beat{Machine: id, Session: 1, Kind: "k", Seq: 7, Epoch: 1, At: time.Now(),
				State: wire.StateWorking, Slots: 1, Held: []cloud.Range{r}})
			time.Sleep(5 * time.Minute)
			o := &owner{}
			f := beginAs(2, store, machines, o)
			time.Sleep(5 * time.Minute)
			o.note(func() {
				if !o.open || len(o.held) > 0 == before || len(o.lost) > 0 == before {
					t.Errorf("given up before: %v; held %v, lost %v", before, o.held, o.lost)
				}
			})
			if _, err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGoneBeforeItWasSeen: machines that join and leave again at once, because
// they cannot be prepared, end the run; those that were ready do not.
func TestGoneBeforeItWasSeen(t *testing.T) {
	t.Parallel()
	for _, worked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
			o := &owner{demand: []task.Demand{running("f", 1000, 0, 1000)}}
			f := begin(store, cloudtest.NewFleet(region), o)
			for range 120 {
				time.Sleep(time.Second)
				for _, m := range region.Live() {
					put(t, store, wire.BeatKey("r", m.ID), wire.Beat{Machine: m.ID, Session: 1, Kind: "k", Seq: 1, Epoch: 1, At: time.Now(),
						State: wire.StateGone, Why: "could not go on: disk full", Worked: worked})
					region.PowerOff(m.ID)
				}
			}
			o.note(func() {
				if worked == (o.err != nil) || !worked && !strings.Contains(o.err.Error(), "3 machines in a row did not start") {
					t.Errorf("worked %v: %v", worked, o.err)
				}
			})
			if _, err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBootFails: a machine that leaves its log ends the run within seconds of
// its end, if there is no other; several machines may each fail.
func TestBootFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tasks int
		log   string
		want  string // of the error; "": none within the time
	}{
		"the only one": {1, "boot\nagent.gz: FAILED\n", "the machine did not start: it ended before it said hello\nboot\nagent.gz: FAILED"},
		"of three":     {1000, "boot\nagent.gz: FAILED\n", "3 machines in a row did not start"},
		"not a word":   {1, "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			store, region := cloudtest.NewStore(), &cloudtest.Region{Default: 10}
			for key, text := range map[string]string{wire.BootLogKey("r", "k"): "of an earlier coordinator's machine", wire.ControlKey("r"): "{}"} {
				if err := store.Put(t.Context(), key, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			o := &owner{demand: []task.Demand{running("f", c.tasks, 0, 1000)}}
			f := begin(store, cloudtest.NewFleet(region), o)
			time.Sleep(10 * time.Second)
			if c.log != "" {
				if err := store.Put(t.Context(), wire.BootLogKey("r", "k"), []byte(c.log)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(3 * time.Second)
			for _, m := range region.Live() {
				region.PowerOff(m.ID)
			}
			time.Sleep(5 * time.Second)
			o.note(func() {
				if c.want == "" && o.err != nil || c.want != "" && (o.err == nil || !strings.HasPrefix(o.err.Error(), c.want)) {
					t.Errorf("%s: %v", name, o.err)
				}
			})
			if _, err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
