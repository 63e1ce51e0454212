package aws

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// template is a launch template, by its name, which is a hash of what is in it.
type template struct {
	name  string
	image string
	tags  map[string]string
	data  *types.RequestLaunchTemplateData
}

// image is an AMI, the name of its root disk, and the least that disk can have.
type image struct {
	id, root string
	gb       int // 0: not known
}

// network is where machines are put.
type network struct {
	group   string
	subnets []types.Subnet // one for each zone
}

// prepare finds out what the requests of a launch are made of, and makes its
// launch template.
func (l *launch) prepare(ctx context.Context) error {
	m := l.m
	var t Template
	if m.o.Template != nil {
		var err error
		if t, err = m.o.Template(l.spec); err != nil {
			return err
		}
	}
	if t.Arch == "" {
		for _, x := range l.spec.Types {
			if a := archOf(x); t.Arch == "" {
				t.Arch = a
			} else if a != t.Arch {
				return m.invalid(fmt.Sprintf("%s is %s and %s is %s: machines of one launch run one image", l.spec.Types[0], t.Arch, x, a))
			}
		}
	}
	if n := len(t.UserData); n > 16<<10 {
		return m.invalid(fmt.Sprintf("user data of %d bytes; EC2 takes 16 KB", n))
	}
	m.setup.Lock()
	defer m.setup.Unlock()
	var img image
	var net network
	var errs [2]error
	var both sync.WaitGroup
	both.Go(func() { img, errs[0] = m.image(ctx, t, l.spec.Types) })
	both.Go(func() { net, errs[1] = m.network(ctx, t, l.spec.Run) })
	both.Wait()
	if err := cmp.Or(errs[0], errs[1]); err != nil {
		return err
	}
	for _, x := range l.spec.Types[:min(len(l.spec.Types), maxTypes)] {
		for _, s := range net.subnets {
			l.targets = append(l.targets, Target{Type: x, Zone: aws.ToString(s.AvailabilityZone), Subnet: aws.ToString(s.SubnetId)})
		}
	}
	l.launchTag = launchID(l.spec)
	if l.spec.Token == "" {
		l.launchTag = rand.Text()
	}
	shared := tagsOf(l.spec, t)
	l.tags = maps.Clone(shared)
	l.tags[tagLaunch] = l.launchTag
	var err error
	if l.template, err = newTemplate(l.spec, t, img, net.group, shared); err != nil {
		return err
	}
	return m.ensureTemplateLocked(ctx, l.template)
}

func (m *Machines) invalid(why string) error {
	return &cloud.Error{Op: "launch", Resource: "machines in " + m.region, Kind: cloud.KindInvalid, Err: errors.New(why)}
}

// tagsOf is the tags of all that a launch makes. The program's own win.
func tagsOf(spec cloud.MachineSpec, t Template) map[string]string {
	tags := maps.Clone(spec.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	set := func(key, value string) {
		if value != "" {
			tags[key] = value
		}
	}
	if _, ok := tags[tagName]; !ok {
		set(tagName, "coiled-jobs "+spec.Run)
	}
	set(tagRun, spec.Run)
	set(tagPool, spec.Pool)
	set(tagPipeline, t.Pipeline)
	set(tagOwner, ownerTag(t.Owner))
	set(tagRole, spec.Role)
	if tagValue.MatchString(t.Store) {
		set(tagStore, t.Store)
	}
	if !t.Expires.IsZero() {
		set(tagExpires, t.Expires.UTC().Format(time.RFC3339))
	}
	return tags
}

func newTemplate(spec cloud.MachineSpec, t Template, img image, group string, tags map[string]string) (*template, error) {
	disk := &types.LaunchTemplateEbsBlockDeviceRequest{VolumeType: types.VolumeTypeGp3, Encrypted: aws.Bool(true), DeleteOnTermination: aws.Bool(true)}
	if spec.DiskGB > 0 {
		disk.VolumeSize = aws.Int32(int32(max(spec.DiskGB, img.gb)))
	}
	data := &types.RequestLaunchTemplateData{
		ImageId:                           aws.String(img.id),
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		SecurityGroupIds:                  []string{group},
		BlockDeviceMappings:               []types.LaunchTemplateBlockDeviceMappingRequest{{DeviceName: aws.String(img.root), Ebs: disk}},
		MetadataOptions: &types.LaunchTemplateInstanceMetadataOptionsRequest{
			HttpEndpoint: types.LaunchTemplateInstanceMetadataEndpointStateEnabled, HttpTokens: types.LaunchTemplateHttpTokensStateRequired,
			HttpPutResponseHopLimit: aws.Int32(2)}, // a container's bridge is a hop
		TagSpecifications: templateTags(tags, types.ResourceTypeInstance, types.ResourceTypeVolume, types.ResourceTypeNetworkInterface),
	}
	if len(t.UserData) > 0 {
		data.UserData = aws.String(base64.StdEncoding.EncodeToString(t.UserData))
	}
	switch {
	case strings.HasPrefix(t.Profile, "arn:"):
		data.IamInstanceProfile = &types.LaunchTemplateIamInstanceProfileSpecificationRequest{Arn: aws.String(t.Profile)}
	case t.Profile != "":
		data.IamInstanceProfile = &types.LaunchTemplateIamInstanceProfileSpecificationRequest{Name: aws.String(t.Profile)}
	}
	text, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	return &template{name: "coiled-jobs-" + longHash(spec.Run, spec.Pool, string(text))[:32], image: img.id, tags: tags, data: data}, nil
}

func templateTags(tags map[string]string, kinds ...types.ResourceType) []types.LaunchTemplateTagSpecificationRequest {
	var specs []types.LaunchTemplateTagSpecificationRequest
	for _, s := range tagged(tags, kinds...) {
		specs = append(specs, types.LaunchTemplateTagSpecificationRequest(s))
	}
	return specs
}

func (m *Machines) forgetTemplate(name string) {
	m.setup.Lock()
	defer m.setup.Unlock()
	delete(m.made, name)
}

func (m *Machines) ensureTemplate(ctx context.Context, t *template) error {
	m.setup.Lock()
	defer m.setup.Unlock()
	return m.ensureTemplateLocked(ctx, t)
}

// ensureTemplateLocked makes a launch template unless there is one of its name,
// which has the same in it. The caller holds setup.
func (m *Machines) ensureTemplateLocked(ctx context.Context, t *template) error {
	if m.made[t.name] {
		return nil
	}
	err := m.call(ctx, "create launch template", t.name, "ec2:CreateLaunchTemplate", func(ctx context.Context) error {
		_, err := m.ec2.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String(t.name),
			LaunchTemplateData: t.data, TagSpecifications: tagged(t.tags, types.ResourceTypeLaunchTemplate)})
		return err
	})
	if err != nil && cloud.KindOf(err) != cloud.KindConflict {
		return err
	}
	m.made[t.name] = true
	return nil
}

// imageParameters is where Amazon says which AMI is the newest Amazon Linux
// 2023: the one that boots fastest. It has no drivers for GPUs; gpuParameters is
// of the one that has NVIDIA's, for an architecture.
const (
	imageParameters = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-"
	gpuParameters   = "/aws/service/deeplearning/ami/%s/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
	// gpuDisk is the root disk of that one.
	gpuDisk = 75
)

// nvidiaFamilies is the families for which that image is. Earlier ones need
// older drivers, and those that have parts of a GPU need others.
var nvidiaFamilies = regexp.MustCompile(`^(g4dn|g5g?|gr?6e?|g7e?|p4de?|p5(e|en)?|p6e?-[a-z0-9]+)$`)

func hasNVIDIA(instanceType string) bool {
	family, _, _ := strings.Cut(instanceType, ".")
	return nvidiaFamilies.MatchString(family)
}

// image finds out the AMI for types, once. The caller holds setup; network may
// run beside.
func (m *Machines) image(ctx context.Context, t Template, instanceTypes []string) (image, error) {
	gpu := t.Image == "" && len(instanceTypes) > 0 && !slices.ContainsFunc(instanceTypes, func(x string) bool { return !hasNVIDIA(x) })
	key := fmt.Sprint(t.Image, " ", t.Arch, " ", gpu)
	if img, ok := m.images[key]; ok {
		return img, nil
	}
	img := image{id: t.Image, root: "/dev/xvda"} // Amazon Linux's root
	if img.id == "" {
		name := imageParameters + t.Arch
		if gpu {
			name, img.gb = fmt.Sprintf(gpuParameters, t.Arch), gpuDisk
		}
		var out *ssm.GetParameterOutput
		err := m.call(ctx, "read parameter", name, "ssm:GetParameter", func(ctx context.Context) (err error) {
			out, err = m.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(name)})
			return err
		})
		if gpu && cloud.KindOf(err) == cloud.KindNotFound {
			return image{}, m.invalid(fmt.Sprintf("Amazon has no image with drivers for GPUs in %s (%s): name one with hardware.ami", m.region, name))
		}
		if err != nil {
			return image{}, err
		}
		img.id = aws.ToString(out.Parameter.Value)
	}
	var out *ec2.DescribeImagesOutput
	err := m.call(ctx, "look up", "image "+img.id, "ec2:DescribeImages", func(ctx context.Context) (err error) {
		out, err = m.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{img.id}})
		return err
	})
	switch {
	case err == nil && len(out.Images) > 0:
		if root := aws.ToString(out.Images[0].RootDeviceName); root != "" {
			img.root = root
		}
		for _, d := range out.Images[0].BlockDeviceMappings {
			if aws.ToString(d.DeviceName) == img.root && d.Ebs != nil && d.Ebs.VolumeSize != nil {
				img.gb = int(*d.Ebs.VolumeSize) // EC2 makes none that is smaller
			}
		}
		if arch := string(out.Images[0].Architecture); t.Image != "" && arch != "" && arch != t.Arch {
			return image{}, m.invalid(fmt.Sprintf("image %s is for %s, the machines are %s", img.id, arch, t.Arch))
		}
	case t.Image == "" && (err == nil || cloud.KindOf(err) == cloud.KindNotFound || cloud.KindOf(err) == cloud.KindDenied):
		// Amazon's own: its root is known.
	case err == nil:
		return image{}, m.invalid(fmt.Sprintf("there is no image %s in %s", img.id, m.region))
	default:
		return image{}, err
	}
	m.images[key] = img
	return img, nil
}

// network finds out where machines go, once. The caller holds setup; image may
// run beside.
func (m *Machines) network(ctx context.Context, t Template, run string) (network, error) {
	key := strings.Join(t.Subnets, " ") + "|" + t.SecurityGroup
	if n, ok := m.nets[key]; ok {
		return n, nil
	}
	in := &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("state", "available")}}
	if len(t.Subnets) > 0 {
		in.SubnetIds = t.Subnets
	} else {
		in.Filters = append(in.Filters, filter("default-for-az", "true"))
	}
	var out *ec2.DescribeSubnetsOutput
	err := m.call(ctx, "look up", "subnets in "+m.region, "ec2:DescribeSubnets", func(ctx context.Context) (err error) {
		out, err = m.ec2.DescribeSubnets(ctx, in)
		return err
	})
	if err != nil {
		return network{}, err
	}
	n := network{group: t.SecurityGroup}
	slices.SortFunc(out.Subnets, func(a, b types.Subnet) int { // those that were named keep their order
		if i, j := slices.Index(t.Subnets, aws.ToString(a.SubnetId)), slices.Index(t.Subnets, aws.ToString(b.SubnetId)); i != j {
			return i - j
		}
		return strings.Compare(aws.ToString(a.AvailabilityZone), aws.ToString(b.AvailabilityZone))
	})
	for _, s := range out.Subnets {
		// EC2 takes one subnet of a zone. All are in the network of the first.
		if !slices.ContainsFunc(n.subnets, func(x types.Subnet) bool { return aws.ToString(x.AvailabilityZone) == aws.ToString(s.AvailabilityZone) }) &&
			(len(n.subnets) == 0 || aws.ToString(n.subnets[0].VpcId) == aws.ToString(s.VpcId)) {
			n.subnets = append(n.subnets, s)
		}
	}
	if len(n.subnets) == 0 {
		return network{}, m.invalid(fmt.Sprintf("there is no default network in %s: name subnets with hardware.subnet, or make one (aws ec2 create-default-vpc)", m.region))
	}
	if n.group == "" {
		if n.group, err = m.securityGroup(ctx, aws.ToString(n.subnets[0].VpcId)); err != nil {
			return network{}, err
		}
	}
	m.nets[key] = n
	return n, nil
}

// groupName is our security group, one in each network. Nothing comes in, as
// is the default of a new group; everything may go out.
const groupName = "coiled-jobs"

// findGroup is our security group in a network, "" if there is none.
func (m *Machines) findGroup(ctx context.Context, vpc string) (string, error) {
	var out *ec2.DescribeSecurityGroupsOutput
	err := m.call(ctx, "look up", "security group "+groupName, "ec2:DescribeSecurityGroups", func(ctx context.Context) (err error) {
		out, err = m.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{filter("group-name", groupName), filter("vpc-id", vpc)}})
		return err
	})
	if err != nil || len(out.SecurityGroups) == 0 {
		return "", err
	}
	g := out.SecurityGroups[0]
	if len(g.IpPermissions) > 0 {
		return "", m.invalid(fmt.Sprintf("the security group %s (%s) lets something in: remove its inbound rules, or name another group with hardware.security_group", groupName, aws.ToString(g.GroupId)))
	}
	return aws.ToString(g.GroupId), nil
}

func (m *Machines) securityGroup(ctx context.Context, vpc string) (string, error) {
	if id, err := m.findGroup(ctx, vpc); id != "" || err != nil {
		return id, err
	}
	var out *ec2.CreateSecurityGroupOutput
	err := m.call(ctx, "create", "security group "+groupName, "ec2:CreateSecurityGroup", func(ctx context.Context) (err error) {
		out, err = m.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String(groupName), VpcId: aws.String(vpc),
			Description:       aws.String("Machines of coiled-jobs: nothing comes in"),
			TagSpecifications: tagged(map[string]string{tagName: groupName}, types.ResourceTypeSecurityGroup)})
		return err
	})
	if cloud.KindOf(err) == cloud.KindConflict { // somebody else just did
		return m.findGroup(ctx, vpc)
	}
	if err != nil {
		return "", err
	}
	return aws.ToString(out.GroupId), nil
}

// arm is the families with Arm processors: a g among the letters behind the
// generation, as in m7g, c6gn and im4gn.
var arm = regexp.MustCompile(`^(a1|[a-z]+\d+[a-z]*g[a-z]*|p\d+e-gb\d+)$`)

// archOf is the architecture of an instance type.
func archOf(instanceType string) string {
	family, _, _ := strings.Cut(instanceType, ".")
	if base, _, ok := strings.Cut(family, "-"); ok && !arm.MatchString(family) {
		family = base
	}
	if arm.MatchString(family) {
		return "arm64"
	}
	return "x86_64"
}
