package aws

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// checksOf is the checks by name; of several the worst.
func checksOf(list []Check) map[string]Check {
	rank := map[string]int{"ok": 0, "warn": 1, "fail": 2}
	m := map[string]Check{}
	for _, c := range list {
		if old, ok := m[c.Name]; !ok || rank[c.State] > rank[old.State] {
			m[c.Name] = c
		}
	}
	return m
}

// The doctor names what is wrong: a permission that is missing, a clock that is
// off, an account that was not set up.
func TestDoctor(t *testing.T) {
	server := motoserver.Start(t, motoserver.Options{})
	server.Setenv(t)
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var refuse []string
	var skew time.Duration
	pass := httputil.NewSingleHostReverseProxy(target)
	pass.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(-skew).UTC().Format(http.TimeFormat))
		return nil
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		for _, what := range refuse {
			if strings.Contains(string(body), what) || r.Header.Get("X-Amz-Target") == what {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation. User: arn:aws:sts::1:assumed-role/dev/me</Message></Error></Errors><RequestID>r</RequestID></Response>`)
				return
			}
		}
		if strings.Contains(string(body), "Action=RunInstances") && !strings.Contains(string(body), "ResourceType=network-interface") {
			t.Error("a machine is tried whose network interface the policies would not allow: it has no tag")
		}
		pass.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	t.Setenv("AWS_ENDPOINT_URL", proxy.URL)
	ctx := t.Context()

	got := checksOf(CheckAccount(ctx, "", ""))
	for name, want := range map[string]string{"aws": "ok", "aws clock": "ok", "aws store": "fail", "aws role": "fail", "aws spot": "warn", "aws network": "ok", "aws launch": "ok"} {
		if got[name].State != want {
			t.Errorf("not set up: %+v, want %s", got[name], want)
		}
	}
	if !strings.Contains(got["aws store"].Advice, "setup aws --region us-east-1") {
		t.Errorf("%+v", got["aws store"])
	}
	s, err := PlanSetup(ctx, SetupOptions{})
	if err == nil {
		err = s.Do(ctx, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range CheckAccount(ctx, "", "") {
		if c.State == "fail" {
			t.Errorf("set up: %+v", c)
		}
	}
	refuse, skew = []string{"Action=RunInstances", "Action=CreateFleet"}, 2*time.Minute
	got = checksOf(CheckAccount(ctx, "", ""))
	if c := got["aws launch"]; c.State != "fail" || !strings.Contains(c.Detail, "ec2:RunInstances, iam:PassRole, ec2:CreateFleet") || !strings.Contains(c.Advice, "--policy person") ||
		strings.Contains(c.Detail, "CreateLaunchTemplate") {
		t.Errorf("%+v", c)
	}
	if c := got["aws clock"]; c.State != "fail" || !strings.Contains(c.Detail, "2m0s ahead of") && !strings.Contains(c.Detail, "2m1s ahead of") {
		t.Errorf("%+v", c)
	}
	skew = -2 * time.Minute
	if c := checksOf(CheckAccount(ctx, "", ""))["aws clock"]; c.State != "fail" || !strings.Contains(c.Detail, "behind") {
		t.Errorf("%+v", c)
	}
	skew, refuse = 0, []string{"Action=DescribeSubnets"}
	if c := checksOf(CheckAccount(ctx, "", ""))["aws network"]; c.State != "fail" || !strings.Contains(c.Detail, "ec2:DescribeSubnets") {
		t.Errorf("%+v", c)
	}
	// Its rest works on; and what is not the account's bucket is looked at.
	refuse = nil
	cfg, err := regionConfig(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	client := ec2.NewFromConfig(cfg)
	subnets, err := client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("default-for-az", "true")}})
	if err == nil {
		_, err = client.ModifySubnetAttribute(ctx, &ec2.ModifySubnetAttributeInput{SubnetId: subnets.Subnets[0].SubnetId,
			MapPublicIpOnLaunch: &types.AttributeBooleanValue{Value: aws.Bool(false)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if c := checksOf(CheckAccount(ctx, "", ""))["aws network"]; c.State != "warn" || !strings.Contains(c.Detail, "1 of ") || !strings.Contains(c.Detail, "no public address") {
		t.Errorf("%+v", c)
	}
	if c := checksOf(CheckAccount(ctx, "", "s3://none-of-mine"))["aws store"]; c.State != "fail" {
		t.Errorf("%+v", c)
	}
	if c := checksOf(CheckAccount(ctx, "eu-west-1", s.Account.storeURL()))["aws store"]; c.State != "warn" || !strings.Contains(c.Advice, "AWS_REGION=us-east-1") {
		t.Errorf("%+v", c)
	}
	if list := CheckAccount(ctx, "x y", ""); len(list) != 1 || list[0].State != "fail" {
		t.Errorf("%+v", list)
	}
}

func (a Account) storeURL() string { return bucketURL(BucketName(a.ID, a.Region), "") }

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		l     Limit
		state string
		text  string
	}{
		{Limit{Quota: Quota{Name: "Standard", VCPUs: 5, Link: "https://x"}, Spot: true}, "warn", "raise it at https://x"},
		{Limit{Quota: Quota{Name: "Standard", VCPUs: 256, Link: "https://x"}}, "ok", ""},
		{Limit{Quota: Quota{Name: "G and VT", Link: "https://x"}, GPU: true}, "ok", "GPU"},
		{Limit{Quota: Quota{Name: "Standard", Link: "https://x"}, Err: errNoQuota}, "warn", "see it at https://x"},
	} {
		if c := tt.l.check(); c.State != tt.state || !strings.Contains(c.Advice, tt.text) {
			t.Errorf("%+v: %+v", tt.l, c)
		}
	}
}
