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

// Retag says on machines, and for them only, that they work for another run
// now: they were invited from a pool.
func (m *Machines) Retag(ctx context.Context, run string, ids ...string) error {
	if run == "" || !tagValue.MatchString(run) {
		return &cloud.Error{Op: "retag", Resource: machinesText(ids), Kind: cloud.KindInvalid, Err: fmt.Errorf("%q is no run", run)}
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var errs []error
	for chunk := range slices.Chunk(ids, 100) {
		err := m.call(ctx, "retag", machinesText(chunk), "ec2:CreateTags", func(ctx context.Context) error {
			_, err := m.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: chunk, Tags: []types.Tag{
				{Key: aws.String(tagRun), Value: aws.String(run)}, {Key: aws.String(tagName), Value: aws.String("coiled-jobs " + run)}}})
			return err
		})
		if cloud.KindOf(err) == cloud.KindNotFound && len(chunk) > 1 { // one that has ended must not spare the others
			for _, id := range chunk {
				if err := m.Retag(ctx, run, id); cloud.KindOf(err) != cloud.KindNotFound {
					errs = append(errs, err)
				}
			}
			continue
		}
		if err != nil {
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
