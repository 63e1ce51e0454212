package ui

import (
	"fmt"
	"math"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// CostLine says what a run has cost and what for; "" if nothing was rented.
// The parts add up to the whole, as they are printed.
func CostLine(r executor.Report) string {
	if r.CostUSD <= 0 {
		return ""
	}
	digits := 2
	if r.CostUSD < 1 {
		digits = 4
	}
	unit := math.Pow10(-digits)
	total := math.Round(r.CostUSD / unit)
	idle := math.Min(math.Round(r.IdleUSD/unit), total)
	share := func(d float64) string {
		return fmt.Sprintf("$%.*f (%.0f %%)", digits, d*unit, 100*d/math.Max(total, 1))
	}
	return fmt.Sprintf("$%.*f for %s: %s while tasks ran, %s while machines started, waited and ended",
		digits, total*unit, Plural(r.Machines, "machine"), share(total-idle), share(idle))
}

// unfinished is how many tasks of a function are still to be done, after a stop
// or cancel; -1 if nobody knows yet how many it has.
func unfinished(f executor.FunctionReport) int {
	if !f.Planned && f.Tasks == 0 {
		if f.Status == "skipped" || f.Status == "succeeded" {
			return 0
		}
		return -1
	}
	return f.Cancelled + f.Pending + f.Running
}

// leftLine says what a stopped run has not done; "" if it was not stopped.
func leftLine(r executor.Report) string {
	if r.Status != executor.RunStopped {
		return ""
	}
	var parts []string
	for _, f := range r.Functions {
		switch n := unfinished(f); {
		case n < 0:
			parts = append(parts, "all of "+Clean(f.Name))
		case n > 0:
			parts = append(parts, fmt.Sprintf("%s of %s of %s", Count(n), Plural(f.Tasks, "task"), Clean(f.Name)))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	line := "left to do: " + strings.Join(parts, ", ")
	if d := restDollars(r); d > 0 {
		line += "; what was done so far makes that about " + Dollars(d) + " more"
	}
	return line
}

// restDollars is what is left would cost at the price of what is done; 0 if
// that says nothing.
func restDollars(r executor.Report) float64 {
	used, rest := 0.0, 0.0
	for _, f := range r.Functions {
		used += f.CostUSD
		if done := f.Succeeded + f.Failed - f.Cached; done > 0 {
			rest += f.CostUSD / float64(done) * float64(max(unfinished(f), 0))
		}
	}
	if used <= 0 {
		return 0
	}
	return rest * r.CostUSD / used // machines start and wait for it, too
}

// moreDollars is a limit with which a run that was stopped can end, in whole
// dollars: with half as much again as it seems to need.
func moreDollars(r executor.Report) float64 {
	rest := restDollars(r)
	if rest <= 0 {
		rest = r.CostUSD
	}
	return math.Max(math.Ceil(r.CostUSD+1.5*rest), 1)
}
