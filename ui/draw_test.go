package ui

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/task"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

var start = time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC)

// sample is a run in the middle, with a hostile name.
func sample() executor.Report {
	return executor.Report{
		Run: "taxi-20240501-100000-abcde", Pipeline: "taxi", Status: executor.RunRunning, Started: start, Seconds: 12, Machines: 1,
		Functions: []executor.FunctionReport{
			{Name: "fetch", Status: "succeeded", Planned: true, Tasks: 1, Succeeded: 1, Seconds: 2},
			{Name: "clean", Status: "running", Planned: true, Tasks: 1200, Succeeded: 500, Failed: 3, Cached: 40, Retries: 7, Running: 2, Pending: 695, Seconds: 30},
			{Name: "x\x1b[2J\u202ey", Status: "failed", Planned: true, Tasks: 10, Succeeded: 4, Failed: 6, Seconds: 1},
			{Name: "report", Status: "pending"},
			{Name: "mail", Status: "skipped", Planned: true, Tasks: 1, Skipped: 1, Reason: "x failed"},
		},
	}
}

func sampleFrame() *Frame {
	p := &Pace{}
	p.Observe(15, start)
	return &Frame{Report: sample(), Now: start.Add(12 * time.Second), Pace: p, Hidden: 2, Live: []task.Live{
		{Function: "clean", Index: 504, Attempt: 2, Started: start.Add(10 * time.Second).UnixNano()},
		{Function: "clean", Index: 503, Attempt: 1, Started: start.Add(5 * time.Second).UnixNano()},
	}}
}

func TestFrame(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, size := range [][2]int{{100, 24}, {40, 10}, {20, 5}, {200, 6}} {
		lines := sampleFrame().Lines(Style{}, size[0], size[1])
		fmt.Fprintf(&b, "--- %d x %d\n%s\n", size[0], size[1], strings.Join(lines, "\n"))
		if len(lines) > size[1]-1 {
			t.Errorf("%v: %d lines", size, len(lines))
		}
	}
	fmt.Fprintf(&b, "--- ascii\n%s\n", strings.Join(sampleFrame().Lines(Style{ASCII: true}, 100, 24), "\n"))
	golden(t, "frame.txt", b.String())
}

// Whatever the size, a frame fits and is safe.
func TestFrameFits(t *testing.T) {
	t.Parallel()
	f := sampleFrame()
	for i := range 60 {
		f.Report.Functions = append(f.Report.Functions, executor.FunctionReport{Name: fmt.Sprint("f", i), Status: "pending"})
		f.Live = append(f.Live, task.Live{Function: "数据\n", Index: i})
	}
	f.Note = "ending"
	for w := 1; w < 130; w += 7 {
		for h := 1; h < 60; h += 5 {
			lines := f.Lines(Style{Colour: true}, w, h)
			if len(lines) > max(h, 4)-1 {
				t.Fatalf("%d x %d: %d lines", w, h, len(lines))
			}
			for _, line := range lines {
				if Width(line) > max(w, 20)-1 {
					t.Fatalf("%d x %d: %q is %d wide", w, h, line, Width(line))
				}
				if rest := strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[36m", "").Replace(line); strings.Contains(rest, "\x1b") {
					t.Fatalf("%q", line)
				}
			}
		}
	}
}

func TestBar(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		total, ok, failed, other int
		want                     string
	}{
		{100, 0, 0, 0, "----------"},
		{100, 50, 0, 0, "#####-----"},
		{1000000, 1, 1, 0, "#x--------"},
		{100, 99, 1, 0, "#########x"},
		{100, 98, 1, 1, "########x#"},
		{3, 1, 1, 1, "###xxx###-"},
		{0, 0, 0, 0, "----------"},
	} {
		if got := Bar(Style{ASCII: true}, 10, tt.total, tt.ok, tt.failed, tt.other); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	var p Pace
	now := start
	for i := range 100 {
		p.Observe(i*10, now)
		now = now.Add(time.Second)
	}
	if r := p.Rate(1000, now); r < 9.5 || r > 10.5 {
		t.Errorf("rate %v", r)
	}
	if left, ok := p.Left(Totals{Tasks: 2000, Done: 1000, Known: true}, now); !ok || left < 95 || left > 105 {
		t.Errorf("left %v %v", left, ok)
	}
	if _, ok := p.Left(Totals{Tasks: 2000, Done: 1000}, now); ok {
		t.Error("an estimate although the number of tasks is not known")
	}
	if len(p.at) > 60 {
		t.Errorf("%d samples", len(p.at))
	}
}

func failed(i int) executor.Notice {
	return executor.Notice{Time: start, Kind: executor.NoticeFailed, Function: "clean",
		Outcome: &task.Outcome{Index: i, Attempt: 1, Status: task.Failed, Cause: task.CauseExit, Exit: 1, Stderr: []byte("bad\x1b[2J row\n")}}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := &Plain{W: &b, Notices: &Notices{}}
	notice := func(n executor.Notice) {
		t.Helper()
		n.Time = start.Local()
		if err := p.Notice(n, 1200); err != nil {
			t.Fatal(err)
		}
	}
	notice(executor.Notice{Kind: executor.NoticeStarted, Text: "1,201 tasks"})
	for i := range 1000 {
		notice(failed(i))
		n := failed(i)
		n.Kind, n.Delay = executor.NoticeRetry, 2*time.Second
		notice(n)
	}
	notice(executor.Notice{Kind: executor.NoticeWarning, Text: "disk\nalmost full"})
	notice(executor.Notice{Kind: executor.NoticeFunction, Function: "clean", Text: "failed"})
	// An hour of ticks.
	r := sample()
	for i := range 3600 {
		r.Functions[1].Succeeded = 500 + i/6
		if err := p.Tick(r, start.Add(time.Duration(i)*time.Second).Local()); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) < 20 || len(lines) > 50 {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
	clock := Clock(start.Local())
	want := []string{
		clock + " 1,201 tasks",
		clock + ` ✗ clean/0 failed (exit 1): bad row`,
		clock + ` ↻ clean/0 attempt 1 failed (exit 1): bad row, again in 2.0 s`,
	}
	if diff := cmp.Diff(want, lines[:3]); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(b.String(), "(further ones are counted)") || !strings.Contains(b.String(), `warning: disk\nalmost full`) ||
		!strings.Contains(b.String(), "progress: 523 of 1,212 or more tasks done") {
		t.Error(b.String())
	}
	if p.Notices.Hidden() != 1000-maxShown {
		t.Errorf("%d hidden", p.Notices.Hidden())
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	width := 20
	s := NewScreen(&b, func() (int, int) { return width, 10 })
	check := func(what, want string) {
		t.Helper()
		if b.String() != want {
			t.Errorf("%s: %q, want %q", what, b.String(), want)
		}
		b.Reset()
	}
	s.Draw([]string{"one", "two"})
	check("first", "one\x1b[K\ntwo\x1b[K\n")
	s.Draw([]string{"one", "two!"})
	check("again", "\x1b[2A\rone\x1b[K\ntwo!\x1b[K\n\x1b[J")
	s.Print("above")
	check("print", "\x1b[2A\r\x1b[Jabove\none\x1b[K\ntwo!\x1b[K\n")
	s.Write([]byte("half "))
	check("half a line", "")
	s.Write([]byte("line\nrest"))
	check("a line", "\x1b[2A\r\x1b[Jhalf line\none\x1b[K\ntwo!\x1b[K\n")
	s.Draw([]string{strings.Repeat("w", 19)})
	b.Reset()
	width = 5 // the line wraps four times now
	s.Draw([]string{"x"})
	check("narrower", "\x1b[4A\rx\x1b[K\n\x1b[J")
	s.End()
	check("end", "\x1b[1A\r\x1b[Jrest\n")
	s.Draw([]string{"late"})
	s.Print("after")
	check("after", "after\n")
}

func TestSummary(t *testing.T) {
	t.Parallel()
	var g failures.Grouper
	for i := range 8 {
		g.Add("clean", &task.Outcome{Index: i, Attempt: 1, Cause: task.CauseExit, Stderr: fmt.Appendf(nil, "ValueError: bad row %d", i)})
	}
	g.Add("x\x1b[2J\u202ey", &task.Outcome{Index: 3, Attempt: 1, Cause: task.CauseTimeout, Message: "took longer than 3 s"})
	r := sample()
	r.Status = executor.RunFailed
	r.Functions[1].Status = "failed"
	s := Summary{Report: r, Groups: g.Groups(), Grouped: g.Total(), Local: true, Program: "coiled-jobs",
		Outputs: []string{"a.html", "b\n.html", "c", "d", "e", "f", "g", "h", "i", "j"}}
	var b bytes.Buffer
	if err := s.Write(&b, Style{}); err != nil {
		t.Fatal(err)
	}
	good := Summary{Report: executor.Report{Run: "r-1", Pipeline: "p", Status: executor.RunSucceeded, Seconds: 0.04,
		Functions: []executor.FunctionReport{{Name: "hello", Status: "succeeded", Tasks: 1, Succeeded: 1}}}, Program: "coiled-jobs"}
	b.WriteString("---\n")
	if err := good.Write(&b, Style{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.txt", b.String())
}

func TestTable(t *testing.T) {
	t.Parallel()
	table := &Table{Header: []string{"NAME", "N"}, Right: []bool{false, true}, Rows: [][]string{{"数据", "1"}, {"a\tb\n", "12"}, {"short"}}}
	var b bytes.Buffer
	if err := table.Write(&b, Style{}, 0); err != nil {
		t.Fatal(err)
	}
	if want := "NAME     N\n数据     1\na\\tb\\n  12\nshort\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	if err := table.WriteTSV(&b); err != nil {
		t.Fatal(err)
	}
	if want := "数据\t1\na\\tb\\n\t12\nshort\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

func TestFrameCountsMachines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		starting, working int
		want              string
	}{
		{0, 0, ""}, {2, 0, " · 2 machines starting"}, {1, 3, " · 3 machines, 1 starting"}, {0, 1, " · 1 machine"},
	} {
		f := &Frame{Starting: tt.starting, Working: tt.working, Report: executor.Report{Pipeline: "p"}}
		lines := f.Lines(Style{}, 200, 24)
		got := lines[len(lines)-1]
		if want := "p  starting · 0 of 0 tasks" + tt.want; got != want {
			t.Errorf("%d, %d: %q, want %q", tt.starting, tt.working, got, want)
		}
	}
}
