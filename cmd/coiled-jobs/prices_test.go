package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// TestPricesServer chooses and prices with the lists of a server that nobody
// here wrote, whose price list and quotas answer with errors.
func TestPricesServer(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_STATE_HOME", "")
	do := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, msg bytes.Buffer
		start := time.Now()
		if code := run(t.Context(), args, strings.NewReader(""), &out, &msg, os.Environ()); code != want {
			t.Errorf("%q: exit code %d, want %d\n%s", args, code, want, msg.String())
		}
		t.Logf("%q: %v", args, time.Since(start).Round(time.Millisecond))
		return out.String(), msg.String()
	}
	has := func(text string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in\n%s", part, text)
			}
		}
	}

	out, _ := do(0, "instances", "--cpu", "4", "--memory", "16GiB", "--spot-policy", "on-demand")
	has(out, "4 CPUs, 14.4-17.6 GiB of memory, x86_64, in us-east-1", "m5a.xlarge", "the cheapest that satisfies it", "is burstable",
		"note: on-demand prices are approximate")
	kept, err := filepath.Glob(filepath.Join(home, ".local", "state", program, "prices", "*.json"))
	if err != nil || len(kept) != 3 {
		t.Errorf("kept: %v, %v", kept, err)
	}
	out, _ = do(0, "instances", "--gpu", "L4", "--json")
	var line struct {
		Choices []struct {
			Name  string
			GPUs  int
			Zones []string
		}
	}
	if err := json.Unmarshal([]byte(out), &line); err != nil || len(line.Choices) == 0 || line.Choices[0].GPUs != 1 || len(line.Choices[0].Zones) == 0 {
		t.Errorf("%v, %+v", err, line)
	}

	// region: auto is where the bucket is.
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	bucket := "taxi-data"
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "eu-west-1"}}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a.csv", "b.csv"} {
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("1,2,3\n")}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "p.yaml")
	text := `name: taxi
cloud: aws
functions:
  near:
    map: {glob: "s3://taxi-data/*.csv"}
    command: [wc, "${{ item }}"]
    hardware: {vm_type: m6i.xlarge, region: auto}
  far:
    map: {glob: "s3://taxi-data/*.csv"}
    command: [wc, "${{ item }}"]
    hardware: {cpu: 2, region: us-west-2}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, msg := do(0, "plan", file, "--json")
	var plan struct {
		Functions map[string]struct {
			Tasks    int
			Hardware struct {
				Region  string
				VMType  string   `json:"vm_type"`
				VMTypes []string `json:"vm_types"`
			}
			Estimate struct {
				Seconds float64
				Cost    float64 `json:"cost_usd"`
			}
		}
		Warnings []string
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, msg)
	}
	near, far := plan.Functions["near"], plan.Functions["far"]
	if near.Hardware.Region != "eu-west-1" || near.Hardware.VMType != "m6i.xlarge" || near.Tasks != 2 || near.Estimate.Cost <= 0 || near.Estimate.Seconds <= 0 {
		t.Errorf("near: %+v", near)
	}
	if far.Hardware.Region != "us-west-2" || !slices.Contains(far.Hardware.VMTypes, far.Hardware.VMType) {
		t.Errorf("far: %+v", far)
	}
	has(strings.Join(plan.Warnings, "\n"), "far reads, on machines in us-west-2", "s3://taxi-data in eu-west-1", "region: auto")
	out, msg = do(0, "plan", file, "--machines", "1,10")
	has(out, "near on m6i.xlarge in eu-west-1", "MACHINES")
	has(msg, "warning: far reads")
}

// Whoever has no time to wait for slow lists does not, though somebody else does.
func TestFreshPricesWaitNoLongerThanAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		catalogue := fresh(func(context.Context, string) (*hardware.Catalogue, error) {
			reads++
			time.Sleep(30 * time.Second)
			return hardware.BuiltIn("us-east-1"), nil
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := catalogue(t.Context(), "us-east-1"); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := catalogue(ctx, "us-east-1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		wg.Wait()
		if c, err := catalogue(t.Context(), "us-east-1"); err != nil || c == nil || reads != 1 {
			t.Errorf("%v, read %d times", err, reads)
		}
	})
}
