package ui

import (
	"bytes"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// The end of a run that was paid for says what for; one that was stopped says
// what is left and what that may cost.
func TestCostIsTold(t *testing.T) {
	t.Parallel()
	r := executor.Report{Run: "r-1", Pipeline: "p", Status: executor.RunStopped, Reason: "limits.cost of $2.00 reached: $1.99 were spent", CostUSD: 1.994, IdleUSD: 0.396,
		Machines: 12, Seconds: 60, Functions: []executor.FunctionReport{
			{Name: "clean", Status: "cancelled", Tasks: 100, Planned: true, Succeeded: 40, Cancelled: 60, CostUSD: 1.598},
			{Name: "report", Status: "cancelled", Tasks: 1, Planned: true, Cancelled: 1},
			{Name: "mail", Status: "cancelled"}}}
	text := func(r executor.Report) string {
		var b bytes.Buffer
		if err := (&Summary{Report: r, Program: "coiled-jobs"}).Write(&b, Style{}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	got := text(r)
	for _, want := range []string{"COST\n", "$1.60\n", ", 12 machines, $1.99  run r-1",
		"cost: $1.99 for 12 machines: $1.59 (80 %) while tasks ran, $0.40 (20 %) while machines started, waited and ended\n",
		"left to do: 60 of 100 tasks of clean, 1 of 1 task of report, all of mail; what was done so far makes that about $2.99 more\n",
		"coiled-jobs resume r-1 --max-cost 7  # go on where it stopped, and spend so much in all\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
	r.Status, r.Reason = executor.RunSucceeded, ""
	if got := text(r); strings.Contains(got, "left to do") || !strings.Contains(got, "cost: $1.99") {
		t.Errorf("a run that succeeded:\n%s", got)
	}
	r.CostUSD, r.IdleUSD = 0, 0
	if got := text(r); strings.Contains(got, "cost:") || strings.Contains(got, "COST") {
		t.Errorf("a run that cost nothing:\n%s", got)
	}
	r = executor.Report{Status: executor.RunStopped, Reason: "limits.cost of $0.01 reached", CostUSD: 0.0058, IdleUSD: 0.0058, Machines: 1,
		Functions: []executor.FunctionReport{{Name: "f", Tasks: 1, Planned: true, Cancelled: 1}}}
	if got := text(r); !strings.Contains(got, "--max-cost 1 ") || !strings.Contains(got, "cost: $0.0058 for 1 machine: $0.0000 (0 %)") {
		t.Errorf("a run that did nothing:\n%s", got)
	}
}
