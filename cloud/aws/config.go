// Package aws is the cloud contract on Amazon Web Services. The SDK stops
// here: no other package knows its types.
//
// Nothing is done at start-up; configuration and credentials are read when the
// first client is made.
package aws

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// defaultRegion is used where none is configured: a bucket's own region is
// found by asking, and that can be done from here.
const defaultRegion = "us-east-1"

// loadConfig reads the SDK's configuration: its environment variables, files
// and profiles.
func loadConfig(ctx context.Context) (aws.Config, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		// A listing keeps this many connections busy; with fewer idle ones each
		// page would begin with a handshake.
		t.MaxIdleConnsPerHost = maxActive + 8
		t.MaxIdleConns = 2 * maxActive
	})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client),
		// What the SDK would print about its own searches is in our errors.
		config.WithLogger(logging.Nop{}),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts = 6
				o.MaxBackoff = 5 * time.Second
				o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(hopeless)}, o.Retryables...)
			})
		}))
	if err != nil {
		return cfg, &cloud.Error{Op: "read", Resource: "the AWS configuration", Kind: cloud.KindDenied, Err: err}
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	return cfg, nil
}

// hopeless stops retries where nobody listens or answers, the name does not
// exist, or somebody else speaks: a wrong AWS_ENDPOINT_URL or no network should
// be told at once.
func hopeless(err error) aws.Ternary {
	var (
		dns    *net.DNSError
		silent *silentError
		plain  tls.RecordHeaderError
		cert   *tls.CertificateVerificationError
	)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &dns) && dns.IsNotFound ||
		errors.As(err, &silent) || errors.As(err, &plain) || errors.As(err, &cert) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// errNoCredentials says what to do without credentials.
var errNoCredentials = errors.New(`no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ` +
	`or log in ("aws sso login"); for a public bucket, anonymous: true needs none`)

// checkCredentials finds out now, with a message that helps, whether there
// are credentials.
func checkCredentials(ctx context.Context, cfg aws.Config, bucket string) error {
	if cfg.Credentials == nil {
		return &cloud.Error{Op: "open", Resource: bucketURL(bucket, ""), Kind: cloud.KindDenied, Err: errNoCredentials}
	}
	_, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return &cloud.Error{Op: "open", Resource: bucketURL(bucket, ""), Kind: cloud.KindDenied,
		Err: errors.Join(errNoCredentials, errors.New("the SDK says: "+lastCause(err)))}
}

// lastCause is the innermost message of an SDK error: the outer ones only name
// operations.
func lastCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// s3Options sets what every S3 client of ours has. Servers other than Amazon's
// get the bucket in the path: few have a wildcard name for virtual hosts, and
// an address or localhost cannot.
func s3Options(o *s3.Options) {
	if o.BaseEndpoint != nil && !isAmazon(*o.BaseEndpoint) {
		o.UsePathStyle = true
	}
	// Objects without a checksum are normal; the SDK would print a warning.
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
}

func isAmazon(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return net.ParseIP(host) == nil &&
		(strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn") || strings.HasSuffix(host, ".api.aws"))
}
