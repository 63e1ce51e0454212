package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// call runs a command line in an empty environment with a state of its own.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &errs, []string{"XDG_STATE_HOME=" + t.TempDir()})
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		code int
		want string // in standard error
	}{
		{[]string{"aply", "x.yaml"}, 2, `unknown command "aply" (did you mean "apply"?)`},
		{[]string{"aply", "--param", "a=1"}, 2, `unknown command "aply" (did you mean "apply"?)`},
		{[]string{"--store", "x", "statsu", "latest"}, 2, `unknown command "statsu" (did you mean "status"?)`},
		{[]string{"zzzzzz"}, 2, `unknown command "zzzzzz"; see coiled-jobs --help`},
		{[]string{"apply"}, 2, "apply needs a pipeline file: coiled-jobs apply FILE"},
		{[]string{"apply", "a", "b"}, 2, `apply takes a pipeline file, what is "b" for?`},
		{[]string{"apply", "a.yaml", "--parm", "x=1"}, 2, "unknown flag: --parm (did you mean --param?)"},
		{[]string{"apply", "a.yaml", "-z"}, 2, "unknown shorthand flag"},
		{[]string{"apply", "a.yaml", "--param", "x"}, 2, "--param x: write name=value"},
		{[]string{"apply", "a.yaml", "--param", "=x"}, 2, "write name=value"},
		{[]string{"apply", "a.yaml", "--cloud", "gcp"}, 2, "--cloud gcp: write local or aws"},
		{[]string{"apply", "a.yaml", "--cloud", "aws", "--local"}, 2, "contradict"},
		{[]string{"apply", "a.yaml", "--first", "0"}, 2, "--first 0"},
		{[]string{"apply", "a.yaml", "--first", "many"}, 2, "--first many: write a whole number; see"},
		{[]string{"apply", "a.yaml", "--detach=perhaps"}, 2, "--detach perhaps: write true or false"},
		{[]string{"serve", "--every", "often"}, 2, "--every often: write a time such as 5s"},
		{[]string{"apply", "a.yaml", "--only", "clean"}, 2, "--only clean: write function/index"},
		{[]string{"apply", "a.yaml", "--only", "clean/-1"}, 2, "--only clean/-1"},
		{[]string{"apply", "a.yaml", "--max-cost", "much"}, 2, "--max-cost much"},
		{[]string{"apply", "a.yaml", "--max-cost", "NaN"}, 2, "--max-cost NaN"},
		{[]string{"apply", "a.yaml", "--key", ""}, 2, "--key is empty"},
		{[]string{"apply", "a.yaml", "--on-term", "stay"}, 2, "--on-term stay: write cancel or leave"},
		{[]string{"plan", "a.yaml", "--json", "--items"}, 2, "contradict"},
		{[]string{"results", "r", "f", "--format", "xml"}, 2, "--format xml: write json, jsonl, csv, table"},
		{[]string{"results", "r", "f", "--json", "--format", "csv"}, 2, "contradict"},
		{[]string{"retry", "r", "--cause", "bad luck"}, 2, "--cause bad luck: write one of exit, signal"},
		{[]string{"resume", "r", "--code", "old"}, 2, "--code old"},
		{[]string{"logs", "r", "--attempt", "0"}, 2, "attempts count from 1"},
		{[]string{"logs", "r", "f/1", "-f", "--attempt", "2"}, 2, "-f follows"},
		{[]string{"rerun", "r", "f/1"}, 2, "add --local"},
		{[]string{"why", "r"}, 2, `why needs a run and a task, got only "r"`},
		{[]string{"completion", "tcsh"}, 2, "completion tcsh: write one of bash, zsh, fish, powershell"},
		{[]string{"version", "x"}, 2, `version takes no arguments, got "x"`},
		{[]string{"status", "nothing"}, 2, "nothing"},
		{[]string{"status", "latest"}, 2, "no run yet"},
		{[]string{"setup", "gcp"}, 2, "aws"},
		{[]string{"instances", "--cpu", "many"}, 2, "--cpu: expected a number of CPUs"},
		{[]string{"serve", "nothing"}, 2, "nothing"},
		{[]string{"serve", "--listen", "8321"}, 2, "write address:port"},
		{[]string{"serve", "--listen", "0.0.0.0:8321"}, 2, "needs a token"},
		{[]string{"serve", "--listen", "0.0.0.0:8321", "--token", "short"}, 2, "needs a token"},
		{[]string{"serve", "--every", "0s"}, 2, "--every 0s"},
		{[]string{"tick"}, 2, "tick needs pipeline files or folders"},
		{[]string{"tick", "nothing.yaml"}, 2, "nothing.yaml"},
		{[]string{"schedules", "nothing.yaml"}, 2, "nothing.yaml"},
		{[]string{"schedules", "--next", "0"}, 2, "--next 0"},
		{[]string{"trigger", "x.yaml"}, 2, "no file x.yaml"},
		{[]string{"pause", "nightly"}, 2, "name its file"},
		{[]string{"pause", "../x"}, 2, "name its file"},
		{[]string{"backfill", "x.yaml", "--from", "2024-01-01"}, 2, "needs --from and --to"},
		{[]string{"backfill", "x.yaml", "--from", "2024-01-01", "--to", "2024-01-02", "--only", "bad"}, 2, "--only bad"},
		{[]string{"backfill", "x.yaml", "--from", "2024-01-01", "--to", "2024-01-02", "--parallel", "0"}, 2, "--parallel 0"},
		{[]string{"runs", "--store", "s3:///x"}, 2, "written s3://bucket or s3://bucket/prefix"},
		{[]string{"runs", "--store", "ftp://bucket/x"}, 2, "is not a store"},
		{[]string{"runs", "--store", "s3:/bucket/x"}, 2, "written s3://bucket or s3://bucket/prefix"},
	} {
		code, out, errs := call(t, tt.args...)
		if code != tt.code || !strings.Contains(errs, tt.want) || out != "" {
			t.Errorf("%q: exit %d, want %d with %q\nstdout: %s\nstderr: %s", tt.args, code, tt.code, tt.want, out, errs)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"--help"}, {"-h"}, {"apply", "--help"}, {"results", "-h"}} {
		code, out, errs := call(t, args...)
		if code != 0 || !strings.Contains(out, "Usage:") || errs != "" {
			t.Errorf("%q: exit %d\n%s%s", args, code, out, errs)
		}
	}
	_, out, _ := call(t)
	for _, verb := range []string{"apply", "plan", "validate", "init", "runs", "status", "logs", "results", "why", "wait", "resume", "retry",
		"cancel", "rm", "rerun", "outputs", "machines", "gc", "doctor", "report", "schema", "version", "completion",
		"setup", "instances", "serve", "tick", "schedules", "trigger", "backfill", "pause"} {
		if !strings.Contains(out, "\n  "+verb+" ") {
			t.Errorf("the help does not list %s", verb)
		}
	}
	for _, hidden := range []string{"__coordinate", "__agent", "__github", "no-help"} {
		if strings.Contains(out, "\n  "+hidden+" ") {
			t.Errorf("the help lists %s", hidden)
		}
	}
}

// Every flag of the contract is parsed, before and after the file.
func TestApplyFlags(t *testing.T) {
	t.Parallel()
	cost := 2.5
	file := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := engine.ApplyOptions{File: file, Params: map[string]string{"a": "1=2", "b": ""}, Cloud: "local", Functions: []string{"f", "g", "h"},
		Key: "k", NoCache: true, First: 3, Only: map[string][]int{"f": {1, 2}, "g": {0}}, MaxCost: &cost, Detach: true}
	flags := []string{"--param", "a=1=2", "--param=b=", "--local", "--function", "f,g", "--function", "h", "--key", "k", "--detach", "--max-cost", "$2.50",
		"--no-cache", "--first", "3", "--only", "f/1,2", "--only=g/0", "--yes", "--json", "--no-download", "--on-term", "leave"}
	for _, args := range [][]string{append(append([]string{}, flags...), file), append([]string{file}, flags...)} {
		var got *applyOptions
		cmd := newApplyCmd(newApp(nil, io.Discard, io.Discard, nil), func(_ context.Context, o *applyOptions) error { got = o; return nil })
		execute(t, cmd, args)
		if diff := cmp.Diff(want, got.ApplyOptions); diff != "" {
			t.Error(diff)
		}
		if !got.yes || !got.json || !got.noDownload || got.onTerm != "leave" {
			t.Errorf("%+v", got)
		}
	}
}

func execute(t *testing.T, cmd *cobra.Command, args []string) {
	t.Helper()
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
}

func TestParseOnly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   []string
		want map[string][]int
	}{
		{nil, nil},
		{[]string{"f/0"}, map[string][]int{"f": {0}}},
		{[]string{"f/1,2, 3", "g/4"}, map[string][]int{"f": {1, 2, 3}, "g": {4}}},
		{[]string{"f/1,g/2,5"}, map[string][]int{"f": {1}, "g": {2, 5}}},
	} {
		got, err := parseOnly(tt.in)
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", tt.in, err, diff)
		}
	}
	for _, bad := range []string{"", "f", "f/", "/1", "f/x", "f/01", "f/+1", "f/1,,2", "f/1.5"} {
		if got, err := parseOnly([]string{bad}); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(&signalError{syscall.SIGINT})
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		code int
		show bool
	}{
		{nil, nil, 0, false},
		{nil, exitOf(executor.RunSucceeded), 0, false},
		{nil, exitOf(executor.RunFailed), 1, false},
		{nil, exitOf(executor.RunStopped), 4, false},
		{nil, exitOf(executor.RunCancelled), 130, false},
		{nil, exitOf(executor.RunInterrupted), 3, false},
		{nil, usagef("x"), 2, true},
		{nil, fmt.Errorf("wrapped: %w", usagef("x")), 2, true},
		{nil, spec.Problems{{Message: "bad"}}, 2, true},
		{nil, &cloud.Error{Op: "get", Resource: "x", Kind: cloud.KindDenied}, 3, true},
		{nil, notHere("later"), 3, true},
		{nil, errors.New("anything"), 3, true},
		{nil, fmt.Errorf("write |1: %w", syscall.EPIPE), 0, false},
		{ctx, context.Canceled, 130, false},
		{ctx, context.Cause(ctx), 130, false},
		{ctx, errors.New("disk full"), 3, true},
	} {
		if tt.ctx == nil {
			tt.ctx = context.Background()
		}
		if code, show := exitCode(tt.ctx, tt.err); code != tt.code || show != tt.show {
			t.Errorf("%v: %d %v, want %d %v", tt.err, code, show, tt.code, tt.show)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	ps := spec.Problems{{Pos: spec.Pos{File: "p.yaml", Line: 2, Col: 3}, Message: "bad \x1b[2J"}, {Pos: spec.Pos{File: "p.yaml"}, Message: "odd", Warning: true}}
	if got, want := message(ps), `p.yaml:2:3: bad \x1b[2J`+"\np.yaml: warning: odd"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := message(errors.New("one\ntwo\x07\n")), "coiled-jobs: one\n"+`two\x07`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A reader that goes away is no error, and nothing is printed about it.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	code := run(context.Background(), []string{"schema"}, nil, brokenPipe{}, &errs, nil)
	if code != 0 || errs.Len() != 0 {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	// But what was asked is answered.
	bad := strings.NewReader("name: x\n")
	if code := run(context.Background(), []string{"validate", "-"}, bad, brokenPipe{}, &errs, nil); code != 2 || errs.Len() != 0 {
		t.Errorf("validate: exit %d: %s", code, errs.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, fmt.Errorf("write |1: %w", syscall.EPIPE) }

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		flag string
		env  []string
		want string
	}{
		{"/flag", []string{"COILED_JOBS_STORE=/env"}, "/flag"},
		{"", []string{"COILED_JOBS_STORE=/first", "COILED_JOBS_STORE=/env"}, "/env"},
		{"", []string{"COILED_JOBS_STORE="}, "/state/store"},
	} {
		a := newApp(nil, io.Discard, io.Discard, tt.env)
		a.storeFlag = tt.flag
		if got := a.storeURL("/state"); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
	for env, want := range map[string]bool{"": false, "NO_COLOR=1": true, "NO_COLOR=": false, "TERM=dumb": true, "CI=true": true, "CI=false": false, "CI=0": false} {
		if got := newApp(nil, nil, nil, []string{env}).plain(); got != want {
			t.Errorf("plain with %q: %v", env, got)
		}
	}
	for env, want := range map[string]bool{"": false, "LANG=C": true, "LANG=C.UTF-8": false, "LC_ALL=de_DE.utf8": false} {
		if got := newApp(nil, nil, nil, []string{env}).ascii(); got != want {
			t.Errorf("ascii with %q: %v", env, got)
		}
	}
}
