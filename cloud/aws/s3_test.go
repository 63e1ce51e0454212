package aws

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// testS3 is an S3 that speaks to a handler.
func testS3(t testing.TB, h http.Handler) *S3 {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return newS3(aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(server.URL),
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
			tr.MaxIdleConnsPerHost = maxActive + 8
		}),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	})
}

func TestParsePage(t *testing.T) {
	t.Parallel()
	at := time.Date(2024, 2, 29, 1, 2, 3, 456e6, time.UTC)
	tests := []struct {
		name, xml string
		want      *page
		err       string
	}{
		{"objects and folders, encoded", `<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>a%2F</Prefix>` +
			`<IsTruncated>true</IsTruncated><NextContinuationToken>to&amp;ken==</NextContinuationToken><EncodingType>url</EncodingType>` +
			`<Contents><Key>a/x+y%2Bz%0A%25.csv</Key><LastModified>2024-02-29T01:02:03.456Z</LastModified><ETag>&quot;abc-2&quot;</ETag><Size>7</Size>` +
			`<Owner><ID>Key</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>` +
			`<CommonPrefixes><Prefix>a/%C3%A9%2F</Prefix></CommonPrefixes></ListBucketResult>`,
			&page{objects: []cloud.S3Object{{Key: "a/x y+z\n%.csv", Size: 7, Modified: at, ETag: "abc-2"}}, folders: []string{"a/é/"}, token: "to&ken=="}, ""},
		{"not encoded", `<ListBucketResult><Contents><Key>a+b%41 &lt;&#65;&#x42;&gt;&apos;</Key><Size>0</Size><ETag/></Contents><IsTruncated>false</IsTruncated></ListBucketResult>`,
			&page{objects: []cloud.S3Object{{Key: "a+b%41 <AB>'"}}}, ""},
		{"empty", `<ListBucketResult></ListBucketResult>`, &page{objects: []cloud.S3Object{}}, ""},
		{"cut off", `<ListBucketResult><Contents><Key>a</Key>`, nil, "unexpected EOF"},
		{"cut off in a tag", `<ListBucketResult><Conte`, nil, "unexpected EOF"},
		{"a web page", `<html><body>hi</body></html>`, nil, "is the endpoint an S3 server?"},
		{"no token", `<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>`, nil, "no token"},
		{"bad size", `<ListBucketResult><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>`, nil, `size "x"`},
		{"bad encoding", `<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%zz</Key></Contents></ListBucketResult>`, nil, "not encoded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parsePage([]byte(tt.xml))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(page{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParsePage(f *testing.F) {
	f.Add([]byte(`<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%20</Key><Size>1</Size></Contents></ListBucketResult>`))
	f.Add([]byte(`<ListBucketResult><Contents/><Key>&amp</Key></ListBucketResult>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePage(b); err == nil && p == nil {
			t.Error("neither page nor error")
		}
	})
}

func TestClassify(t *testing.T) {
	t.Parallel()
	api := func(code, msg string) error {
		return &smithy.OperationError{ServiceID: "S3", OperationName: "ListObjectsV2", Err: &smithy.GenericAPIError{Code: code, Message: msg}}
	}
	status := func(n int, err error) error {
		return &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: n}}, Err: err}}
	}
	tests := []struct {
		err  error
		kind cloud.Kind
		want string
	}{
		{api("NoSuchKey", "The specified key does not exist."), cloud.KindNotFound, "the specified key does not exist (NoSuchKey)"},
		{api("NoSuchBucket", ""), cloud.KindInvalid, "NoSuchBucket"},
		{api("AccessDenied", "Access Denied"), cloud.KindDenied, "access Denied (AccessDenied); check that the credentials"},
		{api("ExpiredToken", "x"), cloud.KindDenied, "log in again"},
		{api("SlowDown", "x"), cloud.KindThrottled, "SlowDown"},
		{api("PreconditionFailed", "x"), cloud.KindConflict, ""},
		{api("InternalError", "x"), cloud.KindTransient, ""},
		{api("InvalidBucketName", "x"), cloud.KindInvalid, ""},
		{api("SomethingNew", "x"), cloud.KindOther, "SomethingNew"},
		{status(403, api("SomethingNew", "x")), cloud.KindDenied, "SomethingNew"},
		{status(404, errors.New("x")), cloud.KindNotFound, ""},
		{status(409, errors.New("x")), cloud.KindConflict, ""},
		{status(429, errors.New("x")), cloud.KindThrottled, ""},
		{status(503, errors.New("x")), cloud.KindThrottled, ""},
		{status(500, errors.New("x")), cloud.KindTransient, ""},
		{fmt.Errorf("get: %w", &net.DNSError{Name: "nowhere.example", IsNotFound: true}), cloud.KindTransient, "no address for nowhere.example"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}, cloud.KindTransient, "connection refused"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, cloud.KindTransient, "check the network and AWS_ENDPOINT_URL"},
		{fmt.Errorf("send: %w", tls.RecordHeaderError{Msg: "no handshake"}), cloud.KindOther, "does the server at AWS_ENDPOINT_URL speak https?"},
		{io.ErrUnexpectedEOF, cloud.KindTransient, ""},
		{errors.New("odd"), cloud.KindOther, "odd"},
	}
	for _, tt := range tests {
		err := mapError(t.Context(), "list", "s3://b", tt.err)
		if cloud.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "list s3://b: ") {
			t.Errorf("%v: got %v: %v, want %v with %q", tt.err, cloud.KindOf(err), err, tt.kind, tt.want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the run was cancelled")
	cancel(cause)
	if err := mapError(ctx, "list", "x", io.EOF); !errors.Is(err, cause) {
		t.Errorf("after a cancel: %v", err)
	}
}

func TestPathStyle(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]bool{
		"https://s3.eu-west-1.amazonaws.com": true, "https://s3.cn-north-1.amazonaws.com.cn": true,
		"http://127.0.0.1:9000": false, "http://localhost:9000": false, "https://minio.example.com": false, "http://[::1]:9000": false, ":": false,
	} {
		if got := isAmazon(endpoint); got != want {
			t.Errorf("isAmazon(%q) = %v", endpoint, got)
		}
	}
}

// TestRegion asks in the wrong region first, as AWS answers to that.
func TestRegion(t *testing.T) {
	t.Parallel()
	var asked []string
	var mu sync.Mutex
	s := testS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		region := strings.Split(r.Header.Get("Authorization"), "/")[2]
		asked = append(asked, r.Method+" "+region)
		w.Header().Set("X-Amz-Bucket-Region", "eu-central-1")
		if region != "eu-central-1" {
			w.WriteHeader(http.StatusMovedPermanently)
			io.WriteString(w, `<Error><Code>PermanentRedirect</Code><Message>wrong region</Message></Error>`)
			return
		}
		if r.Header.Get("X-Amz-Request-Payer") != "requester" {
			t.Error("a requester-pays listing does not say so")
		}
		io.WriteString(w, `<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>`)
	}))
	loc := cloud.S3Location{Bucket: "b", RequesterPays: true}
	for range 2 {
		n := 0
		if err := s.List(t.Context(), loc, everything(""), func(cloud.S3Object) error { n++; return nil }); err != nil || n != 1 {
			t.Fatal(n, err)
		}
	}
	if want := []string{"GET us-east-1", "GET eu-central-1", "GET eu-central-1"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// TestRegionInTheText asks a server in the wrong region that names its own
// only in the text of its refusals, which those of HEAD have not.
func TestRegionInTheText(t *testing.T) {
	t.Parallel()
	s := testS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if region := strings.Split(r.Header.Get("Authorization"), "/")[2]; region != "eu-central-1" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; `+
				`the region "%s" is wrong; expecting "eu-central-1"</Message></Error>`, region)
			return
		}
		io.WriteString(w, `<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>`)
	}))
	if look, err := s.Look(t.Context(), cloud.S3Location{Bucket: "b"}, "k"); err != nil || !look.Found {
		t.Errorf("look: %v, %v", look.Found, err)
	}
	n := 0
	if err := s.List(t.Context(), cloud.S3Location{Bucket: "other"}, everything(""), func(cloud.S3Object) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("list: %d objects, %v", n, err)
	}
}

// TestSilentServer asks where nobody answers: once, and not for long.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	over := make(chan struct{})
	s := testS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); r.URL.Query().Get("prefix") == "well" {
			io.WriteString(w, `<ListBucketResult></ListBucketResult>`)
			return
		}
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(over) })
	s.cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(hopeless)}, o.Retryables...)
		})
	}
	p := s.cfg.HTTPClient.(*patient)
	p.silence = 50 * time.Millisecond
	loc := cloud.S3Location{Bucket: "b"}
	err := s.List(t.Context(), loc, everything(""), nil)
	if cloud.KindOf(err) != cloud.KindTransient || !strings.Contains(err.Error(), "does not answer within 50ms: check the network, AWS_REGION and AWS_ENDPOINT_URL") || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	// Who has answered once is only slow.
	p.silence = time.Minute
	if err := s.List(t.Context(), loc, everything("well"), nil); err != nil {
		t.Error(err)
	}
	p.silence = 0
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("we stopped"))
	defer cancel()
	if err := s.List(ctx, loc, everything(""), nil); err == nil || !strings.Contains(err.Error(), "we stopped") {
		t.Errorf("a slow server: %v", err)
	}
}

// TestOtherProtocol asks a server that does not speak TLS, once.
func TestOtherProtocol(t *testing.T) {
	t.Parallel()
	for _, err := range []error{tls.RecordHeaderError{Msg: "x"}, &tls.CertificateVerificationError{Err: errors.New("x")}, syscall.ECONNREFUSED} {
		if hopeless(fmt.Errorf("request: %w", err)) != aws.FalseTernary {
			t.Errorf("%T is tried again", err)
		}
	}
	if hopeless(syscall.ECONNRESET) != aws.UnknownTernary {
		t.Error("a reset connection is not tried again")
	}
}

func TestAnonymous(t *testing.T) {
	t.Parallel()
	s := testS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("an anonymous request is signed")
		}
		io.WriteString(w, `<ListBucketResult></ListBucketResult>`)
	}))
	s.cfg.Credentials = nil
	if err := s.List(t.Context(), cloud.S3Location{Bucket: "b", Anonymous: true}, everything(""), nil); err != nil {
		t.Error(err)
	}
	err := s.List(t.Context(), cloud.S3Location{Bucket: "b"}, everything(""), nil)
	if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), "AWS_PROFILE") {
		t.Errorf("without credentials: %v", err)
	}
	refusing := testS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>`)
	}))
	err = refusing.List(t.Context(), cloud.S3Location{Bucket: "b", Anonymous: true}, everything(""), nil)
	if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), "this is not public; without anonymous: true your credentials are used") {
		t.Errorf("a private bucket: %v", err)
	}
}

// TestOpenGoesOn reads over a connection that breaks.
func TestOpenGoesOn(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("0123456789"), 1000)
	changed := atomic.Bool{}
	s := testS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := 0
		if rg := r.Header.Get("Range"); rg != "" {
			from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rg, "bytes="), "-"))
			if r.Header.Get("If-Match") != `"v1"` {
				t.Error("the rest is read without asking for the same object")
			}
			if changed.Load() {
				w.WriteHeader(http.StatusPreconditionFailed)
				io.WriteString(w, `<Error><Code>PreconditionFailed</Code></Error>`)
				return
			}
		}
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(body[from:min(from+3000, len(body))]) // and then the connection ends
	}))
	read := func() ([]byte, error) {
		r, err := s.Open(t.Context(), cloud.S3Location{Bucket: "b"}, "k")
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	if got, err := read(); err != nil || !bytes.Equal(got, body) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	changed.Store(true)
	if _, err := read(); cloud.KindOf(err) != cloud.KindConflict {
		t.Errorf("an object that changed: %v", err)
	}
}

// slowServer is an S3 server whose pages take a while.
func slowServer(keys []string, wait time.Duration) http.Handler {
	slices.Sort(keys)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		q := r.URL.Query()
		b := fakeBucket{keys: keys, pageSize: 1000}
		p, _ := b.page(r.Context(), pageQuery{prefix: q.Get("prefix"), after: q.Get("start-after"), token: q.Get("continuation-token"), folders: q.Get("delimiter") == "/"})
		out := make([]byte, 0, 300<<10)
		out = fmt.Appendf(out, `<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>%v</IsTruncated>`, p.token != "")
		if p.token != "" {
			out = fmt.Appendf(out, `<NextContinuationToken>%s</NextContinuationToken>`, p.token)
		}
		for _, o := range p.objects {
			out = append(append(out, `<Contents><Key>`...), url.QueryEscape(o.Key)...)
			out = append(out, `</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>`...)
		}
		for _, f := range p.folders {
			out = fmt.Appendf(out, `<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>`, url.QueryEscape(f))
		}
		w.Write(append(out, `</ListBucketResult>`...))
	})
}

// BenchmarkList lists 200,000 objects of a server that takes 50 ms a page and
// compares with one page after the other (of which it does a tenth).
func BenchmarkList(b *testing.B) {
	shapes := map[string]func(i int) string{
		"folders": func(i int) string { return fmt.Sprintf("data/f%03d/part-%06d.csv", i%100, i) },
		"flat":    func(i int) string { return fmt.Sprintf("data/part-%06d.csv", i) },
		"hashes":  func(i int) string { return fmt.Sprintf("data/%08x.csv", uint32(i)*2654435761) },
	}
	for _, name := range []string{"folders", "flat", "hashes"} {
		b.Run(name, func(b *testing.B) {
			keys := make([]string, 200_000)
			for i := range keys {
				keys[i] = shapes[name](i)
			}
			sort.Strings(keys)
			s := testS3(b, slowServer(keys, 50*time.Millisecond))
			loc := cloud.S3Location{Bucket: "b"}
			var ours, theirs time.Duration
			for b.Loop() {
				start := time.Now()
				n := 0
				if err := s.List(b.Context(), loc, everything("data/"), func(cloud.S3Object) error { n++; return nil }); err != nil || n != len(keys) {
					b.Fatal(n, err)
				}
				ours += time.Since(start)
				start = time.Now()
				q := pageQuery{prefix: "data/"}
				for range 20 {
					p, err := s.page(b.Context(), loc, q)
					if err != nil {
						b.Fatal(err)
					}
					q.token = p.token
				}
				theirs += 10 * time.Since(start)
			}
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "x-sequential")
		})
	}
}
