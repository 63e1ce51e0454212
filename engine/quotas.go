package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// quotaWant is what a kind of machines wants of the account.
type quotaWant struct {
	region, market string
	machines       int
	choices        []hardware.Choice
}

// quotaShare is the virtual CPUs that a plan wants of a group of types that
// share a limit of the account.
type quotaShare struct {
	region, class, market string
	instanceType          string  // the largest of them
	vcpus, each           int     // in all, and of that type
	extra                 float64 // dollars per hour and CPU that on demand costs more
}

// limits is what an account may start of a group of types; nil: not known.
type limits struct{ spot, demand *Quota }

// add puts machines of a type to those of its group.
func add(list []*quotaShare, w *quotaWant, c *hardware.Choice) []*quotaShare {
	class := c.QuotaClass()
	i := slices.IndexFunc(list, func(g *quotaShare) bool { return g.region == w.region && g.class == class && g.market == w.market })
	if i < 0 {
		i = len(list)
		list = append(list, &quotaShare{region: w.region, class: class, market: w.market})
	}
	g := list[i]
	g.vcpus += w.machines * c.VCPUs
	if c.VCPUs > g.each {
		g.each, g.instanceType = c.VCPUs, c.Name
	}
	if spot, _ := c.CheapestSpot(); spot > 0 && w.market != hardware.OnDemand {
		g.extra = max(g.extra, (c.OnDemand-spot)/float64(max(c.VCPUs, 1)))
	}
	return list
}

// quotas says which limits of the account are in the way of what is wanted. all
// says whether each could be read.
func (e *Engine) quotas(ctx context.Context, wants []quotaWant) (warnings []string, all bool) {
	if e.AWS == nil || e.AWS.Quota == nil {
		return nil, false
	}
	// The choices of a kind may be of several groups, each with its own limits.
	var groups []*quotaShare
	for i := range wants {
		seen := map[string]bool{}
		for j := range wants[i].choices {
			if c := &wants[i].choices[j]; !seen[c.QuotaClass()] {
				seen[c.QuotaClass()] = true
				groups = add(groups, &wants[i], c)
			}
		}
	}
	read := make([]limits, len(groups))
	err := together(2*len(groups), func(i int) error {
		g := groups[i/2]
		q, err := e.AWS.Quota(ctx, g.region, g.instanceType, i%2 == 1)
		if i%2 == 1 {
			read[i/2].spot = q
		} else {
			read[i/2].demand = q
		}
		return err
	})
	limitsOf := func(region string, c *hardware.Choice) limits {
		return read[slices.IndexFunc(groups, func(g *quotaShare) bool { return g.region == region && g.class == c.QuotaClass() })]
	}
	var shares []*quotaShare
	for i := range wants {
		w := &wants[i]
		first := &w.choices[0]
		c := first
		if j := slices.IndexFunc(w.choices, func(x hardware.Choice) bool { return fits(w.market, x.VCPUs, limitsOf(w.region, &x)) }); j >= 0 {
			c = &w.choices[j]
		}
		if c.QuotaClass() != first.QuotaClass() {
			q := limitsOf(w.region, first)
			if w.market == hardware.OnDemand {
				q.spot = q.demand
			}
			warnings = append(warnings, fmt.Sprintf("your account may start no %s, the cheapest choice; %s and others like it are rented, at $%.4f an hour where it is $%.4f: %s",
				first.Name, c.Name, c.Price, first.Price, raise(q.spot)))
		}
		shares = add(shares, w, c)
	}
	for _, g := range shares {
		i := slices.IndexFunc(groups, func(x *quotaShare) bool { return x.region == g.region && x.class == g.class })
		if text := quotaWarning(g.market, g.vcpus, g.each, g.extra, read[i].spot, read[i].demand); text != "" {
			warnings = append(warnings, text)
		}
	}
	// Without the right to read them the launch will tell.
	return warnings, err == nil
}

// fits says whether limits allow a machine with so many CPUs. What is not known
// does not forbid it.
func fits(market string, vcpus int, l limits) bool {
	spot, demand := l.spot == nil || vcpus <= l.spot.VCPUs, l.demand == nil || vcpus <= l.demand.VCPUs
	switch market {
	case hardware.OnDemand:
		return demand
	case hardware.Spot:
		return spot
	}
	return spot || demand
}

// raise says how a limit is raised.
func raise(q *Quota) string {
	text := "raise " + q.Code
	if q.Link != "" {
		text += " at " + q.Link
	}
	return text
}

// planQuotas is quotas for the machines of an estimate.
func (e *Engine) planQuotas(ctx context.Context, kinds []*pricedKind) []string {
	var wants []quotaWant
	for _, k := range kinds {
		wants = append(wants, quotaWant{k.region, k.selection.Request.Market, k.most, k.selection.Choices})
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
	var wants []quotaWant
	for i := range q.Kinds {
		k := &q.Kinds[i]
		wants = append(wants, quotaWant{k.Region, hardware.RequestOf(k.kind.Hardware).Market, worthRenting(p, k), k.choices})
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

// quotaWarning compares what a plan wants with what the account may start. each
// is the CPUs of one machine, the largest.
func quotaWarning(market string, want, each int, extra float64, spot, demand *Quota) string {
	first := spot
	if market == hardware.OnDemand {
		first = demand
	}
	if first == nil || want <= first.VCPUs {
		return ""
	}
	what := map[bool]string{true: "on-demand", false: "spot"}[market == hardware.OnDemand]
	have, text := first.VCPUs, fmt.Sprintf("your account may start %d %s vCPUs; this plan wants %d: ", first.VCPUs, what, want)
	raise := raise(first)
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
	if !fits(market, each, limits{spot, demand}) {
		return fmt.Sprintf("%s%s, or it cannot start: a machine has %d", text, raise, each)
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
