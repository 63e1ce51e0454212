//go:build linux

package machine

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// keepalive makes the machine wait for another run after the first.
func (r *rig) keepalive(d time.Duration) {
	for _, run := range []string{"r1", "r2"} {
		setup := wire.Setup{Pool: "p", Threads: 2, IdleTimeout: 10 * time.Minute, MaxLife: 24 * time.Hour, KeepAlive: d}
		if r.control[run] == nil {
			r.addRun(run, setup)
			continue
		}
		setup.Run, setup.Kind = run, "k"
		r.put(wire.SetupKey(run, "k"), setup)
	}
}

// invite is what a coordinator does; false: the machine was first.
func (r *rig) invite(run string, n int) bool {
	r.t.Helper()
	b, _ := json.Marshal(wire.Invite{Run: run, Kind: "k"})
	err := r.store.Create(r.ctx, wire.InviteKey("p", "i-1", n), b)
	if err != nil && cloud.KindOf(err) != cloud.KindConflict {
		r.t.Fatal(err)
	}
	return err == nil
}

func (r *rig) idle(n int) (i wire.Idle, found bool) {
	b, err := r.store.Get(r.ctx, wire.IdleKey("p", "i-1", n))
	return i, err == nil && json.Unmarshal(b, &i) == nil
}

func TestKeepAlive(t *testing.T) {
	bubble(t, func(r *rig) {
		r.keepalive(30 * time.Second)
		r.send("r1", 1, [2]int{0, 1})
		r.start()
		time.Sleep(3 * time.Second)
		r.tell("r1", func(c *wire.Control) { c.Stop = wire.StopFinished })
		time.Sleep(10 * time.Second)
		i, found := r.idle(1)
		if !found || i.Run != "r1" || i.N != 1 || i.Slots != 2 || i.Type != "m6i.large" || i.Machine != "i-1" {
			t.Fatalf("idle: %+v, %v", i, found)
		}
		if b := r.beat("r1"); b.State != wire.StateGone {
			t.Errorf("beat in the old run: %+v", b)
		}
		r.send("r2", 1, [2]int{0, 2})
		if !r.invite("r2", 1) {
			t.Fatal("it has left already")
		}
		begun := time.Now()
		for r.startCount() < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(begun); d > 150*time.Millisecond {
			t.Errorf("%v from the invitation to the first task", d)
		}
		time.Sleep(5 * time.Second)
		if by, _, _ := r.outcomes("r2"); len(by) != 2 || by[1].Status != task.Succeeded {
			t.Errorf("%+v", by)
		}
		if b := r.beat("r2"); b.Session != 1 {
			t.Errorf("beat in the new run: %+v", b)
		}
		begun = time.Now()
		r.more("r2", false)
		r.wait()
		if d := time.Since(begun); d < 30*time.Second || d > 37*time.Second {
			t.Errorf("it powered off after %v", d)
		}
		if r.invite("r1", 2) {
			t.Error("a machine that is gone could be invited")
		}
		if last := r.host.armed[len(r.host.armed)-1]; last.After(time.Now().Add(3 * time.Minute)) {
			t.Errorf("the timer of the system stands at %v from now", time.Until(last))
		}
	})
}

// It may come back to a run in which it has been.
func TestKeepAliveSameRun(t *testing.T) {
	bubble(t, func(r *rig) {
		r.keepalive(30 * time.Second)
		r.send("r1", 1, [2]int{0, 1})
		r.start()
		time.Sleep(3 * time.Second)
		r.more("r1", false)
		time.Sleep(10 * time.Second)
		r.more("r1", true)
		r.send("r1", 1, [2]int{1, 2})
		if !r.invite("r1", 1) {
			t.Fatal("it has left already")
		}
		time.Sleep(10 * time.Second)
		by, _, _ := r.outcomes("r1")
		if b := r.beat("r1"); b.Session != 2 || len(by) != 2 || b.Segments != 2 {
			t.Errorf("beat: %+v, %d outcomes", b, len(by))
		}
		r.finish()
	})
}

// Of an invitation and the machine's leaving at the same moment one counts.
func TestInviteRace(t *testing.T) {
	t.Parallel()
	joined := 0
	for i := range 40 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.keepalive(10 * time.Second)
			r.start()
			time.Sleep(time.Second)
			r.more("r1", false)
			for {
				if _, ok := r.idle(1); ok {
					break
				}
				time.Sleep(time.Millisecond)
			}
			time.Sleep(9900*time.Millisecond + time.Duration(i)*5*time.Millisecond)
			invited := r.invite("r2", 1)
			time.Sleep(3 * time.Second)
			if there := r.beat("r2").Session == 1; there != invited {
				t.Errorf("invited: %v, came: %v", invited, there)
			}
			if invited {
				joined++
				r.more("r2", false)
			}
			r.wait()
			for _, fn := range r.closers {
				fn()
			}
		})
	}
	if joined == 0 || joined == 40 {
		t.Errorf("it came %d times of 40: there was no race", joined)
	}
}

// No machine waits after what does not leave it fit for another run.
func TestNoKeepAlive(t *testing.T) {
	for name, end := range map[string]func(r *rig){
		"cancel": func(r *rig) { r.tell("r1", func(c *wire.Control) { c.Stop = wire.StopCancel }) },
		"notice": func(r *rig) { r.host.take(time.Now().Add(2 * time.Minute)) },
		"grant":  func(r *rig) { r.tell("r1", func(c *wire.Control) { c.Until = time.Now() }) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.host.id.Spot = true
				r.keepalive(time.Hour)
				r.start()
				time.Sleep(10 * time.Second)
				begun := time.Now()
				end(r)
				r.wait()
				if d := time.Since(begun); d > 15*time.Second {
					t.Errorf("it took %v", d)
				}
				if _, found := r.idle(1); found {
					t.Error("it waited for another run")
				}
			})
		})
	}
}

// A notice ends the waiting.
func TestNoticeWhileWaiting(t *testing.T) {
	bubble(t, func(r *rig) {
		r.host.id.Spot = true
		r.keepalive(time.Hour)
		r.start()
		time.Sleep(10 * time.Second)
		r.more("r1", false)
		time.Sleep(10 * time.Second)
		if _, found := r.idle(1); !found {
			t.Fatal("it does not wait")
		}
		begun := time.Now()
		r.host.take(begun.Add(2 * time.Minute))
		r.wait()
		if d := time.Since(begun); d > 6*time.Second {
			t.Errorf("it took %v", d)
		}
		if r.invite("r2", 1) {
			t.Error("it could be invited")
		}
	})
}

// Without the store nobody knows whether the machine was invited: it ends.
func TestStoreGoneWhileWaiting(t *testing.T) {
	bubble(t, func(r *rig) {
		r.keepalive(20 * time.Second)
		r.start()
		time.Sleep(5 * time.Second)
		r.more("r1", false)
		time.Sleep(10 * time.Second)
		r.link.down.Store(true)
		begun := time.Now()
		r.wait()
		if d := time.Since(begun); d > 20*time.Second+2*inviteWithin {
			t.Errorf("it took %v", d)
		}
	})
}

func TestInvitedToNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.keepalive(20 * time.Second)
		r.start()
		time.Sleep(5 * time.Second)
		r.more("r1", false)
		time.Sleep(10 * time.Second)
		if !r.invite("nowhere", 1) {
			t.Fatal("it has left already")
		}
		r.wait()
		if n := fmt.Sprint(r.host.offs); n != "1" {
			t.Errorf("power off %s times", n)
		}
	})
}

func TestLookEvery(t *testing.T) {
	t.Parallel()
	for machines, want := range map[int]time.Duration{1: lookOften, 250: lookOften, 500: 200 * time.Millisecond, 1000: 400 * time.Millisecond, 10_000: lookRarely} {
		pace := max(time.Second, time.Duration(machines)*time.Second/50) // as the coordinator asks for
		if got := lookEvery(pace); got != want {
			t.Errorf("%d machines look every %v, want %v", machines, got, want)
		}
	}
}
