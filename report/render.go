package report

import (
	"bufio"
	_ "embed" // the template
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

//go:embed report.html
var source string

// page is parsed when first needed: most commands never are.
var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("report").Funcs(template.FuncMap{
		"seconds": ui.Seconds, "count": ui.Count, "dollars": ui.Dollars, "cost": ui.CostLine,
		"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	}).Parse(source))
})

// Render writes a run as one HTML page. Errors are those of w.
func Render(w io.Writer, d *Data) error {
	b := bufio.NewWriter(w)
	if err := page().Execute(b, view(d)); err != nil {
		return err
	}
	return b.Flush()
}

// pageData is Data as the template wants it.
type pageData struct {
	*Data
	Totals  ui.Totals
	Charts  []chart
	Ticks   []tick
	Reasons bool
	Failed  int
	Command string
}

// chart is a function's row of the timeline, in units of an SVG picture.
type chart struct {
	Function string
	Label    string // for those who cannot see it
	Height   float64
	Bars     []rect
	OK, Bad  string // paths
	Peak     string
}

type rect struct {
	X, Y, W, H float64
	Class      string
	Title      string
}

type tick struct {
	X     float64
	Label string
	End   bool
}

// The timeline's units: wide is its width, areaHeight that of a row of many tasks.
const (
	wide       = 1000
	areaHeight = 56
)

func view(d *Data) *pageData {
	p := &pageData{Data: d, Totals: ui.Sum(d.Report), Command: "coiled-jobs"}
	for _, f := range d.Report.Functions {
		p.Reasons = p.Reasons || f.Reason != ""
	}
	for _, r := range d.Timeline.Rows {
		p.Charts = append(p.Charts, chartOf(r, tasksOf(d.Report, r.Function)))
	}
	for i := 0; i <= 4; i++ {
		p.Ticks = append(p.Ticks, tick{X: float64(i) * 25, Label: ui.Seconds(d.Timeline.Seconds * float64(i) / 4), End: i == 4})
	}
	p.Ticks[0].Label = "0"
	for _, g := range d.Groups {
		p.Failed += g.Count
	}
	return p
}

func tasksOf(r executor.Report, fn string) int {
	for _, f := range r.Functions {
		if f.Name == fn {
			return f.Tasks
		}
	}
	return 0
}

func chartOf(r TimelineRow, tasks int) chart {
	c := chart{Function: r.Function, Label: "when the tasks of " + r.Function + " ran"}
	switch {
	case len(r.Bars) > 0:
		h := math.Max(4, math.Min(14, 120/float64(r.Lanes)))
		c.Height = h * float64(r.Lanes)
		for _, b := range r.Bars {
			class := "ok"
			if b.Status != "succeeded" {
				class = "bad"
			}
			title := ui.Task(r.Function, b.Index, tasks)
			if b.Attempt > 1 {
				title += fmt.Sprintf(", attempt %d", b.Attempt)
			}
			c.Bars = append(c.Bars, rect{X: round(b.From * wide), Y: round(float64(b.Lane)*h + 0.5), W: round(math.Max((b.To-b.From)*wide, 1.5)),
				H: round(h - 1), Class: class, Title: title + ": " + b.Status + ", " + ui.Seconds(b.Seconds)})
		}
	case len(r.Steps) > 0:
		c.Height = areaHeight
		c.OK, c.Bad = area(r.Steps, r.Peak)
		c.Peak = fmt.Sprintf("up to %s at a time", ui.Count(int(math.Ceil(r.Peak-0.01))))
		c.Label += ", " + c.Peak
	}
	return c
}

// area draws two stacked areas: failed attempts at the bottom, where few of
// them still show, the others above.
func area(steps []Step, peak float64) (ok, bad string) {
	scale := func(v float64) float64 { return areaHeight - v/peak*(areaHeight-2) }
	// An outline goes right along the tops and back along the bottoms; a point
	// is written only where the height changes.
	draw := func(top, bottom func(Step) float64) string {
		var b strings.Builder
		w := float64(wide) / float64(len(steps))
		last := round(scale(bottom(steps[0])))
		fmt.Fprintf(&b, "M0 %g", last)
		to := func(x float64, s Step, of func(Step) float64) {
			if y := round(scale(of(s))); y != last {
				fmt.Fprintf(&b, "H%gV%g", round(x), y)
				last = y
			}
		}
		for i, s := range steps {
			to(float64(i)*w, s, top)
		}
		for i := len(steps) - 1; i >= 0; i-- {
			to(float64(i+1)*w, steps[i], bottom)
		}
		b.WriteString("H0Z")
		return b.String()
	}
	ok = draw(func(s Step) float64 { return s.OK + s.Failed }, func(s Step) float64 { return s.Failed })
	for _, s := range steps {
		if s.Failed > 0 {
			return ok, draw(func(s Step) float64 { return s.Failed }, func(Step) float64 { return 0 })
		}
	}
	return ok, ""
}

func round(f float64) float64 { return math.Round(f*10) / 10 }
