package aws

import (
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// TestMachinesServer rents machines of a server that nobody here wrote: the
// wire format is right. Its parts share it by way of the environment.
func TestMachinesServer(t *testing.T) {
	motoserver.Start(t, motoserver.Options{Capacity: 15}).Setenv(t)
	open := func(t testing.TB, o MachinesOptions) *Machines {
		t.Helper()
		o.Types = []string{"m5.large"}
		m, err := OpenMachines(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ended := func(t *testing.T, m *Machines, run string) {
		t.Helper()
		list, err := m.List(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if x.State != "ended" {
				t.Errorf("left: %+v", x)
			}
		}
	}
	// The suite wants regions of its own: one account each.
	var accounts atomic.Int64
	t.Run("conformance", func(t *testing.T) {
		cloudtest.TestMachines(t, func(t testing.TB) cloud.Machines {
			m := open(t, MachinesOptions{})
			m.ec2 = ec2.NewFromConfig(account(t, accounts.Add(1)))
			return m
		})
	})
	t.Run("what is rented", func(t *testing.T) {
		userData := "#!/bin/bash\ntrue\n"
		m := open(t, MachinesOptions{Template: func(cloud.MachineSpec) (Template, error) {
			return Template{Pipeline: "taxi", Owner: "me", UserData: []byte(userData)}, nil
		}})
		got, err := m.Launch(t.Context(), cloud.MachineSpec{Run: "r1", Pool: "p1", Token: "t", Count: 3, Types: []string{"m5.large", "c5.large"},
			Spot: "spot_with_fallback", DiskGB: 40, Tags: map[string]string{"team": "data"}})
		if err != nil || len(got) != 3 {
			t.Fatalf("%d machines, %v", len(got), err)
		}
		cfg, err := loadConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e := ec2.NewFromConfig(cfg)
		out, err := e.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: []types.Filter{filter("tag:"+tagRun, "r1")}})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				n++
				if i.InstanceLifecycle != "spot" || i.KeyName != nil || aws.ToString(i.SubnetId) == "" || !strings.HasPrefix(aws.ToString(i.ImageId), "ami-") {
					t.Errorf("instance: %s", wire(i))
				}
				tags := map[string]string{}
				for _, x := range i.Tags {
					tags[*x.Key] = *x.Value
				}
				if tags[tagPool] != "p1" || tags[tagOwner] != "me" || tags[tagPipeline] != "taxi" || tags["team"] != "data" || tags[tagLaunch] == "" {
					t.Errorf("tags: %v", tags)
				}
			}
		}
		if n != 3 {
			t.Errorf("%d instances", n)
		}
		data, err := e.DescribeInstanceAttribute(t.Context(), &ec2.DescribeInstanceAttributeInput{InstanceId: &got[0].ID, Attribute: types.InstanceAttributeNameUserData})
		if err != nil || data.UserData == nil || aws.ToString(data.UserData.Value) != base64.StdEncoding.EncodeToString([]byte(userData)) {
			t.Errorf("user data: %s, %v", wire(data), err)
		}
		versions, err := e.DescribeLaunchTemplateVersions(t.Context(), &ec2.DescribeLaunchTemplateVersionsInput{
			LaunchTemplateName: aws.String(m.known(t, "r1").Template), Versions: []string{"1"}})
		if err != nil {
			t.Fatal(err)
		}
		d := versions.LaunchTemplateVersions[0].LaunchTemplateData
		if d.InstanceInitiatedShutdownBehavior != "terminate" || d.MetadataOptions.HttpTokens != "required" || !aws.ToBool(d.BlockDeviceMappings[0].Ebs.Encrypted) {
			t.Errorf("template: %s", wire(d))
		}
		group, err := e.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{GroupIds: d.SecurityGroupIds})
		if err != nil || len(group.SecurityGroups) != 1 || len(group.SecurityGroups[0].IpPermissions) != 0 || len(group.SecurityGroups[0].IpPermissionsEgress) == 0 {
			t.Errorf("security group: %s, %v", wire(group), err)
		}
		if err := open(t, MachinesOptions{}).Clean(t.Context(), "r1"); err != nil {
			t.Error(err)
		}
		ended(t, m, "r1")
		left, err := e.DescribeLaunchTemplates(t.Context(), &ec2.DescribeLaunchTemplatesInput{Filters: []types.Filter{filter("tag:"+tagRun, "r1")}})
		if err != nil || len(left.LaunchTemplates) != 0 {
			t.Errorf("launch templates: %s, %v", wire(left), err)
		}
	})
	t.Run("fallback", func(t *testing.T) {
		m := open(t, MachinesOptions{})
		got, err := m.Launch(t.Context(), cloud.MachineSpec{Run: "r2", Token: "t", Count: 100, Spot: "spot_with_fallback", Types: []string{"m5.xlarge"}})
		spot := 0
		for _, x := range got {
			if x.Spot {
				spot++
			}
		}
		if err != nil || len(got) != 100 || spot == 0 || spot == 100 || spot%15 != 0 {
			t.Errorf("%d machines, %d of them spot, %v", len(got), spot, err)
		}
		if err := m.Clean(t.Context(), "r2"); err != nil {
			t.Error(err)
		}
		ended(t, m, "r2")
	})
	t.Run("failures", func(t *testing.T) {
		for _, tt := range []struct {
			template Template
			spec     cloud.MachineSpec
			kind     cloud.Kind
			text     string
		}{
			{Template{Subnets: []string{"subnet-0123456789abcdef0"}}, cloud.MachineSpec{}, cloud.KindNotFound, "subnet-0123456789abcdef0"},
			{Template{Image: "ami-0123456789abcdef0"}, cloud.MachineSpec{}, cloud.KindNotFound, "ami-0123456789abcdef0"},
			{Template{Arch: "vax"}, cloud.MachineSpec{}, cloud.KindNotFound, "kernel-default-vax"},
		} {
			tt.spec.Run, tt.spec.Count = "r3", 1
			m := open(t, MachinesOptions{Template: func(cloud.MachineSpec) (Template, error) { return tt.template, nil }})
			got, err := m.Launch(t.Context(), tt.spec)
			if len(got) != 0 || cloud.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%+v: %d machines, kind %q: %v", tt.template, len(got), cloud.KindOf(err), err)
			}
		}
	})
}
