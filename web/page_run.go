package web

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/ui"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// liveData is the part of a run's page that changes while it goes on.
type liveData struct {
	Run      string
	Report   executor.Report
	Header   *executor.Header
	Totals   ui.Totals
	Whole    executor.FunctionReport // all functions taken together
	Bar      []segment
	Graph    graphPicture
	Params   []param
	Csrf     string
	Live     bool // somebody works on it
	CanRetry bool
	CanGoOn  bool
	Host     string
	Cancels  bool   // somebody asked
	Left     string // an estimate, for people
}

type param struct{ Name, Value string }

// wholeWidth is the width of the bar of all tasks, in units of its picture.
const wholeWidth = 1000

func (s *Server) liveData(ctx context.Context, run *watched) (liveData, error) {
	_, report, _, _ := run.now()
	d := liveData{Run: run.run, Report: report, Csrf: s.guard.csrf(), Totals: ui.Sum(report)}
	err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error {
		d.Header = v.Header
		d.Graph = layout(detail(v).Graph, report.Functions)
		d.Host, _ = v.Coordinator()
		for name, val := range v.Header.Params {
			d.Params = append(d.Params, param{name, val})
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	sort.Slice(d.Params, func(i, j int) bool { return d.Params[i].Name < d.Params[j].Name })
	for _, f := range report.Functions {
		d.Whole.Tasks += f.Tasks
		d.Whole.Succeeded += f.Succeeded
		d.Whole.Failed += f.Failed
		d.Whole.Skipped += f.Skipped
		d.Whole.Cancelled += f.Cancelled
		d.Whole.Running += f.Running
		d.Whole.Pending += f.Pending
		d.Whole.Cached += f.Cached
		d.Whole.Retries += f.Retries
		d.Whole.Seconds += f.Seconds
	}
	d.Bar = segments(d.Whole, wholeWidth)
	d.Live = report.Status == executor.RunRunning || report.Status == executor.RunPending
	switch report.Status {
	case executor.RunFailed, executor.RunCancelled:
		d.CanRetry = true
	case executor.RunStopped, executor.RunInterrupted:
		d.CanRetry, d.CanGoOn = true, true
	}
	if d.Live {
		_, err := s.cfg.Engine.Store.Get(ctx, executor.CancelKey(run.run))
		d.Cancels = err == nil
	}
	done := d.Whole.Tasks - d.Whole.Pending - d.Whole.Running
	if left := d.Whole.Tasks - done; d.Live && left > 0 && done > 10 && report.Seconds > 5 {
		d.Left = ui.Seconds(math.Ceil(report.Seconds / float64(done) * float64(left)))
	}
	return d, nil
}

// Done is how many tasks need nothing more.
func (d liveData) Done() int { return d.Whole.Tasks - d.Whole.Pending - d.Whole.Running }

// Percent is how much of the run is done, in whole percent.
func (d liveData) Percent() int {
	if d.Whole.Tasks == 0 {
		return 0
	}
	return d.Done() * 100 / d.Whole.Tasks
}

// liveEvent is the part of a run's page that changes, as an event.
func (s *Server) liveEvent(ctx context.Context, run *watched, version int) ([]byte, error) {
	f, err := run.frames.get("live", version, func() ([]byte, error) {
		d, err := s.liveData(ctx, run)
		if err != nil {
			return nil, err
		}
		html, err := s.render("run-live", d)
		return eventOf("live", html), err
	})
	if err != nil {
		return nil, err
	}
	return f.body, nil
}

func (s *Server) runPage(w http.ResponseWriter, r *http.Request, run *watched) error {
	return s.shared(w, r, run, func() (page, any, error) {
		d, err := s.liveData(r.Context(), run)
		if err != nil {
			return page{}, nil, err
		}
		// What is looked at first: what is mapped, or the first.
		shown := ""
		for _, n := range d.Graph.Nodes {
			if shown == "" || n.Mapped && n.Tasks > 1 {
				shown = n.Name
				if n.Mapped && n.Tasks > 1 {
					break
				}
			}
		}
		return page{template: "run", title: d.Report.Pipeline + " · " + run.run, here: "runs", script: "run.js", plots: true},
			map[string]any{"Live": d, "Shown": shown}, nil
	})
}

func (s *Server) failuresPage(w http.ResponseWriter, r *http.Request, run *watched) error {
	groups, err := run.failures(r.Context())
	if err != nil {
		return err
	}
	return s.show(w, r, page{template: "failures", title: "Failures · " + run.run, here: "runs"},
		map[string]any{"Run": run.run, "Groups": groups, "Most": maxGrouped})
}

// machineRow is a machine in the table of machines.
type machineRow struct {
	machineJSON
	Place string
	Used  int // percent
}

func (s *Server) machinesPage(w http.ResponseWriter, r *http.Request, run *watched) error {
	var rows []machineRow
	more := 0
	_, report, _, _ := run.now()
	err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error {
		if err := run.past.catchUp(r.Context(), v, report.Started); err != nil {
			return err
		}
		host, _ := v.Coordinator()
		t := run.past.timeline(v.Machines(), report.Started.Add(time.Duration(report.Seconds*float64(time.Second))), false)
		more = t.More
		for _, m := range t.Machines {
			row := machineRow{machineJSON: m, Place: m.ID}
			if m.ID == "" {
				row.Place = host
			}
			if whole := (m.To - m.From) * float64(max(1, m.Slots)); whole > 0 {
				row.Used = int(math.Min(100, m.Seconds/whole*100+0.5))
			}
			rows = append(rows, row)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.show(w, r, page{template: "machines", title: "Machines · " + run.run, here: "runs"},
		map[string]any{"Run": run.run, "Rows": rows, "More": more, "Paid": report.CostUSD > 0})
}

func (s *Server) filePage(w http.ResponseWriter, r *http.Request, run *watched) error {
	var d runDetail
	if err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error { d = detail(v); return nil }); err != nil {
		return err
	}
	return s.show(w, r, page{template: "file", title: "File · " + run.run, here: "runs"}, d)
}

// taskRow is a task in the table of results.
type taskRow struct {
	executor.TaskReport
	State  string // with running, cached and waiting
	Item   string
	Result string
}

const (
	rowsPerPage = 50
	maxCell     = 300
)

// taskStates are the states that tasks can be asked for by.
var taskStates = map[byte]string{'p': "pending", 'w': "waiting", 'r': "running", 's': "succeeded", 'c': "cached", 'f': "failed", 'k': "skipped", 'x': "cancelled"}

// shownStates are those of them that can be chosen.
var shownStates = []string{"failed", "running", "succeeded", "cached", "pending", "skipped", "cancelled"}

func (s *Server) tasksPage(w http.ResponseWriter, r *http.Request, run *watched) error {
	q := r.URL.Query()
	fn, status := r.PathValue("fn"), q.Get("status")
	if other := q.Get("fn"); other != "" && other != fn { // chosen without a script
		http.Redirect(w, r, "/runs/"+url.PathEscape(run.run)+"/tasks/"+url.PathEscape(other)+"?status="+url.QueryEscape(status), http.StatusSeeOther)
		return nil
	}
	return s.shared(w, r, run, func() (page, any, error) {
		d, err := tasksData(r.Context(), run, fn, status, q.Get("from"))
		return page{template: "tasks", title: fn + " · " + run.run, here: "runs"}, d, err
	})
}

// tasksData is a page of the tasks of a function, those of a status if one is given.
func tasksData(ctx context.Context, run *watched, fn, status, first string) (map[string]any, error) {
	from, _ := strconv.Atoi(first)
	from = max(0, from)
	d := map[string]any{"Run": run.run, "Function": fn, "Status": status, "From": from, "States": shownStates}
	var rows []taskRow
	var total int
	err := run.read(func(v *executor.View, live map[string]map[int]task.Live) error {
		if v.Pipeline().Function(fn) == nil {
			return errNotFound
		}
		d["Functions"], d["Mapped"] = v.Functions(), v.Mapped(fn)
		for t := range v.Tasks(fn) {
			l, running := live[fn][t.Index]
			state := taskStates[cellOf(t, running)]
			if status != "" && state != status && (status != "succeeded" || state != "cached") && (status != "pending" || state != "waiting") {
				continue
			}
			if total++; total <= from || len(rows) >= rowsPerPage {
				continue
			}
			if running && !t.Status.Final() {
				t.Attempts, t.Seconds = l.Attempt, time.Since(time.Unix(0, l.Started)).Seconds()
			}
			rows = append(rows, taskRow{TaskReport: t, State: state})
		}
		return fillRows(ctx, v, fn, rows)
	})
	if err != nil {
		return nil, err
	}
	d["Rows"], d["Total"] = rows, total
	d["Last"] = min(from+len(rows), total)
	d["Prev"], d["Next"] = -1, -1
	if from > 0 {
		d["Prev"] = max(0, from-rowsPerPage)
	}
	if from+len(rows) < total {
		d["Next"] = from + len(rows)
	}
	return d, nil
}

// fillRows adds items and results to the tasks that are shown.
func fillRows(ctx context.Context, v *executor.View, fn string, rows []taskRow) error {
	for i := range rows {
		row := &rows[i]
		if row.Status != task.Succeeded {
			continue
		}
		b, err := v.Result(ctx, fn, row.Index)
		if err != nil {
			return err
		}
		row.Result = cut(string(b), maxCell)
	}
	if !v.Mapped(fn) || len(rows) == 0 {
		return nil
	}
	at := map[int]*taskRow{}
	for i := range rows {
		at[rows[i].Index] = &rows[i]
	}
	first, last := rows[0].Index, rows[len(rows)-1].Index
	take := func(i int, item any) bool {
		if row := at[i]; row != nil {
			row.Item = ui.Clean(cut(value.Text(item), maxCell))
		}
		return i < last
	}
	if last-first < 20*rowsPerPage {
		return unlessMissing(v.EachItem(ctx, fn, first, last+1, take))
	}
	for i := range rows {
		if err := unlessMissing(v.EachItem(ctx, fn, rows[i].Index, rows[i].Index+1, take)); err != nil {
			return err
		}
	}
	return nil
}

// cut is the beginning of a text.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}
