package executor

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"os"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// startState says whether machines can find what tasks of a function must know.
type startState uint8

const (
	startNone startState = iota
	startWriting
	startWritten
)

// needsKey is where what a function gave lies for machines, as a coordinator
// with this epoch saw it.
func needsKey(run, fn string, epoch int, what string) string {
	return fmt.Sprintf("%s/start/%s-%d.%s.jsonl", Prefix(run), fn, epoch, what)
}

// startFunctions writes what machines must know of functions that now run. No
// task of them is handed out before.
func (c *Coordinator) startFunctions(ctx context.Context) {
	if c.cfg.Remote == nil {
		return
	}
	for _, f := range c.state.order {
		if f.phase != running || f.start != startNone {
			continue
		}
		f.start = startWriting
		epoch := c.state.epoch
		c.prep.Go(func() {
			err := c.writeStart(ctx, f, epoch)
			if err != nil {
				err = fmt.Errorf("record what tasks of %s need: %w", f.spec.Name, err)
			}
			c.put(input{started: f, err: err})
		})
	}
}

func (c *Coordinator) writeStart(ctx context.Context, f *function, epoch int) error {
	c.mu.Lock()
	s := wire.Start{Function: f.spec.Name, Count: f.n, Needs: map[string]wire.Need{}}
	for _, need := range f.needs {
		s.Needs[need.spec.Name] = wire.Need{Status: need.shown(), Count: need.n, Failed: need.counts[task.Failed],
			Mapped: need.spec.Map != nil, BehindFailure: need.behindFailure, Streams: need == f.from && !f.barrier}
	}
	c.mu.Unlock()
	for _, need := range f.needs {
		n := s.Needs[need.spec.Name]
		if n.Streams {
			continue
		}
		gave, err := c.writeGave(ctx, need, epoch)
		if err != nil {
			return err
		}
		n.Results, n.Outputs, n.ID = gave.Results, gave.Outputs, gave.ID
		n.Without = need.without()
		s.Needs[need.spec.Name] = n
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return c.cfg.Store.Put(ctx, wire.StartKey(c.cfg.Header.Run, f.spec.Name, epoch), b)
}

// without is the tasks of an ended function that have no result, as spans.
func (f *function) without() [][2]int {
	var spans [][2]int
	for i := 0; i < f.n; i++ {
		if i < len(f.table.status) && f.table.status[i] == task.Succeeded {
			continue
		}
		if n := len(spans); n > 0 && spans[n-1][1] == i {
			spans[n-1][1]++
		} else {
			spans = append(spans, [2]int{i, i + 1})
		}
	}
	return spans
}

// gaveCache holds what was written of functions that others need.
type gaveCache struct {
	mu sync.Mutex
	by map[string]func() (wire.Need, error)
}

// writeGave writes the results and outputs of an ended function, once.
func (c *Coordinator) writeGave(ctx context.Context, f *function, epoch int) (wire.Need, error) {
	c.gave.mu.Lock()
	get := c.gave.by[f.spec.Name]
	if get == nil {
		get = sync.OnceValues(func() (wire.Need, error) { return c.gaveOf(ctx, f, epoch) })
		if c.gave.by == nil {
			c.gave.by = map[string]func() (wire.Need, error){}
		}
		c.gave.by[f.spec.Name] = get
	}
	c.gave.mu.Unlock()
	return get()
}

func (c *Coordinator) gaveOf(ctx context.Context, f *function, epoch int) (need wire.Need, err error) {
	results, err := c.spool()
	if err != nil {
		return need, err
	}
	defer results.remove()
	outputs, err := c.spool()
	if err != nil {
		return need, err
	}
	defer outputs.remove()
	ids := newNeedsHash(f)
	var failed error
	err = c.rd.eachKept(ctx, f, func(i int, k kept) bool {
		ids.add(i, k.id)
		res, rerr := c.rd.resultOf(ctx, k)
		if failed = rerr; failed != nil {
			return false
		}
		if res == nil {
			res = []byte("null")
		}
		_, _ = results.w.Write(res) // put reports it
		_ = results.w.WriteByte('\n')
		for _, o := range k.outputs {
			line, merr := json.Marshal(o)
			if failed = merr; failed != nil {
				return false
			}
			_, _ = outputs.w.Write(append(line, '\n'))
			need.Outputs = needsKey(c.cfg.Header.Run, f.spec.Name, epoch, "outputs")
		}
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return need, err
	}
	need.ID = ids.sum()
	need.Results = needsKey(c.cfg.Header.Run, f.spec.Name, epoch, "results")
	if err := c.putSpool(ctx, need.Results, results); err != nil {
		return need, err
	}
	if need.Outputs != "" {
		err = c.putSpool(ctx, need.Outputs, outputs)
	}
	return need, err
}

// spool is a file that is written before it is sent: it may be larger than
// memory, and sending may have to be repeated.
type spool struct {
	f *os.File
	w *bufio.Writer
}

func (c *Coordinator) spool() (*spool, error) {
	f, err := os.CreateTemp(c.cfg.Scratch, "start-")
	if err != nil {
		return nil, err
	}
	return &spool{f, bufio.NewWriterSize(f, 1<<16)}, nil
}

func (s *spool) remove() {
	_ = s.f.Close() // it was read to its end, or nobody wants it
	_ = os.Remove(s.f.Name())
}

func (c *Coordinator) putSpool(ctx context.Context, key string, s *spool) error {
	if err := s.w.Flush(); err != nil {
		return err
	}
	if _, err := s.f.Seek(0, 0); err != nil {
		return err
	}
	return c.cfg.Store.PutFrom(ctx, key, s.f)
}

// needsHash is the identity of all tasks of a function together.
type needsHash struct {
	h    hash.Hash
	none bool // it never came to its tasks
}

func newNeedsHash(f *function) *needsHash {
	return &needsHash{sha256.New(), f.table.status == nil}
}

func (n *needsHash) add(i int, id task.ID) {
	if !n.none {
		n.h.Write(binary.LittleEndian.AppendUint32(nil, uint32(i)))
		n.h.Write(id[:])
	}
}

func (n *needsHash) sum() task.ID { return task.ID(n.h.Sum(nil)[:16]) }
