package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/hardware"
)

// What the account allows is said before anything is rented; where that cannot
// be found out soon, the run goes on without.
func TestQuotasComeBeforeTheBill(t *testing.T) {
	t.Parallel()
	const pipeline = "name: p\ncloud: aws\nfunctions:\n  f:\n    map: {range: 66}\n    command: [x]\n    hardware: {vm_type: m6i.large, spot_policy: spot}\n"
	for name, c := range map[string]struct {
		text  string
		quota func(ctx context.Context, _, _ string, spot bool) (*Quota, error)
		want  string
		read  bool
	}{
		"too few": {pipeline, func(context.Context, string, string, bool) (*Quota, error) {
			return &Quota{Code: "L-34B43A08", Link: "https://here", VCPUs: 5}, nil
		}, "your account may start 5 spot vCPUs; this plan wants 132: raise L-34B43A08 at https://here, or it will take 26 times longer", true},
		"enough": {pipeline, func(context.Context, string, string, bool) (*Quota, error) { return &Quota{VCPUs: 132}, nil }, "", true},
		"as many as the work is worth": {strings.Replace(pipeline, "command:", "expect: 30s\n    command:", 1),
			func(context.Context, string, string, bool) (*Quota, error) { return &Quota{VCPUs: 34}, nil }, "", true},
		"not allowed":          {pipeline, func(context.Context, string, string, bool) (*Quota, error) { return nil, errors.New("not allowed") }, "", false},
		"not heard of in time": {pipeline, func(ctx context.Context, _, _ string, _ bool) (*Quota, error) { <-ctx.Done(); return nil, ctx.Err() }, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cloud := newCloud(t)
			e := cloud.engine()
			e.AWS.Quota = c.quota
			o := ApplyOptions{File: write(t, "pipeline.yaml", c.text)}
			p, err := e.Plan(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			no := errors.New("no")
			asked := false
			o.Confirm = func(q *Quote) error {
				asked = true
				if got := strings.Join(q.Warnings, "\n"); got != c.want || q.quotas != c.read {
					t.Errorf("read %v: %q, want %q", q.quotas, got, c.want)
				}
				return no
			}
			began := time.Now()
			if _, err := e.Apply(t.Context(), p, o); !errors.Is(err, no) || !asked {
				t.Errorf("%v", err)
			}
			if took := time.Since(began); took > quotaPatience+10*time.Second {
				t.Errorf("it took %s", took)
			}
			if n := cloud.region.Count("launch"); n > 0 {
				t.Errorf("%d launches", n)
			}
		})
	}
}

// Machines of several groups have limits each: where the cheapest choice cannot
// be had, what counts is the next that can.
func TestQuotasOfSeveralGroups(t *testing.T) {
	t.Parallel()
	choice := func(name string, vcpus int, price float64) hardware.Choice {
		return hardware.Choice{Offer: hardware.Offer{Type: hardware.Type{Name: name, VCPUs: vcpus}, OnDemand: 2 * price, Spot: map[string]float64{"": price}}, Price: price}
	}
	choices := []hardware.Choice{choice("x2iedn.xlarge", 4, 0.3), choice("x2iedn.2xlarge", 8, 0.5), choice("r6a.4xlarge", 16, 0.36)}
	const next = "your account may start no x2iedn.xlarge, the cheapest choice; r6a.4xlarge and others like it are rented, at $0.3600 an hour where it is $0.3000: raise L-X"
	for _, c := range []struct {
		market      string
		x, standard int
		want        string
	}{
		{hardware.Spot, 40, 0, ""},
		{hardware.Spot, 0, 160, next},
		{hardware.SpotWithFallback, 3, 160, next},
		{hardware.Spot, 0, 32, next + "\nyour account may start 32 spot vCPUs; this plan wants 160: raise L-Standard, or it will take 5 times longer"},
		{hardware.OnDemand, 4, 160, "your account may start 4 on-demand vCPUs; this plan wants 40: raise L-X, or it will take 10 times longer"},
		{hardware.Spot, 3, 5, "your account may start 3 spot vCPUs; this plan wants 40: raise L-X, or it cannot start: a machine has 4"},
	} {
		e := &Engine{AWS: &AWS{Quota: func(_ context.Context, _, instanceType string, _ bool) (*Quota, error) {
			if strings.HasPrefix(instanceType, "x") {
				return &Quota{Code: "L-X", VCPUs: c.x}, nil
			}
			return &Quota{Code: "L-Standard", VCPUs: c.standard}, nil
		}}}
		got, all := e.quotas(t.Context(), []quotaWant{{"us-east-1", c.market, 10, choices}})
		if text := strings.Join(got, "\n"); text != c.want || !all {
			t.Errorf("%s, %d and %d:\n got %s\nwant %s", c.market, c.x, c.standard, text, c.want)
		}
	}
}
