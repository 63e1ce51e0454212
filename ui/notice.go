package ui

import (
	"fmt"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// maxShown is how many failures (and, apart, retries) of a function get a
// line of their own; the others are counted.
const maxShown = 5

// Notices turns notices into lines and keeps their number bounded: a million
// failures are a few lines and a count.
type Notices struct {
	Style Style

	shown  map[string]int
	hidden map[string]int
	total  int
}

// Hidden is the number of failures without a line of their own.
func (n *Notices) Hidden() int { return n.total }

// Line is the line for a notice; "" if it gets none. tasks is the number of
// tasks of its function.
func (n *Notices) Line(e executor.Notice, tasks int) string {
	st := n.Style
	switch e.Kind {
	case executor.NoticeFailed, executor.NoticeRetry:
		if !n.count(e) {
			return ""
		}
		return n.attempt(e, tasks)
	case executor.NoticeFunction:
		text := Clean(e.Text)
		if e.Function != "" {
			text = Clean(e.Function) + ": " + text
		}
		return text
	case executor.NoticeWarning:
		return st.Yellow("warning: " + name(e) + Clean(e.Text))
	case executor.NoticeStopping:
		return st.Yellow("stopping: " + Clean(e.Text))
	}
	if e.Text == "" {
		return ""
	}
	return name(e) + Clean(e.Text)
}

func name(e executor.Notice) string {
	if e.Function == "" {
		return ""
	}
	return Clean(e.Function) + ": "
}

// count says whether a failure or retry still gets a line.
func (n *Notices) count(e executor.Notice) bool {
	if n.shown == nil {
		n.shown, n.hidden = map[string]int{}, map[string]int{}
	}
	key := string(e.Kind) + e.Function
	if n.shown[key] < maxShown {
		n.shown[key]++
		return true
	}
	n.hidden[key]++
	if e.Kind == executor.NoticeFailed {
		n.total++
	}
	return false
}

func (n *Notices) attempt(e executor.Notice, tasks int) string {
	st, o := n.Style, e.Outcome
	if o == nil { // the function as a whole
		return st.Mark("failed") + " " + Clean(e.Function) + " failed: " + Clean(e.Text)
	}
	line := Task(e.Function, o.Index, tasks)
	what, mark := "failed", st.Mark("failed")
	if e.Kind == executor.NoticeRetry {
		what, mark = fmt.Sprintf("attempt %d failed", o.Attempt), st.Yellow("↻")
		if st.ASCII {
			mark = st.Yellow("~")
		}
	}
	line += " " + what + Reason(o)
	if e.Kind == executor.NoticeRetry {
		line += ", again"
		if e.Delay > 0 {
			line += " in " + Seconds(e.Delay.Seconds())
		}
	}
	if n.shown[string(e.Kind)+e.Function] == maxShown {
		line += st.Dim(" (further ones are counted)")
	}
	return mark + " " + line
}

// Reason is " (cause): what went wrong", for a failed attempt.
func Reason(o *task.Outcome) string {
	s := ""
	switch {
	case o.Cause == task.CauseExit && o.Exit != 0:
		s = fmt.Sprintf(" (exit %d)", o.Exit)
	case o.Cause == task.CauseSignal && o.Signal != "":
		s = " (" + Clean(o.Signal) + ")"
	case o.Cause != task.NoCause:
		s = " (" + o.Cause.String() + ")"
	}
	if line := failures.Line(o); line != "" && line != o.Cause.String() {
		s += ": " + strings.TrimSuffix(Clean(line), ":")
	}
	return s
}
