package engine

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/task"
)

const hungryPipeline = `name: hungry
cloud: aws
functions:
  f:
    map: {range: 3}
    python: eat:eat
    retries: {oom: {max: 2, memory: 2x}}
    hardware: {vm_type: m6i.large, keepalive: 0s, n_workers: [0, 2]}
`

// eat runs out of memory twice for the last item, which then waits for a file.
func eat(dir string) string {
	return `import os, time
def eat(item):
    a = os.environ["COILED_JOBS_ATTEMPT"]
    if item == 2:
        open("` + dir + `/began-" + a, "w").close()
        if int(a) < 3:
            raise MemoryError()
        while not os.path.exists("` + dir + `/go"):
            time.sleep(0.05)
    return item
`
}

// A task that runs out of memory goes on with larger machines, which are
// rented for it alone; also after its coordinator died.
func TestOutOfMemoryMovesToLargerMachines(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e, kill := c.process()
	dir := t.TempDir()
	h := apply(t, e, ApplyOptions{File: write(t, "pipeline.yaml", hungryPipeline, "eat.py", eat(dir))})
	marks(t, dir, 3)
	kill()
	bury(t, h)
	rec, err := loadFleet(t.Context(), c.store, h.Run)
	if err != nil || len(rec.Kinds) != 3 {
		t.Fatalf("%d kinds are recorded, %v; want that of the function and two larger ones", len(rec.Kinds), err)
	}
	launches := c.region.Count("launch")
	other := c.engine()
	again, err := other.Resume(t.Context(), h.Run, ContinueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(dir, "go"))
	r := ended(t, again, executor.RunSucceeded)
	if n := c.region.Count("launch"); n != launches {
		t.Errorf("%d machines were rented anew for what ran on", n-launches)
	}
	v, err := executor.OpenView(t.Context(), c.store, h.Run)
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, m := range v.Machines() {
		types[m.ID] = m.Type
	}
	attempts, err := v.Attempts(t.Context(), "f", 2)
	if err != nil || len(attempts) != 3 {
		t.Fatalf("%d attempts, %v", len(attempts), err)
	}
	had := int64(0)
	for i, o := range attempts {
		memory := hardware.TypeNamed(types[o.Machine]).MemoryMiB
		t.Logf("attempt %d on %s (%d GiB): %s", o.Attempt, types[o.Machine], memory>>10, o.Cause)
		if i == 0 && types[o.Machine] != "m6i.large" || i > 0 && memory < 2*had || i < 2 && o.Cause != task.CauseOOM {
			t.Errorf("attempt %d on %s with %d GiB after one with %d GiB: %s", o.Attempt, types[o.Machine], memory>>10, had>>10, o.Cause)
		}
		had = memory
	}
	for i := range 2 {
		if at, err := v.Attempts(t.Context(), "f", i); err != nil || len(at) != 1 || types[at[0].Machine] != "m6i.large" {
			t.Errorf("task %d: %+v, %v", i, at, err)
		}
	}
	if r.Machines < 3 || r.Machines > 4 || r.CostUSD <= 0 {
		t.Errorf("%d machines for $%f: %+v", r.Machines, r.CostUSD, v.Machines())
	}
}

// Where nothing larger is to be had, that is said, and the task gets its other
// attempts on what there is.
func TestNoLargerMachines(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine()
	dir := t.TempDir()
	touch(t, filepath.Join(dir, "go"))
	text := strings.Replace(hungryPipeline, "memory: 2x", "memory: 99x", 1)
	file := write(t, "pipeline.yaml", text, "eat.py", eat(dir))
	p, err := e.Plan(t.Context(), ApplyOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	h, err := e.Apply(t.Context(), p, ApplyOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1)
	go func() {
		var all strings.Builder
		for n := range h.Notices() {
			all.WriteString(n.Text + "\n")
		}
		told <- all.String()
	}()
	ended(t, h, executor.RunSucceeded)
	if text := <-told; !strings.Contains(text, "f: no machines with 101376 GiB") {
		t.Errorf("told:\n%s", text)
	}
}
