package ui

import (
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// window is how far back the rate looks: long enough to be steady, short
// enough to follow a change.
const window = 20 * time.Second

// Totals adds up the tasks of a run.
type Totals struct {
	Tasks, Done, Failed, Cached, Retries, Running int
	// Known: the number of tasks of every function is known.
	Known bool
}

// Sum adds up the functions of a report. Skipped functions whose tasks were
// never counted have none.
func Sum(r executor.Report) Totals {
	t := Totals{Known: true}
	for _, f := range r.Functions {
		t.Tasks += f.Tasks
		t.Done += f.Succeeded + f.Failed + f.Skipped + f.Cancelled
		t.Failed += f.Failed
		t.Cached += f.Cached
		t.Retries += f.Retries
		t.Running += f.Running
		if !f.Planned && f.Tasks == 0 && (f.Status == "pending" || f.Status == "running") {
			t.Known = false
		}
	}
	return t
}

// Pace estimates the rate of a run and the time it still takes.
type Pace struct {
	at   []time.Time
	done []int
}

// enough is how many tasks the window holds at least: where tasks are slow it
// looks further back. maxSamples bounds it all the same.
const (
	enough     = 20
	maxSamples = 200
)

// Observe notes how many tasks are done now.
func (p *Pace) Observe(done int, now time.Time) {
	if n := len(p.at); n > 0 && (done == p.done[n-1] || now.Sub(p.at[n-1]) < window/40) {
		return
	}
	p.at, p.done = append(p.at, now), append(p.done, done)
	for len(p.at) > 2 && (now.Sub(p.at[1]) >= window && done-p.done[1] >= enough || len(p.at) > maxSamples) {
		p.at, p.done = p.at[1:], p.done[1:]
	}
}

// Rate is finished tasks per second over the last while; 0 if nothing is known.
func (p *Pace) Rate(done int, now time.Time) float64 {
	if len(p.at) == 0 {
		return 0
	}
	d := now.Sub(p.at[0]).Seconds()
	if d < 0.5 || done <= p.done[0] {
		return 0
	}
	return float64(done-p.done[0]) / d
}

// Left is the seconds of work left at this rate; false if that is not known.
func (p *Pace) Left(t Totals, now time.Time) (float64, bool) {
	rate := p.Rate(t.Done, now)
	if !t.Known || rate <= 0 || t.Done >= t.Tasks {
		return 0, false
	}
	return float64(t.Tasks-t.Done) / rate, true
}
