package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__warden" {
		agent.WardenMain()
	}
	os.Exit(m.Run())
}

// onMachine is an engine of its own over a store that others have open too.
func onMachine(t *testing.T, store cloud.Store) *Engine {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Engine{Store: store, StateDir: t.TempDir(), Environ: os.Environ(), Exe: exe, Owner: "tester@here", Stderr: io.Discard}
}

// startWaiting applies a pipeline with a task that waits until the file "go"
// exists, and returns when it runs.
func startWaiting(t *testing.T, e *Engine, key string) (h *Handle, p *Planned, dir string) {
	t.Helper()
	dir = t.TempDir()
	file := filepath.Join(dir, "p.yaml")
	text := "name: waits\nfunctions:\n  f:\n    command: [sh, -c, 'test -e go || sleep 600']\n  g: {needs: f, command: [\"true\"]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := ApplyOptions{File: file, Key: key}
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if h, err = e.Apply(t.Context(), p, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithCancel(context.Background())
		stop()
		_, _ = h.Wait(ctx)
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(h.Live()) == 0 {
		select {
		case <-tick.C:
		case <-time.After(2 * time.Minute):
			t.Fatal("the task does not start")
		}
	}
	return h, p, dir
}

// A run that is joined because its coordinator seems alive is continued when
// that turns out to be dead.
func TestJoinedRunIsContinued(t *testing.T) {
	t.Parallel()
	store := cloudtest.NewStore()
	ctx := t.Context()
	for name, join := range map[string]func(e *Engine, h *Handle, p *Planned) (*Handle, error){
		"resume": func(e *Engine, h *Handle, _ *Planned) (*Handle, error) {
			return e.Resume(ctx, h.Run, ContinueOptions{})
		},
		"key": func(e *Engine, h *Handle, p *Planned) (*Handle, error) {
			return e.Apply(ctx, p, ApplyOptions{File: filepath.Join(p.Dir, "p.yaml"), Key: "key"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mine := store.Process()
			h, p, dir := startWaiting(t, onMachine(t, mine), name)
			joined, err := join(onMachine(t, store.Process()), h, p)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(joined.Joined, "joined") {
				t.Errorf("joined says %q", joined.Joined)
			}
			if r := joined.Snapshot(); r.Status != executor.RunRunning {
				t.Errorf("snapshot: %s", r.Status)
			}
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			mine.Kill()
			var told []string
			said := make(chan struct{})
			go func() {
				defer close(said)
				for n := range joined.Notices() {
					told = append(told, n.Text)
				}
			}()
			r, err := joined.Wait(ctx)
			if err != nil || r.Status != executor.RunSucceeded || joined.Snapshot().Status != executor.RunSucceeded {
				t.Errorf("ended as %s, %v", r.Status, err)
			}
			<-said
			if !strings.Contains(strings.Join(told, "\n"), "it goes on here") {
				t.Errorf("notices: %q", told)
			}
			if _, err := h.Wait(ctx); err == nil {
				t.Error("the old coordinator does not know that it lost the run")
			}
		})
	}
}

// Who only watches leaves an interrupted run alone; so does who stops waiting.
func TestWatchersDoNotContinue(t *testing.T) {
	t.Parallel()
	store := cloudtest.NewStore()
	mine := store.Process()
	h, _, _ := startWaiting(t, onMachine(t, mine), "")
	e := onMachine(t, store.Process())
	attached, err := e.Attach(t.Context(), h.Run)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	joined, err := e.Resume(ctx, h.Run, ContinueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	stop(enough)
	if _, err := joined.Wait(ctx); !errors.Is(err, enough) {
		t.Errorf("waiting ended with %v", err)
	}
	mine.Kill()
	if r, err := attached.Wait(t.Context()); err != nil || r.Status != executor.RunInterrupted {
		t.Errorf("watching ended with %s, %v", r.Status, err)
	}
	for range joined.Notices() { // closed: nothing goes on there
	}
	v, err := executor.OpenView(t.Context(), e.Store, h.Run)
	if err != nil {
		t.Fatal(err)
	}
	if v.Epoch() != 1 {
		t.Errorf("%d coordinators", v.Epoch())
	}
}

// A run is continued only where its folder is.
func TestContinueElsewhere(t *testing.T) {
	t.Parallel()
	store := cloudtest.NewStore()
	mine := store.Process()
	h, _, dir := startWaiting(t, onMachine(t, mine), "")
	mine.Kill()
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(dir+"-moved", dir)
	var usage *UsageError
	_, err := onMachine(t, store.Process()).Resume(t.Context(), h.Run, ContinueOptions{CodeNew: true})
	if !errors.As(err, &usage) || !strings.Contains(err.Error(), "not a folder on this machine") {
		t.Errorf("resume: %v", err)
	}
}
