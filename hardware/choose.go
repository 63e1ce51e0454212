package hardware

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

const (
	// maxChoices is how many types one request to launch may name with good sense.
	maxChoices = 60
	// dearest is how many times the price of the cheapest type the others may
	// cost: further types make it likelier to get spot machines, but not at any
	// price.
	dearest = 2.0
)

// Choice is a type that satisfies a request.
type Choice struct {
	Offer
	// Price is the dollars per hour of the instance by which it was ranked; 0:
	// not known.
	Price float64 `json:"price"`
	Zone  string  `json:"zone,omitempty"` // where a spot machine costs that
	Why   string  `json:"why"`
}

// LeftOut is why some types were not chosen.
type LeftOut struct {
	Reason string `json:"reason"`
	Types  int    `json:"types"` // how many
	// Example is the cheapest of them.
	Example string  `json:"example"`
	Price   float64 `json:"price,omitempty"` // its price
}

// Selection is the answer to a request.
type Selection struct {
	Request Request   `json:"-"`
	Choices []Choice  `json:"choices"` // cheapest first, never empty
	LeftOut []LeftOut `json:"left_out"`
	Notes   []string  `json:"notes,omitempty"`
}

// Types is the names of the choices, best first.
func (s *Selection) Types() []string {
	names := make([]string, len(s.Choices))
	for i, c := range s.Choices {
		names[i] = c.Name
	}
	return names
}

// Choose finds the types of a catalogue that satisfy a request, cheapest
// first. The error says what comes near where there is none.
func Choose(r Request, c *Catalogue) (*Selection, error) {
	s := &Selection{Request: r}
	if len(r.Types) > 0 {
		return s.named(c)
	}
	e := newSieve(r, c)
	price := make([]float64, len(c.Offers))
	reason := make([]string, len(c.Offers))
	var fit []int
	for i := range c.Offers {
		o := &c.Offers[i]
		price[i] = rankPrice(r, o)
		if reason[i] = e.reject(o); reason[i] == "" {
			fit = append(fit, i)
		}
	}
	slices.SortFunc(fit, func(a, b int) int { return better(&c.Offers[a], &c.Offers[b], price[a], price[b]) })
	for n, i := range fit {
		switch {
		case n >= maxChoices:
			reason[i] = fmt.Sprintf("%d cheaper ones are enough", maxChoices)
		case n > 0 && price[i] > dearest*price[fit[0]] && price[fit[0]] > 0:
			reason[i] = fmt.Sprintf("costs more than %g times as much as %s", dearest, c.Offers[fit[0]].Name)
		default:
			s.add(&c.Offers[i], price[i])
		}
	}
	s.LeftOut = summary(c, reason, price)
	s.Notes = e.notes
	if len(s.Choices) == 0 {
		return nil, e.nothing(s.LeftOut)
	}
	return s, nil
}

// named takes the types that the request names, whatever they are.
func (s *Selection) named(c *Catalogue) (*Selection, error) {
	r := s.Request
	var fit []*Offer
	var large *Offer // a type that limits.vcpus forbids
	for _, name := range r.Types {
		o := c.Offer(name)
		switch {
		case o == nil && len(c.Offers) > 0:
			return nil, unknownType(name, c)
		case o == nil:
			return nil, fmt.Errorf("vm_type %s: nothing is known about the types of %s", name, c.Region)
		case r.Arch != "" && o.Arch != r.Arch:
			return nil, fmt.Errorf("vm_type %s is %s, not %s: leave out arm, or name another type", name, o.Arch, r.Arch)
		case r.Limit > 0 && o.VCPUs > r.Limit:
			large = o
		case len(fit) > 0 && fit[0].Arch != o.Arch:
			return nil, fmt.Errorf("vm_type names types of two architectures, %s (%s) and %s (%s): a run's software is built for one",
				fit[0].Name, fit[0].Arch, name, o.Arch)
		case !slices.Contains(fit, o):
			fit = append(fit, o)
		}
	}
	if len(fit) == 0 && large != nil {
		return nil, fmt.Errorf("vm_type %s has %d vCPUs, more than limits.vcpus of %d allows", large.Name, large.VCPUs, r.Limit)
	}
	slices.SortStableFunc(fit, func(a, b *Offer) int { return better(a, b, rankPrice(r, a), rankPrice(r, b)) })
	for _, o := range fit {
		s.add(o, rankPrice(r, o))
		if r.Market == Spot && o.OnlyMarket == OnDemand {
			return nil, fmt.Errorf("vm_type %s cannot be rented as spot: set spot_policy: on-demand", o.Name)
		}
		s.Choices[len(s.Choices)-1].Why = "named in vm_type"
		if !r.satisfied(o) {
			s.Notes = append(s.Notes, fmt.Sprintf("%s is not what cpu, memory and gpu ask for: vm_type counts", o.Name))
		}
	}
	return s, nil
}

// satisfied says whether a type has what is asked for, if anything is.
func (r Request) satisfied(o *Offer) bool {
	cpus, memory := float64(o.VCPUs), o.MemoryMiB<<20
	return cpus >= r.CPU[0] && (r.CPU[1] == 0 || cpus <= math.Ceil(r.CPU[1])) && memory >= r.Memory[0] && (r.Memory[1] == 0 || memory <= r.Memory[1]) &&
		o.GPUs >= r.GPUs && (r.Model == "" || gpuKey(r.Model) == gpuKey(o.GPUModel))
}

func (s *Selection) add(o *Offer, price float64) {
	c := Choice{Offer: *o, Price: price}
	if s.Request.spot() {
		if p, zone := o.CheapestSpot(); p > 0 {
			c.Zone = zone
		}
	}
	switch first := s.first(); {
	case first == nil && price > 0:
		c.Why = "the cheapest that satisfies it"
	case first == nil:
		c.Why = "the smallest that satisfies it; its price is not known"
	case price > first.Price && first.Price > 0:
		c.Why = fmt.Sprintf("%.0f %% more than %s", math.Ceil((price/first.Price-1)*100), first.Name)
	default:
		c.Why = "costs the same as " + first.Name
	}
	s.Choices = append(s.Choices, c)
}

func (s *Selection) first() *Choice {
	if len(s.Choices) == 0 {
		return nil
	}
	return &s.Choices[0]
}

// rankPrice is the price by which an offer is compared; 0: not known.
func rankPrice(r Request, o *Offer) float64 {
	if r.spot() {
		if p, _ := o.CheapestSpot(); p > 0 {
			return p
		}
	}
	return o.OnDemand
}

// better orders by price; what has no price comes last. Among equals the one
// that is cheaper on demand, then the smaller one wins.
func better(a, b *Offer, pa, pb float64) int {
	known := func(p float64) int {
		if p > 0 {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(known(pa), known(pb)), cmp.Compare(pa, pb),
		cmp.Compare(known(a.OnDemand), known(b.OnDemand)), cmp.Compare(a.OnDemand, b.OnDemand),
		cmp.Compare(a.VCPUs, b.VCPUs), cmp.Compare(a.MemoryMiB, b.MemoryMiB), strings.Compare(a.Name, b.Name))
}

// summary counts the reasons, in order of how near their cheapest type was.
func summary(c *Catalogue, reason []string, price []float64) []LeftOut {
	at := map[string]int{}
	list := []LeftOut{}
	for i, why := range reason {
		if why == "" {
			continue
		}
		n, ok := at[why]
		if !ok {
			n = len(list)
			at[why] = n
			list = append(list, LeftOut{Reason: why, Example: c.Offers[i].Name, Price: price[i]})
		}
		list[n].Types++
		if p := price[i]; p > 0 && (list[n].Price == 0 || p < list[n].Price) {
			list[n].Price, list[n].Example = p, c.Offers[i].Name
		}
	}
	slices.SortStableFunc(list, func(a, b LeftOut) int {
		return cmp.Or(cmp.Compare(b.Types, a.Types), strings.Compare(a.Reason, b.Reason))
	})
	return list
}

func unknownType(name string, c *Catalogue) error {
	names := make([]string, len(c.Offers))
	for i := range c.Offers {
		names[i] = c.Offers[i].Name
	}
	where := c.Region + " has no such type"
	if c.At.IsZero() {
		where = "the built-in table has no such type"
	}
	hint := ""
	if near := spec.Suggest(name, names); near != "" {
		hint = " (did you mean " + near + "?)"
	}
	return fmt.Errorf("vm_type %s: %s%s", name, where, hint)
}
