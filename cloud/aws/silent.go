package aws

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

const (
	// maxSilence is how long a server may take to answer for the first time.
	maxSilence = 20 * time.Second
	// maxWait is how long one may take that has answered before: S3 puts the
	// parts of large uploads together in that time.
	maxWait = 2 * time.Minute
	// maxFirst is the largest body of a request whose answer maxSilence is for:
	// sending it counts.
	maxFirst = 1 << 20
)

// patient is an HTTP client that tells a server which is only slow from one
// that is not there: who has never answered at all is not waited for twice.
type patient struct {
	next     aws.HTTPClient
	silence  time.Duration
	answered atomic.Bool
}

// withPatience gives a client bounds on how long it waits for answers.
func withPatience(next aws.HTTPClient) aws.HTTPClient {
	switch c := next.(type) {
	case nil:
		return withPatience(awshttp.NewBuildableClient())
	case *awshttp.BuildableClient:
		next = c.WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = maxWait })
	}
	return &patient{next: next, silence: maxSilence}
}

// silentError is no answer. Another try would not help.
type silentError struct {
	host string
	wait time.Duration
}

func (e *silentError) Error() string {
	return fmt.Sprintf("%s does not answer within %v: check the network, AWS_REGION and AWS_ENDPOINT_URL", e.host, e.wait)
}

func (p *patient) Do(req *http.Request) (*http.Response, error) {
	if p.answered.Load() || req.ContentLength < 0 || req.ContentLength > maxFirst {
		return p.next.Do(req)
	}
	ctx, cancel := context.WithCancel(req.Context())
	timer := time.AfterFunc(p.silence, cancel)
	resp, err := p.next.Do(req.WithContext(ctx))
	late := !timer.Stop()
	if err == nil {
		p.answered.Store(true)
		resp.Body = &cancelBody{ReadCloser: resp.Body, cancel: cancel}
		return resp, nil
	}
	cancel()
	if late && req.Context().Err() == nil && !p.answered.Load() {
		return nil, &silentError{host: req.URL.Host, wait: p.silence}
	}
	return nil, err
}

// cancelBody ends its request's context when it is closed.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
