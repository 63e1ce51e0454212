package planner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// itemsOf is the items of a function as JSON, with their indices.
func itemsOf(t *testing.T, it planner.Items) []string {
	t.Helper()
	var got []string
	err := it.Each(0, it.Len(), func(i int, v any) error {
		got = append(got, fmt.Sprintf("%d:%s", planner.IndexOf(it, i), value.JSON(v)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

const chain = `
name: chain
functions:
  plain:
    command: ["true"]
  a:
    map: {range: 10}
    command: ["true"]
  b:
    map: {from: a}
    command: ["true"]
  c:
    map: {from: b, where: item > 1}
    command: ["true"]
  d:
    map: {from: a, sort: -name}
    command: ["true"]
  pairs:
    map: {range: 5, batch: 2}
    command: ["true"]
`

func TestOptions(t *testing.T) {
	t.Parallel()
	p := bind(t, chain, "p.yaml")
	tests := []struct {
		name string
		opt  planner.Options
		want map[string][]string // items; of those that stream or wait, the number of tasks
		err  string
	}{
		{"first", planner.Options{First: 2}, map[string][]string{"a": {"0:0", "1:1"}, "b": {"2"}, "c": {"2"}, "d": {"-1"}, "pairs": {"0:[0,1]", "1:[2,3]"}}, ""},
		{"only", planner.Options{First: 1, Only: map[string][]int{"a": {7, 3, 7}, "pairs": {2}}},
			map[string][]string{"a": {"3:3", "7:7"}, "b": {"2"}, "pairs": {"2:[4]"}}, ""},
		{"only behind from", planner.Options{Only: map[string][]int{"c": {4}}}, map[string][]string{"a": {"4:4"}, "b": {"1"}, "c": {"1"}}, ""},
		{"no such index", planner.Options{Only: map[string][]int{"a": {10}}}, nil, "p.yaml:6:3: functions.a has no task 10: it has 10 tasks, 0 to 9"},
		{"no such index without a map", planner.Options{Only: map[string][]int{"plain": {1}}}, nil, "functions.plain has no task 1: it has 1 task"},
		{"no such function", planner.Options{Only: map[string][]int{"z": {0}}}, nil, `no function "z"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plan, err := planner.Make(t.Context(), p, planner.Inputs{Dir: t.TempDir()}, tt.opt)
			if tt.err != "" {
				var problems spec.Problems
				if !errors.As(err, &problems) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.want {
				f := plan.Function(name)
				got := []string{fmt.Sprint(f.Tasks)}
				if f.Items != nil {
					got = itemsOf(t, f.Items)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
			if n := plan.Function("pairs"); tt.name == "only" && (n.Elements != 1 || n.Tasks != 1) {
				t.Errorf("pairs: %d tasks of %d items", n.Tasks, n.Elements)
			}
		})
	}
}

func TestExpandResults(t *testing.T) {
	t.Parallel()
	p := bind(t, `
name: x
functions:
  a:
    map: {range: 4}
    command: ["true"]
  sorted:
    map: {from: a, sort: name, batch: 2}
    command: ["true"]
  flat:
    needs: a
    map: {items: "${{ flatten(needs.a.results) }}", limit: 3}
    command: ["true"]
  grid:
    map: {matrix: {x: {from: a}, y: {range: 2}}}
    command: ["true"]
  count:
    needs: a
    map: {range: "${{ needs.a.count }}"}
    command: ["true"]
  text:
    needs: a
    map: {items: "${{ needs.a.results[0] }}"}
    command: ["true"]
`, "p.yaml")
	env := func(failed int, without func(int) bool, results ...any) *spec.Env {
		return &spec.Env{Needs: map[string]*spec.NeedsInfo{"a": {Status: "succeeded", Count: len(results), Failed: failed, Mapped: true, Without: without,
			Results: func() ([]any, error) { return results, nil }}}}
	}
	tests := []struct {
		fn   string
		env  *spec.Env
		want []string
		err  string
	}{
		{"sorted", env(0, nil, "c", "a", "b"), []string{`0:["a","b"]`, `1:["c"]`}, ""},
		{"sorted", env(1, nil, "c", nil, "b"), []string{`0:["b","c"]`}, ""},
		{"sorted", env(0, nil, "c", nil), []string{`0:["c",null]`}, ""},
		{"sorted", env(1, func(i int) bool { return i == 0 }, nil, nil), []string{`0:[null]`}, ""},
		{"sorted", env(0, nil, map[string]any{"k": 1}, []any{1, 2}), []string{`0:[[1,2],{"k":1}]`}, ""},
		{"flat", env(0, nil, []any{1, 2}, []any{3, 4}), []string{"0:1", "1:2", "2:3"}, ""},
		{"grid", env(0, nil, "p", "q"), []string{`0:{"x":"p","y":0}`, `1:{"x":"p","y":1}`, `2:{"x":"q","y":0}`, `3:{"x":"q","y":1}`}, ""},
		{"count", env(0, nil, 5, 5), []string{"0:0", "1:1"}, ""},
		{"text", env(0, nil, "no list"), nil, `needs a list, but "no list" is text`},
		{"text", env(0, nil, 3), nil, `needs a list, found 3`},
		{"sorted", env(0, nil, "a\x00b"), nil, "NUL byte"},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, tt.fn), func(t *testing.T) {
			t.Parallel()
			it, err := planner.Expand(t.Context(), p, p.Function(tt.fn), planner.Inputs{Dir: "/"}, planner.Options{}, tt.env)
			if tt.err != "" {
				var problems spec.Problems
				if !errors.As(err, &problems) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, itemsOf(t, it)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// brokenS3 refuses everything.
type brokenS3 struct{}

func (brokenS3) List(context.Context, planner.S3Location, cloud.S3Query, func(planner.S3Object) error) error {
	return &cloud.Error{Op: "list", Resource: "s3://b", Kind: cloud.KindDenied}
}

func (brokenS3) Open(context.Context, planner.S3Location, string) (io.ReadCloser, error) {
	return nil, &cloud.Error{Op: "read", Resource: "s3://b/k", Kind: cloud.KindDenied}
}

func TestAllErrorsAtOnce(t *testing.T) {
	t.Parallel()
	p := bind(t, `
name: x
functions:
  a: {map: "*.nope", command: ["true"]}
  b: {map: "s3://b/*", command: ["true"]}
  c: {map: {lines: "s3://b/k"}, command: ["true"]}
  d: {map: {lines: "gone.txt"}, command: ["true"]}
`, "p.yaml")
	in := planner.Inputs{Dir: t.TempDir(), S3: func() (planner.S3, error) { return brokenS3{}, nil }}
	_, err := planner.Make(t.Context(), p, in, planner.Options{})
	var problems spec.Problems
	if !errors.As(err, &problems) || len(problems) != 2 || cloud.KindOf(err) != cloud.KindDenied {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"p.yaml:4:13: functions.a.map.glob", "p.yaml:7:21: functions.d.map.lines", "functions.b.map.glob: list s3://b: denied", "functions.c.map.lines: read s3://b/k: denied"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	in.S3 = nil
	if _, err := planner.Make(t.Context(), p, in, planner.Options{}); err == nil || !strings.Contains(err.Error(), "not available here") {
		t.Errorf("without S3: %v", err)
	}
}

func TestGlobForms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, name := range []string{"d/big.csv", "d/mid.csv", "d/small.csv", "d/x.txt", "other.csv"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 300-100*(i%3)), 0o666); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(1_700_000_000+int64(i*7%5), 0)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ mapping, want string }{
		{`d/*.csv`, `"d/big.csv" "d/mid.csv" "d/small.csv"`},
		{`{glob: "d/*.csv", sort: size}`, `"d/small.csv" "d/mid.csv" "d/big.csv"`},
		{`{glob: "d/*.csv", sort: -name, limit: 2}`, `"d/small.csv" "d/mid.csv"`},
		{`{glob: "**", sort: modified}`, `"d/big.csv" "d/x.txt" "d/mid.csv" "other.csv" "d/small.csv"`},
		{`{glob: "**", where: item.size >= 200 and item.ext == ".csv"}`, `"d/big.csv" "d/mid.csv" "other.csv"`},
		{`{glob: "**", where: index < 2}`, `"d/big.csv" "d/mid.csv"`},
		{`{glob: "**", batch: {bytes: 500 B}}`, `["d/big.csv","d/mid.csv"] ["d/small.csv","d/x.txt"] ["other.csv"]`},
		{`{glob: "**", batch: {bytes: 150 B, items: 2}}`, `["d/big.csv"] ["d/mid.csv"] ["d/small.csv"] ["d/x.txt"] ["other.csv"]`},
		{`{glob: ["other.csv", "d/b*", "` + dir + `/d/x.txt"]}`, `"` + dir + `/d/x.txt" "d/big.csv" "other.csv"`},
		{`{glob: "*.nope", allow_empty: true}`, ``},
		{`{glob: "d/*.csv", where: "false"}`, ``},
	}
	for _, tt := range tests {
		p := bind(t, "name: x\nfunctions:\n  f:\n    map: "+tt.mapping+"\n    command: [\"true\"]\n", "p.yaml")
		plan, err := planner.Make(t.Context(), p, planner.Inputs{Dir: dir}, planner.Options{})
		if err != nil {
			t.Errorf("%s: %v", tt.mapping, err)
			continue
		}
		var got []string
		for _, s := range itemsOf(t, plan.Functions[0].Items) {
			_, item, _ := strings.Cut(s, ":")
			got = append(got, item)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.mapping, strings.Join(got, " "), tt.want)
		}
	}
}

// TestDeepDiamond plans a graph with a million paths.
func TestDeepDiamond(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("name: x\nfunctions:\n  f0: {command: [\"true\"]}\n")
	for i := 1; i <= 20; i++ {
		need := fmt.Sprintf("[l%d, r%d]", i-1, i-1)
		if i == 1 {
			need = "f0"
		}
		fmt.Fprintf(&b, "  r%d: {needs: %s, command: [\"true\"]}\n  l%d: {needs: %s, command: [\"true\"]}\n", i, need, i, need)
	}
	plan, err := planner.Make(t.Context(), bind(t, b.String(), "p.yaml"), planner.Inputs{Dir: "/"}, planner.Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, f := range plan.Functions {
		at[f.Name] = i
		for _, n := range f.Needs {
			if _, ok := at[n]; !ok {
				t.Errorf("%s comes before %s, which it needs", f.Name, n)
			}
		}
	}
	if len(at) != 41 {
		t.Errorf("%d functions", len(at))
	}
}
