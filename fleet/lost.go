package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// A machine is given up in this order:
//
//  1. its session is named in what all machines are told: what it reports later
//     does not count;
//  2. what it has reported until then is taken;
//  3. the ranges that it had claimed are looked up;
//  4. of each of them the first task without an outcome counts as run and
//     failed with the machine, the others as not run.

// giveUp ends the session of a machine for the run.
func (f *Fleet) giveUp(m *machine, why string, terminate bool, now time.Time) {
	m.losing = true
	if terminate {
		f.terminate([]*machine{m}, why)
	}
	if terminate && m.phase == booting && !m.rejoin { // it has nothing yet
		m.losing = false
		return
	}
	// Else the last coordinator has given back what it held.
	m.lostEarly = !f.s.open && !slices.Contains(f.s.lost, m.name())
	f.setLive(m.ID, nil)
	if f.s.stop == "" && m.phase != left {
		f.cfg.Notice(fmt.Sprintf("machine %s was lost: %s", m.ID, why))
	}
	f.endSession(m, m.beat.Session, m.beat.Held, why, func() {
		m.losing = false
		f.end(m, why, now)
	})
}

// newSession ends the earlier session of a machine that has begun a new one.
func (f *Fleet) newSession(m *machine, old wire.Beat, _ time.Time) {
	if old.State == wire.StateGone {
		return // it was invited again
	}
	f.endSession(m, old.Session, old.Held, "it was cut off, or its agent ended", func() {})
}

// endSession gives a session up and calls then in the loop.
func (f *Fleet) endSession(m *machine, session int, held []cloud.Range, why string, then func()) {
	s := f.s
	name := sessionName(m.ID, session)
	if slices.Contains(s.lost, name) {
		then()
		return
	}
	s.lost = append(slices.Clone(s.lost), name)
	for _, h := range held {
		if r := s.ranges[h.ID]; r != nil {
			r.holder = name
		}
	}
	kind := m.kind
	m.ending++ // what it had reported is taken here: others would leave it out
	f.afterControl(func() {
		var unclear []*heldRange // somebody may have claimed them since the last heartbeats
		for _, r := range s.ranges {
			if r.kind == kind && r.holder == "" {
				unclear = append(unclear, r)
			}
		}
		from := m.folded
		f.run(func() {
			folded, err := f.drain(m.ID, from, session)
			if err != nil {
				if f.ctx.Err() == nil {
					f.fail(fmt.Errorf("read what machine %s had reported: %w", m.ID, err))
				}
				return
			}
			mine := f.claimed(unclear, m.ID, session)
			f.do(func() {
				m.ending--
				m.folded = max(m.folded, folded)
				m.known = max(m.known, m.folded)
				for _, r := range unclear {
					if mine[r.ID] && r.holder == "" {
						r.holder = name
					}
				}
				f.handBack(m.ID, name, why)
				then()
				f.readSegments(m)
			})
		})
	})
}

// drain takes all segments of a machine that are there. Those of the session
// that is being given up still count: it could not know. An error is for good.
func (f *Fleet) drain(id string, n, session int) (int, error) {
	var names map[string]bool
	f.sync(func() { names = f.lostSessions(id) })
	if f.ctx.Err() != nil {
		return n, context.Cause(f.ctx)
	}
	delete(names, sessionName(id, session))
	for {
		var there bool
		err := retry(f.ctx, func() (err error) { there, err = f.fold(id, n+1, names); return err })
		if err != nil || !there {
			return n, err
		}
		n++
	}
}

// A session may claim a range when it has been given up, and before it knows.
// Nobody would ever end that range: so the claims of ranges that nobody seems
// to have are looked up now and then.
const (
	claimsEvery = time.Minute
	claimsMost  = 2000 // at a time, oldest first
)

// lookForClaims finds out, for as long as the fleet works, who has the ranges
// that no heartbeat names.
func (f *Fleet) lookForClaims() {
	for f.ctx.Err() == nil {
		pause(f.ctx, claimsEvery)
		var old []*heldRange
		f.sync(func() {
			now := time.Now()
			for _, r := range f.s.ranges {
				if r.holder == "" && now.Sub(r.sent) > claimsEvery {
					old = append(old, r)
				}
			}
		})
		slices.SortFunc(old, func(a, b *heldRange) int { return a.sent.Compare(b.sent) })
		old = old[:min(len(old), claimsMost)]
		found := f.claims(old)
		f.sync(func() {
			for id, c := range found {
				f.claimFound(id, c)
			}
		})
	}
}

// claimFound notes who has a range. Only the loop calls it.
func (f *Fleet) claimFound(id string, c wire.Claim) {
	s := f.s
	r, m := s.ranges[id], s.machines[c.Machine]
	if r == nil || r.holder != "" || m == nil {
		return
	}
	r.holder = sessionName(c.Machine, c.Session)
	switch {
	case slices.Contains(s.lost, r.holder):
		f.handBack(c.Machine, r.holder, "it had been given up")
	case m.phase == ended:
		f.endSession(m, c.Session, nil, orText(m.Why, "it has ended"), func() {})
	}
}

// claims reads who has claimed ranges. Those that nobody has are left out, as
// those of which that cannot be told now.
func (f *Fleet) claims(ranges []*heldRange) map[string]wire.Claim {
	found := map[string]wire.Claim{}
	var mu sync.Mutex
	work := make(chan string)
	var wg sync.WaitGroup
	for range min(parallel, len(ranges)) {
		wg.Go(func() {
			for id := range work {
				b, err := f.cfg.Store.Get(f.ctx, wire.ClaimKey(f.cfg.Run, id))
				var c wire.Claim
				if err != nil || json.Unmarshal(b, &c) != nil {
					continue
				}
				mu.Lock()
				found[id] = c
				mu.Unlock()
			}
		})
	}
	for _, r := range ranges {
		work <- r.ID
	}
	close(work)
	wg.Wait()
	return found
}

// claimed are those of the ranges that a session has claimed.
func (f *Fleet) claimed(ranges []*heldRange, id string, session int) map[string]bool {
	mine := map[string]bool{}
	for r, c := range f.claims(ranges) { // what cannot be read now is looked for again
		if c.Machine == id && c.Session == session {
			mine[r] = true
		}
	}
	return mine
}

// handBack gives back the ranges of a session that was given up.
func (f *Fleet) handBack(id, name, why string) {
	s := f.s
	var ids []string
	for _, rid := range sortedIDs(s.ranges) {
		if s.ranges[rid].holder == name {
			ids = append(ids, rid)
			delete(s.ranges, rid)
		}
	}
	if len(ids) > 0 {
		f.run(func() { f.cfg.Coordinator.Lost(id, fmt.Sprintf("machine %s was lost: %s", id, why), ids) })
	}
}

func sortedIDs(m map[string]*heldRange) []string {
	ids := make([]string, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
