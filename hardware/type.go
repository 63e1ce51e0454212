package hardware

import (
	"slices"
	"sort"
	"strings"
	"time"
)

// The architectures, as EC2 calls them.
const (
	AMD64 = "x86_64"
	ARM64 = "arm64"
)

// The two ways to rent.
const (
	OnDemand         = "on-demand"
	Spot             = "spot"
	SpotWithFallback = "spot_with_fallback"
)

// Type is a sort of machine.
type Type struct {
	Name      string `json:"name"`
	VCPUs     int    `json:"vcpus"`
	MemoryMiB int64  `json:"memory_mib"`
	Arch      string `json:"arch"` // x86_64 or arm64
	// GPUs is the number of whole GPUs, of GPUModel ("T4"), each with
	// GPUMemoryMiB.
	GPUs         int    `json:"gpus,omitempty"`
	GPUModel     string `json:"gpu_model,omitempty"`
	GPUMaker     string `json:"gpu_maker,omitempty"`
	GPUMemoryMiB int64  `json:"gpu_memory_mib,omitempty"`
	// Special is what else it has that is paid for and has a quota of its own:
	// "inference", "FPGA", "media", "part of a GPU".
	Special     string `json:"special,omitempty"`
	LocalDiskGB int    `json:"local_disk_gb,omitempty"`
	Burstable   bool   `json:"burstable,omitempty"`
	Previous    bool   `json:"previous,omitempty"` // of an earlier generation
	BareMetal   bool   `json:"bare_metal,omitempty"`
	OnlyMarket  string `json:"only_market,omitempty"` // on-demand or spot, where it is rented in one way only
}

// Family is the part of the name before the dot.
func (t *Type) Family() string {
	family, _, _ := strings.Cut(t.Name, ".")
	return family
}

// Size is the part of the name behind the dot.
func (t *Type) Size() string {
	_, size, _ := strings.Cut(t.Name, ".")
	return size
}

// Slots is how many tasks run at a time on it, by threads_per_worker.
func (t *Type) Slots(threads int) int {
	switch {
	case threads > 0:
		return threads
	case threads < 0:
		return max(t.VCPUs, 1)
	}
	return 1
}

// Offer is a type with where it is to be had and for how much.
type Offer struct {
	Type
	Zones    []string           `json:"zones,omitempty"`     // empty: not known
	OnDemand float64            `json:"on_demand,omitempty"` // dollars per hour; 0: not known
	Spot     map[string]float64 `json:"spot,omitempty"`      // dollars per hour by zone; "" is any zone
	// GuessedOnDemand and GuessedSpot: the price is not from the cloud but from
	// what is built in, or derived.
	GuessedOnDemand bool `json:"guessed_on_demand,omitempty"`
	GuessedSpot     bool `json:"guessed_spot,omitempty"`
}

// CheapestSpot is the lowest spot price and its zone; 0 if there is none.
func (o *Offer) CheapestSpot() (price float64, zone string) {
	for z, p := range o.Spot {
		if p > 0 && (price == 0 || p < price || p == price && z < zone) {
			price, zone = p, z
		}
	}
	return price, zone
}

// Price is what an hour of the instance alone costs, in a zone (or the
// cheapest, if zone is "" or has no price of its own). 0: not known.
func (o *Offer) Price(zone string, spot bool) float64 {
	if !spot {
		return o.OnDemand
	}
	if p := o.Spot[zone]; p > 0 {
		return p
	}
	p, _ := o.CheapestSpot()
	return p
}

// Catalogue is what a region has. It is not changed after it was made.
type Catalogue struct {
	Region string    `json:"region"`
	At     time.Time `json:"at"` // when prices were read; zero: built in
	Offers []Offer   `json:"offers"`
	// Notes say what of it is not from the cloud, and why.
	Notes []string `json:"notes,omitempty"`
}

// Offer finds a type; nil if the region does not have it.
func (c *Catalogue) Offer(name string) *Offer {
	i := sort.Search(len(c.Offers), func(i int) bool { return c.Offers[i].Name >= name })
	if i < len(c.Offers) && c.Offers[i].Name == name {
		return &c.Offers[i]
	}
	return nil
}

// NewCatalogue sorts offers by name, so that Offer finds them.
func NewCatalogue(region string, at time.Time, offers []Offer, notes ...string) *Catalogue {
	slices.SortFunc(offers, func(a, b Offer) int { return strings.Compare(a.Name, b.Name) })
	return &Catalogue{Region: region, At: at, Offers: offers, Notes: notes}
}

// MachinePrice is the all-in price of an hour of a machine: the instance, its
// root disk and its public address. zone may be "". A type that is not in the
// catalogue costs what the built-in table says, so that a budget never counts
// a machine as free.
func (c *Catalogue) MachinePrice(name, zone string, spot bool, diskGB int) float64 {
	rates := RatesOf(c.Region)
	o := c.Offer(name)
	if o == nil {
		t := TypeNamed(name)
		return rates.MachineHour(guessOnDemand(t, c.Region), diskGB)
	}
	price := o.Price(zone, spot)
	if price == 0 {
		price = o.OnDemand // a spot machine never costs more
	}
	if price == 0 {
		price = guessOnDemand(o.Type, c.Region)
	}
	return rates.MachineHour(price, diskGB)
}

// MachineMost is the same in the zone where it is dearest: what a machine of the
// type may cost, wherever it turns up.
func (c *Catalogue) MachineMost(name string, spot bool, diskGB int) float64 {
	most := c.MachinePrice(name, "", spot, diskGB)
	if o := c.Offer(name); o != nil && spot {
		for zone := range o.Spot {
			most = max(most, c.MachinePrice(name, zone, true, diskGB))
		}
	}
	return most
}

// QuotaClass is the group of families with which a type shares a quota of
// vCPUs: Standard, G, P, X, F, Inf, Trn, HPC, DL, HighMem, Mac.
func (t *Type) QuotaClass() string {
	family := t.Family()
	if i := strings.IndexAny(family, "0123456789-"); i > 0 {
		family = family[:i]
	}
	switch family {
	case "a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z":
		return "Standard"
	case "g", "gr", "vt":
		return "G"
	case "p":
		return "P"
	case "x":
		return "X"
	case "f":
		return "F"
	case "inf":
		return "Inf"
	case "trn":
		return "Trn"
	case "hpc":
		return "HPC"
	case "dl":
		return "DL"
	case "u":
		return "HighMem"
	case "mac":
		return "Mac"
	}
	return "Standard"
}
