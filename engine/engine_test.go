package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

func TestParseEnvFile(t *testing.T) {
	t.Parallel()
	got, err := parseEnvFile("# comment\n\nA=1\nexport B = two words \r\nC=\"quoted # not a comment\"\nD='x'\nE=\nF=a=b\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"A=1", "B=two words", "C=quoted # not a comment", "D=x", "E=", "F=a=b"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []string{"A", "=x", "A B=1"} {
		if _, err := parseEnvFile("OK=1\n" + bad); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v, want an error that names line 2", bad, err)
		}
	}
}

func TestDifferencesOfAKey(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	tests := []struct {
		a, b keyRecord
		want string
	}{
		{keyRecord{Values: `{"n":1,"s":"x"}`}, keyRecord{Values: `{"s":"x","n":1}`}, ""},
		{keyRecord{Values: `{"n":1,"s":"x"}`}, keyRecord{Values: `{"n":2,"s":"y"}`}, "n was 1 and is now 2, s was x and is now y"},
		{keyRecord{Values: `{}`, Scheduled: day}, keyRecord{Values: `{}`, Scheduled: day.Add(time.Hour)},
			"run.scheduled was 2026-01-02T03:00:00Z and is now 2026-01-02T04:00:00Z"},
	}
	for _, tt := range tests {
		if got := differences(tt.a, tt.b); got != tt.want {
			t.Errorf("differences(%v, %v) = %q, want %q", tt.a, tt.b, got, tt.want)
		}
	}
}

// engineIn is an engine with a store in memory and a state folder of its own.
func engineIn(t *testing.T) *Engine {
	return &Engine{Store: cloudtest.NewStore(), StateDir: t.TempDir(), Owner: "tester@here", Stderr: io.Discard}
}

func TestFindRun(t *testing.T) {
	t.Parallel()
	e := engineIn(t)
	ctx := context.Background()
	for i, run := range []string{"etl-20260101-000000-aaaaa", "etl-20260102-000000-bbbbb", "other-20260101-000000-ccccc"} {
		h := &executor.Header{Run: run, Pipeline: "etl", Created: time.Unix(int64(i), 0)}
		if err := executor.Create(ctx, e.Store, h, []byte("name: etl")); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			e.Now = func() time.Time { return h.Created }
			if err := e.writePointer(h, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct{ ref, run, err string }{
		{"latest", "etl-20260102-000000-bbbbb", ""},
		{"etl-20260101", "etl-20260101-000000-aaaaa", ""},
		{"aaaaa", "etl-20260101-000000-aaaaa", ""},
		{"other", "other-20260101-000000-ccccc", ""},
		{"etl", "", "could be 2 runs"},
		{"nope", "", "no run"},
		{"", "", "empty"},
	}
	for _, tt := range tests {
		run, _, err := e.Find(ctx, tt.ref)
		if tt.err == "" {
			if err != nil || run != tt.run {
				t.Errorf("Find(%q) = %q, %v, want %q", tt.ref, run, err, tt.run)
			}
			continue
		}
		var usage *UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Find(%q): %v, want a usage error with %q", tt.ref, err, tt.err)
		}
	}
}

// deniedStore is a store that cannot be read.
type deniedStore struct{ cloud.Store }

func (deniedStore) Get(context.Context, string) ([]byte, error) {
	return nil, errors.New("no credentials")
}

// Runs that cannot be read do not hide the others, nor fill the screen.
func TestRunsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := engineIn(t)
	var said bytes.Buffer
	e.Stderr = &said
	here, away := e.Store, deniedStore{cloudtest.NewStore()}
	for _, run := range []string{"away-a", "away-b", "here-c"} {
		e.Store = here
		if strings.HasPrefix(run, "away") {
			e.Store = away
		}
		h := &executor.Header{Run: run, Pipeline: "p", Created: time.Now()}
		if err := errors.Join(executor.Create(ctx, here, h, []byte("name: p\nfunctions: {a: {command: [x]}}\n")), e.writePointer(h, "")); err != nil {
			t.Fatal(err)
		}
	}
	e.Store = nil
	e.OpenStore = func(url string) (cloud.Store, error) {
		if url == away.URL() {
			return away, nil
		}
		return here, nil
	}
	runs, err := e.Runs(ctx, false)
	if err != nil || len(runs) != 1 || runs[0].Run != "here-c" {
		t.Errorf("%+v, %v", runs, err)
	}
	if got := said.String(); got != "coiled-jobs: run away-b and 1 more cannot be read: no credentials\n" {
		t.Errorf("said %q", got)
	}
	said.Reset()
	e.Store = here
	if runs, err = e.RunsHere(ctx); err != nil || len(runs) != 1 || said.Len() > 0 {
		t.Errorf("here: %+v, %v; said %q", runs, err, said.String())
	}
}

func TestNotifications(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	var body bytes.Buffer
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable) // the first try is in vain
			return
		}
		io.Copy(&body, r.Body)
	}))
	defer srv.Close()
	p, err := executor.Bind([]byte("name: p\nparams: {hook: {type: string}}\nnotify: [{on: [failure], webhook: \"${{ params.hook }}\", format: slack}]\nfunctions: {a: {command: [x]}}\n"),
		filepath.Join(t.TempDir(), "p.yaml"), map[string]string{"hook": srv.URL}, "")
	if err != nil {
		t.Fatal(err)
	}
	e := engineIn(t)
	h := &executor.Header{Run: "r1", Pipeline: "p"}
	e.notify(h, p, executor.Report{Run: "r1", Pipeline: "p", Status: executor.RunSucceeded})
	if n := calls.Load(); n != 0 {
		t.Fatalf("%d calls for a success, only failures were asked for", n)
	}
	e.notify(h, p, executor.Report{Run: "r1", Pipeline: "p", Status: executor.RunFailed, Seconds: 61,
		Functions: []executor.FunctionReport{{Name: "a", Tasks: 3, Failed: 2}}})
	var msg struct{ Text string }
	if err := json.Unmarshal(body.Bytes(), &msg); err != nil {
		t.Fatalf("%v: %s", err, body.String())
	}
	if want := "p failed after 1m1s: 2 of 3 tasks failed, $0.00 (run r1)"; msg.Text != want || calls.Load() != 2 {
		t.Errorf("after %d calls: %q, want %q", calls.Load(), msg.Text, want)
	}
}

// The address may be a secret by itself: webhook names it.
func TestNotifyWithASecretAddress(t *testing.T) {
	t.Parallel()
	var path atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { path.Store(r.URL.Path) }))
	defer srv.Close()
	p, err := executor.Bind([]byte("name: p\nsecrets: [HOOK]\nnotify: [{on: [success], webhook: HOOK}]\nfunctions: {a: {command: [x]}}\n"), "p.yaml", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	e := engineIn(t)
	e.Environ = []string{"HOOK=" + srv.URL + "/T0/x\n"}
	e.notify(&executor.Header{}, p, executor.Report{Status: executor.RunSucceeded})
	if path.Load() != "/T0/x" {
		t.Errorf("called %v", path.Load())
	}
	var stderr bytes.Buffer
	e.Environ, e.Stderr = nil, &stderr
	e.notify(&executor.Header{}, p, executor.Report{Status: executor.RunSucceeded})
	if got := stderr.String(); !strings.Contains(got, "the secret HOOK") {
		t.Errorf("stderr: %q", got)
	}
}

// A failed notification names the host and nothing else: the address may be a secret.
func TestFailedNotificationHidesTheAddress(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	p, err := executor.Bind([]byte("name: p\nnotify: [{on: [failure], webhook: \""+srv.URL+"/T0/s3cret\"}]\nfunctions: {a: {command: [x]}}\n"), "p.yaml", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	e := engineIn(t)
	var stderr bytes.Buffer
	e.Stderr = &stderr
	e.notify(&executor.Header{}, p, executor.Report{Status: executor.RunFailed})
	if got := stderr.String(); !strings.Contains(got, "404") || strings.Contains(got, "s3cret") {
		t.Errorf("stderr: %q", got)
	}
}

func TestRunIDs(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b := newRunID("etl", now), newRunID("etl", now)
	if a == b || !strings.HasPrefix(a, "etl-20260102-030405-") || a != strings.ToLower(a) {
		t.Errorf("%q, %q", a, b)
	}
}

func TestBaseEnvLeavesTheTaskAroundItBehind(t *testing.T) {
	t.Parallel()
	e := engineIn(t)
	e.Environ = []string{"PATH=/bin", "COILED_JOBS_INDEX=7", "HOME=/h"}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte("TOKEN=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := executor.Bind([]byte("name: p\nenv_file: .env\nfunctions: {a: {command: [x]}}\n"), "p.yaml", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.baseEnv(p, dir)
	if want := []string{"PATH=/bin", "HOME=/h", "TOKEN=1"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
