package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/coiled-jobs/coiled-jobs/hardware"
)

// pricesEvery is how often the prices of a region are looked at anew while a
// run rents machines there.
const pricesEvery = 10 * time.Minute

// priceBook knows what machines cost, by region: at first what was known when
// they were chosen, and soon what the cloud says. It never keeps anybody waiting.
type priceBook struct {
	regions map[string]*atomic.Pointer[hardware.Catalogue]
}

// newPriceBook begins with what a run recorded.
func newPriceBook(rec *fleetRecord) *priceBook {
	b := &priceBook{regions: map[string]*atomic.Pointer[hardware.Catalogue]{}}
	offers := map[string]map[string]hardware.Offer{}
	for _, k := range rec.Kinds {
		if offers[k.Region] == nil {
			offers[k.Region] = map[string]hardware.Offer{}
		}
		for _, c := range k.Choices {
			offers[k.Region][c.Name] = c.Offer
		}
	}
	for region, by := range offers {
		list := make([]hardware.Offer, 0, len(by))
		for _, o := range by {
			list = append(list, o)
		}
		b.regions[region] = &atomic.Pointer[hardware.Catalogue]{}
		b.regions[region].Store(hardware.NewCatalogue(region, time.Time{}, list))
	}
	return b
}

// pricesAfter is how long prices are not looked at after the start: what they
// were when machines were chosen is good, and the cloud has these to launch.
const pricesAfter = 10 * time.Second

// follow keeps the prices up to date until ctx ends.
func (b *priceBook) follow(ctx context.Context, read func(ctx context.Context, region string) (*hardware.Catalogue, error)) {
	if read == nil {
		return
	}
	first := time.NewTimer(pricesAfter)
	defer first.Stop()
	select {
	case <-ctx.Done():
		return
	case <-first.C:
	}
	t := time.NewTicker(pricesEvery)
	defer t.Stop()
	for {
		for region, known := range b.regions {
			// What cannot be read costs what it did.
			if c, err := read(ctx, region); err == nil {
				known.Store(c)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// price is the dollars per hour of a machine with its disk and its address;
// zone "": where it is dearest.
func (b *priceBook) price(region, instanceType, zone string, spot bool, diskGB int) float64 {
	c := b.catalogue(region)
	if zone == "" {
		return c.MachineMost(instanceType, spot, diskGB)
	}
	return c.MachinePrice(instanceType, zone, spot, diskGB)
}

// catalogue is what is known of a region now.
func (b *priceBook) catalogue(region string) *hardware.Catalogue {
	if known := b.regions[region]; known != nil {
		return known.Load()
	}
	return hardware.BuiltIn(region)
}
