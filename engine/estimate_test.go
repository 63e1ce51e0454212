package engine

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

var update = flag.Bool("update", false, "write golden files anew")

// buckets is S3 with objects of 100 MB and more.
type buckets struct{}

func (buckets) List(_ context.Context, loc planner.S3Location, _ cloud.S3Query, fn func(planner.S3Object) error) error {
	var keys []string
	switch loc.Bucket {
	case "nyc-tlc":
		for year := 2010; year < 2020; year++ {
			for month := 1; month <= 12; month++ {
				keys = append(keys, fmt.Sprintf("trip data/yellow_tripdata_%d-%02d.parquet", year, month))
			}
		}
	case "dublin":
		keys = []string{"a.csv", "b.csv"}
	}
	for i, key := range keys {
		if err := fn(planner.S3Object{Key: key, Size: 100_000_000 + int64(i)*1_000_000, ETag: "e"}); err != nil {
			return err
		}
	}
	return nil
}

func (buckets) Open(context.Context, planner.S3Location, string) (io.ReadCloser, error) {
	return nil, errors.New("nothing is read")
}

// priced is an engine that prices with a recorded table.
func priced(t *testing.T) *Engine {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "estimate", "prices.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []*hardware.Catalogue
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return &Engine{S3: func() (planner.S3, error) { return buckets{}, nil }, Stderr: io.Discard, AWS: &AWS{
		Region: "us-east-1",
		Catalogue: func(_ context.Context, region string) (*hardware.Catalogue, error) {
			for _, c := range list {
				if c.Region == region {
					return c, nil
				}
			}
			return nil, fmt.Errorf("no prices of %s", region)
		},
		BucketRegion: func(_ context.Context, bucket string) (string, error) {
			if region := map[string]string{"nyc-tlc": "us-east-1", "dublin": "eu-west-1"}[bucket]; region != "" {
				return region, nil
			}
			return "", errors.New("no such bucket")
		},
		Quota: func(_ context.Context, _, instanceType string, spot bool) (*Quota, error) {
			switch {
			case strings.HasPrefix(instanceType, "g"):
				return nil, errors.New("not allowed")
			case spot:
				return &Quota{Code: "L-34B43A08", Link: "https://quotas", VCPUs: 40}, nil
			}
			return &Quota{Code: "L-1216C47A", Link: "https://quotas", VCPUs: 16}, nil
		},
	}}
}

func estimated(t *testing.T, e *Engine, o EstimateOptions) planner.Report {
	t.Helper()
	p, err := e.Plan(t.Context(), o.ApplyOptions)
	if err != nil {
		t.Fatal(err)
	}
	r := planner.NewReport(p.Pipeline, p.Plan)
	if err := e.Estimate(t.Context(), p, o, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Plans on recorded prices are what they were.
func TestGoldenEstimates(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"taxi", "far", "kinds"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join("testdata", "estimate", name)
			r := estimated(t, priced(t), EstimateOptions{ApplyOptions: ApplyOptions{File: file + ".yaml"}, Assume: 30 * time.Second, Machines: []int{1, 10, 33, 100}})
			got, err := json.MarshalIndent(roundedJSON(t, r), "", " ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			if *update {
				if err := os.WriteFile(file+".golden.json", got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file + ".golden.json")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the plan differs (-update writes it anew):\n%s", diff)
			}
		})
	}
}

// docs/prices.md says what the program says.
func TestDocumentedPrices(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "prices.md"))
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join("testdata", "estimate", "taxi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, pipeline, _ := strings.Cut(string(example), "\n") // behind its comment
	doc := strings.Join(strings.Fields(string(text)), " ")
	r := estimated(t, priced(t), EstimateOptions{ApplyOptions: ApplyOptions{File: filepath.Join("testdata", "estimate", "taxi.yaml")},
		Assume: 30 * time.Second, Machines: []int{1, 10, 33, 100}})
	minutes := func(s float64) string { return fmt.Sprintf("%dm %02ds", int(s)/60, int(s)%60) }
	wants := []string{strings.Join(strings.Fields(pipeline), " "),
		fmt.Sprintf("the rule takes %d machines here: %s, $%.2f, and at most $%.2f", r.Functions[0].Estimate.Machines, minutes(r.Estimate.Seconds), r.Estimate.CostUSD, r.Estimate.MaxCostUSD)}
	for _, p := range r.Curve {
		wants = append(wants, fmt.Sprintf("| %d | %s | $%.2f | $%.2f |", p.Machines, minutes(p.Seconds), p.CostUSD, p.MaxCostUSD))
	}
	for _, want := range wants {
		if !strings.Contains(doc, want) {
			t.Errorf("docs/prices.md does not say %q", want)
		}
	}
}

// roundedJSON is a value as JSON has it, with a few digits of each number:
// processors differ in the last.
func roundedJSON(t *testing.T, v any) any {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var x any
	if err := json.Unmarshal(data, &x); err != nil {
		t.Fatal(err)
	}
	var round func(any) any
	round = func(x any) any {
		switch x := x.(type) {
		case float64:
			return json.Number(strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.5f", x), "0"), "."))
		case []any:
			for i := range x {
				x[i] = round(x[i])
			}
		case map[string]any:
			for k := range x {
				x[k] = round(x[k])
			}
		}
		return x
	}
	return round(x)
}

// Without the cloud a plan has prices, too, and says what it does not know.
func TestEstimateOffline(t *testing.T) {
	t.Parallel()
	e := priced(t)
	e.AWS = nil
	r := estimated(t, e, EstimateOptions{ApplyOptions: ApplyOptions{File: filepath.Join("testdata", "estimate", "taxi.yaml")}, Assume: time.Minute})
	if r.Estimate == nil || r.Estimate.CostUSD <= 0 || r.Functions[0].Hardware.VMType != "m6i.xlarge" || r.Functions[0].Hardware.Region != "us-east-1" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(strings.Join(r.Notes, " "), "built-in table") || !strings.Contains(strings.Join(r.Warnings, " "), "s3://nyc-tlc is could not be found out") {
		t.Errorf("%q %q", r.Notes, r.Warnings)
	}
}

func TestEstimateRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "p.yaml")
	text := "name: p\ncloud: aws\nfunctions:\n  f:\n    command: [\"true\"]\n    hardware: {vm_type: m7i.xlrge}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e := priced(t)
	p, err := e.Plan(t.Context(), ApplyOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	var usage *UsageError
	err = e.Estimate(t.Context(), p, EstimateOptions{Assume: time.Second}, &planner.Report{})
	if !errors.As(err, &usage) || !strings.Contains(err.Error(), "hardware of f: vm_type m7i.xlrge: us-east-1 has no such type (did you mean m7i.xlarge?)") {
		t.Errorf("%v", err)
	}
}

func TestQuotaWarning(t *testing.T) {
	t.Parallel()
	q := func(n int) *Quota { return &Quota{Code: "L-34B43A08", Link: "https://here", VCPUs: n} }
	for _, c := range []struct {
		market       string
		want         int
		spot, demand *Quota
		text         string
	}{
		{hardware.Spot, 132, q(5), q(500), "your account may start 5 spot vCPUs; this plan wants 132: raise L-34B43A08 at https://here, or it will take 26 times longer"},
		{hardware.SpotWithFallback, 132, q(5), nil, "your account may start 5 spot vCPUs; this plan wants 132: raise L-34B43A08 at https://here, or it will take 26 times longer"},
		{hardware.SpotWithFallback, 132, q(5), q(16), "your account may start 5 spot vCPUs and 16 on-demand ones; this plan wants 132: raise L-34B43A08 at https://here, or it will take 6 times longer"},
		{hardware.SpotWithFallback, 132, q(32), q(500), "your account may start 32 spot vCPUs; this plan wants 132: raise L-34B43A08 at https://here, or 100 of them are rented on demand, for about $3.00 an hour more"},
		{hardware.OnDemand, 24, q(500), q(16), "your account may start 16 on-demand vCPUs; this plan wants 24: raise L-34B43A08 at https://here, or it will take 1.5 times longer"},
		{hardware.Spot, 4, q(0), q(500), "your account may start 0 spot vCPUs; this plan wants 4: raise L-34B43A08 at https://here, or it cannot start"},
		{hardware.Spot, 12, q(3), q(500), "your account may start 3 spot vCPUs; this plan wants 12: raise L-34B43A08 at https://here, or it cannot start: a machine has 4"},
		{hardware.SpotWithFallback, 12, q(3), q(2), "your account may start 3 spot vCPUs and 2 on-demand ones; this plan wants 12: raise L-34B43A08 at https://here, or it cannot start: a machine has 4"},
		{hardware.SpotWithFallback, 12, q(3), nil, "your account may start 3 spot vCPUs; this plan wants 12: raise L-34B43A08 at https://here, or it will take 4 times longer"},
		{hardware.Spot, 132, q(132), nil, ""},
		{hardware.Spot, 132, nil, q(1), ""},
		{hardware.OnDemand, 132, q(1), q(132), ""},
	} {
		if got := quotaWarning(c.market, c.want, 4, 0.03, c.spot, c.demand); got != c.text {
			t.Errorf("%s, %d:\n got %s\nwant %s", c.market, c.want, got, c.text)
		}
	}
}

// A run goes by how long tasks took in the one before.
func TestRunsLearnFromEarlierOnes(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine()
	file := write(t, "pipeline.yaml", "name: p\ncloud: aws\nfunctions:\n  f:\n    run: sleep 0.2\n    expect: 1h\n    hardware: {vm_type: m6i.large, keepalive: 0s}\n  g: {command: [\"true\"], expect: 5s, needs: f, if: 'false'}\n")
	for i, want := range []time.Duration{time.Hour, 200 * time.Millisecond} {
		h := apply(t, e, ApplyOptions{File: file})
		ended(t, h, executor.RunSucceeded)
		rec, err := loadFleet(t.Context(), c.store, h.Run)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := e.load(ApplyOptions{File: file})
		if err != nil {
			t.Fatal(err)
		}
		by := expected(p, rec)
		if d := by["f"] - want; d < 0 || d > 10*time.Second || by["g"] != 5*time.Second {
			t.Errorf("run %d expects %v, want %v and 5s", i, by, want)
		}
	}
}

func TestAmounts(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int64]string{19_100_000_000: "19.1 GB", 150_000_000: "0.1 GB", 99_000_000: "99.0 MB", 2_000_000: "2.0 MB", 12_300: "12.3 kB"} {
		if got := gigabytes(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
	for d, want := range map[float64]string{0: "$0.00", 0.00004: "less than $0.0001", 0.004: "$0.0040", 1.5: "$1.50"} {
		if got := dollars(d); got != want {
			t.Errorf("%g: %s, want %s", d, got, want)
		}
	}
}

// Where machines are not with the store, plan says what goes between them.
func TestStoreApart(t *testing.T) {
	t.Parallel()
	for region, c := range map[string]struct {
		warnings, notes string
		egress          float64
	}{
		"us-east-1": {"", "", 0},
		"eu-west-1": {"f reads, on machines in eu-west-1, 2.0 MB from the store in us-east-1, at $0.02 per GB less than $0.0001 in all: a store there (--store) costs nothing",
			"the store is in us-east-1, machines are in eu-west-1: what they fetch of it (code, software) costs $0.02 per GB, what they keep there (results, outputs) $0.02; a store in eu-west-1 (--store) costs nothing of that", 0.00004},
	} {
		file := write(t, "pipeline.yaml", "name: p\ncloud: aws\nfunctions:\n  f: {command: [x], map: {glob: '*.bin'}, hardware: {cpu: 4, memory: 16 GiB, region: "+region+"}}\n",
			"a.bin", strings.Repeat("x", 2_000_000))
		e := priced(t)
		e.AWS.Quota = nil
		r := estimated(t, e, EstimateOptions{ApplyOptions: ApplyOptions{File: file}, Assume: time.Minute})
		if got := strings.Join(r.Warnings, "\n"); got != c.warnings {
			t.Errorf("%s: warns %q", region, got)
		}
		if got := strings.Join(r.Notes, "\n"); got != c.notes {
			t.Errorf("%s: notes %q", region, got)
		}
		if got := r.Estimate.Bill.Egress; math.Abs(got-c.egress) > 1e-9 {
			t.Errorf("%s: egress of $%g", region, got)
		}
	}
}

// A plan says whether the run would come to its end within the limits.
func TestPlanComparesWithLimits(t *testing.T) {
	t.Parallel()
	for limits, want := range map[string]string{
		"{duration: 2h}":            "",
		"{duration: 90m}":           "the run may take up to 1h42m30s and stops after 1h30m, so it may stop before its end; limits.duration changes that",
		"{duration: 10m}":           "the run may take up to 1h42m30s and stops after 10m, so it will probably stop before its end; limits.duration changes that",
		"{cost: 0.1}":               "the machines may cost up to $0.34 and the run stops at $0.10, so it may stop before its end; limits.cost or --max-cost changes that",
		"{cost: 0.1, vcpus: 4}":     "the machines may cost up to $0.34 and the run stops at $0.10, so it may stop before its end; limits.cost or --max-cost changes that",
		"{cost: none, machines: 1}": "",
	} {
		file := write(t, "pipeline.yaml", "name: p\ncloud: aws\nlimits: "+limits+"\nfunctions:\n  f: {command: [x], expect: 50m, hardware: {vm_type: m6i.xlarge}}\n")
		e := priced(t)
		e.AWS.Quota = nil
		r := estimated(t, e, EstimateOptions{ApplyOptions: ApplyOptions{File: file}, Assume: time.Minute})
		if got := strings.Join(r.Warnings, "\n"); got != want {
			t.Errorf("%s: %q, want %q", limits, got, want)
		}
	}
}

func TestTaskTimeSaysWhereFrom(t *testing.T) {
	t.Parallel()
	for want, past := range map[string]pastTimes{
		"1 task of run r": {tasks: 1, run: "r"}, "2 tasks of run r": {tasks: 2, run: "r"}, "--assume 30s": {},
	} {
		if _, _, got := taskTime(&spec.Function{}, past, 30*time.Second); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Behind from: a function on machines of its own works at the same time.
func TestEstimateOfStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, functions string
		want            float64
	}{
		{"one", "f: {command: [x], map: {range: 100}, expect: 60s, hardware: {vm_type: m6i.xlarge, n_workers: 1}}", 45 + 6000},
		{"beside", `f: {command: [x], map: {range: 100}, expect: 60s, hardware: {vm_type: m6i.xlarge, n_workers: 1}}
  g: {command: [x], map: {from: f}, expect: 60s, hardware: {vm_type: c6a.large, n_workers: 1}}`, 45 + 60 + 45 + 6000},
		{"quicker", `f: {command: [x], map: {range: 100}, expect: 60s, hardware: {vm_type: m6i.xlarge, n_workers: 1}}
  g: {command: [x], map: {from: f}, expect: 1s, hardware: {vm_type: c6a.large, n_workers: 1}}`, 45 + 6000 + 1},
		{"on the same machines", `f: {command: [x], map: {range: 100}, expect: 60s, hardware: {vm_type: m6i.xlarge, n_workers: 1}}
  g: {command: [x], map: {from: f}, expect: 60s}`, 45 + 6000 + 6000},
		{"after all", `f: {command: [x], map: {range: 100}, expect: 60s, hardware: {vm_type: m6i.xlarge, n_workers: 1}}
  g: {command: [x], needs: f, map: {range: 100}, expect: 60s, hardware: {vm_type: c6a.large, n_workers: 1}}`, 2 * (45 + 6000)},
	} {
		e := priced(t)
		e.AWS.Quota = nil
		e.AWS.Catalogue = func(_ context.Context, region string) (*hardware.Catalogue, error) {
			return hardware.BuiltIn(region), nil
		}
		file := write(t, "pipeline.yaml", "name: p\ncloud: aws\nfunctions:\n  "+c.functions+"\n")
		r := estimated(t, e, EstimateOptions{ApplyOptions: ApplyOptions{File: file}, Assume: time.Minute})
		if math.Abs(r.Estimate.Seconds-c.want) > 0.01 || r.Estimate.MaxSeconds < r.Estimate.Seconds {
			t.Errorf("%s: %gs, at most %gs; want %gs", c.name, r.Estimate.Seconds, r.Estimate.MaxSeconds, c.want)
		}
	}
}
