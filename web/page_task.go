package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// unlessMissing is for maps that are not expanded yet.
func unlessMissing(err error) error {
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	return err
}

// maxText is how much of an item or a result a task's page has.
const maxText = 64 << 10

// taskData is a task's page.
type taskData struct {
	Run, Function string
	Index, Tasks  int
	State, Cause  string
	Mapped        bool
	Item, Result  string
	Attempts      []task.Outcome
	Why           []string
	Attempt       int // whose log is shown; 0: the last
	Running       bool
	Since         time.Time
	Log           string // of one that has ended
	LogCut        int64  // bytes of it that are left out
	Prev, Next    int    // -1: none
}

func (s *Server) taskPage(w http.ResponseWriter, r *http.Request, run *watched) error {
	fn, index, err := taskOf(r)
	if err != nil {
		return err
	}
	d := taskData{Run: run.run, Function: fn, Index: index, Prev: index - 1, Next: -1}
	d.Attempt, _ = strconv.Atoi(r.URL.Query().Get("attempt"))
	ctx := r.Context()
	err = run.read(func(v *executor.View, live map[string]map[int]task.Live) error {
		t, ok := v.Task(fn, index)
		if !ok {
			return errNotFound
		}
		d.Mapped = v.Mapped(fn)
		for range v.Tasks(fn) {
			d.Tasks++
		}
		if index+1 < d.Tasks {
			d.Next = index + 1
		}
		l, running := live[fn][index]
		d.State, d.Cause = taskStates[cellOf(t, running)], t.Cause.String()
		d.Running = running && !t.Status.Final()
		if d.Running {
			d.Since = time.Unix(0, l.Started)
			if d.Attempt == 0 {
				d.Attempt = l.Attempt
			}
			d.Running = d.Attempt == l.Attempt
		}
		if d.Attempts, err = v.Attempts(ctx, fn, index); err != nil {
			return err
		}
		if d.Why, err = v.Why(ctx, fn, index); err != nil {
			return err
		}
		if len(d.Why) > 1 {
			d.Why = d.Why[1:] // the first says the name and the status
		}
		item, err := itemOf(ctx, v, fn, index)
		if err != nil {
			return err
		}
		d.Item = pretty(item)
		if t.Status == task.Succeeded {
			b, err := v.Result(ctx, fn, index)
			if err != nil {
				return err
			}
			d.Result = pretty(b)
		}
		if !d.Running {
			d.Log, d.LogCut, err = endOfLog(ctx, v, fn, index, d.Attempt)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.show(w, r, page{template: "task", title: ui.Task(fn, index, 0) + " · " + run.run, here: "runs", script: "task.js"}, d)
}

// pretty is JSON for people.
func pretty(b []byte) string {
	if bytes.Equal(b, []byte("null")) {
		return ""
	}
	var text string
	if json.Unmarshal(b, &text) == nil {
		return cut(text, maxText)
	}
	var out bytes.Buffer
	if len(b) > maxText || json.Indent(&out, b, "", "  ") != nil {
		return cut(string(b), maxText)
	}
	return out.String()
}

// maxShown is how much of the end of a log is shown.
const maxShown = 256 << 10

// endOfLog is the end of what an attempt that has ended printed, as text, and
// how much came before.
func endOfLog(ctx context.Context, v *executor.View, fn string, index, attempt int) (string, int64, error) {
	off, err := logStart(ctx, v, fn, index, attempt)
	if err != nil {
		return "", 0, err
	}
	var out bytes.Buffer
	clean := &ui.LogWriter{W: &out}
	for at := off; ; {
		data, done, err := v.Log(ctx, fn, index, attempt, at)
		if err != nil {
			return "", 0, err
		}
		at += int64(len(data))
		_, _ = clean.Write(data) // into memory
		if done || len(data) == 0 || at-off > 2*maxShown {
			break
		}
	}
	_ = clean.End()
	return out.String(), off, nil
}

// logStart is where to begin with a log so that its end is shown. The length
// of what is still written is not known: it is looked for.
func logStart(ctx context.Context, v *executor.View, fn string, index, attempt int) (int64, error) {
	there := func(off int64) (bool, error) {
		data, _, err := v.Log(ctx, fn, index, attempt, off)
		return len(data) > 0, err
	}
	lo, hi := int64(0), int64(maxShown)
	for {
		ok, err := there(hi)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		lo, hi = hi, hi*2
	}
	for hi-lo > maxShown/8 {
		mid := lo + (hi-lo)/2
		ok, err := there(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			lo = mid
		} else {
			hi = mid
		}
	}
	return max(0, hi-maxShown), nil
}

// logEvents follows what a task prints, as text without control sequences.
// "log" is a piece of it as JSON text, "end" that the attempt has ended.
func (s *Server) logEvents(w http.ResponseWriter, r *http.Request, run *watched) error {
	fn, index, err := taskOf(r)
	if err != nil {
		return err
	}
	attempt, _ := strconv.Atoi(r.URL.Query().Get("attempt"))
	defer run.watch(r.Context())()
	ctx := r.Context()
	var off int64
	err = run.read(func(v *executor.View, _ map[string]map[int]task.Live) (err error) {
		if _, ok := v.Task(fn, index); !ok {
			return errNotFound
		}
		off, err = logStart(ctx, v, fn, index, attempt)
		return err
	})
	if err != nil {
		return err
	}
	out := newStream(w)
	out.send("start", []byte(strconv.FormatInt(off, 10)))
	var text bytes.Buffer
	clean := &ui.LogWriter{W: &text}
	tick, alive := time.NewTicker(run.hub.every), time.NewTicker(aliveEvery)
	defer tick.Stop()
	defer alive.Stop()
	for !out.gone {
		var data []byte
		var done bool
		err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) (err error) {
			data, done, err = v.Log(ctx, fn, index, attempt, off)
			return err
		})
		off += int64(len(data))
		_, _ = clean.Write(data) // into memory
		if done {
			_ = clean.End()
		}
		if text.Len() > 0 {
			out.send("log", jsonText(plain(text.String())))
			out.push()
			text.Reset()
		}
		if done && err == nil {
			out.send("end", nil)
			out.push()
			return nil
		}
		if len(data) > 0 && err == nil {
			continue // there may be more
		}
		select {
		case <-tick.C:
		case <-alive.C:
			out.alive()
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
