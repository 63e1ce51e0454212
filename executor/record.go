package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// recorded is an input with its record; events that are not recorded have none.
type recorded struct {
	event    *event
	outcomes *outcomes
}

func (c *Coordinator) encode(ctx context.Context, batch []input) (recs [][]byte, evs []recorded, err error) {
	now := c.cfg.Now().UnixNano()
	c.buf = c.buf[:0]
	add := func(r recorded, enc func([]byte) ([]byte, error)) error {
		var rec []byte
		if enc != nil {
			start := len(c.buf)
			if c.buf, err = enc(c.buf); err != nil {
				return err
			}
			rec = c.buf[start:len(c.buf):len(c.buf)]
		}
		recs, evs = append(recs, rec), append(evs, r)
		return nil
	}
	stops := c.state.stopping != notStopping
	for _, in := range batch {
		stops = stops || in.event != nil && (in.event.Kind == evCancel || in.event.Kind == evLimit)
	}
	if e := c.state.heldBefore(batch); e != nil {
		e.At = now
		if err := add(recorded{event: e}, e.encode); err != nil {
			return nil, nil, err
		}
	}
	for _, in := range batch {
		if in.event != nil {
			in.event.At = now
			enc := in.event.encode
			if in.event.Kind == evGone && !stops {
				enc = nil
			}
			if err := add(recorded{event: in.event}, enc); err != nil {
				return nil, nil, err
			}
			continue
		}
		if in.batch == nil {
			continue
		}
		for list := in.batch.Outcomes; len(list) > 0; {
			n := batchLen(list)
			o := &outcomes{at: now, function: in.batch.Function, list: list[:n]}
			c.decideRetries(ctx, o)
			if err := add(recorded{outcomes: o}, o.encode); err != nil {
				return nil, nil, err
			}
			list = list[n:]
		}
		if len(in.batch.Unrun) > 0 {
			e := &event{Kind: evRefused, At: now, Function: in.batch.Function, Indices: in.batch.Unrun}
			enc := e.encode
			if !stops && !c.state.recordsGivenBack(e.Function) {
				enc = nil
			}
			if err := add(recorded{event: e}, enc); err != nil {
				return nil, nil, err
			}
		}
	}
	return recs, evs, nil
}

// maxRecord is about how many bytes of results go into one record: reading
// one result reads its record.
const maxRecord = 256 << 10

// batchLen is how many outcomes from the front go into one record.
func batchLen(list []task.Outcome) int {
	size := 0
	for i := range list {
		size += len(list[i].Result)
		if i == maxBatch || i > 0 && size > maxRecord {
			return i
		}
	}
	return len(list)
}

// append makes records durable. A nil record has no position.
func (c *Coordinator) append(recs [][]byte) ([]int64, error) {
	pos := make([]int64, len(recs))
	var real [][]byte
	for _, r := range recs {
		if r != nil {
			real = append(real, r)
		}
	}
	if len(real) == 0 {
		return pos, nil
	}
	got, err := c.appendPatiently(real)
	if err != nil {
		return nil, err
	}
	for i, r := range recs {
		if r != nil {
			pos[i], got = got[0], got[1:]
		}
	}
	return pos, nil
}

// stalledAfter is how long the journal may take until people are told.
const stalledAfter = 30 * time.Second

// appendPatiently waits for the journal, which tries on while its store cannot
// be reached.
func (c *Coordinator) appendPatiently(recs [][]byte) ([]int64, error) {
	told := make(chan struct{})
	stalled := time.AfterFunc(stalledAfter, func() {
		defer close(told)
		c.cfg.Notice(Notice{Time: c.cfg.Now(), Kind: NoticeWarning, Text: fmt.Sprintf(
			"the store has taken nothing for %s; tasks go on, and are recorded when it does", stalledAfter)})
	})
	pos, err := c.journal.Append(recs...)
	if !stalled.Stop() {
		<-told
	}
	return pos, err
}
