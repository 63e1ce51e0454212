package machine

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// report takes outcomes from the worker.
func (s *session) report(b task.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.discard {
		return
	}
	if s.blame != "" {
		blame(b.Outcomes, s.m.id, s.blame)
	}
	s.pending = append(s.pending, entry{batch: b})
	s.change()
}

// blame makes tasks that were ended with the machine its failures: they were
// not cancelled.
func blame(list []task.Outcome, id Identity, why string) {
	what := "machine"
	if id.Spot {
		what = "spot machine"
	}
	for i := range list {
		if o := &list[i]; o.Status == task.Cancelled {
			o.Status, o.Cause = task.Failed, task.CauseMachine
			o.Message = fmt.Sprintf("%s %s %s", what, id.ID, why)
		}
	}
}

// A segment holds no more than this, if it can be helped.
const (
	segmentOutcomes = 20_000
	segmentBytes    = 16 << 20
)

// cutSegment takes from the front of entries what one segment holds.
func cutSegment(list []entry) (batches []task.Batch, ended []*hold, rest []entry) {
	outcomes, size := 0, 0
	for i, e := range list {
		if e.end != nil {
			ended = append(ended, e.end)
			continue
		}
		if outcomes >= segmentOutcomes || size >= segmentBytes {
			return batches, ended, list[i:]
		}
		outcomes += len(e.batch.Outcomes) + len(e.batch.Unrun)
		for k := range e.batch.Outcomes {
			size += len(e.batch.Outcomes[k].Result) + len(e.batch.Outcomes[k].Stderr)
		}
		if n := len(batches); n > 0 && batches[n-1].Function == e.batch.Function {
			b := &batches[n-1]
			b.Outcomes = append(b.Outcomes, e.batch.Outcomes...)
			b.Unrun = append(b.Unrun, e.batch.Unrun...)
			continue
		}
		batches = append(batches, task.Batch{Function: e.batch.Function,
			Outcomes: append([]task.Outcome(nil), e.batch.Outcomes...), Unrun: append([]int(nil), e.batch.Unrun...)})
	}
	return batches, ended, nil
}

// writeSegments makes what was reported durable, at the pace that is asked for.
func (s *session) writeSegments() {
	var last time.Time
	for {
		now := time.Now()
		s.mu.Lock()
		f := segmentFacts{pending: len(s.pending) > 0, last: last, pace: s.control.Pace, done: s.flush || len(s.held)+len(s.taking) == 0}
		at, ch := segmentAt(&f), s.changed
		if at.IsZero() || now.Before(at) {
			s.mu.Unlock()
			if !wait(s.ctx, at, ch) {
				return
			}
			continue
		}
		batches, ended, rest := cutSegment(s.pending)
		whole := len(s.pending) - len(rest)
		s.mu.Unlock()

		last = now
		if len(rest) > 0 {
			last = time.Time{} // there is more than one segment's worth
		}
		n, err := s.writeSegment(batches, ended)
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			// It cannot be told by anybody else: it is tried until this session ends.
			s.log.Error("a segment was not written", "err", err)
			if !wait(s.ctx, time.Now().Add(time.Second), nil) {
				return
			}
			continue
		}
		s.update(func() {
			s.st.segments = n
			if s.discard {
				return
			}
			s.pending = s.pending[whole:]
			s.errands = append(s.errands, ended...)
			s.hintDue = n
		})
	}
}

// writeSegment writes the next segment and tells its number. What is there
// under a number and was not written just now is of an earlier life: its
// number is passed over.
func (s *session) writeSegment(batches []task.Batch, ended []*hold) (int, error) {
	seg := &wire.Segment{Machine: s.m.id.ID, Session: s.n, Batches: batches}
	for _, h := range ended {
		seg.Ended = append(seg.Ended, h.d.ID)
	}
	for n := s.st.segments + 1; ; n++ {
		seg.N = n
		b, err := seg.Encode()
		if err != nil {
			return 0, err
		}
		there, err := s.createOrSame(wire.SegmentKey(s.st.run, s.m.id.ID, n), b)
		if err != nil || there {
			return n, err
		}
	}
}

// createOrSame creates an object and says whether it has these bytes now: a
// reply may have been lost.
func (s *session) createOrSame(key string, b []byte) (same bool, err error) {
	err = again(s.ctx, func(ctx context.Context) error {
		err := s.m.cfg.Store.Create(ctx, key, b)
		if cloud.KindOf(err) != cloud.KindConflict {
			same = true
			return err
		}
		have, err := s.m.cfg.Store.Get(ctx, key)
		same = bytes.Equal(have, b)
		return err
	})
	return same && err == nil, err
}

// runErrands removes the messages of ranges whose outcomes are durable, and
// tells the coordinator where these are. Both may fail: messages come again,
// segments are found by the heartbeat.
func (s *session) runErrands() {
	var hints cloud.Queue
	var url string
	defer func() { leaveQueue(hints) }()
	for {
		s.mu.Lock()
		list, hint, to, ch := s.errands, s.hintDue, s.control.Hints, s.changed
		s.mu.Unlock()
		if len(list) == 0 && hint == 0 {
			if !wait(s.ctx, time.Time{}, ch) {
				return
			}
			continue
		}
		if hint != 0 && to != "" {
			ctx, cancel := context.WithTimeout(s.ctx, askWithin)
			var err error
			if url != to {
				leaveQueue(hints)
				url = ""
				if hints, err = s.m.cfg.JoinQueue(ctx, to); err == nil {
					url = to
				}
			}
			if err == nil {
				err = hints.Send(ctx, wire.Hint{Machine: s.m.id.ID, Segment: hint}.Range(s.st.run))
			}
			cancel()
			if err != nil && s.ctx.Err() == nil {
				s.log.Warn("a hint was not sent", "segment", hint, "err", err)
			}
		}
		for _, h := range list {
			ctx, cancel := context.WithTimeout(s.ctx, askWithin)
			err := h.from.q.Done(ctx, h.d)
			cancel()
			if err != nil && s.ctx.Err() == nil && cloud.KindOf(err) != cloud.KindClosed {
				s.log.Warn("a message was not removed", "range", h.d.ID, "err", err)
			}
		}
		s.update(func() {
			s.errands = s.errands[len(list):]
			if s.hintDue == hint {
				s.hintDue = 0
			}
		})
		if s.ctx.Err() != nil {
			return
		}
	}
}
