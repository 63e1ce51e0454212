package aws

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pricing"
	"github.com/aws/aws-sdk-go-v2/service/pricing/types"
)

// priceAPI is what a catalogue asks of the price list.
type priceAPI interface {
	GetProducts(context.Context, *pricing.GetProductsInput, ...func(*pricing.Options)) (*pricing.GetProductsOutput, error)
}

// yuan is how many make a dollar, about: the price list of China has no dollars.
const yuan = 7.1

var errNoPriceList = errors.New("there is no price list for this region")

// priceRegion is the region whose price list has the prices of a region; ""
// if none has.
func priceRegion(region string) string {
	group, _, _ := strings.Cut(region, "-")
	switch group {
	case "cn":
		return "cn-northwest-1"
	case "eusc":
		return "eusc-de-east-1"
	case "eu", "af", "me", "il":
		return "eu-central-1"
	case "ap":
		return "ap-south-1"
	}
	if strings.HasPrefix(region, "us-gov-") || strings.HasPrefix(region, "us-iso") {
		return ""
	}
	return "us-east-1"
}

// onDemandPrices is the dollars per hour of Linux on shared hosts, by type.
func (r *catalogueReader) onDemandPrices(ctx context.Context) (map[string]float64, error) {
	if r.prices == nil {
		return nil, errNoPriceList
	}
	in := pricing.GetProductsInput{ServiceCode: aws.String("AmazonEC2"), FormatVersion: aws.String("aws_v1"), MaxResults: aws.Int32(100)}
	for _, f := range [][2]string{{"regionCode", r.region}, {"operatingSystem", "Linux"}, {"preInstalledSw", "NA"}, {"capacitystatus", "Used"},
		{"marketoption", "OnDemand"}, {"tenancy", "Shared"}, {"productFamily", "Compute Instance"}} {
		in.Filters = append(in.Filters, types.Filter{Type: types.FilterTypeTermMatch, Field: aws.String(f[0]), Value: aws.String(f[1])})
	}
	prices, err := pages(ctx, r, "prices", func(token string, to *map[string]float64) (string, error) {
		page := in
		page.NextToken = tokenOf(token)
		out, err := r.prices.GetProducts(ctx, &page)
		if err != nil {
			return "", mapError(ctx, "read", "the price list of "+r.region, err)
		}
		if *to == nil {
			*to = map[string]float64{}
		}
		for _, text := range out.PriceList {
			if name, price := product(text); price > 0 {
				(*to)[name] = price
			}
		}
		return aws.ToString(out.NextToken), nil
	})
	if err != nil {
		return nil, err
	}
	r.forget("prices")
	if len(prices) == 0 {
		return nil, errors.New("the price list has no instances of " + r.region)
	}
	return prices, nil
}

// product reads an entry of the price list; 0 if it is none with a price per
// hour.
func product(text string) (name string, price float64) {
	var p struct {
		Product struct {
			Attributes struct {
				InstanceType string `json:"instanceType"`
			} `json:"attributes"`
		} `json:"product"`
		Terms struct {
			OnDemand map[string]struct {
				PriceDimensions map[string]struct {
					Unit         string            `json:"unit"`
					PricePerUnit map[string]string `json:"pricePerUnit"`
				} `json:"priceDimensions"`
			} `json:"OnDemand"`
		} `json:"terms"`
	}
	if json.Unmarshal([]byte(text), &p) != nil {
		return "", 0
	}
	for _, term := range p.Terms.OnDemand {
		for _, d := range term.PriceDimensions {
			if d.Unit != "Hrs" {
				continue
			}
			if v, err := strconv.ParseFloat(d.PricePerUnit["USD"], 64); err == nil && v > 0 {
				return p.Product.Attributes.InstanceType, v
			}
			if v, err := strconv.ParseFloat(d.PricePerUnit["CNY"], 64); err == nil && v > 0 {
				return p.Product.Attributes.InstanceType, v / yuan
			}
		}
	}
	return "", 0
}
