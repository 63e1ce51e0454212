package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// Outputs of an earlier run are files like others: a task on a machine goes on
// with them, as it does here. The folders for outputs are there, too, also if
// nothing in them travels.
func TestOutputsOfEarlierRunsTravel(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine()
	file := write(t, "pipeline.yaml", `name: again
cloud: aws
files: {exclude: [out/parts, data]}
defaults: {hardware: {vm_type: m6i.large, keepalive: 0s, n_workers: 1}}
functions:
  part:
    map: {items: [a, b]}
    run: '[ ! -e "out/parts/${{ item }}.txt" ]; echo ${{ item }} > "out/parts/${{ item }}.txt"'
    outputs: ["out/parts/${{ item }}.txt"]
  log:
    needs: part
    run: echo ran >> history.csv
    outputs: [history.csv]
  linked:
    run: echo page > pages/page.html
    outputs: [pages/page.html]
`, "out/parts/.keep", "", "data/pages/.keep", "")
	dir := filepath.Dir(file)
	// The link travels, an empty folder behind it does not.
	if err := os.Symlink("data/pages", filepath.Join(dir, "pages")); err != nil {
		t.Skip(err)
	}
	if err := os.Remove(filepath.Join(dir, "data/pages/.keep")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "out/parts/.keep")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h := apply(t, e, ApplyOptions{File: file})
		ended(t, h, executor.RunSucceeded)
		if _, _, err := e.FetchOutputs(t.Context(), h.Run, "", -1, dir); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"history.csv": "ran\nran\n", "out/parts/a.txt": "a\n", "data/pages/page.html": "page\n"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// A store is the same by way of a link.
func TestSamePlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, link := filepath.Join(dir, "store"), filepath.Join(dir, "link")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(store, link); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{store, store, true}, {store, link, true}, {link, store, true}, {store, dir, false}, {store, filepath.Join(dir, "none"), false},
		{"s3://b/p", "s3://b/p", true}, {"s3://b/p", "s3://b/q", false}, {"s3://b/p", store, false},
	} {
		if got := samePlace(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}
