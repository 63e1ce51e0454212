package hardware

import (
	"math"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// What the built-in table says of types is what EC2 says of them.
func TestTableIsRight(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	for name, have := range known() {
		o := c.Offer(name)
		if o == nil {
			t.Errorf("%s does not exist", name)
			continue
		}
		got, want := have.Type, o.Type
		// The table rounds these.
		if math.Abs(float64(got.LocalDiskGB-want.LocalDiskGB)) > 0.3*float64(want.LocalDiskGB)+20 {
			t.Errorf("%s: %d GB of local disk, want %d", name, got.LocalDiskGB, want.LocalDiskGB)
		}
		if math.Abs(float64(got.GPUMemoryMiB-want.GPUMemoryMiB)) > 0.1*float64(want.GPUMemoryMiB) {
			t.Errorf("%s: %d MiB on the GPU, want %d", name, got.GPUMemoryMiB, want.GPUMemoryMiB)
		}
		got.LocalDiskGB, got.GPUMemoryMiB, want.LocalDiskGB, want.GPUMemoryMiB = 0, 0, 0, 0
		if got != want {
			t.Errorf("%s: the table has\n%+v, EC2\n%+v", name, got, want)
		}
	}
	if len(known()) < 300 {
		t.Errorf("the table has only %d types", len(known()))
	}
}

func TestBuiltInPrices(t *testing.T) {
	t.Parallel()
	us, eu := BuiltIn("us-east-1"), BuiltIn("eu-central-1")
	for name, want := range map[string]float64{"m6i.xlarge": 0.192, "c7g.medium": 0.03625, "t3.large": 0.0832, "g4dn.xlarge": 0.526, "r5.24xlarge": 6.048} {
		if got := us.Offer(name).OnDemand; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s costs $%v, want $%v", name, got, want)
		}
		if got := eu.Offer(name).OnDemand; got <= want || got > 1.5*want {
			t.Errorf("%s costs $%v in eu-central-1 and $%v in us-east-1", name, got, want)
		}
	}
	for _, h := range []spec.Hardware{{}, {ARM: true}, {GPU: 1, GPUModel: "T4"}, {CPU: [2]float64{16, 16}}, {Memory: about(64 * giB)}} {
		s, err := Choose(RequestOf(h), us)
		if err != nil {
			t.Errorf("%+v: %v", h, err)
		} else if s.Choices[0].Price <= 0 {
			t.Errorf("%+v: %+v has no price", h, s.Choices[0])
		}
	}
}

// A type that nobody knows the price of is never free, and not absurd.
func TestGuessedPrices(t *testing.T) {
	t.Parallel()
	for _, o := range catalogue(t).Offers {
		p := guessOnDemand(o.Type, "us-east-1")
		floor, roof := 0.004*float64(o.VCPUs)/2, 2.0*float64(o.VCPUs)+2*float64(o.MemoryMiB)/1024*0.01+1
		if o.GPUs == 0 && (p < floor || p > roof) {
			t.Errorf("%s: $%v, between $%v and $%v", o.Name, p, floor, roof)
		}
		if p <= 0 || math.IsNaN(p) || math.IsInf(p, 0) {
			t.Errorf("%s: $%v", o.Name, p)
		}
	}
	if a, b := guessOnDemand(Type{Name: "m9g.large", VCPUs: 2, MemoryMiB: 8192}, ""), guessOnDemand(Type{Name: "m8g.large", VCPUs: 2}, ""); a <= b || a > 1.1*b {
		t.Errorf("m9g.large $%v, m8g.large $%v", a, b)
	}
}

func TestMachinePrice(t *testing.T) {
	t.Parallel()
	c := NewCatalogue("us-east-1", time.Unix(1_790_000_000, 0), []Offer{
		{Type: Type{Name: "a.large"}, OnDemand: 0.1, Spot: map[string]float64{"us-east-1a": 0.03, "us-east-1b": 0.05}},
		{Type: Type{Name: "b.large"}, OnDemand: 0.2},
		{Type: Type{Name: "c.large", VCPUs: 2}},
	})
	// 73 GB of gp3 cost $0.008 an hour, the address $0.005.
	for _, k := range []struct {
		name, zone string
		spot       bool
		want       float64
	}{
		{"a.large", "us-east-1a", true, 0.043}, {"a.large", "us-east-1b", true, 0.063}, {"a.large", "us-east-1c", true, 0.043},
		{"a.large", "", false, 0.113}, {"b.large", "us-east-1a", true, 0.213},
	} {
		if got := c.MachinePrice(k.name, k.zone, k.spot, 73); math.Abs(got-k.want) > 1e-9 {
			t.Errorf("%+v: $%v", k, got)
		}
	}
	for _, name := range []string{"c.large", "nobody.knows"} {
		if got := c.MachinePrice(name, "", true, 0); got < 0.05 {
			t.Errorf("%s: $%v", name, got)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		want     float64
	}{
		{"us-east-1", "us-east-1", 0}, {"us-east-1", "us-west-2", 0.02}, {"us-east-1", "us-east-2", 0.01}, {"us-east-2", "us-east-1", 0.01},
		{"sa-east-1", "us-east-1", 0.138}, {"us-east-1", "sa-east-1", 0.02}, {"us-east-1", "", 0.09}, {"sa-east-1", "", 0.138}, {"", "us-east-1", 0},
	} {
		if got := TransferGB(c.from, c.to); got != c.want {
			t.Errorf("%q to %q: $%v, want $%v", c.from, c.to, got, c.want)
		}
	}
	if got := RatesOf("us-east-1").Requests(1000, 10_000, 1e6); math.Abs(got-(0.005+0.004+0.4)) > 1e-9 {
		t.Errorf("requests cost $%v", got)
	}
}

func TestQuotaClass(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"m6i.large": "Standard", "t3.micro": "Standard", "im4gn.large": "Standard", "c7i-flex.large": "Standard", "g4dn.xlarge": "G", "gr6.4xlarge": "G",
		"p4d.24xlarge": "P", "p6-b200.48xlarge": "P", "x2gd.large": "X", "u-6tb1.metal": "HighMem", "u7i-12tb.224xlarge": "HighMem", "inf2.xlarge": "Inf",
		"trn1.2xlarge": "Trn", "hpc7a.12xlarge": "HPC", "vt1.3xlarge": "G", "f2.6xlarge": "F", "dl2q.24xlarge": "DL", "mac-m4.metal": "Mac",
	} {
		if got := (&Type{Name: name}).QuotaClass(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
