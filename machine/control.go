package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// readControl reads what the coordinator says, again and again.
func (s *session) readControl() {
	s.st.mu.Lock()
	c, read := s.st.control, s.st.controlAt
	s.st.mu.Unlock()
	s.adopt(c, read) // as the stay has just read it
	last, failed := read, false
	for {
		now := time.Now()
		s.mu.Lock()
		due := last.Add(controlEvery(now, s.idleSince, len(s.held) > 0))
		poke, ch := s.poke, s.changed
		s.mu.Unlock()
		if failed {
			due, poke = last.Add(time.Second), false
		}
		if !poke && now.Before(due) {
			if !wait(s.ctx, due, ch) {
				return
			}
			continue
		}
		s.mu.Lock()
		s.poke = false
		s.mu.Unlock()
		begun := time.Now()
		last, failed = begun, false
		c, err := s.st.readControl(s.ctx)
		switch {
		case s.ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("cannot read what the coordinator says", "err", err)
			last, failed = time.Now(), true
		default:
			s.adopt(c, begun)
		}
	}
}

// controlEvery is how often Control is read: more often where it is likely to
// say soon that there is nothing more to do, as waiting costs money.
func controlEvery(now, idleSince time.Time, busy bool) time.Duration {
	if !busy && !idleSince.IsZero() && now.Sub(idleSince) < 15*time.Second {
		return time.Second
	}
	return wire.ControlEvery
}

// readControl reads Control once.
func (st *stay) readControl(ctx context.Context) (*wire.Control, error) {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	key := wire.ControlKey(st.run)
	begun := time.Now()
	b, err := st.m.cfg.Store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	st.mu.Lock()
	old, before := st.control, st.controlAt
	st.controlAt = begun
	same := old != nil && bytes.Equal(b, st.controlBytes)
	st.mu.Unlock()
	if same {
		return old, nil
	}
	c := &wire.Control{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
	}
	first := old == nil
	if !first && c.Epoch < old.Epoch {
		return old, nil // of a coordinator that others have replaced
	}
	var skew time.Duration
	if first {
		skew = st.firstSkew(ctx, c.Written, begun)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if !first {
		skew = skewOf(st.skew, c.Written, before, begun)
	}
	st.skew = skew
	c.Until = c.Until.Add(skew)
	st.control, st.controlBytes = c, b
	if !first || begun.Before(c.Until) { // see firstControl
		st.m.grant(c.Until)
	}
	return c, nil
}

// maxSkew is how far the coordinator's clock may be from ours without being
// corrected: so long may a write have been on its way.
const maxSkew = 2 * time.Minute

// skewOf is how far our clock is ahead of the coordinator's: what it has written
// at a time of its own came between two looks of ours. Where these are far apart
// nothing is learnt. A computer that slept may be hours behind, and its grants
// would be over before they are read.
func skewOf(known time.Duration, written, before, now time.Time) time.Duration {
	if written.IsZero() || now.Sub(before) > time.Minute {
		return known
	}
	if skew := now.Sub(written); skew > maxSkew || skew < -maxSkew {
		return skew
	}
	return 0
}

// firstSkew is the same before there was a look: what seems to be far from now is
// compared with the time at which the store took it, by a clock that is right.
// What cannot be learnt is learnt at the next look.
func (st *stay) firstSkew(ctx context.Context, written, now time.Time) time.Duration {
	if written.IsZero() || now.Sub(written).Abs() <= maxSkew {
		return 0
	}
	var taken time.Time
	key := wire.ControlKey(st.run)
	err := st.m.cfg.Store.List(ctx, key, func(o cloud.ObjectInfo) bool {
		if o.Key == key {
			taken = o.Modified
		}
		return false
	})
	if skew := taken.Sub(written); err == nil && !taken.IsZero() && skew.Abs() > maxSkew {
		return skew
	}
	return 0
}

// reopenAfter is when a queue that seemed closed, but still counts, is tried
// again.
const reopenAfter = 15 * time.Second

// adopt takes over what the coordinator says. From here on a beat names its
// epoch and exactly what is held: what is claimed later for an earlier epoch is
// not started.
func (s *session) adopt(c *wire.Control, read time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heardAt = read
	old := s.control
	url := c.Kinds[s.st.setup.Kind].Queue
	fresh := s.tap != nil && s.tap.url == url && !(s.tap.dead && read.Sub(s.tap.died) >= reopenAfter)
	if c == old && fresh {
		return
	}
	if c.Epoch != old.Epoch {
		s.log.Info("another coordinator", "epoch", c.Epoch)
		s.beatNow = true
	}
	s.control = c
	if !fresh && !s.closed {
		s.tap.leave()
		s.tap = newTap(s, url)
	}
	s.change()
}
