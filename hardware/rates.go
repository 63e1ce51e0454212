package hardware

import (
	"math"
	"strings"
	"time"
)

// Rates is what things cost beside instances, in dollars.
type Rates struct {
	DiskGBMonth float64 // gp3
	AddressHour float64 // a public IPv4 address
	StorePuts   float64 // per 1000 PUT, POST, LIST of S3
	StoreGets   float64 // per 1000 GET
	QueueCalls  float64 // per million requests of SQS
}

const (
	// MinBilled is the shortest time that is billed of a machine.
	MinBilled = time.Minute
	// DefaultDiskGB is the root disk of a machine where nothing else is said.
	DefaultDiskGB = 30
	// InternetGB is the price of a GB that leaves the cloud.
	InternetGB = 0.09

	hoursPerMonth = 730
)

// RatesOf is the rates of a region; they hardly differ, and are those of
// us-east-1 times the region's factor where they do.
func RatesOf(region string) Rates {
	f := regionFactor(region)
	return Rates{DiskGBMonth: 0.08 * f, AddressHour: 0.005, StorePuts: 0.005 * f, StoreGets: 0.0004 * f, QueueCalls: 0.40}
}

// DiskHour is what a root disk costs an hour; 0 GB is the default size.
func (r Rates) DiskHour(gb int) float64 {
	if gb <= 0 {
		gb = DefaultDiskGB
	}
	return float64(gb) * r.DiskGBMonth / hoursPerMonth
}

// MachineHour is an hour of a machine with its disk and its address.
func (r Rates) MachineHour(instance float64, diskGB int) float64 {
	return instance + r.DiskHour(diskGB) + r.AddressHour
}

// Requests is the price of S3 and SQS requests.
func (r Rates) Requests(puts, gets, queue float64) float64 {
	return puts/1000*r.StorePuts + gets/1000*r.StoreGets + queue/1e6*r.QueueCalls
}

// TransferGB is what it costs to move a GB from one region to another; "" as a
// region is outside the cloud. Data that comes in is free.
func TransferGB(from, to string) float64 {
	switch {
	case from == to, from == "":
		return 0
	case to == "":
		return math.Max(InternetGB, leaving(from))
	case pair(from, to, "us-east-1", "us-east-2"):
		return 0.01
	}
	return leaving(from)
}

// leaving is what a GB costs that goes from a region to another one, about, as
// of Prices.
func leaving(region string) float64 {
	for _, l := range []struct {
		prefix string
		price  float64
	}{
		{"us-gov-", 0.03}, {"us-", 0.02}, {"ca-", 0.02}, {"eu-", 0.02}, {"mx-", 0.02},
		{"ap-south-", 0.086}, {"ap-southeast-2", 0.098}, {"ap-southeast-4", 0.10}, {"ap-northeast-2", 0.08},
		{"ap-", 0.09}, {"sa-", 0.138}, {"af-", 0.147}, {"me-", 0.1105}, {"il-", 0.08}, {"cn-", 0.09},
	} {
		if strings.HasPrefix(region, l.prefix) {
			return l.price
		}
	}
	return 0.02
}

func pair(a, b, x, y string) bool { return a == x && b == y || a == y && b == x }
