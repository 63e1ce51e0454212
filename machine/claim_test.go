//go:build linux

package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

func (r *rig) claimFor(x cloud.Range, machine string, session int) {
	r.put(wire.ClaimKey(x.Run, x.ID), wire.Claim{Machine: machine, Session: session, Nonce: "other", Range: x, At: time.Now()})
}

func (r *rig) claim(x cloud.Range) wire.Claim {
	r.t.Helper()
	var c wire.Claim
	b, err := r.store.Get(r.ctx, wire.ClaimKey(x.Run, x.ID))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// A range that another machine has claimed is looked at again, until that
// machine is given up: then its message is dropped, as the coordinator hands
// the range out anew.
func TestClaimConflict(t *testing.T) {
	bubble(t, func(r *rig) {
		r.extend("r1")
		x := r.send("r1", 1, [2]int{0, 2})[0]
		r.claimFor(x, "i-2", 3)
		r.start()
		time.Sleep(8 * time.Minute)
		if r.startCount() != 0 || r.queue("r1").Len() != 1 {
			t.Fatalf("%d tasks were started, %d messages", r.startCount(), r.queue("r1").Len())
		}
		r.tell("r1", func(c *wire.Control) { c.Lost = []string{"i-2/3"} })
		r.send("r1", 1, [2]int{5, 6}) // keeps it from being idle for too long
		time.Sleep(3 * time.Minute)
		if r.startCount() != 1 || r.queue("r1").Len() != 0 {
			t.Errorf("%d tasks were started, %d messages", r.startCount(), r.queue("r1").Len())
		}
		if c := r.claim(x); c.Machine != "i-2" {
			t.Errorf("the claim is %+v", c)
		}
		r.finish()
	})
}

// Where only the reply is lost, claims, segments and beats count.
func TestRepliesAreLost(t *testing.T) {
	for _, what := range []string{"/claims/", "/seg-", "/beat.json"} {
		t.Run(strings.Trim(what, "/-"), func(t *testing.T) {
			bubble(t, func(r *rig) {
				var n atomic.Int32
				r.link.lost = func(op, key string) error {
					if strings.Contains(key, what) && n.Add(1)%2 == 1 {
						return &cloud.Error{Op: op, Resource: key, Kind: cloud.KindTransient}
					}
					return nil
				}
				r.send("r1", 1, [2]int{0, 2}, [2]int{2, 4}, [2]int{4, 6}, [2]int{6, 8})
				r.start()
				time.Sleep(20 * time.Second)
				if by, unrun, ended := r.outcomes("r1"); len(by) != 8 || len(unrun) != 0 || len(ended) != 4 || r.startCount() != 8 {
					t.Errorf("%d outcomes, %d not run, %d ended, %d starts", len(by), len(unrun), len(ended), r.startCount())
				}
				r.finish()
			})
		})
	}
}

func TestDeliveredTwice(t *testing.T) {
	bubble(t, func(r *rig) {
		r.extend("r1")
		r.queue("r1").Twice = func(int) bool { return true }
		r.queue("r1").Visibility = 20 * time.Second // while a task of a minute runs
		r.takes = func(int) time.Duration { return time.Minute }
		for i := range 5 {
			r.send("r1", 1, [2]int{i, i + 1})
		}
		r.start()
		time.Sleep(9 * time.Minute)
		if by, _, ended := r.outcomes("r1"); len(by) != 5 || len(ended) != 5 || r.startCount() != 5 {
			t.Errorf("%d outcomes, %d ended, %d starts", len(by), len(ended), r.startCount())
		}
		time.Sleep(4 * time.Minute)
		if n := r.queue("r1").Len(); n != 0 {
			t.Errorf("%d messages are left", n)
		}
		r.finish()
	})
}

// Messages that are not for this machine to work on are dropped or kept.
func TestAdmit(t *testing.T) {
	t.Parallel()
	c := &wire.Control{Epoch: 2}
	ok := cloud.Range{Run: "r", Function: "f", From: 0, To: 1, ID: "2-1"}
	with := func(fn func(*cloud.Range)) *cloud.Range { x := ok; fn(&x); return &x }
	for _, x := range []struct {
		name string
		r    *cloud.Range
		held bool
		want answer
	}{
		{"fine", &ok, false, take},
		{"of another run", with(func(r *cloud.Range) { r.Run = "s" }), false, drop},
		{"a hint", with(func(r *cloud.Range) { r.Hint = "{}" }), false, drop},
		{"without a name", with(func(r *cloud.Range) { r.ID = "" }), false, drop},
		{"empty", with(func(r *cloud.Range) { r.To = 0 }), false, drop},
		{"of an earlier coordinator", with(func(r *cloud.Range) { r.ID = "1-1" }), false, drop},
		{"of an earlier coordinator, in hand", with(func(r *cloud.Range) { r.ID = "1-1" }), true, later},
		{"of a later coordinator", with(func(r *cloud.Range) { r.ID = "3-1" }), false, later},
		{"in hand", &ok, true, later},
		{"with all the memory it has", with(func(r *cloud.Range) { r.Memory = 8 << 30 }), false, take},
		{"for larger machines", with(func(r *cloud.Range) { r.Memory = 16 << 30 }), false, later},
	} {
		if got, _ := admit(x.r, "r", 8<<30, c, x.held); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

func TestConflict(t *testing.T) {
	t.Parallel()
	mine := &wire.Claim{Machine: "i-1", Session: 2, Nonce: "n", Range: cloud.Range{ID: "2-1"}}
	for _, x := range []struct {
		name  string
		found wire.Claim
		c     wire.Control
		want  answer
	}{
		{"our own reply was lost", wire.Claim{Machine: "i-1", Session: 2, Nonce: "n"}, wire.Control{Epoch: 2}, take},
		{"another lives", wire.Claim{Machine: "i-2", Session: 1}, wire.Control{Epoch: 2}, later},
		{"another is lost", wire.Claim{Machine: "i-2", Session: 1}, wire.Control{Epoch: 2, Lost: []string{"i-2/1"}}, drop},
		{"another was lost before", wire.Claim{Machine: "i-2", Session: 2}, wire.Control{Epoch: 2, Lost: []string{"i-2/1"}}, later},
		{"we were cut off", wire.Claim{Machine: "i-1", Session: 1}, wire.Control{Epoch: 2}, drop},
		{"of an earlier coordinator", wire.Claim{Machine: "i-2", Session: 1}, wire.Control{Epoch: 3}, drop},
		{"ended here", wire.Claim{Machine: "i-1", Session: 2, Nonce: "m"}, wire.Control{Epoch: 2}, drop},
	} {
		if got, _ := conflict(&x.found, mine, &x.c); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

// A machine that nobody could hear of ends its tasks, says nothing of them, and
// goes on as another.
func TestCutOff(t *testing.T) {
	bubble(t, func(r *rig) {
		r.extend("r1")
		r.takes = func(i int) time.Duration { return time.Duration(i) * time.Second }
		r.send("r1", 1, [2]int{1, 2}, [2]int{500, 502})
		r.start()
		time.Sleep(10 * time.Second)
		r.link.down.Store(true)
		time.Sleep(wire.CutOff + 10*time.Second)
		if n := r.startCount(); n != 2 {
			t.Errorf("%d tasks were started", n)
		}
		time.Sleep(time.Minute)
		r.link.down.Store(false)
		time.Sleep(10 * time.Second)
		if b := r.beat("r1"); b.Session != 2 || len(b.Held) != 0 || b.State != wire.StateWorking {
			t.Errorf("beat: %+v", b)
		}
		by, unrun, ended := r.outcomes("r1")
		if len(by) != 1 || len(unrun) != 0 || len(ended) != 1 {
			t.Errorf("%v was reported, %v as not run, %v as ended", by, unrun, ended)
		}
		r.send("r1", 1, [2]int{2, 3})
		time.Sleep(10 * time.Second)
		segs := r.segments("r1")
		if last := segs[len(segs)-1]; last.Session != 2 || len(last.Ended) != 1 {
			t.Errorf("last segment: %+v", last)
		}
		// What it had comes again: it is not for this session.
		time.Sleep(3 * time.Minute)
		if n := r.startCount(); n != 3 {
			t.Errorf("%d tasks were started", n)
		}
		if n := r.queue("r1").Len(); n != 0 {
			t.Errorf("%d messages are left", n)
		}
		r.finish()
	})
}

// Shorter outages change nothing.
func TestShortOutage(t *testing.T) {
	bubble(t, func(r *rig) {
		r.extend("r1")
		r.takes = func(int) time.Duration { return 5 * time.Second }
		r.send("r1", 1, [2]int{0, 10}, [2]int{10, 20})
		r.start()
		time.Sleep(7 * time.Second)
		r.link.down.Store(true)
		time.Sleep(wire.CutOff - 12*time.Second)
		r.link.down.Store(false)
		time.Sleep(20 * time.Second)
		if by, _, _ := r.outcomes("r1"); len(by) != 20 || r.beat("r1").Session != 1 {
			t.Errorf("%d outcomes, session %d", len(by), r.beat("r1").Session)
		}
		r.finish()
	})
}

func TestGivenUp(t *testing.T) {
	bubble(t, func(r *rig) {
		r.takes = func(int) time.Duration { return 20 * time.Second }
		r.send("r1", 1, [2]int{0, 2})
		r.start()
		time.Sleep(10 * time.Second)
		r.tell("r1", func(c *wire.Control) { c.Lost = []string{"i-1/1", "i-7/1"} })
		time.Sleep(10 * time.Second)
		if b := r.beat("r1"); b.Session != 2 || len(b.Held) != 0 {
			t.Errorf("beat: %+v", b)
		}
		if by, unrun, _ := r.outcomes("r1"); len(by)+len(unrun) != 0 {
			t.Errorf("%v, %v", by, unrun)
		}
		r.send("r1", 1, [2]int{0, 1})
		time.Sleep(25 * time.Second)
		if by, _, _ := r.outcomes("r1"); by[0].Status != task.Succeeded {
			t.Errorf("%+v", by)
		}
		r.finish()
	})
}

// Another coordinator is told at once and exactly what is held; from then on
// nothing comes from the old queue.
func TestEpoch(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("old queue closed %v", closed), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.takes = func(int) time.Duration { return 30 * time.Second }
				old := r.queue("r1")
				have := r.send("r1", 1, [2]int{0, 1})[0]
				r.start()
				time.Sleep(4 * time.Second)
				r.newQueue("r1-2")
				r.put(wire.StartKey("r1", "f", 2), wire.Start{Function: "f", Count: 1000})
				r.tell("r1", func(c *wire.Control) {
					c.Epoch = 2
					c.Kinds = map[string]wire.KindControl{"k": {Queue: "r1-2", More: true}}
				})
				if closed {
					if err := old.Close(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				} else {
					time.Sleep(wire.ControlEvery + time.Second)
					if err := old.Send(r.ctx, cloud.Range{Run: "r1", Function: "f", From: 5, To: 6, Attempt: 1, ID: "1-99"}); err != nil {
						t.Fatal(err)
					}
				}
				if b := r.beat("r1"); b.Epoch != 2 || len(b.Held) != 1 || b.Held[0].ID != have.ID || b.Session != 1 {
					t.Errorf("beat: %+v", b)
				}
				// A message that another's coordinator left behind, and one of the new.
				r.send("r1", 1, [2]int{7, 8})
				r.send("r1", 2, [2]int{8, 9})
				time.Sleep(40 * time.Second)
				by, _, ended := r.outcomes("r1")
				if len(by) != 2 || by[0].Status != task.Succeeded || by[8].Status != task.Succeeded || len(ended) != 2 {
					t.Errorf("%+v, ended %v", by, ended)
				}
				if n := r.queue("r1").Len(); n != 0 {
					t.Errorf("%d messages are left", n)
				}
				r.finish()
			})
		})
	}
}

// A range whose end was not reported yet is held: the next coordinator would
// hand it out again.
func TestEpochBeforeReport(t *testing.T) {
	bubble(t, func(r *rig) {
		r.tell("r1", func(c *wire.Control) { c.Pace = time.Minute })
		r.takes = func(i int) time.Duration {
			if i == 1 {
				return 5 * time.Minute
			}
			return time.Second
		}
		r.send("r1", 1, [2]int{2, 3}, [2]int{1, 2})
		r.start()
		time.Sleep(5 * time.Second)
		ended := r.send("r1", 1, [2]int{0, 1})[0]
		time.Sleep(5 * time.Second)
		if by, _, _ := r.outcomes("r1"); len(by) != 1 || r.startCount() != 3 {
			t.Fatalf("%d outcomes of %d starts", len(by), r.startCount())
		}
		r.newQueue("r1-2")
		r.tell("r1", func(c *wire.Control) {
			c.Epoch = 2
			c.Kinds = map[string]wire.KindControl{"k": {Queue: "r1-2", More: true}}
		})
		time.Sleep(wire.ControlEvery + time.Second)
		holds := func() bool {
			return slices.ContainsFunc(r.beat("r1").Held, func(h cloud.Range) bool { return h.ID == ended.ID })
		}
		if b := r.beat("r1"); b.Epoch != 2 || len(b.Held) != 2 || !holds() {
			t.Errorf("beat before the report: %+v", b)
		}
		time.Sleep(2 * time.Minute)
		if by, _, _ := r.outcomes("r1"); len(by) != 2 || len(r.beat("r1").Held) != 1 || holds() {
			t.Errorf("beat behind the report: %+v", r.beat("r1"))
		}
		r.finish()
	})
}

// A claim that is on its way while another coordinator takes over is not
// started: the beat for that did not have it.
func TestEpochWhileClaiming(t *testing.T) {
	bubble(t, func(r *rig) {
		release := make(chan struct{})
		r.link.lost = func(_, key string) error {
			if strings.Contains(key, "/claims/") {
				<-release
			}
			return nil
		}
		r.send("r1", 1, [2]int{0, 1})
		r.start()
		time.Sleep(time.Second)
		r.newQueue("r1-2")
		r.tell("r1", func(c *wire.Control) {
			c.Epoch = 2
			c.Kinds = map[string]wire.KindControl{"k": {Queue: "r1-2", More: true}}
		})
		time.Sleep(10 * time.Second)
		if b := r.beat("r1"); b.Epoch != 2 || len(b.Held) != 0 {
			t.Errorf("beat: %+v", b)
		}
		close(release)
		time.Sleep(10 * time.Second)
		if r.startCount() != 0 || len(r.beat("r1").Held) != 0 {
			t.Errorf("%d starts, beat %+v", r.startCount(), r.beat("r1"))
		}
		r.finish()
	})
}

// What a coordinator that was replaced still writes does not count.
func TestOldCoordinatorWritesOn(t *testing.T) {
	bubble(t, func(r *rig) {
		r.tell("r1", func(c *wire.Control) { c.Epoch = 2 })
		r.put(wire.StartKey("r1", "f", 2), wire.Start{Function: "f", Count: 1000})
		r.send("r1", 2, [2]int{0, 1})
		r.start()
		time.Sleep(3 * time.Second)
		r.tell("r1", func(c *wire.Control) { c.Epoch, c.Stop = 1, wire.StopCancel })
		time.Sleep(20 * time.Second)
		if b := r.beat("r1"); b.Epoch != 2 || b.State != wire.StateWorking {
			t.Errorf("beat: %+v", b)
		}
		r.tell("r1", func(c *wire.Control) { c.Epoch, c.Stop = 2, "" })
		r.finish()
	})
}

// An outage that is shorter than what cuts a machine off fails no task, however
// it comes upon what tasks store.
func TestPatientStore(t *testing.T) {
	bubble(t, func(r *rig) {
		limit, giveUp := context.WithCancel(r.ctx)
		s := &patient{Store: r.link, patience: func() context.Context { return limit }}
		during := func(d time.Duration) {
			r.link.down.Store(true)
			time.AfterFunc(d, func() { r.link.down.Store(false) })
		}
		during(20 * time.Second)
		if err := s.Put(r.ctx, "a", []byte("1")); err != nil {
			t.Error(err)
		}
		during(20 * time.Second)
		if err := s.PutFrom(r.ctx, "b", strings.NewReader("22")); err != nil {
			t.Error(err)
		}
		during(20 * time.Second)
		if b, err := s.Get(r.ctx, "b"); err != nil || string(b) != "22" {
			t.Errorf("%q, %v", b, err)
		}
		n := 0
		r.link.lost = func(op, key string) error {
			if n++; n == 1 {
				return &cloud.Error{Op: op, Resource: key, Kind: cloud.KindTransient}
			}
			return nil
		}
		if err := s.Create(r.ctx, "c", []byte("3")); err != nil {
			t.Errorf("created, and the reply lost: %v", err)
		}
		if err := s.Create(r.ctx, "c", []byte("3")); cloud.KindOf(err) != cloud.KindConflict {
			t.Errorf("created again: %v", err)
		}
		if _, err := s.Get(r.ctx, "none"); cloud.KindOf(err) != cloud.KindNotFound {
			t.Errorf("nothing: %v", err)
		}
		during(time.Hour)
		time.AfterFunc(time.Minute, giveUp)
		begun := time.Now()
		if err := s.Put(r.ctx, "d", nil); cloud.KindOf(err) != cloud.KindTransient || time.Since(begun) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}
