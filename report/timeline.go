package report

import (
	"math"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// Timeline is when the tasks of each function ran. A run of few attempts has
// a bar for each; of many, how many ran at a time.
type Timeline struct {
	Start   time.Time
	Seconds float64 // its length
	Rows    []TimelineRow
}

// TimelineRow is a function. Bars or Steps are set.
type TimelineRow struct {
	Function string
	Bars     []Bar
	Lanes    int // rows of bars that overlap
	Steps    []Step
	Peak     float64 // the most tasks at a time
}

// Bar is an attempt: from where to where, as shares of the timeline.
type Bar struct {
	From, To float64
	Lane     int
	Index    int
	Attempt  int
	Status   string
	Seconds  float64
}

// Step is one slice of time: how many attempts ran on average.
type Step struct {
	OK, Failed float64
}

const (
	steps   = 240
	maxBars = 400
)

type timelineBuilder struct {
	start  time.Time
	length float64
	rows   map[string]*builderRow
	order  []string
	bars   int
}

type builderRow struct {
	ok, failed [steps]float64 // seconds of work
	bars       []Bar
}

func newTimeline(functions []string, start, end time.Time) *timelineBuilder {
	b := &timelineBuilder{start: start, length: math.Max(end.Sub(start).Seconds(), 1e-3), rows: map[string]*builderRow{}, order: functions}
	for _, fn := range functions {
		b.rows[fn] = &builderRow{}
	}
	return b
}

// add notes one attempt.
func (b *timelineBuilder) add(fn string, o *task.Outcome) {
	r := b.rows[fn]
	if r == nil || o.Attempt == 0 || o.Started == 0 {
		return
	}
	from := time.Unix(0, o.Started).Sub(b.start).Seconds() / b.length
	to := from + math.Max(o.Seconds, 0)/b.length
	// A clock that was set while the run was on must not break the page.
	from, to = math.Min(math.Max(from, 0), 1), math.Min(math.Max(to, 0), 1)
	if to < from {
		to = from
	}
	if b.bars++; b.bars <= maxBars {
		r.bars = append(r.bars, Bar{From: from, To: to, Index: o.Index, Attempt: o.Attempt, Status: o.Status.String(), Seconds: o.Seconds})
	}
	into := &r.ok
	if o.Status != task.Succeeded {
		into = &r.failed
	}
	first, last := int(from*steps), int(to*steps)
	for i := first; i <= last && i < steps; i++ {
		lo, hi := float64(i)/steps, float64(i+1)/steps
		into[i] += math.Max(math.Min(to, hi)-math.Max(from, lo), 0) * steps
	}
}

func (b *timelineBuilder) timeline() Timeline {
	t := Timeline{Start: b.start, Seconds: b.length}
	for _, fn := range b.order {
		r := b.rows[fn]
		row := TimelineRow{Function: fn}
		for i := range steps {
			row.Peak = math.Max(row.Peak, r.ok[i]+r.failed[i])
		}
		if b.bars <= maxBars {
			row.Bars = r.bars
			row.Lanes = lanes(row.Bars)
		} else if row.Peak > 0 {
			row.Steps = make([]Step, steps)
			for i := range steps {
				row.Steps[i] = Step{r.ok[i], r.failed[i]}
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// lanes puts bars that overlap below each other and counts the rows it takes.
// Bars come in the order of their end; a free lane is one whose bars ended
// before, or began after.
func lanes(bars []Bar) int {
	var used [][]Bar
	for i := range bars {
		lane := -1
	search:
		for l, have := range used {
			for _, o := range have {
				if bars[i].From < o.To && o.From < bars[i].To {
					continue search
				}
			}
			lane = l
			break
		}
		if lane < 0 {
			lane = len(used)
			used = append(used, nil)
		}
		used[lane] = append(used[lane], bars[i])
		bars[i].Lane = lane
	}
	return len(used)
}
