package ui

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// Plain reports progress as lines: one per notice, and in between a line of
// progress whose distance grows from seconds to minutes.
type Plain struct {
	W       io.Writer
	Notices *Notices

	pace  Pace
	start time.Time
	next  time.Duration // since start, of the next line of progress
	done  int
}

// The distance between lines of progress: at first firstLine, later a fifth
// of the time so far, never more than maxLine.
const (
	firstLine = 5 * time.Second
	maxGap    = 5 * time.Minute
)

// Notice writes the line of a notice, if it gets one.
func (p *Plain) Notice(e executor.Notice, tasks int) error {
	line := p.Notices.Line(e, tasks)
	if line == "" {
		return nil
	}
	_, err := fmt.Fprintf(p.W, "%s %s\n", Clock(e.Time.Local()), line)
	return err
}

// Tick writes a line of progress if one is due and something has changed.
func (p *Plain) Tick(r executor.Report, now time.Time) error {
	if p.start.IsZero() {
		p.start, p.next = now, firstLine
	}
	t := Sum(r)
	p.pace.Observe(t.Done, now)
	since := now.Sub(p.start)
	if since < p.next {
		return nil
	}
	p.next = since + min(max(since/5, firstLine), maxGap)
	if t.Done == p.done && since < maxGap {
		return nil
	}
	p.done = t.Done
	_, err := fmt.Fprintf(p.W, "%s %s\n", Clock(now.Local()), p.progress(r, t, now))
	return err
}

func (p *Plain) progress(r executor.Report, t Totals, now time.Time) string {
	of := Count(t.Tasks)
	if !t.Known {
		of += " or more"
	}
	parts := []string{fmt.Sprintf("%s of %s tasks done", Count(t.Done), of)}
	if t.Running > 0 {
		parts = append(parts, Count(t.Running)+" running")
	}
	if t.Failed > 0 {
		parts = append(parts, Count(t.Failed)+" failed")
	}
	if rate := Rate(p.pace.Rate(t.Done, now)); rate != "" {
		parts = append(parts, rate)
	}
	if left, ok := p.pace.Left(t, now); ok {
		parts = append(parts, "about "+Seconds(max(left, 1))+" left")
	}
	if r.CostUSD > 0 {
		parts = append(parts, Dollars(r.CostUSD))
	}
	return "progress: " + strings.Join(parts, ", ")
}
