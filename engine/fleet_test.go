package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

const fleetPipeline = `name: demo
cloud: aws
env: {GREETING: hello}
secrets: [TOKEN]
functions:
  double:
    map: {range: 20}
    run: |
      test "$TOKEN" = "geheim"
      echo "$GREETING ${{ item }}"
      bash lib/double.sh ${{ item }} > "$COILED_JOBS_RESULT"
    hardware: {vm_type: m6i.large, keepalive: 0s, n_workers: [0, 3]}
  words:
    map: {glob: "data/*.txt"}
    run: wc -w < ${{ item }} > "$COILED_JOBS_RESULT"
  sum:
    needs: double
    run: |
      echo ${{ needs.double.count }} tasks
      awk '{ s += $1 } END { print s }' "$COILED_JOBS_NEEDS/double.jsonl" | tee out/sum.txt > "$COILED_JOBS_RESULT"
    outputs: [out/sum.txt]
`

func TestRunOnAFleet(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine("TOKEN=geheim")
	file := write(t, "pipeline.yaml", fleetPipeline, "lib/double.sh", "echo $((2 * $1))\n", "out/.keep", "",
		".env", "x=1\n", "data/a b.txt", "one two\n", "data/c.txt", "three\n")
	h := apply(t, e, ApplyOptions{File: file})
	r := ended(t, h, executor.RunSucceeded)
	if r.Machines < 1 || r.Machines > 3 || r.CostUSD <= 0 {
		t.Errorf("%d machines for $%f", r.Machines, r.CostUSD)
	}
	v, err := executor.OpenView(t.Context(), e.Store, h.Run)
	if err != nil {
		t.Fatal(err)
	}
	res, err := v.Result(t.Context(), "sum", 0)
	if err != nil || string(res) != "380" {
		t.Errorf("result %s, %v", res, err)
	}
	for i, want := range []string{"2", "1"} {
		if res, err := v.Result(t.Context(), "words", i); err != nil || string(res) != want {
			t.Errorf("words %d: %s, %v", i, res, err)
		}
	}
	if _, _, err := e.FetchOutputs(t.Context(), h.Run, "", -1, filepath.Dir(file)); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(filepath.Dir(file), "out/sum.txt")); err != nil || strings.TrimSpace(string(b)) != "380" {
		t.Errorf("output %q, %v", b, err)
	}
	log, _, err := v.Log(t.Context(), "double", 3, 0, 0)
	if err != nil || string(log) != "hello 3\n" {
		t.Errorf("log %q, %v", log, err)
	}
}

// marks waits until so many tasks have begun, by the files that they make.
func marks(t *testing.T, dir string, n int) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := filepath.Glob(filepath.Join(dir, "began-*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d tasks run: %v", len(found), n, found)
		}
		<-tick.C
	}
}

// waitingPipeline has two tasks that wait for a file "go" in a folder.
func waitingPipeline(dir, keepalive string) string {
	return `name: waits
cloud: aws
secrets: [TOKEN]
functions:
  f:
    map: {range: 2}
    run: |
      touch ` + dir + `/began-${{ index }}-$COILED_JOBS_ATTEMPT
      until test -e ` + dir + `/go; do sleep 0.05; done
      echo $TOKEN > "$COILED_JOBS_RESULT"
    hardware: {vm_type: m6i.large, keepalive: ` + keepalive + `, n_workers: [2, 2]}
  g: {needs: f, command: ["true"]}
`
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A run whose command line died goes on elsewhere, without the folder of the
// file and the secrets of its caller, and what runs is not run again.
func TestFleetRunIsResumedElsewhere(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e, kill := c.process("TOKEN=geheim")
	dir := t.TempDir()
	file := write(t, "pipeline.yaml", waitingPipeline(dir, "0s"))
	h := apply(t, e, ApplyOptions{File: file})
	marks(t, dir, 2)
	kill()
	bury(t, h)
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		t.Fatal(err)
	}
	if n := len(c.region.Live()); n != 2 {
		t.Fatalf("%d machines live without a coordinator, want 2", n)
	}
	other := c.engine()
	h, err := other.Resume(t.Context(), h.Run, ContinueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(dir, "go"))
	r := ended(t, h, executor.RunSucceeded)
	if r.Machines != 2 || c.region.Count("launch") != 1 {
		t.Errorf("%d machines, %d launches", r.Machines, c.region.Count("launch"))
	}
	v, err := executor.OpenView(t.Context(), other.Store, h.Run)
	if err != nil {
		t.Fatal(err)
	}
	for task := range v.Tasks("f") {
		if task.Attempts != 1 {
			t.Errorf("task %d took %d attempts", task.Index, task.Attempts)
		}
	}
	if res, err := v.Result(t.Context(), "f", 1); err != nil || string(res) != `"geheim"` {
		t.Errorf("result %s, %v", res, err)
	}
}

func TestDeadFleetRunIsCancelledFromElsewhere(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e, kill := c.process("TOKEN=geheim")
	dir := t.TempDir()
	h := apply(t, e, ApplyOptions{File: write(t, "pipeline.yaml", waitingPipeline(dir, "0s"))})
	marks(t, dir, 2)
	kill()
	bury(t, h)
	other := c.engine()
	r, err := other.Cancel(t.Context(), h.Run, time.Minute)
	if err != nil || r.Status != executor.RunCancelled {
		t.Fatalf("%s, %v", r.Status, err)
	}
	if left := c.region.Live(); len(left) > 0 {
		t.Errorf("machines are left: %v", left)
	}
	if b, err := c.store.Get(t.Context(), wire.ControlKey(h.Run)); err != nil || !strings.Contains(string(b), `"stop":"cancel"`) {
		t.Errorf("machines are told %s, %v", b, err)
	}
	// It can be retried by who has the secrets.
	if _, err := other.Retry(t.Context(), h.Run, ContinueOptions{}); err == nil || !strings.Contains(err.Error(), "TOKEN") {
		t.Errorf("a retry without the secrets: %v", err)
	}
	touch(t, filepath.Join(dir, "go"))
	again, err := c.engine("TOKEN=geheim").Retry(t.Context(), h.Run, ContinueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, again, executor.RunSucceeded)
}

func TestInterruptReleasesTheMachines(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine("TOKEN=geheim")
	dir := t.TempDir()
	h := apply(t, e, ApplyOptions{File: write(t, "pipeline.yaml", waitingPipeline(dir, "30s"))})
	marks(t, dir, 2)
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errors.New("Ctrl-C"))
	r, err := h.Wait(ctx)
	if err != nil || r.Status != executor.RunCancelled || r.Reason != "Ctrl-C" {
		t.Errorf("%s (%s), %v", r.Status, r.Reason, err)
	}
	if left := c.region.Live(); len(left) > 0 {
		t.Errorf("machines are left: %v", left)
	}
}

func TestDetachedFleetRun(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine("TOKEN=geheim")
	dir := t.TempDir()
	file := write(t, "pipeline.yaml", waitingPipeline(dir, "0s"))
	h := apply(t, e, ApplyOptions{File: file, Detach: true})
	if !h.Detached {
		t.Error("the coordinator is here")
	}
	marks(t, dir, 2)
	if n := len(c.region.Live()); n != 3 {
		t.Errorf("%d machines, want two and the coordinator's", n)
	}
	touch(t, filepath.Join(dir, "go"))
	watching, err := c.engine().Attach(t.Context(), h.Run)
	if err != nil {
		t.Fatal(err)
	}
	r := ended(t, watching, executor.RunSucceeded)
	if r.Machines != 3 {
		t.Errorf("%d machines are counted, want 3", r.Machines)
	}
	c.ends.Wait() // all machines, that of the coordinator too
}

// A second run finds the machines of the first that wait for it.
func TestWarmMachines(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine("TOKEN=geheim")
	dir := t.TempDir()
	touch(t, filepath.Join(dir, "go"))
	file := write(t, "pipeline.yaml", waitingPipeline(dir, "60s"))
	for i := range 2 {
		h := apply(t, e, ApplyOptions{File: file})
		r := ended(t, h, executor.RunSucceeded)
		if r.Machines != 2 {
			t.Errorf("run %d had %d machines", i, r.Machines)
		}
	}
	if n := c.region.Count("launch"); n != 1 {
		t.Errorf("%d launches for two runs", n)
	}
	for _, m := range c.region.Live() {
		c.region.PowerOff(m.ID)
	}
}

func TestNotOnAFleet(t *testing.T) {
	t.Parallel()
	abs := write(t, "a.csv", "1\n")
	for _, tt := range []struct {
		name, text, want string
		change           func(*Engine)
	}{
		{"a store that machines cannot reach", "  a: {command: [x]}", "name a bucket",
			func(e *Engine) { e.Store = cloudtest.NewStore() }},
		{"no access", "  a: {command: [x]}", "--local runs the same file", func(e *Engine) { e.AWS = nil }},
		{"a file that is only here", "  a: {command: [x], map: {glob: " + abs + "}}", abs, nil},
		{"a file above", "  a: {command: [x], map: {glob: ../*/a.csv}}", "below the folder", nil},
		{"a secret that is not set", "  a: {command: [x], secrets: [NO_SUCH]}", "NO_SUCH", nil},
		{"hardware that nobody has", "  a: {command: [x], hardware: {vm_type: m6i.larg}}", "m6i.large", nil},
		{"an env_file that is not there", "  a: {command: [x]}\nenv_file: vars", "env_file", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			e := c.engine()
			if tt.change != nil {
				tt.change(e)
			}
			dir := filepath.Dir(filepath.Dir(abs))
			file := filepath.Join(dir, "pipe-"+strings.ReplaceAll(tt.name, " ", "-"), "pipeline.yaml")
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("name: p\ncloud: aws\nfunctions:\n"+tt.text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			p, err := e.Plan(t.Context(), ApplyOptions{File: file})
			if err != nil {
				t.Fatal(err)
			}
			_, err = e.Apply(t.Context(), p, ApplyOptions{File: file})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			var usage *UsageError
			var problems spec.Problems
			if tt.name != "no access" && !errors.As(err, &usage) && !errors.As(err, &problems) {
				t.Errorf("%v is no mistake of the caller", err)
			}
			if runs, err := e.stored(t.Context()); err != nil || len(runs) > 0 {
				t.Errorf("recorded: %v, %v", runs, err)
			}
		})
	}
}

func TestNobodyRentsWithoutConsent(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine("TOKEN=geheim")
	file := write(t, "pipeline.yaml", fleetPipeline, "lib/double.sh", "", "data/a.txt", "")
	p, err := e.Plan(t.Context(), ApplyOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	var asked *Quote
	no := errors.New("no")
	_, err = e.Apply(t.Context(), p, ApplyOptions{File: file, Confirm: func(q *Quote) error { asked = q; return no }})
	if !errors.Is(err, no) || asked == nil {
		t.Fatalf("%v, asked %v", err, asked)
	}
	for _, want := range []string{"double, words, sum", "up to 3 x m6i.large", "east-1", "stops at $20.00"} {
		if !strings.Contains(asked.String(), want) {
			t.Errorf("%q does not say %q", asked, want)
		}
	}
	if runs, err := e.stored(t.Context()); err != nil || len(runs) > 0 {
		t.Errorf("recorded: %v, %v", runs, err)
	}
}

// A budget that is used up stops the run: exit code 4 in the end.
func TestBudgetStopsAFleetRun(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	dir := t.TempDir()
	max := 0.01 // less than two minutes of two machines
	e := c.engine("TOKEN=geheim")
	h := apply(t, e, ApplyOptions{File: write(t, "pipeline.yaml", waitingPipeline(dir, "0s")), MaxCost: &max})
	r := ended(t, h, executor.RunStopped)
	if !strings.Contains(r.Reason, "limits.cost") || r.CostUSD > max {
		t.Errorf("stopped after $%f because of %q", r.CostUSD, r.Reason)
	}
	// With more it goes on.
	touch(t, filepath.Join(dir, "go"))
	more := 5.0
	again, err := e.Resume(t.Context(), h.Run, ContinueOptions{MaxCost: &more})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, again, executor.RunSucceeded)
}

func TestRegionOfInputs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, function, want string }{
		{"named", "{command: [x], hardware: {region: eu-west-1}}", "eu-west-1"},
		{"not named", "{command: [x], map: {lines: s3://west/list}}", "east-1"},
		{"auto", "{command: [x], map: {glob: 's3://${{ params.bucket }}/*.csv'}, hardware: {region: auto}}", "region of west"},
		{"auto, in a matrix", "{command: [x], map: {matrix: {a: {items: [1]}, f: {lines: s3://west/list}}}, hardware: {region: auto}}", "region of west"},
		{"auto, without inputs", "{command: [x], hardware: {region: auto}}", "region of team"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := newCloud(t).engine()
			e.AWS.BucketRegion = func(_ context.Context, bucket string) (string, error) { return "region of " + bucket, nil }
			p, err := executor.Bind([]byte("name: p\ncloud: aws\nparams: {bucket: west}\nfunctions:\n  f: "+tt.function+"\n"), "p.yaml", nil, "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := e.regionOf(t.Context(), p, kindsOf(p.Functions)[0], p.Functions)
			if err != nil || got != tt.want {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
