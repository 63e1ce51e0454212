package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// rig is a real S3 server with a bucket for stores.
type rig struct {
	*s3server.Server
	n atomic.Int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{Server: s3server.Start(t)}
	c, err := r.store(r.URL, nil).s3.client(t.Context(), cloud.S3Location{Bucket: "stores"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("stores")}); err != nil {
		t.Fatal(err)
	}
	return r
}

// store is a new, empty store, reached through an endpoint.
func (r *rig) store(endpoint string, client *http.Client) *Store {
	return r.open(endpoint, client, fmt.Sprintf("team %d/", r.n.Add(1)))
}

func (r *rig) open(endpoint string, client *http.Client, prefix string) *Store {
	cfg := aws.Config{Region: "us-east-1", BaseEndpoint: &endpoint,
		Credentials: credentials.NewStaticCredentialsProvider(r.Access, r.Secret, ""),
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts, o.MaxBackoff = 4, 20*time.Millisecond
				o.RateLimiter = noLimit{}
			})
		}}
	if client != nil {
		cfg.HTTPClient = client
	}
	return &Store{s3: newS3(cfg), loc: cloud.S3Location{Bucket: "stores"}, prefix: prefix,
		beat: 20 * time.Second, silence: time.Minute, patience: time.Minute}
}

// again is another process's view of a store.
func (r *rig) again(s *Store) *Store { return r.open(r.URL, nil, s.prefix) }

type noLimit struct{}

func (noLimit) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (noLimit) AddTokens(uint) error { return nil }

// proxy passes requests on to the server. spoil may take a request over
// before (return true: it is answered) or after it had its effect.
type proxy struct {
	before func(w http.ResponseWriter, r *http.Request) bool
	after  func(r *http.Request, status int) (drop bool)
}

func (r *rig) proxy(t *testing.T, p *proxy, tls bool) (endpoint string, client *http.Client) {
	t.Helper()
	to, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(to)
			pr.Out.Host = pr.In.Host // it is signed
		},
		ModifyResponse: func(resp *http.Response) error {
			if p.after != nil && p.after(resp.Request, resp.StatusCode) {
				return errors.New("the answer is lost")
			}
			return nil
		},
		// A connection that breaks without an answer.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if p.before == nil || !p.before(w, req) {
			forward.ServeHTTP(w, req)
		}
	})
	server := httptest.NewUnstartedServer(handler)
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server.URL, server.Client()
}

// once is true for the first request that matches.
func once(match func(r *http.Request) bool) func(r *http.Request) bool {
	var done atomic.Bool
	return func(r *http.Request) bool { return match(r) && done.CompareAndSwap(false, true) }
}

func TestStoreOnServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	t.Run("conformance", func(t *testing.T) {
		cloudtest.TestStore(t, func(testing.TB) cloud.Store { return r.store(r.URL, nil) })
	})
	for name, test := range map[string]func(*testing.T, *rig){
		"over tls":                 overTLS,
		"create race of processes": createRace,
		"lost replies":             lostReplies,
		"conflicts under way":      conflictsUnderWay,
		"large objects":            largeObjects,
		"lost reply of an upload":  lostComplete,
		"failing upload":           failingUpload,
		"many objects":             manyObjects,
		"broken downloads":         brokenDownloads,
		"no bucket":                noBucket,
		"denied":                   denied,
		"no credentials":           noCredentials,
		"fencing":                  fencing,
		"fenced while idle":        fencedWhileIdle,
		"a writer that died":       deadWriter,
		"silence":                  silence,
		"lost reply of a segment":  lostSegmentReply,
		"outage":                   outage,
		"long journal":             longJournal,
		"damaged segments":         damagedSegments,
		"a poll is a request":      pollCost,
		"huge records":             hugeRecords,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, r)
		})
	}
}

func TestOpenStoreURL(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	for _, tt := range []struct{ url, want string }{
		{"s3://bucket", "s3://bucket"}, {"s3://bucket/", "s3://bucket"}, {"s3://bucket/a b/c/", "s3://bucket/a b/c"},
		{"s3://", ""}, {"s3:///x", ""}, {"bucket/x", ""}, {"s3://bucket/a//b", ""}, {"s3://bucket/../b", ""},
		{"s3://buc ket", ""}, {"s3://bucket?x", ""}, {"s3://bucket/\xff", ""},
	} {
		s, err := OpenStore(t.Context(), tt.url)
		switch {
		case tt.want == "" && cloud.KindOf(err) != cloud.KindInvalid:
			t.Errorf("%q: %v", tt.url, err)
		case tt.want != "" && (err != nil || s.URL() != tt.want):
			t.Errorf("%q: %v, %v", tt.url, s, err)
		}
	}
}

func mustPut(t *testing.T, s *Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, what string, err error, kind cloud.Kind) {
	t.Helper()
	if err == nil || cloud.KindOf(err) != kind {
		t.Errorf("%s: %v; want kind %q", what, err, kind)
	}
}

func overTLS(t *testing.T, r *rig) {
	endpoint, client := r.proxy(t, &proxy{}, true)
	s := r.store(endpoint, client)
	mustPut(t, s, "a", "x")
	if err := s.Create(t.Context(), "b", []byte("y")); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "create again", s.Create(t.Context(), "b", nil), cloud.KindConflict)
	big := bytes.Repeat([]byte("0123456789"), 2<<20)
	if err := s.PutFrom(t.Context(), "c", io.MultiReader(bytes.NewReader(big))); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "c"); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	j, err := s.OpenJournal(t.Context(), "j")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "a", "b", "c"); err != nil {
		t.Fatal(err)
	}
	if recs := recordsOf(t, s, "j"); !slices.Equal(recs, []string{"one", "two"}) {
		t.Errorf("journal has %q", recs)
	}
}

// createRace: stores that share nothing, as processes do.
func createRace(t *testing.T, r *rig) {
	base := r.store(r.URL, nil)
	for round := range 4 {
		key := fmt.Sprintf("race/%d", round)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 32 {
			s := r.again(base)
			wg.Go(func() {
				switch err := s.Create(t.Context(), key, fmt.Append(nil, i)); {
				case err == nil:
					won.Add(1)
					if got, err := s.Get(t.Context(), key); err != nil || string(got) != fmt.Sprint(i) {
						t.Errorf("the winner %d finds %q, %v", i, got, err)
					}
				case cloud.KindOf(err) != cloud.KindConflict:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d winners", won.Load())
		}
	}
}

// lostReplies: the write had its effect, the answer got lost, and the SDK's
// repetition is told that the object exists.
func lostReplies(t *testing.T, r *rig) {
	var puts atomic.Int32
	drop := once(func(r *http.Request) bool { return r.Method == http.MethodPut })
	endpoint, client := r.proxy(t, &proxy{after: func(r *http.Request, status int) bool {
		if r.Method == http.MethodPut {
			puts.Add(1)
		}
		return drop(r)
	}}, false)
	s := r.store(endpoint, client)
	if err := s.Create(t.Context(), "k", []byte("mine")); err != nil {
		t.Errorf("create whose answer got lost: %v", err)
	}
	if puts.Load() != 2 {
		t.Errorf("%d attempts; want 2", puts.Load())
	}
	wantKind(t, "create again", s.Create(t.Context(), "k", []byte("mine")), cloud.KindConflict)
}

// conflictsUnderWay: 409 says that another write is going on, not who wins.
func conflictsUnderWay(t *testing.T, r *rig) {
	var n atomic.Int32
	endpoint, client := r.proxy(t, &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || n.Add(1) > 3 {
			return false
		}
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `<?xml version="1.0"?><Error><Code>ConditionalRequestConflict</Code><Message>Conflict.</Message></Error>`)
		return true
	}}, false)
	s := r.store(endpoint, client)
	if err := s.Create(t.Context(), "k", nil); err != nil {
		t.Error(err)
	}
	n.Store(0)
	j, err := s.OpenJournal(t.Context(), "j")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func largeObjects(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	rng := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 7*partSize+12345)
	rng.Read(data)
	for _, n := range []int{partSize - 1, partSize, partSize + 1, 2 * partSize, len(data)} {
		// A reader that knows no length and cannot seek.
		if err := s.PutFrom(t.Context(), "big", io.MultiReader(bytes.NewReader(data[:n]))); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got, err := s.Get(t.Context(), "big")
		if err != nil || !bytes.Equal(got, data[:n]) {
			t.Errorf("%d bytes came back as %d, %v", n, len(got), err)
		}
	}
	p := make([]byte, 1000)
	if n, err := s.ReadAt(t.Context(), "big", p, 3*partSize-500); n != 1000 || err != nil || !bytes.Equal(p, data[3*partSize-500:3*partSize+500]) {
		t.Errorf("read %d across parts, %v", n, err)
	}
}

func lostComplete(t *testing.T, r *rig) {
	drop := once(func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") })
	endpoint, client := r.proxy(t, &proxy{after: func(r *http.Request, _ int) bool { return drop(r) }}, false)
	s := r.store(endpoint, client)
	data := bytes.Repeat([]byte{7}, partSize+1)
	if err := s.PutFrom(t.Context(), "big", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "big"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// failingUpload: nothing is left of an upload that fails.
func failingUpload(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	broken := io.MultiReader(bytes.NewReader(make([]byte, 3*partSize)), failing{})
	if err := s.PutFrom(t.Context(), "big", broken); err == nil || !strings.Contains(err.Error(), "line is dead") {
		t.Errorf("put: %v", err)
	}
	_, err := s.Get(t.Context(), "big")
	wantKind(t, "get", err, cloud.KindNotFound)
	c, err := s.s3.client(t.Context(), s.loc)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.loc.Bucket, Prefix: &s.prefix})
	if err != nil || len(out.Uploads) != 0 {
		t.Errorf("%d uploads left, %v", len(out.Uploads), err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("line is dead") }

// manyObjects are more than a page and a batch of deletions hold.
func manyObjects(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	var want []string
	var wg sync.WaitGroup
	keys := make(chan string)
	for range 8 {
		wg.Go(func() {
			for key := range keys {
				if err := s.Put(t.Context(), key, nil); err != nil {
					t.Errorf("put %q: %v", key, err)
				}
			}
		})
	}
	for i := range 1100 {
		want = append(want, fmt.Sprintf("many/%05d", i))
	}
	want = append(want, "many/tab\there", "many/new\nline", "many/a&b<c>\"d'", "many/ü")
	for _, key := range want {
		keys <- key
	}
	close(keys)
	wg.Wait()
	mustPut(t, s, "many-not", "")
	list := func() (got []string) {
		err := s.List(t.Context(), "many", func(o cloud.ObjectInfo) bool { got = append(got, o.Key); return true })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	all := append([]string{"many-not"}, want...)
	slices.Sort(all)
	if got := list(); !slices.Equal(got, all) {
		t.Errorf("listed %d, want %d", len(got), len(all))
	}
	if err := s.Delete(t.Context(), append([]string{"none", "none/too"}, want...)...); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Equal(got, []string{"many-not"}) {
		t.Errorf("left %q", got)
	}
}

// brokenDownloads: an answer that ends in the middle is asked for again.
func brokenDownloads(t *testing.T, r *rig) {
	var n atomic.Int32
	endpoint, client := r.proxy(t, &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || n.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "0123")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}}, false)
	s := r.store(endpoint, client)
	mustPut(t, s, "k", "0123456789")
	if got, err := s.Get(t.Context(), "k"); err != nil || string(got) != "0123456789" {
		t.Errorf("%q, %v", got, err)
	}
	if n.Load() != 3 {
		t.Errorf("%d requests", n.Load())
	}
}

func noBucket(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	s.loc.Bucket = "nowhere"
	_, get := s.Get(t.Context(), "k")
	_, open := s.OpenJournal(t.Context(), "j")
	_, read := s.ReadJournal(t.Context(), "j", 0, func(int64, []byte) error { return nil })
	for what, err := range map[string]error{"get": get, "open journal": open, "read journal": read,
		"put": s.Put(t.Context(), "k", nil), "create": s.Create(t.Context(), "k", nil),
		"list":   s.List(t.Context(), "", func(cloud.ObjectInfo) bool { return true }),
		"delete": s.Delete(t.Context(), "a", "b"), "delete prefix": s.DeletePrefix(t.Context(), "a"),
		"put from": s.PutFrom(t.Context(), "k", strings.NewReader(""))} {
		if cloud.KindOf(err) != cloud.KindInvalid || !strings.Contains(err.Error(), `there is no bucket "nowhere"`) ||
			!strings.Contains(err.Error(), "aws s3 mb s3://nowhere") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func denied(t *testing.T, r *rig) {
	endpoint, client := r.proxy(t, &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		if r.Method != http.MethodHead {
			io.WriteString(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>`)
		}
		return true
	}}, false)
	s := r.store(endpoint, client)
	_, get := s.Get(t.Context(), "k")
	_, alive := s.JournalAlive(t.Context(), "j")
	for permission, err := range map[string]error{
		"s3:GetObject (and s3:ListBucket":     get,
		"s3:PutObject on s3://stores/team":    s.Put(t.Context(), "k", nil),
		"s3:ListBucket on s3://stores":        alive,
		"s3:DeleteObject on s3://stores/team": s.Delete(t.Context(), "k"),
	} {
		if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), permission) {
			t.Errorf("want %q: %v", permission, err)
		}
	}
}

func noCredentials(t *testing.T, r *rig) {
	s := r.store(r.URL, nil)
	s.s3.cfg.Credentials = nil
	_, err := s.Get(t.Context(), "k")
	if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), "no AWS credentials for the store") {
		t.Errorf("get: %v", err)
	}
}
