package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// A dry run says what would be removed, and removes nothing.
func TestGCDry(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := engineIn(t)
	h := &executor.Header{Run: "r", Pipeline: "p", File: "p.yaml", Created: time.Now().Add(-40 * 24 * time.Hour), Token: "gc-test"}
	if err := executor.Create(ctx, e.Store, h, []byte("name: p\nfunctions: {a: {command: [x]}}\n")); err != nil {
		t.Fatal(err)
	}
	gc := func(dry bool) string {
		t.Helper()
		lines, err := e.GC(ctx, dry)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, "\n")
	}
	if got := gc(true); !strings.HasPrefix(got, "would remove run r (") {
		t.Errorf("dry: %s", got)
	}
	if got := gc(false); !strings.HasPrefix(got, "removed run r (") {
		t.Errorf("%s", got)
	}
	if got := gc(true); strings.Contains(got, "run r ") {
		t.Errorf("afterwards: %s", got)
	}
}
