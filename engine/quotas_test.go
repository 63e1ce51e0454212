package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
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
