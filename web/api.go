package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// graphNode is a function in the graph of a run.
type graphNode struct {
	Name    string   `json:"name"`
	Needs   []string `json:"needs"`
	Mapped  bool     `json:"mapped"`
	Streams string   `json:"streams,omitempty"` // behind this function, item by item
}

// runDetail is what does not change while a run goes on.
type runDetail struct {
	Run      string            `json:"run"`
	Pipeline string            `json:"pipeline"`
	File     string            `json:"file"`
	Owner    string            `json:"owner"`
	Key      string            `json:"key,omitempty"`
	Cloud    string            `json:"cloud"`
	Created  time.Time         `json:"created"`
	Params   map[string]string `json:"params,omitempty"`
	Graph    []graphNode       `json:"graph"`
	Source   string            `json:"source"` // the file
}

func detail(v *executor.View) runDetail {
	h := v.Header
	d := runDetail{Run: h.Run, Pipeline: h.Pipeline, File: h.File, Owner: h.Owner, Key: h.Key, Cloud: h.Cloud, Created: h.Created,
		Params: h.Params, Graph: []graphNode{}, Source: strings.ToValidUTF8(string(v.Pipeline().Source), "�")}
	part := map[string]bool{}
	for _, fn := range v.Functions() {
		part[fn] = true
	}
	for _, f := range v.Pipeline().Functions {
		if !part[f.Name] {
			continue
		}
		n := graphNode{Name: f.Name, Needs: append([]string{}, f.AllNeeds()...), Mapped: f.Map != nil}
		n.Streams, _ = f.Streams()
		d.Graph = append(d.Graph, n)
	}
	return d
}

// apiRoutes adds what the page's scripts ask for.
func (s *Server) apiRoutes() {
	s.mux.HandleFunc("GET /api/runs", s.apiRuns)
	s.mux.HandleFunc("GET /api/runs/{run}", s.withRun(s.apiRun))
	s.mux.HandleFunc("GET /api/runs/{run}/events", s.withRun(s.apiEvents))
	s.mux.HandleFunc("GET /api/runs/{run}/grid/{fn}", s.withRun(s.apiGrid))
	s.mux.HandleFunc("GET /api/runs/{run}/tasks/{fn}/{index}", s.withRun(s.apiTask))
	s.mux.HandleFunc("GET /api/runs/{run}/logs/{fn}/{index}", s.withRun(s.apiLog))
	s.mux.HandleFunc("GET /api/runs/{run}/results/{fn}", s.withRun(s.apiResults))
	s.mux.HandleFunc("GET /api/runs/{run}/failures", s.withRun(s.apiFailures))
	s.mux.HandleFunc("GET /api/runs/{run}/machines", s.withRun(s.apiMachines))
	s.mux.HandleFunc("GET /api/runs/{run}/timeline", s.withRun(s.apiTimeline))
}

// withRun finds the run of a request.
func (s *Server) withRun(next func(http.ResponseWriter, *http.Request, *watched) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		run, err := s.hub.open(r.Context(), r.PathValue("run"))
		if err == nil {
			err = next(w, r, run)
		}
		s.fail(w, r, err)
	}
}

// errNotFound is for what a run does not have.
var errNotFound = errors.New("there is no such thing")

// fail answers with an error, unless the caller went away.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil || r.Context().Err() != nil {
		return
	}
	writeJSON(w, codeOf(err), map[string]string{"error": err.Error()})
}

func (s *Server) apiRuns(w http.ResponseWriter, r *http.Request) {
	list, _, _, err := s.list.now(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) apiRun(w http.ResponseWriter, _ *http.Request, run *watched) error {
	state, _, version, _ := run.now()
	var d runDetail
	if err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error { d = detail(v); return nil }); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"detail": d, "state": json.RawMessage(state), "version": version})
	return nil
}

// apiEvents sends the state of a run at each change, as server-sent events,
// and a comment now and then so that a broken connection is noticed.
func (s *Server) apiEvents(w http.ResponseWriter, r *http.Request, run *watched) error {
	flush := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	defer run.watch(r.Context())()
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	sent := 0
	for {
		state, report, version, changed := run.now()
		if version != sent {
			sent = version
			if _, err := fmt.Fprintf(w, "id: %d\nevent: state\ndata: %s\n\n", version, state); err != nil || flush.Flush() != nil {
				return nil // the watcher went away
			}
			if report.Status.Final() {
				_, _ = fmt.Fprint(w, "event: end\ndata: {}\n\n")
				return nil
			}
		}
		select {
		case <-changed:
		case <-alive.C:
			if _, err := fmt.Fprint(w, ": alive\n\n"); err != nil || flush.Flush() != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		}
	}
}

// apiGrid is one byte a task, see cellOf.
func (s *Server) apiGrid(w http.ResponseWriter, r *http.Request, run *watched) error {
	cells, version, ok := run.grid(r.PathValue("fn"))
	if !ok {
		return errNotFound
	}
	w.Header().Set("X-Version", strconv.Itoa(version))
	return cells.answer(w, r, "application/octet-stream")
}

// compressed writes a body, with gzip where the caller takes it.
func compressed(w http.ResponseWriter, r *http.Request, kind string, body []byte) error {
	return (&shown{body: body}).answer(w, r, kind)
}

// taskOf is the function and index of a request.
func taskOf(r *http.Request) (fn string, index int, err error) {
	index, err = strconv.Atoi(r.PathValue("index"))
	if err != nil || index < 0 {
		return "", 0, errNotFound
	}
	return r.PathValue("fn"), index, nil
}

// attemptJSON is an attempt of a task.
type attemptJSON struct {
	Attempt int       `json:"attempt"`
	Status  string    `json:"status"`
	Cause   string    `json:"cause,omitempty"`
	Exit    int       `json:"exit"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Message string    `json:"message,omitempty"`
	Machine string    `json:"machine,omitempty"`
	MaxRSS  int64     `json:"max_rss,omitempty"`
	Log     bool      `json:"log"`
	From    string    `json:"from,omitempty"`
}

func (s *Server) apiTask(w http.ResponseWriter, r *http.Request, run *watched) error {
	fn, index, err := taskOf(r)
	if err != nil {
		return err
	}
	out := map[string]any{"function": fn, "index": index}
	err = run.read(func(v *executor.View, live map[string]map[int]task.Live) error {
		t, ok := v.Task(fn, index)
		if !ok {
			return errNotFound
		}
		status := t.Status.String()
		if l, ok := live[fn][index]; ok && !t.Status.Final() {
			status = task.Running.String()
			out["running_since"], out["attempt"] = time.Unix(0, l.Started), l.Attempt
		}
		out["status"], out["cause"], out["cached"] = status, t.Cause.String(), t.Cached
		attempts, err := v.Attempts(r.Context(), fn, index)
		if err != nil {
			return err
		}
		list := []attemptJSON{}
		for i := range attempts {
			o := &attempts[i]
			list = append(list, attemptJSON{Attempt: o.Attempt, Status: o.Status.String(), Cause: o.Cause.String(), Exit: o.Exit,
				Started: time.Unix(0, o.Started), Seconds: o.Seconds, Message: o.Message, Machine: o.Machine, MaxRSS: o.MaxRSS,
				Log: o.Log.Len > 0, From: o.From})
		}
		out["attempts"] = list
		if out["why"], err = v.Why(r.Context(), fn, index); err != nil {
			return err
		}
		item, err := itemOf(r.Context(), v, fn, index)
		out["item"] = item
		return err
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// apiLog is the output of an attempt from an offset on, as text; X-More says
// whether there will be more.
func (s *Server) apiLog(w http.ResponseWriter, r *http.Request, run *watched) error {
	fn, index, err := taskOf(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	attempt, _ := strconv.Atoi(q.Get("attempt"))
	off, _ := strconv.ParseInt(q.Get("offset"), 10, 64)
	var data []byte
	var done bool
	err = run.read(func(v *executor.View, _ map[string]map[int]task.Live) (err error) {
		if _, ok := v.Task(fn, index); !ok {
			return errNotFound
		}
		data, done, err = v.Log(r.Context(), fn, index, attempt, max(0, off))
		return err
	})
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("X-Offset", strconv.FormatInt(max(0, off)+int64(len(data)), 10))
	h.Set("X-More", strconv.FormatBool(!done))
	if q.Has("download") {
		h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", fmt.Sprintf("%s-%d.log", strings.Map(plainRune, fn), index)))
	}
	// Text, never HTML: what programs print is not ours.
	return compressed(w, r, "text/plain; charset=utf-8", data)
}

func plainRune(r rune) rune {
	if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
		return r
	}
	return '_'
}

// maxRows is the most results or failures in one answer.
const maxRows = 500

func (s *Server) apiResults(w http.ResponseWriter, r *http.Request, run *watched) error {
	fn := r.PathValue("fn")
	from, _ := strconv.Atoi(r.URL.Query().Get("from"))
	type row struct {
		Index  int             `json:"index"`
		Status string          `json:"status"`
		Result json.RawMessage `json:"result"`
	}
	rows := []row{}
	total := 0
	err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error {
		if v.Pipeline().Function(fn) == nil {
			return errNotFound
		}
		for t := range v.Tasks(fn) {
			total++
			if t.Index < from || len(rows) >= maxRows {
				continue
			}
			one := row{Index: t.Index, Status: t.Status.String()}
			if t.Status == task.Succeeded {
				b, err := v.Result(r.Context(), fn, t.Index)
				if err != nil {
					return err
				}
				if len(b) > 4<<10 {
					b, _ = json.Marshal(fmt.Sprintf("(%d bytes; coiled-jobs results %s %s has it)", len(b), run.run, fn))
				}
				one.Result = b
			}
			rows = append(rows, one)
		}
		return nil
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"total": total, "from": from, "rows": rows})
	return nil
}

// maxGrouped is the most failures that are looked at to group them.
const maxGrouped = 20000

// failureExample is one failed task.
type failureExample struct {
	Function string `json:"function"`
	Index    int    `json:"index"`
	Line     string `json:"line"`
	Stderr   string `json:"stderr,omitempty"`
}

// failureGroup is failures that have something in common.
type failureGroup struct {
	Title     string           `json:"title"`
	Cause     string           `json:"cause"`
	Count     int              `json:"count"`
	Functions []string         `json:"functions"`
	Examples  []failureExample `json:"examples"`
}

// groupEvery is how often failures are grouped anew, at most.
const groupEvery = 5 * time.Second

// failures groups the failed tasks of a run.
func (w *watched) failures(ctx context.Context) ([]failureGroup, error) {
	w.use.Lock()
	defer w.use.Unlock()
	_, report, version, _ := w.now()
	if w.grouped != nil && (w.groupsAt.version == version || !report.Status.Final() && time.Since(w.groupsAt.at) < groupEvery) {
		return w.grouped, nil
	}
	g := new(failures.Grouper)
	for _, fn := range w.view.Functions() {
		for t := range w.view.Tasks(fn) {
			if t.Status != task.Failed || t.Pos < 0 || g.Total() >= maxGrouped {
				continue
			}
			o, err := w.view.Outcome(ctx, fn, t)
			if err != nil {
				return nil, err
			}
			if o != nil {
				g.Add(fn, o)
			}
		}
	}
	out := []failureGroup{}
	for _, x := range g.Groups() {
		one := failureGroup{Title: x.Title(), Cause: x.Cause().String(), Count: x.Count, Functions: x.FunctionNames(), Examples: []failureExample{}}
		for _, e := range x.Examples {
			stderr := string(bytes.ToValidUTF8(e.Stderr, []byte("\ufffd")))
			if strings.TrimSpace(stderr) == e.Line {
				stderr = "" // the line is all there is
			}
			one.Examples = append(one.Examples, failureExample{e.Function, e.Index, e.Line, stderr})
		}
		out = append(out, one)
	}
	w.grouped, w.groupsAt = out, mark{version, time.Now()}
	return out, nil
}

func (s *Server) apiFailures(w http.ResponseWriter, r *http.Request, run *watched) error {
	groups, err := run.failures(r.Context())
	if err != nil {
		return err
	}
	total := 0
	for _, g := range groups {
		total += g.Count
	}
	writeJSON(w, http.StatusOK, map[string]any{"grouped": total, "groups": groups})
	return nil
}

// apiTimeline is what the run did over time.
func (s *Server) apiTimeline(w http.ResponseWriter, r *http.Request, run *watched) error {
	_, _, version, _ := run.now()
	f, err := run.frames.get("timeline", version, func() ([]byte, error) {
		var t timelineJSON
		_, report, _, _ := run.now()
		err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error {
			if err := run.past.catchUp(r.Context(), v, report.Started); err != nil {
				return err
			}
			until := report.Started.Add(time.Duration(report.Seconds * float64(time.Second)))
			if report.Finished != nil {
				until = *report.Finished
			}
			t = run.past.timeline(v.Machines(), until, report.CostUSD > 0)
			return nil
		})
		if err != nil {
			return nil, err
		}
		return json.Marshal(t)
	})
	if err != nil {
		return err
	}
	return f.answer(w, r, "application/json")
}

func (s *Server) apiMachines(w http.ResponseWriter, _ *http.Request, run *watched) error {
	machines := []task.Machine{}
	if err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error {
		machines = append(machines, v.Machines()...)
		return nil
	}); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, machines)
	return nil
}

// itemOf is the item of a task as JSON; null if it has none.
func itemOf(ctx context.Context, v *executor.View, fn string, index int) (json.RawMessage, error) {
	item := json.RawMessage("null")
	if !v.Mapped(fn) {
		return item, nil
	}
	err := v.EachItem(ctx, fn, index, index+1, func(_ int, x any) bool {
		item = value.JSON(x)
		return false
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return item, nil // its map is not expanded yet
	}
	return item, err
}
