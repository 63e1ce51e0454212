package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// bucketStore is a store on a real S3 server, and the folder behind it. The
// environment of the test finds the server.
func bucketStore(t *testing.T) (url, folder string) {
	t.Helper()
	server := s3server.Start(t)
	server.Setenv(t)
	if err := os.Mkdir(filepath.Join(server.Dir, "team"), 0o777); err != nil {
		t.Fatal(err)
	}
	return "s3://team/all runs", filepath.Join(server.Dir, "team", "all runs")
}

// As on a local store: kills lose and repeat nothing, and whoever resumes here
// does not wait until the coordinator has been silent for a minute.
func TestKillNineWithAStoreInABucket(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	url, folder := bucketStore(t)
	kills := 0
	for seed := uint64(100); kills < 6; seed++ {
		if seed > 110 {
			t.Fatalf("only %d kills", kills)
		}
		k := newKilled(t, seed)
		k.store, k.folder = url+"/"+filepath.Base(k.dir), filepath.Join(folder, filepath.Base(k.dir))
		k.open = func() (cloud.Store, error) { return aws.OpenStore(context.Background(), k.store) }
		kills += killOften(t, seed, k, 12000)
	}
}

// person runs the program with a home of their own.
type person struct {
	t             *testing.T
	program, home string
	dir, store    string
	stderr        string
}

func (p *person) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.program, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "HOME="+p.home, "XDG_STATE_HOME="+p.home, "COILED_JOBS_STORE="+p.store, "CI=")
	return cmd
}

func (p *person) run(code int, args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != code {
		p.t.Fatalf("%v: %v, want exit %d\n%s%s", args, err, code, stdout.String(), stderr.String())
	}
	p.stderr = stderr.String()
	return stdout.String()
}

// eventually repeats a look until it shows something.
func (p *person) eventually(want string, args ...string) {
	p.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		out := p.run(0, args...)
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%v never shows %q, but\n%s", args, want, out)
		}
	}
}

const bucketPipeline = `
name: shared
functions:
  double:
    map: {items: [1, 2, 3]}
    run: |
      echo "doubling $COILED_JOBS_ITEM"
      echo $((COILED_JOBS_ITEM * 2)) > "$COILED_JOBS_RESULT"
  sum:
    needs: double
    run: |
      echo '${{ sum(needs.double.results) }}' > "$COILED_JOBS_RESULT"
      seq 3 > out.txt
    outputs: [out.txt]
`

const waitingPipeline = `
name: waiting
functions:
  long:
    run: |
      echo "I have begun"
      sleep 600
`

// A run whose state is in a bucket is everybody's to look at and to end.
func TestStoreInABucket(t *testing.T) {
	url, _ := bucketStore(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "coiled-jobs")
	if err := os.Symlink(exe, program); err != nil {
		t.Fatal(err)
	}
	me := &person{t: t, program: program, home: t.TempDir(), dir: t.TempDir()}
	colleague := &person{t: t, program: program, home: t.TempDir(), dir: t.TempDir(), store: url}
	for name, text := range map[string]string{"p.yaml": bucketPipeline, "long.yaml": waitingPipeline} {
		if err := os.WriteFile(filepath.Join(me.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	status := func(text string) (run, status string) {
		t.Helper()
		var r struct{ Run, Status string }
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return r.Run, r.Status
	}

	run, got := status(me.run(0, "apply", "p.yaml", "--store", url, "--json"))
	if got != "succeeded" {
		t.Errorf("apply: %s", got)
	}
	if b, err := os.ReadFile(filepath.Join(me.dir, "out.txt")); err != nil || string(b) != "1\n2\n3\n" {
		t.Errorf("output %q, %v", b, err)
	}
	// The pointer knows the store.
	if _, got := status(me.run(0, "status", "latest", "--json")); got != "succeeded" {
		t.Errorf("status: %s", got)
	}
	for _, who := range []*person{me, colleague} {
		if out := who.run(0, "results", run, "double", "--format", "jsonl"); strings.Count(out, "\n") != 3 || !strings.Contains(out, `"result":6`) {
			t.Errorf("results: %s", out)
		}
		if out := who.run(0, "results", run, "sum", "--json"); !strings.Contains(out, `12`) {
			t.Errorf("results: %s", out)
		}
		if out := who.run(0, "logs", run, "double/1"); out != "doubling 2\n" {
			t.Errorf("log: %q", out)
		}
		if out := who.run(0, "logs", run); !strings.Contains(out, "doubling 1\n") || !strings.Contains(out, "doubling 3\n") {
			t.Errorf("logs: %q", out)
		}
		if _, got := status(who.run(0, "wait", run, "--json", "--no-download")); got != "succeeded" {
			t.Errorf("wait: %s", got)
		}
		who.run(0, "resume", run, "--no-download")
		who.run(0, "why", run, "double/0")
		who.run(0, "report", run, "-o", filepath.Join(who.home, "report.html"))
	}
	if out := colleague.run(0, "runs", "--all"); !strings.Contains(out, run) {
		t.Errorf("runs: %s", out)
	}

	// One that goes on in the background, seen and ended from elsewhere.
	long := strings.TrimSpace(me.run(0, "apply", "long.yaml", "--store", url, "--detach"))
	if _, got := status(colleague.run(0, "status", long, "--json")); got != "running" {
		t.Errorf("status: %s", got)
	}
	colleague.eventually("I have begun\n", "logs", long, "long")
	colleague.run(2, "rm", long)
	colleague.run(0, "cancel", long)
	if _, got := status(me.run(130, "wait", long, "--json")); got != "cancelled" {
		t.Errorf("wait: %s", got)
	}
	colleague.run(0, "rm", long)
	colleague.run(2, "status", long)

	// What a mistake looks like.
	me.run(3, "runs", "--all", "--store", "s3://no-such-bucket/x")
	if !strings.Contains(me.stderr, "aws s3 mb s3://no-such-bucket") {
		t.Errorf("no bucket: %s", me.stderr)
	}
	me.run(0, "doctor", "--store", url)
}
