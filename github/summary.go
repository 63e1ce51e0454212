package github

import (
	"fmt"
	"html"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// MaxSummary is how many bytes the summary of a step may have.
const MaxSummary = 1 << 20

// Run is a run that has ended, or a moment of one, as it is told of.
type Run struct {
	Report   executor.Report
	Groups   []*failures.Group // the worst first
	Grouped  int               // failures in them
	Pipeline *spec.Pipeline
	File     string // relative to the repository
	Store    string
	Key      string
	Notes    []string // joined, detached...: lines for people
}

var marks = map[string]string{"succeeded": "✅", "failed": "❌", "cancelled": "⛔", "stopped": "🛑", "interrupted": "⚠️",
	"skipped": "⏭️", "running": "🏃", "pending": "⏳"}

// Summary is Markdown of at most max bytes: what does not fit is left out from
// the end, the least groups of failures first, and it says so.
func (r *Run) Summary(max int) string {
	var b strings.Builder
	rep := &r.Report
	fmt.Fprintf(&b, "### %s %s %s\n\n", marks[string(rep.Status)], escape(rep.Pipeline), rep.Status)
	fmt.Fprintf(&b, "%s\n\n", r.Line())
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "> %s\n\n", escape(n))
	}
	if rep.Reason != "" {
		fmt.Fprintf(&b, "%s\n\n", escape(rep.Reason))
	}
	foot := r.foot()
	budget := max - len(foot) - 200 // for what is said of the rest
	b.WriteString(clip(r.table(), budget-b.Len()))
	for i, g := range r.Groups {
		text := groupText(g)
		if b.Len()+len(text) > budget {
			rest := 0
			for _, g := range r.Groups[i:] {
				rest += g.Count
			}
			fmt.Fprintf(&b, "\n%s of %s do not fit here: `coiled-jobs logs %s --failed`\n", ui.Plural(rest, "more failure"), ui.Plural(len(r.Groups)-i, "kind"), rep.Run)
			break
		}
		b.WriteString(text)
	}
	b.WriteString(foot)
	return b.String()
}

// Line says in a line how the run went.
func (r *Run) Line() string {
	rep := &r.Report
	tasks, failed, cached := 0, 0, 0
	for _, f := range rep.Functions {
		tasks, failed, cached = tasks+f.Tasks, failed+f.Failed, cached+f.Cached
	}
	line := ui.Plural(tasks, "task")
	if failed > 0 {
		line += fmt.Sprintf(", %d failed", failed)
	}
	if cached > 0 {
		line += fmt.Sprintf(", %d from the cache", cached)
	}
	line += ", " + time.Duration(rep.Seconds*float64(time.Second)).Round(time.Second/10).String()
	if rep.CostUSD > 0 {
		line += ", " + ui.Dollars(rep.CostUSD) + " on " + ui.Plural(rep.Machines, "machine")
	}
	return line
}

func (r *Run) table() string {
	var b strings.Builder
	b.WriteString("| function | status | tasks | failed | retries | time in tasks |\n|---|---|--:|--:|--:|--:|\n")
	for _, f := range r.Report.Functions {
		status := marks[f.Status] + " " + f.Status
		if f.Reason != "" {
			status += ": " + escape(f.Reason)
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %s |\n", escape(f.Name), status, f.Tasks, f.Failed, f.Retries,
			time.Duration(f.Seconds*float64(time.Second)).Round(time.Second/10))
	}
	return b.String() + "\n"
}

// maxExample is how much is shown of what a failed task has printed.
const maxExample = 4 << 10

// groupText is one kind of failure, with an example.
func groupText(g *failures.Group) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n<details><summary>%d × %s: <code>%s</code></summary>\n\n", g.Count,
		html.EscapeString(strings.Join(g.FunctionNames(), ", ")), html.EscapeString(clip(g.Title(), 300)))
	for i, x := range g.Examples {
		if i == 3 {
			break
		}
		fmt.Fprintf(&b, "`%s/%d`, attempt %d\n\n", x.Function, x.Index, x.Attempt)
		if text := strings.TrimSpace(string(x.Stderr)); text != "" {
			b.WriteString(Fence(text, maxExample))
		} else {
			b.WriteString(Fence(x.Line, maxExample))
		}
	}
	b.WriteString("</details>\n")
	return b.String()
}

func (r *Run) foot() string {
	rep := &r.Report
	var b strings.Builder
	at := ""
	if r.Store != "" {
		at = " --store " + r.Store
	}
	fmt.Fprintf(&b, "\nrun `%s`", rep.Run)
	if r.Store != "" {
		fmt.Fprintf(&b, " in `%s`", r.Store)
	}
	b.WriteString("\n\n```sh\n")
	switch rep.Status {
	case executor.RunSucceeded:
	case executor.RunRunning, executor.RunPending:
		fmt.Fprintf(&b, "coiled-jobs wait %s%s\n", rep.Run, at)
	case executor.RunFailed:
		fmt.Fprintf(&b, "coiled-jobs retry %s%s\n", rep.Run, at)
	default:
		fmt.Fprintf(&b, "coiled-jobs resume %s%s\n", rep.Run, at)
	}
	fmt.Fprintf(&b, "coiled-jobs report %s%s\n```\n", rep.Run, at)
	return b.String()
}

// Annotations point at the functions that failed, the worst first.
func (r *Run) Annotations() []Annotation {
	var list []Annotation
	for _, g := range r.Groups {
		a := Annotation{Level: "error", File: r.File, Title: fmt.Sprintf("%d × %s", g.Count, strings.Join(g.FunctionNames(), ", ")), Message: clip(g.Title(), 1000)}
		if len(g.Examples) > 0 {
			x := g.Examples[0]
			a.Message += fmt.Sprintf("\nfor example %s/%d", x.Function, x.Index)
			if r.Pipeline != nil {
				if f := r.Pipeline.Function(x.Function); f != nil {
					a.Line, a.Col = f.Pos.Line, f.Pos.Col
				}
			}
		}
		list = append(list, a)
	}
	for _, f := range r.Report.Functions {
		if f.Status != "failed" || f.Failed > 0 || f.Reason == "" || r.Pipeline == nil {
			continue // its tasks have told
		}
		a := Annotation{Level: "error", File: r.File, Title: f.Name, Message: f.Reason}
		if fn := r.Pipeline.Function(f.Name); fn != nil {
			a.Line, a.Col = fn.Pos.Line, fn.Pos.Col
		}
		list = append(list, a)
	}
	if r.Report.Status == executor.RunStopped {
		list = append(list, Annotation{Level: "error", File: r.File, Title: "stopped by a limit", Message: r.Report.Reason})
	}
	return list
}

// fence is text that Markdown leaves alone, whatever is in it.
func fence(text string) string {
	n := 3
	for run := 0; ; n++ {
		if run = strings.Count(text, strings.Repeat("`", n)); run == 0 {
			break
		}
	}
	ticks := strings.Repeat("`", n)
	return ticks + "text\n" + strings.ToValidUTF8(text, "�") + "\n" + ticks + "\n\n"
}

// Fence is text that Markdown leaves alone, cut to max bytes.
func Fence(text string, max int) string { return fence(clip(text, max)) }

// Escape makes text harmless in Markdown and in a cell of a table.
func Escape(s string) string { return escape(s) }

// escape makes text harmless in Markdown and in a cell of a table.
func escape(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s), "�")
	s = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "#", `\#`, "@", "&#64;").Replace(s)
}

// clip cuts text to max bytes, at the end of a character.
func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	if max < 4 {
		return ""
	}
	s = s[:max-len("…")]
	for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	if len(s) > 0 && s[len(s)-1] >= utf8.RuneSelf {
		s = s[:len(s)-1] // the first byte of a character that was cut
	}
	return s + "…"
}
