//go:build unix

package agent

import (
	"context"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// bench runs n tasks of a function on two slots, in ranges of 64.
func bench(b *testing.B, yaml string, files map[string]string) {
	w := newWorld(b, yaml)
	for name, text := range files {
		w.file(name, text)
	}
	w.items["f"] = ranged(b.N)
	w.cfg.Slots = 2
	var rs []cloud.Range
	for i := 0; i < b.N; i += 64 {
		rs = append(rs, cloud.Range{Run: "r1", Function: "f", From: i, To: min(i+64, b.N), Attempt: 1})
	}
	b.ResetTimer()
	w.work(context.Background(), rs...)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	for i := range b.N {
		if o := w.get("f", i); o.Message != "" {
			b.Fatalf("%d: %s", i, o.Message)
		}
	}
}

func BenchmarkTrue(b *testing.B) {
	bench(b, "functions:\n  f:\n    map: {items: [x]}\n    command: [\"true\"]\n", nil)
}

func BenchmarkScript(b *testing.B) {
	bench(b, "functions:\n  f:\n    map: {items: [x]}\n    run: |\n"+indent(`
printf '%1024s' x
echo "{\"n\": ${{ item }}}" > "$COILED_JOBS_RESULT"`), nil)
}

func BenchmarkPython(b *testing.B) {
	bench(b, "functions:\n  f:\n    map: {items: [x]}\n    python: quick:f\n", map[string]string{"quick.py": "def f(x):\n    return x\n"})
}
