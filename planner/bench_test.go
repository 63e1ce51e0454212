package planner

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkGlobLocal lists 100,000 files in 100 folders and compares with
// find -printf and sort.
func BenchmarkGlobLocal(b *testing.B) {
	dir := b.TempDir()
	for d := range 100 {
		sub := filepath.Join(dir, fmt.Sprintf("data/part-%03d", d))
		if err := os.MkdirAll(sub, 0o777); err != nil {
			b.Fatal(err)
		}
		for f := range 1000 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%06d.csv", f*7919%1000)), nil, 0o666); err != nil {
				b.Fatal(err)
			}
		}
	}
	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		g := &globs{}
		if err := g.add(dirSegments(dir), "data/**/*.csv", 0, false); err != nil {
			b.Fatal(err)
		}
		p := newPacker(dir + "/")
		var e fileEntry
		render := g.local[0].renderer(dirSegments(dir))
		err := walkLocal(context.Background(), g.include, nil, []bool{false}, func(path []byte, _ int, size, mtime int64) error {
			e.path, e.size, e.mtime = render.render(e.path[:0], path), size, mtime
			return p.file(&e)
		})
		if err != nil || p.done().Len() != 100_000 {
			b.Fatal(err, p.p.n)
		}
		ours += time.Since(start)
		start = time.Now()
		cmd := exec.Command("sh", "-c", `find data -name '*.csv' -printf '%s %T@ %p\n' | sort -k3 > /dev/null`)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Skipf("no find to compare with: %v %s", err, out)
		}
		theirs += time.Since(start)
	}
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "x-find")
	b.ReportMetric(ours.Seconds()*1000/float64(b.N), "ms")
}

// BenchmarkRangeJSON writes the lines of plan --items for a million items.
func BenchmarkRangeJSON(b *testing.B) {
	for b.Loop() {
		if err := WriteItemsJSON(io.Discard, "sweep", rangeItems{step: 1, n: 1_000_000}); err != nil {
			b.Fatal(err)
		}
	}
}
