package failures

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestSignature(t *testing.T) {
	t.Parallel()
	// Lines of one row have one signature.
	for _, same := range [][]string{
		{"ValueError: could not convert string to float: 'abc'", "ValueError: could not convert string to float: 'it\\'s'"},
		{`KeyError: "fare"`, `KeyError: "tip amount"`},
		{"FileNotFoundError: [Errno 2] No such file or directory: '/data/a b.csv'",
			"FileNotFoundError: [Errno 2] No such file or directory: 'data/2019-01.csv'"},
		{"cat: data/x-1.csv: No such file or directory", "cat: data/deeper/x-27.csv: No such file or directory"},
		{"cat: x.csv: No such file or directory", "cat: y.csv: No such file or directory"},
		{"exit code 1 after 2.5 s", "exit code 17 after 10 s"},
		{"object at 0x7f3a2b died", "object at 0x1111 died"},
		{"row 3f2b1c4d-0000-4000-8000-0123456789ab is bad", "row aaaaaaaa-1111-4000-8000-0123456789ab is bad"},
		{"get https://example.com/a?b=1: timeout", "get http://other.example/c: timeout"},
		{"\x1b[31merror\x1b[0m: line 7", "error: line 8"},
		{"2024-01-02 03:04:05 no space", "2025-11-12 13:14:15 no space"},
	} {
		first := Signature(same[0])
		for _, line := range same[1:] {
			if got := Signature(line); got != first {
				t.Errorf("Signature(%q) = %q, but Signature(%q) = %q", line, got, same[0], first)
			}
		}
	}
	// Lines that mean different things keep different signatures.
	seen := map[string]string{}
	for _, line := range []string{
		"ValueError: could not convert string to float: 'abc'", "KeyError: 'fare'", "TypeError: can't add int and str",
		"cat: x.csv: No such file or directory", "cat: x.csv: Permission denied", "timeout", "killed by SIGKILL",
		"don't know what it isn't",
	} {
		sig := Signature(line)
		if sig == "" {
			t.Errorf("Signature(%q) is empty", line)
		}
		if other, ok := seen[sig]; ok {
			t.Errorf("%q and %q have the same signature %q", line, other, sig)
		}
		seen[sig] = line
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	trace := "Traceback (most recent call last):\n  File \"taxi.py\", line 3, in clean\n    x = 1 / 0\nZeroDivisionError: division by zero\n"
	for _, tt := range []struct {
		name string
		o    task.Outcome
		want string
	}{
		{"traceback", task.Outcome{Cause: task.CauseExit, Message: "exit code 1", Stderr: []byte("warn\n" + trace + "bye\n")}, "ZeroDivisionError: division by zero"},
		{"chained", task.Outcome{Cause: task.CauseExit, Stderr: []byte(trace + "\nDuring handling of the above exception, another exception occurred:\n\n" +
			"Traceback (most recent call last):\n  File \"a\"\nKeyError: 'x'\n")}, "KeyError: 'x'"},
		{"last line", task.Outcome{Cause: task.CauseExit, Message: "exit code 2", Stderr: []byte("one\ntwo \n\n \x1b[0m\n")}, "two"},
		{"silent", task.Outcome{Cause: task.CauseExit, Message: "exit code 2"}, "exit code 2"},
		{"timeout", task.Outcome{Cause: task.CauseTimeout, Message: "took longer than 3 s", Stderr: []byte("working\n")}, "took longer than 3 s"},
		{"nothing", task.Outcome{Cause: task.CauseOOM}, "oom"},
		{"cut traceback", task.Outcome{Cause: task.CauseExit, Message: "exit code 1", Stderr: []byte("Traceback (most recent call last):\n  File")}, "File"},
	} {
		if got := Line(&tt.o); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestGrouper(t *testing.T) {
	t.Parallel()
	var g Grouper
	for i := range 10 {
		g.Add("clean", &task.Outcome{Index: i, Cause: task.CauseExit, Stderr: fmt.Appendf(nil, "bad row %d\n", i)})
	}
	g.Add("report", &task.Outcome{Cause: task.CauseTimeout, Message: "took longer than 3 s"})
	g.Add("other", &task.Outcome{Index: 4, Cause: task.CauseExit, Stderr: []byte("bad row 99")})
	groups := g.Groups()
	if len(groups) != 2 || g.Total() != 12 {
		t.Fatalf("%d groups, total %d", len(groups), g.Total())
	}
	first := groups[0]
	if first.Count != 11 || first.Signature != "bad row N" || first.Cause() != task.CauseExit || len(first.Examples) != 3 ||
		first.Examples[2].Index != 2 || first.Examples[1].Line != "bad row 1" {
		t.Errorf("%+v", first)
	}
	if names := strings.Join(first.FunctionNames(), " "); names != "clean other" {
		t.Error(names)
	}
	if groups[1].Cause() != task.CauseTimeout {
		t.Errorf("%+v", groups[1])
	}
	if first.Title() != "bad row N" || groups[1].Title() != "took longer than 3 s" {
		t.Errorf("titles %q, %q", first.Title(), groups[1].Title())
	}
	g.Add("report", &task.Outcome{Index: 1, Cause: task.CauseTimeout, Message: "took longer than 3 s"})
	if got := g.Groups()[1].Title(); got != "took longer than 3 s" {
		t.Errorf("the title of two that say the same is %q", got)
	}
}

func TestGrouperIsBounded(t *testing.T) {
	t.Parallel()
	var g Grouper
	for i := range 2 * maxGroups {
		word := strings.Map(func(r rune) rune { return 'a' + r - '0' }, fmt.Sprint(i))
		g.Add("f", &task.Outcome{Index: i, Cause: task.CauseExit, Message: "no " + word})
	}
	groups := g.Groups()
	if len(groups) > maxGroups+1 || groups[0].Signature != Other || g.Total() != 2*maxGroups {
		t.Errorf("%d groups, first %q with %d", len(groups), groups[0].Signature, groups[0].Count)
	}
}
