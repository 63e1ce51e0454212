package aws

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/hardware"
)

// catalogueAPI is what a catalogue asks of EC2.
type catalogueAPI interface {
	DescribeInstanceTypes(context.Context, *ec2.DescribeInstanceTypesInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error)
	DescribeInstanceTypeOfferings(context.Context, *ec2.DescribeInstanceTypeOfferingsInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypeOfferingsOutput, error)
	DescribeSpotPriceHistory(context.Context, *ec2.DescribeSpotPriceHistoryInput, ...func(*ec2.Options)) (*ec2.DescribeSpotPriceHistoryOutput, error)
}

// offers is the types of the region with their zones, without prices.
func (r *catalogueReader) offers(ctx context.Context) ([]hardware.Offer, error) {
	zones := make(chan map[string][]string, 1)
	failed := make(chan error, 1)
	go func() {
		z, err := r.zones(ctx)
		zones <- z
		failed <- err
	}()
	offers, err := pages(ctx, r, "types", func(token string, to *[]hardware.Offer) (string, error) {
		out, err := r.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{MaxResults: aws.Int32(100), NextToken: tokenOf(token)})
		if err != nil {
			return "", mapError(ctx, "list", "the instance types of "+r.region, err)
		}
		for i := range out.InstanceTypes {
			*to = append(*to, hardware.Offer{Type: typeOf(&out.InstanceTypes[i])})
		}
		return aws.ToString(out.NextToken), nil
	})
	where := <-zones
	if err != nil {
		return nil, err
	}
	if err := <-failed; err != nil {
		return nil, err
	}
	r.forget("types", "zones")
	for i := range offers {
		offers[i].Zones = where[offers[i].Name]
	}
	if len(where) > 0 {
		// EC2 describes a few types that it does not have in the region.
		offers = slices.DeleteFunc(offers, func(o hardware.Offer) bool { return len(o.Zones) == 0 })
	}
	return offers, nil
}

// tokenOf is a token as requests have it: that of the first page is none.
func tokenOf(token string) *string {
	if token == "" {
		return nil
	}
	return &token
}

// zones is the zones in which types are to be had.
func (r *catalogueReader) zones(ctx context.Context) (map[string][]string, error) {
	where, err := pages(ctx, r, "zones", func(token string, to *map[string][]string) (string, error) {
		in := &ec2.DescribeInstanceTypeOfferingsInput{LocationType: types.LocationTypeAvailabilityZone, MaxResults: aws.Int32(1000), NextToken: tokenOf(token)}
		out, err := r.ec2.DescribeInstanceTypeOfferings(ctx, in)
		if err != nil {
			return "", mapError(ctx, "list", "where the instance types of "+r.region+" are", err)
		}
		if *to == nil {
			*to = map[string][]string{}
		}
		for _, o := range out.InstanceTypeOfferings {
			(*to)[string(o.InstanceType)] = append((*to)[string(o.InstanceType)], aws.ToString(o.Location))
		}
		return aws.ToString(out.NextToken), nil
	})
	if err != nil {
		return nil, err
	}
	for _, z := range where {
		slices.Sort(z)
	}
	return where, nil
}

// spotPrices is the price of now of each type in each zone. The lists of zones
// that are known are read at the same time: one of all takes seconds.
func (r *catalogueReader) spotPrices(ctx context.Context) (map[string]map[string]float64, error) {
	zones := r.knownZones()
	if len(zones) == 0 {
		zones = []string{""}
	}
	lists := make([][]types.SpotPrice, len(zones))
	errs := make([]error, len(zones))
	var wg sync.WaitGroup
	for i, zone := range zones {
		wg.Go(func() { lists[i], errs[i] = r.spotHistory(ctx, zone) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, mapError(ctx, "list", "the spot prices of "+r.region, err)
	}
	prices := map[string]map[string]float64{}
	newest := map[[2]string]time.Time{}
	for _, p := range slices.Concat(lists...) {
		price, err := strconv.ParseFloat(aws.ToString(p.SpotPrice), 64)
		name, zone, at := string(p.InstanceType), aws.ToString(p.AvailabilityZone), aws.ToTime(p.Timestamp)
		if err != nil || price <= 0 || name == "" || zone == "" {
			continue
		}
		key := [2]string{name, zone}
		if last, ok := newest[key]; ok && !at.After(last) {
			continue
		}
		newest[key] = at
		if prices[name] == nil {
			prices[name] = map[string]float64{}
		}
		prices[name][zone] = price
	}
	return prices, nil
}

// spotHistory is the price of now of each type in a zone; in all if it is "".
func (r *catalogueReader) spotHistory(ctx context.Context, zone string) (list []types.SpotPrice, err error) {
	in := &ec2.DescribeSpotPriceHistoryInput{StartTime: aws.Time(r.now()), ProductDescriptions: []string{"Linux/UNIX"}, MaxResults: aws.Int32(1000)}
	if zone != "" {
		in.Filters = []types.Filter{filter("availability-zone", zone)}
	}
	for {
		out, err := r.ec2.DescribeSpotPriceHistory(ctx, in)
		if err != nil {
			return nil, err
		}
		list = append(list, out.SpotPriceHistory...)
		if in.NextToken = out.NextToken; aws.ToString(in.NextToken) == "" {
			return list, nil
		}
	}
}

// knownZones is the zones of the types that were read before, however long ago.
func (r *catalogueReader) knownZones() []string {
	var old kept[[]hardware.Offer]
	if r.o.Dir == "" {
		return nil
	}
	if data, err := os.ReadFile(r.file("types")); err != nil || json.Unmarshal(data, &old) != nil {
		return nil
	}
	all := map[string]bool{}
	for _, o := range old.Data {
		for _, z := range o.Zones {
			all[z] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// typeOf is what EC2 says of a type, in our words.
func typeOf(i *types.InstanceTypeInfo) hardware.Type {
	t := hardware.Type{Name: string(i.InstanceType), Burstable: aws.ToBool(i.BurstablePerformanceSupported), BareMetal: aws.ToBool(i.BareMetal),
		Previous: i.CurrentGeneration != nil && !*i.CurrentGeneration}
	if i.VCpuInfo != nil {
		t.VCPUs = int(aws.ToInt32(i.VCpuInfo.DefaultVCpus))
	}
	if i.MemoryInfo != nil {
		t.MemoryMiB = aws.ToInt64(i.MemoryInfo.SizeInMiB)
	}
	if i.ProcessorInfo != nil && len(i.ProcessorInfo.SupportedArchitectures) > 0 {
		archs := i.ProcessorInfo.SupportedArchitectures
		t.Arch = string(archs[len(archs)-1])
		if slices.Contains(archs, types.ArchitectureTypeX8664) { // old types are i386 too
			t.Arch = hardware.AMD64
		}
	}
	if i.InstanceStorageInfo != nil {
		t.LocalDiskGB = int(aws.ToInt64(i.InstanceStorageInfo.TotalSizeInGB))
	}
	switch {
	case i.InferenceAcceleratorInfo != nil, i.NeuronInfo != nil:
		t.Special = "inference"
	case i.FpgaInfo != nil:
		t.Special = "FPGA"
	case i.MediaAcceleratorInfo != nil:
		t.Special = "media"
	}
	if i.GpuInfo != nil && len(i.GpuInfo.Gpus) > 0 {
		g := i.GpuInfo.Gpus[0]
		t.GPUModel, t.GPUMaker = aws.ToString(g.Name), aws.ToString(g.Manufacturer)
		if t.GPUs = int(aws.ToInt32(g.Count)); t.GPUs == 0 {
			t.Special = "part of a GPU"
		} else if g.MemoryInfo != nil {
			t.GPUMemoryMiB = int64(aws.ToInt32(g.MemoryInfo.SizeInMiB))
		}
	}
	spot := slices.Contains(i.SupportedUsageClasses, types.UsageClassTypeSpot)
	demand := slices.Contains(i.SupportedUsageClasses, types.UsageClassTypeOnDemand)
	switch {
	case demand && !spot:
		t.OnlyMarket = hardware.OnDemand
	case spot && !demand:
		t.OnlyMarket = hardware.Spot
	}
	return t
}
