package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// The tags of everything that is rented for a run. List and the clean-up go by
// them, and policies may.
const (
	tagRun      = "coiled-jobs:run"
	tagPool     = "coiled-jobs:pool"
	tagPipeline = "coiled-jobs:pipeline"
	tagOwner    = "coiled-jobs:owner"
	tagExpires  = "coiled-jobs:expires-at"
	tagLaunch   = "coiled-jobs:launch" // which call of Launch it was
	tagRole     = "coiled-jobs:role"   // none: it runs tasks
	tagStore    = "coiled-jobs:store"  // where its run is
	tagName     = "Name"
)

// ec2API is what Machines call of EC2.
type ec2API interface {
	CreateFleet(context.Context, *ec2.CreateFleetInput, ...func(*ec2.Options)) (*ec2.CreateFleetOutput, error)
	DeleteFleets(context.Context, *ec2.DeleteFleetsInput, ...func(*ec2.Options)) (*ec2.DeleteFleetsOutput, error)
	CreateLaunchTemplate(context.Context, *ec2.CreateLaunchTemplateInput, ...func(*ec2.Options)) (*ec2.CreateLaunchTemplateOutput, error)
	DescribeLaunchTemplates(context.Context, *ec2.DescribeLaunchTemplatesInput, ...func(*ec2.Options)) (*ec2.DescribeLaunchTemplatesOutput, error)
	DeleteLaunchTemplate(context.Context, *ec2.DeleteLaunchTemplateInput, ...func(*ec2.Options)) (*ec2.DeleteLaunchTemplateOutput, error)
	DescribeInstances(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
	TerminateInstances(context.Context, *ec2.TerminateInstancesInput, ...func(*ec2.Options)) (*ec2.TerminateInstancesOutput, error)
	DescribeImages(context.Context, *ec2.DescribeImagesInput, ...func(*ec2.Options)) (*ec2.DescribeImagesOutput, error)
	DescribeSubnets(context.Context, *ec2.DescribeSubnetsInput, ...func(*ec2.Options)) (*ec2.DescribeSubnetsOutput, error)
	DescribeSecurityGroups(context.Context, *ec2.DescribeSecurityGroupsInput, ...func(*ec2.Options)) (*ec2.DescribeSecurityGroupsOutput, error)
	CreateSecurityGroup(context.Context, *ec2.CreateSecurityGroupInput, ...func(*ec2.Options)) (*ec2.CreateSecurityGroupOutput, error)
	DescribeFleets(context.Context, *ec2.DescribeFleetsInput, ...func(*ec2.Options)) (*ec2.DescribeFleetsOutput, error)
	CreateTags(context.Context, *ec2.CreateTagsInput, ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error)
	DescribeTags(context.Context, *ec2.DescribeTagsInput, ...func(*ec2.Options)) (*ec2.DescribeTagsOutput, error)
}

// ssmAPI is what Machines call of Systems Manager.
type ssmAPI interface {
	GetParameter(context.Context, *ssm.GetParameterInput, ...func(*ssm.Options)) (*ssm.GetParameterOutput, error)
}

// MachinesOptions says how machines are launched.
type MachinesOptions struct {
	Region string // empty: the configured one
	// Template gives what a MachineSpec does not say. nil: nothing special.
	Template func(cloud.MachineSpec) (Template, error)
	// Types are those of a MachineSpec that names none.
	Types []string
	// Record is called with each request to launch before it is made. If it
	// fails the request is not made. Recall gives what was recorded for the
	// token of a MachineSpec, by this process or an earlier one. With both, a
	// launch that is repeated after a crash finds the machines of the first
	// try instead of renting them twice. Without them only this process
	// remembers.
	Record func(context.Context, Intent) error
	Recall func(ctx context.Context, token string) ([]Intent, error)
	// Price is the dollars per hour of a machine. nil: not known.
	Price func(instanceType, zone string, spot bool) float64
}

// Template is what goes into a machine beside its MachineSpec.
type Template struct {
	Pipeline, Owner string    // for tags
	Store           string    // for tags: the store of the run
	Expires         time.Time // for tags; zero: none
	UserData        []byte
	Image           string   // an AMI; empty: the newest Amazon Linux 2023
	Arch            string   // x86_64 or arm64; empty: that of the types
	Subnets         []string // empty: the default network's, one for each zone
	SecurityGroup   string   // empty: one of ours, which lets nothing in
	Profile         string   // instance profile, its name or ARN; empty: none
}

// Machines rents machines of EC2 in one region. It is safe for concurrent use.
//
// EC2 tells what happened with a delay: a machine may be unknown for seconds
// after its launch and look alive for seconds after its end. For that time
// Machines go by what EC2 answered to their own requests.
type Machines struct {
	ec2    ec2API
	ssm    ssmAPI
	region string
	o      MachinesOptions

	setup  sync.Mutex // held while what is shared by launches is looked up
	images map[string]image
	nets   map[string]network
	made   map[string]bool // launch templates

	mu     sync.Mutex
	tokens map[string]*launched
	failed map[poolKey]time.Time // until when a pool is left out
	fresh  map[string]cloud.Machine
	ended  map[string]time.Time // machines that EC2 said it ends
	fleets map[string]string    // fleet -> run
}

var _ cloud.Machines = (*Machines)(nil)

const (
	// unseen is how long a machine may be unknown to EC2 after its launch, and
	// look alive after its end.
	unseen = 2 * time.Minute
	// leftOut is how long a pool without capacity is not tried again.
	leftOut = 3 * time.Minute
	// strangers is how long a machine that this process did not launch is
	// looked for when it is to be ended.
	strangers = 4 * time.Second
	// ec2Patience is how long a request is made again that EC2 throttles or
	// cannot answer.
	ec2Patience = 2 * time.Minute
	// pageSize is how many instances a page has: EC2 serves pages faster.
	pageSize = 500
)

// OpenMachines reads the SDK's configuration. It does not speak to EC2 yet.
func OpenMachines(ctx context.Context, o MachinesOptions) (*Machines, error) {
	cfg, err := loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	if o.Region != "" {
		cfg.Region = o.Region
	}
	return newMachines(newEC2(cfg), ssm.NewFromConfig(cfg), cfg.Region, o), nil
}

func newMachines(e ec2API, s ssmAPI, region string, o MachinesOptions) *Machines {
	return &Machines{ec2: e, ssm: s, region: region, o: o,
		images: map[string]image{}, nets: map[string]network{}, made: map[string]bool{}, tokens: map[string]*launched{},
		failed: map[poolKey]time.Time{}, fresh: map[string]cloud.Machine{}, ended: map[string]time.Time{}, fleets: map[string]string{}}
}

// Region is where the machines are.
func (m *Machines) Region() string { return m.region }

// call makes a request, again while EC2 throttles it or fails.
func (m *Machines) call(ctx context.Context, op, resource, action string, do func(context.Context) error) error {
	return again(ctx, ec2Patience, passing, func(ctx context.Context) error {
		return ec2Error(ctx, op, resource, action, do(ctx))
	})
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

// liveStates leaves out what has ended: EC2 shows it for an hour.
var liveStates = filter("instance-state-name", "pending", "running", "shutting-down", "stopping", "stopped")

// List finds the machines of a run by their tags; those of all runs if run is "".
func (m *Machines) List(ctx context.Context, run string) ([]cloud.Machine, error) {
	list, err := m.list(ctx, run)
	if run != "" {
		list = slices.DeleteFunc(list, func(x cloud.Machine) bool { return x.Role != "" })
	}
	return list, err
}

func (m *Machines) list(ctx context.Context, run string) ([]cloud.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	by := filter("tag-key", tagRun)
	if run != "" {
		by = filter("tag:"+tagRun, run)
	}
	list, err := m.describe(ctx, by, liveStates)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range list {
		seen[list[i].ID] = true
	}
	now := time.Now()
	var missing []cloud.Machine
	m.mu.Lock()
	maps.DeleteFunc(m.fresh, func(id string, x cloud.Machine) bool { return seen[id] || now.Sub(x.Launched) > unseen })
	maps.DeleteFunc(m.ended, func(_ string, at time.Time) bool { return now.Sub(at) > unseen })
	for i := range list {
		if _, ok := m.ended[list[i].ID]; ok {
			list[i].State = "ended"
		}
	}
	for _, x := range m.fresh {
		if run == "" || x.Run == run {
			missing = append(missing, x)
		}
	}
	m.mu.Unlock()
	if len(missing) == 0 {
		return list, nil
	}
	// They are too young to be found by tag, or ended already.
	known := map[string]cloud.Machine{}
	for ids := range slices.Chunk(missing, 200) {
		var values []string
		for _, x := range ids {
			values = append(values, x.ID)
		}
		found, err := m.describe(ctx, filter("instance-id", values...))
		if err != nil {
			return nil, err
		}
		for _, x := range found {
			known[x.ID] = x
		}
	}
	for _, x := range missing {
		k, ok := known[x.ID]
		switch {
		case ok && k.State == "ended":
			m.mu.Lock()
			delete(m.fresh, x.ID)
			m.mu.Unlock()
			list = append(list, k) // once: who has just rented it should know
		case ok:
			x.State = k.State
			list = append(list, x)
		default:
			list = append(list, x)
		}
	}
	return list, nil
}

// describe lists machines.
func (m *Machines) describe(ctx context.Context, filters ...types.Filter) ([]cloud.Machine, error) {
	var list []cloud.Machine
	err := m.eachInstance(ctx, func(i types.Instance) { list = append(list, m.machine(i)) }, filters...)
	return list, err
}

// eachInstance asks for instances, page by page.
func (m *Machines) eachInstance(ctx context.Context, yield func(types.Instance), filters ...types.Filter) error {
	in := &ec2.DescribeInstancesInput{Filters: filters, MaxResults: aws.Int32(pageSize)}
	for {
		var out *ec2.DescribeInstancesOutput
		err := m.call(ctx, "list", "machines in "+m.region, "ec2:DescribeInstances", func(ctx context.Context) (err error) {
			out, err = m.ec2.DescribeInstances(ctx, in)
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				yield(i)
			}
		}
		if aws.ToString(out.NextToken) == "" {
			return nil
		}
		in.NextToken = out.NextToken
	}
}

func (m *Machines) machine(i types.Instance) cloud.Machine {
	x := cloud.Machine{ID: aws.ToString(i.InstanceId), Type: string(i.InstanceType), Launched: aws.ToTime(i.LaunchTime),
		Spot: i.InstanceLifecycle == types.InstanceLifecycleTypeSpot}
	if i.Placement != nil {
		x.Zone = aws.ToString(i.Placement.AvailabilityZone)
	}
	if i.State != nil {
		x.State = stateOf(i.State.Name)
	}
	for _, t := range i.Tags {
		switch aws.ToString(t.Key) {
		case tagRun:
			x.Run = aws.ToString(t.Value)
		case tagPool:
			x.Pool = aws.ToString(t.Value)
		case tagRole:
			x.Role = aws.ToString(t.Value)
		}
	}
	x.PricePerHour = m.price(x.Type, x.Zone, x.Spot)
	return x
}

// stateOf is a state of EC2 in the contract's words. A stopped machine has not
// ended: its disk is billed, and somebody may start it.
func stateOf(s types.InstanceStateName) string {
	switch s {
	case types.InstanceStateNamePending:
		return "pending"
	case types.InstanceStateNameShuttingDown, types.InstanceStateNameTerminated:
		return "ended"
	}
	return "running"
}

func (m *Machines) price(instanceType, zone string, spot bool) float64 {
	if m.o.Price == nil {
		return 0
	}
	return m.o.Price(instanceType, zone, spot)
}

// Terminate ends machines. One bad id does not spare the others; one that EC2
// does not know is looked for again, since it may only be too young.
func (m *Machines) Terminate(ctx context.Context, ids ...string) error {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var errs []error
	for chunk := range slices.Chunk(ids, 100) {
		unknown, err := m.terminate(ctx, chunk)
		if err == nil && len(unknown) > 0 {
			err = m.terminateLate(ctx, unknown)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// terminate ends the machines that EC2 knows and returns those it does not.
// EC2 ends none of a batch in which it does not know one.
func (m *Machines) terminate(ctx context.Context, ids []string) (unknown []string, err error) {
	for len(ids) > 0 {
		err := m.call(ctx, "terminate", machinesText(ids), "ec2:TerminateInstances", func(ctx context.Context) error {
			_, err := m.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
			return err
		})
		if err == nil {
			m.mu.Lock()
			for _, id := range ids {
				m.ended[id] = time.Now()
				delete(m.fresh, id)
			}
			m.mu.Unlock()
			return unknown, nil
		}
		if !isCode(err, "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed") {
			return unknown, err
		}
		bad := notFoundIDs(err)
		rest := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(bad, id) })
		if len(rest) == len(ids) { // the message does not say which
			if len(ids) == 1 {
				return append(unknown, ids...), nil
			}
			half, err := m.terminate(ctx, ids[:len(ids)/2])
			if err != nil {
				return unknown, err
			}
			unknown, rest = append(unknown, half...), ids[len(ids)/2:]
		} else {
			unknown = append(unknown, slices.DeleteFunc(bad, func(id string) bool { return !slices.Contains(ids, id) })...)
		}
		ids = rest
	}
	return unknown, nil
}

// terminateLate ends machines that EC2 did not know. Those that this process
// launched are certain to exist; others are gone if they do not turn up soon.
func (m *Machines) terminateLate(ctx context.Context, ids []string) error {
	isFresh := func(id string) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		_, ok := m.fresh[id]
		return ok
	}
	start := time.Now()
	backoff := newBackoff()
	for {
		found, err := m.describe(ctx, filter("instance-id", ids...))
		if err != nil {
			return err
		}
		var alive []string
		for _, x := range found {
			ids = slices.DeleteFunc(ids, func(id string) bool { return id == x.ID })
			if x.State != "ended" {
				alive = append(alive, x.ID)
			}
		}
		still, err := m.terminate(ctx, alive)
		if err != nil {
			return err
		}
		ids = append(ids, still...)
		wait, _ := backoff.Next()
		if time.Since(start)+wait > strangers {
			ids = slices.DeleteFunc(ids, func(id string) bool { return !isFresh(id) })
		}
		if len(ids) == 0 {
			return nil
		}
		if time.Since(start)+wait > unseen {
			return &cloud.Error{Op: "terminate", Resource: machinesText(ids), Kind: cloud.KindTransient,
				Err: fmt.Errorf("EC2 launched %s and does not know of it after %v; try again", ids[0], unseen)}
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func machinesText(ids []string) string {
	if len(ids) == 1 {
		return ids[0]
	}
	return fmt.Sprintf("%d machines", len(ids))
}
