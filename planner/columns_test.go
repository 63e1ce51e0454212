package planner_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/planner"
)

// A column that a CSV file does not have is a typo, not null in every task.
func TestColumns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "c.csv"), []byte("name,full name\na,b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const there = "; there are name, full name (write ?. for one that may be missing)"
	for body, want := range map[string]string{
		`{map: {csv: c.csv, where: item.name == "a"}, command: [echo, "${{ item['full name'] }}", "${{ item?.none }}", "${{ 'x' in item }}"]}`: "",
		`{map: {csv: c.csv, batch: 2}, command: [echo, "${{ map(item, #.name) }}"]}`:                                                           "",
		`{map: {csv: c.csv}, command: [echo, "${{ item.nam }}"]}`:                                                                              `p.yaml:3:52: functions.f: c.csv has no column "nam" (did you mean "name"?)` + there,
		`{map: {csv: c.csv, where: item.x == "a"}, run: "true"}`:                                                                               `p.yaml:3:37: functions.f: c.csv has no column "x"` + there,
		`{map: {csv: c.csv}, run: "true", env: {A: "${{ upper(item.Name) }}"}}`:                                                                `no column "Name"`,
		`{map: {csv: c.csv, batch: 2}, command: [echo, "${{ item[0].x }}"]}`:                                                                   `no column "x"`,
		`{map: {matrix: {row: {csv: c.csv}, k: [1]}}, command: [echo, "${{ item.row.z }}", "${{ item.k }}"]}`:                                  `no column "z"`,
		`{map: {csv: c.csv}, retries: {max: 1, when: item.w == "a"}, run: "true"}`:                                                             `no column "w"`,
	} {
		p := bind(t, "name: x\nfunctions:\n  f: "+body+"\n", "p.yaml")
		_, err := planner.Make(t.Context(), p, planner.Inputs{Dir: dir}, planner.Options{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s:\n%v\nwant %s", body, err, want)
		}
	}
}

// A template may yield several patterns or outputs.
func TestTemplatesOfLists(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, f := range []string{"a.x", "b.x", "c.y"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for body, want := range map[string]string{
		`{map: {glob: "${{ ['*.y', params.x] }}", exclude: "${{ ['a*'] }}"}, run: "true"}`:      `0:"b.x" 1:"c.y"`,
		`{map: {glob: "${{ ['*.y', '*.z'] }}"}, run: "true"}`:                                   `p.yaml:4:20: functions.f.map.glob: no file matches "*.z"`,
		`{map: {glob: "${{ [] }}"}, run: "true"}`:                                               "the list of patterns is empty",
		`{map: {glob: "${{ [] }}", allow_empty: true}, run: "true"}`:                            "",
		`{map: {range: 2}, run: "true", outputs: "${{ ['o' + string(item), 'p'] }}"}`:           `task 0 and task 1 would both write "p"`,
		`{map: {range: 1}, run: "true", outputs: ["${{ ['o' + string(item), '../p'] }}", "x"]}`: `output "../p" is not below`,
	} {
		p := bind(t, "name: x\nparams: {x: '*.x'}\nfunctions:\n  f: "+body+"\n", "p.yaml")
		plan, err := planner.Make(t.Context(), p, planner.Inputs{Dir: dir}, planner.Options{})
		got := ""
		if err != nil {
			got = err.Error()
		} else if it := plan.Function("f").Items; it != nil {
			got = strings.Join(itemsOf(t, it), " ")
		}
		if got != want && (want == "" || err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s:\n%s\nwant %s", body, got, want)
		}
	}
}
