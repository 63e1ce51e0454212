package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// uploadsRule is the lifecycle rule that removes what broken uploads left.
// Runs are gc's: their retention is the pipeline's.
const uploadsRule = "coiled-jobs-uploads"

// planBucket plans the account's bucket and its settings.
func (x *admin) planBucket(ctx context.Context, s *Setup) error {
	there, err := bucketThere(ctx, x.cfg, x.a, s.Bucket)
	if err != nil {
		return err
	}
	const settings = "private, encrypted; uploads that broke off are removed after a day"
	if !there {
		s.add("bucket", s.Bucket, "create", "in "+x.a.Region+": "+settings, func(ctx context.Context) error {
			if err := x.createBucket(ctx, s.Bucket); err != nil {
				return err
			}
			state, err := x.bucketState(ctx, s.Bucket)
			if err != nil {
				return err
			}
			return x.fixBucket(ctx, s.Bucket, state)
		})
		return nil
	}
	state, err := x.bucketState(ctx, s.Bucket)
	if err != nil {
		return err
	}
	if todo := state.todo(); todo != "" {
		s.add("bucket", s.Bucket, "update", todo, func(ctx context.Context) error { return x.fixBucket(ctx, s.Bucket, state) })
		return nil
	}
	s.add("bucket", s.Bucket, "there", settings, nil)
	return nil
}

func (x *admin) createBucket(ctx context.Context, bucket string) error {
	in := &s3.CreateBucketInput{Bucket: &bucket}
	if x.a.Region != "us-east-1" { // which S3 does not want to be told
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(x.a.Region)}
	}
	err := x.call(ctx, "create", bucketURL(bucket, ""), "s3:CreateBucket", func(ctx context.Context) error {
		_, err := x.s3.CreateBucket(ctx, in)
		return err
	})
	switch {
	case isCode(err, "BucketAlreadyOwnedByYou"):
		return nil
	case isCode(err, "BucketAlreadyExists"):
		return &cloud.Error{Op: "create", Resource: bucketURL(bucket, ""), Kind: cloud.KindConflict,
			Err: errors.New("somebody else has a bucket of this name: keep runs in a bucket of yours (--store s3://bucket/prefix)")}
	}
	return err
}

// notImplemented is what a server says of a setting that it does not have.
const notImplemented = "NotImplemented"

// bucketState is how a bucket is set.
type bucketState struct {
	private, encrypted, uploads bool
	rules                       []types.LifecycleRule
}

func (b bucketState) todo() string {
	var list []string
	if !b.private {
		list = append(list, "block public access")
	}
	if !b.encrypted {
		list = append(list, "encrypt")
	}
	if !b.uploads {
		list = append(list, "remove uploads that broke off after a day")
	}
	return strings.Join(list, ", ")
}

func (x *admin) bucketState(ctx context.Context, bucket string) (bucketState, error) {
	var b bucketState
	resource := bucketURL(bucket, "")
	// Each of these answers with an error of its own where nothing is set.
	// Servers other than Amazon's may not know the setting: there is nothing to
	// do about it.
	unset := func(err error, has *bool, code string) error {
		if isCode(err, notImplemented) {
			*has = true
			return nil
		}
		if isCode(err, code) {
			return nil
		}
		return err
	}
	err := x.call(ctx, "look at", resource, "s3:GetBucketPublicAccessBlock", func(ctx context.Context) error {
		out, err := x.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a)})
		if c := (types.PublicAccessBlockConfiguration{}); err == nil && out.PublicAccessBlockConfiguration != nil {
			c = *out.PublicAccessBlockConfiguration
			b.private = aws.ToBool(c.BlockPublicAcls) && aws.ToBool(c.BlockPublicPolicy) && aws.ToBool(c.IgnorePublicAcls) && aws.ToBool(c.RestrictPublicBuckets)
		}
		return unset(err, &b.private, "NoSuchPublicAccessBlockConfiguration")
	})
	if err != nil {
		return b, err
	}
	err = x.call(ctx, "look at", resource, "s3:GetEncryptionConfiguration", func(ctx context.Context) error {
		out, err := x.s3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a)})
		b.encrypted = err == nil && out.ServerSideEncryptionConfiguration != nil && len(out.ServerSideEncryptionConfiguration.Rules) > 0
		return unset(err, &b.encrypted, "ServerSideEncryptionConfigurationNotFoundError")
	})
	if err != nil {
		return b, err
	}
	err = x.call(ctx, "look at", resource, "s3:GetLifecycleConfiguration", func(ctx context.Context) error {
		out, err := x.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a)})
		if err == nil {
			b.rules = out.Rules
			b.uploads = slices.ContainsFunc(out.Rules, func(r types.LifecycleRule) bool {
				return aws.ToString(r.ID) == uploadsRule && r.Status == types.ExpirationStatusEnabled
			})
		}
		return unset(err, &b.uploads, "NoSuchLifecycleConfiguration")
	})
	return b, err
}

// fixBucket sets what is not set. Rules of other people stay.
func (x *admin) fixBucket(ctx context.Context, bucket string, b bucketState) error {
	resource := bucketURL(bucket, "")
	if !b.private {
		err := x.call(ctx, "block public access to", resource, "s3:PutBucketPublicAccessBlock", func(ctx context.Context) error {
			_, err := x.s3.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a),
				PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{BlockPublicAcls: aws.Bool(true), BlockPublicPolicy: aws.Bool(true),
					IgnorePublicAcls: aws.Bool(true), RestrictPublicBuckets: aws.Bool(true)}})
			return err
		})
		if err != nil {
			return err
		}
	}
	if !b.encrypted {
		err := x.call(ctx, "encrypt", resource, "s3:PutEncryptionConfiguration", func(ctx context.Context) error {
			_, err := x.s3.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a),
				ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
					ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256}}}}})
			return err
		})
		if err != nil {
			return err
		}
	}
	if b.uploads {
		return nil
	}
	rules := append(slices.DeleteFunc(slices.Clone(b.rules), func(r types.LifecycleRule) bool { return aws.ToString(r.ID) == uploadsRule }),
		types.LifecycleRule{ID: aws.String(uploadsRule), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")},
			AbortIncompleteMultipartUpload: &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(1)}})
	return x.call(ctx, "set the lifecycle of", resource, "s3:PutLifecycleConfiguration", func(ctx context.Context) error {
		_, err := x.s3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a),
			LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: rules}})
		return err
	})
}

// otherRegions is where else the account has a set-up.
func (x *admin) otherRegions(ctx context.Context) ([]string, error) {
	prefix := "coiled-jobs-" + x.a.ID + "-"
	var regions []string
	in := &s3.ListBucketsInput{Prefix: &prefix, MaxBuckets: aws.Int32(1000)}
	for {
		var out *s3.ListBucketsOutput
		err := x.call(ctx, "list", "buckets", "s3:ListAllMyBuckets", func(ctx context.Context) (err error) {
			out, err = x.s3.ListBuckets(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, b := range out.Buckets {
			if r, ok := strings.CutPrefix(aws.ToString(b.Name), prefix); ok && r != x.a.Region {
				regions = append(regions, r)
			}
		}
		if aws.ToString(out.ContinuationToken) == "" {
			return regions, nil
		}
		in.ContinuationToken = out.ContinuationToken
	}
}

func (x *admin) planBucketRemoval(ctx context.Context, s *Setup, withData bool) error {
	there, err := bucketThere(ctx, x.cfg, x.a, s.Bucket)
	if err != nil {
		return err
	}
	if !there {
		s.add("bucket", s.Bucket, "gone", "", nil)
		return nil
	}
	versions, err := x.versions(ctx, s.Bucket)
	if err != nil {
		return err
	}
	switch {
	case len(versions) > 0 && !withData:
		s.add("bucket", s.Bucket, "kept", "it has runs, logs and results; --with-data deletes them", nil)
	case len(versions) > 0:
		s.add("bucket", s.Bucket, "delete", "with all runs, logs and results", func(ctx context.Context) error { return x.deleteBucket(ctx, s.Bucket) })
	default:
		s.add("bucket", s.Bucket, "delete", "it is empty", func(ctx context.Context) error { return x.deleteBucket(ctx, s.Bucket) })
	}
	return nil
}

// versions is up to a thousand objects, and earlier versions of them if
// somebody had the bucket keep those.
func (x *admin) versions(ctx context.Context, bucket string) ([]types.ObjectIdentifier, error) {
	var list []types.ObjectIdentifier
	err := x.call(ctx, "list", bucketURL(bucket, ""), "s3:ListBucketVersions", func(ctx context.Context) error {
		out, err := x.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a)})
		if err != nil {
			return err
		}
		list = list[:0]
		for _, v := range out.Versions {
			list = append(list, types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
		}
		for _, v := range out.DeleteMarkers {
			list = append(list, types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
		}
		return nil
	})
	return list, err
}

func (x *admin) deleteBucket(ctx context.Context, bucket string) error {
	for {
		list, err := x.versions(ctx, bucket)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		var out *s3.DeleteObjectsOutput
		err = x.call(ctx, "empty", bucketURL(bucket, ""), "s3:DeleteObject and s3:DeleteObjectVersion", func(ctx context.Context) (err error) {
			out, err = x.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a),
				Delete: &types.Delete{Objects: list, Quiet: aws.Bool(true)}})
			return err
		})
		if err != nil {
			return err
		}
		if len(out.Errors) > 0 {
			e := out.Errors[0]
			return &cloud.Error{Op: "delete", Resource: bucketURL(bucket, aws.ToString(e.Key)), Kind: kindsOfCodes[aws.ToString(e.Code)],
				Err: fmt.Errorf("%s (%s)", lowerFirst(aws.ToString(e.Message)), aws.ToString(e.Code))}
		}
	}
	err := x.call(ctx, "delete", bucketURL(bucket, ""), "s3:DeleteBucket", func(ctx context.Context) error {
		_, err := x.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(x.s3, x.a)})
		return err
	})
	if isCode(err, "NoSuchBucket") {
		return nil
	}
	return err
}
