package aws

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// at is a configuration for a server that answers with handle.
func at(t *testing.T, handle http.HandlerFunc) aws.Config {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return aws.Config{Region: "us-east-1", BaseEndpoint: aws.String(server.URL), HTTPClient: server.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}
}

func TestReadQuota(t *testing.T) {
	t.Parallel()
	cfg := at(t, func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil || !strings.Contains(string(body), `"ServiceCode":"ec2"`) {
			t.Errorf("%s, %v", body, err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch {
		case strings.Contains(string(body), "L-34B43A08"):
			io.WriteString(w, `{"Quota":{"QuotaCode":"L-34B43A08","ServiceCode":"ec2","Value":5.0,"Unit":"None"}}`)
		case strings.Contains(string(body), "L-1216C47A"):
			io.WriteString(w, `{"Quota":{"QuotaCode":"L-1216C47A"}}`)
		default:
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"__type":"AccessDeniedException","Message":"not allowed"}`)
		}
	})
	q, ok, err := readQuota(t.Context(), cfg, "m6i.xlarge", true)
	if err != nil || !ok || q.VCPUs != 5 || q.Code != "L-34B43A08" || !strings.Contains(q.Link, "us-east-1.console.aws.amazon.com/servicequotas") {
		t.Errorf("%+v, %v, %v", q, ok, err)
	}
	if _, ok, err := readQuota(t.Context(), cfg, "m6i.xlarge", false); ok || err != nil {
		t.Errorf("a quota without a value: %v, %v", ok, err)
	}
	if _, ok, err := readQuota(t.Context(), cfg, "inf2.xlarge", true); ok || err != nil {
		t.Errorf("a family without a known quota: %v, %v", ok, err)
	}
	if _, _, err := readQuota(t.Context(), cfg, "p5.48xlarge", true); cloud.KindOf(err) != cloud.KindDenied {
		t.Errorf("%v", err)
	}
}

func TestBucketRegion(t *testing.T) {
	t.Parallel()
	asked := 0
	s := newS3(at(t, func(w http.ResponseWriter, req *http.Request) {
		asked++
		if req.Method != http.MethodHead {
			t.Errorf("%s %s", req.Method, req.URL)
		}
		switch {
		case strings.HasPrefix(req.URL.Path, "/here"):
		case strings.HasPrefix(req.URL.Path, "/mine"):
			w.Header().Set("X-Amz-Bucket-Region", "us-west-2")
		case strings.HasPrefix(req.URL.Path, "/theirs"): // may not be looked into
			w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
			w.WriteHeader(http.StatusForbidden)
		case strings.HasPrefix(req.URL.Path, "/far"):
			w.Header().Set("X-Amz-Bucket-Region", "ap-south-1")
			w.WriteHeader(http.StatusMovedPermanently)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	for bucket, want := range map[string]string{"here": "us-east-1", "mine": "us-west-2", "theirs": "eu-west-1", "far": "ap-south-1"} {
		for range 2 {
			if got, err := s.Region(t.Context(), bucket); got != want || err != nil {
				t.Errorf("%s: %q, %v; want %s", bucket, got, err, want)
			}
		}
	}
	if asked != 4 {
		t.Errorf("%d requests for 4 buckets", asked)
	}
	if got, err := s.Region(t.Context(), "nowhere"); cloud.KindOf(err) != cloud.KindNotFound {
		t.Errorf("%q, %v", got, err)
	}
}
