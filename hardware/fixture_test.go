package hardware

import (
	"bufio"
	"compress/gzip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorded is the 1,395 types of us-east-1 as EC2 described them, with the
// table's prices and spot prices that differ by zone.
var recorded = sync.OnceValues(func() (*Catalogue, error) {
	f, err := os.Open("testdata/catalogue.tsv.gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var offers []Offer
	for lines := bufio.NewScanner(z); lines.Scan(); {
		c := strings.Split(lines.Text(), "\t")
		t := Type{Name: c[0], VCPUs: whole(c[1]), MemoryMiB: int64(whole(c[2])), Arch: c[3], GPUs: whole(c[4]), GPUModel: c[5], GPUMaker: c[6],
			GPUMemoryMiB: int64(whole(c[7])), Special: c[8], LocalDiskGB: whole(c[9]), Burstable: strings.Contains(c[10], "b"),
			Previous: strings.Contains(c[10], "p"), BareMetal: strings.Contains(c[10], "m")}
		o := Offer{Type: t, Zones: strings.Split(c[12], "")}
		if !strings.Contains(c[11], "spot") {
			o.OnlyMarket = OnDemand
		}
		Complete(&o, "us-east-1")
		if o.OnlyMarket == "" {
			o.Spot = map[string]float64{}
			for i, zone := range o.Zones {
				o.Spot["us-east-1"+zone] = o.OnDemand * (0.3 + 0.02*float64((len(t.Name)*7+i*3)%11))
			}
		}
		offers = append(offers, o)
	}
	return NewCatalogue("us-east-1", time.Unix(1_790_000_000, 0), offers), nil
})

func whole(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func catalogue(t testing.TB) *Catalogue {
	t.Helper()
	c, err := recorded()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
