package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// BenchmarkUnchangedPush is what a second apply pays for its files: 10,000 of
// them beside the pipeline file, none of which has changed.
func BenchmarkUnchangedPush(b *testing.B) {
	const n = 10_000
	dir := b.TempDir()
	old := time.Now().Add(-time.Hour)
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("package%02d", i%100), fmt.Sprintf("module%d.py", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, fmt.Appendf(nil, "VALUE = %d\n", i), 0o644); err != nil {
			b.Fatal(err)
		}
		if err := os.Chtimes(name, old, old); err != nil {
			b.Fatal(err)
		}
	}
	store, err := local.OpenStore(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	opts := bundle.Options{CacheDir: b.TempDir()}
	push := func() *bundle.PushStats {
		m, err := bundle.Scan(b.Context(), dir, spec.Files{}, nil, opts)
		if err != nil {
			b.Fatal(err)
		}
		_, stats, err := bundle.Push(b.Context(), store, m)
		if err != nil {
			b.Fatal(err)
		}
		return stats
	}
	start := time.Now()
	stats := push()
	b.Logf("first push: %d files, %d objects, %d bytes stored, %v", stats.SentFiles, stats.SentObjects, stats.StoredBytes, time.Since(start).Round(time.Millisecond))
	time.Sleep(3 * time.Second) // files that were just written are not trusted to stay
	push()
	for b.Loop() {
		if stats := push(); !stats.Unchanged {
			b.Fatalf("%+v", stats)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
