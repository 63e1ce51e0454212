package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// contender is one side of a comparison.
type contender struct {
	name string
	// prepare makes what one run needs (an empty store) and gives the command.
	prepare func() (*exec.Cmd, error)
	// check looks at the standard output of a run; nil: it is thrown away.
	check func(stdout []byte) error
	// inner takes the time from the output, for programs that time themselves.
	inner func(stdout []byte) (time.Duration, error)
	skip  string // why it cannot run here
	// against is how many times longer than ours it should take; 0: no target.
	against float64
}

// benchCase is a comparison: ours against others, run in turns.
type benchCase struct {
	name    string
	ours    contender
	theirs  []contender
	maxTime time.Duration // ours at most; 0: no target
	maxRSS  int64         // peak memory of ours in MiB at most; 0: no target
	each    int           // tasks, to print the time per task; 0: do not
	before  func() error  // makes the input
	after   func() error
}

// sample is one run.
type sample struct {
	wall time.Duration
	rss  int64 // bytes
}

// measure runs a contender once.
func measure(ctx context.Context, c contender) (sample, error) {
	cmd, err := c.prepare()
	if err != nil {
		return sample{}, err
	}
	var out, errs bytes.Buffer
	if c.check != nil || c.inner != nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &limited{w: &errs, left: 4096}
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	done := make(chan struct{})
	go func() { // an interrupt ends the contender too
		select {
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
		case <-done:
		}
	}()
	err = cmd.Wait()
	close(done)
	s := sample{wall: time.Since(start)}
	if err != nil {
		return s, fmt.Errorf("%s: %w: %s%s", c.name, err, tail(errs.String()), tail(out.String()))
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = int64(u.Maxrss) * rssUnit
	}
	if c.check != nil {
		if err := c.check(out.Bytes()); err != nil {
			return s, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if c.inner != nil {
		if s.wall, err = c.inner(out.Bytes()); err != nil {
			return s, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return s, nil
}

// innerSeconds reads the seconds a program printed about itself.
func innerSeconds(out []byte) (time.Duration, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return time.Duration(f * float64(time.Second)), err
}

// limited keeps the first bytes of what is written.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, err := l.w.Write(p[:n])
	return len(p), err
}

func tail(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-600):]
}

// runCase runs all contenders in turns and adds the rows.
func (b *bench) runCase(ctx context.Context, c benchCase, t *table) error {
	fmt.Fprintln(b.stderr, c.name, "...")
	if c.before != nil {
		if err := c.before(); err != nil {
			return err
		}
	}
	if c.after != nil {
		defer func() {
			if err := c.after(); err != nil {
				fmt.Fprintln(b.stderr, c.name+":", err)
			}
		}()
	}
	all := append([]contender{c.ours}, c.theirs...)
	samples := make([][]sample, len(all))
	for range b.rounds {
		for i, x := range all {
			if x.skip != "" {
				continue
			}
			s, err := measure(ctx, x)
			if err != nil {
				return err
			}
			samples[i] = append(samples[i], s)
		}
	}
	ours, rss := medians(samples[0])
	r := row{name: c.name, ours: ours, rss: rss, maxRSS: c.maxRSS, maxTime: c.maxTime, judge: b.scale >= 1}
	if c.each > 0 {
		r.each = ours / time.Duration(c.each)
	}
	if len(c.theirs) == 0 {
		t.add(r)
	}
	for i, x := range c.theirs {
		r.against = x.name
		if x.skip != "" {
			t.note(c.name+" against "+x.name, "skipped: "+x.skip)
			continue
		}
		r.theirs, _ = medians(samples[i+1])
		r.target = x.against
		// The ratio of each round, as a slow minute slows both sides.
		var ratios []float64
		for k := range samples[0] {
			ratios = append(ratios, float64(samples[i+1][k].wall)/float64(samples[0][k].wall))
		}
		r.ratio = median(ratios)
		t.add(r)
		r.rss, r.maxRSS, r.maxTime, r.each = 0, 0, 0, 0 // said once
	}
	return nil
}

func medians(list []sample) (time.Duration, int64) {
	var wall []time.Duration
	var rss []int64
	for _, s := range list {
		wall, rss = append(wall, s.wall), append(rss, s.rss)
	}
	return median(wall), median(rss)
}

func median[T time.Duration | int64 | float64](list []T) T {
	if len(list) == 0 {
		return 0
	}
	list = slices.Clone(list)
	slices.Sort(list)
	if n := len(list); n%2 == 0 {
		return (list[n/2-1] + list[n/2]) / 2
	}
	return list[len(list)/2]
}

// row is a line of the result.
type row struct {
	name, against string
	ours, theirs  time.Duration
	each          time.Duration
	ratio, target float64
	rss, maxRSS   int64
	maxTime       time.Duration
	judge         bool
}

// table prints rows, and notes below them.
type table struct {
	w     *tabwriter.Writer
	notes []string
	out   io.Writer
}

func newTable(out io.Writer) *table {
	t := &table{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0), out: out}
	fmt.Fprintln(t.w, "work\tours\tper task\tagainst\ttheirs\tratio\ttarget\tmemory\ttarget\t")
	return t
}

func (t *table) add(r row) {
	or := func(cond bool, s string) string {
		if cond {
			return s
		}
		return ""
	}
	mark := func(ok bool) string {
		switch {
		case !r.judge:
			return ""
		case ok:
			return " met"
		}
		return " MISSED"
	}
	target := ""
	if r.target > 0 {
		target = fmt.Sprintf("%.2gx%s", r.target, mark(r.ratio >= r.target))
	}
	if r.maxTime > 0 {
		target = strings.TrimSpace(target + " " + text(r.maxTime) + mark(r.ours <= r.maxTime))
	}
	const mib = 1 << 20
	fmt.Fprintf(t.w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.name, text(r.ours), or(r.each > 0, text(r.each)), r.against,
		or(r.theirs > 0, text(r.theirs)), or(r.ratio > 0, fmt.Sprintf("%.2fx", r.ratio)), target,
		or(r.rss > 0, fmt.Sprintf("%.1f MiB", float64(r.rss)/mib)),
		or(r.maxRSS > 0, fmt.Sprintf("%d MiB%s", r.maxRSS, mark(r.rss <= r.maxRSS*mib))))
}

func (t *table) note(name, s string) { t.notes = append(t.notes, name+": "+s) }

func (t *table) end() {
	t.w.Flush()
	for _, n := range t.notes {
		fmt.Fprintln(t.out, n)
	}
}

// text is a duration with three digits.
func text(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.3g us", d.Seconds()*1e6)
}

// environ is the environment of every contender: the caller's, in one locale.
func environ(more ...string) []string {
	return append(append(os.Environ(), "LC_ALL=C", "PYTHONDONTWRITEBYTECODE=1"), more...)
}
