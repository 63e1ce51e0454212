package spec

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden problems anew")

const problemsFile = "testdata/problems.txt"

// The abbreviations of the golden file: what stands before the rest of a case.
var heads = map[string]string{
	"@top": "name: x\nfunctions: {a: {run: echo}}\n",
	"@fn":  "name: x\nfunctions:\n  a:\n",
	"@run": "name: x\nfunctions:\n  a:\n    run: echo\n",
}

// TestProblems compares the problems of the files in testdata/problems.txt with
// those beside them. A case is a name behind "===", a file without a newline at
// its end, and behind "--->" the problems.
func TestProblems(t *testing.T) {
	t.Parallel()
	golden, err := os.ReadFile(problemsFile)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	names := map[string]bool{}
	for _, c := range strings.Split(strings.TrimPrefix(string(golden), "=== "), "\n=== ") {
		name, rest, _ := strings.Cut(c, "\n")
		if names[name] {
			t.Errorf("two cases are called %q", name)
		}
		names[name] = true
		src, want, _ := strings.Cut(rest, "\n--->\n")
		src, want = strings.TrimSuffix(src, "\n"), strings.TrimSpace(want)
		full := src
		if first, tail, _ := strings.Cut(src, "\n"); heads[first] != "" {
			full = heads[first] + tail
		}
		ps := Validate([]byte(full), "p.yaml")
		got := ""
		if len(ps) > 0 {
			got = ps.Error()
		}
		fmt.Fprintf(&out, "=== %s\n%s\n--->\n%s\n", name, src, got)
		if *update {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, p := range ps {
				if p.Pos.Line == 0 || p.Pos.Col == 0 || p.Pos.Line > strings.Count(full, "\n")+1 {
					t.Errorf("%s: not a place in the file", p)
				}
			}
		})
	}
	if *update {
		if err := os.WriteFile(problemsFile, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
