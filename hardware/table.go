package hardware

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
)

// TableDate is when the built-in prices were written down. They are the
// on-demand prices of us-east-1 for Linux as best known then, and approximate:
// what the cloud says is always preferred.
const TableDate = "2026-11"

// spotShare is what a spot machine costs of the on-demand price where no spot
// price is known: the discount is about 60 % for most types most of the time.
const spotShare = 0.4

// sizes is a family, types that differ in size alone, whose price and memory grow with
// the number of CPUs.
type sizes struct {
	name  string
	gib   float64 // memory per vCPU
	price float64 // dollars per vCPU and hour
	disk  float64 // GB of local disk per vCPU
	sizes string  // as in the names
	flags string  // a: arm, p: previous generation
}

const (
	intelSizes    = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge"
	newSizes      = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"
	big7Sizes     = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"
	amd7Sizes     = "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge 48xlarge"
	amd6Sizes     = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge 48xlarge"
	armSizes      = "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"
	arm8Sizes     = "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"
	flexSizes     = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"
	oldComputes   = "large xlarge 2xlarge 4xlarge 9xlarge 18xlarge"
	memoryLarge   = "16xlarge 24xlarge 32xlarge"
	storageSizes  = "large xlarge 2xlarge 4xlarge 8xlarge 16xlarge"
	storagePerCPU = 234.375
)

// families is the table; what has other rules follows in odd.
var families = []sizes{
	{"m5", 4, 0.048, 0, intelSizes, "p"}, {"m5a", 4, 0.043, 0, intelSizes, ""}, {"m5d", 4, 0.0565, 37.5, intelSizes, ""},
	{"m5n", 4, 0.0595, 0, intelSizes, ""}, {"m5zn", 4, 0.0826, 0, "large xlarge 2xlarge 3xlarge 6xlarge 12xlarge", ""},
	{"m6i", 4, 0.048, 0, newSizes, "p"}, {"m6a", 4, 0.0432, 0, amd6Sizes, ""}, {"m6id", 4, 0.059325, 59, newSizes, ""},
	{"m6in", 4, 0.069615, 0, newSizes, ""}, {"m6g", 4, 0.0385, 0, armSizes, "a"}, {"m6gd", 4, 0.0452, 59, armSizes, "a"},
	{"m7i", 4, 0.0504, 0, big7Sizes, ""}, {"m7a", 4, 0.05796, 0, amd7Sizes, ""}, {"m7g", 4, 0.0408, 0, armSizes, "a"},
	{"m7gd", 4, 0.0534, 59, armSizes, "a"}, {"m7i-flex", 4, 0.04788, 0, flexSizes, ""}, {"m8g", 4, 0.04488, 0, arm8Sizes, "a"},

	{"c5", 2, 0.0425, 0, oldComputes, "p"}, {"c5a", 2, 0.0385, 0, intelSizes, ""}, {"c5d", 2, 0.048, 25, oldComputes, ""},
	{"c5n", 2.625, 0.054, 0, "large xlarge 2xlarge 4xlarge", ""}, {"c6i", 2, 0.0425, 0, newSizes, ""}, {"c6a", 2, 0.03825, 0, amd6Sizes, ""},
	{"c6id", 2, 0.0504, 59, newSizes, ""}, {"c6in", 2, 0.0567, 0, newSizes, ""}, {"c6g", 2, 0.034, 0, armSizes, "a"},
	{"c6gd", 2, 0.0384, 59, armSizes, "a"}, {"c6gn", 2, 0.0432, 0, armSizes, "ap"}, {"c7i", 2, 0.044625, 0, big7Sizes, ""},
	{"c7a", 2, 0.05132, 0, amd7Sizes, ""}, {"c7g", 2, 0.03625, 0, armSizes, "a"}, {"c7gd", 2, 0.04535, 59, armSizes, "a"},
	{"c7gn", 2, 0.0624, 0, armSizes, "a"}, {"c7i-flex", 2, 0.042395, 0, flexSizes, ""}, {"c8g", 2, 0.03988, 0, arm8Sizes, "a"},

	{"r5", 8, 0.063, 0, intelSizes, "p"}, {"r5a", 8, 0.0565, 0, intelSizes, ""}, {"r5d", 8, 0.072, 37.5, intelSizes, ""},
	{"r5n", 8, 0.0745, 0, intelSizes, ""}, {"r5b", 8, 0.0745, 0, intelSizes, ""}, {"r6i", 8, 0.063, 0, newSizes, "p"},
	{"r6a", 8, 0.0567, 0, amd6Sizes, ""}, {"r6id", 8, 0.0756, 59, newSizes, ""}, {"r6in", 8, 0.087165, 0, newSizes, ""},
	{"r6g", 8, 0.0504, 0, armSizes, "a"}, {"r6gd", 8, 0.0576, 59, armSizes, "a"}, {"r7i", 8, 0.06615, 0, big7Sizes, ""},
	{"r7a", 8, 0.076075, 0, amd7Sizes, ""}, {"r7g", 8, 0.05355, 0, armSizes, "ap"}, {"r7gd", 8, 0.06805, 59, armSizes, "ap"},
	{"r7iz", 8, 0.093, 0, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 32xlarge", ""}, {"r8g", 8, 0.05891, 0, arm8Sizes, "a"},

	{"x2gd", 16, 0.0835, 59, armSizes, "a"}, {"x2idn", 16, 0.1042, 29.6875, memoryLarge, ""},
	{"x2iedn", 32, 0.2084, 29.6875, "xlarge 2xlarge 4xlarge 8xlarge 16xlarge 24xlarge 32xlarge", ""},
	{"i3", 7.625, 0.078, 237.5, storageSizes, ""}, {"i3en", 8, 0.113, 625, "large xlarge 2xlarge 3xlarge 6xlarge 12xlarge 24xlarge", ""},
	{"i4i", 8, 0.0858, storagePerCPU, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge", ""},
	{"i4g", 8, 0.07722, storagePerCPU, storageSizes, "a"}, {"z1d", 8, 0.093, 37.5, "large xlarge 2xlarge 3xlarge 6xlarge 12xlarge", ""},
	{"d3", 8, 0.12475, 1485, "xlarge 2xlarge 4xlarge 8xlarge", ""},
}

// single is a type whose price does not grow with its CPUs.
type single struct {
	name   string
	cpus   int
	gib    float64
	gpus   int
	model  string
	gpuGiB float64
	disk   int
	price  float64
	flags  string // a: arm, b: burstable, o: only on demand, p: previous generation
}

// singles is the burstable types and those with GPUs.
var singles = []single{
	{name: "c5n.9xlarge", cpus: 36, gib: 96, price: 1.944},
	{name: "c5n.18xlarge", cpus: 72, gib: 192, price: 3.888},
	{name: "t2.nano", cpus: 1, gib: 0.5, price: 0.0058, flags: "bo"},
	{name: "t2.micro", cpus: 1, gib: 1, price: 0.0116, flags: "b"},
	{name: "t2.small", cpus: 1, gib: 2, price: 0.023, flags: "b"},
	{name: "t2.medium", cpus: 2, gib: 4, price: 0.0464, flags: "b"},
	{name: "t2.large", cpus: 2, gib: 8, price: 0.0928, flags: "b"},
	{name: "t2.xlarge", cpus: 4, gib: 16, price: 0.1856, flags: "b"},
	{name: "t2.2xlarge", cpus: 8, gib: 32, price: 0.3712, flags: "b"},
	{name: "t3.nano", cpus: 2, gib: 0.5, price: 0.0052, flags: "b"},
	{name: "t3.micro", cpus: 2, gib: 1, price: 0.0104, flags: "b"},
	{name: "t3.small", cpus: 2, gib: 2, price: 0.0208, flags: "b"},
	{name: "t3.medium", cpus: 2, gib: 4, price: 0.0416, flags: "b"},
	{name: "t3.large", cpus: 2, gib: 8, price: 0.0832, flags: "b"},
	{name: "t3.xlarge", cpus: 4, gib: 16, price: 0.1664, flags: "b"},
	{name: "t3.2xlarge", cpus: 8, gib: 32, price: 0.3328, flags: "b"},
	{name: "t3a.nano", cpus: 2, gib: 0.5, price: 0.0047, flags: "b"},
	{name: "t3a.micro", cpus: 2, gib: 1, price: 0.0094, flags: "b"},
	{name: "t3a.small", cpus: 2, gib: 2, price: 0.0188, flags: "b"},
	{name: "t3a.medium", cpus: 2, gib: 4, price: 0.0376, flags: "b"},
	{name: "t3a.large", cpus: 2, gib: 8, price: 0.0752, flags: "b"},
	{name: "t3a.xlarge", cpus: 4, gib: 16, price: 0.1504, flags: "b"},
	{name: "t3a.2xlarge", cpus: 8, gib: 32, price: 0.3008, flags: "b"},
	{name: "t4g.nano", cpus: 2, gib: 0.5, price: 0.0042, flags: "ab"},
	{name: "t4g.micro", cpus: 2, gib: 1, price: 0.0084, flags: "ab"},
	{name: "t4g.small", cpus: 2, gib: 2, price: 0.0168, flags: "ab"},
	{name: "t4g.medium", cpus: 2, gib: 4, price: 0.0336, flags: "ab"},
	{name: "t4g.large", cpus: 2, gib: 8, price: 0.0672, flags: "ab"},
	{name: "t4g.xlarge", cpus: 4, gib: 16, price: 0.1344, flags: "ab"},
	{name: "t4g.2xlarge", cpus: 8, gib: 32, price: 0.2688, flags: "ab"},
	{name: "g4dn.xlarge", cpus: 4, gib: 16, gpus: 1, model: "T4", gpuGiB: 16, disk: 125, price: 0.526, flags: ""},
	{name: "g4dn.2xlarge", cpus: 8, gib: 32, gpus: 1, model: "T4", gpuGiB: 16, disk: 225, price: 0.752, flags: ""},
	{name: "g4dn.4xlarge", cpus: 16, gib: 64, gpus: 1, model: "T4", gpuGiB: 16, disk: 225, price: 1.204, flags: ""},
	{name: "g4dn.8xlarge", cpus: 32, gib: 128, gpus: 1, model: "T4", gpuGiB: 16, disk: 900, price: 2.176, flags: ""},
	{name: "g4dn.12xlarge", cpus: 48, gib: 192, gpus: 4, model: "T4", gpuGiB: 16, disk: 900, price: 3.912, flags: ""},
	{name: "g4dn.16xlarge", cpus: 64, gib: 256, gpus: 1, model: "T4", gpuGiB: 16, disk: 900, price: 4.352, flags: ""},
	{name: "g5.xlarge", cpus: 4, gib: 16, gpus: 1, model: "A10G", gpuGiB: 24, disk: 250, price: 1.006, flags: "p"},
	{name: "g5.2xlarge", cpus: 8, gib: 32, gpus: 1, model: "A10G", gpuGiB: 24, disk: 450, price: 1.212, flags: "p"},
	{name: "g5.4xlarge", cpus: 16, gib: 64, gpus: 1, model: "A10G", gpuGiB: 24, disk: 600, price: 1.624, flags: "p"},
	{name: "g5.8xlarge", cpus: 32, gib: 128, gpus: 1, model: "A10G", gpuGiB: 24, disk: 900, price: 2.448, flags: "p"},
	{name: "g5.12xlarge", cpus: 48, gib: 192, gpus: 4, model: "A10G", gpuGiB: 24, disk: 3800, price: 5.672, flags: "p"},
	{name: "g5.16xlarge", cpus: 64, gib: 256, gpus: 1, model: "A10G", gpuGiB: 24, disk: 1900, price: 4.096, flags: "p"},
	{name: "g5.24xlarge", cpus: 96, gib: 384, gpus: 4, model: "A10G", gpuGiB: 24, disk: 3800, price: 8.144, flags: "p"},
	{name: "g5.48xlarge", cpus: 192, gib: 768, gpus: 8, model: "A10G", gpuGiB: 24, disk: 7600, price: 16.288, flags: "p"},
	{name: "g5g.xlarge", cpus: 4, gib: 8, gpus: 1, model: "T4g", gpuGiB: 16, disk: 0, price: 0.42, flags: "a"},
	{name: "g5g.2xlarge", cpus: 8, gib: 16, gpus: 1, model: "T4g", gpuGiB: 16, disk: 0, price: 0.556, flags: "a"},
	{name: "g5g.4xlarge", cpus: 16, gib: 32, gpus: 1, model: "T4g", gpuGiB: 16, disk: 0, price: 0.828, flags: "a"},
	{name: "g5g.8xlarge", cpus: 32, gib: 64, gpus: 1, model: "T4g", gpuGiB: 16, disk: 0, price: 1.372, flags: "a"},
	{name: "g5g.16xlarge", cpus: 64, gib: 128, gpus: 2, model: "T4g", gpuGiB: 16, disk: 0, price: 2.744, flags: "a"},
	{name: "g6.xlarge", cpus: 4, gib: 16, gpus: 1, model: "L4", gpuGiB: 24, disk: 250, price: 0.8048, flags: ""},
	{name: "g6.2xlarge", cpus: 8, gib: 32, gpus: 1, model: "L4", gpuGiB: 24, disk: 450, price: 0.9776, flags: ""},
	{name: "g6.4xlarge", cpus: 16, gib: 64, gpus: 1, model: "L4", gpuGiB: 24, disk: 600, price: 1.3232, flags: ""},
	{name: "g6.8xlarge", cpus: 32, gib: 128, gpus: 1, model: "L4", gpuGiB: 24, disk: 900, price: 2.0144, flags: ""},
	{name: "g6.12xlarge", cpus: 48, gib: 192, gpus: 4, model: "L4", gpuGiB: 24, disk: 3760, price: 4.6016, flags: ""},
	{name: "g6.16xlarge", cpus: 64, gib: 256, gpus: 1, model: "L4", gpuGiB: 24, disk: 1880, price: 3.3968, flags: ""},
	{name: "g6.24xlarge", cpus: 96, gib: 384, gpus: 4, model: "L4", gpuGiB: 24, disk: 3760, price: 6.6752, flags: ""},
	{name: "g6.48xlarge", cpus: 192, gib: 768, gpus: 8, model: "L4", gpuGiB: 24, disk: 7520, price: 13.3504, flags: ""},
	{name: "g6e.xlarge", cpus: 4, gib: 32, gpus: 1, model: "L40S", gpuGiB: 48, disk: 250, price: 1.861, flags: ""},
	{name: "g6e.2xlarge", cpus: 8, gib: 64, gpus: 1, model: "L40S", gpuGiB: 48, disk: 450, price: 2.24208, flags: ""},
	{name: "g6e.4xlarge", cpus: 16, gib: 128, gpus: 1, model: "L40S", gpuGiB: 48, disk: 600, price: 3.00424, flags: ""},
	{name: "g6e.8xlarge", cpus: 32, gib: 256, gpus: 1, model: "L40S", gpuGiB: 48, disk: 900, price: 4.52856, flags: ""},
	{name: "g6e.12xlarge", cpus: 48, gib: 384, gpus: 4, model: "L40S", gpuGiB: 48, disk: 3800, price: 10.4926, flags: ""},
	{name: "g6e.16xlarge", cpus: 64, gib: 512, gpus: 1, model: "L40S", gpuGiB: 48, disk: 1900, price: 7.57719, flags: ""},
	{name: "g6e.24xlarge", cpus: 96, gib: 768, gpus: 4, model: "L40S", gpuGiB: 48, disk: 3800, price: 15.0656, flags: ""},
	{name: "g6e.48xlarge", cpus: 192, gib: 1536, gpus: 8, model: "L40S", gpuGiB: 48, disk: 7600, price: 30.1312, flags: ""},
	{name: "p3dn.24xlarge", cpus: 96, gib: 768, gpus: 8, model: "V100", gpuGiB: 32, disk: 1800, price: 31.212, flags: ""},
	{name: "p4d.24xlarge", cpus: 96, gib: 1152, gpus: 8, model: "A100", gpuGiB: 40, disk: 8000, price: 21.9576, flags: ""},
	{name: "p5.4xlarge", cpus: 16, gib: 256, gpus: 1, model: "H100", gpuGiB: 80, disk: 3800, price: 6.88, flags: ""},
	{name: "p5.48xlarge", cpus: 192, gib: 2048, gpus: 8, model: "H100", gpuGiB: 80, disk: 30400, price: 55.04, flags: ""},
}

// sizeCPUs is the number of vCPUs behind a size.
func sizeCPUs(size string) int {
	switch size {
	case "medium":
		return 1
	case "large":
		return 2
	case "xlarge":
		return 4
	}
	var n int
	if _, err := fmt.Sscanf(size, "%dxlarge", &n); err != nil {
		return 0
	}
	return 4 * n
}

// known is the table by name, made when it is first needed.
var known = sync.OnceValue(func() map[string]Offer {
	m := make(map[string]Offer, 600)
	add := func(t Type, flags string, price float64) {
		t.Arch = AMD64
		if strings.Contains(flags, "a") {
			t.Arch = ARM64
		}
		t.Burstable, t.Previous = strings.Contains(flags, "b"), strings.Contains(flags, "p")
		if strings.Contains(flags, "o") {
			t.OnlyMarket = OnDemand
		}
		m[t.Name] = Offer{Type: t, OnDemand: math.Round(price*1e6) / 1e6, GuessedOnDemand: true}
	}
	for _, f := range families {
		for _, size := range strings.Fields(f.sizes) {
			n := float64(sizeCPUs(size))
			add(Type{Name: f.name + "." + size, VCPUs: int(n), MemoryMiB: int64(f.gib * n * 1024), LocalDiskGB: int(f.disk * n)}, f.flags, f.price*n)
		}
	}
	for _, s := range singles {
		t := Type{Name: s.name, VCPUs: s.cpus, MemoryMiB: int64(s.gib * 1024), LocalDiskGB: s.disk, GPUs: s.gpus, GPUModel: s.model,
			GPUMemoryMiB: int64(s.gpuGiB * 1024)}
		if s.gpus > 0 {
			t.GPUMaker = nvidia
		}
		add(t, s.flags, s.price)
	}
	return m
})

// BuiltIn is the built-in table for a region: what a plan uses where the cloud
// cannot be asked.
func BuiltIn(region string) *Catalogue {
	f := regionFactor(region)
	offers := make([]Offer, 0, len(known()))
	for _, o := range known() {
		o.OnDemand *= f
		CompleteSpot(&o)
		offers = append(offers, o)
	}
	return NewCatalogue(region, time.Time{}, offers,
		fmt.Sprintf("prices are approximate: the built-in table of %s, spot at %g %% of on-demand", TableDate, spotShare*100))
}

// TypeNamed is a type as the built-in table has it, or with its name alone.
func TypeNamed(name string) Type {
	if o, ok := known()[name]; ok {
		return o.Type
	}
	return Type{Name: name}
}

// Complete fills in the prices that the cloud did not give and marks them as
// guessed.
func Complete(o *Offer, region string) {
	if o.OnDemand == 0 {
		o.OnDemand, o.GuessedOnDemand = guessOnDemand(o.Type, region), true
	}
}

// CompleteSpot does the same for spot prices, for a region that gave none.
func CompleteSpot(o *Offer) {
	if len(o.Spot) == 0 && o.OnlyMarket != OnDemand {
		o.Spot, o.GuessedSpot = map[string]float64{"": o.OnDemand * spotShare}, true
	}
}

// guessOnDemand is the price of a type by the table, by the nearest family in
// it, or by its size.
func guessOnDemand(t Type, region string) float64 {
	f := regionFactor(region)
	if o, ok := known()[t.Name]; ok {
		return o.OnDemand * f
	}
	if sib := sibling(t); sib != nil {
		// A generation costs about 5 % more than the last.
		return sib.price * float64(t.VCPUs) * math.Pow(1.05, float64(max(0, generation(t.Family())-generation(sib.name)))) * f
	}
	// What processors, memory and GPUs cost in most families.
	price := 0.035*float64(max(t.VCPUs, 2)) + 0.006*float64(t.MemoryMiB)/1024
	if t.GPUs > 0 {
		price += float64(t.GPUs) * (0.2 + 0.035*float64(t.GPUMemoryMiB)/1024)
	}
	if t.Special != "" {
		price *= 1.5
	}
	return price * f
}

// sibling is the family of the table with the same letters and the highest
// generation.
func sibling(t Type) *sizes {
	if t.VCPUs == 0 || t.GPUs > 0 || t.Burstable || t.Special != "" {
		return nil
	}
	var best *sizes
	for i := range families {
		f := &families[i]
		if letters(f.name) == letters(t.Family()) && (best == nil || generation(f.name) > generation(best.name)) {
			best = f
		}
	}
	return best
}

// letters is a family's name without its generation: m6gd is "mgd".
func letters(family string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, family)
}

// generation is the number in a family's name.
func generation(family string) int {
	n := 0
	for _, r := range family {
		switch {
		case r >= '0' && r <= '9':
			n = n*10 + int(r-'0')
		case n > 0:
			return n
		}
	}
	return n
}

// factors is what machines cost in other regions, about, of the price in
// us-east-1.
var factors = map[string]float64{
	"us-east-1": 1, "us-east-2": 1, "us-west-2": 1, "us-west-1": 1.17, "ca-central-1": 1.11, "ca-west-1": 1.11,
	"eu-west-1": 1.115, "eu-west-2": 1.16, "eu-west-3": 1.17, "eu-central-1": 1.2, "eu-central-2": 1.32, "eu-north-1": 1.06,
	"eu-south-1": 1.17, "eu-south-2": 1.115, "ap-south-1": 1.05, "ap-south-2": 1.05, "ap-southeast-1": 1.25, "ap-southeast-2": 1.25,
	"ap-southeast-3": 1.25, "ap-northeast-1": 1.29, "ap-northeast-2": 1.23, "ap-northeast-3": 1.29, "ap-east-1": 1.375,
	"sa-east-1": 1.59, "me-south-1": 1.23, "me-central-1": 1.23, "af-south-1": 1.32, "il-central-1": 1.25,
	"us-gov-west-1": 1.26, "us-gov-east-1": 1.26,
}

func regionFactor(region string) float64 {
	if f, ok := factors[region]; ok {
		return f
	}
	if region == "" {
		return 1
	}
	return 1.3
}
