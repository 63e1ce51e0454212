package hardware

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// sieve says which types a request leaves out.
type sieve struct {
	r       Request
	cpu     [2]float64 // with the next size that exists
	gpus    int        // the same
	oldGPUs bool       // the model asked for is only found in earlier generations
	// spotPrices: the catalogue has some, so that no price means that a type
	// cannot be had.
	spotPrices bool
	models     []string
	notes      []string
	c          *Catalogue
}

func newSieve(r Request, c *Catalogue) *sieve {
	e := &sieve{r: r, cpu: r.CPU, gpus: r.GPUs, c: c}
	current := false
	for i := range c.Offers {
		o := &c.Offers[i]
		if o.GPUs > 0 && o.GPUMaker == nvidia && !slices.Contains(e.models, o.GPUModel) {
			e.models = append(e.models, o.GPUModel)
		}
		e.spotPrices = e.spotPrices || len(o.Spot) > 0
		current = current || e.sameGPU(o) && !o.Previous
	}
	e.oldGPUs = r.Model != "" && !current
	if e.gpus > 0 {
		e.gpus = int(e.next(float64(e.gpus), "GPUs", func(o *Offer) float64 { return float64(o.GPUs) }))
	}
	if e.cpu[0] == e.cpu[1] && e.cpu[0] > 0 {
		n := e.next(e.cpu[0], "CPUs", func(o *Offer) float64 { return float64(o.VCPUs) })
		e.cpu = [2]float64{n, n}
	}
	return e
}

// next is the smallest number not below n that a type has which is right in
// all else but size.
func (e *sieve) next(n float64, what string, of func(*Offer) float64) float64 {
	best := math.Inf(1)
	for i := range e.c.Offers {
		if o := &e.c.Offers[i]; of(o) >= n && of(o) < best && e.sort(o) == "" && e.sameGPU(o) {
			best = of(o)
		}
	}
	if math.IsInf(best, 1) {
		return n
	}
	if best > n && n >= 1 {
		if n == 1 {
			what = strings.TrimSuffix(what, "s")
		}
		e.notes = append(e.notes, fmt.Sprintf("no type has %s %s: %s is the next number", number(n), what, number(best)))
	}
	return best
}

// sameGPU says that a type has the kind of GPU that is asked for, or none if
// none is.
func (e *sieve) sameGPU(o *Offer) bool {
	if e.r.GPUs == 0 {
		return o.GPUs == 0
	}
	return o.GPUs > 0 && o.GPUMaker == nvidia && (e.r.Model == "" || gpuKey(e.r.Model) == gpuKey(o.GPUModel))
}

const nvidia = "NVIDIA"

// reject says why a type does not do; "" if it does.
func (e *sieve) reject(o *Offer) string {
	if why := e.sort(o); why != "" {
		return why
	}
	switch {
	case e.r.GPUs == 0 && o.GPUs > 0:
		return "has GPUs, which nobody asked for"
	case !e.sameGPU(o):
		return "has no such GPU"
	case e.gpus > 0 && o.GPUs < e.gpus:
		return "has too few GPUs"
	case e.gpus > 0 && o.GPUs > e.gpus:
		return "has more GPUs"
	case float64(o.VCPUs) < e.cpu[0]:
		return "has too few CPUs"
	case e.cpu[1] > 0 && float64(o.VCPUs) > e.cpu[1]:
		return "has more CPUs"
	case e.r.Limit > 0 && o.VCPUs > e.r.Limit:
		return "has more CPUs than limits.vcpus allows"
	case o.MemoryMiB<<20 < e.r.Memory[0]:
		return "has too little memory"
	case e.r.Memory[1] > 0 && o.MemoryMiB<<20 > e.r.Memory[1]:
		return "has more memory"
	}
	return ""
}

// sort says why a type does not do, whatever its size.
func (e *sieve) sort(o *Offer) string {
	switch {
	case o.Arch != e.r.Arch:
		return "is " + o.Arch
	case o.BareMetal:
		return "is bare metal, which takes minutes to start; name it in vm_type to have it"
	case o.Special != "":
		return "is special (" + o.Special + "); name it in vm_type to have it"
	case o.Burstable || family("t", o):
		return "is burstable, slow when its credits are used up; name it in vm_type to have it"
	case o.Previous && !(e.oldGPUs && o.GPUs > 0):
		return "is of a previous generation; name it in vm_type to have it"
	case family("hpc", o), family("u", o):
		return "is for single large computations, with a quota of its own; name it in vm_type to have it"
	case e.r.Market == OnDemand && o.OnlyMarket == Spot:
		return "is only rented as spot"
	case e.r.Market == Spot && (o.OnlyMarket == OnDemand || e.spotPrices && len(o.Spot) == 0):
		return "cannot be had as spot here"
	}
	return ""
}

// family says that a type's family is these letters and a number. EC2 does not
// mark all burstable types as such.
func family(letters string, o *Offer) bool {
	rest, ok := strings.CutPrefix(o.Name, letters)
	return ok && rest != "" && (rest[0] >= '0' && rest[0] <= '9' || rest[0] == '-')
}

// nothing explains why no type is left.
func (e *sieve) nothing(left []LeftOut) error {
	text := fmt.Sprintf("no instance type of %s has %s", e.c.Region, e.r)
	if e.r.Model != "" && !slices.ContainsFunc(e.models, func(m string) bool { return gpuKey(m) == gpuKey(e.r.Model) }) {
		slices.Sort(e.models)
		return fmt.Errorf("%s: there is no GPU %s here, but there are %s", text, e.r.Model, strings.Join(e.models, ", "))
	}
	near := e.nearest()
	if near != nil && e.r.Limit > 0 && near.VCPUs > e.r.Limit {
		return fmt.Errorf("%s: %s has %d; raise limits.vcpus", text, near.Name, near.VCPUs)
	}
	if near != nil {
		text += fmt.Sprintf("; %s comes nearest with %d CPUs and %s GiB", near.Name, near.VCPUs, gib(near.MemoryMiB<<20))
		if near.GPUs > 0 {
			text += fmt.Sprintf(" and %d x %s", near.GPUs, near.GPUModel)
		}
		text += "; ask for that, or for a range: cpu: [lo, hi], memory: [lo, hi]"
	} else if len(left) > 0 {
		text += "; most types are left out because each " + left[0].Reason
	}
	return fmt.Errorf("%s", text)
}

// nearest is the type of the right sort whose size is least away from what is
// asked for.
func (e *sieve) nearest() *Offer {
	var best *Offer
	least := math.Inf(1)
	away := func(have, lo, hi float64) float64 {
		switch {
		case have < lo:
			return 2 * math.Log2(lo/math.Max(have, 1e-9)) // too little is worse than too much
		case hi > 0 && have > hi:
			return math.Log2(have / hi)
		}
		return 0
	}
	for i := range e.c.Offers {
		o := &e.c.Offers[i]
		if e.sort(o) != "" || !e.sameGPU(o) {
			continue
		}
		d := away(float64(o.VCPUs), e.cpu[0], e.cpu[1]) + away(float64(o.MemoryMiB<<20), float64(e.r.Memory[0]), float64(e.r.Memory[1])) +
			away(float64(o.GPUs), float64(e.gpus), float64(e.gpus))
		if d < least || d == least && best != nil && better(o, best, rankPrice(e.r, o), rankPrice(e.r, best)) < 0 {
			best, least = o, d
		}
	}
	return best
}
