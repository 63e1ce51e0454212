package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// pageDelay is how long the S3 server takes for a page.
const pageDelay = 50 * time.Millisecond

// layout is a bucket of n objects, whose keys are computed, not kept. Keys are
// in order.
type layout struct {
	n   int
	key func(i int) string
}

// inFolders spreads n objects over 100 folders.
func inFolders(n int) layout {
	each := max(1, n/100)
	return layout{n, func(i int) string { return fmt.Sprintf("data/folder-%05d/part-%05d.parquet", i/each, i%each) }}
}

// inOneFolder puts n objects into one folder.
func inOneFolder(n int) layout {
	return layout{n, func(i int) string { return fmt.Sprintf("data/part-%08d.parquet", i) }}
}

// s3Server answers ListObjectsV2 for one bucket, slowly.
type s3Server struct {
	layout
	delay time.Duration
	http  *http.Server
	url   string
}

func startS3(l layout, delay time.Duration) (*s3Server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &s3Server{layout: l, delay: delay, url: "http://" + ln.Addr().String()}
	s.http = &http.Server{Handler: s}
	go func() { _ = s.http.Serve(ln) }() // ends with Close
	return s, nil
}

func (s *s3Server) stop() error { return s.http.Close() }

// The parts of the answer that clients read.
type (
	listResult struct {
		XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
		Name                  string
		Prefix                string
		KeyCount              int
		MaxKeys               int
		Delimiter             string `xml:",omitempty"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []s3Object
		CommonPrefixes        []s3Prefix
	}
	s3Object struct {
		Key          string
		LastModified string
		ETag         string
		Size         int64
		StorageClass string
	}
	s3Prefix struct{ Prefix string }
)

func (s *s3Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("x-amz-bucket-region", "us-east-1")
	if r.Method != http.MethodGet || q.Get("list-type") != "2" {
		w.WriteHeader(http.StatusOK) // whether the bucket is there, where it is
		return
	}
	time.Sleep(s.delay)
	maxKeys := 1000
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n < maxKeys {
		maxKeys = n
	}
	prefix, delim := q.Get("prefix"), q.Get("delimiter")
	after := max(q.Get("start-after"), q.Get("continuation-token"))
	res := listResult{Name: "bench", Prefix: prefix, MaxKeys: maxKeys, Delimiter: delim}
	i := s.first(max(prefix, after))
	if after != "" && i < s.n && s.key(i) == after {
		i++
	}
	last := ""
	for i < s.n && strings.HasPrefix(s.key(i), prefix) {
		key := s.key(i)
		folder := ""
		if delim != "" {
			if at := strings.Index(key[len(prefix):], delim); at >= 0 {
				folder = key[:len(prefix)+at+len(delim)]
			}
		}
		if res.KeyCount == maxKeys {
			res.IsTruncated, res.NextContinuationToken = true, last
			break
		}
		if folder != "" {
			last = folder + "\U0010ffff" // behind all keys in it
			i = s.first(last)
			res.CommonPrefixes = append(res.CommonPrefixes, s3Prefix{folder})
			res.KeyCount++
			continue
		}
		res.Contents = append(res.Contents, s3Object{Key: key, LastModified: "2024-05-01T12:00:00.000Z",
			ETag: `"d41d8cd98f00b204e9800998ecf8427e"`, Size: int64(1000 + i%1000), StorageClass: "STANDARD"})
		res.KeyCount++
		last = key
		i++
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).Encode(res)
}

// first is the index of the first key that is not before k.
func (s *s3Server) first(k string) int {
	return sort.Search(s.n, func(i int) bool { return s.key(i) >= k })
}

// environ points the SDK at the server.
func (s *s3Server) environ() []string {
	return environ("AWS_ENDPOINT_URL="+s.url, "AWS_ENDPOINT_URL_S3="+s.url, "AWS_ACCESS_KEY_ID=bench",
		"AWS_SECRET_ACCESS_KEY=bench", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true")
}

// pageByPageArg makes this program the one that lists page by page.
const pageByPageArg = "-list-page-by-page"

// pageByPage lists a bucket as simple programs do, and prints the keys.
func pageByPage(ctx context.Context, base string, out io.Writer) error {
	token := ""
	for {
		u := base + "/bench?list-type=2&prefix=" + url.QueryEscape("data/") + "&continuation-token=" + url.QueryEscape(token)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		var res listResult
		err = xml.NewDecoder(resp.Body).Decode(&res)
		resp.Body.Close()
		if err != nil {
			return err
		}
		for _, o := range res.Contents {
			if _, err := fmt.Fprintln(out, o.Key); err != nil {
				return err
			}
		}
		if !res.IsTruncated {
			return nil
		}
		token = res.NextContinuationToken
	}
}
