package aws

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/smithy-go/logging"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Quota is how many virtual CPUs an account may have running of a group of
// instance types.
type Quota struct {
	Code string // L-34B43A08
	Name string // All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests
	Link string // where it is seen and raised
	// VCPUs is the limit.
	VCPUs int
}

// quotaPatience is how long a quota is waited for: a plan can do without.
const quotaPatience = 5 * time.Second

// ReadQuota reads the limit for machines like a type. ok is false if nobody
// knows the code of the quota for that family.
func ReadQuota(ctx context.Context, region, instanceType string, spot bool) (q Quota, ok bool, err error) {
	cfg, err := regionConfig(ctx, region)
	if err != nil {
		return Quota{}, false, err
	}
	return readQuota(ctx, cfg, instanceType, spot)
}

func readQuota(ctx context.Context, cfg aws.Config, instanceType string, spot bool) (q Quota, ok bool, err error) {
	known := quotaOf(instanceType, spot)
	if known.code == "" {
		return Quota{}, false, nil
	}
	if err := checkCredentials(ctx, cfg, ""); err != nil {
		return Quota{}, false, err
	}
	client := servicequotas.NewFromConfig(cfg, func(o *servicequotas.Options) { o.Retryer = retry.AddWithMaxAttempts(o.Retryer, 2) })
	limited, cancel := context.WithTimeout(ctx, quotaPatience)
	defer cancel()
	out, err := client.GetServiceQuota(limited, &servicequotas.GetServiceQuotaInput{ServiceCode: aws.String("ec2"), QuotaCode: &known.code})
	if err != nil {
		return Quota{}, false, mapError(ctx, "read", "the quota "+known.code, err)
	}
	q = Quota{Code: known.code, Name: known.name, Link: known.link(cfg.Region)}
	if out.Quota == nil || out.Quota.Value == nil {
		return q, false, nil
	}
	q.VCPUs = int(*out.Quota.Value)
	return q, true, nil
}

// ConfiguredRegion is the region that the caller's environment and files name;
// "" if they name none.
func ConfiguredRegion(ctx context.Context) string {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}))
	if err != nil {
		return "" // whoever needs more than the region will hear of it
	}
	return cfg.Region
}

// BucketRegion is where a bucket is. S3 tells that to everybody, also to those
// who may not look into it.
func BucketRegion(ctx context.Context, bucket string) (string, error) {
	s, err := NewS3(ctx)
	if err != nil {
		return "", err
	}
	return s.Region(ctx, bucket)
}

// Region is where a bucket is.
func (s *S3) Region(ctx context.Context, bucket string) (string, error) {
	s.mu.Lock()
	known := s.regions[bucket]
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	// Without credentials, too: the answer is in a header of the refusal.
	loc := cloud.S3Location{Bucket: bucket}
	if checkCredentials(ctx, s.cfg, bucket) != nil {
		loc.Anonymous = true
	}
	c, err := s.client(ctx, loc)
	if err != nil {
		return "", err
	}
	out, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	region := ""
	switch {
	case err == nil && aws.ToString(out.BucketRegion) != "":
		region = *out.BucketRegion
	case err == nil:
		region = c.Options().Region // a server that has one region and does not say which
	default:
		region = regionOf(err)
	}
	if region == "" {
		return "", mapError(ctx, "find the region of", bucketURL(bucket, ""), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.regions[bucket] = region
	return region, nil
}
