package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// The kinds of things that runs have in an account.
const (
	ThingMachine  = "machine"
	ThingFleet    = "fleet"
	ThingTemplate = "launch template"
	ThingQueue    = "queue"
	ThingSecret   = "secret"
)

// Thing is something in the account that carries the name of a run.
type Thing struct {
	Kind    string    `json:"kind"`
	ID      string    `json:"id"`
	Run     string    `json:"run"`
	Store   string    `json:"store,omitempty"` // of the run; "": not known
	Made    time.Time `json:"made"`            // zero: not known
	Machine *Instance `json:"-"`               // of a machine

	machines []string // of a fleet
}

func (t Thing) key() string { return t.Kind + " " + t.ID }

// Leftover is a thing that nobody needs any more.
type Leftover struct {
	Thing
	Why string `json:"why"`
	// State is "marked": removed when it is found again; "removed"; or, in a
	// dry run, "found".
	State string `json:"state"`
}

// SweepOptions says how a sweep judges.
type SweepOptions struct {
	// Over says whether nobody needs a thing any more, and why. An error is no
	// answer: the thing stays.
	Over func(ctx context.Context, t Thing) (over bool, why string, err error)
	// Marks are the leftovers that earlier sweeps saw, with the time of the
	// first; they are brought up to date. A leftover is removed when it is seen
	// again: what looks left over once may be something that just changes hands.
	Marks map[string]time.Time
	Now   bool // remove what is seen for the first time, too
	Dry   bool // change nothing, not even marks
}

const (
	// tooYoung is the age below which nothing is looked at: its run may be just
	// beginning.
	tooYoung = 2 * time.Minute
	// overdue is how long after the end of its life a machine is left over
	// whatever anybody says.
	overdue = 5 * time.Minute
)

type sweepSQS interface {
	ListQueues(context.Context, *sqs.ListQueuesInput, ...func(*sqs.Options)) (*sqs.ListQueuesOutput, error)
	ListQueueTags(context.Context, *sqs.ListQueueTagsInput, ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error)
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
	DeleteQueue(context.Context, *sqs.DeleteQueueInput, ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error)
}

// Sweeper finds and removes what runs left in a region of the account.
type Sweeper struct {
	m       *Machines
	sqs     sweepSQS
	secrets *Secrets
	now     func() time.Time
}

// OpenSweeper reads the SDK's configuration; region "" is the configured one.
func OpenSweeper(ctx context.Context, region string) (*Sweeper, error) {
	cfg, err := regionConfig(ctx, region)
	if err != nil {
		return nil, err
	}
	s := ssm.NewFromConfig(cfg)
	return &Sweeper{m: newMachines(newEC2(cfg), s, cfg.Region, MachinesOptions{}), sqs: sqs.NewFromConfig(cfg),
		secrets: &Secrets{ssm: s, region: cfg.Region}, now: time.Now}, nil
}

// Region is where the sweeper looks.
func (s *Sweeper) Region() string { return s.m.region }

// Sweep finds what nobody needs, marks it, and removes what was marked before.
// It goes on after an error; what could not be looked at stays, and stays
// marked.
func (s *Sweeper) Sweep(ctx context.Context, o SweepOptions) ([]Leftover, error) {
	things, unseen, err := s.find(ctx)
	errs := []error{err}
	now := s.now()
	var left []Leftover
	marks := map[string]time.Time{}
	kept := map[string]bool{} // machines that stay
	for _, t := range things {
		over, why := false, ""
		switch {
		case t.Machine != nil && !t.Machine.Expires.IsZero() && now.Sub(t.Machine.Expires) > overdue:
			over, why = true, "its life ended at "+t.Machine.Expires.UTC().Format(time.RFC3339)
		case now.Sub(t.Made) < tooYoung:
		case slices.ContainsFunc(t.machines, func(id string) bool { return kept[id] }):
			// One of its machines stays: the end of the fleet would be its end.
		default:
			over, why, err = o.Over(ctx, t)
			if ctx.Err() != nil {
				return left, context.Cause(ctx)
			}
			if err != nil {
				over = false
				errs = append(errs, fmt.Errorf("%s %s of run %s stays, it is not known whether it is needed: %w", t.Kind, t.ID, t.Run, err))
				if at, ok := o.Marks[t.key()]; ok {
					marks[t.key()] = at // not seen to be needed, either
				}
			}
		}
		if t.Machine != nil && !over {
			kept[t.ID] = true
		}
		if over {
			left = append(left, Leftover{Thing: t, Why: why, State: "found"})
		}
	}
	if o.Dry {
		return left, errors.Join(errs...)
	}
	for i := range left {
		l := &left[i]
		at, seen := o.Marks[l.key()]
		if !seen {
			at = now
		}
		// Where it is not known how old a thing is, its mark says how long it is
		// left over.
		if !o.Now && (!seen || l.Made.IsZero() && now.Sub(at) < tooYoung) {
			l.State = "marked"
			marks[l.key()] = at
			kept[l.ID] = true
			continue
		}
		if l.Kind == ThingFleet && slices.ContainsFunc(l.machines, func(id string) bool { return kept[id] }) {
			l.State = "marked"
			marks[l.key()] = at
			continue
		}
		if err := s.remove(ctx, l.Thing); err != nil {
			errs = append(errs, err)
			l.State = "marked"
			marks[l.key()] = at
			kept[l.ID] = true
			continue
		}
		l.State = "removed"
	}
	for key, at := range o.Marks {
		if slices.ContainsFunc(unseen, func(kind string) bool { return strings.HasPrefix(key, kind+" ") }) {
			marks[key] = at
		}
	}
	if o.Marks != nil {
		clear(o.Marks)
		maps.Copy(o.Marks, marks)
	}
	return left, errors.Join(errs...)
}

// find lists all things, machines first, and the kinds that it could not list.
func (s *Sweeper) find(ctx context.Context) (things []Thing, unseen []string, err error) {
	var errs []error
	for _, f := range []struct {
		kind string
		find func(context.Context) ([]Thing, error)
	}{{ThingMachine, s.machines}, {ThingFleet, s.fleets}, {ThingTemplate, s.templates}, {ThingQueue, s.queues}, {ThingSecret, s.parameters}} {
		if f.kind == ThingFleet && slices.Contains(unseen, ThingMachine) {
			unseen = append(unseen, f.kind) // who would be ended with them is not known
			continue
		}
		list, err := f.find(ctx)
		if err != nil {
			unseen = append(unseen, f.kind)
			errs = append(errs, err)
			continue // half a list is none
		}
		things = append(things, list...)
	}
	return things, unseen, errors.Join(errs...)
}

func (s *Sweeper) machines(ctx context.Context) ([]Thing, error) {
	list, err := s.m.Instances(ctx)
	var things []Thing
	for i := range list {
		x := &list[i]
		things = append(things, Thing{Kind: ThingMachine, ID: x.ID, Run: x.Run, Store: x.Store, Made: x.Launched, Machine: x})
	}
	return things, err
}

func (s *Sweeper) fleets(ctx context.Context) ([]Thing, error) {
	list, err := s.m.resources(ctx, filter("key", tagRun), filter("resource-type", string(types.ResourceTypeFleet)))
	if err != nil {
		return nil, err
	}
	stores, err := s.m.resources(ctx, filter("key", tagStore), filter("resource-type", string(types.ResourceTypeFleet)))
	if err != nil {
		return nil, err
	}
	runs, store := map[string]string{}, map[string]string{}
	for _, r := range list {
		runs[r.ID] = r.Run
	}
	for _, r := range stores {
		store[r.ID] = r.Run // the value of the tag
	}
	fleets, err := s.m.fleetsOf(ctx, slices.Sorted(maps.Keys(runs)))
	var things []Thing
	for _, f := range fleets {
		things = append(things, Thing{Kind: ThingFleet, ID: f.id, Run: runs[f.id], Store: store[f.id], Made: f.made, machines: f.machines})
	}
	return things, err
}

func (s *Sweeper) templates(ctx context.Context) ([]Thing, error) {
	var things []Thing
	in := &ec2.DescribeLaunchTemplatesInput{Filters: []types.Filter{filter("tag-key", tagRun)}}
	for {
		var out *ec2.DescribeLaunchTemplatesOutput
		err := s.m.call(ctx, "list", "launch templates in "+s.m.region, "ec2:DescribeLaunchTemplates", func(ctx context.Context) (err error) {
			out, err = s.m.ec2.DescribeLaunchTemplates(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, t := range out.LaunchTemplates {
			x := Thing{Kind: ThingTemplate, ID: aws.ToString(t.LaunchTemplateId), Made: aws.ToTime(t.CreateTime)}
			for _, tag := range t.Tags {
				switch aws.ToString(tag.Key) {
				case tagRun:
					x.Run = aws.ToString(tag.Value)
				case tagStore:
					x.Store = aws.ToString(tag.Value)
				}
			}
			if x.Run != "" {
				things = append(things, x)
			}
		}
		if aws.ToString(out.NextToken) == "" {
			return things, nil
		}
		in.NextToken = out.NextToken
	}
}

func (s *Sweeper) queues(ctx context.Context) ([]Thing, error) {
	var things []Thing
	in := &sqs.ListQueuesInput{QueueNamePrefix: aws.String(queuePrefix), MaxResults: aws.Int32(1000)}
	for {
		var out *sqs.ListQueuesOutput
		err := again(ctx, queuePatience, passing, func(ctx context.Context) (err error) {
			out, err = s.sqs.ListQueues(ctx, in)
			return queueError(ctx, "list queues", "in "+s.m.region, err)
		})
		if err != nil {
			return nil, err
		}
		for _, url := range out.QueueUrls {
			x, err := s.queue(ctx, url)
			if cloud.KindOf(err) == cloud.KindNotFound { // deleted since
				continue
			}
			if err != nil {
				return nil, err
			}
			if x.Run != "" { // somebody else's that is named alike
				things = append(things, x)
			}
		}
		if aws.ToString(out.NextToken) == "" {
			return things, nil
		}
		in.NextToken = out.NextToken
	}
}

func (s *Sweeper) queue(ctx context.Context, url string) (Thing, error) {
	x := Thing{Kind: ThingQueue, ID: url}
	err := again(ctx, queuePatience, passing, func(ctx context.Context) error {
		tags, err := s.sqs.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: &url})
		if err != nil {
			return queueError(ctx, "list queues", url, err)
		}
		x.Run, x.Store = tags.Tags[tagRun], tags.Tags[tagStore]
		out, err := s.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url,
			AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameCreatedTimestamp}})
		if err == nil {
			// Whole seconds; some servers say it with a fraction.
			if sec, e := strconv.ParseFloat(out.Attributes[string(sqstypes.QueueAttributeNameCreatedTimestamp)], 64); e == nil {
				x.Made = time.UnixMilli(int64(sec * 1000))
			}
		}
		return queueError(ctx, "look at queue", url, err)
	})
	return x, err
}

// parameters is the secrets of runs, /coiled-jobs/<run>/<name>.
func (s *Sweeper) parameters(ctx context.Context) ([]Thing, error) {
	var things []Thing
	in := &ssm.DescribeParametersInput{ParameterFilters: []ssmtypes.ParameterStringFilter{{Key: aws.String("Path"), Option: aws.String("Recursive"),
		Values: []string{strings.TrimSuffix(secretsRoot, "/")}}}}
	for {
		var out *ssm.DescribeParametersOutput
		err := s.secrets.call(ctx, "list", "secrets in "+s.m.region, "ssm:DescribeParameters", "*", func(ctx context.Context) (err error) {
			out, err = s.secrets.ssm.DescribeParameters(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, p := range out.Parameters {
			name := aws.ToString(p.Name)
			run, _, ok := strings.Cut(strings.TrimPrefix(name, secretsRoot), "/")
			if ok && strings.HasPrefix(name, secretsRoot) {
				things = append(things, Thing{Kind: ThingSecret, ID: name, Run: run, Store: aws.ToString(p.Description), Made: aws.ToTime(p.LastModifiedDate)})
			}
		}
		if aws.ToString(out.NextToken) == "" {
			return things, nil
		}
		in.NextToken = out.NextToken
	}
}

func (s *Sweeper) remove(ctx context.Context, t Thing) error {
	switch t.Kind {
	case ThingMachine:
		return s.m.Terminate(ctx, t.ID)
	case ThingFleet:
		return s.m.endFleets(ctx, t.Run, []string{t.ID})
	case ThingTemplate:
		return s.m.deleteTemplate(ctx, t.ID, t.ID)
	case ThingSecret:
		return s.secrets.deleteParameters(ctx, []string{t.ID})
	}
	err := again(ctx, queuePatience, passing, func(ctx context.Context) error {
		_, err := s.sqs.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &t.ID})
		return queueError(ctx, "delete queue", t.ID, err)
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	return err
}
