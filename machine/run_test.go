//go:build linux

package machine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

func TestWorksAndLeaves(t *testing.T) {
	bubble(t, func(r *rig) {
		ranges := r.send("r1", 1, [2]int{0, 3}, [2]int{3, 6}, [2]int{6, 7})
		r.start()
		time.Sleep(1500 * time.Millisecond)
		b := r.beat("r1")
		if b.State != wire.StateWorking || len(b.Held) != 2 || b.Session != 1 || b.Epoch != 1 || b.Slots != 2 || len(b.Live) != 2 {
			t.Errorf("beat while working: %+v", b)
		}
		if b.Type != "m6i.large" || b.Zone != "z-1a" || b.Metrics.CPUs != 4 {
			t.Errorf("the beat does not say which machine this is: %+v", b)
		}
		time.Sleep(10 * time.Second)
		by, unrun, ended := r.outcomes("r1")
		if len(by) != 7 || len(unrun) != 0 || len(ended) != 3 {
			t.Errorf("%d outcomes, %d not run, %d ranges ended", len(by), len(unrun), len(ended))
		}
		for i, o := range by {
			if o.Status != task.Succeeded || o.Machine != "i-1" {
				t.Errorf("task %d: %+v", i, o)
			}
		}
		if n := r.queue("r1").Len(); n != 0 {
			t.Errorf("%d messages are left of ranges whose outcomes are stored", n)
		}
		if n := len(r.keys("runs/r1/claims/")); n != len(ranges) {
			t.Errorf("%d claims", n)
		}
		if r.hints.Len() == 0 {
			t.Error("no hint was sent")
		}
		if b := r.beat("r1"); len(b.Held) != 0 || b.Segments != len(r.segments("r1")) {
			t.Errorf("beat afterwards: %+v", b)
		}
		r.finish()
		if b := r.beat("r1"); b.State != wire.StateGone || b.Why == "" || len(b.Held) != 0 {
			t.Errorf("last beat: %+v", b)
		}
		if log, err := r.store.Get(r.ctx, wire.AgentLogKey("r1", "i-1")); err != nil || string(log) != "the log" {
			t.Errorf("log: %q, %v", log, err)
		}
	})
}

// A beat comes every 30 s while nothing happens, and not much more often.
func TestBeatsWhileIdle(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		time.Sleep(5 * time.Second)
		first := r.beat("r1")
		time.Sleep(5 * time.Minute)
		if n := r.beat("r1").Seq - first.Seq; n < 9 || n > 11 {
			t.Errorf("%d beats in five minutes", n)
		}
		r.finish()
	})
}

func TestIdleTimeout(t *testing.T) {
	bubble(t, func(r *rig) {
		r.extend("r1")
		r.send("r1", 1, [2]int{0, 1})
		begun := time.Now()
		r.start()
		r.wait()
		if d := time.Since(begun); d < 10*time.Minute || d > 11*time.Minute {
			t.Errorf("left after %v", d)
		}
	})
}

// A machine without work leaves as soon as it is told that there is none; one
// with work ends that first.
func TestNoMore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.takes = func(int) time.Duration { return time.Minute }
		r.send("r1", 1, [2]int{0, 1})
		r.start()
		time.Sleep(10 * time.Second)
		begun := time.Now()
		r.finish()
		if d := time.Since(begun); d < 50*time.Second || d > 55*time.Second {
			t.Errorf("left after %v", d)
		}
		if by, _, _ := r.outcomes("r1"); by[0].Status != task.Succeeded {
			t.Errorf("the task: %+v", by[0])
		}
	})
}

func TestCancel(t *testing.T) {
	bubble(t, func(r *rig) {
		r.takes = func(int) time.Duration { return time.Hour }
		r.send("r1", 1, [2]int{0, 3})
		r.start()
		time.Sleep(10 * time.Second)
		begun := time.Now()
		r.tell("r1", func(c *wire.Control) { c.Stop = wire.StopCancel })
		r.wait()
		if d := time.Since(begun); d > 7*time.Second {
			t.Errorf("it took %v", d)
		}
		by, unrun, _ := r.outcomes("r1")
		if by[0].Status != task.Cancelled || !slices.Equal(unrun, []int{1, 2}) {
			t.Errorf("%+v, not run: %v", by[0], unrun)
		}
	})
}

func TestStoppedFunction(t *testing.T) {
	bubble(t, func(r *rig) {
		r.takes = func(int) time.Duration { return 10 * time.Second }
		r.send("r1", 1, [2]int{0, 3})
		r.start()
		time.Sleep(time.Second)
		r.tell("r1", func(c *wire.Control) { c.Stopped = []string{"f"} })
		time.Sleep(15 * time.Second)
		by, unrun, ended := r.outcomes("r1")
		if by[0].Status != task.Succeeded || !slices.Equal(unrun, []int{1, 2}) || len(ended) != 1 {
			t.Errorf("%+v, not run: %v", by[0], unrun)
		}
		r.finish()
	})
}

func TestSpotNotice(t *testing.T) {
	bubble(t, func(r *rig) {
		r.host.id.Spot = true
		r.takes = func(int) time.Duration { return time.Hour }
		r.send("r1", 1, [2]int{0, 3})
		r.start()
		time.Sleep(10 * time.Second)
		begun := time.Now()
		r.host.take(begun.Add(2 * time.Minute))
		r.wait()
		if d := time.Since(begun); d > 8*time.Second {
			t.Errorf("it took %v", d)
		}
		by, unrun, ended := r.outcomes("r1")
		if o := by[0]; o.Status != task.Failed || o.Cause != task.CauseMachine || o.Message != "spot machine i-1 was taken back" {
			t.Errorf("the task that ran: %+v", o)
		}
		if !slices.Equal(unrun, []int{1, 2}) || len(ended) != 1 {
			t.Errorf("not run: %v, ended: %v", unrun, ended)
		}
		if b := r.beat("r1"); b.State != wire.StateGone || !b.Notice.Equal(begun.Add(2*time.Minute)) {
			t.Errorf("last beat: %+v", b)
		}
	})
}

func TestMaxLife(t *testing.T) {
	bubble(t, func(r *rig) {
		r.addRun("r2", wire.Setup{Threads: 1, IdleTimeout: 2 * time.Hour, MaxLife: time.Hour})
		r.cfg.Run = "r2"
		r.extend("r2")
		r.takes = func(i int) time.Duration { return time.Duration(i) * 20 * time.Minute }
		// 0 to 2 take an hour together; 3 would begin when nothing new may.
		r.send("r2", 1, [2]int{1, 2}, [2]int{2, 5})
		begun := time.Now()
		r.start()
		r.wait()
		if d := time.Since(begun); d < 55*time.Minute || d > 59*time.Minute {
			t.Errorf("left after %v", d)
		}
		by, unrun, _ := r.outcomes("r2")
		if by[1].Status != task.Succeeded || by[2].Cause != task.CauseMachine || !slices.Equal(unrun, []int{3, 4}) {
			t.Errorf("%+v, not run: %v", by, unrun)
		}
	})
}

// A machine near its end begins nothing, but may end what it has.
func TestMaxLifeDrains(t *testing.T) {
	bubble(t, func(r *rig) {
		r.addRun("r2", wire.Setup{Threads: 1, IdleTimeout: 2 * time.Hour, MaxLife: time.Hour})
		r.cfg.Run = "r2"
		r.extend("r2")
		r.takes = func(int) time.Duration { return 18 * time.Minute }
		r.send("r2", 1, [2]int{0, 9})
		begun := time.Now()
		r.start()
		r.wait()
		by, unrun, _ := r.outcomes("r2")
		if len(by) != 3 || by[2].Status != task.Succeeded || !slices.Equal(unrun, []int{3, 4, 5, 6, 7, 8}) {
			t.Errorf("%d outcomes, not run: %v", len(by), unrun)
		}
		if d := time.Since(begun); d < 54*time.Minute || d > 55*time.Minute {
			t.Errorf("left after %v", d)
		}
	})
}

func TestShutdown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.takes = func(int) time.Duration { return time.Hour }
		r.send("r1", 1, [2]int{0, 1})
		ctx, cancel := contextOf(r)
		r.done = make(chan error, 1)
		go func() { r.done <- Run(ctx, r.cfg) }()
		time.Sleep(5 * time.Second)
		cancel()
		r.wait()
		if by, _, _ := r.outcomes("r1"); by[0].Cause != task.CauseMachine {
			t.Errorf("%+v", by[0])
		}
	})
}

func TestGrantLapses(t *testing.T) {
	for _, c := range []struct {
		name string
		down bool
	}{{"store answers", false}, {"store is gone", true}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.takes = func(int) time.Duration { return time.Hour }
				until := r.control["r1"].Until
				r.send("r1", 1, [2]int{0, 2})
				r.start()
				time.Sleep(time.Minute)
				if c.down {
					// So late that the grant lapses before the machine is cut off.
					time.Sleep(time.Until(until) - 30*time.Second)
					r.link.down.Store(true)
				}
				<-r.host.off
				if d := r.host.offTime.Sub(until); d < 0 || d > overtime+5*time.Second {
					t.Errorf("off %v after the grant", d)
				}
				r.wait()
				if last := r.host.armed[len(r.host.armed)-1]; !last.Equal(until.Add(overtime)) {
					t.Errorf("the timer of the system was set to %v, the grant is until %v", last, until)
				}
				by, unrun, _ := r.outcomes("r1")
				if c.down {
					if len(by) != 0 {
						t.Errorf("%+v was reported", by)
					}
				} else if by[0].Cause != task.CauseMachine || !slices.Equal(unrun, []int{1}) {
					t.Errorf("%+v, not run: %v", by, unrun)
				}
			})
		})
	}
}

// A cut-off machine waits for the store only as long as its grant lasts.
func TestGrantLapsesWhileCutOff(t *testing.T) {
	bubble(t, func(r *rig) {
		until := r.control["r1"].Until
		r.start()
		time.Sleep(time.Minute)
		r.link.down.Store(true)
		<-r.host.off
		if d := r.host.offTime.Sub(until); d < 0 || d > time.Minute {
			t.Errorf("off %v after the grant", d)
		}
		r.wait()
	})
}

func TestGrantIsArmedAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.extend("r1")
		r.start()
		time.Sleep(30 * time.Minute / 4)
		r.host.mu.Lock()
		n := len(r.host.armed)
		last := r.host.armed[n-1]
		r.host.mu.Unlock()
		if n < 7 || time.Until(last) < 14*time.Minute {
			t.Errorf("armed %d times, last for %v from now", n, time.Until(last))
		}
		r.finish()
	})
}

// Nothing is known of the run: the machine says so and does not linger.
func TestNoRun(t *testing.T) {
	bubble(t, func(r *rig) {
		r.cfg.Run = "other"
		err := Run(r.ctx, r.cfg)
		if err == nil || r.host.offs != 0 {
			t.Errorf("%v, power off %d times", err, r.host.offs)
		}
	})
}

func TestStoreNeverAnswersAtBoot(t *testing.T) {
	bubble(t, func(r *rig) {
		r.link.down.Store(true)
		begun := time.Now()
		err := Run(r.ctx, r.cfg)
		if d := time.Since(begun); err == nil || d > bootGrant+overtime+time.Second {
			t.Errorf("%v after %v", err, d)
		}
	})
}

func TestSetupFails(t *testing.T) {
	bubble(t, func(r *rig) {
		r.cfg.Prepare = failingPrepare
		r.send("r1", 1, [2]int{0, 2})
		r.start()
		time.Sleep(5 * time.Second)
		by, _, ended := r.outcomes("r1")
		for i := range 2 {
			if o := by[i]; o.Status != task.Failed || o.Cause != task.CauseSetup || o.Message != "requirements.txt: no such package" {
				t.Errorf("task %d: %+v", i, o)
			}
		}
		if len(ended) != 1 {
			t.Errorf("ended: %v", ended)
		}
		r.finish()
	})
}

// Trouble of this machine alone takes no task down: it leaves.
func TestMachineTrouble(t *testing.T) {
	bubble(t, func(r *rig) {
		r.cfg.Prepare = fullPrepare
		r.send("r1", 1, [2]int{0, 2})
		r.start()
		r.wait()
		if by, unrun, _ := r.outcomes("r1"); len(by)+len(unrun) != 0 || r.queue("r1").Len() != 1 {
			t.Errorf("%v, %v, %d messages", by, unrun, r.queue("r1").Len())
		}
		if b := r.beat("r1"); b.State != wire.StateGone || b.Why != "could not go on: disk full" {
			t.Errorf("last beat: %+v", b)
		}
	})
}

// The pace that the coordinator asks for holds however much is reported.
func TestPace(t *testing.T) {
	bubble(t, func(r *rig) {
		r.tell("r1", func(c *wire.Control) { c.Pace = 7 * time.Second })
		r.takes = func(int) time.Duration { return 100 * time.Millisecond }
		for i := range 20 {
			r.send("r1", 1, [2]int{50 * i, 50*i + 50})
		}
		r.start()
		time.Sleep(40 * time.Second)
		if n := len(r.segments("r1")); n < 5 || n > 7 {
			t.Errorf("%d segments in 40 s", n)
		}
		time.Sleep(20 * time.Second)
		if by, _, _ := r.outcomes("r1"); len(by) != 1000 {
			t.Errorf("%d outcomes", len(by))
		}
		r.finish()
	})
}

func contextOf(r *rig) (context.Context, context.CancelFunc) { return context.WithCancel(r.ctx) }

func failingPrepare(context.Context, *Job) (*Prepared, error) {
	return nil, &SetupError{errors.New("requirements.txt: no such package")}
}

func fullPrepare(context.Context, *Job) (*Prepared, error) { return nil, errors.New("disk full") }

// A coordinator whose clock is far behind, or ahead, keeps its machines for as
// long as it means to.
func TestClockOfCoordinator(t *testing.T) {
	for _, skew := range []time.Duration{-3 * time.Hour, time.Hour, 30 * time.Second} {
		t.Run(skew.String(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				tell := func() {
					r.tell("r1", func(c *wire.Control) {
						c.Written = time.Now().Add(skew)
						c.Until = c.Written.Add(15 * time.Minute)
					})
				}
				r.takes = func(int) time.Duration { return time.Hour }
				r.send("r1", 1, [2]int{0, 1})
				tell()
				time.Sleep(20 * time.Second)
				r.start()
				for range 30 {
					time.Sleep(40 * time.Second)
					tell()
				}
				if b := r.beat("r1"); b.State != wire.StateWorking || len(b.Held) != 1 {
					t.Errorf("beat: %+v", b)
				}
				last := time.Now()
				r.wait()
				if d := time.Since(last); d < 13*time.Minute || d > 17*time.Minute {
					t.Errorf("it powered off after %v", d)
				}
			})
		})
	}
}

// Already the first thing that a coordinator says counts for as long as it means,
// whatever its clock shows: it may be the last.
func TestClockOfCoordinatorAtFirst(t *testing.T) {
	for _, skew := range []time.Duration{-3 * time.Hour, time.Hour, 0} {
		t.Run(skew.String(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.takes = func(int) time.Duration { return 3 * time.Hour }
				r.send("r1", 1, [2]int{0, 1})
				told := time.Now()
				r.tell("r1", func(c *wire.Control) {
					c.Written = told.Add(skew)
					c.Until = c.Written.Add(15 * time.Minute)
				})
				time.Sleep(40 * time.Second) // the boot
				r.start()
				time.Sleep(5 * time.Second)
				if b := r.beat("r1"); b.State != wire.StateWorking || len(b.Held) != 1 {
					t.Errorf("beat: %+v", b)
				}
				r.wait()
				if d := time.Since(told); d < 15*time.Minute || d > 17*time.Minute {
					t.Errorf("it powered off after %v", d)
				}
			})
		})
	}
}

func TestSkewOf(t *testing.T) {
	t.Parallel()
	now := time.Unix(100_000, 0)
	for _, c := range []struct {
		written, before, known, want time.Duration // the first two before now
	}{
		{5 * time.Second, 5 * time.Second, 0, 0},
		{time.Hour, 5 * time.Second, 0, time.Hour},
		{-time.Hour, 5 * time.Second, 0, -time.Hour},
		{time.Minute, 5 * time.Second, time.Hour, 0}, // it was put right
		{time.Hour, time.Hour, 0, 0},                 // it may be as old as that
		{time.Hour, time.Hour, time.Hour, time.Hour},
	} {
		if got := skewOf(c.known, now.Add(-c.written), now.Add(-c.before), now); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if got := skewOf(0, time.Time{}, now, now); got != 0 {
		t.Errorf("without a time: %v", got)
	}
}
