package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Files that are no pipelines at all: one clear problem, soon.
func TestParseJunk(t *testing.T) {
	t.Parallel()
	bomb := "name: x\na: &a [x,x,x,x,x,x,x,x,x]\n"
	for i, c := range "bcdefghij" {
		prev := "abcdefghi"[i]
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", prev), 9), ","))
	}
	mapBomb := "name: x\nenv: &a {A: 1, B: 2}\n"
	for i := range 30 {
		mapBomb += fmt.Sprintf("x%d: &x%d {a: *x%d, b: *x%d}\n", i+1, i+1, i, i)
	}
	mapBomb = strings.Replace(mapBomb, "&a {", "&x0 {", 1)
	utf16 := []byte{0xff, 0xfe}
	for _, c := range []byte("name: x\n") {
		utf16 = append(utf16, c, 0)
	}
	pipeline := "name: x\nfunctions:\n  a:\n    run: echo\n"
	for _, tt := range []struct{ name, src, want string }{
		{"empty", "", "p.yaml:1:1: the file is empty"},
		{"spaces", "  \n\n  \n", "p.yaml:1:1: the file is empty"},
		{"comments", "# one\n# two\n", "p.yaml:1:1: the file is empty"},
		{"a document marker alone", "---\n", "p.yaml:1:1: the file is empty"},
		{"binary", "\x7fELF\x02\x01\x01\x00\x00", "p.yaml:1:1: control character 0x7f"},
		{"NUL", "name: x\nfoo: a\x00b\n", "p.yaml:2:7: control character 0x00"},
		{"escaped NUL", pipeline + `    env: {A: "x\0y"}`, "p.yaml:5:14: functions.a.env.A: the text contains a NUL byte"},
		{"latin 1", "name: x\ndescription: caf\xe9\n", "p.yaml:2:17: byte 0xe9 is not UTF-8"},
		{"UTF-16", string(utf16), "p.yaml:1:1: the file looks like UTF-16"},
		{"UTF-16 without a mark", "n\x00a\x00m\x00e\x00", "p.yaml:1:1: the file looks like UTF-16"},
		{"C1 control", "name: x\u0080\n", "p.yaml:1:8: character U+0080 is not allowed"},
		{"bell", "name: x\a\n", "p.yaml:1:8: control character 0x07"},
		{"bomb of lists", bomb, "too many values: with its aliases expanded"},
		{"bomb of mappings", mapBomb, "too many values: with its aliases expanded"},
		{"deep flow", "name: " + strings.Repeat("[", 10000), "p.yaml:1"},
		{"deep flow closed", "name: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "nested more than 100 levels"},
		{"deep block", strings.Repeat("- ", 20000) + "x", "nested more than 100 levels"},
		{"deep mappings", "a: " + strings.Repeat("{a: ", 12000), "p.yaml:1"},
		{"5 MB of items", pipeline + "    map: {items: [" + strings.Repeat("x, ", 5_000_000/3) + "]}\n", "p.yaml:1:1: the file has 4.8 MiB, a pipeline file at most 1 MiB"},
		{"1 MB of keys", strings.Repeat("abc: x\n", 149_000), "duplicate key"},
		{"1 MB of different keys", manyKeys(80_000), "unknown key"},
		{"1 MB of open brackets in lines", strings.Repeat("[\n", 500_000), "p.yaml:"},
		{"1 MB of comments in lists", "name:\n" + strings.Repeat("- # c\n", 170_000), "p.yaml:2:1: name: expected a name"},
		{"1 MB of spaces", strings.Repeat(" ", 1_000_000) + "a", "p.yaml:1:1000001: a pipeline is a mapping"},
		{"1 MB of tabs", strings.Repeat("\t", 1_000_000), "p.yaml:1:1: a tab in the indentation"},
		{"1 MB on one line, not ASCII", "name: é\nx: [" + strings.Repeat("é,", 340_000) + "]", "p.yaml:1:7: name:"},
		{"1 MB in quotes without an end", "name: \"" + strings.Repeat("a b\n", 250_000), "p.yaml:"},
		{"defaults times functions", "name: x\ndefaults: {env: {" + envVars(20_000) + "}}\nfunctions:\n" + functionsNamed(4_900), "too many values: with defaults"},
		{"defaults merged into functions", "name: x\ndefaults: {env: {" + envVars(20_000) + "}}\nfunctions:\n" + strings.ReplaceAll(functionsNamed(4_900), "run: x", "run: x, env: {A: x}"), "too many values: with defaults"},
		{"too many functions", "name: x\nfunctions:\n" + functionsNamed(20_000), "20000 functions, at most 5000 are possible"},
		{"templates without end", "name: x\nparams: {a: 1}\nfunctions: {a: {run: x, env: {A: \"é" + strings.Repeat("${{ params.a }} ", 55_000) + "\"}}}", "more than 1000 templates"},
		{"templates on one line", "name: x\nfunctions: {a: {run: x, map: {items: [é, " + strings.Repeat("\"${{ params.b }}\", ", 50_000) + "]}}}", "unknown parameter params.b"},
		{"env times functions", "name: x\nenv: {" + envVars(20_000) + "}\nfunctions:\n" + functionsNamed(4_900), "too many values: with defaults"},
		{"typos in needs of many functions", typos(4_900), "no function"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			ps := Validate([]byte(tt.src), "p.yaml")
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %v", d) // far from the two seconds that are promised, for slow machines with the race detector
			}
			if ps.Err() == nil {
				t.Fatal("accepted")
			}
			if len(ps) > maxShown+1 {
				t.Errorf("%d problems", len(ps))
			}
			if !strings.Contains(ps.Error(), tt.want) {
				t.Errorf("want %q, got\n%s", tt.want, shortenTo(ps.Error(), 600))
			}
			for _, p := range ps {
				if len(p.String()) > 2000 || strings.ContainsAny(p.String(), "\n\x00") {
					t.Errorf("bad message %q", shortenTo(p.String(), 300))
				}
			}
		})
	}
}

func shortenTo(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "key%d: x\n", i)
	}
	return b.String()
}

func envVars(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "V%d: x, ", i)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

func functionsNamed(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  f%d: {run: x}\n", i)
	}
	return b.String()
}

func typos(n int) string {
	var b strings.Builder
	b.WriteString("name: x\nfunctions:\n")
	for i := range n {
		fmt.Fprintf(&b, "  function_number_%d: {run: x, needs: function_numbr_%d}\n", i, i)
	}
	return b.String()
}

// No more memory than the file deserves.
func TestParseMemory(t *testing.T) {
	src := []byte("name: x\nfunctions: {a: {run: echo, map: {items: [" + strings.Repeat("x, ", 300_000) + "]}}}")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	Validate(src, "p.yaml")
	runtime.ReadMemStats(&after)
	if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 600 {
		t.Errorf("%d MB allocated", mb)
	}
}

// Many ways through a diamond must not take longer than its edges.
func TestParseDeepDiamond(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("name: x\nfunctions:\n  l0: {run: echo}\n  r0: {run: echo}\n")
	for i := 1; i < 2000; i++ {
		fmt.Fprintf(&b, "  l%d: {run: echo, needs: [l%d, r%d]}\n  r%d: {run: echo, needs: [l%d, r%d]}\n", i, i-1, i-1, i, i-1, i-1)
	}
	doc, ps := Parse([]byte(b.String()), "p.yaml")
	if err := ps.Err(); err != nil {
		t.Fatal(err)
	}
	p, ps := doc.Bind(BindOptions{})
	if err := ps.Err(); err != nil {
		t.Fatal(err)
	}
	if len(p.Functions) != 4000 {
		t.Errorf("%d functions", len(p.Functions))
	}
}

func TestParseLongCycle(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("name: x\nfunctions:\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "  f%d: {run: echo, needs: f%d}\n", i, (i+1)%3000)
	}
	ps := Validate([]byte(b.String()), "p.yaml")
	if len(ps) != 1 || !strings.Contains(ps[0].Message, "f0 -> f1 -> ") || !strings.HasSuffix(ps[0].Message, "... -> f2999 -> f0") {
		t.Errorf("got %v", ps)
	}
}

// Positions stay right whatever ends the lines and whatever stands before.
func TestPositions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, src, want string }{
		{"CRLF", "name: x\r\nfunctions:\r\n  a:\r\n    run: echo\r\n    foo: 1\r\n", "5:5"},
		{"CR", "name: x\rfunctions:\r  a:\r    run: echo\r    foo: 1\r", "5:5"},
		{"byte order mark", "\xef\xbb\xbffoo: 1\nname: x\nfunctions: {a: {run: echo}}", "1:1"},
		{"wide characters before", "name: x\nfunctions: {a: {description: \"ééé\", foo: 1, run: echo}}", "2:37"},
		{"last line without newline", "name: x\nfunctions: {a: {run: echo}}\nfoo: 1", "3:1"},
		{"blank lines", "\n\n# c\nname: x\n\nfoo: 1\nfunctions: {a: {run: echo}}", "6:1"},
		{"template in a plain scalar", "name: x\nfunctions:\n  a: {run: echo}\n  b:\n    run: echo ${{ params.x }}", "5:19"},
		{"template in double quotes", "name: x\nfunctions:\n  b:\n    run: \"a\\tb\\u00e9\\n ${{ params.x }}\"", "4:28"},
		{"template in single quotes", "name: x\nfunctions:\n  b:\n    run: 'its \"''\" ${{ params.x }}'", "4:24"},
		{"template in a block", "name: x\nfunctions:\n  b:\n    run: |\n      one\n\n      two ${{ params.x }}\n", "7:15"},
		{"template in a block with a mark", "name: x\nfunctions:\n  b:\n    run: |2-   # c\n        one\n        ${{ params.x }}\n", "6:13"},
		{"template in a folded block", "name: x\nfunctions:\n  b:\n    run: >-\n      one\n      two ${{ params.x }}\n", "6:15"},
		{"template in a plain scalar of two lines", "name: x\nfunctions:\n  b:\n    run: one\n      two ${{ params.x }}\n", "5:15"},
		{"template in double quotes over lines", "name: x\nfunctions:\n  b:\n    run: \"one \\\n      two ${{ params.x }}\"\n", "5:15"},
		{"template behind an anchor", "name: x\nfunctions:\n  b:\n    run: &r \"one ${{ params.x }}\"\n", "4:22"},
		{"template behind wide characters", "name: x\nfunctions:\n  b:\n    run: é ${{ params.x }}\n", "4:16"},
		{"second template", "name: x\nparams: {a: 1}\nfunctions:\n  b:\n    run: echo ${{ params.a }} ${{ params.x }}\n", "5:35"},
		{"in an alias", "name: x\nfunctions:\n  b:\n    run: &r echo ${{ params.x }}\n", "4:22"},
		{"in a merge", "name: x\ndefaults: &d {timeout: 1, foo: 2}\nfunctions: {b: {run: echo}}\n", "2:27"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ps := Validate([]byte(tt.src), "p.yaml")
			if len(ps) != 1 {
				t.Fatalf("got %v", ps)
			}
			if got := fmt.Sprintf("%d:%d", ps[0].Pos.Line, ps[0].Pos.Col); got != tt.want {
				t.Errorf("at %s, want %s: %s", got, tt.want, ps[0].Message)
			}
		})
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	t.Parallel()
	ps := Validate([]byte("name: x\nfunctions: {a: {run: echo}}\n"+manyKeys(5000)), "p.yaml")
	if len(ps) != maxShown+1 || ps[maxShown].Message != "and 4900 more problems" {
		t.Errorf("%d problems, the last is %q", len(ps), ps[len(ps)-1].Message)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte("name: x\nfunctions: {a: {run: echo}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, err := Load(good)
	if err != nil || doc.Name != "x" || doc.File != good {
		t.Fatalf("%+v, %v", doc, err)
	}
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("name: x\nfoo: 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	var ps Problems
	if _, err := Load(bad); !errors.As(err, &ps) || len(ps) != 2 {
		t.Errorf("got %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "init") {
		t.Errorf("got %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("got %v", err)
	}
	huge := filepath.Join(dir, "huge.yaml")
	if err := os.WriteFile(huge, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(huge); err == nil || !strings.Contains(err.Error(), "the file has 3 MiB, a pipeline file at most 1 MiB") {
		t.Errorf("got %v", err)
	}
}

// Every example of the language in the tests is valid.
func TestValidFiles(t *testing.T) {
	t.Parallel()
	for _, file := range validFiles(t) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if ps := Validate(src, file); len(ps) > 0 {
			t.Errorf("%s", ps.Error())
		}
	}
}

var messageRule = regexp.MustCompile(`^[^\n]+$`)

func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile(problemsFile)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range strings.Split(string(golden), "\n=== ") {
		_, rest, _ := strings.Cut(c, "\n")
		src, _, _ := strings.Cut(rest, "\n--->\n")
		if first, tail, _ := strings.Cut(src, "\n"); heads[first] != "" {
			src = heads[first] + tail
		}
		f.Add([]byte(src))
	}
	files, _ := filepath.Glob("testdata/valid/*.yaml")
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		doc, ps := Parse(src, "p.yaml")
		p, all := doc.Bind(BindOptions{Lenient: true, Params: map[string]string{"year": "1"}})
		if (p == nil) != (all.Err() != nil) {
			t.Errorf("pipeline %v with problems %v", p, all)
		}
		if ps.Err() != nil && all.Err() == nil {
			t.Errorf("Parse finds %v, Bind nothing", ps)
		}
		lines := strings.Count(string(src), "\n") + strings.Count(string(src), "\r") + strings.Count(string(src), "\u0085") +
			strings.Count(string(src), "\u2028") + strings.Count(string(src), "\u2029") + 1
		for _, pr := range all {
			if pr.Pos.Line > lines {
				t.Errorf("%s: the file has %d lines", pr, lines)
			}
			if !messageRule.MatchString(pr.Message) {
				t.Errorf("bad message %q", pr.Message)
			}
		}
		if p != nil {
			for _, fn := range p.Functions {
				if (fn.Run != nil) == (fn.Python != nil) && len(fn.Command) == 0 {
					t.Errorf("%s has nothing or two things to run", fn.Name)
				}
				for _, need := range fn.AllNeeds() {
					if p.Function(need) == nil {
						t.Errorf("%s needs %s, which is not there", fn.Name, need)
					}
				}
			}
		}
	})
}
