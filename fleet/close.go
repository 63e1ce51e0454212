package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// Left is what the cloud says is left of a run's machines at its end.
type Left struct {
	// Waiting for another run, until Until at the latest.
	Waiting int
	Until   time.Time
	// KeepAlive is for how long they wait in all.
	KeepAlive time.Duration
	// Alive are those that live and should not.
	Alive []string
}

// String is a line for people.
func (l Left) String() string {
	switch {
	case len(l.Alive) > 0:
		return fmt.Sprintf("%s left that should not be: %s; coiled-jobs gc ends them", plural(len(l.Alive), "machine"), strings.Join(l.Alive, ", "))
	case l.Waiting > 0:
		verb := "wait"
		if l.Waiting == 1 {
			verb = "waits"
		}
		return fmt.Sprintf("%s %s until %s for another run (keepalive %s)", plural(l.Waiting, "machine"), verb, l.Until.Local().Format(time.TimeOnly), l.KeepAlive)
	}
	return "0 machines left"
}

const (
	// politeWithin is how long machines may take to leave a run that has ended.
	politeWithin = 30 * time.Second
	// countWithin is how long the cloud may show machines that it was told to end.
	countWithin = 30 * time.Second
	// idleWithin is how long a machine that has left may take to say that it
	// waits for another run.
	idleWithin = 15 * time.Second
	// launchesWithin is how long a launch on its way is waited for.
	launchesWithin = 20 * time.Second
	// closeWithin bounds the rest of Close where ctx has no end.
	closeWithin = 2 * time.Minute
)

// Close ends the run for its machines and waits, as long as ctx lasts, until
// none is left but those that wait for another run, by what the cloud says.
// Then the fleet is of no more use. A second call gives the same answer.
func (f *Fleet) Close(ctx context.Context) (Left, error) {
	f.closeOnce.Do(func() { f.left, f.closeErr = f.close(ctx) })
	return f.left, f.closeErr
}

func (f *Fleet) close(ctx context.Context) (Left, error) {
	if !f.started {
		return Left{}, nil
	}
	if f.abandoned.Load() {
		<-f.done
		f.work.Wait()
		return Left{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, politeWithin+countWithin+closeWithin)
	defer cancel()
	_ = f.out.Close()
	f.finish(ctx)
	f.awaitLaunches(ctx)
	left, err := f.endMachines(ctx)
	if f.abandoned.Load() {
		err = nil // another coordinator has the run; it counts
	}
	// Nothing is left for the loop to do.
	f.cancel()
	<-f.done
	f.work.Wait()
	return left, errors.Join(err, f.closeQueues(ctx), f.tidy(ctx, left))
}

// finish tells machines that the run has ended and waits until they have left.
func (f *Fleet) finish(ctx context.Context) {
	told, gone := make(chan struct{}), make(chan struct{})
	polite := make(chan bool, 1)
	if !f.do(func() {
		s := f.s
		if s.stop == "" {
			s.stop = wire.StopFinished
		}
		polite <- s.stop == wire.StopFinished && s.keepAlive() > 0
		if s.epoch == 0 || !s.anyAlive() { // nobody to tell
			close(told)
			return
		}
		f.afterControl(func() { close(told) })
	}) {
		return
	}
	wait := <-polite
	select {
	case <-told:
	case <-ctx.Done():
		return
	}
	if !wait {
		return // who does not wait for another run can be ended as it is: all that it did was reported
	}
	for _, q := range f.out.queues() { // wakes who waits for work
		f.run(func() { _ = q.Close() })
	}
	f.watch(gone, func() bool {
		for _, m := range f.s.machines {
			// One that has reported works, whether its beat was read yet or not.
			if m.phase == working || m.phase == leaving || m.phase == booting && m.known > 0 {
				return false
			}
		}
		return true
	})
	t := time.NewTimer(politeWithin)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	case <-ctx.Done():
	}
}

// awaitLaunches waits for machines that are being launched: what the cloud
// does not show yet cannot be counted.
func (f *Fleet) awaitLaunches(ctx context.Context) {
	none := make(chan struct{})
	f.watch(none, func() bool {
		for _, k := range f.s.kinds {
			if k.asked > 0 {
				return false
			}
		}
		return true
	})
	t := time.NewTimer(launchesWithin)
	defer t.Stop()
	select {
	case <-none:
	case <-t.C:
	case <-ctx.Done():
	case <-f.done:
	}
}

func (s *state) anyAlive() bool {
	for _, m := range s.machines {
		if m.alive() {
			return true
		}
	}
	return false
}

// keepAlive is the longest time that machines of the run wait for another.
func (s *state) keepAlive() time.Duration {
	longest := time.Duration(0)
	for _, k := range s.kinds {
		longest = max(longest, k.Setup.KeepAlive)
	}
	return longest
}

// endMachines ends all machines but those that wait in a pool, and counts what
// is left.
func (f *Fleet) endMachines(ctx context.Context) (Left, error) {
	var left Left
	start := time.Now()
	f.sync(func() { left.KeepAlive = f.s.keepAlive() })
	for try := 0; ; try++ {
		if f.abandoned.Load() {
			return left, nil
		}
		list, err := f.cfg.Machines.List(ctx, f.cfg.Run)
		if err != nil {
			if ctx.Err() != nil || time.Since(start) > countWithin {
				return left, err
			}
			pause(ctx, tick)
			continue
		}
		waiting, until, silent := f.waiting(ctx)
		for silent && ctx.Err() == nil && time.Since(start) < idleWithin {
			pause(ctx, tick/5)
			waiting, until, silent = f.waiting(ctx)
		}
		alive := map[string]bool{}
		for _, x := range list {
			if x.State != "ended" {
				alive[x.ID] = true
			}
		}
		// Machines that the cloud does not show for this run: they came by
		// invitation, or are too young to be shown.
		for _, id := range f.ask(func(m *machine) bool { return m.alive() && !m.listed && try == 0 }) {
			alive[id] = true
		}
		left.Waiting, left.Until, left.Alive = 0, until, nil
		for id := range alive {
			if waiting[id] {
				left.Waiting++
			} else {
				left.Alive = append(left.Alive, id)
			}
		}
		slices.Sort(left.Alive)
		f.noteEnded(alive, waiting)
		if len(left.Alive) == 0 {
			return left, nil
		}
		err = f.cfg.Machines.Terminate(ctx, left.Alive...)
		if err == nil {
			f.noteTerminated(left.Alive)
		}
		if ctx.Err() != nil || time.Since(start) > countWithin {
			return left, err
		}
		if try > 0 {
			pause(ctx, tick)
		}
	}
}

// noteEnded and noteTerminated record until when machines are billed.
func (f *Fleet) noteEnded(alive, waiting map[string]bool) {
	now := time.Now()
	f.sync(func() {
		for _, m := range f.s.sorted() {
			if m.alive() && !alive[m.ID] && !waiting[m.ID] {
				f.end(m, orText(m.beat.Why, "the run ended"), now)
			}
			if m.alive() && waiting[m.ID] {
				// It is billed to this run while it waits: said now, since nobody
				// will be here later.
				f.end(m, "it waits for another run", now.Add(f.s.keepAlive()))
			}
		}
	})
}

func (f *Fleet) noteTerminated(ids []string) {
	now := time.Now()
	f.sync(func() {
		for _, id := range ids {
			if m := f.s.machines[id]; m != nil {
				f.end(m, "the run ended", now)
			}
		}
	})
}

// sync does something in the loop and waits until it is done.
func (f *Fleet) sync(act func()) {
	done := make(chan struct{})
	if f.do(func() { act(); close(done) }) {
		select {
		case <-done:
		case <-f.done:
		}
	}
}

// waiting are the machines that wait in the pools of this run, or were invited
// from there by others, and until when. silent says that some have left which
// might wait, and have not said so yet.
func (f *Fleet) waiting(ctx context.Context) (set map[string]bool, last time.Time, silent bool) {
	set = map[string]bool{}
	now := time.Now()
	for _, id := range f.ask(func(m *machine) bool { return m.phase == left && m.alive() && m.dismissed == "" }) {
		var pool string
		f.sync(func() {
			if k := f.s.machines[id].kind; k != nil && k.Setup.KeepAlive > 0 {
				pool = k.Pool
			}
		})
		if pool == "" {
			continue
		}
		newest := ""
		err := f.cfg.Store.List(ctx, wire.PoolPrefix(pool)+id+"/", func(o cloud.ObjectInfo) bool {
			if _, name := cutLast(o.Key); strings.HasPrefix(name, "idle-") && (len(o.Key) > len(newest) || len(o.Key) == len(newest) && o.Key > newest) {
				newest = o.Key
			}
			return true
		})
		if err != nil || newest == "" {
			silent = silent || err == nil
			continue
		}
		b, err := f.cfg.Store.Get(ctx, newest)
		var idle wire.Idle
		if err != nil || json.Unmarshal(b, &idle) != nil {
			continue
		}
		var inv wire.Invite
		if b, err := f.cfg.Store.Get(ctx, wire.InviteKey(pool, id, idle.N)); err == nil && json.Unmarshal(b, &inv) == nil {
			set[id] = inv.Run != "" && inv.Run != f.cfg.Run // another run has it now; or it has left, and ends
			silent = silent || inv.Run == f.cfg.Run         // that is how it came to this one
			continue
		}
		if idle.Run == f.cfg.Run && idle.Until.After(now) {
			set[id] = true
			if idle.Until.After(last) {
				last = idle.Until
			}
		}
	}
	return set, last, silent
}

// closeQueues deletes the queues of the run.
func (f *Fleet) closeQueues(ctx context.Context) error {
	var errs []error
	for _, url := range f.old { // the run ended before all was taken over
		f.closeByURL(ctx, url)
	}
	list := f.out.queues()
	if f.hints != nil {
		list = append(list, f.hints)
	}
	for _, q := range list {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		errs = append(errs, q.Close())
	}
	return errors.Join(errs...)
}

func (f *Fleet) tidy(ctx context.Context, left Left) error {
	if f.cfg.Tidy == nil {
		return nil
	}
	return f.cfg.Tidy(ctx, left.Waiting > 0)
}
