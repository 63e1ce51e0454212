package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// S3 lists and reads buckets. It is safe for concurrent use.
type S3 struct {
	cfg aws.Config

	mu      sync.Mutex
	clients map[clientKey]*s3.Client
	regions map[string]string // of buckets that are not in the configured one
	checked bool              // credentials were found
}

type clientKey struct {
	region    string
	anonymous bool
}

// NewS3 reads the SDK's configuration (environment variables such as
// AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL, and its files). It does not
// speak to S3 yet.
func NewS3(ctx context.Context) (*S3, error) {
	cfg, err := loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	return newS3(cfg), nil
}

func newS3(cfg aws.Config) *S3 {
	cfg.HTTPClient = withPatience(cfg.HTTPClient)
	return &S3{cfg: cfg, clients: map[clientKey]*s3.Client{}, regions: map[string]string{}}
}

// client is the client for a bucket.
func (s *S3) client(ctx context.Context, loc cloud.S3Location) (*s3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !loc.Anonymous && !s.checked {
		if err := checkCredentials(ctx, s.cfg, loc.Bucket); err != nil {
			return nil, err
		}
		s.checked = true
	}
	k := clientKey{region: s.cfg.Region, anonymous: loc.Anonymous}
	if r, ok := s.regions[loc.Bucket]; ok {
		k.region = r
	}
	c := s.clients[k]
	if c == nil {
		c = s3.NewFromConfig(s.cfg, s3Options, func(o *s3.Options) {
			o.Region = k.region
			if k.anonymous {
				o.Credentials = aws.AnonymousCredentials{}
			}
		})
		s.clients[k] = c
	}
	return c, nil
}

// call runs a request, once more in the bucket's region if it is not in ours.
func (s *S3) call(ctx context.Context, loc cloud.S3Location, op, resource string, do func(*s3.Client) error) error {
	for attempt := 0; ; attempt++ {
		c, err := s.client(ctx, loc)
		if err != nil {
			return err
		}
		err = do(c)
		if err != nil && attempt == 0 && s.moved(ctx, c, loc.Bucket, err) {
			continue
		}
		err = mapError(ctx, op, resource, err)
		if loc.Anonymous {
			err = explainAnonymous(err)
		}
		return err
	}
}

// explainAnonymous says what a refusal means to whoever asked without
// credentials.
func explainAnonymous(err error) error {
	var known *cloud.Error
	var api smithy.APIError
	if !errors.As(err, &known) || known.Kind != cloud.KindDenied || !errors.As(err, &api) {
		return err
	}
	return &cloud.Error{Op: known.Op, Resource: known.Resource, Kind: known.Kind, Err: &apiError{err: err,
		msg: fmt.Sprintf("access denied (%s): this is not public; without anonymous: true your credentials are used", api.ErrorCode())}}
}

// moved says whether an error means that the bucket is in another region than
// we asked in, and remembers which. Every answer of S3 about a bucket says so
// in a header, even a refusal; other servers only in the text of a refusal.
func (s *S3) moved(ctx context.Context, c *s3.Client, bucket string, err error) bool {
	asked := c.Options().Region
	if asked == "" || ctx.Err() != nil {
		return false
	}
	region := regionOf(err)
	if status := statusOf(err); region == "" && (status == 301 || status == 400) {
		_, herr := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
		if region = regionOf(herr); region == "" && herr != nil {
			// The refusal of a HEAD has no text.
			_, lerr := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, MaxKeys: aws.Int32(1)})
			region = regionOf(lerr)
		}
	}
	if region == "" || region == asked {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.regions[bucket] = region
	return true
}

func regionOf(err error) string {
	var re *awshttp.ResponseError
	if errors.As(err, &re) && re.Response != nil && re.Response.Response != nil {
		if region := re.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			return region
		}
	}
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "AuthorizationHeaderMalformed" {
		if m := expectedRegion.FindStringSubmatch(api.ErrorMessage()); m != nil {
			return m[1]
		}
	}
	return ""
}

// expectedRegion finds the region in "the region 'us-east-1' is wrong;
// expecting 'eu-west-1'".
var expectedRegion = regexp.MustCompile(`expecting ['"]([a-z0-9-]+)['"]`)

func payer(loc cloud.S3Location) types.RequestPayer {
	if loc.RequesterPays {
		return types.RequestPayerRequester
	}
	return ""
}

// Open reads an object from its start. A connection that breaks is continued
// where it ended, as long as the object has not changed.
func (s *S3) Open(ctx context.Context, loc cloud.S3Location, key string) (io.ReadCloser, error) {
	o := &object{s: s, ctx: ctx, loc: loc, key: key}
	if err := o.reopen(); err != nil {
		return nil, err
	}
	return o, nil
}

// object is an open S3 object.
type object struct {
	s     *S3
	ctx   context.Context
	loc   cloud.S3Location
	key   string
	body  io.ReadCloser
	etag  *string
	off   int64
	size  int64 // -1: not known
	tries int   // breaks since something was read
}

// maxBreaks is how often a read is continued without having read anything.
const maxBreaks = 4

func (o *object) reopen() error {
	in := &s3.GetObjectInput{Bucket: &o.loc.Bucket, Key: &o.key, IfMatch: o.etag, RequestPayer: payer(o.loc)}
	if o.off > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", o.off))
	}
	return o.s.call(o.ctx, o.loc, "read", bucketURL(o.loc.Bucket, o.key), func(c *s3.Client) error {
		out, err := c.GetObject(o.ctx, in)
		if err != nil {
			return err
		}
		o.body = out.Body
		if o.off == 0 {
			o.etag, o.size = out.ETag, -1
			if out.ContentLength != nil {
				o.size = *out.ContentLength
			}
		}
		return nil
	})
}

func (o *object) Read(p []byte) (int, error) {
	n, err := o.body.Read(p)
	o.off += int64(n)
	if n > 0 {
		o.tries = 0
	}
	if err == nil || err == io.EOF && (o.size < 0 || o.off >= o.size) {
		return n, err
	}
	if o.ctx.Err() != nil {
		return n, context.Cause(o.ctx)
	}
	o.tries++
	if o.tries > maxBreaks || o.etag == nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, mapError(o.ctx, "read", bucketURL(o.loc.Bucket, o.key), err)
	}
	o.body.Close()
	return n, o.reopen()
}

func (o *object) Close() error { return o.body.Close() }
