package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Account is who the credentials belong to, and where they work.
type Account struct {
	ID        string // twelve digits
	Principal string // the ARN of the user or role
	Partition string // aws, aws-cn, aws-us-gov
	Region    string
	// Skew is how far the clock of this machine is ahead of Amazon's.
	Skew time.Duration
}

// adminPatience is how long requests about an account are made again: people
// wait for them.
const adminPatience = 30 * time.Second

// WhoAmI asks whose credentials these are. An empty region is the configured
// one.
func WhoAmI(ctx context.Context, region string) (Account, error) {
	cfg, err := regionConfig(ctx, region)
	if err != nil {
		return Account{}, err
	}
	return whoAmI(ctx, cfg)
}

// regionConfig is the SDK's configuration for a region.
func regionConfig(ctx context.Context, region string) (aws.Config, error) {
	cfg, err := loadConfig(ctx)
	if err != nil {
		return cfg, err
	}
	if region != "" {
		if !regionName.MatchString(region) {
			return cfg, &cloud.Error{Op: "use", Resource: fmt.Sprintf("region %q", region), Kind: cloud.KindInvalid,
				Err: errors.New("a region is written like us-east-1")}
		}
		cfg.Region = region
	}
	cfg.HTTPClient = withPatience(cfg.HTTPClient)
	return cfg, nil
}

// errNoAccount says what to do without credentials.
var errNoAccount = errors.New(`no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ` +
	`or log in ("aws sso login")`)

func whoAmI(ctx context.Context, cfg aws.Config) (Account, error) {
	if err := checkCredentials(ctx, cfg, ""); err != nil {
		if errors.Is(err, errNoCredentials) {
			return Account{}, &cloud.Error{Op: "find", Resource: "the AWS account", Kind: cloud.KindDenied,
				Err: errors.Join(append([]error{errNoAccount}, joined(err)[1:]...)...)}
		}
		return Account{}, err
	}
	client := sts.NewFromConfig(cfg)
	var out *sts.GetCallerIdentityOutput
	var before time.Time
	err := again(ctx, adminPatience, passing, func(ctx context.Context) (err error) {
		before = time.Now()
		out, err = client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		return mapError(ctx, "find", "the AWS account", err)
	})
	if err != nil {
		return Account{}, err
	}
	a := Account{ID: aws.ToString(out.Account), Principal: aws.ToString(out.Arn), Partition: "aws", Region: cfg.Region}
	if parts := strings.Split(a.Principal, ":"); len(parts) > 1 && strings.HasPrefix(parts[1], "aws") {
		a.Partition = parts[1]
	}
	if server, ok := awsmiddleware.GetServerTime(out.ResultMetadata); ok {
		// The answer was written between the request and now.
		now := time.Now()
		a.Skew = now.Add(-now.Sub(before) / 2).Sub(server)
	}
	return a, nil
}

// joined is the errors that errors.Join made one of.
func joined(err error) []error {
	var known *cloud.Error
	if errors.As(err, &known) {
		err = known.Err
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

// BucketName is the bucket of an account in a region, as set-up makes it.
func BucketName(account, region string) string { return "coiled-jobs-" + account + "-" + region }

// DefaultStore is the store of the caller's account in a region, "" for the
// configured one: the bucket that set-up made. A bucket of that name in
// somebody else's account is refused: names can be guessed.
func DefaultStore(ctx context.Context, region string) (*Store, error) {
	cfg, err := regionConfig(ctx, region)
	if err != nil {
		return nil, err
	}
	a, err := whoAmI(ctx, cfg)
	if err != nil {
		return nil, err
	}
	bucket := BucketName(a.ID, a.Region)
	there, err := bucketThere(ctx, cfg, a, bucket)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, &cloud.Error{Op: "open store", Resource: bucketURL(bucket, ""), Kind: cloud.KindInvalid,
			Err: fmt.Errorf(`the account %s has no bucket for runs in %s: run "coiled-jobs setup aws --region %s", or name a store with --store`, a.ID, a.Region, a.Region)}
	}
	return OpenStore(ctx, bucketURL(bucket, ""))
}

// expectedOwner makes Amazon refuse what is asked of a bucket that belongs to
// somebody else. Other servers have owners of their own sort.
func expectedOwner(c *s3.Client, a Account) *string {
	if e := c.Options().BaseEndpoint; e != nil && !isAmazon(*e) {
		return nil
	}
	return &a.ID
}

// bucketThere says whether an account has a bucket. A bucket of another
// account, or one that we may not look at, is an error.
func bucketThere(ctx context.Context, cfg aws.Config, a Account, bucket string) (bool, error) {
	client := s3.NewFromConfig(cfg, s3Options)
	resource := bucketURL(bucket, "")
	var status int
	err := again(ctx, adminPatience, passing, func(ctx context.Context) error {
		_, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket, ExpectedBucketOwner: expectedOwner(client, a)})
		status = statusOf(err)
		return mapError(ctx, "look at", resource, err)
	})
	switch {
	case err == nil:
		return true, nil
	case status == http.StatusNotFound:
		return false, nil
	case status == http.StatusForbidden:
		return false, &cloud.Error{Op: "look at", Resource: resource, Kind: cloud.KindDenied, Err: &apiError{err: err,
			msg: fmt.Sprintf("access denied: either the bucket belongs to another account than %s, or the credentials (%s) lack s3:ListBucket on it", a.ID, a.Principal)}}
	}
	return false, err
}

// Region is where the bucket of the store is.
func (s *Store) Region(ctx context.Context) (string, error) {
	var region string
	err := s.call(ctx, "list", "", func(c *s3.Client) error {
		out, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.loc.Bucket})
		if err == nil {
			if region = aws.ToString(out.BucketRegion); region == "" { // other servers do not say
				region = c.Options().Region
			}
		}
		return err
	})
	return region, err
}

// ObjectURL is the http(s) address of an object, for a machine that signs its
// requests by itself.
func (s *Store) ObjectURL(ctx context.Context, key string) (string, error) {
	if err := s.begin(ctx, "address", key); err != nil {
		return "", err
	}
	var url string
	name := s.prefix + key
	err := s.call(ctx, "address", key, func(c *s3.Client) error {
		req, err := s3.NewPresignClient(c).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &s.loc.Bucket, Key: &name})
		if err == nil {
			url, _, _ = strings.Cut(req.URL, "?")
		}
		return err
	})
	return url, err
}
