package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Clean removes what a run has on EC2: its machines, that of its coordinator
// too, by their tags and once more by their fleets, and its launch templates.
// Machines that are to be kept, and those of other runs, are not touched. It
// may be repeated, and goes on after an error.
func (m *Machines) Clean(ctx context.Context, run string, keep ...string) error {
	if run == "" {
		return &cloud.Error{Op: "clean up", Resource: "machines", Kind: cloud.KindInvalid, Err: errors.New("no run is named")}
	}
	var errs []error
	list, err := m.list(ctx, run)
	errs = append(errs, err)
	var ids []string
	for _, x := range list {
		if x.State != "ended" && !slices.Contains(keep, x.ID) {
			ids = append(ids, x.ID)
		}
	}
	errs = append(errs, m.Terminate(ctx, ids...), m.deleteFleets(ctx, run, keep), m.deleteTemplates(ctx, run))
	return errors.Join(errs...)
}

// deleteFleets deletes a run's fleets, and with them whatever machines of
// theirs the tags did not show. A fleet one of whose machines is kept, or works
// for another run by now, stays until that has ended.
func (m *Machines) deleteFleets(ctx context.Context, run string, keep []string) error {
	ids, err := m.tagged(ctx, types.ResourceTypeFleet, run)
	m.mu.Lock()
	for id, r := range m.fleets {
		if r == run && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	m.mu.Unlock()
	errs := []error{err}
	fleets, err := m.fleetsOf(ctx, ids)
	errs = append(errs, err)
	ids = ids[:0]
	for _, f := range fleets {
		if spared, err := m.spared(ctx, f, run, keep); err != nil {
			errs = append(errs, err)
		} else if !spared {
			ids = append(ids, f.id)
		}
	}
	errs = append(errs, m.endFleets(ctx, run, ids))
	return errors.Join(errs...)
}

// fleetInfo is a fleet and the machines it launched.
type fleetInfo struct {
	id       string
	made     time.Time
	machines []string
}

// fleetsOf looks at fleets by their ids; those that are gone are left out.
func (m *Machines) fleetsOf(ctx context.Context, ids []string) ([]fleetInfo, error) {
	var list []fleetInfo
	for chunk := range slices.Chunk(ids, 25) {
		var out *ec2.DescribeFleetsOutput
		err := m.call(ctx, "look up", fmt.Sprintf("%d fleets", len(chunk)), "ec2:DescribeFleets", func(ctx context.Context) (err error) {
			out, err = m.ec2.DescribeFleets(ctx, &ec2.DescribeFleetsInput{FleetIds: chunk})
			return err
		})
		if isCode(err, "InvalidFleetId.NotFound", "fleetIdDoesNotExist") && len(chunk) > 1 {
			for _, id := range chunk { // one unknown id fails all of them
				some, err := m.fleetsOf(ctx, []string{id})
				if err != nil {
					return list, err
				}
				list = append(list, some...)
			}
			continue
		}
		if isCode(err, "InvalidFleetId.NotFound", "fleetIdDoesNotExist") {
			continue
		}
		if err != nil {
			return list, err
		}
		for _, f := range out.Fleets {
			if f.FleetState == types.FleetStateCodeDeleted || f.FleetState == types.FleetStateCodeDeletedTerminatingInstances {
				continue
			}
			info := fleetInfo{id: aws.ToString(f.FleetId), made: aws.ToTime(f.CreateTime)}
			for _, i := range f.Instances {
				info.machines = append(info.machines, i.InstanceIds...)
			}
			list = append(list, info)
		}
	}
	return list, nil
}

// spared says whether a fleet has to stay because of one of its machines.
func (m *Machines) spared(ctx context.Context, f fleetInfo, run string, keep []string) (bool, error) {
	if slices.ContainsFunc(f.machines, func(id string) bool { return slices.Contains(keep, id) }) {
		return true, nil
	}
	if len(f.machines) == 0 {
		return false, nil
	}
	list, err := m.describe(ctx, filter("instance-id", f.machines...), liveStates)
	return slices.ContainsFunc(list, func(x cloud.Machine) bool { return x.State != "ended" && x.Run != run }), err
}

// endFleets deletes fleets with their machines.
func (m *Machines) endFleets(ctx context.Context, run string, ids []string) error {
	var errs []error
	for chunk := range slices.Chunk(ids, 25) { // EC2's limit
		var out *ec2.DeleteFleetsOutput
		err := m.call(ctx, "delete", "fleets of "+run, "ec2:DeleteFleets", func(ctx context.Context) (err error) {
			out, err = m.ec2.DeleteFleets(ctx, &ec2.DeleteFleetsInput{FleetIds: chunk, TerminateInstances: aws.Bool(true)})
			return err
		})
		errs = append(errs, err)
		if err != nil {
			continue
		}
		m.mu.Lock()
		for _, id := range chunk {
			delete(m.fleets, id)
		}
		m.mu.Unlock()
		for _, f := range out.UnsuccessfulFleetDeletions {
			if f.Error == nil || f.Error.Code == types.DeleteFleetErrorCodeFleetIdDoesNotExist ||
				f.Error.Code == types.DeleteFleetErrorCodeFleetNotInDeletableState { // deleted already
				continue
			}
			errs = append(errs, &cloud.Error{Op: "delete fleet", Resource: aws.ToString(f.FleetId),
				Err: fmt.Errorf("%s (%s)", lowerFirst(aws.ToString(f.Error.Message)), f.Error.Code)})
		}
	}
	return errors.Join(errs...)
}

func (m *Machines) deleteTemplates(ctx context.Context, run string) error {
	var errs []error
	in := &ec2.DescribeLaunchTemplatesInput{Filters: []types.Filter{filter("tag:"+tagRun, run)}}
	for {
		var out *ec2.DescribeLaunchTemplatesOutput
		err := m.call(ctx, "list", "launch templates of "+run, "ec2:DescribeLaunchTemplates", func(ctx context.Context) (err error) {
			out, err = m.ec2.DescribeLaunchTemplates(ctx, in)
			return err
		})
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, t := range out.LaunchTemplates {
			m.setup.Lock()
			delete(m.made, aws.ToString(t.LaunchTemplateName))
			m.setup.Unlock()
			errs = append(errs, m.deleteTemplate(ctx, aws.ToString(t.LaunchTemplateId), aws.ToString(t.LaunchTemplateName)))
		}
		if aws.ToString(out.NextToken) == "" {
			return errors.Join(errs...)
		}
		in.NextToken = out.NextToken
	}
}

// deleteTemplate deletes a launch template; one that is gone is no error.
func (m *Machines) deleteTemplate(ctx context.Context, id, name string) error {
	err := m.call(ctx, "delete launch template", name, "ec2:DeleteLaunchTemplate", func(ctx context.Context) error {
		_, err := m.ec2.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateId: &id})
		return err
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	return err
}

// tagged is the ids of a run's resources of a kind.
func (m *Machines) tagged(ctx context.Context, kind types.ResourceType, run string) ([]string, error) {
	list, err := m.resources(ctx, filter("key", tagRun), filter("value", run), filter("resource-type", string(kind)))
	var ids []string
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	return ids, err
}

// Resource is something on EC2 that has the tag of a run.
type Resource struct {
	Kind string // instance, volume, fleet, launch-template...
	ID   string
	Run  string
}

// Resources lists everything that has the tag of any run, also what ended a
// while ago: EC2 shows machines for an hour.
func (m *Machines) Resources(ctx context.Context) ([]Resource, error) {
	return m.resources(ctx, filter("key", tagRun))
}

func (m *Machines) resources(ctx context.Context, filters ...types.Filter) ([]Resource, error) {
	var list []Resource
	in := &ec2.DescribeTagsInput{Filters: filters, MaxResults: aws.Int32(1000)}
	for {
		var out *ec2.DescribeTagsOutput
		err := m.call(ctx, "list", "tags in "+m.region, "ec2:DescribeTags", func(ctx context.Context) (err error) {
			out, err = m.ec2.DescribeTags(ctx, in)
			return err
		})
		if err != nil {
			return list, err
		}
		for _, t := range out.Tags {
			list = append(list, Resource{Kind: string(t.ResourceType), ID: aws.ToString(t.ResourceId), Run: aws.ToString(t.Value)})
		}
		if aws.ToString(out.NextToken) == "" {
			return list, nil
		}
		in.NextToken = out.NextToken
	}
}
