package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// Machines are chosen from what is built in where the lists of a region are
// slow; but not larger ones than asked for, of which there may be smaller.
func TestSlowListsAreWaitedForWhereItMatters(t *testing.T) {
	t.Parallel()
	small := hardware.Offer{Type: hardware.Type{Name: "p9.large", VCPUs: 2, MemoryMiB: 8192, Arch: hardware.AMD64, GPUs: 1, GPUModel: "A100", GPUMaker: "NVIDIA"}, OnDemand: 1}
	large := hardware.Offer{Type: hardware.Type{Name: "m9.large", VCPUs: 2, MemoryMiB: 8192, Arch: hardware.AMD64}, OnDemand: 0.01}
	for _, c := range []struct{ hardware, want string }{
		{"{gpu: A100}", "p9.large"}, {"{cpu: 3}", "c6a.xlarge"}, {"{cpu: 4}", "c6a.xlarge"}, {"{}", "c6a.large"},
	} {
		store := newCloud(t).engine().Store
		synctest.Test(t, func(t *testing.T) {
			e := &Engine{Store: store, AWS: &AWS{Region: "us-east-1", Catalogue: func(context.Context, string) (*hardware.Catalogue, error) {
				time.Sleep(2 * patience)
				four := large
				four.Name, four.VCPUs = "c6a.xlarge", 4
				return hardware.NewCatalogue("us-east-1", time.Now(), []hardware.Offer{small, large, four}), nil
			}}}
			p, err := executor.Bind([]byte("name: p\ncloud: aws\nfunctions:\n  f: {command: [x], hardware: "+c.hardware+"}\n"), "p.yaml", nil, "")
			if err != nil {
				t.Fatal(err)
			}
			q, err := e.quote(t.Context(), p, nil, nil)
			if err != nil || q.Kinds[0].Type != c.want {
				t.Errorf("%s: %+v, %v; want %s", c.hardware, q, err, c.want)
			}
			synctest.Wait()
			time.Sleep(2 * patience) // who reads for the next time has ended
		})
	}
}

// Lists that were read before serve where new ones are slow.
func TestSlowListsAreTakenFromBefore(t *testing.T) {
	t.Parallel()
	store := newCloud(t).engine().Store
	synctest.Test(t, func(t *testing.T) {
		before := hardware.NewCatalogue("us-east-1", time.Now(), []hardware.Offer{
			{Type: hardware.Type{Name: "c9.large", VCPUs: 2, MemoryMiB: 4096, Arch: hardware.AMD64}, OnDemand: 0.05}})
		e := &Engine{Store: store, AWS: &AWS{Region: "us-east-1",
			Catalogue: func(context.Context, string) (*hardware.Catalogue, error) {
				time.Sleep(time.Hour)
				return nil, context.DeadlineExceeded
			},
			Known: func(context.Context, string) (*hardware.Catalogue, error) { return before, nil },
		}}
		p, err := executor.Bind([]byte("name: p\ncloud: aws\nfunctions:\n  f: {command: [x]}\n"), "p.yaml", nil, "")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		q, err := e.quote(t.Context(), p, nil, nil)
		if err != nil || q.Kinds[0].Type != "c9.large" || time.Since(began) != patience {
			t.Errorf("%+v, %v after %s", q, err, time.Since(began))
		}
		time.Sleep(time.Hour)
	})
}

// A run rents no more machines than its tasks have use for.
func TestMostMachines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file string
		want int
	}{
		{"functions:\n  f: {command: [x], map: {range: 100}}", 100},
		{"functions:\n  f: {command: [x], map: {range: 1000}}", 500},
		{"functions:\n  f: {command: [x], map: {range: 100}, hardware: {cpu: 16, threads_per_worker: -1}}", 7},
		{"functions:\n  f: {command: [x], map: {range: 100}, hardware: {threads_per_worker: 30}}", 4},
		{"functions:\n  f: {command: [x], map: {range: 100}, concurrency: 5}", 5},
		{"functions:\n  f: {command: [x], map: {range: 100}, concurrency: 5}\n  g: {command: [x], map: {range: 9}}", 9},
		{"functions:\n  f: {command: [x], map: {items: '${{ needs.g.result }}'}, needs: g, concurrency: 5}\n  g: {command: [x]}", 5},
		{"functions:\n  f: {command: [x], map: {items: '${{ needs.g.result }}'}, needs: g}\n  g: {command: [x]}", 500},
		{"limits: {vcpus: 33}\nfunctions:\n  f: {command: [x], map: {range: 100}, hardware: {cpu: 8}}", 4},
		{"limits: {vcpus: 16}\nfunctions:\n  f: {command: [x], map: {range: 100}, hardware: {memory: 256 GiB}}", 2},
		{"limits: {machines: 3}\nfunctions:\n  f: {command: [x], map: {range: 100}}", 3},
	} {
		e := newCloud(t).engine()
		e.AWS.Catalogue = func(context.Context, string) (*hardware.Catalogue, error) { return hardware.BuiltIn("us-east-1"), nil }
		o := ApplyOptions{File: write(t, "pipeline.yaml", "name: p\ncloud: aws\n"+c.file+"\n")}
		p, err := e.Plan(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		q, err := e.Quote(t.Context(), p, o)
		if err != nil || q.Kinds[0].Most != c.want {
			t.Errorf("%s: up to %d, %v; want %d", c.file, q.Kinds[0].Most, err, c.want)
		}
	}
}

// A machine with GPUs has a disk on which the image with their drivers fits,
// also if its type says that it has some.
func TestDiskOf(t *testing.T) {
	t.Parallel()
	plain, gpu := []hardware.Choice{{}}, []hardware.Choice{{Offer: hardware.Offer{Type: hardware.Type{GPUs: 1}}}}
	for _, c := range []struct {
		h       spec.Hardware
		choices []hardware.Choice
		want    int
	}{
		{spec.Hardware{}, plain, 30},
		{spec.Hardware{DiskGB: 10}, plain, 10},
		{spec.Hardware{}, gpu, 75},
		{spec.Hardware{GPU: 1}, nil, 75},
		{spec.Hardware{DiskGB: 40}, gpu, 75},
		{spec.Hardware{DiskGB: 100}, gpu, 100},
		{spec.Hardware{DiskGB: 40, AMI: "ami-1"}, gpu, 40},
	} {
		if got := diskOf(c.h, c.choices); got != c.want {
			t.Errorf("%+v: %d GiB, want %d", c.h, got, c.want)
		}
	}
}
