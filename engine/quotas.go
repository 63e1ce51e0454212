package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// quotaWant is the virtual CPUs that a plan wants of a group of types that
// share a limit of the account.
type quotaWant struct {
	region, class, market string
	instanceType          string // one of them
	vcpus                 int
	extra                 float64 // dollars per hour and CPU that on demand costs more
}

// quotaWants adds up what kinds of machines want.
type quotaWants []*quotaWant

func (w *quotaWants) add(region, market string, first *hardware.Choice, machines int, spot float64) {
	class := first.QuotaClass()
	i := slices.IndexFunc(*w, func(g *quotaWant) bool { return g.region == region && g.class == class && g.market == market })
	if i < 0 {
		i = len(*w)
		*w = append(*w, &quotaWant{region: region, class: class, instanceType: first.Name, market: market})
	}
	g := (*w)[i]
	g.vcpus += machines * first.VCPUs
	g.extra = max(g.extra, (first.OnDemand-spot)/float64(max(first.VCPUs, 1)))
}

// quotas says which limits of the account are in the way of what is wanted. all
// says whether each could be read.
func (e *Engine) quotas(ctx context.Context, wants quotaWants) (warnings []string, all bool) {
	if e.AWS == nil || e.AWS.Quota == nil {
		return nil, false
	}
	quotas := make([][2]*Quota, len(wants)) // on demand, spot
	err := together(2*len(wants), func(i int) error {
		g := wants[i/2]
		q, err := e.AWS.Quota(ctx, g.region, g.instanceType, i%2 == 1)
		quotas[i/2][i%2] = q
		return err
	})
	for i, g := range wants {
		if text := quotaWarning(g.market, g.vcpus, g.extra, quotas[i][1], quotas[i][0]); text != "" {
			warnings = append(warnings, text)
		}
	}
	// Without the right to read them the launch will tell.
	return warnings, err == nil
}

// planQuotas is quotas for the machines of an estimate.
func (e *Engine) planQuotas(ctx context.Context, kinds []*pricedKind) []string {
	var wants quotaWants
	for _, k := range kinds {
		wants.add(k.region, k.selection.Request.Market, &k.selection.Choices[0], k.most, k.machine.Instance)
	}
	warnings, _ := e.quotas(ctx, wants)
	return warnings
}

// quotaPatience is how long a run waits to be told of limits before it rents.
const quotaPatience = 2 * time.Second

// askQuotas begins to read the limits for what a run is about to rent. The func
// that it returns waits for the answer, but not for long, and tells the quote.
func (e *Engine) askQuotas(ctx context.Context, p *Planned, q *Quote) func() {
	if q.quotas || e.AWS.Quota == nil {
		return func() {}
	}
	var wants quotaWants
	for i := range q.Kinds {
		k := &q.Kinds[i]
		first := &k.choices[0]
		spot, _ := first.CheapestSpot()
		market := hardware.RequestOf(k.kind.Hardware).Market
		if spot == 0 || market == hardware.OnDemand {
			spot = first.OnDemand
		}
		wants.add(k.Region, market, first, worthRenting(p, k), spot)
	}
	ctx, stop := context.WithTimeout(ctx, quotaPatience)
	type answer struct {
		warnings []string
		all      bool
	}
	came := make(chan answer, 1)
	go func() {
		warnings, all := e.quotas(ctx, wants)
		came <- answer{warnings, all}
	}()
	return func() {
		defer stop()
		select {
		case a := <-came:
			q.Warnings, q.quotas = a.warnings, a.all
		case <-ctx.Done():
		}
	}
}

// worthRenting is how many machines of a kind the run would rent at once: where
// the file says how long tasks take, no more than these are worth.
func worthRenting(p *Planned, k *QuoteKind) int {
	most := 0
	for _, plan := range p.Plan.Functions {
		if !slices.Contains(k.Functions, plan.Name) {
			continue
		}
		i := slices.IndexFunc(p.Pipeline.Functions, func(f *spec.Function) bool { return f.Name == plan.Name })
		f := p.Pipeline.Functions[i]
		if f.Expect == 0 || plan.Tasks < 0 {
			return k.Most
		}
		h := k.kind.Hardware
		most = max(most, hardware.Job{Tasks: plan.Tasks, Slots: k.choices[0].Slots(h.Threads), Concurrency: f.Concurrency,
			Min: h.Workers[0], Max: h.Workers[1]}.MachinesFor(f.Expect.Seconds()))
	}
	return min(most, k.Most)
}

// quotaWarning compares what a plan wants with what the account may start.
func quotaWarning(market string, want int, extra float64, spot, demand *Quota) string {
	first := spot
	if market == hardware.OnDemand {
		first = demand
	}
	if first == nil || want <= first.VCPUs {
		return ""
	}
	what := map[bool]string{true: "on-demand", false: "spot"}[market == hardware.OnDemand]
	have, text := first.VCPUs, fmt.Sprintf("your account may start %d %s vCPUs; this plan wants %d: ", first.VCPUs, what, want)
	raise := "raise " + first.Code
	if first.Link != "" {
		raise += " at " + first.Link
	}
	if market == hardware.SpotWithFallback && demand != nil && demand.VCPUs > 0 {
		have += demand.VCPUs
		if want <= have {
			return fmt.Sprintf("%s%s, or %d of them are rented on demand, for about $%.2f an hour more", text, raise, want-first.VCPUs, extra*float64(want-first.VCPUs))
		}
		text = fmt.Sprintf("your account may start %d spot vCPUs and %d on-demand ones; this plan wants %d: ", first.VCPUs, demand.VCPUs, want)
	}
	if have == 0 {
		return text + raise + ", or it cannot start"
	}
	return text + raise + ", or it will take " + times(float64(want)/float64(have)) + " longer"
}

// times is a factor for people: 26 times, 1.5 times.
func times(f float64) string {
	if f >= 2 {
		return fmt.Sprintf("%d times", int(f))
	}
	return fmt.Sprintf("%.1f times", f)
}
