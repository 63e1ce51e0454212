package aws

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/pricing"
	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// lists is EC2 and the price list with two types in pages of one.
type lists struct {
	ec2Err, spotErr, priceErr error
	calls                     atomic.Int64
	demand                    string
}

var twoTypes = []types.InstanceTypeInfo{
	{InstanceType: "m7i.large", CurrentGeneration: aws.Bool(true), VCpuInfo: &types.VCpuInfo{DefaultVCpus: aws.Int32(2)},
		MemoryInfo: &types.MemoryInfo{SizeInMiB: aws.Int64(8192)}, ProcessorInfo: &types.ProcessorInfo{SupportedArchitectures: []types.ArchitectureType{"i386", "x86_64"}},
		SupportedUsageClasses: []types.UsageClassType{"on-demand", "spot"}},
	{InstanceType: "g4dn.xlarge", CurrentGeneration: aws.Bool(true), VCpuInfo: &types.VCpuInfo{DefaultVCpus: aws.Int32(4)},
		MemoryInfo: &types.MemoryInfo{SizeInMiB: aws.Int64(16384)}, ProcessorInfo: &types.ProcessorInfo{SupportedArchitectures: []types.ArchitectureType{"x86_64"}},
		GpuInfo: &types.GpuInfo{Gpus: []types.GpuDeviceInfo{{Name: aws.String("T4"), Manufacturer: aws.String("NVIDIA"), Count: aws.Int32(1),
			MemoryInfo: &types.GpuDeviceMemoryInfo{SizeInMiB: aws.Int32(16384)}}}},
		InstanceStorageInfo: &types.InstanceStorageInfo{TotalSizeInGB: aws.Int64(125)}, SupportedUsageClasses: []types.UsageClassType{"on-demand"}},
	{InstanceType: "m9i.large", CurrentGeneration: aws.Bool(true)}, // described, but not in the region
}

func (l *lists) DescribeInstanceTypes(_ context.Context, in *ec2.DescribeInstanceTypesInput, _ ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error) {
	l.calls.Add(1)
	if l.ec2Err != nil {
		return nil, l.ec2Err
	}
	n := len(aws.ToString(in.NextToken))
	out := &ec2.DescribeInstanceTypesOutput{InstanceTypes: twoTypes[n : n+1]}
	if n+1 < len(twoTypes) {
		out.NextToken = aws.String(strings.Repeat("x", n+1))
	}
	return out, nil
}

func (l *lists) DescribeInstanceTypeOfferings(context.Context, *ec2.DescribeInstanceTypeOfferingsInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypeOfferingsOutput, error) {
	l.calls.Add(1)
	return &ec2.DescribeInstanceTypeOfferingsOutput{InstanceTypeOfferings: []types.InstanceTypeOffering{
		{InstanceType: "m7i.large", Location: aws.String("us-east-1b")}, {InstanceType: "m7i.large", Location: aws.String("us-east-1a")},
		{InstanceType: "g4dn.xlarge", Location: aws.String("us-east-1a")},
	}}, l.ec2Err
}

func (l *lists) DescribeSpotPriceHistory(ctx context.Context, in *ec2.DescribeSpotPriceHistoryInput, _ ...func(*ec2.Options)) (*ec2.DescribeSpotPriceHistoryOutput, error) {
	l.calls.Add(1)
	if l.spotErr != nil {
		return nil, l.spotErr
	}
	if len(in.Filters) > 0 {
		// One zone: those of the other are not in the answer.
		zone := in.Filters[0].Values[0]
		out, err := l.DescribeSpotPriceHistory(ctx, &ec2.DescribeSpotPriceHistoryInput{NextToken: in.NextToken})
		if err == nil {
			out.SpotPriceHistory = slices.DeleteFunc(out.SpotPriceHistory, func(p types.SpotPrice) bool { return *p.AvailabilityZone != zone })
		}
		return out, err
	}
	at := func(price, zone string, minutes int) types.SpotPrice {
		return types.SpotPrice{InstanceType: "m7i.large", SpotPrice: aws.String(price), AvailabilityZone: aws.String(zone),
			Timestamp: aws.Time(time.Unix(int64(60*minutes), 0))}
	}
	if in.NextToken == nil {
		return &ec2.DescribeSpotPriceHistoryOutput{SpotPriceHistory: []types.SpotPrice{at("0.0400", "us-east-1a", 5), at("0.0300", "us-east-1b", 5)}, NextToken: aws.String("2")}, nil
	}
	return &ec2.DescribeSpotPriceHistoryOutput{SpotPriceHistory: []types.SpotPrice{at("0.9", "us-east-1a", 1), at("0.0350", "us-east-1b", 9), at("odd", "us-east-1b", 10)}, NextToken: aws.String("")}, nil
}

func (l *lists) GetProducts(_ context.Context, in *pricing.GetProductsInput, _ ...func(*pricing.Options)) (*pricing.GetProductsOutput, error) {
	l.calls.Add(1)
	if l.priceErr != nil {
		return nil, l.priceErr
	}
	if len(in.Filters) < 7 {
		return nil, fmt.Errorf("%d filters: that is more than Linux on shared hosts", len(in.Filters))
	}
	entry := `{"product":{"productFamily":"Compute Instance","attributes":{"instanceType":%q,"operatingSystem":"Linux"}},"serviceCode":"AmazonEC2",` +
		`"terms":{"OnDemand":{"X.JRTCKXETXF":{"priceDimensions":{"X.JRTCKXETXF.6YS6EN2CT7":{"unit":"Hrs","pricePerUnit":{%q:%q}}}}}}}`
	if in.NextToken == nil {
		return &pricing.GetProductsOutput{PriceList: []string{fmt.Sprintf(entry, "m7i.large", "USD", l.demand), "broken"}, NextToken: aws.String("2")}, nil
	}
	return &pricing.GetProductsOutput{PriceList: []string{fmt.Sprintf(entry, "g4dn.xlarge", "CNY", "7.1000000000")}}, nil
}

func reader(l *lists, dir string, at time.Time) *catalogueReader {
	return &catalogueReader{o: CatalogueOptions{Dir: dir}, region: "us-east-1", suffix: "-us-east-1.json", now: func() time.Time { return at }, ec2: l, prices: l,
		ready: func(context.Context) error { return nil }}
}

func readCatalogue(t *testing.T, r *catalogueReader) *hardware.Catalogue {
	t.Helper()
	c, err := r.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCatalogue(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_790_000_000, 0)
	l := &lists{demand: "0.1008000000"}
	dir := filepath.Join(t.TempDir(), "deep", "er")
	c := readCatalogue(t, reader(l, dir, start))
	m, g := c.Offer("m7i.large"), c.Offer("g4dn.xlarge")
	if len(c.Offers) != 2 || m == nil || g == nil || len(c.Notes) != 0 || !c.At.Equal(start) {
		t.Fatalf("%+v", c)
	}
	if m.OnDemand != 0.1008 || m.GuessedOnDemand || m.Arch != hardware.AMD64 || m.VCPUs != 2 || m.MemoryMiB != 8192 || strings.Join(m.Zones, " ") != "us-east-1a us-east-1b" {
		t.Errorf("%+v", m)
	}
	if m.Spot["us-east-1a"] != 0.04 || m.Spot["us-east-1b"] != 0.035 {
		t.Errorf("spot: %v", m.Spot)
	}
	if g.OnDemand != 1 || g.GPUs != 1 || g.GPUModel != "T4" || g.GPUMemoryMiB != 16384 || g.LocalDiskGB != 125 || g.OnlyMarket != hardware.OnDemand || len(g.Spot) != 0 {
		t.Errorf("%+v", g)
	}

	// What is new enough is not asked for again, by another process either.
	asked := l.calls.Load()
	if again := readCatalogue(t, reader(l, dir, start.Add(9*time.Minute))); again.Offer("m7i.large").OnDemand != 0.1008 || l.calls.Load() != asked {
		t.Errorf("%d calls", l.calls.Load()-asked)
	}
	// Spot prices are asked for again before the others.
	later := readCatalogue(t, reader(l, dir, start.Add(11*time.Minute)))
	if n := l.calls.Load() - asked; n != 8 { // of which the fake makes half itself
		t.Errorf("%d calls after 11 minutes", n)
	}
	if diff := cmp.Diff(later.Offers, c.Offers); diff != "" {
		t.Errorf("zone by zone there are other prices:\n%s", diff)
	}
	l.demand = "0.2"
	if again := readCatalogue(t, reader(l, dir, start.Add(25*time.Hour))); again.Offer("m7i.large").OnDemand != 0.2 {
		t.Errorf("%+v after a day", again.Offer("m7i.large"))
	}
	// A damaged file is read anew.
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte(`{"at":"20`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if again := readCatalogue(t, reader(l, dir, start.Add(25*time.Hour))); len(again.Offers) != 2 || len(again.Notes) != 0 {
		t.Errorf("%+v", again)
	}
}

func TestCatalogueWithoutParts(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_790_000_000, 0)
	broken := errors.New("no such luck")
	for _, c := range []struct {
		name  string
		lists *lists
		notes []string
		types int
	}{
		{"price list", &lists{priceErr: broken}, []string{"on-demand prices are approximate", "no such luck"}, 2},
		{"spot prices", &lists{spotErr: broken, demand: "0.1"}, []string{"spot prices are approximate", "no such luck"}, 2},
		{"EC2", &lists{ec2Err: broken, demand: "0.1"}, []string{"built-in table", "EC2 could not be asked", "no such luck"}, 300},
	} {
		got := readCatalogue(t, reader(c.lists, "", start))
		notes := strings.Join(got.Notes, "\n")
		for _, want := range c.notes {
			if !strings.Contains(notes, want) {
				t.Errorf("%s: %q does not say %q", c.name, notes, want)
			}
		}
		if len(got.Offers) < c.types {
			t.Errorf("%s: %d types", c.name, len(got.Offers))
		}
		if m := got.Offer("m7i.large"); m == nil || m.OnDemand <= 0 || m.Price("us-east-1a", true) <= 0 {
			t.Errorf("%s: %+v", c.name, m)
		}
		if g := got.Offer("g4dn.xlarge"); g == nil || g.OnDemand <= 0 {
			t.Errorf("%s: %+v", c.name, g)
		}
	}

	// Older prices are better than built-in ones, and it is said that they are old.
	dir := t.TempDir()
	good := &lists{demand: "0.1"}
	readCatalogue(t, reader(good, dir, start))
	good.priceErr, good.ec2Err, good.spotErr = broken, broken, broken
	got := readCatalogue(t, reader(good, dir, start.Add(48*time.Hour)))
	if len(got.Offers) != 2 || got.Offer("m7i.large").OnDemand != 0.1 || len(got.Notes) != 3 || !strings.Contains(got.Notes[0], "no such luck") {
		t.Errorf("%+v", got)
	}

	// The price list is not asked again at once.
	asked := good.calls.Load()
	if again := readCatalogue(t, reader(good, dir, start.Add(48*time.Hour+time.Minute))); !strings.Contains(strings.Join(again.Notes, " "), "on-demand prices are those of") {
		t.Errorf("%v", again.Notes)
	}
	if n := good.calls.Load() - asked; n > 4 {
		t.Errorf("%d calls", n)
	}

	// Offline nothing is asked.
	r := reader(&lists{}, dir, start.Add(72*time.Hour))
	r.o.Offline = true
	if got := readCatalogue(t, r); len(got.Offers) != 2 || r.ec2.(*lists).calls.Load() != 0 {
		t.Errorf("%+v", got)
	}
	r = reader(&lists{}, "", start)
	r.o.Offline = true
	if got := readCatalogue(t, r); len(got.Offers) < 300 || len(got.Notes) != 1 {
		t.Errorf("%d types, %v", len(got.Offers), got.Notes)
	}

	// Without credentials nothing is asked either.
	r = reader(&lists{}, "", start)
	r.ready = func(context.Context) error { return errNoCredentials }
	if got := readCatalogue(t, r); !strings.Contains(strings.Join(got.Notes, " "), "no AWS credentials") || r.ec2.(*lists).calls.Load() != 0 {
		t.Errorf("%v", got.Notes)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := reader(&lists{demand: "1"}, "", start).read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v after the end", err)
	}
}

func TestPriceRegion(t *testing.T) {
	t.Parallel()
	for region, want := range map[string]string{"us-east-1": "us-east-1", "us-west-2": "us-east-1", "ca-central-1": "us-east-1", "sa-east-1": "us-east-1",
		"eu-west-1": "eu-central-1", "ap-northeast-1": "ap-south-1", "cn-north-1": "cn-northwest-1", "us-gov-west-1": "", "eusc-de-east-1": "eusc-de-east-1"} {
		if got := priceRegion(region); got != want {
			t.Errorf("%s: %q, want %q", region, got, want)
		}
	}
}

// All types of a server that nobody here wrote, whose price list answers 500.
func TestCatalogueServer(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	dir := t.TempDir()
	start := time.Now()
	c, err := Catalogue(t.Context(), CatalogueOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d types in %v; %q", len(c.Offers), time.Since(start), c.Notes)
	if len(c.Offers) < 1300 || c.Region != "us-east-1" || len(c.Notes) != 1 {
		t.Errorf("%d types of %s: %v", len(c.Offers), c.Region, c.Notes)
	}
	for _, o := range c.Offers {
		if o.Name == "" || o.VCPUs <= 0 || o.MemoryMiB <= 0 || o.Arch == "" || len(o.Zones) == 0 || o.OnDemand <= 0 {
			t.Errorf("%+v", o)
		}
	}
	s, err := hardware.Choose(hardware.RequestOf(spec.Hardware{CPU: [2]float64{4, 4}, Memory: [2]int64{14 << 30, 18 << 30}}), c)
	if err != nil || s.Choices[0].VCPUs != 4 {
		t.Errorf("%+v, %v", s, err)
	}
	start = time.Now()
	if again, err := Catalogue(t.Context(), CatalogueOptions{Dir: dir}); err != nil || len(again.Offers) != len(c.Offers) {
		t.Errorf("%d types, %v", len(again.Offers), err)
	}
	t.Logf("again: %v", time.Since(start))
}
