package aws

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

// Machines with GPUs of NVIDIA get the image that has their drivers, on a disk
// on which it fits; unless the file names an image.
func TestImageOfGPUs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		types      string
		disk       int
		ami        string
		driverless bool
		want       string // image
		gb         int32
	}{
		{types: "m5.large", disk: 30, want: "ami-x86_64", gb: 30},
		{types: "g4dn.xlarge g5.xlarge", disk: 30, want: "ami-gpu-x86_64", gb: 75},
		{types: "g4dn.xlarge", disk: 200, want: "ami-gpu-x86_64", gb: 200},
		{types: "g4dn.xlarge", want: "ami-gpu-x86_64"},
		{types: "g5g.xlarge", disk: 30, want: "ami-gpu-arm64", gb: 75},
		{types: "g4dn.xlarge m5.large", disk: 30, want: "ami-x86_64", gb: 30},
		{types: "g4dn.xlarge", disk: 30, ami: "ami-mine", want: "ami-mine", gb: 30},
		{types: "g4dn.xlarge", disk: 30, ami: "ami-gpu-mine", want: "ami-gpu-mine", gb: 75},
		{types: "g4dn.xlarge", disk: 30, driverless: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeEC2(&cloudtest.Region{Default: 60})
			f.driverless = tt.driverless
			m := newMachines(f, f, "us-east-1", MachinesOptions{Template: func(cloud.MachineSpec) (Template, error) { return Template{Image: tt.ami}, nil }})
			_, err := m.Launch(t.Context(), cloud.MachineSpec{Run: "r", Token: "t", Count: 1, Types: strings.Fields(tt.types), Spot: "on-demand", DiskGB: tt.disk})
			if tt.want == "" {
				if cloud.KindOf(err) != cloud.KindInvalid || !strings.Contains(err.Error(), "hardware.ami") {
					t.Errorf("%+v: %v", tt, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%+v: %v", tt, err)
			}
			for _, made := range f.templates {
				data := made.in.LaunchTemplateData
				if id, gb := aws.ToString(data.ImageId), aws.ToInt32(data.BlockDeviceMappings[0].Ebs.VolumeSize); id != tt.want || gb != tt.gb {
					t.Errorf("%+v: %s with %d GiB", tt, id, gb)
				}
			}
		})
	}
}

func TestHasNVIDIA(t *testing.T) {
	t.Parallel()
	for instanceType, want := range map[string]bool{
		"g4dn.xlarge": true, "g5.xlarge": true, "g5g.xlarge": true, "g6.xlarge": true, "g6e.xlarge": true, "gr6.4xlarge": true, "g7e.2xlarge": true,
		"p4d.24xlarge": true, "p4de.24xlarge": true, "p5.48xlarge": true, "p5en.48xlarge": true, "p6-b200.48xlarge": true, "p6e-gb200.36xlarge": true,
		"g4ad.xlarge": false, "g6f.large": false, "g3s.xlarge": false, "p3.2xlarge": false, "m7g.large": false, "inf2.xlarge": false, "": false,
	} {
		if got := hasNVIDIA(instanceType); got != want {
			t.Errorf("%q: %v", instanceType, got)
		}
	}
}
