package aws

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// The two ways to rent.
const (
	marketSpot     = "spot"
	marketOnDemand = "on-demand"
)

// Intent is one request to launch, as it is recorded before it is made: it
// says all that is in the request, so that it can be made again and is then
// known to EC2 as the same one.
type Intent struct {
	Token  string `json:"token"`  // of the MachineSpec
	Client string `json:"client"` // EC2's token, derived from all the rest but At
	Run    string `json:"run"`
	Pool   string `json:"pool,omitempty"`
	// A launch goes in waves (a market, a second try, the other market), a wave
	// in batches, and a batch is tried again where EC2 was not ready.
	Wave     int               `json:"wave"`
	Batch    int               `json:"batch"`
	Try      int               `json:"try"`
	Market   string            `json:"market"`
	Count    int               `json:"count"`
	Template string            `json:"template"` // the launch template's name
	Image    string            `json:"image"`
	Targets  []Target          `json:"targets"`
	Tags     map[string]string `json:"tags,omitempty"`
	At       time.Time         `json:"at"`
}

// Target is a sort of machine in a zone, best first.
type Target struct {
	Type   string `json:"type"`
	Zone   string `json:"zone"`
	Subnet string `json:"subnet"`
}

// poolKey is a pool of EC2, which has machines or not.
type poolKey struct{ market, instanceType, subnet string }

// seal derives the token with which EC2 knows the request again.
func (in *Intent) seal() error {
	body := *in
	body.Client, body.At = "", time.Time{}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	in.Client = longHash(string(text))
	return nil
}

// request is the call that an intent means: the same for the same intent.
func (in *Intent) request() *ec2.CreateFleetInput {
	var overrides []types.FleetLaunchTemplateOverridesRequest
	for _, t := range in.Targets {
		overrides = append(overrides, types.FleetLaunchTemplateOverridesRequest{InstanceType: types.InstanceType(t.Type), SubnetId: aws.String(t.Subnet)})
	}
	req := &ec2.CreateFleetInput{
		Type:        types.FleetTypeInstant,
		ClientToken: aws.String(in.Client),
		LaunchTemplateConfigs: []types.FleetLaunchTemplateConfigRequest{{
			LaunchTemplateSpecification: &types.FleetLaunchTemplateSpecificationRequest{
				LaunchTemplateName: aws.String(in.Template), Version: aws.String("1")},
			Overrides: overrides,
		}},
		TargetCapacitySpecification: &types.TargetCapacitySpecificationRequest{
			TotalTargetCapacity: aws.Int32(int32(in.Count)), DefaultTargetCapacityType: types.DefaultTargetCapacityTypeOnDemand},
		// Not spot-instances-request: EC2 refuses the whole request where it
		// makes none.
		TagSpecifications: tagged(in.Tags, types.ResourceTypeFleet, types.ResourceTypeInstance, types.ResourceTypeVolume),
	}
	if in.Market == marketSpot {
		req.TargetCapacitySpecification.DefaultTargetCapacityType = types.DefaultTargetCapacityTypeSpot
		// EC2's own default is the cheapest pool, which is the one that is
		// reclaimed first.
		req.SpotOptions = &types.SpotOptionsRequest{AllocationStrategy: types.SpotAllocationStrategyPriceCapacityOptimized}
	} else {
		req.OnDemandOptions = &types.OnDemandOptionsRequest{AllocationStrategy: types.FleetOnDemandAllocationStrategyLowestPrice}
	}
	return req
}

// tagged puts tags on kinds of resources.
func tagged(tags map[string]string, kinds ...types.ResourceType) []types.TagSpecification {
	var list []types.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	var specs []types.TagSpecification
	for _, kind := range kinds {
		specs = append(specs, types.TagSpecification{ResourceType: kind, Tags: list})
	}
	return specs
}

// poolError is why a pool gave less than it was asked for.
type poolError struct {
	code, message string
	targets       []Target // of the request; all if EC2 does not say which
}

func (e poolError) kind() cloud.Kind {
	if notInThisZone(e.code, e.message) {
		return cloud.KindNoCapacity
	}
	return kindsOfCodes[e.code]
}

// fleet makes the request of an intent and reads what came of it. Only what is
// no word about machines is an error.
func (m *Machines) fleet(ctx context.Context, in Intent) ([]cloud.Machine, []poolError, error) {
	req := in.request()
	var out *ec2.CreateFleetOutput
	err := m.call(ctx, "launch", describeTargets(in.Targets, m.region), "ec2:CreateFleet and ec2:RunInstances", func(ctx context.Context) (err error) {
		out, err = m.ec2.CreateFleet(ctx, req)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, err
		}
		// The whole request may fail for want of machines, too.
		e := poolError{code: codeOf(err), message: err.Error(), targets: in.Targets}
		if k := e.kind(); k == cloud.KindNoCapacity || k == cloud.KindQuota || notKnownYet(e.code, e.message) {
			return nil, []poolError{e}, nil
		}
		if e.code == "IdempotentInstanceTerminated" { // launched by the first try, and ended since
			return nil, nil, nil
		}
		return nil, nil, err
	}
	now := time.Now()
	var list []cloud.Machine
	for _, i := range out.Instances {
		zone := ""
		if lt := i.LaunchTemplateAndOverrides; lt != nil && lt.Overrides != nil {
			zone = in.zone(lt.Overrides)
		}
		for _, id := range i.InstanceIds {
			list = append(list, cloud.Machine{ID: id, Run: in.Run, Pool: in.Pool, Type: string(i.InstanceType), Zone: zone,
				Spot: in.Market == marketSpot, State: "pending", Launched: now, Role: in.Tags[tagRole],
				PricePerHour: m.price(string(i.InstanceType), zone, in.Market == marketSpot)})
		}
	}
	var errs []poolError
	for _, e := range out.Errors {
		pe := poolError{code: aws.ToString(e.ErrorCode), message: aws.ToString(e.ErrorMessage), targets: in.Targets}
		if lt := e.LaunchTemplateAndOverrides; lt != nil && lt.Overrides != nil {
			pe.targets = in.matching(lt.Overrides)
		}
		errs = append(errs, pe)
	}
	m.mu.Lock()
	if id := aws.ToString(out.FleetId); id != "" {
		m.fleets[id] = in.Run
	}
	for _, x := range list {
		if _, ok := m.ended[x.ID]; !ok {
			m.fresh[x.ID] = x
		}
	}
	m.mu.Unlock()
	return list, errs, nil
}

// matching is the targets that an override of an answer names.
func (in *Intent) matching(o *types.FleetLaunchTemplateOverrides) []Target {
	var list []Target
	subnet, zone := aws.ToString(o.SubnetId), aws.ToString(o.AvailabilityZone)
	for _, t := range in.Targets {
		if (o.InstanceType == "" || string(o.InstanceType) == t.Type) && (subnet == "" || subnet == t.Subnet) && (zone == "" || zone == t.Zone) {
			list = append(list, t)
		}
	}
	return list
}

func (in *Intent) zone(o *types.FleetLaunchTemplateOverrides) string {
	if z := aws.ToString(o.AvailabilityZone); z != "" {
		return z
	}
	for _, t := range in.Targets {
		if t.Subnet == aws.ToString(o.SubnetId) {
			return t.Zone
		}
	}
	return ""
}

// leaveOut remembers that pools have no machines.
func (m *Machines) leaveOut(market string, targets []Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range targets {
		m.failed[poolKey{market, t.Type, t.Subnet}] = time.Now().Add(leftOut)
	}
}

// worthTrying is the targets that did not fail lately.
func (m *Machines) worthTrying(market string, targets []Target) []Target {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(m.failed, func(_ poolKey, until time.Time) bool { return !now.Before(until) })
	var list []Target
	for _, t := range targets {
		if _, out := m.failed[poolKey{market, t.Type, t.Subnet}]; !out {
			list = append(list, t)
		}
	}
	return list
}

// record records an intent before it is carried out.
func (m *Machines) record(ctx context.Context, in Intent) error {
	if m.o.Record == nil {
		return nil
	}
	if err := m.o.Record(ctx, in); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &cloud.Error{Op: "record the launch of", Resource: describeTargets(in.Targets, m.region), Kind: cloud.KindOf(err), Err: err}
	}
	return nil
}
