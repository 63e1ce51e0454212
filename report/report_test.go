package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

var start = time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC)

const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>' onload='x`

func outcome(i int, from, seconds float64, status task.Status) *task.Outcome {
	return &task.Outcome{Index: i, Attempt: 1, Status: status, Started: start.Add(time.Duration(from * 1e9)).UnixNano(), Seconds: seconds}
}

func data(t Timeline) *Data {
	end := start.Add(10 * time.Second)
	return &Data{
		Report: executor.Report{Run: "r-1", Pipeline: evil, Status: executor.RunFailed, Reason: evil, Started: start, Finished: &end, Seconds: 10,
			Functions: []executor.FunctionReport{{Name: evil, Status: "failed", Tasks: 1200, Succeeded: 1198, Failed: 2, Reason: evil}, {Name: "b", Status: "skipped"}}},
		Header:   executor.Header{File: evil, Key: evil, Owner: evil, Version: evil},
		Params:   []Param{{evil, evil}},
		Source:   evil + "\n</pre>\n",
		Timeline: t, Made: end,
		Groups:  []Group{{Signature: evil, Count: 2, Causes: evil, Functions: evil, Examples: []Example{{evil, evil, evil}}}},
		Results: []Results{{Function: evil, Total: 1200, Rows: []Row{{Index: 0, Item: evil, Status: evil, Result: evil, Seconds: 1}}}},
	}
}

func render(t *testing.T, d *Data) string {
	t.Helper()
	var b bytes.Buffer
	if err := Render(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRenderEscapesEverything(t *testing.T) {
	t.Parallel()
	tl := newTimeline([]string{evil, "b"}, start, start.Add(10*time.Second))
	tl.add(evil, outcome(0, 1, 2, task.Succeeded))
	page := render(t, data(tl.timeline()))
	for _, bad := range []string{"<script", "<img", "onerror=alert(1)>", "</pre>\n</pre>", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	// Nothing is loaded from anywhere.
	for _, bad := range []string{"http://", "https://", "src=", "href=", "url(", "@import"} {
		if strings.Contains(strings.ReplaceAll(page, "src=x onerror", ""), bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	for _, want := range []string{"Content-Security-Policy", "default-src &#39;none&#39;", "<th scope=\"col\"", "role=\"img\"", "&lt;script&gt;"} {
		if !strings.Contains(page, want) && !strings.Contains(page, strings.ReplaceAll(want, "&#39;", "'")) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestPageStaysSmall(t *testing.T) {
	t.Parallel()
	names := make([]string, 40)
	for i := range names {
		names[i] = fmt.Sprint("function", i)
	}
	tl := newTimeline(names, start, start.Add(100*time.Second))
	for i := range 100_000 {
		tl.add(names[i%len(names)], outcome(i, float64(i)/1000, 0.02, task.Status(int(task.Succeeded)+i%2)))
	}
	d := data(tl.timeline())
	if n := len(render(t, d)); n > 1<<20 {
		t.Errorf("the page has %d bytes", n)
	}
}

func TestTimelineBars(t *testing.T) {
	t.Parallel()
	b := newTimeline([]string{"a"}, start, start.Add(10*time.Second))
	b.add("a", outcome(0, 0, 5, task.Succeeded))
	b.add("a", outcome(1, 2, 2, task.Failed))
	b.add("a", outcome(2, 5, 5, task.Succeeded))
	b.add("a", outcome(3, -3, 30, task.Succeeded)) // a clock that was set
	b.add("a", &task.Outcome{Index: 4, Status: task.Succeeded, Cached: true})
	b.add("gone", outcome(5, 1, 1, task.Succeeded))
	row := b.timeline().Rows[0]
	if len(row.Bars) != 4 || row.Lanes != 3 || row.Steps != nil {
		t.Fatalf("%+v", row)
	}
	if row.Bars[0].Lane != 0 || row.Bars[1].Lane != 1 || row.Bars[2].Lane != 0 || row.Bars[3].Lane != 2 || row.Bars[3].From != 0 || row.Bars[3].To != 1 {
		t.Errorf("%+v", row.Bars)
	}
	if row.Bars[1].Status != "failed" || row.Bars[1].From != 0.2 || row.Bars[1].To != 0.4 {
		t.Errorf("%+v", row.Bars[1])
	}
}

func TestTimelineSteps(t *testing.T) {
	t.Parallel()
	b := newTimeline([]string{"a", "b"}, start, start.Add(100*time.Second))
	// Two at a time all the time, the second half of them failing.
	for i := range 1000 {
		status := task.Succeeded
		if i >= 500 {
			status = task.Failed
		}
		for range 2 {
			b.add("a", outcome(i, float64(i)/10, 0.1, status))
		}
	}
	rows := b.timeline().Rows
	row := rows[0]
	if len(row.Steps) != steps || row.Bars != nil || row.Peak < 1.99 || row.Peak > 2.01 {
		t.Fatalf("peak %v, %d steps, %d bars", row.Peak, len(row.Steps), len(row.Bars))
	}
	if s := row.Steps[10]; s.OK < 1.99 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	if s := row.Steps[steps-10]; s.OK != 0 || s.Failed < 1.99 {
		t.Errorf("%+v", s)
	}
	if rows[1].Steps != nil || rows[1].Peak != 0 {
		t.Errorf("%+v", rows[1])
	}
	c := chartOf(row, 2000)
	if c.OK == "" || c.Bad == "" || c.Peak != "up to 2 at a time" || strings.Contains(c.OK+c.Bad, "NaN") {
		t.Errorf("%.200q %.200q %q", c.OK, c.Bad, c.Peak)
	}
}

// A run that was paid for says what for; one that was not, where it ran.
func TestCost(t *testing.T) {
	t.Parallel()
	d := data(Timeline{})
	d.Header.Owner = "me@here"
	if page := render(t, d); !strings.Contains(page, "$0.00 (on the machine of me@here)") || strings.Contains(page, ">Cost</th>") {
		t.Error("a run on this machine does not say so")
	}
	d.Header.Cloud = "aws"
	if page := render(t, d); strings.Contains(page, "on the machine of") {
		t.Error("a run that cost nothing on aws is said to have been here")
	}
	d.Report.CostUSD, d.Report.IdleUSD, d.Report.Machines, d.Report.Functions[0].CostUSD = 2.5, 0.5, 3, 2
	for _, want := range []string{"$2.50 for 3 machines: $2.00 (80 %) while tasks ran, $0.50 (20 %) while", ">Cost</th>", `<td class="n">$2.00</td>`} {
		if page := render(t, d); !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
