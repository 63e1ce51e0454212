package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// EstimateOptions are the flags of plan that are about prices.
type EstimateOptions struct {
	ApplyOptions
	Assume   time.Duration // how long a task takes of which nothing is known
	Machines []int         // for the curve
}

// Quota is an account's limit on the virtual CPUs of a group of types.
type Quota struct {
	Code  string // such as L-34B43A08
	Name  string
	Link  string // where it is raised
	VCPUs int
}

// pricedKind is a kind of machines with its choice and price.
type pricedKind struct {
	*kind
	region    string
	catalogue *hardware.Catalogue
	selection *hardware.Selection
	machine   hardware.Machine
	rates     hardware.Rates
	live      int // machines that functions before left
	most      int // at any time
}

// pricedJob is a function with what it takes.
type pricedJob struct {
	f        *spec.Function
	plan     *planner.FunctionPlan
	k        *pricedKind
	job      hardware.Job
	basis    string
	egress   float64
	expected hardware.Forecast
	most     hardware.Forecast
}

// Estimate fills in a report on a plan what renting machines for it would
// cost and how long it would take. Nothing is rented and nothing is recorded;
// where the cloud cannot be asked it goes by what is built in.
func (e *Engine) Estimate(ctx context.Context, p *Planned, o EstimateOptions, r *planner.Report) error {
	if p.Pipeline.Cloud != "aws" {
		return nil
	}
	fs := executor.Selected(p.Pipeline, o.Functions, o.Only)
	kinds, err := e.priceKinds(ctx, p.Pipeline, fs, r)
	if err != nil {
		return err
	}
	jobs := e.jobs(ctx, p, o, fs, kinds)
	store := e.storeRegion(ctx)
	for _, j := range jobs {
		e.egress(ctx, p, j, store, r)
	}
	noteStore(kinds, store, r)
	total, most := forecastAll(jobs, func(j *pricedJob) (hardware.Forecast, hardware.Forecast) {
		return j.job.Expected(j.k.machine, j.k.rates), j.job.AtMost(j.k.machine, j.k.rates)
	})
	describe(jobs, r)
	r.Estimate = total
	r.Limit = costLimit(p.Pipeline, o.MaxCost)
	// Requests and transfer are not part of the limit.
	if r.Limit > 0 && most.Rented() > r.Limit {
		how := "may stop before its end"
		if total.Bill.Rented() > r.Limit {
			how = "will probably stop before its end"
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("the machines may cost up to $%.2f and the run stops at $%.2f, so it %s; limits.cost or --max-cost changes that",
			most.Rented(), r.Limit, how))
	}
	if d := p.Pipeline.Limits.Duration.Seconds(); d > 0 && total.MaxSeconds > d {
		how := "may stop before its end"
		if total.Seconds > d {
			how = "will probably stop before its end"
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("the run may take up to %s and stops after %s, so it %s; limits.duration changes that",
			shortDuration(time.Duration(total.MaxSeconds)*time.Second), shortDuration(p.Pipeline.Limits.Duration), how))
	}
	if p.quote == nil || !p.quote.quotas { // else they were told already
		r.Warnings = append(r.Warnings, e.planQuotas(ctx, kinds)...)
	}
	for _, n := range o.Machines {
		t, _ := forecastAll(jobs, func(j *pricedJob) (hardware.Forecast, hardware.Forecast) { return j.job.On(n, j.k.machine, j.k.rates) })
		r.Curve = append(r.Curve, planner.CurvePoint{Machines: n, Seconds: t.Seconds, CostUSD: t.CostUSD, MaxCostUSD: t.MaxCostUSD})
	}
	return nil
}

// priceKinds chooses the machines of functions.
func (e *Engine) priceKinds(ctx context.Context, p *spec.Pipeline, fs []*spec.Function, r *planner.Report) ([]*pricedKind, error) {
	var kinds []*pricedKind
	var regions []string
	for _, k := range kindsOf(fs) {
		region, warning := e.planRegion(ctx, p, k, fs)
		if warning != "" && !slices.Contains(r.Warnings, warning) {
			r.Warnings = append(r.Warnings, warning)
		}
		if !slices.Contains(regions, region) {
			regions = append(regions, region)
		}
		kinds = append(kinds, &pricedKind{kind: k, region: region})
	}
	read := make([]*hardware.Catalogue, len(regions))
	err := together(len(regions), func(i int) (err error) {
		read[i], err = e.catalogue(ctx, regions[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, c := range read {
		for _, note := range c.Notes {
			if !slices.Contains(r.Notes, note) {
				r.Notes = append(r.Notes, note)
			}
		}
	}
	for _, pk := range kinds {
		k, region := pk.kind, pk.region
		pk.catalogue = read[slices.Index(regions, region)]
		request := requestOf(k.Hardware, p.Limits.VCPUs)
		if pk.selection, err = hardware.Choose(request, pk.catalogue); err != nil {
			return nil, usagef("hardware of %s: %v", k.Base, err)
		}
		for _, note := range pk.selection.Notes {
			r.Notes = append(r.Notes, k.Base+": "+note)
		}
		first := &pk.selection.Choices[0]
		pk.rates = hardware.RatesOf(region)
		pk.machine = hardware.Machine{Disk: pk.rates.DiskHour(diskOf(k.Hardware, pk.selection.Choices)), Address: pk.rates.AddressHour}
		pk.machine.Instance, pk.machine.InstanceMost = first.OnDemand, first.OnDemand
		if request.Market != hardware.OnDemand {
			if price, _ := first.CheapestSpot(); price > 0 {
				pk.machine.Instance = price
			}
		}
		for _, c := range pk.selection.Choices {
			// The others may be what is to be had. Spot machines alone are never
			// dearer than on demand, and mostly a good deal cheaper.
			pk.machine.InstanceMost = math.Max(pk.machine.InstanceMost, c.OnDemand)
		}
	}
	return kinds, nil
}

// catalogue is that of the cloud, else what is built in.
func (e *Engine) catalogue(ctx context.Context, region string) (*hardware.Catalogue, error) {
	if e.AWS == nil || e.AWS.Catalogue == nil {
		return hardware.BuiltIn(region), nil
	}
	return e.AWS.Catalogue(ctx, region)
}

// planRegion is where a kind's machines would be, also where the cloud cannot
// be asked.
func (e *Engine) planRegion(ctx context.Context, p *spec.Pipeline, k *kind, fs []*spec.Function) (region, warning string) {
	configured := e.configuredRegion()
	switch k.Hardware.Region {
	case "auto":
	case "":
		if e.AWS != nil && e.AWS.Region == "" && e.Store != nil {
			if bucket, ok := bucketOf(e.Store.URL()); ok {
				if found, err := e.bucketRegion(ctx, bucket); err == nil {
					return found, ""
				}
			}
		}
		return configured, ""
	default:
		return k.Hardware.Region, ""
	}
	for _, f := range fs {
		if !slices.Contains(k.Functions, f.Name) {
			continue
		}
		bucket := inputBucket(p, f.Map)
		if bucket == "" {
			continue
		}
		found, err := e.bucketRegion(ctx, bucket)
		if err != nil {
			return configured, fmt.Sprintf("region: auto: where s3://%s is could not be found out, prices are those of %s: %v", bucket, configured, err)
		}
		return found, ""
	}
	return configured, ""
}

func bucketOf(url string) (string, bool) {
	rest, ok := strings.CutPrefix(url, "s3://")
	bucket, _, _ := strings.Cut(rest, "/")
	return bucket, ok && bucket != ""
}

func (e *Engine) bucketRegion(ctx context.Context, bucket string) (string, error) {
	if e.AWS == nil || e.AWS.BucketRegion == nil {
		return "", fmt.Errorf("there is no access to AWS")
	}
	return e.AWS.BucketRegion(ctx, bucket)
}

// jobs is the functions in an order in which needs come first, with what is
// known of their tasks.
func (e *Engine) jobs(ctx context.Context, p *Planned, o EstimateOptions, fs []*spec.Function, kinds []*pricedKind) []*pricedJob {
	past := e.past(ctx, p.Pipeline)
	var jobs []*pricedJob
	for _, plan := range p.Plan.Functions {
		i := slices.IndexFunc(fs, func(f *spec.Function) bool { return f.Name == plan.Name })
		if i < 0 {
			continue
		}
		j := &pricedJob{f: fs[i], plan: plan}
		for _, k := range kinds {
			if slices.Contains(k.Functions, plan.Name) {
				j.k = k
			}
		}
		h := j.k.Hardware
		seconds, slowest, basis := taskTime(j.f, past[plan.Name], o.Assume)
		j.basis = basis
		j.job = hardware.Job{Tasks: max(plan.Tasks, 0), Seconds: seconds, Slowest: slowest, Slots: j.k.selection.Choices[0].Slots(h.Threads),
			Concurrency: j.f.Concurrency, Min: h.Workers[0], Max: h.Workers[1]}
		if m := p.Pipeline.Limits.Machines; m > 0 {
			j.job.Max = min(j.job.Max, m)
		}
		if v := p.Pipeline.Limits.VCPUs; v > 0 {
			j.job.Max = min(j.job.Max, max(1, v/max(1, j.k.selection.Choices[0].VCPUs)))
		}
		j.job.Min = min(j.job.Min, j.job.Max)
		jobs = append(jobs, j)
	}
	return jobs
}

// taskTime is how long a task takes, expected and at most, and why.
func taskTime(f *spec.Function, p pastTimes, assume time.Duration) (seconds, slowest float64, basis string) {
	switch {
	case p.tasks > 0:
		seconds, slowest, basis = p.mean, math.Max(p.slowest, p.mean), fmt.Sprintf("%d tasks of run %s", p.tasks, p.run)
		if p.tasks == 1 {
			basis = "1 task of run " + p.run
		}
	case f.Expect > 0:
		seconds, basis = f.Expect.Seconds(), "expect"
		slowest = 2 * seconds
	default:
		seconds, basis = assume.Seconds(), "--assume "+shortDuration(assume)
		slowest = 2 * seconds
	}
	if limit := f.Timeout.Seconds(); limit > 0 {
		slowest = math.Max(math.Min(slowest, limit), seconds)
	}
	return seconds, slowest, basis
}

func shortDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// forecastAll puts the forecasts of functions together along their needs. mostBill is
// the bill behind MaxCostUSD.
func forecastAll(jobs []*pricedJob, forecast func(*pricedJob) (expected, most hardware.Forecast)) (_ *planner.Estimate, mostBill hardware.Bill) {
	t := &planner.Estimate{}
	type end struct{ expected, most, first float64 } // first: of its first task
	ends := map[string]end{}
	kind := map[string]*pricedKind{}
	var bill hardware.Bill
	for _, j := range jobs {
		j.k.live = 0
	}
	for _, j := range jobs {
		var start, behind end
		kind[j.f.Name] = j.k
		for _, need := range j.plan.Needs {
			if need == j.plan.StreamsFrom && kind[need] != j.k {
				// On machines of its own it works beside it.
				behind = ends[need]
				start.expected, start.most = math.Max(start.expected, behind.first), math.Max(start.most, behind.most)
				continue
			}
			start.expected, start.most = math.Max(start.expected, ends[need].expected), math.Max(start.most, ends[need].most)
		}
		if j.plan.Tasks < 0 {
			t.Partial = true
			ends[j.f.Name] = start
			continue
		}
		j.job.Warm = j.k.live
		j.expected, j.most = forecast(j)
		j.expected.Bill.Egress, j.most.Bill.Egress = j.egress, j.egress
		j.k.live = max(j.k.live, j.expected.Machines)
		j.k.most = max(j.k.most, j.expected.Machines)
		expected := math.Max(start.expected+j.expected.Seconds, behind.expected+j.job.Seconds)
		ends[j.f.Name] = end{expected, start.most + j.most.Seconds, start.expected + math.Min(j.expected.Seconds, hardware.Boot+j.job.Seconds)}
		t.Seconds, t.MaxSeconds = math.Max(t.Seconds, ends[j.f.Name].expected), math.Max(t.MaxSeconds, ends[j.f.Name].most)
		bill = bill.Plus(j.expected.Bill)
		mostBill = mostBill.Plus(j.most.Bill)
	}
	seen := map[*pricedKind]bool{}
	for _, j := range jobs {
		if !seen[j.k] {
			seen[j.k] = true
			t.Machines += j.k.live
		}
	}
	t.Bill, t.CostUSD, t.MaxCostUSD = &bill, bill.Total(), mostBill.Total()
	return t, mostBill
}

// describe fills in the functions of a report.
func describe(jobs []*pricedJob, r *planner.Report) {
	for i := range r.Functions {
		f := &r.Functions[i]
		at := slices.IndexFunc(jobs, func(j *pricedJob) bool { return j.f.Name == f.Name })
		if at < 0 {
			continue
		}
		j := jobs[at]
		first := &j.k.selection.Choices[0]
		f.Hardware = planner.ReportHardware{Cloud: "aws", Threads: j.job.Slots, VMType: first.Name, VMTypes: j.k.selection.Types(),
			VCPUs: first.VCPUs, MemoryGiB: float64(first.MemoryMiB) / 1024, GPUs: first.GPUs, Region: j.k.region,
			SpotPolicy: j.k.selection.Request.Market, DiskGB: diskOf(j.k.Hardware, j.k.selection.Choices),
			PricePerHour:         j.k.rates.MachineHour(j.k.machine.Instance, diskOf(j.k.Hardware, j.k.selection.Choices)),
			OnDemandPricePerHour: j.k.rates.MachineHour(first.OnDemand, diskOf(j.k.Hardware, j.k.selection.Choices))}
		if first.GPUs > 0 {
			f.Hardware.GPUModel = first.GPUModel
		}
		f.Estimate = nil
		if j.plan.Tasks >= 0 {
			bill := j.expected.Bill
			f.Estimate = &planner.Estimate{Seconds: j.expected.Seconds, CostUSD: bill.Total(), MaxSeconds: j.most.Seconds, MaxCostUSD: j.most.Bill.Total(),
				Machines: j.expected.Machines, Bill: &bill, Basis: j.basis}
		}
	}
}
