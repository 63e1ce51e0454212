package main

import (
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// A terminal of the usual width shows whether something failed.
func TestRunsAreReadable(t *testing.T) {
	t.Parallel()
	runs := []engine.RunSummary{{Run: "nyc-taxi-20261120-101401-hqgul", Pipeline: "nyc-taxi", Status: "interrupted",
		Started: time.Now().Add(-47 * time.Hour), Seconds: 4000, Tasks: 1234567, Failed: 123456, Owner: "somebody@somewhere"}}
	var b strings.Builder
	if err := runsTable(runs, true, ui.Style{}).Write(&b, ui.Style{}, 80); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"FAILED", "nyc-taxi-20261120-101401-hqgul  interrupted  1,234,567  123,456  1h 06m"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
