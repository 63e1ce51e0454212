package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

// pending is a server over a store with a run that nobody has begun.
func pending(t *testing.T) (*Server, *engine.Engine, string) {
	t.Helper()
	e := &engine.Engine{Store: cloudtest.NewStore(), StateDir: t.TempDir(), Owner: "tester@here", Stderr: io.Discard}
	addRun(t, e, "etl-20260101-000000-aaaaa")
	return New(Config{Engine: e, Keeper: e.Keeper()}), e, "etl-20260101-000000-aaaaa"
}

func addRun(t *testing.T, e *engine.Engine, run string) {
	t.Helper()
	h := &executor.Header{Run: run, Pipeline: "etl", Cloud: "local", Created: time.Now(), Values: "{}", Planned: map[string]int{"a": 5}}
	if err := executor.Create(t.Context(), e.Store, h, []byte("name: etl\nfunctions:\n  a: {map: {range: 5}, run: echo}\n  b: {needs: a, run: echo}\n")); err != nil {
		t.Fatal(err)
	}
}

func ask(s *Server, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = "localhost"
	s.ServeHTTP(w, r)
	return w
}

// Everything that a page asks for at once, for many pages, while the run is
// looked at again and again.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	s, e, run := pending(t)
	s.hub.every, s.list.every, s.plan.every = time.Millisecond, time.Millisecond, time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var streams, all sync.WaitGroup
	for i := range 20 {
		path := []string{"/runs/" + run + "/events", "/runs/events", "/schedules/events", "/api/runs/" + run + "/events"}[i%4]
		streams.Go(func() {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
			r.Host = "localhost"
			s.ServeHTTP(w, r)
			if !strings.Contains(w.Body.String(), "event: ") {
				t.Errorf("%s: %q", path, w.Body)
			}
		})
	}
	for i := range 20 {
		all.Go(func() {
			for _, path := range []string{"/runs", "/runs/" + run, "/api/runs/" + run + "/grid/a", "/api/runs/" + run + "/timeline", "/runs/" + run + "/failures",
				"/runs/" + run + "/machines", "/runs/" + run + "/changes", "/runs/" + run + "/tasks/a", "/schedules", "/metrics", "/api/runs/" + run} {
				if w := ask(s, path); w.Code != http.StatusOK {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
			}
			if i == 7 {
				addRun(t, e, "etl-20260102-000000-bbbbb")
			}
		})
	}
	all.Wait()
	stop()
	streams.Wait()
	// Nobody watches: nobody looks any more.
	for range 1000 {
		run := s.hub.runs[run]
		run.mu.Lock()
		polling := run.polling
		run.mu.Unlock()
		s.list.mu.Lock()
		polling = polling || s.list.polling
		s.list.mu.Unlock()
		if !polling {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the store is still asked though nobody watches")
}

func TestNewRunsAreListed(t *testing.T) {
	t.Parallel()
	s, e, run := pending(t)
	s.list.every = 0
	if w := ask(s, "/api/runs"); !strings.Contains(w.Body.String(), run) {
		t.Fatalf("%s", w.Body)
	}
	addRun(t, e, "etl-20260102-000000-bbbbb")
	if w := ask(s, "/runs?pipeline=etl&status=pending"); !strings.Contains(w.Body.String(), "bbbbb") || !strings.Contains(w.Body.String(), "2 runs") {
		t.Errorf("%s", w.Body)
	}
	for _, path := range []string{"/runs?pipeline=other", "/runs?status=failed", "/runs?owner=nobody"} {
		if w := ask(s, path); !strings.Contains(w.Body.String(), "No run like that") {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	if err := e.Remove(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if w := ask(s, "/api/runs"); strings.Contains(w.Body.String(), run) {
		t.Errorf("it was removed: %s", w.Body)
	}
}

func TestRunsArePaged(t *testing.T) {
	t.Parallel()
	s, e, _ := pending(t)
	for i := range 2 * perPage {
		addRun(t, e, fmt.Sprintf("etl-20260103-000000-%05d", i))
	}
	first, last := ask(s, "/runs").Body.String(), ask(s, "/runs?page=3").Body.String()
	if n := strings.Count(first, `<tr id="run-`); n != perPage || !strings.Contains(first, `href="/runs?page=2"`) {
		t.Errorf("%d runs on the first page", n)
	}
	if n := strings.Count(last, `<tr id="run-`); n != 1 || !strings.Contains(last, `href="/runs?page=2"`) {
		t.Errorf("%d runs on the last page", n)
	}
	if body := ask(s, "/runs?page=-7").Body.String(); strings.Count(body, `<tr id="run-`) != perPage {
		t.Error("a page that is none shows nothing")
	}
}

// A browser keeps files for ever, by an address that changes with them.
func TestStaticFiles(t *testing.T) {
	t.Parallel()
	s, _, _ := pending(t)
	files, hash := assets()
	if len(files) < 15 {
		t.Fatalf("%d files", len(files))
	}
	for name, a := range files {
		w := ask(s, "/static/"+hash+"/"+name)
		if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || w.Header().Get("Content-Type") != a.kind {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
		if w := ask(s, "/static/"+name); w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s without the hash: %v", name, w.Header())
		}
	}
	for _, name := range []string{"", "../guard.go", "0000/page.css", "templates/run.html"} {
		if w := ask(s, "/static/"+name); w.Code == http.StatusOK {
			t.Errorf("%q is served", name)
		}
	}
	// What the policy forbids is not in our own files either.
	for _, dir := range []string{"static", "templates"} {
		entries, err := embedded.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			b, err := embedded.ReadFile(dir + "/" + entry.Name())
			if err != nil {
				continue // a folder
			}
			for _, bad := range []string{" style=\"", " onclick=", "javascript:", "eval(", "new Function", "https://", "@import"} {
				if strings.Contains(string(b), bad) {
					t.Errorf("%s/%s holds %q", dir, entry.Name(), bad)
				}
			}
		}
	}
}
