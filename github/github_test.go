package github

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/failures"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestAnnotation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a    Annotation
		want string
	}{
		{Annotation{Level: "error", Message: "plain"}, "::error::plain"},
		{Annotation{Level: "error", File: "a,b:c.yaml", Line: 3, Col: 7, Title: "x\n::set-env", Message: "100%\r\n::error::no"},
			"::error file=a%2Cb%3Ac.yaml,line=3,col=7,title=x%0A%3A%3Aset-env::100%25%0D%0A::error::no"},
	} {
		if got := c.a.String(); got != c.want || strings.ContainsAny(got, "\r\n") {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

func TestAnnotateLimit(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{0: 0, 1: 1, 10: 10, 11: 10, 5000: 10} {
		var list []Annotation
		for i := range n {
			list = append(list, Annotation{Level: "error", Message: fmt.Sprint("m", i)})
		}
		var b bytes.Buffer
		if err := Annotate(&b, list); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(b.String(), "\n"); got != want {
			t.Errorf("%d annotations become %d lines, want %d", n, got, want)
		}
		if n > 10 && !strings.Contains(b.String(), fmt.Sprintf("::%d more of these", n-9)) {
			t.Errorf("of %d nobody hears that there are %d more: %s", n, n-9, b.String())
		}
	}
}

func hostile(kinds int) *Run {
	var g failures.Grouper
	for i := range kinds {
		for range 1 + i%7 {
			line := fmt.Sprintf("kind%c%c </details> ```` ``` | <script>alert(1)</script> ::error:: \x1b[31m%s", 'a'+rune(i%26), 'a'+rune(i/26), strings.Repeat("é", 700))
			g.Add("fn", &task.Outcome{Index: i, Attempt: 1, Status: task.Failed, Cause: task.CauseExit, Exit: 1,
				Message: line, Stderr: []byte(line + "\xff\n" + strings.Repeat("`", 5) + "\n" + line)})
		}
	}
	p := &spec.Pipeline{Name: "p|*x*", Functions: []*spec.Function{{Name: "fn", Pos: spec.Pos{File: "p.yaml", Line: 4, Col: 3}}}}
	return &Run{Report: executor.Report{Run: "r", Pipeline: "p|*x*", Status: executor.RunFailed, Reason: "a\nb|c", Seconds: 61,
		Functions: []executor.FunctionReport{{Name: "fn", Status: "failed", Tasks: 10, Failed: 3, Reason: "x | <b>y</b>"}}},
		Groups: g.Groups(), Grouped: g.Total(), Pipeline: p, File: "p.yaml", Store: "s3://b/x"}
}

func TestSummaryFits(t *testing.T) {
	t.Parallel()
	for _, kinds := range []int{0, 1, 5, 150, 600} {
		r := hostile(kinds)
		for _, max := range []int{2000, 20 << 10, MaxSummary} {
			s := r.Summary(max)
			if len(s) > max || !utf8.ValidString(s) {
				t.Errorf("%d kinds: %d bytes of at most %d, valid: %v", kinds, len(s), max, utf8.ValidString(s))
			}
			if !strings.Contains(s, "coiled-jobs retry r --store s3://b/x") {
				t.Errorf("%d kinds in %d bytes: no word about how to go on", kinds, max)
			}
			whole := len(s) < max && !strings.Contains(s, "do not fit here")
			if got := strings.Count(s, "\n<details><summary>"); whole && got != len(r.Groups) {
				t.Errorf("%d of %d groups, and nothing is said of the rest", got, len(r.Groups))
			}
		}
	}
}

// What programs print is text: it closes no element, opens none, and ends no
// fence.
func TestSummaryIsHarmless(t *testing.T) {
	t.Parallel()
	s := hostile(3).Summary(MaxSummary)
	inFence, ticks := false, ""
	for _, line := range strings.Split(s, "\n") {
		if inFence {
			inFence = line != ticks
			continue
		}
		if strings.HasPrefix(line, "```") {
			ticks = strings.TrimRight(line, "abcdefghijklmnopqrstuvwxyz")
			inFence = true
			continue
		}
		if strings.Contains(line, "<script") || strings.Contains(line, "<b>") || strings.Count(line, "</details>") > 0 && line != "</details>" {
			t.Errorf("raw text outside of a fence: %s", line)
		}
		if strings.HasPrefix(line, "| ") && strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") != 7 {
			t.Errorf("a row of the table is broken: %s", line)
		}
	}
	if inFence {
		t.Error("a fence is open at the end")
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]executor.Report{
		"1 task, 1.5s": {Seconds: 1.5, Functions: []executor.FunctionReport{{Tasks: 1}}},
		"1,200 tasks, 3 failed, 5 from the cache, 1m0s, $0.0042 on 1 machine": {Seconds: 60, CostUSD: 0.0042, Machines: 1,
			Functions: []executor.FunctionReport{{Tasks: 1000, Failed: 3, Cached: 5}, {Tasks: 200}}},
		"2 tasks, 1s, $2.50 on 33 machines": {Seconds: 1, CostUSD: 2.5, Machines: 33, Functions: []executor.FunctionReport{{Tasks: 2}}},
	} {
		if got := (&Run{Report: r}).Line(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAnnotations(t *testing.T) {
	t.Parallel()
	list := hostile(2).Annotations()
	if len(list) != 2 || list[0].Line != 4 || list[0].Col != 3 || list[0].File != "p.yaml" || !strings.HasPrefix(list[0].Title, "2 × fn") {
		t.Errorf("%+v", list)
	}
	r := &Run{Report: executor.Report{Status: executor.RunFailed, Functions: []executor.FunctionReport{{Name: "fn", Status: "failed", Reason: "its map cannot be expanded"}}},
		Pipeline: hostile(0).Pipeline}
	if list := r.Annotations(); len(list) != 1 || list[0].Line != 4 || list[0].Message != "its map cannot be expanded" {
		t.Errorf("%+v", list)
	}
}

func TestOutputAndMask(t *testing.T) {
	t.Parallel()
	o := Output("a", "x\nend\n<<")
	lines := strings.Split(o, "\n")
	end := strings.TrimPrefix(lines[0], "a<<")
	if strings.Count(o, end) != 2 || lines[len(lines)-2] != end {
		t.Errorf("%q", o)
	}
	var b bytes.Buffer
	Mask(&b, "first line\r\nsecond%\n ab \n")
	if got := b.String(); got != "::add-mask::first line\n::add-mask::second%25\n" {
		t.Errorf("%q", got)
	}
}
