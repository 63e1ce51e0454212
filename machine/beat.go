package machine

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// writeWithin bounds one request of the heartbeat: a new one holds newer facts.
const writeWithin = 10 * time.Second

// liveAfter is how long a task must have run to be worth a beat of its own.
const liveAfter = 500 * time.Millisecond

// writeBeats writes the heartbeat whenever it is due.
func (s *session) writeBeats() {
	var last, retry time.Time
	var told []task.Live
	segments := -1 // as told last
	for {
		now := time.Now()
		s.mu.Lock()
		w := s.worker
		s.mu.Unlock()
		var live []task.Live
		if w != nil {
			live = w.Live()
		}
		long := longRunning(live, now)
		s.mu.Lock()
		f := beatFacts{last: last, now: s.beatNow, held: s.heldDirty, retry: retry, pace: s.control.Pace}
		f.live = segments >= 0 && segments != s.st.segments || !slices.Equal(long, told)
		at, ch, gone := beatAt(&f), s.changed, s.state == wire.StateGone
		if now.Before(at) {
			if next := now.Add(time.Second); len(s.held) > 0 && next.Before(at) {
				at = next // to see which tasks run
			}
			s.mu.Unlock()
			if !wait(s.ctx, at, ch) {
				return
			}
			continue
		}
		b := s.beat(now, live)
		changed := s.beatNow
		s.beatNow, s.heldDirty = false, false
		s.mu.Unlock()

		err := s.put(wire.BeatKey(s.st.run, s.m.id.ID), b)
		if err == nil {
			last, retry, told, segments = now, time.Time{}, long, b.Segments
			s.update(func() { s.beatAt, s.seq, s.saidGone = now, b.Seq, gone })
			if gone {
				return
			}
			continue
		}
		if s.ctx.Err() != nil {
			return
		}
		s.log.Warn("the heartbeat was not written", "err", err)
		retry = time.Now().Add(time.Second)
		s.mu.Lock()
		s.beatNow, s.heldDirty = s.beatNow || changed, true
		s.mu.Unlock()
	}
}

// longRunning is what does not depend on the moment of the tasks that have
// run for a while.
func longRunning(live []task.Live, now time.Time) []task.Live {
	var long []task.Live
	for _, l := range live {
		if now.UnixNano()-l.Started >= int64(liveAfter) {
			long = append(long, l)
		}
	}
	return long
}

// beat is the heartbeat of now. The caller holds mu.
func (s *session) beat(now time.Time, live []task.Live) *wire.Beat {
	id := &s.m.id
	return &wire.Beat{
		Machine: id.ID, Session: s.n, Kind: s.st.setup.Kind, Seq: s.seq + 1, At: now.UTC(), Epoch: s.control.Epoch,
		State: s.state, Why: s.why, Worked: s.worker != nil, Slots: s.st.slots, Held: s.heldRanges(), Live: live, Segments: s.st.segments,
		Type: id.Type, Zone: id.Zone, Spot: id.Spot, Notice: s.notice, Metrics: s.m.metrics(),
	}
}

// put writes an object as JSON, once.
func (s *session) put(key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, writeWithin)
	defer cancel()
	return s.m.cfg.Store.Put(ctx, key, b)
}
