package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// The agent as user data starts it: as a process of its own, without HOME, with
// servers that are not Amazon's and a metadata service.
func TestAgentProcess(t *testing.T) {
	server := motoserver.Start(t, motoserver.Options{})
	server.Setenv(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, server.URL+"/team", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := map[string]string{"/latest/api/token": "t", "/latest/meta-data/instance-id": "i-0123", "/latest/meta-data/instance-type": "m6i.large",
			"/latest/meta-data/placement/availability-zone": "us-east-1a", "/latest/meta-data/instance-life-cycle": "on-demand",
			"/latest/meta-data/placement/region": "us-east-1"}[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = fmt.Fprint(w, text)
	}))
	defer imds.Close()

	// What a coordinator does.
	store, err := aws.OpenStore(ctx, "s3://team/runs")
	if err != nil {
		t.Fatal(err)
	}
	text := "name: t\nfunctions:\n  f:\n    run: echo \"$SECRET $AWS_REGION $(basename \"$HOME\")\" > \"$COILED_JOBS_RESULT\"\n    secrets: [{SECRET: \"ssm:/s\"}]\n"
	h := &executor.Header{Run: "r1", Pipeline: "t", File: "pipeline.yaml", Cloud: "aws", Token: "agent-0123456789abcdef" + strconv.Itoa(os.Getpid()), Created: time.Now()}
	if err := executor.Create(ctx, store, h, []byte(text)); err != nil {
		t.Fatal(err)
	}
	secrets, err := aws.OpenSecrets(ctx, "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	refs, err := secrets.PutSecrets(ctx, "r1", map[string]string{"SECRET": "hush"})
	if err != nil {
		t.Fatal(err)
	}
	q, err := aws.OpenQueue(ctx, aws.QueueOptions{Run: "r1", Kind: "k-1"})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err == nil {
			err = store.Put(ctx, key, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	control := wire.Control{Epoch: 1, Until: time.Now().Add(time.Hour), Kinds: map[string]wire.KindControl{"k": {Queue: q.URL(), More: true}}}
	put(wire.SetupKey("r1", "k"), wire.Setup{Run: "r1", Kind: "k", Threads: 1, IdleTimeout: time.Minute, MaxLife: time.Hour, Secrets: refs})
	put(wire.StartKey("r1", "f", 1), wire.Start{Function: "f", Count: 1})
	put(wire.ControlKey("r1"), control)
	if err := q.Send(ctx, cloud.Range{Run: "r1", Function: "f", To: 1, Attempt: 1, ID: "1-1"}); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	for _, name := range []string{"systemctl", "systemd-run", "poweroff", "shutdown"} {
		script := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s/calls\n", name, dir)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "machine")
	args := []string{"__agent", "--store", "s3://team/runs", "--run", "r1", "--kind", "k", "--dir", home}
	for _, kv := range server.Environ() {
		if !strings.Contains(kv, "METADATA") && !strings.Contains(kv, "REGION") {
			args = append(args, "--env", kv)
		}
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + imds.URL}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() string { b, _ := os.ReadFile(log.Name()); return string(b) }
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	defer endWatchers(t, filepath.Join(home, "deadline"))

	var seg []byte
	for seg == nil {
		b, err := store.Get(ctx, wire.SegmentKey("r1", "i-0123", 1))
		switch {
		case err == nil:
			seg = b
			continue
		case cloud.KindOf(err) != cloud.KindNotFound:
			cancel()
			t.Fatalf("%v\n%v\n%s", err, <-over, said())
		}
		select {
		case err := <-over:
			t.Fatalf("the agent ended: %v\n%s", err, said())
		case <-time.After(20 * time.Millisecond):
		}
	}
	s, err := wire.DecodeSegment(seg)
	if err != nil {
		t.Fatal(err)
	}
	if o := s.Batches[0].Outcomes[0]; o.Status != task.Succeeded || string(o.Result) != `"hush us-east-1 home"` {
		t.Errorf("%v %s %s %s", o.Status, o.Result, o.Message, o.Stderr)
	}
	control.Stop = wire.StopFinished
	put(wire.ControlKey("r1"), control)
	if err := <-over; err != nil {
		t.Errorf("%v\n%s", err, said())
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil || !strings.HasPrefix(string(calls), "systemd-run ") || !strings.HasSuffix(string(calls), "systemctl poweroff\n") {
		t.Errorf("%v, the system was asked:\n%s", err, calls)
	}
	if strings.Contains(said(), "hush") {
		t.Errorf("the log has a secret:\n%s", said())
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// endWatchers ends the processes that watch the time in a file: they outlive
// their agent.
func endWatchers(t *testing.T, file string) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range list {
		b, err := os.ReadFile(p)
		if err != nil || !strings.HasSuffix(string(b), "\x00__deadline\x00"+file+"\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p))); err == nil && pid > 1 {
			n++
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if n != 1 {
		t.Errorf("%d processes watched the time", n)
	}
}
