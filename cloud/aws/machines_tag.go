package aws

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// tagValue is what Amazon takes as the value of a tag.
var tagValue = regexp.MustCompile(`^[A-Za-z0-9 _.:/=+@-]{0,256}$`)

// ownerTag is a person as a tag: what Amazon does not take, such as the
// backslash of DOMAIN\user, is replaced.
func ownerTag(owner string) string {
	clean := []rune(strings.Map(func(r rune) rune {
		if !tagValue.MatchString(string(r)) {
			return '_'
		}
		return r
	}, owner))
	return string(clean[:min(256, len(clean))])
}

// Tags are those of the file with the ones by which a bill is divided among
// pipelines and people. What else is no tag to Amazon is left out.
func Tags(own map[string]string, pipeline, owner string) map[string]string {
	tags := map[string]string{tagPipeline: pipeline, tagOwner: ownerTag(owner)}
	for k, v := range own {
		if _, ok := tags[k]; !ok {
			tags[k] = v
		}
	}
	for k, v := range tags {
		if v == "" || !tagValue.MatchString(v) {
			delete(tags, k)
		}
	}
	return tags
}

// Retag says on machines, on their disks and on their network interfaces that
// they work for another run now: they were invited from a pool. Machines come
// first: what is listed and ended goes by them.
func (m *Machines) Retag(ctx context.Context, run string, ids ...string) error {
	if run == "" || !tagValue.MatchString(run) {
		return &cloud.Error{Op: "retag", Resource: machinesText(ids), Kind: cloud.KindInvalid, Err: fmt.Errorf("%q is no run", run)}
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var errs []error
	for chunk := range slices.Chunk(ids, 100) {
		if err := m.retag(ctx, run, machinesText(chunk), chunk); err != nil {
			errs = append(errs, err)
			continue
		}
		m.mu.Lock()
		for _, id := range chunk {
			if x, ok := m.fresh[id]; ok {
				x.Run = run
				m.fresh[id] = x
			}
		}
		m.mu.Unlock()
		var parts []string
		err := m.eachInstance(ctx, func(i types.Instance) { parts = append(parts, partsOf(i)...) }, filter("instance-id", chunk...))
		errs = append(errs, err)
		for some := range slices.Chunk(parts, 500) { // EC2 takes a thousand
			errs = append(errs, m.retag(ctx, run, "disks and network interfaces of "+machinesText(chunk), some))
		}
	}
	return errors.Join(errs...)
}

// partsOf is what of a machine is billed by itself.
func partsOf(i types.Instance) (ids []string) {
	for _, d := range i.BlockDeviceMappings {
		if d.Ebs != nil && d.Ebs.VolumeId != nil {
			ids = append(ids, *d.Ebs.VolumeId)
		}
	}
	for _, n := range i.NetworkInterfaces {
		if n.NetworkInterfaceId != nil {
			ids = append(ids, *n.NetworkInterfaceId)
		}
	}
	return ids
}

// retag tags resources. One that has ended does not spare the others.
func (m *Machines) retag(ctx context.Context, run, what string, ids []string) error {
	err := m.call(ctx, "retag", what, "ec2:CreateTags", func(ctx context.Context) error {
		_, err := m.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: ids, Tags: []types.Tag{
			{Key: aws.String(tagRun), Value: aws.String(run)}, {Key: aws.String(tagName), Value: aws.String("coiled-jobs " + run)}}})
		return err
	})
	if cloud.KindOf(err) != cloud.KindNotFound || len(ids) == 1 {
		return err
	}
	var errs []error
	for _, id := range ids {
		if err := m.retag(ctx, run, id, []string{id}); cloud.KindOf(err) != cloud.KindNotFound {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Instance is a machine with what its tags say of it.
type Instance struct {
	cloud.Machine
	Pipeline, Owner, Store string
	// Expires is when it is certainly not needed any more; zero: not known.
	Expires time.Time
}

// Instances lists the machines of all runs that have not ended, as EC2 shows
// them now.
func (m *Machines) Instances(ctx context.Context) ([]Instance, error) {
	var list []Instance
	err := m.eachInstance(ctx, func(i types.Instance) {
		x := Instance{Machine: m.machine(i)}
		for _, t := range i.Tags {
			v := aws.ToString(t.Value)
			switch aws.ToString(t.Key) {
			case tagPipeline:
				x.Pipeline = v
			case tagOwner:
				x.Owner = v
			case tagStore:
				x.Store = v
			case tagExpires:
				x.Expires, _ = time.Parse(time.RFC3339, v) // what is no time is not known
			}
		}
		if x.State != "ended" {
			list = append(list, x)
		}
	}, filter("tag-key", tagRun), liveStates)
	return list, err
}
