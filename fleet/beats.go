package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

const (
	// listEvery is how often the cloud is asked which machines there are.
	listEvery = 20 * time.Second
	// receivers take hints at a time.
	receivers = 8
)

// beatsEvery is how often the heartbeats of so many machines are read: some
// fifty a second at most.
func beatsEvery(machines int) time.Duration {
	return min(max(time.Duration(machines)*time.Second/50, 2*time.Second), wire.BeatEvery)
}

// readBeats reads heartbeats for as long as the fleet works.
func (f *Fleet) readBeats() {
	for f.ctx.Err() == nil {
		ids := f.ask(func(m *machine) bool { return m.phase != ended })
		f.sweep(ids)
		pause(f.ctx, beatsEvery(len(ids)))
	}
}

// ask is the machines that the loop chooses.
func (f *Fleet) ask(want func(*machine) bool) []string {
	got := make(chan []string, 1)
	ok := f.do(func() {
		var ids []string
		for id, m := range f.s.machines {
			if want(m) {
				ids = append(ids, id)
			}
		}
		got <- ids
	})
	if !ok {
		return nil
	}
	select {
	case ids := <-got:
		return ids
	case <-f.done:
		return nil
	}
}

// beatRead is what came of reading a heartbeat.
type beatRead struct {
	id    string
	beat  wire.Beat
	there bool
	err   error
}

// sweep reads the heartbeats of machines, many at a time, and tells the loop.
func (f *Fleet) sweep(ids []string) {
	if len(ids) == 0 {
		return
	}
	work := make(chan string)
	var wg sync.WaitGroup
	for range min(parallel, len(ids)) {
		wg.Go(func() {
			for id := range work {
				r := f.readBeat(f.ctx, id)
				f.do(func() { f.beatSeen(r, time.Now()) })
			}
		})
	}
	for _, id := range ids {
		work <- id
	}
	close(work)
	wg.Wait()
}

func (f *Fleet) readBeat(ctx context.Context, id string) beatRead {
	b, err := f.cfg.Store.Get(ctx, wire.BeatKey(f.cfg.Run, id))
	r := beatRead{id: id}
	switch {
	case cloud.KindOf(err) == cloud.KindNotFound:
	case err != nil:
		r.err = err
	default:
		r.err = json.Unmarshal(b, &r.beat)
		r.there = r.err == nil
	}
	return r
}

// beatSeen takes a heartbeat. Only the loop calls it.
func (f *Fleet) beatSeen(r beatRead, now time.Time) {
	s := f.s
	m := s.machines[r.id]
	if m == nil || m.phase == ended {
		return
	}
	if r.err != nil {
		m.lastRead = time.Time{} // the clock of its silence stands still
		return
	}
	b := r.beat
	if b.Session < m.beat.Session || b.Session == m.beat.Session && b.Seq < m.beat.Seq {
		return // a slow answer
	}
	moved := r.there && (b.Session != m.beat.Session || b.Seq != m.beat.Seq || m.phase == booting && !m.rejoin)
	if m.rejoin && (!r.there || b.Session == m.past && b.State == wire.StateGone) {
		moved = false // that was before it was invited
	}
	if !moved {
		if !m.lastRead.IsZero() {
			m.silent += now.Sub(m.lastRead)
		}
		m.lastRead = now
		return
	}
	old := m.beat
	if m.phase != booting && b.Session > old.Session && old.Session > 0 {
		f.newSession(m, old, now)
	}
	m.seen, m.lastRead, m.silent, m.rejoin = now, now, 0, false
	m.beat = b
	if m.busy() || b.State != wire.StateWorking {
		m.idleFrom = time.Time{}
	} else if m.idleFrom.IsZero() {
		m.idleFrom = now
	}
	m.answers = b.Epoch == s.epoch
	m.known = max(m.known, b.Segments)
	if b.Slots > 0 {
		m.slots = b.Slots
	}
	if m.kind == nil {
		m.kind = s.kindNamed(b.Kind)
	}
	m.Type, m.Zone, m.Spot = orText(m.Type, b.Type), orText(m.Zone, b.Zone), m.Spot || b.Spot
	if m.noBeats && m.missing >= vanished && !m.confirmed {
		f.lives(m, now)
	}
	switch {
	case b.State == wire.StateGone:
		if m.phase != left {
			f.machineLeft(m)
		}
		m.phase = left
	case b.State == wire.StateLeaving:
		if m.phase != leaving && !b.Notice.IsZero() && s.open {
			f.cfg.Notice("machine " + m.ID + " is taken back by the cloud at " + b.Notice.Format(time.TimeOnly) + "; another takes its place")
		}
		m.phase = leaving
	default:
		m.phase = working
	}
	if b.State == wire.StateWorking {
		m.worked, s.everWorked, s.failedBoots = true, true, 0
	}
	for _, h := range b.Held {
		if x := s.ranges[h.ID]; x != nil {
			x.holder = m.name()
		}
	}
	f.setLive(m.ID, b.Live)
	f.readSegments(m)
}

// machineLeft notes that a machine has left the run.
func (f *Fleet) machineLeft(m *machine) {
	f.setLive(m.ID, nil)
	// Whoever was invited may not have heard of it yet: its beat is an earlier one.
	fresh := m.phase != booting || m.token != ""
	if !m.worked && !m.beat.Worked && f.s.stop == "" && fresh && !m.noBeats {
		f.bootFailed(m, orText(m.beat.Why, "it left without a word"), false)
	}
}

// readSegments takes the segments of a machine that are known to be there.
func (f *Fleet) readSegments(m *machine) {
	if m.reading || m.losing || m.ending > 0 || m.folded >= m.known {
		return
	}
	m.reading = true
	from, to, lost := m.folded+1, m.known, f.lostSessions(m.ID)
	f.run(func() {
		n := from - 1
		for ; n < to; n++ {
			if ok, err := f.fold(m.ID, n+1, lost); err != nil || !ok {
				break
			}
		}
		if n < to { // not there yet, or the store is in trouble
			pause(f.ctx, tick)
		}
		f.do(func() {
			m.reading = false
			m.folded = max(m.folded, n)
			f.readSegments(m)
		})
	})
}

// lostSessions are the sessions of a machine that were given up.
func (f *Fleet) lostSessions(id string) map[string]bool {
	set := map[string]bool{}
	for _, name := range f.s.lost {
		if len(name) > len(id) && name[:len(id)] == id && name[len(id)] == '/' {
			set[name] = true
		}
	}
	return set
}

// fold reads a segment and gives it to the coordinator, unless its session was
// given up. It says whether there is such a segment.
func (f *Fleet) fold(id string, n int, lost map[string]bool) (bool, error) {
	select {
	case f.reads <- struct{}{}:
	case <-f.ctx.Done():
		return false, f.ctx.Err()
	}
	// Until it is recorded: so few are in memory at a time.
	defer func() { <-f.reads }()
	b, err := f.cfg.Store.Get(f.ctx, wire.SegmentKey(f.cfg.Run, id, n))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	seg, err := wire.DecodeSegment(b)
	if err != nil {
		// It was written whole: no second look will help, and its tasks run again
		// when their ranges are given up.
		f.cfg.Logger.Error("segment left out", "machine", id, "segment", n, "err", err)
		f.cfg.Notice("what machine " + id + " reported as its segment cannot be read: " + err.Error())
		return true, nil
	}
	if lost[sessionName(id, seg.Session)] {
		return true, nil
	}
	f.cfg.Coordinator.ReportSegment(id, seg.Session, n, seg.Batches, seg.Ended)
	f.do(func() { f.folded(seg) })
	return true, nil
}

// folded notes what a segment says of ranges and tasks. Only the loop calls it.
func (f *Fleet) folded(seg *wire.Segment) {
	s := f.s
	f.out.register()
	m := s.machines[seg.Machine]
	over := map[task.Live]bool{}
	for _, b := range seg.Batches {
		for i := range b.Outcomes {
			over[task.Live{Function: b.Function, Index: b.Outcomes[i].Index}] = true
		}
	}
	for _, id := range seg.Ended {
		delete(s.ranges, id)
	}
	if m == nil || m.beat.Session != seg.Session {
		return
	}
	for _, h := range m.beat.Held {
		r := s.ranges[h.ID]
		if r == nil {
			continue
		}
		for i := r.From; i < r.To; i++ {
			if over[task.Live{Function: r.Function, Index: i}] {
				r.reported++
			}
		}
	}
	f.dropLive(m, over)
	m.beat.Held = slices.DeleteFunc(slices.Clone(m.beat.Held), func(h cloud.Range) bool { return slices.Contains(seg.Ended, h.ID) })
}

// dropLive forgets tasks that were reported since the heartbeat.
func (f *Fleet) dropLive(m *machine, over map[task.Live]bool) {
	var live []task.Live
	for _, l := range m.beat.Live {
		if !over[task.Live{Function: l.Function, Index: l.Index}] {
			live = append(live, l)
		}
	}
	if len(live) != len(m.beat.Live) {
		m.beat.Live = live
		f.setLive(m.ID, live)
	}
}

// takeHints reads what machines say has happened.
func (f *Fleet) takeHints(q Queue) {
	for range receivers {
		f.run(func() {
			for f.ctx.Err() == nil {
				d, err := q.Receive(f.ctx)
				if err != nil {
					if cloud.KindOf(err) == cloud.KindClosed {
						return
					}
					pause(f.ctx, tick) // hints may be lost: heartbeats say the same
					continue
				}
				if h, ok := wire.HintOf(d.Range); ok {
					f.do(func() { f.hinted(h) })
				}
				if err := q.Done(f.ctx, d); err != nil {
					f.cfg.Logger.Debug("hint not removed", "err", err)
				}
			}
		})
	}
}

func (f *Fleet) hinted(h wire.Hint) {
	m := f.s.machines[h.Machine]
	if m == nil || m.phase == ended && m.folded >= m.known {
		return
	}
	m.known = max(m.known, h.Segment)
	f.readSegments(m)
}

// listMachines asks the cloud which machines there are, for as long as the
// fleet works: also where none are known, as the reply to a launch may have been
// lost.
func (f *Fleet) listMachines() {
	for f.ctx.Err() == nil {
		pause(f.ctx, listEvery)
		f.listOnce()
	}
}

func (f *Fleet) listOnce() {
	asked := time.Now()
	list, err := f.cfg.Machines.List(f.ctx, f.cfg.Run)
	if err != nil {
		if f.ctx.Err() == nil {
			f.cfg.Logger.Warn("machines not listed", "err", err)
		}
		return
	}
	ok := make(chan struct{})
	if f.do(func() { f.listed(list, asked); close(ok) }) {
		select {
		case <-ok:
		case <-f.done:
		}
	}
}

// young is how long a machine may not be listed after its launch.
const young = 2 * time.Minute

// listed compares what the cloud shows with what is known. Only the loop calls it.
func (f *Fleet) listed(list []cloud.Machine, asked time.Time) {
	s := f.s
	seen, over := map[string]bool{}, map[string]bool{}
	for _, x := range list {
		if x.State == "ended" { // the cloud says so in so many words
			over[x.ID] = true
			continue
		}
		seen[x.ID] = true
		if m := s.machines[x.ID]; m != nil {
			m.listed, m.missing, m.confirmed = true, 0, false
			continue
		}
		m := f.adopt(x)
		// One of a launch that is still going on is not counted twice. While that
		// goes on there is no other.
		if k := m.kind; k != nil && k.asked > 1 && !x.Launched.Before(k.askedAt) {
			k.asked--
		}
	}
	for _, m := range s.sorted() {
		switch {
		case !m.alive() || seen[m.ID]:
			continue
		case over[m.ID]:
			m.missing = vanished
		case m.Joined.After(asked) || !m.listed && asked.Sub(m.Joined) < young:
			continue
		case !m.listed && m.token == "":
			continue // it was invited, and the cloud was not told that it works here
		default:
			m.missing++
		}
		if m.missing >= vanished && !m.confirmed && !m.confirming {
			f.confirm(m)
		}
	}
}

// confirm reads the last words of a machine that has ended.
func (f *Fleet) confirm(m *machine) {
	m.confirming = true
	f.run(func() {
		r := f.readBeat(f.ctx, m.ID)
		f.do(func() {
			m.confirming, m.confirmed = false, r.err == nil
			f.beatSeen(r, time.Now())
		})
	})
}

// adopt takes in a machine of the run that this coordinator did not know.
func (f *Fleet) adopt(x cloud.Machine) *machine {
	m := &machine{Machine: task.Machine{ID: x.ID, Type: x.Type, Zone: x.Zone, Spot: x.Spot, Price: x.PricePerHour, Joined: x.Launched}}
	for _, k := range f.s.kinds {
		if k.Pool == x.Pool {
			m.kind = k
		}
	}
	m.listed = true
	f.add(m)
	return m
}

// add takes in a machine. It boots until its heartbeat is seen.
func (f *Fleet) add(m *machine) {
	s := f.s
	if m.Joined.IsZero() {
		m.Joined = time.Now()
	}
	m.seen = time.Now()
	if m.kind != nil {
		m.Kind = m.kind.Name
		m.slots = max(1, m.kind.Slots(m.Type))
	}
	if was := s.machines[m.ID]; was != nil { // it has ended, and was invited again
		s.limits.Past = append(slices.Clone(s.limits.Past), was.Machine)
	}
	if p, ok := s.takePast(m.ID); ok { // it goes on, rather than costing twice
		m.Joined = p.Joined
		m.Price = cmp.Or(p.Price, m.Price)
	}
	if m.Price == 0 {
		m.Price = s.priceOf(m)
	}
	m.Slots = m.slots
	s.machines[m.ID] = m
	rec := m.Machine
	f.run(func() { f.cfg.Coordinator.MachineChanged(rec) })
}

// takePast takes what earlier coordinators recorded of a machine that has not
// ended; it is not among the past ones any more.
func (s *state) takePast(id string) (task.Machine, bool) {
	i := slices.IndexFunc(s.limits.Past, func(p task.Machine) bool { return p.ID == id && p.Ended.IsZero() })
	if i < 0 {
		return task.Machine{}, false
	}
	p := s.limits.Past[i]
	s.limits.Past = slices.Delete(slices.Clone(s.limits.Past), i, i+1)
	return p, true
}

// end notes that a machine is not billed any more.
func (f *Fleet) end(m *machine, why string, at time.Time) {
	if m.phase == ended {
		return
	}
	if !m.endedBy.IsZero() && m.endedBy.Before(at) {
		at = m.endedBy
	}
	if at.Before(m.Joined) {
		at = m.Joined
	}
	m.phase, m.Ended, m.Why = ended, at, why
	f.setLive(m.ID, nil)
	rec := m.Machine
	f.run(func() { f.cfg.Coordinator.MachineChanged(rec) })
}
