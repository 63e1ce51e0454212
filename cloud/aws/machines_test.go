package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

func machinesOn(f interface {
	ec2API
	ssmAPI
}, o MachinesOptions) *Machines {
	if o.Types == nil {
		o.Types = []string{"m7i.large"}
	}
	return newMachines(f, f, "eu-north-1", o)
}

func TestMachinesConformance(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]func() *cloudtest.Region{
		"plain": func() *cloudtest.Region { return &cloudtest.Region{Default: 30} },
		"hidden": func() *cloudtest.Region {
			return &cloudtest.Region{Default: 30, Hidden: 300 * time.Millisecond, Boot: time.Hour}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cloudtest.TestMachines(t, func(testing.TB) cloud.Machines { return machinesOn(newFakeEC2(r()), MachinesOptions{}) })
		})
	}
}

func asking(n int, spot string, types ...string) cloud.MachineSpec {
	return cloud.MachineSpec{Run: "run", Pool: "p", Token: "t", Count: n, Spot: spot, Types: types}
}

// How a launch deals with pools, markets and limits, in virtual time.
func TestLaunch(t *testing.T) {
	t.Parallel()
	pool := func(instanceType, zone string, spot bool) cloudtest.Pool {
		return cloudtest.Pool{Type: instanceType, Zone: zone, Spot: spot}
	}
	tests := []struct {
		name   string
		region *cloudtest.Region
		fake   func(*fakeEC2)
		spec   cloud.MachineSpec

		spot, onDemand int
		kind           cloud.Kind
		text           string // in the error
		requests       int
		took           time.Duration // at most; 0: no time
	}{
		{name: "spot", region: &cloudtest.Region{Default: 100}, spec: asking(250, "spot", "m7i.large", "m6i.large"), spot: 250, requests: 3},
		{name: "on-demand", region: &cloudtest.Region{Default: 100}, spec: asking(3, "on-demand", "m7i.large"), onDemand: 3, requests: 1},
		{name: "default policy", region: &cloudtest.Region{Default: 100}, spec: asking(3, "", "m7i.large"), spot: 3, requests: 1},
		// 30 of spot, nothing in the retry wave (all pools are left out), then on-demand.
		{name: "fallback", region: &cloudtest.Region{Default: 100, Capacity: map[cloudtest.Pool]int{
			pool("m7i.large", "a", true): 10, pool("m7i.large", "b", true): 20, pool("m7i.large", "c", true): 0}},
			spec: asking(50, "spot_with_fallback", "m7i.large"), spot: 30, onDemand: 20, requests: 2},
		{name: "spot alone is short", region: &cloudtest.Region{Capacity: map[cloudtest.Pool]int{pool("m7i.large", "b", true): 4}},
			spec: asking(50, "spot", "m7i.large"), spot: 4, kind: cloud.KindNoCapacity, text: "4 of 50 machines", requests: 1},
		{name: "nothing anywhere", spec: asking(1, "spot_with_fallback", "m7i.large"), kind: cloud.KindNoCapacity, text: "launch m7i.large in eu-north-1: 0 of 1 machines", requests: 2},
		{name: "spot limit", region: &cloudtest.Region{Default: 100, VCPUs: map[bool]int{true: 5}},
			spec: asking(10, "spot_with_fallback", "m7i.large"), spot: 2, onDemand: 8, requests: 2},
		{name: "spot limit alone", region: &cloudtest.Region{Default: 100, VCPUs: map[bool]int{true: 0}}, spec: asking(10, "spot", "g4dn.xlarge"),
			kind: cloud.KindQuota, text: `"All G and VT Spot Instance Requests" (L-3819A6DF), counted in vCPUs, is used up; see and raise it at https://eu-north-1.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/L-3819A6DF`, requests: 1},
		{name: "both limits", region: &cloudtest.Region{Default: 100, VCPUs: map[bool]int{true: 0, false: 9}}, spec: asking(10, "spot_with_fallback", "m7i.large"),
			onDemand: 4, kind: cloud.KindQuota, text: "4 of 10 machines: the account's quota \"Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances\" (L-1216C47A)", requests: 2},
		{name: "throttled", region: &cloudtest.Region{Default: 1000, Rates: map[string]cloudtest.Rate{"launch": {Burst: 2, PerSecond: 1}}},
			spec: asking(900, "spot", "m7i.large"), spot: 900, requests: 0, took: time.Minute},
		{name: "throttled pools are no capacity failure", region: &cloudtest.Region{Default: 100}, fake: func(f *fakeEC2) { f.throttled = 3 },
			spec: asking(10, "spot_with_fallback", "m7i.large"), spot: 10, requests: 4, took: 10 * time.Second},
		{name: "throttled for long", region: &cloudtest.Region{Default: 100}, fake: func(f *fakeEC2) { f.throttled = 1000 },
			spec: asking(10, "spot_with_fallback", "m7i.large"), kind: cloud.KindThrottled, text: "RequestLimitExceeded", took: time.Minute},
		{name: "template not known yet", region: &cloudtest.Region{Default: 100}, fake: func(f *fakeEC2) { f.late = 3 * time.Second },
			spec: asking(2, "spot", "m7i.large"), spot: 2, took: 10 * time.Second},
		{name: "no role for spot", region: &cloudtest.Region{Default: 100}, fake: func(f *fakeEC2) { f.roleless = true },
			spec: asking(2, "spot_with_fallback", "m7i.large"), kind: cloud.KindDenied, text: "create-service-linked-role", requests: 1},
		{name: "wrong policy", spec: asking(2, "cheap", "m7i.large"), kind: cloud.KindInvalid, text: `spot_policy "cheap"`},
		{name: "two architectures", spec: asking(2, "spot", "m7i.large", "m7g.large"), kind: cloud.KindInvalid, text: "m7g.large is arm64"},
		{name: "another region", spec: cloud.MachineSpec{Run: "run", Count: 1, Types: []string{"m7i.large"}, Region: "us-west-2"}, kind: cloud.KindInvalid, text: "us-west-2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakeEC2(tt.region)
				if tt.region == nil {
					f.region = &cloudtest.Region{}
				}
				if tt.fake != nil {
					tt.fake(f)
				}
				m := machinesOn(f, MachinesOptions{Price: func(string, string, bool) float64 { return 0.25 }})
				start := time.Now()
				got, err := m.Launch(t.Context(), tt.spec)
				if took := time.Since(start); took > tt.took {
					t.Errorf("took %v", took)
				}
				if (err == nil) != (tt.kind == 0) || cloud.KindOf(err) != tt.kind || err != nil && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error of kind %q: %v", cloud.KindOf(err), err)
				}
				live := f.region.Live()
				spot := 0
				for i, x := range got {
					if x.Spot {
						spot++
					}
					if x.Run != "run" || x.Pool != "p" || x.Zone == "" || x.Type == "" || x.State != "pending" || x.PricePerHour != 0.25 || x.Launched.IsZero() {
						t.Fatalf("machine %d: %+v", i, x)
					}
				}
				if spot != tt.spot || len(got)-spot != tt.onDemand || len(live) != len(got) {
					t.Errorf("%d spot, %d on-demand, %d live; want %d and %d", spot, len(got)-spot, len(live), tt.spot, tt.onDemand)
				}
				if tt.requests > 0 && len(f.requests) != tt.requests {
					t.Errorf("%d requests, want %d", len(f.requests), tt.requests)
				}
				tokens := map[string]string{}
				for _, r := range f.requests {
					token := *r.ClientToken
					if was, ok := tokens[token]; ok && was != wire(r) {
						t.Error("one token for two requests")
					}
					if tokens[token] = wire(r); len(token) > 64 || *r.TargetCapacitySpecification.TotalTargetCapacity > 100 {
						t.Errorf("token %q, %d machines", token, *r.TargetCapacitySpecification.TotalTargetCapacity)
					}
				}
				// The same token is the same launch, whatever came of it.
				if tt.kind == 0 || tt.kind == cloud.KindQuota || tt.kind == cloud.KindNoCapacity {
					again, err2 := m.Launch(t.Context(), tt.spec)
					if !slices.Equal(again, got) || fmt.Sprint(err2) != fmt.Sprint(err) || len(f.region.Live()) != len(live) {
						t.Errorf("the same token again: %d machines, %v", len(again), err2)
					}
				}
			})
		})
	}
}

// What a request says.
func TestFleetRequest(t *testing.T) {
	t.Parallel()
	f := newFakeEC2(&cloudtest.Region{Default: 1})
	m := machinesOn(f, MachinesOptions{Template: func(s cloud.MachineSpec) (Template, error) {
		return Template{Pipeline: "taxi", Owner: "me", Expires: time.Unix(1700000000, 0), UserData: []byte("#!/bin/bash\n"), Profile: "machine",
			Subnets: []string{"subnet-b2", "subnet-b", "subnet-a"}}, nil
	}})
	s := asking(5, "spot_with_fallback", "m7g.large", "c7g.xlarge")
	s.DiskGB, s.Tags = 50, map[string]string{"team": "data", tagRun: "forged"}
	if _, err := m.Launch(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	spot, onDemand := f.requests[0], f.requests[1]
	if spot.Type != types.FleetTypeInstant || spot.SpotOptions.AllocationStrategy != types.SpotAllocationStrategyPriceCapacityOptimized || spot.OnDemandOptions != nil ||
		spot.TargetCapacitySpecification.DefaultTargetCapacityType != "spot" || *spot.TargetCapacitySpecification.TotalTargetCapacity != 5 {
		t.Errorf("spot: %s", wire(spot))
	}
	if onDemand.OnDemandOptions.AllocationStrategy != types.FleetOnDemandAllocationStrategyLowestPrice || onDemand.SpotOptions != nil ||
		*onDemand.TargetCapacitySpecification.TotalTargetCapacity != 1 || *spot.ClientToken == *onDemand.ClientToken {
		t.Errorf("on-demand: %s", wire(onDemand))
	}
	var pools []string
	for _, o := range spot.LaunchTemplateConfigs[0].Overrides {
		pools = append(pools, string(o.InstanceType)+" "+*o.SubnetId)
	}
	if want := []string{"m7g.large subnet-b2", "m7g.large subnet-a", "c7g.xlarge subnet-b2", "c7g.xlarge subnet-a"}; !slices.Equal(pools, want) {
		t.Errorf("pools %q, want %q", pools, want)
	}
	want := map[string]string{"coiled-jobs:run": "run", "coiled-jobs:pool": "p", "coiled-jobs:pipeline": "taxi", "coiled-jobs:owner": "me",
		"coiled-jobs:expires-at": "2023-11-14T22:13:20Z", "Name": "coiled-jobs run", "team": "data"}
	name := *spot.LaunchTemplateConfigs[0].LaunchTemplateSpecification.LaunchTemplateName
	template := f.templates[name].in
	if got := tagMap(template.TagSpecifications, types.ResourceTypeLaunchTemplate); !maps.Equal(got, want) {
		t.Errorf("tags of the template: %v", got)
	}
	want[tagLaunch] = launchID(s)
	for _, kind := range []types.ResourceType{types.ResourceTypeFleet, types.ResourceTypeInstance, types.ResourceTypeVolume} {
		if got := tagMap(spot.TagSpecifications, kind); !maps.Equal(got, want) {
			t.Errorf("tags of the %s: %v", kind, got)
		}
	}
	d := template.LaunchTemplateData
	disk := d.BlockDeviceMappings[0]
	if *d.ImageId != "ami-arm64" || d.InstanceInitiatedShutdownBehavior != "terminate" || d.MetadataOptions.HttpTokens != "required" || d.KeyName != nil ||
		*d.UserData != "IyEvYmluL2Jhc2gK" || *d.IamInstanceProfile.Name != "machine" || !slices.Equal(d.SecurityGroupIds, []string{"sg-1"}) ||
		*disk.DeviceName != "/dev/sda1" || !*disk.Ebs.Encrypted || disk.Ebs.VolumeType != "gp3" || *disk.Ebs.VolumeSize != 50 || !*disk.Ebs.DeleteOnTermination {
		t.Errorf("template: %s", wire(d))
	}
	// Another launch of the run has the same template, and asks for less.
	s.Token = "t2"
	if _, err := m.Launch(t.Context(), s); cloud.KindOf(err) != cloud.KindNoCapacity {
		t.Error(err)
	}
	if len(f.templates) != 1 || f.parameter != 1 {
		t.Errorf("%d templates, %d look-ups of the image", len(f.templates), f.parameter)
	}
}

// Pools without capacity are left out for three minutes.
func TestFailedPools(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEC2(&cloudtest.Region{Default: 2, Capacity: map[cloudtest.Pool]int{{Type: "m7i.large", Zone: "a", Spot: true}: 0}})
		m := machinesOn(f, MachinesOptions{})
		launch := func(token string, n, want int) int {
			t.Helper()
			s := asking(n, "spot", "m7i.large")
			s.Token = token
			if got, _ := m.Launch(t.Context(), s); len(got) != want {
				t.Errorf("launch %s: %d machines, want %d", token, len(got), want)
			}
			return len(f.requests[len(f.requests)-1].LaunchTemplateConfigs[0].Overrides)
		}
		if n := launch("1", 1, 1); n != 3 {
			t.Errorf("first: %d pools", n)
		}
		if n := launch("2", 1, 1); n != 2 {
			t.Errorf("second: %d pools", n)
		}
		time.Sleep(leftOut)
		if n := launch("3", 1, 1); n != 3 {
			t.Errorf("three minutes later: %d pools", n)
		}
	})
}

// A reply that was lost, or a process that was, does not rent twice.
func TestLaunchOnce(t *testing.T) {
	t.Parallel()
	for _, later := range []time.Duration{time.Second, 30 * time.Minute} {
		t.Run(later.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				journal := map[string][]Intent{}
				o := MachinesOptions{
					Record: func(_ context.Context, in Intent) error {
						mu.Lock()
						defer mu.Unlock()
						journal[in.Token] = append(journal[in.Token], in)
						return nil
					},
					Recall: func(_ context.Context, token string) ([]Intent, error) { return journal[token], nil },
				}
				dead, kill := context.WithCancelCause(t.Context())
				died := errors.New("the process died")
				f := newFakeEC2(&cloudtest.Region{Default: 60, Hidden: 2 * time.Second, After: func(op string, n int) error {
					if op == "launch" && n == 2 { // it takes effect, and nobody hears of it
						kill(died)
						return io.ErrUnexpectedEOF
					}
					return nil
				}})
				s := asking(150, "spot_with_fallback", "m7i.large")
				if _, err := machinesOn(f, o).Launch(dead, s); !errors.Is(err, died) {
					t.Fatalf("the first process: %v", err)
				}
				first := len(f.region.Live())
				if first == 0 || len(journal["t"]) != 2 {
					t.Fatalf("%d machines, %d intents", first, len(journal["t"]))
				}
				time.Sleep(later)
				got, err := machinesOn(f, o).Launch(t.Context(), s)
				if err != nil || len(got) != 150 || len(f.region.Live()) != 150 {
					t.Errorf("the second process: %d machines, %v; %d live", len(got), err, len(f.region.Live()))
				}
			})
		})
	}
	t.Run("not recorded", func(t *testing.T) {
		t.Parallel()
		f := newFakeEC2(&cloudtest.Region{Default: 60})
		full := &cloud.Error{Op: "put", Resource: "intent", Kind: cloud.KindDenied}
		m := machinesOn(f, MachinesOptions{Record: func(context.Context, Intent) error { return full }})
		if _, err := m.Launch(t.Context(), asking(1, "spot")); !errors.Is(err, full) || cloud.KindOf(err) != cloud.KindDenied || len(f.requests) != 0 {
			t.Errorf("%v, %d requests", err, len(f.requests))
		}
	})
	t.Run("lost reply", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeEC2(&cloudtest.Region{Default: 60, After: func(op string, n int) error {
				if op == "launch" && n < 4 {
					return io.ErrUnexpectedEOF
				}
				return nil
			}})
			got, err := machinesOn(f, MachinesOptions{}).Launch(t.Context(), asking(20, "spot"))
			if err != nil || len(got) != 20 || len(f.region.Live()) != 20 {
				t.Errorf("%d machines, %v; %d live", len(got), err, len(f.region.Live()))
			}
		})
	})
}

func TestListAndTerminate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEC2(&cloudtest.Region{Default: 60, Hidden: 20 * time.Second})
		m := machinesOn(f, MachinesOptions{})
		got, err := m.Launch(t.Context(), asking(30, "spot"))
		if err != nil {
			t.Fatal(err)
		}
		count := func(m *Machines, want int) {
			t.Helper()
			list, err := m.List(t.Context(), "run")
			alive := 0
			for _, x := range list {
				if x.State != "ended" {
					alive++
				}
			}
			if err != nil || alive != want {
				t.Errorf("%d machines live, %v; want %d", alive, err, want)
			}
		}
		other := machinesOn(f, MachinesOptions{})
		count(m, 30)
		count(other, 0)
		// Too young to be known: it waits until they are, and ends them all.
		ids := []string{"i-0000000000000dead", "nonsense"}
		for _, x := range got[:10] {
			ids = append(ids, x.ID)
		}
		start := time.Now()
		if err := m.Terminate(t.Context(), ids...); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 4*time.Minute {
			t.Errorf("took %v", took)
		}
		if n := len(f.region.Live()); n != 20 {
			t.Errorf("%d live", n)
		}
		count(m, 20)
		count(other, 20)
		f.region.PowerOff(got[15].ID)
		count(m, 19)
		if err := other.Clean(t.Context(), ""); cloud.KindOf(err) != cloud.KindInvalid {
			t.Errorf("clean up nothing: %v", err)
		}
		if err := other.Clean(t.Context(), "run"); err != nil {
			t.Error(err)
		}
		count(m, 0)
		if len(f.region.Live()) != 0 || len(f.templates) != 0 {
			t.Errorf("%d machines and %d templates are left", len(f.region.Live()), len(f.templates))
		}
		if list, err := m.Resources(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("left: %v, %v", list, err)
		}
		// The template is made again, and a machine can be launched.
		s := asking(1, "spot")
		s.Token = "later"
		if _, err := m.Launch(t.Context(), s); err != nil {
			t.Error(err)
		}
		// Now too young even for its tags: its fleet ends it.
		if err := m.deleteFleets(t.Context(), "run", nil); err != nil || len(f.region.Live()) != 0 {
			t.Errorf("by fleet: %v, %d live", err, len(f.region.Live()))
		}
	})
}

// EC2 need not say which id it does not know.
func TestTerminateBisects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEC2(&cloudtest.Region{Default: 60})
		m := machinesOn(nameless{f}, MachinesOptions{})
		got, err := m.Launch(t.Context(), asking(9, "on-demand"))
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{"i-00000000000000abc", "i-ffffffffffffffff"}
		for _, x := range got {
			ids = append(ids, x.ID)
		}
		if err := m.Terminate(t.Context(), ids...); err != nil || len(f.region.Live()) != 0 {
			t.Errorf("%v; %d live", err, len(f.region.Live()))
		}
	})
}

// nameless is an EC2 that keeps ids to itself.
type nameless struct{ *fakeEC2 }

func (n nameless) TerminateInstances(ctx context.Context, in *ec2.TerminateInstancesInput, _ ...func(*ec2.Options)) (*ec2.TerminateInstancesOutput, error) {
	out, err := n.fakeEC2.TerminateInstances(ctx, in)
	if err != nil {
		err = apiErr(codeOf(err), "Some do not exist.")
	}
	return out, err
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		instanceType string
		spot         bool
		code         string
	}{
		{"m7i.large", true, "L-34B43A08"}, {"c7gn.large", false, "L-1216C47A"}, {"t3.micro", true, "L-34B43A08"}, {"im4gn.large", false, "L-1216C47A"},
		{"g4dn.xlarge", true, "L-3819A6DF"}, {"g6e.xlarge", false, "L-DB2E81BA"}, {"p5.48xlarge", true, "L-7212CCBC"}, {"p4d.24xlarge", false, "L-417A185B"},
		{"inf2.xlarge", true, ""}, {"trn1.2xlarge", false, ""},
	} {
		q := quotaOf(tt.instanceType, tt.spot)
		if q.code != tt.code || q.name == "" || !strings.Contains(q.err("us-east-1", 0, 1).Error(), "https://us-east-1.console.aws.amazon.com/servicequotas/home/services/ec2/quotas") {
			t.Errorf("%s spot=%v: %+v", tt.instanceType, tt.spot, q)
		}
	}
}

func TestArch(t *testing.T) {
	t.Parallel()
	for instanceType, want := range map[string]string{
		"m7g.large": "arm64", "c6gn.16xlarge": "arm64", "im4gn.large": "arm64", "is4gen.large": "arm64", "a1.large": "arm64", "g5g.xlarge": "arm64",
		"t4g.nano": "arm64", "r8gd.large": "arm64", "x2gd.large": "arm64", "hpc7g.4xlarge": "arm64", "p6e-gb200.36xlarge": "arm64",
		"m7i.large": "x86_64", "m7i-flex.large": "x86_64", "g4dn.xlarge": "x86_64", "g6.xlarge": "x86_64", "gr6.4xlarge": "x86_64", "c5.large": "x86_64",
		"p6-b200.48xlarge": "x86_64", "u-6tb1.metal": "x86_64", "inf2.xlarge": "x86_64", "x1e.32xlarge": "x86_64",
	} {
		if got := archOf(instanceType); got != want {
			t.Errorf("%s is %s, want %s", instanceType, got, want)
		}
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	for state, want := range map[types.InstanceStateName]string{"pending": "pending", "running": "running", "shutting-down": "ended",
		"terminated": "ended", "stopping": "running", "stopped": "running"} {
		if got := stateOf(state); got != want {
			t.Errorf("%s is %s, want %s", state, got, want)
		}
	}
	m := machinesOn(newFakeEC2(&cloudtest.Region{}), MachinesOptions{})
	if x := m.machine(types.Instance{InstanceId: aws.String("i-1")}); x.ID != "i-1" {
		t.Errorf("an instance with little known: %+v", x)
	}
}
