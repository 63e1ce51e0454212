package web

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

// However many ask for a version at a time, it is made once.
func TestFramesAreMadeOnce(t *testing.T) {
	t.Parallel()
	var f frames
	var made atomic.Int32
	begin := make(chan struct{})
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			<-begin
			one, err := f.get("a", 1, func() ([]byte, error) { made.Add(1); return []byte("one"), nil })
			if err != nil || string(one.body) != "one" {
				t.Errorf("%v %v", one, err)
			}
		})
	}
	close(begin)
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
	get := func(name string, version int, text string) string {
		one, err := f.get(name, version, func() ([]byte, error) {
			if text == "" {
				return nil, errors.New("away")
			}
			return []byte(text), nil
		})
		if err != nil {
			return err.Error()
		}
		return string(one.body)
	}
	for i, c := range []struct {
		name    string
		version int
		text    string
		want    string
	}{
		{"a", 2, "", "away"}, // an error is not kept
		{"a", 2, "two", "two"},
		{"a", 1, "old", "two"}, // who comes late gets what is newer
		{"b", 2, "other", "other"},
		{"a", 3, "three", "three"},
	} {
		if got := get(c.name, c.version, c.text); got != c.want {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
	}
	for i := range 10 * maxFrames {
		get(strings.Repeat("x", i), 3, "x")
	}
	if len(f.made) > maxFrames {
		t.Errorf("%d are kept", len(f.made))
	}
}

// A page of a run is made and compressed once for all who look at it, and anew
// when somebody does something with the run.
func TestPagesOfARunAreShared(t *testing.T) {
	t.Parallel()
	s, e, run := pending(t)
	zipped := func(path string) string {
		t.Helper()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Host = "localhost"
		r.Header.Set("Accept-Encoding", "gzip")
		s.ServeHTTP(w, r)
		z, err := gzip.NewReader(w.Body)
		if err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %v", path, w.Code, err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	paths := []string{"/runs/" + run, "/runs/" + run + "/tasks/a?status=pending"}
	for range 5 {
		for _, path := range paths {
			if plain := ask(s, path).Body.String(); plain != zipped(path) {
				t.Errorf("%s: another page with gzip", path)
			}
		}
	}
	w := s.hub.runs[run]
	first := map[string]*shown{}
	for _, path := range paths {
		first[path] = w.frames.made[path].s
	}
	ask(s, paths[0])
	if w.frames.made[paths[0]].s != first[paths[0]] {
		t.Error("it was made again")
	}
	if strings.Contains(zipped(paths[0]), "is being cancelled") {
		t.Fatal("nobody has asked for that")
	}
	if err := e.Store.Put(t.Context(), executor.CancelKey(run), nil); err != nil {
		t.Fatal(err)
	}
	s.hub.forget(run) // as an action does
	if !strings.Contains(zipped(paths[0]), "is being cancelled") {
		t.Error("the page shows what was before the action")
	}
	grid := "/api/runs/" + run + "/grid/a"
	if ask(s, grid).Body.String() != "ppppp" || w.cells["a"] == nil {
		t.Errorf("%s", ask(s, grid).Body)
	}
}

// That the store does not answer is told also while somebody watches the list,
// and no longer than it holds.
func TestListTellsThatTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s, e, run := pending(t)
	s.list.every = 0
	store := e.Store
	away := cloudtest.Faulty(store, cloudtest.Fault{Times: -1, Err: &cloud.Error{Op: "list", Resource: "the bucket", Kind: cloud.KindTransient}})
	s.list.polling = true // as it is while somebody watches
	for i, c := range []struct {
		store   cloud.Store
		up      string
		problem bool
	}{{store, "coiled_jobs_store_up 1", false}, {away, "coiled_jobs_store_up 0", true}, {store, "coiled_jobs_store_up 1", false}} {
		e.Store = c.store
		_, before, _, _ := s.list.now(t.Context())
		_ = s.list.look(t.Context(), true)
		if _, version, _, _ := s.list.now(t.Context()); i > 0 && version == before {
			t.Errorf("%d: who watches is not told", i)
		}
		if got := ask(s, "/metrics").Body.String(); !strings.Contains(got, c.up) {
			t.Errorf("%d: %s", i, got)
		}
		got := ask(s, "/runs").Body.String()
		if !strings.Contains(got, run) || strings.Contains(got, "The store does not answer") != c.problem {
			t.Errorf("%d: %s", i, got)
		}
	}
}
