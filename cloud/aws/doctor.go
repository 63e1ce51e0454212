package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Check is what was found out about one thing that runs on AWS need.
type Check struct {
	Name   string
	State  string // ok, warn or fail
	Detail string
	Advice string
}

// maxSkew is how far a clock may be off: Amazon refuses requests at five
// minutes, and times in logs should agree.
const maxSkew = 30 * time.Second

// doctorType is the machine that is asked for, and not launched.
const doctorType = types.InstanceTypeT3Micro

// CheckAccount looks at all that runs need of the account: credentials, clock,
// bucket, roles, network, permissions (by dry runs) and quotas. storeURL names
// the store if it is not the account's bucket. Nothing stays changed.
func CheckAccount(ctx context.Context, region, storeURL string) []Check {
	x, err := newAdmin(ctx, region)
	if err != nil {
		return []Check{{Name: "aws", State: "fail", Detail: err.Error(), Advice: "runs with cloud: aws cannot start"}}
	}
	checks := []Check{{Name: "aws", State: "ok", Detail: fmt.Sprintf("account %s in %s as %s", x.a.ID, x.a.Region, x.a.Principal)}, x.checkSkew()}
	checks = append(checks, x.checkBucket(ctx, storeURL)...)
	checks = append(checks, x.checkRole(ctx, MachineRole, "fail"), x.checkRole(ctx, CoordinatorRole, "warn"), x.checkSpotRole(ctx))
	network, subnet := x.checkNetwork(ctx)
	checks = append(checks, network)
	checks = append(checks, x.checkPermissions(ctx, subnet)...)
	for _, l := range x.readLimits(ctx) {
		checks = append(checks, l.check())
	}
	return checks
}

// failed is a check that could not be made, or found something wrong.
func failed(name, state string, err error, advice string) Check {
	return Check{Name: name, State: state, Detail: err.Error(), Advice: advice}
}

func setupAdvice(region string) string {
	return "run \"coiled-jobs setup aws --region " + region + "\""
}

func (x *admin) checkSkew() Check {
	off := x.a.Skew.Round(time.Second)
	c := Check{Name: "aws clock", State: "ok", Detail: fmt.Sprintf("within %v of Amazon's", max(off, -off, time.Second))}
	if off > maxSkew || off < -maxSkew {
		way := "ahead of"
		if off < 0 {
			way, off = "behind", -off
		}
		c.State, c.Detail, c.Advice = "fail", fmt.Sprintf("the clock of this machine is %v %s Amazon's", off, way), "set it: beyond five minutes Amazon refuses every request"
	}
	return c
}

// checkBucket looks at the account's bucket, or at the bucket of a store, and
// whether exactly one of two writers creates an object there.
func (x *admin) checkBucket(ctx context.Context, storeURL string) []Check {
	const name = "aws store"
	if storeURL == "" {
		bucket := BucketName(x.a.ID, x.a.Region)
		there, err := bucketThere(ctx, x.cfg, x.a, bucket)
		if err != nil {
			return []Check{failed(name, "fail", err, "")}
		}
		if !there {
			return []Check{{Name: name, State: "fail", Detail: "there is no bucket " + bucket, Advice: setupAdvice(x.a.Region) + ", or name a store with --store"}}
		}
		storeURL = bucketURL(bucket, "")
	}
	store, err := OpenStore(ctx, storeURL)
	if err != nil {
		return []Check{failed(name, "fail", err, "")}
	}
	where, err := store.Region(ctx)
	if err != nil {
		return []Check{failed(name, "fail", err, setupAdvice(x.a.Region)+", or name another store with --store")}
	}
	key := "doctor/" + shortHash(x.a.Principal, time.Now().String())
	err = store.Create(ctx, key, []byte("ok"))
	if err != nil {
		return []Check{failed(name, "fail", err, "")}
	}
	defer func() { _ = store.Delete(context.WithoutCancel(ctx), key) }() // two bytes
	switch err = store.Create(ctx, key, []byte("ok")); {
	case err == nil:
		return []Check{{Name: name, State: "fail", Detail: store.URL() + " lets two writers create the same object",
			Advice: "its server does not know If-None-Match; runs would lose work: use another one"}}
	case cloud.KindOf(err) != cloud.KindConflict:
		return []Check{failed(name, "fail", err, "")}
	}
	if b, err := store.Get(ctx, key); err != nil || string(b) != "ok" {
		return []Check{{Name: name, State: "fail", Detail: fmt.Sprintf("%s: what was written cannot be read back: %v", store.URL(), err)}}
	}
	c := Check{Name: name, State: "ok", Detail: fmt.Sprintf("%s can be written, in %s", store.URL(), where)}
	if where != x.a.Region {
		c.State, c.Advice = "warn", fmt.Sprintf("machines in %s would pay for what they read and write there; set AWS_REGION=%s or hardware.region", x.a.Region, where)
	}
	return []Check{c}
}

func (x *admin) checkRole(ctx context.Context, role, missing string) Check {
	name := "aws role"
	roles, there, err := x.profile(ctx, role)
	switch {
	case cloud.KindOf(err) == cloud.KindDenied:
		return failed(name, "warn", err, "whether "+role+" exists is not known")
	case err != nil:
		return failed(name, missing, err, "")
	case !there:
		return Check{Name: name, State: missing, Detail: "there is no instance profile " + role, Advice: setupAdvice(x.a.Region)}
	case len(roles) == 0:
		return Check{Name: name, State: missing, Detail: "the instance profile " + role + " gives no role", Advice: setupAdvice(x.a.Region)}
	}
	return Check{Name: name, State: "ok", Detail: role}
}

func (x *admin) checkSpotRole(ctx context.Context) Check {
	there, err := x.spotRoleThere(ctx)
	if err != nil {
		return failed("aws spot", "warn", err, "whether spot machines can be had is not known")
	}
	if !there {
		return Check{Name: "aws spot", State: "warn", Detail: "there is no role " + spotRole, Advice: setupAdvice(x.a.Region) + " for spot machines"}
	}
	return Check{Name: "aws spot", State: "ok", Detail: "EC2 may launch spot machines"}
}

// checkNetwork looks for the default network and gives one of its subnets.
func (x *admin) checkNetwork(ctx context.Context) (Check, string) {
	var out *ec2.DescribeSubnetsOutput
	err := x.call(ctx, "look up", "subnets in "+x.a.Region, "ec2:DescribeSubnets", func(ctx context.Context) (err error) {
		out, err = x.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("default-for-az", "true"), filter("state", "available")}})
		return err
	})
	if err != nil {
		return failed("aws network", "fail", err, ""), ""
	}
	if len(out.Subnets) == 0 {
		return Check{Name: "aws network", State: "warn", Detail: noNetwork(x.a.Region)}, ""
	}
	zones := map[string]bool{}
	private := 0
	for _, s := range out.Subnets {
		zones[aws.ToString(s.AvailabilityZone)] = true
		if s.MapPublicIpOnLaunch != nil && !*s.MapPublicIpOnLaunch {
			private++
		}
	}
	if private > 0 {
		c := Check{Name: "aws network", State: "warn",
			Detail: fmt.Sprintf("%d of %d default subnets of %s give machines no public address", private, len(out.Subnets), aws.ToString(out.Subnets[0].VpcId)),
			Advice: "without a NAT gateway or endpoints for S3 and SQS machines there cannot start: let the subnets give addresses, or name others with hardware.subnet"}
		return c, aws.ToString(out.Subnets[0].SubnetId)
	}
	return Check{Name: "aws network", State: "ok", Detail: fmt.Sprintf("%s with %d zones", aws.ToString(out.Subnets[0].VpcId), len(zones))},
		aws.ToString(out.Subnets[0].SubnetId)
}

// checkPermissions makes the requests of a launch as dry runs: EC2 says whether
// it would do them.
func (x *admin) checkPermissions(ctx context.Context, subnet string) []Check {
	tags := map[string]string{tagRun: "doctor", tagName: "coiled-jobs doctor"}
	img, err := x.m.image(ctx, Template{Arch: "x86_64"}, nil)
	if err != nil {
		return []Check{failed("aws launch", "fail", err, "")}
	}
	launch := &ec2.RunInstancesInput{DryRun: aws.Bool(true), MinCount: aws.Int32(1), MaxCount: aws.Int32(1), ImageId: &img.id, InstanceType: doctorType,
		TagSpecifications: tagged(tags, types.ResourceTypeInstance, types.ResourceTypeVolume, types.ResourceTypeNetworkInterface)}
	if subnet != "" {
		launch.SubnetId = &subnet
	}
	withRole := *launch
	withRole.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String(MachineRole)}
	tries := []struct {
		action string
		do     func() error
	}{
		{"ec2:RunInstances", func() error { _, err := x.ec2.RunInstances(ctx, launch); return err }},
		{"iam:PassRole", func() error { _, err := x.ec2.RunInstances(ctx, &withRole); return err }},
		{"ec2:CreateLaunchTemplate", func() error {
			_, err := x.ec2.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{DryRun: aws.Bool(true), LaunchTemplateName: aws.String("coiled-jobs-doctor"),
				LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: &img.id}, TagSpecifications: tagged(tags, types.ResourceTypeLaunchTemplate)})
			return err
		}},
		{"ec2:CreateFleet", func() error {
			in := (&Intent{Client: "coiled-jobs-doctor", Count: 1, Market: marketSpot, Template: "coiled-jobs-doctor",
				Targets: []Target{{Type: string(doctorType), Subnet: subnet}}, Tags: tags}).request()
			in.DryRun = aws.Bool(true)
			_, err := x.ec2.CreateFleet(ctx, in)
			return err
		}},
		{"ec2:DescribeInstances", func() error {
			_, err := x.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5), Filters: []types.Filter{filter("tag-key", tagRun)}})
			return err
		}},
		{"sqs:ListQueues", func() error { _, err := ListQueues(ctx, x.a.Region, "doctor"); return err }},
		{"ssm:DescribeParameters", func() error {
			_, err := (&Sweeper{m: x.m, secrets: &Secrets{ssm: x.m.ssm.(secretsSSM), region: x.a.Region}}).parameters(ctx)
			return err
		}},
	}
	var lacking, fine []string
	var checks []Check
	for _, t := range tries {
		err := t.do()
		switch kind := x.dryKind(err); {
		case ctx.Err() != nil:
			return append(checks, failed("aws launch", "fail", context.Cause(ctx), ""))
		case kind == cloud.KindDenied:
			lacking = append(lacking, t.action)
		case kind == cloud.KindTransient || kind == cloud.KindThrottled:
			checks = append(checks, failed("aws launch", "warn", mapError(ctx, "try", t.action, err), "try again"))
		default:
			// Allowed: whatever else EC2 says (there is no such template, no such
			// profile) it says after it has looked at the permission.
			fine = append(fine, t.action)
		}
	}
	if len(lacking) > 0 {
		checks = append(checks, Check{Name: "aws launch", State: "fail", Detail: x.a.Principal + " lacks " + strings.Join(lacking, ", "),
			Advice: "\"coiled-jobs setup aws --policy person\" prints the policy that is needed"})
	}
	if len(fine) > 0 {
		checks = append(checks, Check{Name: "aws launch", State: "ok", Detail: "allowed: " + strings.Join(fine, ", ")})
	}
	return checks
}

// dryKind is what the answer to a dry run says.
func (x *admin) dryKind(err error) cloud.Kind {
	var known *cloud.Error
	switch {
	case err == nil, isCode(err, "DryRunOperation"):
		return cloud.KindOther
	case errors.As(err, &known):
		return known.Kind
	}
	kind, _ := classify(err)
	return kind
}

// Limit is a quota as it was read, or could not be read.
type Limit struct {
	Quota
	Spot bool
	GPU  bool
	Err  error // not nil: VCPUs is not known
}

// Limits reads the quotas of the account of a set-up that most runs meet.
func (s *Setup) Limits(ctx context.Context) []Limit { return s.admin.readLimits(ctx) }

var errNoQuota = errors.New("there is no such quota")

func (x *admin) readLimits(ctx context.Context) []Limit {
	var list []Limit
	for _, instance := range []string{"m7i.large", "g4dn.xlarge"} {
		for _, spot := range []bool{false, true} {
			known := quotaOf(instance, spot)
			l := Limit{Quota: Quota{Code: known.code, Name: known.name, Link: known.link(x.a.Region)}, Spot: spot, GPU: instance[0] == 'g'}
			q, ok, err := readQuota(ctx, x.cfg, instance, spot)
			switch {
			case ok:
				l.Quota = q
			case err == nil:
				l.Err = errNoQuota
			default:
				l.Err = err
			}
			list = append(list, l)
		}
	}
	return list
}

// String is a limit for people.
func (l Limit) String() string {
	if l.Err != nil {
		return fmt.Sprintf("%s (%s): not known", l.Name, l.Code)
	}
	return fmt.Sprintf("%s (%s): %d vCPUs", l.Name, l.Code, l.VCPUs)
}

// fewCPUs is the limit below which a fleet is a handful of machines, as it is
// in a new account.
const fewCPUs = 32

func (l Limit) check() Check {
	c := Check{Name: "aws quota", State: "ok", Detail: l.String()}
	switch {
	case l.Err != nil:
		c.State, c.Advice = "warn", "see it at "+l.Link
		if cloud.KindOf(l.Err) == cloud.KindDenied {
			c.Detail += ": it needs the permission servicequotas:GetServiceQuota"
		}
	case l.GPU && l.VCPUs == 0:
		c.Advice = "for machines with a GPU raise it at " + l.Link
	case !l.GPU && l.VCPUs < fewCPUs:
		c.State, c.Advice = "warn", "few machines fit; raise it at "+l.Link
	}
	return c
}
