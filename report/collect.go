package report

import (
	"bytes"
	"context"
	"sort"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/ui"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// Data is what a report shows.
type Data struct {
	Report   executor.Report
	Header   executor.Header
	Params   []Param
	Source   string // the pipeline file
	Timeline Timeline
	Groups   []Group
	Results  []Results
	Made     time.Time
}

// Param is a parameter with its value.
type Param struct{ Name, Value string }

// Group is failures with something in common.
type Group struct {
	Signature string
	Count     int
	Causes    string
	Functions string
	Examples  []Example
}

// Example is one failed task.
type Example struct {
	Task, Line, Log string
}

// Results is the first results of a function.
type Results struct {
	Function string
	Total    int
	Rows     []Row
}

// Row is a task with its item and result, as text.
type Row struct {
	Index                int
	Item, Status, Result string
	Seconds              float64
}

// The bounds of what is collected.
const (
	maxFunctions = 50      // with results
	maxRows      = 10      // results of a function
	maxCell      = 600     // bytes of an item or result
	maxLog       = 4 << 10 // bytes of an example's log
	maxGroups    = 30
	maxSource    = 256 << 10
)

// Collect reads what the page shows of a run, within the limits above. now is
// when the page is made. Errors are those of the store.
func Collect(ctx context.Context, v *executor.View, now time.Time) (*Data, error) {
	r, err := v.Report(ctx)
	if err != nil {
		return nil, err
	}
	d := &Data{Report: r, Made: now}
	if v.Header != nil {
		d.Header = *v.Header
	}
	if p := v.Pipeline(); p != nil {
		d.Source = text(p.Source, maxSource)
		for name, val := range p.Params {
			d.Params = append(d.Params, Param{name, text([]byte(value.Text(val)), maxCell)})
		}
		sort.Slice(d.Params, func(i, j int) bool { return d.Params[i].Name < d.Params[j].Name })
	}
	if err := d.outcomes(ctx, v, now); err != nil {
		return nil, err
	}
	for _, fn := range v.Functions() {
		if len(d.Results) == maxFunctions {
			break
		}
		if err := d.results(ctx, v, fn); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// outcomes makes the timeline and the groups of failures in one pass over the
// journal. A task that failed and later succeeded is no failure.
func (d *Data) outcomes(ctx context.Context, v *executor.View, now time.Time) error {
	end := now
	if d.Report.Finished != nil {
		end = *d.Report.Finished
	}
	names := make([]string, len(d.Report.Functions))
	tasks := map[string]int{}
	for i, f := range d.Report.Functions {
		names[i] = f.Name
		tasks[f.Name] = f.Tasks
	}
	b := newTimeline(names, d.Report.Started, end)
	var g failures.Grouper
	err := v.Outcomes(ctx, func(fn string, o *task.Outcome) bool {
		b.add(fn, o)
		if o.Status == task.Failed {
			if t, ok := v.Task(fn, o.Index); ok && t.Status == task.Failed && t.Attempts == o.Attempt {
				g.Add(fn, o)
			}
		}
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	d.Timeline = b.timeline()
	for i, grp := range g.Groups() {
		if i == maxGroups {
			break
		}
		d.Groups = append(d.Groups, d.group(ctx, v, grp, tasks))
	}
	return nil
}

func (d *Data) group(ctx context.Context, v *executor.View, g *failures.Group, tasks map[string]int) Group {
	out := Group{Signature: ui.Clean(g.Title()), Count: g.Count}
	for c := task.NoCause; c <= task.CauseCancelled; c++ {
		if n := g.Causes[c]; n > 0 {
			out.Causes = list(out.Causes, c.String(), n, len(g.Causes))
		}
	}
	for _, fn := range g.FunctionNames() {
		out.Functions = list(out.Functions, fn, g.Functions[fn], len(g.Functions))
	}
	for _, e := range g.Examples {
		log := e.Stderr
		// An example without a readable log still has its standard error.
		if b, err := tail(ctx, v, e.Function, e.Index); err == nil && len(b) > 0 {
			log = b
		}
		out.Examples = append(out.Examples, Example{Task: ui.Task(e.Function, e.Index, tasks[e.Function]), Line: ui.Clean(e.Line), Log: logText(log)})
	}
	return out
}

// list adds "name (n)" to a list, or just the name where it is the only one.
func list(have, name string, n, of int) string {
	if of > 1 {
		name += " (" + ui.Count(n) + ")"
	}
	if have == "" {
		return name
	}
	return have + ", " + name
}

func tail(ctx context.Context, v *executor.View, fn string, index int) ([]byte, error) {
	var b []byte
	for off := int64(0); ; {
		data, done, err := v.Log(ctx, fn, index, 0, off)
		if err != nil {
			return b, err
		}
		off += int64(len(data))
		b = append(b, data...)
		if cut := len(b) - maxLog; cut > 0 {
			b = append(b[:0], b[cut:]...)
		}
		if done || len(data) == 0 {
			return b, nil
		}
	}
}

// logText is the end of a log without escape sequences.
func logText(b []byte) string {
	if cut := len(b) - maxLog; cut > 0 {
		b = b[cut:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	var out bytes.Buffer
	w := &ui.LogWriter{W: &out}
	_, _ = w.Write(b) // into memory
	_ = w.End()
	return string(bytes.TrimRight(out.Bytes(), "\n"))
}

// results takes the first results of a function with their items.
func (d *Data) results(ctx context.Context, v *executor.View, fn string) error {
	res := Results{Function: fn}
	for _, f := range d.Report.Functions {
		if f.Name == fn {
			res.Total = f.Tasks
		}
	}
	err := v.EachResult(ctx, fn, func(t executor.TaskReport, result []byte) bool {
		if len(res.Rows) == maxRows {
			return false
		}
		r := Row{Index: t.Index, Status: t.Status.String(), Seconds: t.Seconds}
		if result != nil {
			r.Result = text(result, maxCell)
		}
		res.Rows = append(res.Rows, r)
		return true
	})
	if err != nil || len(res.Rows) == 0 {
		return err
	}
	if v.Mapped(fn) {
		err = v.EachItem(ctx, fn, 0, len(res.Rows), func(index int, item any) bool {
			if index < len(res.Rows) {
				res.Rows[index].Item = ui.Clean(text([]byte(value.Text(item)), maxCell))
			}
			return true
		})
	}
	d.Results = append(d.Results, res)
	return err
}

// text is bytes as valid text of at most n bytes.
func text(b []byte, n int) string {
	cut := ""
	if len(b) > n {
		b, cut = b[:n], "…"
	}
	return string(bytes.ToValidUTF8(b, []byte("\ufffd"))) + cut
}
