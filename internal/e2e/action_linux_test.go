package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// step is a step of a GitHub job, as scripts/action/main.js starts it.
func (p *person) step(what string, inputs ...string) *started {
	p.t.Helper()
	q := *p
	q.env = append([]string{"GITHUB_RUN_ID=4711", "GITHUB_JOB=job", "GITHUB_REPOSITORY=o/r", "GITHUB_ACTION=jobs", "GITHUB_WORKSPACE=" + p.dir,
		"GITHUB_OUTPUT=" + filepath.Join(p.home, "outputs"), "GITHUB_STEP_SUMMARY=" + filepath.Join(p.home, "summary"),
		"COILED_JOBS_STEP_FILE=" + filepath.Join(p.home, "step")}, inputs...)
	return q.start("__github", what)
}

// output is what the last step put out.
func (p *person) output(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.home, "outputs"))
	if err != nil {
		p.t.Fatal(err)
	}
	i := strings.LastIndex("\n"+string(b), "\n"+name+"<<")
	if i < 0 {
		p.t.Fatalf("no output %s in\n%s", name, b)
	}
	return strings.Split(string(b)[i:], "\n")[1]
}

// A step that is killed while machines work for it: the clean-up ends them.
func testActionKilled(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "30s", "echo it runs; sleep 3600")})
	s := p.step("run")
	until(t, soon, "the task runs", func() bool {
		out, err := p.command("logs", "latest", "f").Output()
		return err == nil && strings.Contains(string(out), "it runs")
	})
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	out := p.step("cleanup").wait(0, soon)
	contains(t, out.stderr, "cancelled: 1 task")
	if got := p.output("status"); got != "cancelled" {
		t.Errorf("status %s", got)
	}
	until(t, soon, "the machine goes", func() bool { return !p.machines()[0].Ended.IsZero() })
}

// A run that goes on without its step is collected by another, on another
// runner.
func testActionDetached(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": `
name: detached
cloud: aws
functions:
  f:
    run: sleep 2; echo done > made.txt
    outputs: [made.txt]
    hardware: {vm_type: m5.large, keepalive: 0s}
`})
	p.step("run", "INPUT_DETACH=true").wait(0, soon)
	if got := p.output("status"); got != "running" {
		t.Errorf("status %s", got)
	}
	p.step("cleanup").wait(0, soon)
	run, store := p.output("run"), p.output("store")
	if store != p.store {
		t.Errorf("store %s, want %s", store, p.store)
	}
	if err := os.RemoveAll(p.dir); err != nil { // that runner is gone
		t.Fatal(err)
	}
	q := p.elsewhere()
	out := q.step("run", "INPUT_COMMAND=wait", "INPUT_RUN="+run, "INPUT_STORE="+store).wait(0, soon)
	contains(t, out.stderr, "succeeded: 1 task", "1 output brought to")
	if b, err := os.ReadFile(filepath.Join(q.dir, "made.txt")); err != nil || string(b) != "done\n" {
		t.Errorf("%v %q", err, b)
	}
	if q.output("run") != run || q.output("status") != "succeeded" || q.output("cost") == "0.0000" {
		t.Errorf("run %s, status %s, cost %s", q.output("run"), q.output("status"), q.output("cost"))
	}
	until(t, soon, "its machines go", func() bool {
		for _, m := range p.machines() {
			if m.Ended.IsZero() {
				return false
			}
		}
		return true
	})
}
