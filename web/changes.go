package web

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// changesData is what is different from the run before of the same pipeline.
type changesData struct {
	Run       string
	Before    *engine.RunSummary // nil: it is the first
	Params    []change
	Code      []string // functions whose code is another
	File      []diffLine
	Functions []functionChange
}

type change struct{ Name, Was, Is string }

// diffLine is a line of a difference between files.
type diffLine struct {
	Kind string // same, added, removed, place
	Text string
}

// functionChange compares a function of two runs.
type functionChange struct {
	Name              string
	WasTasks, Tasks   int
	WasFailed, Failed int
	WasMean, Mean     float64 // seconds of an attempt
	WasSeconds        float64
	Seconds           float64
	New, Gone         bool
}

// Faster is by how many percent an attempt takes less than before; negative: more.
func (c functionChange) Faster() int {
	if c.WasMean <= 0 || c.Mean <= 0 {
		return 0
	}
	return int(math.Round((1 - c.Mean/c.WasMean) * 100))
}

// Slower is by how many percent an attempt takes longer than before.
func (c functionChange) Slower() int { return -c.Faster() }

// before is the run before this one of the same pipeline.
func (s *Server) before(ctx context.Context, run, pipeline string, created time.Time) (*engine.RunSummary, error) {
	list, _, _, err := s.list.now(ctx)
	if err != nil {
		return nil, err
	}
	var best *engine.RunSummary
	for i := range list {
		r := &list[i]
		if r.Pipeline != pipeline || r.Run == run || !r.Started.Before(created) || r.Started.IsZero() {
			continue
		}
		if best == nil || r.Started.After(best.Started) {
			best = r
		}
	}
	return best, nil
}

// side is one of two runs that are compared.
type side struct {
	values map[string]json.RawMessage
	source []byte
	code   map[string]string
	report executor.Report
}

func sideOf(v *executor.View, r executor.Report) side {
	s := side{values: map[string]json.RawMessage{}, source: v.Pipeline().Source, code: map[string]string{}, report: r}
	_ = json.Unmarshal([]byte(v.Header.Values), &s.values) // of an older version: then there are none to compare
	for _, fn := range v.Functions() {
		s.code[fn] = v.Code(fn)
	}
	return s
}

func (s *Server) side(run *watched) (side, error) {
	_, report, _, _ := run.now()
	var out side
	err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error { out = sideOf(v, report); return nil })
	return out, err
}

func (s *Server) changesPage(w http.ResponseWriter, r *http.Request, run *watched) error {
	d := changesData{Run: run.run}
	var h *executor.Header
	if err := run.read(func(v *executor.View, _ map[string]map[int]task.Live) error { h = v.Header; return nil }); err != nil {
		return err
	}
	var err error
	if d.Before, err = s.before(r.Context(), run.run, h.Pipeline, h.Created); err != nil {
		return err
	}
	if d.Before != nil {
		old, err := s.hub.open(r.Context(), d.Before.Run)
		switch {
		case cloud.KindOf(err) == cloud.KindNotFound:
			d.Before = nil // removed meanwhile
		case err != nil:
			return err
		default:
			was, err := s.side(old)
			if err != nil {
				return err
			}
			is, err := s.side(run)
			if err != nil {
				return err
			}
			d.compare(was, is)
		}
	}
	return s.show(w, r, page{template: "changes", title: "Changes · " + run.run, here: "runs"}, d)
}

func (d *changesData) compare(was, is side) {
	for _, name := range union(was.values, is.values) {
		if a, b := string(was.values[name]), string(is.values[name]); a != b {
			d.Params = append(d.Params, change{name, a, b})
		}
	}
	for _, fn := range union(was.code, is.code) {
		if a, b := was.code[fn], is.code[fn]; a != b && a != "" && b != "" {
			d.Code = append(d.Code, fn)
		}
	}
	d.File = diffLines(diff.Diff("before", was.source, "now", is.source))
	old := map[string]executor.FunctionReport{}
	for _, f := range was.report.Functions {
		old[f.Name] = f
	}
	for _, f := range is.report.Functions {
		o, ok := old[f.Name]
		delete(old, f.Name)
		d.Functions = append(d.Functions, functionChange{Name: f.Name, New: !ok, Tasks: f.Tasks, WasTasks: o.Tasks, Failed: f.Failed, WasFailed: o.Failed,
			Mean: mean(f), WasMean: mean(o), Seconds: f.Seconds, WasSeconds: o.Seconds})
	}
	for _, o := range was.report.Functions {
		if _, gone := old[o.Name]; gone {
			d.Functions = append(d.Functions, functionChange{Name: o.Name, Gone: true, WasTasks: o.Tasks, WasFailed: o.Failed, WasMean: mean(o), WasSeconds: o.Seconds})
		}
	}
}

// mean is how long an attempt took on average.
func mean(f executor.FunctionReport) float64 {
	n := f.Succeeded - f.Cached + f.Failed + f.Retries
	if n <= 0 {
		return 0
	}
	return f.Seconds / float64(n)
}

func union[V any](a, b map[string]V) []string {
	var list []string
	for k := range a {
		list = append(list, k)
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, cmp.Compare[string])
	return list
}

// maxDiffLines is how many lines of a difference are shown.
const maxDiffLines = 400

func diffLines(b []byte) []diffLine {
	var list []diffLine
	for i, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		if i < 3 || line == "" { // the names
			continue
		}
		if len(list) >= maxDiffLines {
			return append(list, diffLine{"place", "…"})
		}
		kind := "same"
		switch line[0] {
		case '+':
			kind = "added"
		case '-':
			kind = "removed"
		case '@':
			kind = "place"
		}
		list = append(list, diffLine{kind, strings.ToValidUTF8(line, "\ufffd")})
	}
	return list
}
