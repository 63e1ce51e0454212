package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// liveAfter is how long a task runs before readers are told that it does.
const liveAfter = 250 * time.Millisecond

// liveFile is live.json.
type liveFile struct {
	Tasks []task.Live `json:"tasks"`
}

// summary is summary.json: what `runs` shows, a hint.
type summary struct {
	Run      string     `json:"run"`
	Pipeline string     `json:"pipeline"`
	Status   RunStatus  `json:"status"`
	Started  time.Time  `json:"started"`
	Finished *time.Time `json:"finished"`
	Seconds  float64    `json:"seconds"`
	CostUSD  float64    `json:"cost_usd"`
	Machines int        `json:"machines"`
	Tasks    int        `json:"tasks"`
	Failed   int        `json:"failed"`
}

func summarize(r Report) summary {
	s := summary{Run: r.Run, Pipeline: r.Pipeline, Status: r.Status, Started: r.Started, Finished: r.Finished, Seconds: r.Seconds,
		CostUSD: r.CostUSD, Machines: r.Machines}
	for _, f := range r.Functions {
		s.Tasks += f.Tasks
		s.Failed += f.Failed
	}
	return s
}

func writeSummary(ctx context.Context, store cloud.Store, h *Header, r Report) error {
	b, err := json.Marshal(summarize(r))
	if err != nil {
		return err
	}
	return store.Put(ctx, SummaryKey(h.Run), b)
}

// background does what must not hold up the loop: it looks for a cancel,
// and tells readers which tasks run. It ends with ctx.
func (c *Coordinator) background(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		t := time.NewTicker(c.cfg.Poll)
		defer t.Stop()
		asked, lost := false, lostJournal(c.journal)
		var told []byte // the tasks in live.json, nil: there is none
		for {
			select {
			case <-ctx.Done():
				select {
				case <-lost: // live.json is another coordinator's now
					return
				default:
				}
				if told != nil {
					_ = c.cfg.Store.Delete(context.WithoutCancel(ctx), liveKey(c.cfg.Header.Run))
				}
				return
			case <-t.C:
			}
			if !asked {
				if by, err := c.cfg.Store.Get(ctx, CancelKey(c.cfg.Header.Run)); err == nil {
					asked = true
					c.Cancel(string(by))
				}
			}
			told = c.tellLive(ctx, told)
		}
	}()
	return &wg
}

// tellLive rewrites live.json when the tasks in it are not those of told any
// more. It is a hint for readers: a failed write is repeated with the next.
func (c *Coordinator) tellLive(ctx context.Context, told []byte) []byte {
	now := c.cfg.Now()
	var tasks []task.Live
	for _, l := range c.cfg.Live() {
		if now.UnixNano()-l.Started >= int64(liveAfter) {
			tasks = append(tasks, l)
		}
	}
	key := liveKey(c.cfg.Header.Run)
	if len(tasks) == 0 {
		if told != nil {
			_ = c.cfg.Store.Delete(ctx, key)
		}
		return nil
	}
	b, err := json.Marshal(liveFile{Tasks: tasks})
	if err != nil || bytes.Equal(b, told) || c.cfg.Store.Put(ctx, key, b) != nil {
		return told
	}
	return b
}
