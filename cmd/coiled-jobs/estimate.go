package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// parseMachines reads --machines 1,10,33.
func parseMachines(text string) ([]int, error) {
	if text == "" {
		return nil, nil
	}
	var list []int
	for _, part := range strings.Split(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 {
			return nil, usagef("--machines %s: write numbers of machines, such as 1,10,33,100", text)
		}
		list = append(list, n)
	}
	return list, nil
}

// printEstimate shows to people what a plan would rent and cost.
func (a *app) printEstimate(r planner.Report) error {
	st, w := a.style(a.stdout), width(a.stdout)
	t := &ui.Table{Header: []string{"FUNCTION", "TASKS", "BYTES", "MACHINES", "TIME", "UP TO", "COST", "UP TO", "A TASK'S TIME AS"},
		Right: []bool{false, true, true, true, true, true, true, true, false}}
	for _, f := range r.Functions {
		row := []string{f.Name, "?", "", "", "", "", "", "", ""}
		if f.Tasks != nil {
			row[1] = ui.Count(*f.Tasks)
		}
		if f.Bytes > 0 {
			row[2] = ui.Bytes(f.Bytes)
		}
		if e := f.Estimate; e != nil {
			row[3], row[4], row[5] = ui.Count(e.Machines), ui.Seconds(e.Seconds), ui.Seconds(e.MaxSeconds)
			row[6], row[7], row[8] = ui.Dollars(e.CostUSD), ui.Dollars(e.MaxCostUSD), e.Basis
		} else {
			row[8] = "its tasks are known when " + strings.Join(f.Needs, ", ") + " is done"
		}
		t.Rows = append(t.Rows, row)
	}
	if err := t.Write(a.stdout, st, w); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, line := range machineLines(r) {
		b.WriteString(line + "\n")
	}
	if t := r.Travels; t != nil {
		fmt.Fprintf(&b, "sent along: %s of the folder, %s\n", ui.Plural(t.Files, "file"), ui.Bytes(t.Bytes))
		if len(t.Software) == 0 {
			b.WriteString("installed: nothing\n")
		}
		for _, line := range t.Software {
			b.WriteString("installed: " + ui.Clean(line) + "\n")
		}
	}
	e := r.Estimate
	least := ""
	if e.Partial {
		least = "at least "
	}
	fmt.Fprintf(&b, "\nexpected: %s%s and %s, up to %s and %s", least, ui.Seconds(e.Seconds), ui.Dollars(e.CostUSD), ui.Seconds(e.MaxSeconds), ui.Dollars(e.MaxCostUSD))
	if r.Limit > 0 {
		fmt.Fprintf(&b, "; the run stops at %s", ui.Dollars(r.Limit))
	}
	bill := e.Bill
	fmt.Fprintf(&b, "\nof that: machines %s, disks %s, public addresses %s, requests %s, egress %s\n", ui.Dollars(bill.Machines), ui.Dollars(bill.Disks),
		ui.Dollars(bill.Addresses), ui.Dollars(bill.Requests), ui.Dollars(bill.Egress))
	for _, note := range r.Notes {
		b.WriteString("note: " + ui.Clean(note) + "\n")
	}
	if _, err := fmt.Fprint(a.stdout, b.String()); err != nil {
		return err
	}
	if len(r.Curve) == 0 {
		return nil
	}
	c := &ui.Table{Header: []string{"MACHINES", "TIME", "COST", "UP TO"}, Right: []bool{true, true, true, true}}
	for _, p := range r.Curve {
		c.Rows = append(c.Rows, []string{ui.Count(p.Machines), ui.Seconds(p.Seconds), ui.Dollars(p.CostUSD), ui.Dollars(p.MaxCostUSD)})
	}
	if _, err := fmt.Fprintln(a.stdout); err != nil {
		return err
	}
	return c.Write(a.stdout, st, w)
}

// machineLines say which machines functions run on, those with the same in one
// line.
func machineLines(r planner.Report) []string {
	var lines []string
	at := map[string]int{}
	for _, f := range r.Functions {
		h := f.Hardware
		text := fmt.Sprintf("%s in %s, %s, %s", h.VMType, h.Region, ui.Plural(h.VCPUs, "CPU"), gibText(h.MemoryGiB))
		if h.GPUs > 0 {
			text += fmt.Sprintf(", %d x %s", h.GPUs, h.GPUModel)
		}
		if h.SpotPolicy == "on-demand" {
			text += fmt.Sprintf(": %s an hour on demand", hourly(h.PricePerHour))
		} else {
			text += fmt.Sprintf(": %s an hour as spot, %s on demand", hourly(h.PricePerHour), hourly(h.OnDemandPricePerHour))
		}
		text += fmt.Sprintf(", with %d GiB of disk and a public address", h.DiskGB)
		switch n := len(h.VMTypes) - 1; {
		case n == 1:
			text += "; or on " + h.VMTypes[1]
		case n > 1:
			text += fmt.Sprintf("; or on one of %d others, such as %s", n, h.VMTypes[1])
		}
		if i, ok := at[text]; ok {
			name, rest, _ := strings.Cut(lines[i], " on ")
			lines[i] = name + ", " + ui.Clean(f.Name) + " on " + rest
			continue
		}
		at[text] = len(lines)
		lines = append(lines, ui.Clean(f.Name)+" on "+ui.Clean(text))
	}
	return lines
}

func gibText(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) + " GiB" }

// hourly is a price of an hour, which has more digits than a bill.
func hourly(d float64) string { return fmt.Sprintf("$%.4f", d) }
