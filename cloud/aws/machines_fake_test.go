package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

// fakeEC2 puts EC2's face on a region: zones a, b and c with a subnet each.
type fakeEC2 struct {
	region *cloudtest.Region
	// late is how long a launch template is not known after it was made.
	late time.Duration
	// roleless has no role for spot machines.
	roleless bool
	// driverless has no image with drivers for GPUs.
	driverless bool
	// throttled is how many fleet requests get RequestLimitExceeded as the
	// error of every pool.
	throttled int

	mu        sync.Mutex
	templates map[string]fakeTemplate
	groups    map[string]string
	fleets    map[string][]string
	requests  []*ec2.CreateFleetInput
	retagged  map[string]map[string]string // by machine or disk
	diskless  map[string]bool              // machines whose disk is gone, though it is still listed
	parameter int
}

type fakeTemplate struct {
	in *ec2.CreateLaunchTemplateInput
	at time.Time
}

func newFakeEC2(r *cloudtest.Region) *fakeEC2 {
	return &fakeEC2{region: r, templates: map[string]fakeTemplate{}, groups: map[string]string{}, fleets: map[string][]string{}, retagged: map[string]map[string]string{}}
}

func apiErr(code, message string) error {
	return &smithy.GenericAPIError{Code: code, Message: message}
}

// apiFailure gives a region's error the SDK's form; others are broken
// connections and stay what they are.
func apiFailure(err error) error {
	var code *cloudtest.CodeError
	if errors.As(err, &code) {
		return apiErr(code.Code, code.Message)
	}
	return err
}

func (f *fakeEC2) GetParameter(_ context.Context, in *ssm.GetParameterInput, _ ...func(*ssm.Options)) (*ssm.GetParameterOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parameter++
	id := strings.TrimPrefix(*in.Name, imageParameters)
	if strings.HasPrefix(id, "/aws/service/deeplearning/") {
		if f.driverless {
			return nil, apiErr("ParameterNotFound", "")
		}
		id = "gpu-" + strings.Split(id, "/")[5]
	}
	return &ssm.GetParameterOutput{Parameter: &ssmtypes.Parameter{Value: aws.String("ami-" + id)}}, nil
}

func (f *fakeEC2) DescribeImages(_ context.Context, in *ec2.DescribeImagesInput, _ ...func(*ec2.Options)) (*ec2.DescribeImagesOutput, error) {
	id := in.ImageIds[0]
	if id == "ami-nope" {
		return &ec2.DescribeImagesOutput{}, nil
	}
	arch := types.ArchitectureValuesX8664
	if strings.HasSuffix(id, "arm64") {
		arch = types.ArchitectureValuesArm64
	}
	size := int32(8)
	if strings.HasPrefix(id, "ami-gpu-") {
		size = 75
	}
	disk := types.BlockDeviceMapping{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{VolumeSize: &size}}
	return &ec2.DescribeImagesOutput{Images: []types.Image{{ImageId: &id, RootDeviceName: aws.String("/dev/sda1"), Architecture: arch,
		BlockDeviceMappings: []types.BlockDeviceMapping{disk}}}}, nil
}

func (f *fakeEC2) DescribeSubnets(_ context.Context, in *ec2.DescribeSubnetsInput, _ ...func(*ec2.Options)) (*ec2.DescribeSubnetsOutput, error) {
	out := &ec2.DescribeSubnetsOutput{}
	for _, z := range []string{"c", "a", "b", "b2"} {
		id := "subnet-" + z
		if len(in.SubnetIds) == 0 && z != "b2" || slices.Contains(in.SubnetIds, id) {
			out.Subnets = append(out.Subnets, types.Subnet{SubnetId: &id, AvailabilityZone: aws.String(z[:1]), VpcId: aws.String("vpc-1")})
		}
	}
	return out, nil
}

func (f *fakeEC2) DescribeSecurityGroups(_ context.Context, in *ec2.DescribeSecurityGroupsInput, _ ...func(*ec2.Options)) (*ec2.DescribeSecurityGroupsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &ec2.DescribeSecurityGroupsOutput{}
	if id := f.groups[in.Filters[0].Values[0]]; id != "" {
		out.SecurityGroups = []types.SecurityGroup{{GroupId: &id}}
	}
	return out, nil
}

func (f *fakeEC2) CreateSecurityGroup(_ context.Context, in *ec2.CreateSecurityGroupInput, _ ...func(*ec2.Options)) (*ec2.CreateSecurityGroupOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[*in.GroupName] = "sg-1"
	return &ec2.CreateSecurityGroupOutput{GroupId: aws.String("sg-1")}, nil
}

func (f *fakeEC2) CreateLaunchTemplate(_ context.Context, in *ec2.CreateLaunchTemplateInput, _ ...func(*ec2.Options)) (*ec2.CreateLaunchTemplateOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.templates[*in.LaunchTemplateName]; ok {
		return nil, apiErr("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
	}
	f.templates[*in.LaunchTemplateName] = fakeTemplate{in, time.Now()}
	return &ec2.CreateLaunchTemplateOutput{}, nil
}

func (f *fakeEC2) DescribeLaunchTemplates(_ context.Context, in *ec2.DescribeLaunchTemplatesInput, _ ...func(*ec2.Options)) (*ec2.DescribeLaunchTemplatesOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &ec2.DescribeLaunchTemplatesOutput{}
	names := slices.Sorted(maps.Keys(f.templates))
	for i, name := range names { // a page has one
		if aws.ToString(in.NextToken) != "" && name <= *in.NextToken || !matches(in.Filters, tagMap(f.templates[name].in.TagSpecifications, types.ResourceTypeLaunchTemplate), nil) {
			continue
		}
		out.LaunchTemplates = []types.LaunchTemplate{{LaunchTemplateId: aws.String("lt-" + name), LaunchTemplateName: aws.String(name)}}
		if i < len(names)-1 {
			out.NextToken = aws.String(name)
		}
		break
	}
	return out, nil
}

func (f *fakeEC2) DeleteLaunchTemplate(_ context.Context, in *ec2.DeleteLaunchTemplateInput, _ ...func(*ec2.Options)) (*ec2.DeleteLaunchTemplateOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.templates, strings.TrimPrefix(*in.LaunchTemplateId, "lt-"))
	return &ec2.DeleteLaunchTemplateOutput{}, nil
}

func tagMap(specs []types.TagSpecification, kind types.ResourceType) map[string]string {
	tags := map[string]string{}
	for _, s := range specs {
		for _, t := range s.Tags {
			if s.ResourceType == kind {
				tags[*t.Key] = *t.Value
			}
		}
	}
	return tags
}

// matches checks tag filters and whatever else is known of a resource.
func matches(filters []types.Filter, tags map[string]string, other map[string]string) bool {
	for _, x := range filters {
		got, ok := other[*x.Name]
		if key, isTag := strings.CutPrefix(*x.Name, "tag:"); isTag {
			got, ok = tags[key]
		}
		if *x.Name == "tag-key" {
			got = x.Values[0]
			_, ok = tags[got]
		}
		if !ok || !slices.Contains(x.Values, got) {
			return false
		}
	}
	return true
}

func (f *fakeEC2) CreateFleet(_ context.Context, in *ec2.CreateFleetInput, _ ...func(*ec2.Options)) (*ec2.CreateFleetOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, in)
	for _, s := range in.TagSpecifications {
		if s.ResourceType == types.ResourceTypeSpotInstancesRequest {
			return nil, apiErr("InvalidParameterValue", "'spot-instances-request' is not a valid taggable resource type for this operation.")
		}
	}
	lt := in.LaunchTemplateConfigs[0]
	t, ok := f.templates[*lt.LaunchTemplateSpecification.LaunchTemplateName]
	if !ok || time.Since(t.at) < f.late {
		return nil, apiErr("InvalidLaunchTemplateName.NotFoundException", "The specified launch template does not exist.")
	}
	spot := in.TargetCapacitySpecification.DefaultTargetCapacityType == types.DefaultTargetCapacityTypeSpot
	req := cloudtest.Request{Token: *in.ClientToken, Count: int(*in.TargetCapacitySpecification.TotalTargetCapacity), Tags: tagMap(in.TagSpecifications, types.ResourceTypeInstance)}
	out := &ec2.CreateFleetOutput{FleetId: aws.String(fmt.Sprintf("fleet-%s", (*in.ClientToken)[:8]))}
	fail := func(o types.FleetLaunchTemplateOverridesRequest, code, message string) {
		out.Errors = append(out.Errors, types.CreateFleetError{ErrorCode: &code, ErrorMessage: &message,
			LaunchTemplateAndOverrides: &types.LaunchTemplateAndOverridesResponse{Overrides: &types.FleetLaunchTemplateOverrides{InstanceType: o.InstanceType, SubnetId: o.SubnetId}}})
	}
	if f.throttled > 0 || spot && f.roleless {
		for _, o := range lt.Overrides {
			if f.throttled > 0 {
				fail(o, "RequestLimitExceeded", "Request limit exceeded.")
			} else {
				fail(o, "AuthFailure.ServiceLinkedRoleCreationNotPermitted", "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances.")
			}
		}
		f.throttled = max(0, f.throttled-1)
		return out, nil
	}
	subnets := map[string]*string{} // by zone
	for _, o := range lt.Overrides {
		subnets[strings.TrimPrefix(*o.SubnetId, "subnet-")[:1]] = o.SubnetId
		req.Pools = append(req.Pools, cloudtest.Pool{Type: string(o.InstanceType), Zone: strings.TrimPrefix(*o.SubnetId, "subnet-")[:1], Spot: spot})
	}
	f.mu.Unlock()
	answer, err := f.region.Launch(req)
	f.mu.Lock()
	if err != nil {
		return nil, apiFailure(err)
	}
	var ids []string
	for _, i := range answer.Machines {
		ids = append(ids, i.ID)
		out.Instances = append(out.Instances, types.CreateFleetInstance{InstanceIds: []string{i.ID}, InstanceType: types.InstanceType(i.Type),
			LaunchTemplateAndOverrides: &types.LaunchTemplateAndOverridesResponse{Overrides: &types.FleetLaunchTemplateOverrides{SubnetId: subnets[i.Zone]}}})
	}
	f.fleets[*out.FleetId] = ids
	for _, x := range answer.Failures {
		fail(types.FleetLaunchTemplateOverridesRequest{InstanceType: types.InstanceType(x.Type), SubnetId: subnets[x.Zone]}, x.Code, "There is no "+x.Code+".")
	}
	return out, nil
}

func (f *fakeEC2) DeleteFleets(_ context.Context, in *ec2.DeleteFleetsInput, _ ...func(*ec2.Options)) (*ec2.DeleteFleetsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &ec2.DeleteFleetsOutput{}
	if len(in.FleetIds) > 25 {
		return nil, apiErr("InvalidParameterValue", "At most 25 instant fleets.")
	}
	for _, id := range in.FleetIds {
		if _, ok := f.fleets[id]; !ok {
			out.UnsuccessfulFleetDeletions = append(out.UnsuccessfulFleetDeletions, types.DeleteFleetErrorItem{FleetId: &id,
				Error: &types.DeleteFleetError{Code: types.DeleteFleetErrorCodeFleetIdDoesNotExist}})
		}
		for _, machine := range f.fleets[id] {
			f.region.PowerOff(machine)
		}
		delete(f.fleets, id)
	}
	return out, nil
}

func (f *fakeEC2) DescribeFleets(_ context.Context, in *ec2.DescribeFleetsInput, _ ...func(*ec2.Options)) (*ec2.DescribeFleetsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &ec2.DescribeFleetsOutput{}
	for _, id := range in.FleetIds {
		machines, ok := f.fleets[id]
		if !ok {
			return nil, apiErr("InvalidFleetId.NotFound", "The fleet ID "+id+" does not exist.")
		}
		out.Fleets = append(out.Fleets, types.FleetData{FleetId: &id, CreateTime: aws.Time(time.Now()), Instances: []types.DescribeFleetsInstances{{InstanceIds: machines}}})
	}
	return out, nil
}

func (f *fakeEC2) CreateTags(_ context.Context, in *ec2.CreateTagsInput, _ ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error) {
	live := map[string]bool{}
	for _, i := range f.region.Live() {
		live[i.ID] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range in.Resources {
		switch machine, disk := strings.CutPrefix(id, "vol-"); {
		case live[id], disk && live[machine] && !f.diskless[machine]:
		case disk:
			return nil, apiErr("InvalidVolume.NotFound", "The volume '"+id+"' does not exist.")
		default:
			return nil, apiErr("InvalidInstanceID.NotFound", "The instance ID '"+id+"' does not exist")
		}
	}
	for _, id := range in.Resources {
		tags := maps.Clone(f.retagged[id])
		if tags == nil {
			tags = map[string]string{}
		}
		for _, t := range in.Tags {
			tags[*t.Key] = *t.Value
		}
		f.retagged[id] = tags
	}
	return &ec2.CreateTagsOutput{}, nil
}

func (f *fakeEC2) DescribeTags(_ context.Context, in *ec2.DescribeTagsInput, _ ...func(*ec2.Options)) (*ec2.DescribeTagsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &ec2.DescribeTagsOutput{}
	for name, t := range f.templates {
		run := tagMap(t.in.TagSpecifications, types.ResourceTypeLaunchTemplate)[tagRun]
		if matches(in.Filters, nil, map[string]string{"key": tagRun, "value": run, "resource-type": "launch-template"}) {
			out.Tags = append(out.Tags, types.TagDescription{ResourceId: aws.String("lt-" + name), ResourceType: types.ResourceTypeLaunchTemplate, Key: aws.String(tagRun), Value: &run})
		}
	}
	return out, nil
}

func (f *fakeEC2) DescribeInstances(_ context.Context, in *ec2.DescribeInstancesInput, _ ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	states := map[string]types.InstanceStateName{"pending": "pending", "running": "running", "ended": "terminated"}
	f.mu.Lock()
	retagged := maps.Clone(f.retagged)
	f.mu.Unlock()
	tags := func(i cloudtest.Instance) map[string]string {
		all := maps.Clone(i.Tags)
		maps.Copy(all, retagged[i.ID])
		return all
	}
	list, err := f.region.Describe(func(i cloudtest.Instance) bool {
		return matches(in.Filters, tags(i), map[string]string{"instance-id": i.ID, "instance-state-name": string(states[f.region.State(i)])})
	})
	if err != nil {
		return nil, apiFailure(err)
	}
	if aws.ToInt32(in.MaxResults) == 0 {
		return nil, errors.New("a list without pages")
	}
	out := &ec2.DescribeInstancesOutput{}
	for n, i := range list {
		if aws.ToString(in.NextToken) != "" && i.ID <= *in.NextToken {
			continue
		}
		x := types.Instance{InstanceId: &i.ID, InstanceType: types.InstanceType(i.Type), LaunchTime: &i.Launched,
			Placement: &types.Placement{AvailabilityZone: &i.Zone}, State: &types.InstanceState{Name: states[f.region.State(i)]},
			BlockDeviceMappings: []types.InstanceBlockDeviceMapping{{Ebs: &types.EbsInstanceBlockDevice{VolumeId: aws.String("vol-" + i.ID)}}}}
		if i.Spot {
			x.InstanceLifecycle = types.InstanceLifecycleTypeSpot
		}
		for k, v := range tags(i) {
			x.Tags = append(x.Tags, types.Tag{Key: &k, Value: &v})
		}
		out.Reservations = append(out.Reservations, types.Reservation{Instances: []types.Instance{x}})
		if len(out.Reservations) == 7 && n < len(list)-1 { // small pages
			out.NextToken = &i.ID
			break
		}
	}
	return out, nil
}

func (f *fakeEC2) TerminateInstances(_ context.Context, in *ec2.TerminateInstancesInput, _ ...func(*ec2.Options)) (*ec2.TerminateInstancesOutput, error) {
	if err := f.region.Terminate(in.InstanceIds...); err != nil {
		return nil, apiFailure(err)
	}
	return &ec2.TerminateInstancesOutput{}, nil
}

// wire is a request as it is sent, for comparison.
func wire(in any) string {
	text, err := json.Marshal(in)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// known is the first intent of a run's launch.
func (m *Machines) known(t testing.TB, run string) Intent {
	t.Helper()
	for key, k := range m.tokens {
		if strings.HasPrefix(key, run+"\x00") && len(k.intents) > 0 {
			return k.intents[0]
		}
	}
	t.Fatalf("nothing was launched for %s", run)
	return Intent{}
}

// account is the configuration of the environment, in another account of moto's.
func account(t testing.TB, n int64) aws.Config {
	t.Helper()
	cfg, err := loadConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.APIOptions = append(cfg.APIOptions, smithyhttp.AddHeaderValue("X-Moto-Account-Id", fmt.Sprintf("%012d", n)))
	return cfg
}
