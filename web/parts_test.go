package web

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestDiffCells(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, now, want string }{
		{"", "", "[]"},
		{"ppp", "ppp", "[]"},
		{"pppp", "psrp", `[1,1,"s",2,1,"r"]`},
		{"pppp", "ssss", `[0,4,"s"]`},
		{"ss", "ssppf", `[2,2,"p",4,1,"f"]`},
		{"psp", "sss", `[0,1,"s",2,1,"s"]`},
	} {
		b, err := json.Marshal(diffCells([]byte(c.old), []byte(c.now)))
		if err != nil || string(b) != c.want {
			t.Errorf("%q to %q: %s, want %s", c.old, c.now, b, c.want)
		}
	}
	// What a page makes of the differences is what there is.
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		old, now := make([]byte, rng.IntN(40)), make([]byte, 40+rng.IntN(20))
		for i := range old {
			old[i] = "psfr"[rng.IntN(4)]
		}
		for i := range now {
			now[i] = "psfr"[rng.IntN(4)]
		}
		page := make([]byte, len(now))
		copy(page, old)
		d := diffCells(old, now)
		for i := 0; i < len(d); i += 3 {
			for k := d[i].(int); k < d[i].(int)+d[i+1].(int); k++ {
				page[k] = d[i+2].(string)[0]
			}
		}
		if !bytes.Equal(page, now) {
			t.Fatalf("%q to %q: %v gives %q", old, now, d, page)
		}
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	// A diamond with a shortcut, in an order in which needs come later.
	graph := []graphNode{{Name: "d", Needs: []string{"b", "c", "a"}}, {Name: "b", Needs: []string{"a"}}, {Name: "c", Needs: []string{"a"}, Streams: "a"}, {Name: "a"}, {Name: "alone"}}
	p := layout(graph, []executor.FunctionReport{{Name: "a", Tasks: 10, Succeeded: 9, Failed: 1}})
	at := map[string]nodePicture{}
	for _, n := range p.Nodes {
		at[n.Name] = n
		if n.X < 0 || n.Y < 0 || n.X+nodeWidth > p.Width || n.Y+nodeHeight > p.Height {
			t.Errorf("%s at %d,%d is not in the picture of %d x %d", n.Name, n.X, n.Y, p.Width, p.Height)
		}
		for _, o := range p.Nodes {
			if o.Name != n.Name && o.X == n.X && o.Y < n.Y+nodeHeight && n.Y < o.Y+nodeHeight {
				t.Errorf("%s lies on %s", n.Name, o.Name)
			}
		}
	}
	if at["a"].X >= at["b"].X || at["b"].X != at["c"].X || at["c"].X >= at["d"].X || at["alone"].X != at["a"].X {
		t.Errorf("layers: %+v", at)
	}
	if len(p.Edges) != 5 {
		t.Errorf("edges %+v", p.Edges)
	}
	for _, e := range p.Edges {
		if e.Streams != (e.To == "c") {
			t.Errorf("edge %+v", e)
		}
	}
	if bar := at["a"].Bar; len(bar) != 2 || bar[1].State != "failed" || math.Abs(bar[1].X+bar[1].W-barWidth) > 0.1 {
		t.Errorf("bar %+v", bar)
	}
}

// One failed task of a million can still be seen.
func TestSegmentsShowTheSmall(t *testing.T) {
	t.Parallel()
	list := segments(executor.FunctionReport{Tasks: 1_000_000, Succeeded: 999_999, Failed: 1}, 1000)
	if len(list) != 2 || list[1].W < 1 || list[1].X+list[1].W > 1000.001 {
		t.Errorf("%+v", list)
	}
	if list := segments(executor.FunctionReport{}, 1000); list != nil {
		t.Errorf("of nothing: %+v", list)
	}
}

func newHistory(start time.Time, functions ...string) *history {
	h := &history{start: start, width: firstSlice, byID: map[string]int{}, functions: map[string]int{}, bars: []bar{}}
	for i, fn := range functions {
		h.functions[fn] = i
		h.names = append(h.names, fn)
	}
	return h
}

func TestHistory(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := newHistory(start, "a", "b")
	work, attempts, bad := 0.0, 0, 0
	for i := range 5000 {
		o := &task.Outcome{Index: i, Attempt: 1, Status: task.Succeeded, Started: start.Add(time.Duration(i) * 100 * time.Millisecond).UnixNano(), Seconds: 0.2, Machine: []string{"m1", "m2"}[i%2]}
		if i%100 == 0 {
			o.Status = task.Failed
			bad++
		}
		h.add([]string{"a", "b"}[i%2], o)
		work, attempts = work+0.2, attempts+1
	}
	h.add("gone", &task.Outcome{Attempt: 1, Started: start.UnixNano(), Seconds: 1})
	h.add("a", &task.Outcome{Attempt: 0, Started: start.UnixNano(), Seconds: 1, Cached: true})
	h.add("a", &task.Outcome{Attempt: 1, Started: start.Add(-time.Hour).UnixNano(), Seconds: -5, Machine: "m1", Status: task.Succeeded}) // a clock that was set
	attempts++
	until := start.Add(501 * time.Second)
	got := h.timeline([]task.Machine{{ID: "m1", Type: "t", Price: 3.6, Slots: 1, Joined: start, Ended: start.Add(400 * time.Second)}}, until, true)
	if got.Bars != nil || len(got.Machines) != 2 || got.Machines[0].ID != "m1" || got.Machines[1].ID != "m2" {
		t.Fatalf("%d bars, machines %+v", len(got.Bars), got.Machines)
	}
	n := len(got.Done)
	if n < bins/4 || n > bins || got.Done[n-1] != attempts || got.Failed[n-1] != bad {
		t.Errorf("%d slices, done %d, failed %d", n, got.Done[n-1], got.Failed[n-1])
	}
	sum := got.Machines[0].Seconds + got.Machines[1].Seconds
	if math.Abs(sum-work) > 1e-6 || got.Machines[0].Attempts+got.Machines[1].Attempts != attempts {
		t.Errorf("%v seconds of work in %v, want %v", sum, attempts, work)
	}
	if cost := got.Cost[n-1]; math.Abs(cost-0.4) > 1e-6 || got.Machines[0].To != 400 {
		t.Errorf("cost %v, until %v", cost, got.Machines[0].To)
	}
	for i := 1; i < n; i++ {
		if got.Done[i] < got.Done[i-1] || got.Cost[i] < got.Cost[i-1] {
			t.Fatalf("slice %d: what was done is undone", i)
		}
	}
	if m := got.Machines[1]; m.Function[n/2] != 1 || m.Busy[n/2] < 200 {
		t.Errorf("in the middle m2 ran %d, %d busy", m.Function[n/2], m.Busy[n/2])
	}
	if b, err := json.Marshal(got); err != nil || len(b) > 20_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestHistoryOfFew(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	h := newHistory(start, "a")
	h.add("a", &task.Outcome{Index: 3, Attempt: 2, Status: task.Failed, Started: start.Add(time.Second).UnixNano(), Seconds: 2, Machine: "m9"})
	got := h.timeline(nil, start.Add(4*time.Second), false)
	if len(got.Bars) != 1 || got.Bars[0] != [7]float64{0, 0, 3, 2, 1, 2, 1} || got.Cost != nil {
		t.Errorf("%+v", got.Bars)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[99-i] = float64(i + 1)
	}
	for _, c := range []struct {
		list        []float64
		share, want float64
	}{{nil, 0.5, 0}, {[]float64{7}, 0.95, 7}, {[]float64{1, 9}, 0.5, 1}, {hundred, 0.5, 50}, {hundred, 0.95, 95}, {hundred, 1, 100}} {
		if got := quantile(c.list, c.share); got != c.want {
			t.Errorf("%v of %d: %v, want %v", c.share, len(c.list), got, c.want)
		}
	}
}

func TestExposition(t *testing.T) {
	t.Parallel()
	e := new(exposition)
	e.family("x_total", "counter", "What.")
	e.sample("x_total", 3, "pipeline", "a\"b\\c\nd\xff", "status", "ok")
	e.sample("x_total", 0.25)
	e.sample("x_total", 1.7e9)
	want := "# HELP x_total What.\n# TYPE x_total counter\n" + `x_total{pipeline="a\"b\\c\nd` + "\ufffd" + `",status="ok"} 3` + "\nx_total 0.25\nx_total 1700000000\n"
	if got := e.b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	d := changesData{Before: &engine.RunSummary{}}
	d.compare(
		side{values: map[string]json.RawMessage{"year": raw("2019"), "same": raw("1"), "old": raw(`"x"`)}, source: []byte("a\nb\nc\n"), code: map[string]string{"f": "1", "g": "2", "gone": "3"},
			report: executor.Report{Functions: []executor.FunctionReport{{Name: "f", Tasks: 10, Succeeded: 10, Seconds: 10}, {Name: "gone", Tasks: 1}}}},
		side{values: map[string]json.RawMessage{"year": raw("2020"), "same": raw("1"), "new": raw("true")}, source: []byte("a\nB\nc\n"), code: map[string]string{"f": "9", "g": "2", "new": "4"},
			report: executor.Report{Functions: []executor.FunctionReport{{Name: "f", Tasks: 20, Succeeded: 20, Seconds: 40}, {Name: "new"}}}},
	)
	if len(d.Params) != 3 || d.Params[0] != (change{"new", "", "true"}) || d.Params[1] != (change{"old", `"x"`, ""}) || d.Params[2] != (change{"year", "2019", "2020"}) {
		t.Errorf("params %+v", d.Params)
	}
	if len(d.Code) != 1 || d.Code[0] != "f" {
		t.Errorf("code %v", d.Code)
	}
	var file []string
	for _, l := range d.File {
		file = append(file, l.Kind+" "+l.Text)
	}
	if got := strings.Join(file, "|"); !strings.Contains(got, "removed -b|added +B") {
		t.Errorf("file %s", got)
	}
	if f := d.Functions[0]; f.Slower() != 100 || f.Faster() != -100 || len(d.Functions) != 3 || !d.Functions[1].New || !d.Functions[2].Gone {
		t.Errorf("functions %+v", d.Functions)
	}
}

func TestStreamLines(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	s := newStream(w)
	s.send("live", []byte("<p>\r\nevent: end\r\n\n</p>\rdata: x"))
	s.push()
	want := ": connected\n\nevent: live\ndata: <p>\ndata: event: end\ndata: \ndata: </p>data: x\n\n"
	if got := w.Body.String(); got != want || s.gone {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestSettledTicksAreCounted(t *testing.T) {
	t.Parallel()
	s := &Server{}
	s.Settled([]schedule.Record{{Pipeline: "a", State: schedule.Ran}, {Pipeline: "a", State: schedule.Missed, Count: 40}, {Pipeline: "a", State: schedule.Ran}})
	if got := s.count.ticks; got[[2]string{"a", "ran"}] != 2 || got[[2]string{"a", "missed"}] != 40 {
		t.Errorf("%v", got)
	}
}

func TestSinceTellsWhoIsTooLate(t *testing.T) {
	t.Parallel()
	w := &watched{}
	for v := 1; v <= 100; v++ {
		w.diffs = append(w.diffs, gridDiff{version: v})
	}
	if list, ok := w.since(98); !ok || len(list) != 2 {
		t.Errorf("%v %v", list, ok)
	}
	w.diffs = nil
	for v := 500; v < 500+maxDiffs; v++ {
		w.diffs = append(w.diffs, gridDiff{version: v})
	}
	if _, ok := w.since(10); ok {
		t.Error("what was dropped is not missed")
	}
	if list, ok := w.since(499); !ok || len(list) != maxDiffs {
		t.Errorf("%d %v", len(list), ok)
	}
}
