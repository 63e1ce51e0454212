package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/internal/hypervisor"
)

// gate is a python3 that starts when the test lets it.
const gate = `#!/bin/bash
touch /var/log/begun
until [ -e /var/log/go ]; do sleep 0.1; done
exec /usr/bin/python3 "$@"
`

// The taxi example as it is, on eight machines that each have begun on a month:
// one is taken back, one breaks down, one is cut off from the network, one has
// its agent stopped, and the command line is killed. Whoever goes on elsewhere
// gets what a laptop gets.
func TestTaxiInDisaster(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip(err)
	}
	r := hypervisor.Start(t, hypervisor.Options{Files: map[string]string{"/usr/local/sbin/python3": gate}})
	newPerson(t, r, "first").begin()
	p := newPerson(t, r, "taxi")
	local := p.elsewhere()
	for _, x := range []*person{p, local} {
		if err := os.CopyFS(x.dir, os.DirFS("../../examples/pipelines/nyc-taxi")); err != nil {
			t.Fatal(err)
		}
		for i := range 4 { // four more months
			b, err := os.ReadFile(filepath.Join(x.dir, fmt.Sprintf("data/yellow_tripdata_2019-%02d.csv", i+1)))
			if err != nil {
				t.Fatal(err)
			}
			x.write(map[string]string{fmt.Sprintf("data/yellow_tripdata_2020-%02d.csv", i+1): strings.ReplaceAll(string(b), "2019-", "2020-")})
		}
	}
	local.store = t.TempDir()
	local.run(0, "apply", "pipeline.yaml", "--local")

	apply := p.start("apply", "pipeline.yaml", "--yes", "--cloud", "aws")
	log := func(id, name string) bool {
		_, err := os.Stat(filepath.Join(r.Dir, id, "log", name))
		return err == nil
	}
	until(t, soon, "eight machines have begun on a month", func() bool {
		n := 0
		for _, m := range p.machines() {
			if log(m.ID, "begun") {
				n++
			}
		}
		select {
		case <-apply.ended:
			t.Fatalf("apply has ended:\n%s", apply.stderr.String())
		default:
		}
		return n == 8
	})
	first := p.machines()
	if len(first) != 8 {
		t.Errorf("%d machines", len(first))
	}
	for _, err := range []error{
		r.Reclaim(first[0].ID, 20*time.Second), r.Crash(first[1].ID), r.Cut(first[2].ID), r.Signal(first[3].ID, "__agent", syscall.SIGSTOP),
		apply.cmd.Process.Kill(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	<-apply.ended
	found, err := filepath.Glob(filepath.Join(r.S3Dir, "team/taxi/runs/*/header.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("runs: %q, %v", found, err)
	}
	run := filepath.Base(filepath.Dir(found[0]))
	q := p.elsewhere()
	resume := q.start("resume", run)
	open := map[string]bool{}
	deadline := time.After(4 * time.Minute)
	for running := true; running; {
		select {
		case <-resume.ended:
			running = false
		case <-deadline:
			t.Fatalf("it does not end:\n%s", resume.stderr.String())
		case <-time.After(50 * time.Millisecond):
		}
		// All gates but those of the machines in trouble.
		for i, m := range p.machines() {
			if i >= 4 && !open[m.ID] {
				open[m.ID] = os.WriteFile(filepath.Join(r.Dir, m.ID, "log", "go"), nil, 0o644) == nil
			}
		}
	}
	out := resume.wait(0, time.Second)
	contains(t, out.stderr, "was lost", "machines wait until")
	s := q.run(0, "status", run, "--json").status(t)
	if f := s.Functions["process"]; f.Succeeded != 8 || f.Retries == 0 || s.Machines < 8 {
		t.Errorf("%+v\n%s", s, out.stderr)
	}
	if got, want := q.results(run, "process"), local.results("latest", "process"); !reflect.DeepEqual(got, want) {
		t.Errorf("results %v, want %v", got, want)
	}
	// The outputs go to where the run was begun, or to where one asks for them.
	q.run(0, "outputs", run, "--to", q.dir)
	got, want := filesBelow(t, q.dir), filesBelow(t, local.dir)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if (strings.HasPrefix(name, "processed/") || name == "report.html") && got[name] != want[name] {
			t.Errorf("%s differs:\n%.300s\nwant\n%.300s", name, got[name], want[name])
		}
	}
	if left := r.Left(soon); len(left) > 0 { // the example has a keepalive of 30 s
		t.Errorf("left: %q", left)
	}
}

func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
