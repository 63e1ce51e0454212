package hardware

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

const giB = 1 << 30

func about(bytes float64) [2]int64 {
	return [2]int64{int64(bytes * 0.9), int64(math.Ceil(bytes * 1.1))}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		h     spec.Hardware
		first string // the cheapest
		has   []string
		not   []string
		every func(Choice) bool
	}{
		{name: "nothing asked", h: spec.Hardware{SpotPolicy: "on-demand"}, first: "c6a.large",
			every: func(c Choice) bool { return c.VCPUs == 2 && c.Arch == AMD64 }, not: []string{"t3.large", "t8i.large", "c5.large", "c6g.large"}},
		{name: "cpu and memory", h: spec.Hardware{CPU: [2]float64{4, 4}, Memory: about(16 * giB), SpotPolicy: "on-demand"}, first: "m5a.xlarge",
			has: []string{"m7i.xlarge", "m6a.xlarge"}, not: []string{"m5.xlarge", "m6i.xlarge", "g4dn.xlarge"},
			every: func(c Choice) bool { return c.VCPUs == 4 && c.MemoryMiB == 16<<10 }},
		{name: "memory alone", h: spec.Hardware{Memory: about(64 * giB), SpotPolicy: "on-demand"}, first: "r5a.2xlarge",
			every: func(c Choice) bool { return c.MemoryMiB >= 58<<10 && c.MemoryMiB <= 70<<10 }},
		{name: "ranges", h: spec.Hardware{CPU: [2]float64{8, 16}, Memory: [2]int64{30 * giB, 70 * giB}, SpotPolicy: "on-demand"}, first: "m5a.2xlarge",
			every: func(c Choice) bool {
				return c.VCPUs >= 8 && c.VCPUs <= 16 && c.MemoryMiB >= 30<<10 && c.MemoryMiB <= 70<<10
			}},
		{name: "arm", h: spec.Hardware{ARM: true, SpotPolicy: "on-demand"}, first: "c6g.large", not: []string{"c6a.large", "t4g.large", "c6gn.large"},
			every: func(c Choice) bool { return c.Arch == ARM64 && c.VCPUs == 2 }},
		{name: "gpu: true", h: spec.Hardware{GPU: 1, GPUModel: "T4", SpotPolicy: "on-demand"}, first: "g4dn.xlarge",
			has: []string{"g4dn.2xlarge"}, not: []string{"g4dn.12xlarge", "g5g.xlarge", "g6.xlarge"}, every: func(c Choice) bool { return c.GPUs == 1 && c.GPUModel == "T4" }},
		{name: "count of GPUs", h: spec.Hardware{GPU: 4, SpotPolicy: "on-demand"}, first: "g4dn.12xlarge", every: func(c Choice) bool { return c.GPUs == 4 }},
		{name: "three GPUs", h: spec.Hardware{GPU: 3, SpotPolicy: "on-demand"}, first: "g4dn.12xlarge", every: func(c Choice) bool { return c.GPUs == 4 }},
		{name: "model with its maker", h: spec.Hardware{GPU: 1, GPUModel: "nvidia-l4", SpotPolicy: "on-demand"}, first: "g6.xlarge",
			has: []string{"g6.2xlarge"}, not: []string{"g6e.xlarge", "g6f.large"}},
		{name: "model of a previous generation only", h: spec.Hardware{GPU: 1, GPUModel: "A10G", SpotPolicy: "on-demand"}, first: "g5.xlarge"},
		{name: "model beside ARM only", h: spec.Hardware{GPU: 1, GPUModel: "T4g", SpotPolicy: "on-demand"}, first: "g5g.xlarge"},
		{name: "half a CPU", h: spec.Hardware{CPU: [2]float64{0.5, 0.5}, SpotPolicy: "on-demand"}, every: func(c Choice) bool { return c.VCPUs == 1 }, first: "c7a.medium"},
		{name: "three CPUs", h: spec.Hardware{CPU: [2]float64{3, 3}, SpotPolicy: "on-demand"}, first: "c6a.xlarge", every: func(c Choice) bool { return c.VCPUs == 4 }},
		{name: "named burstable", h: spec.Hardware{VMTypes: []string{"t3.large"}}, first: "t3.large"},
		{name: "named previous generations", h: spec.Hardware{VMTypes: []string{"m6i.xlarge", "m5.xlarge", "c4.large"}, SpotPolicy: "on-demand"}, first: "c4.large", has: []string{"m5.xlarge", "m6i.xlarge"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := Choose(RequestOf(c.h), catalogue(t))
			if err != nil {
				t.Fatal(err)
			}
			types := s.Types()
			if types[0] != c.first {
				t.Errorf("first is %s of %v, want %s", types[0], types, c.first)
			}
			for _, name := range c.has {
				if !slices.Contains(types, name) {
					t.Errorf("%s is not in %v", name, types)
				}
			}
			for _, name := range c.not {
				if slices.Contains(types, name) {
					t.Errorf("%s is in %v", name, types)
				}
			}
			for _, ch := range s.Choices {
				if c.every != nil && !c.every(ch) {
					t.Errorf("%+v does not satisfy it", ch.Type)
				}
				if ch.Why == "" {
					t.Errorf("%s has no reason", ch.Name)
				}
			}
			if len(types) > maxChoices {
				t.Errorf("%d types", len(types))
			}
		})
	}
}

func TestChooseSpotByItsPrice(t *testing.T) {
	t.Parallel()
	c := NewCatalogue("us-east-1", time.Unix(1_790_000_000, 0), []Offer{
		{Type: Type{Name: "m7i.large", VCPUs: 2, MemoryMiB: 8192, Arch: AMD64}, OnDemand: 0.10, Spot: map[string]float64{"us-east-1a": 0.05, "us-east-1b": 0.07}},
		{Type: Type{Name: "m7a.large", VCPUs: 2, MemoryMiB: 8192, Arch: AMD64}, OnDemand: 0.11, Spot: map[string]float64{"us-east-1b": 0.04}},
		{Type: Type{Name: "c7x.large", VCPUs: 2, MemoryMiB: 8192, Arch: AMD64}, OnDemand: 0.09},
	})
	for market, want := range map[string]string{
		Spot: "m7a.large m7i.large", OnDemand: "c7x.large m7i.large m7a.large", SpotWithFallback: "m7a.large m7i.large",
	} {
		s, err := Choose(RequestOf(spec.Hardware{SpotPolicy: market}), c)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.Types(), " "); got != want {
			t.Errorf("%s: %s, want %s", market, got, want)
		}
		if market == Spot && (s.Choices[0].Zone != "us-east-1b" || s.Choices[0].Price != 0.04) {
			t.Errorf("first is %+v", s.Choices[0])
		}
	}
}

// A limit on the CPUs of all machines leaves out what would never fit: no launch
// that may give such a machine would be made.
func TestChooseWithinALimitOfCPUs(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	for _, x := range []struct {
		h     spec.Hardware
		limit int
		most  int // CPUs of any choice
		err   string
	}{
		{spec.Hardware{Memory: about(256 * giB)}, 0, 64, ""},
		{spec.Hardware{Memory: about(256 * giB)}, 40, 32, ""},
		{spec.Hardware{Memory: about(256 * giB)}, 8, 8, ""},
		{spec.Hardware{CPU: [2]float64{4, 4}}, 2, 0, "no instance type of us-east-1 has 4 CPUs, x86_64, within limits.vcpus of 2"},
		{spec.Hardware{VMTypes: []string{"m6i.xlarge"}}, 2, 0, "vm_type m6i.xlarge has 4 vCPUs, more than limits.vcpus of 2 allows"},
		{spec.Hardware{VMTypes: []string{"m6i.xlarge", "m6i.2xlarge"}}, 4, 4, ""},
	} {
		r := RequestOf(x.h)
		r.Market, r.Limit = OnDemand, x.limit
		s, err := Choose(r, c)
		if x.err != "" {
			if err == nil || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%+v: %v, want %q", x, err, x.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		most := 0
		for _, ch := range s.Choices {
			most = max(most, ch.VCPUs)
		}
		if most != x.most {
			t.Errorf("%s: up to %d CPUs, want %d", r, most, x.most)
		}
	}
}

// Who names a type and also says what it should have is told where the two differ.
func TestNamedTypesThatDiffer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		h    spec.Hardware
		want bool
	}{
		{spec.Hardware{VMTypes: []string{"m6i.large"}}, true},
		{spec.Hardware{VMTypes: []string{"m6i.large"}, CPU: [2]float64{2, 2}, Memory: about(8 * giB)}, true},
		{spec.Hardware{VMTypes: []string{"m6i.large"}, CPU: [2]float64{1.5, 1.5}}, true},
		{spec.Hardware{VMTypes: []string{"g4dn.xlarge"}, GPU: 1, GPUModel: "T4"}, true},
		{spec.Hardware{VMTypes: []string{"m6i.large"}, CPU: [2]float64{8, 8}}, false},
		{spec.Hardware{VMTypes: []string{"m6i.large"}, Memory: about(32 * giB)}, false},
		{spec.Hardware{VMTypes: []string{"m6i.large"}, GPU: 1, GPUModel: "T4"}, false},
	} {
		s, err := Choose(RequestOf(c.h), catalogue(t))
		if err != nil {
			t.Fatal(err)
		}
		if (len(s.Notes) == 0) != c.want || !c.want && s.Notes[0] != "m6i.large is not what cpu, memory and gpu ask for: vm_type counts" {
			t.Errorf("%+v: %q", c.h, s.Notes)
		}
	}
}

// Where only the limit is in the way, it is what there is to change.
func TestLimitInTheWay(t *testing.T) {
	t.Parallel()
	r := RequestOf(spec.Hardware{})
	r.Limit = 1
	if _, err := Choose(r, catalogue(t)); err == nil || !strings.Contains(err.Error(), "raise limits.vcpus") || strings.Contains(err.Error(), "ask for that") {
		t.Errorf("%v", err)
	}
}

func TestChooseErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		h    spec.Hardware
		want []string
	}{
		"no such type":      {spec.Hardware{VMTypes: []string{"m6i.xlrge"}}, []string{"vm_type m6i.xlrge", "us-east-1 has no such type", "did you mean m6i.xlarge?"}},
		"wrong processor":   {spec.Hardware{VMTypes: []string{"m6i.large"}, ARM: true}, []string{"m6i.large is x86_64, not arm64"}},
		"two processors":    {spec.Hardware{VMTypes: []string{"m6i.large", "m6g.large"}}, []string{"two architectures", "m6g.large (arm64)"}},
		"too much memory":   {spec.Hardware{CPU: [2]float64{2, 2}, Memory: about(512 * giB)}, []string{"no instance type of us-east-1 has 2 CPUs, 460.8-563.2 GiB", "comes nearest"}},
		"between the sizes": {spec.Hardware{CPU: [2]float64{4, 4}, Memory: about(20 * giB)}, []string{"18-22 GiB", "comes nearest with", "memory: [lo, hi]"}},
		"no such GPU":       {spec.Hardware{GPU: 1, GPUModel: "RTX4090"}, []string{"no GPU RTX4090 here", "L40S", "T4"}},
		"no spot":           {spec.Hardware{VMTypes: []string{"mac2.metal"}, SpotPolicy: "spot"}, []string{"cannot be rented as spot"}},
	} {
		_, err := Choose(RequestOf(c.h), catalogue(t))
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
	}
}

func TestLeftOutSaysWhy(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	s, err := Choose(RequestOf(spec.Hardware{CPU: [2]float64{4, 4}, Memory: about(16 * giB)}), c)
	if err != nil {
		t.Fatal(err)
	}
	n, reasons := len(s.Choices), ""
	for _, l := range s.LeftOut {
		n += l.Types
		reasons += l.Reason + "\n"
		if l.Types == 0 || c.Offer(l.Example) == nil {
			t.Errorf("%+v", l)
		}
	}
	if n != len(c.Offers) {
		t.Errorf("%d types are chosen or explained, of %d", n, len(c.Offers))
	}
	for _, want := range []string{"is arm64", "is burstable", "previous generation", "bare metal", "has too few CPUs", "has GPUs, which nobody asked for"} {
		if !strings.Contains(reasons, want) {
			t.Errorf("no word of %q in\n%s", want, reasons)
		}
	}
}

func TestLargerAfterOutOfMemory(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	for _, h := range []spec.Hardware{
		{VMTypes: []string{"m6i.xlarge"}}, {CPU: [2]float64{4, 4}, Memory: about(16 * giB)}, {Memory: [2]int64{8 * giB, 16 * giB}}, {ARM: true}, {VMTypes: []string{"g4dn.xlarge"}},
	} {
		before, err := Choose(RequestOf(h), c)
		if err != nil {
			t.Fatal(err)
		}
		after, err := Choose(RequestOf(h).Larger(c, 32*giB), c)
		if err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		for _, ch := range after.Choices {
			if ch.MemoryMiB < 32<<10 || ch.Arch != before.Choices[0].Arch || ch.GPUs != before.Choices[0].GPUs || ch.Burstable || ch.Previous {
				t.Errorf("%+v: %+v", h, ch.Type)
			}
		}
	}
}

// What is chosen satisfies the request, and nothing that does is cheaper. The
// test says for itself what satisfying is.
func TestChoiceIsTheCheapestThatSatisfies(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	rapid.Check(t, func(t *rapid.T) {
		h := spec.Hardware{SpotPolicy: rapid.SampledFrom([]string{Spot, OnDemand, SpotWithFallback}).Draw(t, "market"), ARM: rapid.Bool().Draw(t, "arm")}
		if rapid.Bool().Draw(t, "cpu") {
			lo := rapid.SampledFrom([]float64{1, 2, 4, 8, 16, 48}).Draw(t, "lo")
			h.CPU = [2]float64{lo, lo * rapid.SampledFrom([]float64{1, 2, 4}).Draw(t, "span")}
		}
		if rapid.Bool().Draw(t, "memory") {
			lo := rapid.Int64Range(1, 512).Draw(t, "GiB") * giB
			h.Memory = [2]int64{lo, lo + rapid.Int64Range(0, 256).Draw(t, "more")*giB}
		}
		if !h.ARM && rapid.IntRange(0, 3).Draw(t, "gpu") == 0 {
			// A number that no such type has would mean the next one.
			gpu := rapid.SampledFrom([]spec.Hardware{{GPU: 1}, {GPU: 4}, {GPU: 8}, {GPU: 1, GPUModel: "T4"}, {GPU: 4, GPUModel: "L4"}, {GPU: 8, GPUModel: "A100"}}).Draw(t, "gpus")
			h.GPU, h.GPUModel = gpu.GPU, gpu.GPUModel
		}
		if h.GPU > 0 && h.CPU[0] == h.CPU[1] {
			h.CPU[1] *= 2 // likewise
		}
		arch := map[bool]string{true: ARM64, false: AMD64}[h.ARM]
		if h.CPU == [2]float64{} && h.Memory == [2]int64{} && h.GPU == 0 {
			h.CPU = [2]float64{2, 2}
		}
		satisfies := func(o *Offer) bool {
			cpus, memory := float64(o.VCPUs), o.MemoryMiB<<20
			return o.Arch == arch && !o.Burstable && !strings.HasPrefix(o.Name, "t8i.") && !o.Previous && !o.BareMetal && o.Special == "" && o.GPUs == h.GPU &&
				!strings.HasPrefix(o.Name, "hpc") && !strings.HasPrefix(o.Name, "u") &&
				(h.GPUModel == "" || o.GPUModel == h.GPUModel) && (h.SpotPolicy != Spot || len(o.Spot) > 0) &&
				(h.CPU[1] == 0 || cpus >= h.CPU[0] && cpus <= h.CPU[1]) &&
				(h.Memory[1] == 0 || memory >= h.Memory[0] && memory <= h.Memory[1])
		}
		cheapest := math.Inf(1)
		for i := range c.Offers {
			if o := &c.Offers[i]; satisfies(o) {
				p := o.OnDemand
				if spot, _ := o.CheapestSpot(); h.SpotPolicy != OnDemand && spot > 0 {
					p = spot
				}
				cheapest = math.Min(cheapest, p)
			}
		}
		s, err := Choose(RequestOf(h), c)
		if err != nil {
			if !math.IsInf(cheapest, 1) {
				t.Fatalf("%v, but there is one for $%v", err, cheapest)
			}
			return
		}
		if s.Choices[0].Price != cheapest {
			t.Fatalf("%s costs $%v, the cheapest $%v", s.Choices[0].Name, s.Choices[0].Price, cheapest)
		}
		last := 0.0
		for _, ch := range s.Choices {
			if !satisfies(&ch.Offer) {
				t.Fatalf("%+v does not satisfy %+v", ch.Type, h)
			}
			if ch.Price < last || ch.Price > dearest*cheapest+1e-9 {
				t.Fatalf("%s for $%v after $%v, the cheapest $%v", ch.Name, ch.Price, last, cheapest)
			}
			last = ch.Price
		}
	})
}

// Choosing among all types of a region is to take less than 50 ms.
func BenchmarkChoose(b *testing.B) {
	c := catalogue(b)
	for b.Loop() {
		chooseOnce(b, c)
	}
}

func chooseOnce(b testing.TB, c *Catalogue) {
	if _, err := Choose(RequestOf(spec.Hardware{CPU: [2]float64{2, 16}, Memory: [2]int64{4 * giB, 64 * giB}}), c); err != nil {
		b.Fatal(err)
	}
}
