package ui

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Frame is what the live view shows at one moment.
type Frame struct {
	Report executor.Report
	Live   []task.Live
	Pace   *Pace
	Now    time.Time
	// Note is a line such as "cancelling: press Ctrl-C again to exit at once".
	Note string
	// Starting and Working are rented machines.
	Starting, Working int
	// Hidden is the number of failures that were counted but not shown.
	Hidden int
}

// maxLive is how many running tasks are shown at most.
const maxLive = 8

// Lines draws the frame for a terminal of this size: at most height-1 lines
// of at most width-1 columns, so that drawing never scrolls or wraps.
func (f *Frame) Lines(st Style, width, height int) []string {
	width, height = max(width, 20)-1, max(height, 4)-1
	t := Sum(f.Report)
	tail := []string{f.footer(st, t)}
	if f.Note != "" {
		tail = append(tail, st.Yellow(Clean(f.Note)))
	}
	room := height - len(tail)
	functions := f.functions(st, width, max(room-min(len(f.Live), 3), room/2, 1))
	room -= len(functions)
	lines := append(functions, f.live(st, min(room, maxLive))...)
	lines = append(lines, tail...)
	if len(lines) > height {
		lines = lines[len(lines)-height:]
	}
	for i := range lines {
		lines[i] = Truncate(lines[i], width)
	}
	return lines
}

func (f *Frame) footer(st Style, t Totals) string {
	parts := []string{Seconds(f.Now.Sub(f.Report.Started).Seconds())}
	if f.Report.Started.IsZero() {
		parts[0] = "starting"
	}
	of := Count(t.Tasks)
	if !t.Known {
		of += "+"
	}
	parts = append(parts, fmt.Sprintf("%s of %s tasks", Count(t.Done), of))
	if f.Pace != nil {
		if r := Rate(f.Pace.Rate(t.Done, f.Now)); r != "" {
			parts = append(parts, r)
		}
		if left, ok := f.Pace.Left(t, f.Now); ok {
			parts = append(parts, "about "+Seconds(max(left, 1))+" left")
		}
	}
	if t.Failed > 0 {
		s := Count(t.Failed) + " failed"
		if f.Hidden > 0 {
			s += " (" + Count(f.Hidden) + " not shown)"
		}
		parts = append(parts, s)
	}
	switch {
	case f.Starting > 0 && f.Working > 0:
		parts = append(parts, fmt.Sprintf("%s, %s starting", Plural(f.Working, "machine"), Count(f.Starting)))
	case f.Starting > 0:
		parts = append(parts, Plural(f.Starting, "machine")+" starting")
	case f.Working > 0:
		parts = append(parts, Plural(f.Working, "machine"))
	}
	if f.Report.CostUSD > 0 {
		parts = append(parts, Dollars(f.Report.CostUSD))
	}
	return st.Bold(Clean(f.Report.Pipeline)) + "  " + strings.Join(parts, " · ")
}

// functions draws one line per function. Where there is no room for all, the
// ones that matter now stay, in file order: running and failed before waiting
// before finished ones.
func (f *Frame) functions(st Style, width, room int) []string {
	all := f.Report.Functions
	show := make([]int, len(all))
	for i := range all {
		show[i] = i
	}
	hidden := 0
	if len(show) > room {
		sort.SliceStable(show, func(i, j int) bool { return urgency(all[show[i]]) < urgency(all[show[j]]) })
		hidden = len(show) - max(room-1, 1)
		show = show[:len(show)-hidden]
		sort.Ints(show)
	}
	name := 0
	for _, i := range show {
		name = max(name, Width(Clean(all[i].Name)))
	}
	name = min(name, max(width/3, 8))
	lines := make([]string, 0, len(show)+1)
	for _, i := range show {
		lines = append(lines, functionLine(st, all[i], name, width))
	}
	if hidden > 0 && room > 1 {
		lines = append(lines, st.Dim("  … and "+Plural(hidden, "more function")))
	}
	return lines
}

func urgency(f executor.FunctionReport) int {
	switch f.Status {
	case "running":
		return 0
	case "failed":
		return 1
	case "pending":
		return 2
	}
	return 3
}

func functionLine(st Style, f executor.FunctionReport, name, width int) string {
	done := f.Succeeded + f.Failed + f.Skipped + f.Cancelled
	text := ""
	switch {
	case f.Status == "pending" && f.Tasks <= 1:
		text = "waiting"
	case f.Status == "skipped":
		text = "skipped"
	case !f.Planned && f.Tasks == 0:
		text = f.Status
	default:
		text = Count(done) + "/" + Count(f.Tasks)
	}
	notes := counts(f, false)
	if f.Status == "running" && f.Running > 0 && f.Tasks > 1 {
		notes = append([]string{Count(f.Running) + " running"}, notes...)
	}
	bar := ""
	if size := min(width-name-40, 40); size >= 8 && f.Tasks > 0 && f.Status != "skipped" {
		bar = Bar(st, size, f.Tasks, f.Succeeded, f.Failed, f.Skipped+f.Cancelled) + "  "
	}
	line := st.Mark(f.Status) + " " + pad(Truncate(Clean(f.Name), name), name, false) + "  " + bar + text
	if len(notes) > 0 {
		line += "  " + st.Dim(strings.Join(notes, ", "))
	}
	return line
}

// counts is what is worth saying about a function besides done/tasks.
func counts(f executor.FunctionReport, all bool) []string {
	var notes []string
	add := func(n int, what string) {
		if n > 0 {
			notes = append(notes, Count(n)+" "+what)
		}
	}
	add(f.Failed, "failed")
	if f.Status != "skipped" {
		add(f.Skipped, "skipped")
	}
	add(f.Cancelled, "cancelled")
	add(f.Cached, "cached")
	if f.Retries > 0 {
		notes = append(notes, Plural(f.Retries, "retry"))
	}
	if all {
		add(f.Running, "running")
		add(f.Pending, "pending")
	}
	return notes
}

// Bar draws a bar of size columns: how many of total succeeded, failed, and
// ended otherwise. What happened at all is at least one column wide.
func Bar(st Style, size, total, ok, failed, other int) string {
	full, cross, none := "█", "▓", "░"
	if st.ASCII {
		full, cross, none = "#", "x", "-"
	}
	cells := func(n int) int {
		if n <= 0 || total <= 0 {
			return 0
		}
		return max(1, int(int64(n)*int64(size)/int64(total)))
	}
	a, b, c := cells(ok), cells(failed), cells(other)
	for a+b+c > size {
		switch {
		case a >= b && a >= c:
			a--
		case b >= c:
			b--
		default:
			c--
		}
	}
	return st.Green(strings.Repeat(full, a)) + st.Red(strings.Repeat(cross, b)) +
		st.Yellow(strings.Repeat(full, c)) + st.Dim(strings.Repeat(none, size-a-b-c))
}

// live draws the tasks that run now, the longest running first.
func (f *Frame) live(st Style, room int) []string {
	if room <= 0 || len(f.Live) == 0 {
		return nil
	}
	live := append([]task.Live(nil), f.Live...)
	sort.SliceStable(live, func(i, j int) bool { return live[i].Started < live[j].Started })
	tasks := make(map[string]int, len(f.Report.Functions))
	for _, fn := range f.Report.Functions {
		tasks[fn.Name] = fn.Tasks
	}
	more := 0
	if len(live) > room {
		more = len(live) - room + 1
		live = live[:room-1]
	}
	lines := make([]string, 0, room)
	for _, l := range live {
		line := "    " + Task(l.Function, l.Index, tasks[l.Function]) + "  " +
			st.Dim(Seconds(f.Now.Sub(time.Unix(0, l.Started)).Seconds()))
		if l.Attempt > 1 {
			line += st.Dim(fmt.Sprintf("  attempt %d", l.Attempt))
		}
		lines = append(lines, line)
	}
	if more > 0 {
		lines = append(lines, st.Dim("    … and "+Count(more)+" more running"))
	}
	return lines
}
