package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// SetupOptions says what a set-up is for.
type SetupOptions struct {
	Region string // empty: the configured one
	// Read and Write are s3:// addresses of data beside the store that tasks
	// read, or write; Secrets are ssm:/name, or names in Secrets Manager, that
	// they are given. They come on top of what an earlier set-up granted,
	// unless Forget.
	Read, Write, Secrets []string
	Forget               bool
	// WithData lets a removal delete a bucket that has objects.
	WithData bool
}

// SetupItem is a thing of a set-up.
type SetupItem struct {
	Kind string `json:"kind"` // bucket, role, instance profile, security group...
	Name string `json:"name"`
	// State is what will be done, or was: create, update, delete; there (as it
	// should be), gone (as it should be), kept (it is not ours to delete).
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
}

// Setup is what a set-up, or its removal, does to an account: first known and
// shown, then done.
type Setup struct {
	Account Account
	Bucket  string
	Items   []SetupItem

	steps []func(context.Context) error // of each item; nil: nothing to do
	admin *admin
}

// admin is the clients of a set-up.
type admin struct {
	a   Account
	cfg aws.Config
	s3  *s3.Client
	iam *iam.Client
	ec2 *ec2Calls
	m   *Machines
}

func newAdmin(ctx context.Context, region string) (*admin, error) {
	cfg, err := regionConfig(ctx, region)
	if err != nil {
		return nil, err
	}
	a, err := whoAmI(ctx, cfg)
	if err != nil {
		return nil, err
	}
	e := newEC2(cfg)
	return &admin{a: a, cfg: cfg, s3: s3.NewFromConfig(cfg, s3Options), iam: iam.NewFromConfig(cfg), ec2: e,
		m: newMachines(e, ssm.NewFromConfig(cfg), cfg.Region, MachinesOptions{})}, nil
}

// call makes a request about an account, again while it is throttled. What is
// denied names the permission.
func (x *admin) call(ctx context.Context, op, resource, action string, do func(context.Context) error) error {
	return again(ctx, adminPatience, passing, func(ctx context.Context) error {
		err := do(ctx)
		if ctx.Err() == nil && isCode(err, "AccessDenied", "AccessDeniedException", "UnauthorizedOperation") {
			return &cloud.Error{Op: op, Resource: resource, Kind: cloud.KindDenied, Err: &apiError{err: err,
				msg: fmt.Sprintf(`%s lacks the permission %s; "coiled-jobs setup aws --policy setup" prints what a set-up needs`, x.a.Principal, action)}}
		}
		return mapError(ctx, op, resource, err)
	})
}

// PlanSetup looks at what is there and says what a set-up would do. Nothing is
// changed.
func PlanSetup(ctx context.Context, o SetupOptions) (*Setup, error) {
	x, err := newAdmin(ctx, o.Region)
	if err != nil {
		return nil, err
	}
	more, err := grants(x.a, o)
	if err != nil {
		return nil, err
	}
	s := &Setup{Account: x.a, Bucket: BucketName(x.a.ID, x.a.Region), admin: x}
	for _, plan := range []func(context.Context, *Setup) error{
		x.planBucket,
		func(ctx context.Context, s *Setup) error {
			return x.planRole(ctx, s, MachineRole, "machines of coiled-jobs", machinePolicy(x.a), more, o.Forget)
		},
		func(ctx context.Context, s *Setup) error {
			return x.planRole(ctx, s, CoordinatorRole, "the coordinator of a detached run of coiled-jobs", coordinatorPolicy(x.a), more.lists(), o.Forget)
		},
		x.planSpotRole,
		x.planGroup,
	} {
		if err := plan(ctx, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Setup) add(kind, name, state, detail string, step func(context.Context) error) {
	s.Items = append(s.Items, SetupItem{Kind: kind, Name: name, State: state, Detail: detail})
	s.steps = append(s.steps, step)
}

// Changes says whether there is anything to do.
func (s *Setup) Changes() bool {
	return slices.ContainsFunc(s.steps, func(f func(context.Context) error) bool { return f != nil })
}

// Do does what was planned, in order, and tells of each item that is done. It
// can be repeated after an error: what was done is found by the next plan.
func (s *Setup) Do(ctx context.Context, done func(SetupItem)) error {
	for i, step := range s.steps {
		if step == nil {
			continue
		}
		if err := step(ctx); err != nil {
			return err
		}
		if done != nil {
			done(s.Items[i])
		}
	}
	return nil
}

// planSpotRole plans the role that EC2 needs to launch spot machines. It
// belongs to the account: other programs use it too.
func (x *admin) planSpotRole(ctx context.Context, s *Setup) error {
	there, err := x.spotRoleThere(ctx)
	if err != nil {
		return err
	}
	if there {
		s.add("service role", spotRole, "there", "lets EC2 launch spot machines", nil)
		return nil
	}
	s.add("service role", spotRole, "create", "lets EC2 launch spot machines; shared by the account", func(ctx context.Context) error {
		err := x.call(ctx, "create role", spotRole, "iam:CreateServiceLinkedRole", func(ctx context.Context) error {
			_, err := x.iam.CreateServiceLinkedRole(ctx, &iam.CreateServiceLinkedRoleInput{AWSServiceName: aws.String("spot.amazonaws.com")})
			return err
		})
		if isCode(err, "InvalidInput", "EntityAlreadyExists") && strings.Contains(err.Error(), "taken") {
			return nil // by somebody else, just now
		}
		return err
	})
	return nil
}

// spotRoleThere says whether the account has the role for spot machines: the
// only one below its path.
func (x *admin) spotRoleThere(ctx context.Context) (bool, error) {
	there := false
	err := x.call(ctx, "look for", "role "+spotRole, "iam:ListRoles", func(ctx context.Context) error {
		out, err := x.iam.ListRoles(ctx, &iam.ListRolesInput{PathPrefix: aws.String(spotRolePath)})
		there = err == nil && len(out.Roles) > 0
		return err
	})
	return there, err
}

// planGroup plans the security group of machines in the default network. Where
// there is none, pipelines name theirs.
func (x *admin) planGroup(ctx context.Context, s *Setup) error {
	vpc, err := x.defaultNetwork(ctx)
	if err != nil {
		return err
	}
	if vpc == "" {
		s.add("network", "default", "gone", noNetwork(x.a.Region), nil)
		return nil
	}
	id, err := x.m.findGroup(ctx, vpc)
	if err != nil {
		return err
	}
	if id != "" {
		s.add("security group", groupName, "there", id+" in "+vpc+": nothing comes in", nil)
		return nil
	}
	s.add("security group", groupName, "create", "in "+vpc+": nothing comes in, everything may go out", func(ctx context.Context) error {
		_, err := x.m.securityGroup(ctx, vpc)
		return err
	})
	return nil
}

func noNetwork(region string) string {
	return fmt.Sprintf("there is no default network in %s: make one (aws ec2 create-default-vpc --region %s), or name hardware.subnet and hardware.security_group in pipelines", region, region)
}

// defaultNetwork is the default VPC of the region, "" if there is none.
func (x *admin) defaultNetwork(ctx context.Context) (string, error) {
	var out *ec2.DescribeSubnetsOutput
	err := x.call(ctx, "look up", "subnets in "+x.a.Region, "ec2:DescribeSubnets", func(ctx context.Context) (err error) {
		out, err = x.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("default-for-az", "true"), filter("state", "available")}})
		return err
	})
	if err != nil || len(out.Subnets) == 0 {
		return "", err
	}
	return aws.ToString(out.Subnets[0].VpcId), nil
}

// PlanRemoval says what taking a set-up back would do: all of it but the
// account's own role for spot machines, and the roles while another region
// uses them. A bucket with objects is kept unless o.WithData.
func PlanRemoval(ctx context.Context, o SetupOptions) (*Setup, error) {
	x, err := newAdmin(ctx, o.Region)
	if err != nil {
		return nil, err
	}
	s := &Setup{Account: x.a, Bucket: BucketName(x.a.ID, x.a.Region), admin: x}
	live, err := x.m.describe(ctx, filter("tag-key", tagRun), liveStates)
	if err != nil {
		return nil, err
	}
	if live = slices.DeleteFunc(live, func(m cloud.Machine) bool { return m.State == "ended" }); len(live) > 0 {
		return nil, &cloud.Error{Op: "remove", Resource: "the set-up of " + x.a.Region, Kind: cloud.KindConflict,
			Err: fmt.Errorf(`%d machines live, the first is %s of run %s: cancel their runs, or "coiled-jobs gc --now", and try again`, len(live), live[0].ID, live[0].Run)}
	}
	others, err := x.otherRegions(ctx)
	if err != nil {
		return nil, err
	}
	if err := x.planGroupRemoval(ctx, s); err != nil {
		return nil, err
	}
	for _, role := range []string{CoordinatorRole, MachineRole} {
		if len(others) > 0 {
			s.add("role", role, "kept", "used in "+strings.Join(others, ", ")+" too", nil)
			continue
		}
		if err := x.planRoleRemoval(ctx, s, role); err != nil {
			return nil, err
		}
	}
	s.add("service role", spotRole, "kept", "belongs to the account; other programs may use it", nil)
	return s, x.planBucketRemoval(ctx, s, o.WithData)
}

func (x *admin) planGroupRemoval(ctx context.Context, s *Setup) error {
	vpc, err := x.defaultNetwork(ctx)
	if err != nil {
		return err
	}
	id := ""
	if vpc != "" {
		if id, err = x.m.findGroup(ctx, vpc); err != nil && cloud.KindOf(err) != cloud.KindInvalid {
			return err
		}
		if err != nil { // somebody let something in: it is theirs now
			s.add("security group", groupName, "kept", "it was changed: it lets something in", nil)
			return nil
		}
	}
	if id == "" {
		s.add("security group", groupName, "gone", "", nil)
		return nil
	}
	s.add("security group", groupName, "delete", id+" in "+vpc, func(ctx context.Context) error {
		err := x.call(ctx, "delete", "security group "+id, "ec2:DeleteSecurityGroup", func(ctx context.Context) error {
			_, err := x.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &id})
			return err
		})
		switch {
		case cloud.KindOf(err) == cloud.KindNotFound:
			return nil
		case isCode(err, "DependencyViolation"):
			return &cloud.Error{Op: "delete", Resource: "security group " + id, Kind: cloud.KindConflict,
				Err: errors.New("machines that have ended a moment ago still use it; try again in a minute")}
		}
		return err
	})
	return nil
}
