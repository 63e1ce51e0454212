package ui

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Summary is what people read at the end of a run and as its status.
type Summary struct {
	Report executor.Report
	Groups []*failures.Group
	// Grouped is the number of failed tasks that Groups are made from; where
	// it is less than all of them, the summary says so.
	Grouped int
	Local   bool // ran on this machine
	Outputs []string
	Live    []task.Live // tasks that run now; shown in a status
	// Program is the name with which commands start.
	Program string
	Width   int
}

// maxGroups and maxOutputs bound the summary.
const (
	maxGroups  = 5
	maxOutputs = 8
)

// Write writes the summary: how the run ended, its functions, its failures by
// kind, its outputs, and what to do next. Errors are those of w.
func (s *Summary) Write(w io.Writer, st Style) error {
	var b strings.Builder
	b.WriteString(s.headline(st) + "\n")
	if s.Report.Reason != "" {
		b.WriteString("  " + Clean(s.Report.Reason) + "\n")
	}
	b.WriteByte('\n')
	t := FunctionTable(s.Report)
	t.Paint = func(row, col int, text string) string {
		switch t.Header[col] {
		case "STATUS":
			return st.Status(s.Report.Functions[row].Status, text)
		case "FAILED":
			if s.Report.Functions[row].Failed > 0 {
				return st.Red(text)
			}
		}
		return text
	}
	if err := t.Write(&b, st, s.Width); err != nil {
		return err
	}
	if line := CostLine(s.Report); line != "" {
		b.WriteString("\ncost: " + line + "\n")
	}
	if line := leftLine(s.Report); line != "" {
		b.WriteString("\n" + line + "\n")
	}
	if len(s.Live) > 0 {
		b.WriteString("\nrunning now:\n")
		f := Frame{Report: s.Report, Live: s.Live, Now: time.Now()}
		for _, line := range f.live(st, maxLive) {
			b.WriteString(line + "\n")
		}
	}
	s.failures(&b, st)
	s.outputs(&b)
	s.next(&b, st)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Summary) headline(st Style) string {
	r := s.Report
	line := st.Mark(string(r.Status)) + " " + st.Bold(Clean(r.Pipeline)) + " " + st.Status(string(r.Status), string(r.Status))
	switch {
	case r.Status.Final():
		line += " after " + Seconds(r.Seconds)
	case r.Status == executor.RunRunning:
		line += " for " + Seconds(r.Seconds)
	}
	where := Plural(r.Machines, "machine")
	if s.Local || r.Machines == 0 {
		where = "on this machine"
	}
	return line + ", " + where + ", " + Dollars(r.CostUSD) + "  " + st.Dim("run "+Clean(r.Run))
}

// FunctionTable is the functions of a run with their counts. Columns that
// would be empty are left out.
func FunctionTable(r executor.Report) *Table {
	type column struct {
		name  string
		value func(executor.FunctionReport) int
		keep  bool
	}
	columns := []column{
		{"TASKS", func(f executor.FunctionReport) int { return f.Tasks }, true},
		{"OK", func(f executor.FunctionReport) int { return f.Succeeded }, true},
		{"FAILED", func(f executor.FunctionReport) int { return f.Failed }, false},
		{"SKIPPED", func(f executor.FunctionReport) int { return f.Skipped }, false},
		{"CANCELLED", func(f executor.FunctionReport) int { return f.Cancelled }, false},
		{"RUNNING", func(f executor.FunctionReport) int { return f.Running }, false},
		{"PENDING", func(f executor.FunctionReport) int { return f.Pending }, false},
		{"CACHED", func(f executor.FunctionReport) int { return f.Cached }, false},
		{"RETRIES", func(f executor.FunctionReport) int { return f.Retries }, false},
	}
	t := &Table{Header: []string{"FUNCTION", "STATUS"}, Right: []bool{false, false}}
	var shown []column
	for _, c := range columns {
		for _, f := range r.Functions {
			c.keep = c.keep || c.value(f) > 0
		}
		if c.keep {
			shown = append(shown, c)
			t.Header, t.Right = append(t.Header, c.name), append(t.Right, true)
		}
	}
	t.Header, t.Right = append(t.Header, "TIME"), append(t.Right, true)
	paid := r.CostUSD > 0
	if paid {
		t.Header, t.Right = append(t.Header, "COST"), append(t.Right, true)
	}
	reasons := false
	for _, f := range r.Functions {
		reasons = reasons || f.Reason != ""
	}
	if reasons {
		t.Header = append(t.Header, "WHY")
	}
	for _, f := range r.Functions {
		row := []string{f.Name, f.Status}
		for _, c := range shown {
			row = append(row, Count(c.value(f)))
		}
		row = append(row, Seconds(f.Seconds))
		if paid {
			row = append(row, Dollars(f.CostUSD))
		}
		if reasons {
			row = append(row, f.Reason)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (s *Summary) failures(b *strings.Builder, st Style) {
	if len(s.Groups) == 0 {
		return
	}
	total := Sum(s.Report).Failed
	fmt.Fprintf(b, "\n%s failed", st.Red(Plural(total, "task")))
	if s.Grouped < total {
		fmt.Fprintf(b, " (the first %s are grouped here)", Count(s.Grouped))
	}
	b.WriteString(":\n")
	tasks := s.tasks()
	for i, g := range s.Groups {
		if i == maxGroups {
			n := 0
			for _, rest := range s.Groups[i:] {
				n += rest.Count
			}
			fmt.Fprintf(b, "  … and %s of %s\n", Count(n), Plural(len(s.Groups)-i, "other kind"))
			break
		}
		sig := Clean(g.Title())
		names := make([]string, 0, len(g.Examples))
		for _, e := range g.Examples {
			names = append(names, Task(e.Function, e.Index, tasks[e.Function]))
		}
		if n := g.Count - len(g.Examples); n > 0 {
			names = append(names, "…")
		}
		line := fmt.Sprintf("  %6s  %s  %s", Count(g.Count)+"x", pad(g.Cause().String(), 7, false), sig)
		if s.Width > 0 {
			line = Truncate(line, s.Width)
		}
		b.WriteString(line + "\n")
		line = "                   " + strings.Join(names, ", ")
		if s.Width > 0 {
			line = Truncate(line, s.Width)
		}
		b.WriteString(st.Dim(line) + "\n")
	}
}

func (s *Summary) tasks() map[string]int {
	m := make(map[string]int, len(s.Report.Functions))
	for _, f := range s.Report.Functions {
		m[f.Name] = f.Tasks
	}
	return m
}

func (s *Summary) outputs(b *strings.Builder) {
	if len(s.Outputs) == 0 {
		return
	}
	b.WriteString("\noutputs:\n")
	for i, path := range s.Outputs {
		if i == maxOutputs {
			fmt.Fprintf(b, "  … and %s\n", Plural(len(s.Outputs)-i, "more file"))
			break
		}
		b.WriteString("  " + Clean(path) + "\n")
	}
}

// next names the commands that look into what happened and go on.
func (s *Summary) next(b *strings.Builder, st Style) {
	run, p := Clean(s.Report.Run), s.Program
	var lines [][2]string
	add := func(command, what string) { lines = append(lines, [2]string{p + " " + command, what}) }
	if len(s.Groups) > 0 && len(s.Groups[0].Examples) > 0 {
		e := s.Groups[0].Examples[0]
		name := Task(e.Function, e.Index, s.tasks()[e.Function])
		add("why "+run+" "+name, "what went wrong there")
		add("logs "+run+" "+name, "what it printed")
	}
	switch s.Report.Status {
	case executor.RunSucceeded:
		if len(s.Groups) > 0 {
			add("retry "+run, "run again what failed")
		}
	case executor.RunFailed, executor.RunCancelled:
		add("retry "+run, "run again what is not done")
	case executor.RunStopped:
		if strings.HasPrefix(s.Report.Reason, "limits.cost") {
			add(fmt.Sprintf("resume %s --max-cost %.0f", run, moreDollars(s.Report)), "go on where it stopped, and spend so much in all")
			break
		}
		add("resume "+run, "go on where it stopped")
	case executor.RunInterrupted:
		add("resume "+run, "go on where it stopped")
	case executor.RunRunning, executor.RunPending:
		add("wait "+run, "wait for its end")
		add("cancel "+run, "end it")
	}
	WriteNext(b, st, lines)
}

// WriteNext writes commands with what they are for; nothing if there are none.
func WriteNext(w io.Writer, st Style, lines [][2]string) {
	if len(lines) == 0 {
		return
	}
	var b strings.Builder
	b.WriteString("\nnext:\n")
	wide := 0
	for _, l := range lines {
		wide = max(wide, Width(l[0]))
	}
	for _, l := range lines {
		b.WriteString("  " + pad(l[0], wide, false) + "  " + st.Dim("# "+l[1]) + "\n")
	}
	_, _ = io.WriteString(w, b.String()) // into memory, or the last thing that is said
}
