package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// What a run writes anew does not travel as code; what it may only read does.
func TestOutputsOfEarlierRuns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, functions string
		functionsOf     []string
		only            map[string][]int
		there, stay     string // files beside the pipeline file
	}{
		{name: "fixed", functions: "f: {command: [x], outputs: [a.html, ./out/b, 'r-${{ params.year }}.csv']}",
			there: "a.html out/b r-2019.csv r-2018.csv a.htm out/c", stay: "r-2018.csv a.htm out/c"},
		{name: "a folder", functions: "f: {command: [x], outputs: [out]}", there: "out/a out/b/c outer x/out", stay: "outer x/out"},
		{name: "by item and index", functions: "f: {command: [x], map: {items: [a, b]}, outputs: ['out/${{ item }}.json', './p${{ index }}']}",
			there: "out/a.json out/b.json out/c.json out/lookup.json p0 p1 p2 p", stay: "out/c.json out/lookup.json p2 p"},
		{name: "all of the path", functions: "f: {command: [x], map: {items: [a, b/c]}, outputs: ['${{ item }}']}", there: "a b/c b/d", stay: "b/d"},
		{name: "a list", functions: "f: {command: [x], map: {items: [[a, b]]}, outputs: '${{ item }}'}", there: "a b c", stay: "c"},
		{name: "another function's", functions: "f: {command: [x], outputs: [model]}\n  g: {command: [x]}", functionsOf: []string{"g"}, there: "model", stay: "model"},
		{name: "one task of many", functions: "f: {command: [x], map: {range: 3}, outputs: ['o${{ index }}']}", only: map[string][]int{"f": {1}}, there: "o0 o1", stay: "o0 o1"},
		{name: "may be skipped", functions: "f: {command: [x], if: params.year > 2020, outputs: [model]}\n  g: {command: [x], needs: f, outputs: [page]}",
			there: "model page", stay: "model page"},
		{name: "not known yet", functions: "f: {command: [x], map: {range: 2}}\n  g: {command: [x], map: {from: f}, outputs: ['o${{ index }}']}", there: "o0", stay: "o0"},
		{name: "of the run", functions: "f: {command: [x], outputs: ['${{ run.id }}.html']}", there: "p-1.html", stay: "p-1.html"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := write(t, "pipeline.yaml", "name: p\ncloud: aws\nparams: {year: 2019}\nfunctions:\n  "+c.functions+"\n")
			e := newCloud(t).engine()
			p, err := e.Plan(t.Context(), ApplyOptions{File: file, Functions: c.functionsOf, Only: c.only})
			if err != nil {
				t.Fatal(err)
			}
			m := madeBy(p.Pipeline, &executor.Header{Functions: c.functionsOf, Only: c.only}, itemsOf(p))
			var stay []string
			for _, f := range strings.Fields(c.there) {
				if !m.has(f) {
					stay = append(stay, f)
				}
			}
			if got := strings.Join(stay, " "); got != c.stay {
				t.Errorf("these travel: %s, want %s", got, c.stay)
			}
		})
	}
}

// A second run sends the same code as the first, though the outputs of the
// first lie beside it; those that it reads are there, and so are the folders
// for its own.
func TestOutputsDoNotBecomeCode(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine()
	file := write(t, "pipeline.yaml", `name: again
cloud: aws
defaults: {hardware: {vm_type: m6i.large, keepalive: 0s, n_workers: 1}}
functions:
  part:
    map: {items: [a, b]}
    run: echo ${{ item }} > "out/parts/${{ item }}.txt"
    outputs: ["out/parts/${{ item }}.txt"]
  whole:
    needs: part
    run: cat out/parts/*.txt > whole.txt
    outputs: [whole.txt]
  old:
    map: {glob: "out/parts/*.txt", allow_empty: true}
    run: cat ${{ item }}
    result: stdout
`, "out/parts/.keep", "")
	dir := filepath.Dir(file)
	if err := os.Remove(filepath.Join(dir, "out/parts/.keep")); err != nil {
		t.Fatal(err)
	}
	var codes []string
	var last string
	for range 2 {
		h := apply(t, e, ApplyOptions{File: file})
		ended(t, h, executor.RunSucceeded)
		last = h.Run
		if _, _, err := e.FetchOutputs(t.Context(), h.Run, "", -1, dir); err != nil {
			t.Fatal(err)
		}
		rec, err := loadFleet(t.Context(), e.Store, h.Run)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range rec.Kinds {
			codes = append(codes, k.Setup.Code)
		}
	}
	if slices.Sort(codes); len(slices.Compact(codes)) != 1 {
		t.Errorf("the code has changed with the outputs: %v", codes)
	}
	hash, _ := bundle.HashOfKey(codes[0])
	m, err := bundle.Scan(t.Context(), dir, spec.Files{}, nil, bundle.Options{Without: func(p string) bool { return strings.HasSuffix(p, ".txt") }})
	if err != nil || m.Hash != hash {
		t.Errorf("what travels is not all but the outputs: %v", err)
	}
	v, err := executor.OpenView(t.Context(), e.Store, last)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`"a"`, `"b"`} {
		if res, err := v.Result(t.Context(), "old", i); err != nil || string(res) != want {
			t.Errorf("old %d: %s, %v", i, res, err)
		}
	}
}
