package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

const laterPipeline = `name: later
cloud: aws
files: {exclude: ["data/**"]}
functions:
  pick: {run: "echo '[\"b\", \"c\"]' > \"$COILED_JOBS_RESULT\""}
  count:
    needs: pick
    map: MAP
    run: wc -w < ${{ item }} > "$COILED_JOBS_RESULT"
    hardware: {vm_type: m6i.large, keepalive: 0s, n_workers: 1}
`

// Files that a map chooses while the run goes on lie on its machines.
func TestFilesChosenLater(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine()
	text := strings.ReplaceAll(laterPipeline, "MAP", `{glob: "data/*.txt", where: item.stem in needs.pick.result}`)
	file := write(t, "pipeline.yaml", text, "data/a.txt", "x", "data/b.txt", "one two", "data/c.txt", "one two three")
	h := apply(t, e, ApplyOptions{File: file})
	ended(t, h, executor.RunSucceeded)
	v, err := executor.OpenView(t.Context(), e.Store, h.Run)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range 2 {
		res, err := v.Result(t.Context(), "count", i)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(res))
	}
	if !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("%q", got)
	}
}

// What machines could not have is refused before anything is rented.
func TestFilesThatMachinesCannotHave(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		form   string
		detach bool
		want   string
	}{
		"depends on results": {`{glob: "data/${{ needs.pick.result[0] }}*.txt"}`, false, "functions.count.map: which files data/${{ needs.pick.result[0] }}*.txt matches"},
		"absolute":           {`{glob: "DIR/data/*.txt", where: item.stem in needs.pick.result}`, false, "not below the folder"},
		"detached":           {`{glob: "data/*.txt", where: item.stem in needs.pick.result}`, true, "functions.count.map: data/*.txt is looked up while the run goes on"},
		"lines, detached":    {`{lines: data/a.txt, where: item in needs.pick.result}`, true, "data/a.txt is looked up while"},
		"in a matrix":        {`{matrix: {a: {from: pick}, b: {glob: "data/${{ needs.pick.result[0] }}*.txt"}}}`, false, "which files data/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			e := c.engine()
			file := write(t, "pipeline.yaml", "", "data/a.txt", "x")
			text := strings.ReplaceAll(strings.ReplaceAll(laterPipeline, "MAP", x.form), "DIR", filepath.Dir(file))
			writeOver(t, file, text)
			o := ApplyOptions{File: file, Detach: x.detach}
			p, err := e.Plan(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = e.Apply(t.Context(), p, o); err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v", err)
			}
			if n := c.region.Count("launch"); n > 0 {
				t.Errorf("%d launches", n)
			}
		})
	}
}

func writeOver(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
