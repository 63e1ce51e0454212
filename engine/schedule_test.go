package engine

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/schedule"
)

// Names matter where schedules are: two trials of one name do no harm.
func TestScheduledNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const schedule = "schedule: {cron: \"@daily\"}\n"
	for name, text := range map[string]string{
		"a.yaml": "name: trial\n", "b.yaml": "name: trial\n",
		"c.yaml": "name: nightly\n", "d.yaml": "name: nightly\n" + schedule,
		"e.yaml": "name: hourly\n" + schedule, "f.yaml": "name: hourly\n" + schedule,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"functions: {a: {command: [x]}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := engineIn(t).ScheduledFiles([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	var broken []string
	for _, f := range files {
		if f.Err != nil {
			broken = append(broken, filepath.Base(f.File))
		}
	}
	if got := strings.Join(broken, " "); got != "d.yaml f.yaml" {
		t.Errorf("broken: %s", got)
	}
}

// Missed ticks are told of, and a broken file is as broken for a tick as for a
// person.
func TestMissedIsTold(t *testing.T) {
	t.Parallel()
	got := make(chan map[string]any, 4)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m map[string]any
		if json.NewDecoder(r.Body).Decode(&m) == nil {
			got <- m
		}
	}))
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "p.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("name: p\nschedule: {cron: \"0 2 * * *\", catchup: none}\nnotify: [{on: [missed], webhook: \"" + srv.URL + "\"}]\nfunctions: {a: {command: [x]}}\n")
	e := engineIn(t)
	files, err := e.ScheduledFiles([]string{file})
	if err != nil || files[0].Err != nil || len(files[0].Schedules) != 1 {
		t.Fatalf("%+v, %v", files, err)
	}
	k, s := e.Keeper(), files[0].Schedules[0]
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, at := range []time.Time{now, now.Add(12 * time.Hour)} {
		if _, err := k.Round(context.Background(), s, at); err != nil {
			t.Fatal(err)
		}
	}
	if m := <-got; m["state"] != schedule.Missed || m["tick"] != "2026-05-01T02:00:00Z" {
		t.Errorf("told %v", m)
	}
	write("name: p\nfunctions: {a: {comand: [x]}}\n")
	settled, err := k.Round(context.Background(), s, now.Add(26*time.Hour+time.Minute))
	if err != nil || len(settled) != 1 || settled[0].State != schedule.Missed || settled[0].Why == "" {
		t.Errorf("%+v, %v", settled, err)
	}
}

// What is not there, or cannot be read, does not harm what is; what is named
// twice is one.
func TestScheduledFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": "name: a\nschedule: {cron: \"0 2 * * *\"}\nfunctions: {f: {command: [x]}}\n",
		"sub/b.yml": "name: b\nschedule: {cron: \"0 2 * * *\"}\nfunctions: {f: {command: [x]}}\n", "sub/other.yaml": "services: {}\n", "closed/c.yaml": "name: c\nfunctions: {}\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o700) })
	if os.Getuid() == 0 || runtime.GOOS == "windows" { // who may read everything
		_ = os.RemoveAll(closed)
	}
	gone := filepath.Join(dir, "gone.yaml")
	files, err := engineIn(t).ScheduledFiles([]string{gone, dir, filepath.Join(dir, "a.yaml"), dir + "/./sub"})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 || files[0].File != gone || files[0].Err == nil {
		t.Fatalf("%+v", files)
	}
	for i, name := range []string{"a", "b"} {
		if f := files[i+1]; f.Err != nil || f.Pipeline != name || len(f.Schedules) != 1 {
			t.Errorf("%+v", f)
		}
	}
}

// headers counts how often runs are read from their beginning.
type headers struct {
	cloud.Store
	read atomic.Int32
}

func (h *headers) Get(ctx context.Context, key string) ([]byte, error) {
	if strings.HasSuffix(key, "/header.json") {
		h.read.Add(1)
	}
	return h.Store.Get(ctx, key)
}

// A run that goes on is looked at every few seconds, and read from its
// beginning only once.
func TestStatusOfARunThatGoesOn(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("runs on this machine need Linux or macOS")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "p.yaml")
	if err := os.WriteFile(file, []byte("name: p\nfunctions: {f: {run: 'until [ -e go ]; do sleep 0.01; done'}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := engineIn(t)
	e.Environ = os.Environ()
	store := &headers{Store: e.Store}
	e.Store = store
	o := ApplyOptions{File: file}
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	h, err := e.Apply(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	r := newScheduleRunner(e)
	want := func(want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(time.Minute); got != want && time.Now().Before(deadline); {
			if got, err = r.Status(t.Context(), h.Run); err != nil {
				t.Fatal(err)
			}
		}
		if got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	want("running")
	before := store.read.Load()
	for range 10 {
		want("running")
	}
	if n := store.read.Load() - before; n > 0 {
		t.Errorf("it was read from its beginning %d times", n)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("succeeded")
	if err := e.Remove(t.Context(), h.Run); err != nil {
		t.Fatal(err)
	}
	if status, err := r.Status(t.Context(), h.Run); cloud.KindOf(err) != cloud.KindNotFound || len(r.running) != 0 {
		t.Errorf("of a run that was removed: %q %v", status, err)
	}
}
