package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// machinesOptions are the flags of machines.
type machinesOptions struct {
	app       *app
	cloud     cloudOptions
	all, json bool
}

func newMachinesCmd(a *app, runF func(context.Context, *machinesOptions) error) *cobra.Command {
	o := &machinesOptions{app: a}
	cmd := &cobra.Command{
		Use:   "machines",
		Short: "List machines that work for runs, here and in the account on aws",
		Args:  arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runF(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "everybody's")
	o.cloud.flags(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// machineLine is a machine in the JSON of machines.
type machineLine struct {
	Machine string    `json:"machine"`
	Run     string    `json:"run"`
	Status  string    `json:"status"` // of the run; "" if it is not known
	Owner   string    `json:"owner"`
	Since   time.Time `json:"since"`
	Running int       `json:"running"` // tasks now
	CostUSD float64   `json:"cost_usd"`
	// Of rented machines.
	Region       string  `json:"region,omitempty"`
	Zone         string  `json:"zone,omitempty"`
	Type         string  `json:"type,omitempty"`
	Spot         bool    `json:"spot,omitempty"`
	State        string  `json:"state,omitempty"` // pending or running
	Role         string  `json:"role,omitempty"`
	PricePerHour float64 `json:"price_per_hour,omitempty"`
	// Leftover says why nobody needs it; gc removes it.
	Leftover string `json:"leftover,omitempty"`
}

func runMachines(ctx context.Context, o *machinesOptions) error {
	a := o.app
	use, err := a.account(&o.cloud)
	if err != nil {
		return err
	}
	e, err := a.reader(ctx)
	if err != nil {
		return err
	}
	lines, err := o.localMachines(ctx, e)
	if err != nil {
		return err
	}
	known := true
	if use != accountNone {
		rented, err := o.rentedMachines(ctx, e)
		if err != nil && use == accountYes {
			return err
		}
		if err != nil {
			known = false
			fmt.Fprintf(a.messages, "%s: the machines on aws are not known: %v\n", program, err)
		}
		lines = append(lines, rented...)
	}
	if o.json {
		return a.printJSON(lines)
	}
	if len(lines) == 0 {
		if known {
			fmt.Fprintln(a.messages, "no machine works for a run now")
		}
		return nil
	}
	t := &ui.Table{Header: []string{"MACHINE", "RUN", "STATUS", "OWNER", "TYPE", "ZONE", "SINCE", "RUNNING", "COST"},
		Right: []bool{false, false, false, false, false, false, false, true, true}}
	for _, l := range lines {
		kind, running := l.Type, ui.Plural(l.Running, "task")
		if l.Type != "" {
			running = l.State
		}
		if l.Spot {
			kind += " spot"
		}
		if l.Role != "" {
			kind += " " + l.Role
		}
		status := l.Status
		if l.Leftover != "" {
			status += ", left over"
		}
		t.Rows = append(t.Rows, []string{l.Machine, l.Run, status, l.Owner, kind, l.Zone, l.Since.Local().Format("2006-01-02 15:04:05"), running, ui.Dollars(l.CostUSD)})
	}
	return a.printTable(t)
}

// localMachines is this machine, for each run that works on it.
func (o *machinesOptions) localMachines(ctx context.Context, e *engine.Engine) ([]machineLine, error) {
	a := o.app
	lines := []machineLine{}
	runs, err := e.Runs(ctx, o.all)
	if err != nil {
		return nil, err
	}
	for _, s := range runs {
		if s.Status != string(executor.RunRunning) && s.Status != string(executor.RunPending) {
			continue
		}
		v, err := a.openRun(ctx, s.Run)
		if err != nil {
			return nil, err
		}
		if v.Header.Cloud == "aws" {
			continue // its machines are in the account
		}
		r, err := v.Report(ctx)
		if err != nil {
			return nil, err
		}
		if ended(r) {
			continue // the list was a hint
		}
		lines = append(lines, machineLine{Machine: "this machine", Run: s.Run, Status: string(r.Status), Owner: s.Owner, Since: r.Started,
			Running: ui.Sum(r).Running, CostUSD: r.CostUSD})
	}
	return lines, nil
}

// rentedMachines is the machines that EC2 shows now, whatever is recorded of
// them: everybody's, since what is left over is nobody's.
func (o *machinesOptions) rentedMachines(ctx context.Context, e *engine.Engine) ([]machineLine, error) {
	regions, err := accountRegions(ctx, e, o.cloud.region)
	if err != nil {
		return nil, err
	}
	var lines []machineLine
	for _, region := range regions {
		m, err := aws.OpenMachines(ctx, aws.MachinesOptions{Region: region})
		if err != nil {
			return nil, err
		}
		list, err := m.Instances(ctx)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			continue
		}
		prices, err := o.app.catalogue(ctx, region)
		if err != nil {
			prices = nil // they are still worth showing
		}
		j := o.app.newJudge(ctx, e, region)
		for _, x := range list {
			l := machineLine{Machine: x.ID, Run: x.Run, Owner: x.Owner, Since: x.Launched, Region: region, Zone: x.Zone, Type: x.Type, Spot: x.Spot,
				State: x.State, Role: x.Role}
			if prices != nil {
				l.PricePerHour = prices.MachinePrice(x.Type, x.Zone, x.Spot, 0)
				l.CostUSD = l.PricePerHour * max(j.now.Sub(x.Launched), time.Minute).Hours()
			}
			t := aws.Thing{Kind: aws.ThingMachine, ID: x.ID, Run: x.Run, Store: x.Store, Made: x.Launched, Machine: &x}
			l.Status = j.run(ctx, x.Store, x.Run).status
			if over, why, err := j.over(ctx, t); err == nil && over && j.now.Sub(x.Launched) > settled {
				l.Leftover = why
			}
			lines = append(lines, l)
		}
	}
	return lines, nil
}
