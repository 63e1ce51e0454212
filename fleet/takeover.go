package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// begin is the start of a coordinator's work, and a takeover if there was one
// before: it makes queues of its own, tells machines of them, and waits until
// each machine that may live has said what it holds, or is lost.
func (f *Fleet) begin() error {
	epoch := 0
	for epoch == 0 {
		if epoch = f.cfg.Epoch(); epoch == 0 {
			pause(f.ctx, 10*time.Millisecond)
		}
		if f.ctx.Err() != nil {
			return f.ctx.Err()
		}
	}
	// All at once: each waits for another service, or for nothing.
	var before wire.Control
	var first bool
	acts := []func() error{
		func() error {
			err := retry(f.ctx, func() error {
				b, err := f.cfg.Store.Get(f.ctx, wire.ControlKey(f.cfg.Run))
				if err != nil {
					return err
				}
				return json.Unmarshal(b, &before)
			})
			if first = cloud.KindOf(err) == cloud.KindNotFound; first {
				return nil
			}
			f.readOldLogs()
			return err
		},
		func() (err error) { f.hints, err = f.openQueue(f.ctx, "hints", epoch); return err },
	}
	for _, k := range f.s.kinds {
		setup := k.Setup
		acts = append(acts,
			func() error { // machines may start as soon as they are rented
				return retry(f.ctx, func() error { return putJSON(f.ctx, f.cfg.Store, wire.SetupKey(f.cfg.Run, k.Name), setup) })
			},
			func() error {
				q, err := f.openQueue(f.ctx, k.Name, epoch)
				if err == nil {
					f.out.open(k, q)
				}
				return err
			})
	}
	err := together(acts)
	switch {
	case err != nil:
		return err
	case !first && before.Epoch >= epoch:
		return fmt.Errorf("another coordinator has the run: it is the %dth, this one only the %dth", before.Epoch, epoch)
	}
	for _, k := range before.Kinds {
		f.old = append(f.old, k.Queue)
	}
	if before.Hints != "" {
		f.old = append(f.old, before.Hints)
	}
	written := make(chan struct{})
	f.do(func() {
		s := f.s
		s.epoch, s.hints = epoch, f.hints.URL()
		s.lost = before.Lost
		for _, k := range s.kinds {
			k.queue = f.out.boxes[k].queue.URL()
		}
		f.afterControl(func() { close(written) })
	})
	select {
	case <-written:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	f.takeHints(f.hints)
	if before.Epoch > 0 {
		if err := f.takeOver(before); err != nil {
			return err
		}
	} else {
		f.open(nil)
	}
	f.run(f.readBeats)
	f.run(f.listMachines)
	f.run(f.watchBoots)
	f.run(f.lookForClaims)
	return nil
}

// together does things at the same time.
func together(acts []func() error) error {
	errs := make([]error, len(acts))
	var wg sync.WaitGroup
	for i, act := range acts {
		wg.Go(func() { errs[i] = act() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// open ends the takeover: from now on work is handed out and machines are
// rented. The coordinator is told what machines hold.
func (f *Fleet) open(held []cloud.Range) {
	f.cfg.Coordinator.Held(held)
	f.do(func() {
		f.handBackLost()
		f.s.open = true
	})
}

// takeOver finds the machines of earlier coordinators and waits for them.
func (f *Fleet) takeOver(before wire.Control) error {
	start := time.Now()
	var ids []string
	err := retry(f.ctx, func() error {
		ids = nil
		return f.cfg.Store.List(f.ctx, wire.AgentsPrefix(f.cfg.Run), func(o cloud.ObjectInfo) bool {
			if id, ok := wire.MachineOfBeat(o.Key); ok {
				ids = append(ids, id)
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	var list []cloud.Machine
	if err := retry(f.ctx, func() (err error) { list, err = f.cfg.Machines.List(f.ctx, f.cfg.Run); return err }); err != nil {
		return err
	}
	alive := map[string]cloud.Machine{}
	for _, x := range list {
		if x.State != "ended" {
			alive[x.ID] = x
		}
	}
	folded := f.cfg.Coordinator.Folded()
	ready := make(chan struct{})
	f.do(func() {
		f.found(alive, ids, folded, before.Until.Add(grace))
		close(ready)
	})
	select {
	case <-ready:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	for { // until each has answered, has left, or is lost
		f.sweep(f.ask(func(m *machine) bool { return m.phase != ended }))
		var open []cloud.Range
		got := make(chan bool, 1)
		if !f.do(func() { got <- f.answered(&open, start) }) {
			return f.ctx.Err()
		}
		select {
		case all := <-got:
			if all {
				f.open(open)
				f.closeOld()
				return nil
			}
		case <-f.done:
			return f.ctx.Err()
		}
		pause(f.ctx, tick)
		if time.Since(start) > listEvery { // who has ended needs not be waited for
			f.listOnce()
		}
	}
}

// found takes in machines that earlier coordinators rented. Those that are gone
// had ended by the time at which their grant ended. Only the loop calls it.
func (f *Fleet) found(alive map[string]cloud.Machine, beats []string, folded map[string]int, granted time.Time) {
	s := f.s
	by := granted
	if now := time.Now(); now.Before(by) {
		by = now
	}
	for _, x := range alive {
		f.adopt(x)
	}
	for _, id := range beats {
		m := s.machines[id]
		if m == nil {
			// The cloud does not show it for this run: it has ended, or it was
			// invited and not tagged anew. Its last words count all the same,
			// unless an earlier coordinator has heard them.
			p, open := s.takePast(id)
			if !open && slices.ContainsFunc(s.limits.Past, func(p task.Machine) bool { return p.ID == id }) {
				continue
			}
			m = &machine{Machine: p, endedBy: by, missing: vanished, phase: working, seen: time.Now()}
			if !open { // launched, but never recorded
				m.ID, m.Joined = id, time.Now()
			}
			s.machines[id] = m
		}
		m.noBeats = true
	}
	for _, p := range slices.Clone(s.limits.Past) { // they never said hello
		if _, ok := alive[p.ID]; !ok && p.Ended.IsZero() && !slices.Contains(beats, p.ID) {
			p, _ = s.takePast(p.ID)
			m := &machine{Machine: p, endedBy: by}
			s.machines[p.ID] = m
			f.end(m, "it ended while there was no coordinator", by)
		}
	}
	for name, n := range folded {
		id, _ := cutLast(name)
		if m := s.machines[id]; m != nil {
			m.folded = max(m.folded, n)
			m.known = max(m.known, n)
		}
	}
}

// lives decides whether a machine that the cloud does not show for the run is
// there all the same, by its first heartbeat that this coordinator reads. Only
// the loop calls it.
func (f *Fleet) lives(m *machine, now time.Time) {
	if now.Sub(m.beat.At) > wire.Silence || m.beat.State == wire.StateGone {
		m.confirmed = true
		return
	}
	// It must answer like the others.
	m.missing, m.endedBy = 0, time.Time{}
	if m.kind != nil {
		m.Kind = m.kind.Name
	}
	if m.Price == 0 {
		m.Price = f.s.priceOf(m)
	}
	m.Slots = m.slots
	rec := m.Machine
	f.run(func() { f.cfg.Coordinator.MachineChanged(rec) })
}

// helloWithin is how long it can take at most from a machine's first reading of
// Control to its first heartbeat.
const helloWithin = 15 * time.Second

// answered says whether every machine with a heartbeat has answered or is
// lost, and all that was reported is taken; then it gives what they hold. Only
// the loop calls it.
func (f *Fleet) answered(held *[]cloud.Range, start time.Time) bool {
	s, now := f.s, time.Now()
	all := true
	for _, m := range s.sorted() {
		if m.losing || m.ending > 0 || m.reading || m.folded < m.known {
			all = false
		}
		if m.phase != ended && m.phase != booting {
			m.noBeats = true // also who said hello since
		}
		if m.phase == booting && m.alive() && now.Sub(start) < helloWithin {
			all = false // it may have read what the last coordinator said, and begin to work
		}
		if !m.noBeats || m.phase == ended || m.losing {
			continue
		}
		switch {
		case m.answers, m.phase == left:
		case m.missing >= vanished && m.beat.Session > 0 && slices.Contains(s.lost, m.name()):
			f.end(m, "it has ended", now) // the last coordinator knew
		case m.missing >= vanished && m.beat.Session > 0:
			all = false
			f.giveUp(m, "it has ended", false, now)
		case now.Sub(start) >= wire.Silence && m.silent >= wire.Silence-wire.ControlEvery:
			all = false
			f.giveUp(m, fmt.Sprintf("it did not answer the new coordinator within %s", wire.Silence), true, now)
		default:
			all = false
		}
	}
	if !all {
		return false
	}
	for _, m := range s.sorted() {
		if !m.noBeats || m.phase == ended && !m.lostEarly {
			continue
		}
		for _, h := range m.beat.Held {
			k := s.kindFor(h.Function, h.Memory)
			s.ranges[h.ID] = &heldRange{Range: h, kind: k, sent: now, holder: m.name()}
			*held = append(*held, h)
		}
	}
	return true
}

// handBackLost gives back what machines held that were given up during the
// takeover, before the coordinator knew of it: what ran there counts as failed
// with its machine. Only the loop calls it.
func (f *Fleet) handBackLost() {
	for _, m := range f.s.sorted() {
		if m.lostEarly {
			f.handBack(m.ID, m.name(), m.Why)
		}
	}
}

// closeOld deletes the queues of earlier coordinators: nobody takes from them
// any more.
func (f *Fleet) closeOld() {
	list := f.old
	f.old = nil
	for _, url := range list {
		f.run(func() { f.closeByURL(f.ctx, url) })
	}
}

func (f *Fleet) closeByURL(ctx context.Context, url string) {
	if f.cfg.JoinQueue == nil || url == "" {
		return
	}
	q, err := f.cfg.JoinQueue(ctx, url)
	if err == nil {
		err = q.Close()
	}
	if err != nil {
		f.cfg.Logger.Warn("queue of an earlier coordinator not deleted", "queue", url, "err", err)
	}
}
