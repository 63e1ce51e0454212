//go:build linux

package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

func newTestNeeds(t *testing.T, text string) (*stay, *cloudtest.Store) {
	t.Helper()
	store := cloudtest.NewStore()
	p, err := executor.Bind([]byte(text), "pipeline.yaml", nil, "aws")
	if err != nil {
		t.Fatal(err)
	}
	st := &stay{m: &machine{cfg: Config{Store: store}}, run: "r1", store: store, pipeline: p}
	st.needs = newNeeds(st)
	st.needs.dir = t.TempDir()
	return st, store
}

// What the tasks of a range follow is found with what the range says, for as
// long as it is in hand.
func TestFollow(t *testing.T) {
	t.Parallel()
	st, _ := newTestNeeds(t, "name: t\nfunctions:\n  a: {map: {range: 9}, run: 'true'}\n  b: {map: {from: a}, run: 'true'}\n")
	one := cloud.Range{Run: "r1", Function: "b", From: 0, To: 3, ID: "1-1", Upstream: "!one"}
	two := cloud.Range{Run: "r1", Function: "b", From: 3, To: 5, ID: "1-2", Upstream: "!two"}
	st.follow(one)
	st.follow(two)
	st.follow(cloud.Range{Run: "r1", Function: "a", From: 0, To: 9, ID: "1-3"})
	for i, want := range []string{"!one", "!one", "!one", "!two", "!two", "nobody has told"} {
		if _, err := st.needs.Upstream(t.Context(), "a", i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("task %d: %v, want %q", i, err, want)
		}
	}
	st.unfollow(one)
	if _, err := st.needs.Upstream(t.Context(), "a", 0); err == nil || !strings.Contains(err.Error(), "nobody has told") {
		t.Errorf("a range that has ended: %v", err)
	}
	// An identity that nobody knows is none; the work is not found in the cache.
	if id, err := st.needs.NeedsID(t.Context(), "a", 0); err != nil || id != (task.ID{}) {
		t.Errorf("%v, %v", id, err)
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	st, store := newTestNeeds(t, "name: t\nfunctions:\n  a: {run: 'true'}\n  b: {run: 'true'}\n  c: {needs: [a, b], run: 'true'}\n")
	r := &rig{t: t, ctx: t.Context(), store: store}
	long := `"` + strings.Repeat("x", 3<<20) + `"`
	if err := store.Put(t.Context(), "results", []byte("1\nnull\n"+long+"\n{\"z\":2,\"k\":2}\n")); err != nil {
		t.Fatal(err)
	}
	r.put(wire.StartKey("r1", "c", 1), wire.Start{Function: "c", Count: 7, Needs: map[string]wire.Need{
		"a": {Status: "succeeded", Count: 4, Failed: 1, Mapped: true, Results: "results", Without: [][2]int{{1, 2}}, ID: task.ID{7}},
		"b": {Status: "running", Count: 2, Streams: true}}})
	if _, _, err := st.needs.Needs(t.Context(), "c"); err == nil {
		t.Error("needs of a function that nobody has told of")
	}
	if _, err := st.start(t.Context(), "c", 1); err != nil {
		t.Fatal(err)
	}
	infos, dir, err := st.needs.Needs(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	a := infos["a"]
	all, err := a.Results()
	if err != nil || len(all) != 4 || all[1] != nil || fmt.Sprint(all[0]) != "1" || len(all[2].(string)) != 3<<20 {
		t.Errorf("%d results, %v", len(all), err)
	}
	if got := value.Text(all[3]); got != `{"z":2,"k":2}` {
		t.Errorf("a mapping became %s", got)
	}
	if a.Without(0) || !a.Without(1) || !a.Without(4) || a.Status != "succeeded" || a.Count != 4 || a.Failed != 1 {
		t.Errorf("%+v", a)
	}
	if _, err := infos["b"].Results(); err == nil {
		t.Error("results of a function that still runs")
	}
	if _, err := os.Stat(filepath.Join(dir, "b.jsonl")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of results that are not there yet: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a.jsonl")); err != nil || strings.Count(string(b), "\n") != 4 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if n := st.needs.Count("c"); n != 7 {
		t.Errorf("count %d", n)
	}
	if id, err := st.needs.NeedsID(t.Context(), "a", -1); err != nil || id != (task.ID{7}) {
		t.Errorf("%v, %v", id, err)
	}
	if _, err := st.needs.NeedsID(t.Context(), "b", -1); err == nil {
		t.Error("an identity of what still runs")
	}
	// A later coordinator may say something else.
	r.put(wire.StartKey("r1", "c", 2), wire.Start{Function: "c", Count: 8})
	if _, err := st.start(t.Context(), "c", 2); err != nil || st.needs.Count("c") != 8 {
		t.Errorf("count %d, %v", st.needs.Count("c"), err)
	}
}

func TestResultsTooLarge(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "a.jsonl")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(`"` + strings.Repeat("x", 1<<20) + `"` + "\n")
	for range maxResults>>20 + 1 {
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := results("a", file); err == nil || !strings.Contains(err.Error(), "read them from the file $COILED_JOBS_NEEDS/a.jsonl") {
		t.Errorf("%v", err)
	}
}

func TestEachLine(t *testing.T) {
	t.Parallel()
	var got []string
	err := eachLine(io.MultiReader(strings.NewReader("a\n\n"), strings.NewReader(strings.Repeat("b", 1<<17)+"\nc")), func(line []byte) error {
		got = append(got, string(line))
		return nil
	})
	if err != nil || len(got) != 3 || got[0] != "a" || len(got[1]) != 1<<17 || got[2] != "c" {
		t.Errorf("%d lines, %v", len(got), err)
	}
}
