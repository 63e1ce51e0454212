package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coiled-jobs/coiled-jobs/wire"
)

// StopWork ends all tasks, because the run is cancelled or stopped by a limit,
// and releases the machines. It returns at once; AgentsDone follows within
// eight seconds.
func (f *Fleet) StopWork() {
	f.stopOnce.Do(func() {
		if !f.started {
			f.agentsDone(nil)
			return
		}
		go f.stopWork()
	})
}

// release is recorded when the machines of a run are released before its end.
type release struct {
	At       time.Time `json:"at"`
	Machines []string  `json:"machines"`
}

func releaseKey(run string) string { return "runs/" + run + "/control/release.json" }

func (f *Fleet) stopWork() {
	defer f.agentsDone(nil)
	now := time.Now()
	look, cancel := context.WithTimeout(f.ctx, stopWithin/4)
	err := f.superseded(look)
	cancel()
	if errors.Is(err, errSuperseded) {
		f.Abandon()
		return
	}
	ended := make(chan struct{})
	var ids []string
	if !f.do(func() {
		s := f.s
		s.stop = wire.StopCancel
		for _, m := range s.machines {
			if m.alive() {
				ids = append(ids, m.ID)
			}
		}
		f.run(func() {
			_ = retry(f.ctx, func() error {
				return putJSON(f.ctx, f.cfg.Store, releaseKey(f.cfg.Run), release{At: now, Machines: ids})
			})
		})
	}) {
		return
	}
	f.watch(ended, func() bool {
		for _, m := range f.s.machines {
			if m.counts() || m.phase == leaving || m.reading || m.folded < m.known {
				return false
			}
		}
		return true
	})
	t := time.NewTimer(stopWithin)
	defer t.Stop()
	select {
	case <-ended:
		return
	case <-t.C:
	case <-f.done:
		return
	}
	f.do(func() {
		var list []*machine
		for _, m := range f.s.machines {
			if m.phase != left && m.alive() {
				list = append(list, m)
			}
		}
		f.terminate(list, "the run was stopped")
	})
	t.Reset(endWithin - stopWithin)
	select {
	case <-ended:
	case <-t.C:
	case <-f.done:
	}
}

// watch closes ch when cond, which is asked in the loop, holds.
func (f *Fleet) watch(ch chan struct{}, cond func() bool) {
	f.run(func() {
		for {
			ok := make(chan bool, 1)
			if !f.do(func() { ok <- cond() }) {
				return
			}
			select {
			case is := <-ok:
				if is {
					close(ch)
					return
				}
			case <-f.done:
				return
			}
			pause(f.ctx, 100*time.Millisecond)
		}
	})
}

// failWithin is how long the machines of a run that cannot go on are waited
// for; they end by their grants, too.
const failWithin = 10 * time.Second

// fail ends the run: it cannot go on. Its machines are released first, unless
// they are another coordinator's by now.
func (f *Fleet) fail(err error) {
	f.failOnce.Do(func() {
		f.failed.Store(!errors.Is(err, errSuperseded))
		go func() {
			if f.failed.Load() {
				f.release()
			}
			f.agentsDone(err)
		}()
	})
}

// Failed says whether the run could not go on with machines, rather than
// without its coordinator: then Close should follow, as at its end.
func (f *Fleet) Failed() bool { return f.failed.Load() }

// release ends all machines of the run, as far as that can be done soon.
func (f *Fleet) release() {
	var ids []string
	f.sync(func() {
		f.s.failed = true
		for id, m := range f.s.machines {
			if m.alive() {
				m.dismissed = "the run could not go on"
				ids = append(ids, id)
			}
		}
	})
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, failWithin)
	defer cancel()
	if err := f.cfg.Machines.Terminate(ctx, ids...); err != nil {
		f.cfg.Notice(fmt.Sprintf("machines could not be terminated, and end when their grant does: %v", err))
		return
	}
	now := time.Now()
	f.sync(func() {
		for _, id := range ids {
			f.end(f.s.machines[id], "the run could not go on", now)
		}
	})
}

func (f *Fleet) agentsDone(err error) {
	f.agentOnce.Do(func() { go f.cfg.Coordinator.AgentsDone(err) })
}
