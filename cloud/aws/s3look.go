package aws

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Look says what lies at a key now; below it, if the key ends in a slash. What
// is not there is no error.
func (s *S3) Look(ctx context.Context, loc cloud.S3Location, key string) (cloud.S3Look, error) {
	if key == "" || strings.HasSuffix(key, "/") {
		return s.lookBelow(ctx, loc, key)
	}
	var look cloud.S3Look
	err := s.call(ctx, loc, "look up", bucketURL(loc.Bucket, key), func(c *s3.Client) error {
		out, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &loc.Bucket, Key: &key, RequestPayer: payer(loc)})
		if err != nil {
			return err
		}
		look = cloud.S3Look{Found: true, Tag: strings.Trim(aws.ToString(out.ETag), `"`), Modified: aws.ToTime(out.LastModified)}
		look.Asked, _ = awsmiddleware.GetServerTime(out.ResultMetadata)
		return nil
	})
	if cloud.KindOf(err) == cloud.KindNotFound && ctx.Err() == nil {
		return cloud.S3Look{}, nil
	}
	return look, err
}

// lookBelow is Look for everything whose key begins so.
func (s *S3) lookBelow(ctx context.Context, loc cloud.S3Location, prefix string) (cloud.S3Look, error) {
	var look cloud.S3Look
	h := fnv.New128a()
	in := &s3.ListObjectsV2Input{Bucket: &loc.Bucket, Prefix: &prefix, RequestPayer: payer(loc)}
	for {
		var out *s3.ListObjectsV2Output
		err := s.call(ctx, loc, "look up", bucketURL(loc.Bucket, prefix), func(c *s3.Client) (err error) {
			out, err = c.ListObjectsV2(ctx, in)
			return err
		})
		if err != nil {
			return cloud.S3Look{}, err
		}
		if look.Asked.IsZero() {
			look.Asked, _ = awsmiddleware.GetServerTime(out.ResultMetadata)
		}
		for _, o := range out.Contents {
			modified := aws.ToTime(o.LastModified)
			fmt.Fprintf(h, "%q %s %d\n", aws.ToString(o.Key), aws.ToString(o.ETag), modified.UnixNano())
			look.Found = true
			if modified.After(look.Modified) {
				look.Modified = modified
			}
		}
		if !aws.ToBool(out.IsTruncated) || out.NextContinuationToken == nil {
			look.Tag = fmt.Sprintf("%x", h.Sum(nil))
			look.Asked = look.Asked.Truncate(time.Second)
			return look, nil
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}
