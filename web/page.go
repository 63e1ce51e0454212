package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

//go:embed static templates
var embedded embed.FS

// asset is a file of the page, also compressed.
type asset struct {
	kind   string
	plain  []byte
	zipped []byte
}

// assets is the files below static by name, and a hash over all of them that
// is part of their address: browsers may keep them for ever.
var assets = sync.OnceValues(func() (map[string]asset, string) {
	all := map[string]asset{}
	sum := sha256.New()
	err := fs.WalkDir(embedded, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n", name, len(b))
		sum.Write(b)
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression) // the level is a valid one
		_, _ = w.Write(b)                                     // into memory
		_ = w.Close()
		kind := mime.TypeByExtension(path.Ext(name))
		switch path.Ext(name) { // not what this machine thinks of them
		case ".js":
			kind = "text/javascript; charset=utf-8"
		case ".css":
			kind = "text/css; charset=utf-8"
		case ".svg":
			kind = "image/svg+xml"
		}
		all[strings.TrimPrefix(name, "static/")] = asset{kind: kind, plain: b, zipped: z.Bytes()}
		return nil
	})
	if err != nil {
		panic(err) // the files are in the program
	}
	return all, hex.EncodeToString(sum.Sum(nil)[:6])
})

// static serves the page's own files: /static/<hash>/name, or without the
// hash for those who do not know it.
func static(w http.ResponseWriter, r *http.Request) {
	files, hash := assets()
	name, kept := strings.CutPrefix(r.PathValue("name"), hash+"/")
	a, ok := files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache")
	if kept {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("ETag", `"`+hash+`"`)
	if r.Header.Get("If-None-Match") == `"`+hash+`"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && len(a.zipped) < len(a.plain) {
		h.Set("Content-Encoding", "gzip")
		body = a.zipped
	}
	_, _ = w.Write(body) // the caller went away
}

var statusMarks = map[string]string{
	"pending": "○", "running": "●", "succeeded": "✓", "failed": "✗", "skipped": "→", "cancelled": "⊘", "stopped": "■",
	"interrupted": "!", "ran": "✓", "missed": "✗", "starting": "●", "cached": "✓",
}

var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"seconds": ui.Seconds, "count": ui.Count, "dollars": ui.Dollars, "bytes": ui.Bytes, "clean": ui.Clean, "plural": ui.Plural,
		"mark": func(status string) string {
			if m := statusMarks[status]; m != "" {
				return m
			}
			return "·"
		},
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" },
		"local": local,
		"wall":  func(t time.Time) string { return t.Format("2006-01-02T15:04:05") },
		"px":    func(f float64) string { return fmt.Sprintf("%.1f", f) },
		"add":   func(a, b int) int { return a + b },
		"plain": plain,
		"unix":  func(nano int64) time.Time { return time.Unix(0, nano) },
		"dict":  dict,
	}).ParseFS(embedded, "templates/*.html"))
})

// local is a time by the clock of its zone.
func local(t time.Time) string {
	if t.Second() != 0 { // of "@every 90s"
		return t.Format("Mon 2 Jan 2006, 15:04:05 MST")
	}
	return t.Format("Mon 2 Jan 2006, 15:04 MST")
}

// plain is a text of several lines without what could change how it is read:
// control characters, escape sequences, marks of direction.
func plain(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexAny(s, "\n\t")
		if i < 0 {
			i = len(s)
		}
		b.WriteString(ui.Clean(s[:i]))
		if i < len(s) {
			b.WriteByte(s[i])
			i++
		}
		s = s[i:]
	}
	return b.String()
}

// dict makes the arguments of a template that takes several.
func dict(pairs ...any) (map[string]any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("%v is no name", pairs[i])
		}
		m[key] = pairs[i+1]
	}
	return m, nil
}

// frameData is what surrounds every page.
type frameData struct {
	Title  string
	Here   string // which part of the page: runs, schedules
	Static string // where its files lie
	Csrf   string
	Script string // a module
	Plots  bool   // it draws with uPlot
	Body   template.HTML
}

// bare is the header with which our scripts ask for the inside of a page.
const bare = "X-Coiled-Jobs-Bare"

// page is a page that is about to be shown.
type page struct {
	template, title, here, script string
	plots                         bool
	code                          int
}

// show renders a page; only its inside if a script asks.
func (s *Server) show(w http.ResponseWriter, r *http.Request, p page, data any) error {
	body, err := s.whole(p, data, r.Header.Get(bare) != "")
	if err != nil {
		return err
	}
	w.Header().Add("Vary", bare)
	if p.code != 0 {
		w.Header().Set("Content-Type", htmlKind)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(p.code)
		_, err = w.Write(body)
		return err
	}
	return compressed(w, r, htmlKind, body)
}

const htmlKind = "text/html; charset=utf-8"

// shared shows a page of a run that is the same for all who look at one
// version of it: it is made once for all of them.
func (s *Server) shared(w http.ResponseWriter, r *http.Request, run *watched, make func() (page, any, error)) error {
	_, _, version, _ := run.now()
	inside := r.Header.Get(bare) != ""
	name := r.URL.RequestURI()
	if inside {
		name += " inside"
	}
	f, err := run.frames.get(name, version, func() ([]byte, error) {
		p, data, err := make()
		if err != nil {
			return nil, err
		}
		return s.whole(p, data, inside)
	})
	if err != nil {
		return err
	}
	w.Header().Add("Vary", bare)
	return f.answer(w, r, htmlKind)
}

// whole is a page, or its inside.
func (s *Server) whole(p page, data any, inside bool) ([]byte, error) {
	body, err := s.render(p.template, data)
	if err != nil || inside {
		return body, err
	}
	_, hash := assets()
	return s.render("frame", frameData{Title: p.title, Here: p.here, Static: "/static/" + hash, Csrf: s.guard.csrf(), Script: p.script,
		Plots: p.plots, Body: template.HTML(body)}) //nolint:gosec // it was escaped when it was rendered
}

func (s *Server) render(name string, data any) ([]byte, error) {
	var b bytes.Buffer
	err := templates().ExecuteTemplate(&b, name, data)
	return b.Bytes(), err
}

// oops shows an error as a page.
func (s *Server) oops(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil || r.Context().Err() != nil {
		return
	}
	if s.guard.bearer(r) { // a program
		s.fail(w, r, err)
		return
	}
	code := codeOf(err)
	title := "Something went wrong"
	switch code {
	case http.StatusNotFound:
		title = "There is no such page"
	case http.StatusUnprocessableEntity:
		title = "That cannot be done"
	case http.StatusServiceUnavailable:
		title = "The store does not answer"
	}
	_ = s.show(w, r, page{template: "error", title: title, code: code}, map[string]any{"Title": title, "Lines": strings.Split(err.Error(), "\n")})
}

// codeOf is the status with which an error is told.
func codeOf(err error) int {
	var problems spec.Problems
	var usage *engine.UsageError
	switch k := cloud.KindOf(err); {
	case errors.As(err, &problems), errors.As(err, &usage):
		return http.StatusUnprocessableEntity
	case k == cloud.KindNotFound, k == cloud.KindInvalid, errors.Is(err, errNotFound):
		return http.StatusNotFound
	case k == cloud.KindTransient, k == cloud.KindThrottled:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// pages adds the page's addresses.
func (s *Server) pages() {
	s.mux.HandleFunc("GET /static/{name...}", static)
	s.mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		r.SetPathValue("name", "icon.svg")
		static(w, r)
	})
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/runs", http.StatusSeeOther) })
	s.mux.HandleFunc("GET /runs", s.paged(s.runsPage))
	s.mux.HandleFunc("GET /runs/events", s.paged(s.runsEvents))
	s.mux.HandleFunc("GET /runs/{run}", s.pagedRun(s.runPage))
	s.mux.HandleFunc("GET /runs/{run}/events", s.pagedRun(s.runEvents))
	s.mux.HandleFunc("GET /runs/{run}/failures", s.pagedRun(s.failuresPage))
	s.mux.HandleFunc("GET /runs/{run}/machines", s.pagedRun(s.machinesPage))
	s.mux.HandleFunc("GET /runs/{run}/changes", s.pagedRun(s.changesPage))
	s.mux.HandleFunc("GET /runs/{run}/file", s.pagedRun(s.filePage))
	s.mux.HandleFunc("GET /runs/{run}/tasks/{fn}", s.pagedRun(s.tasksPage))
	s.mux.HandleFunc("GET /runs/{run}/tasks/{fn}/{index}", s.pagedRun(s.taskPage))
	s.mux.HandleFunc("GET /runs/{run}/tasks/{fn}/{index}/log", s.pagedRun(s.logEvents))
	s.mux.HandleFunc("GET /schedules", s.paged(s.schedulesPage))
	s.mux.HandleFunc("GET /schedules/events", s.paged(s.schedulesEvents))
	s.mux.HandleFunc("GET /schedules/{pipeline}/{id}", s.paged(s.schedulePage))
	s.mux.HandleFunc("POST /runs/{run}/{action}", s.paged(s.actOnRun))
	s.mux.HandleFunc("POST /schedules/{pipeline}/{action}", s.paged(s.actOnSchedule))
	s.mux.HandleFunc("GET /metrics", s.paged(s.metrics))
	s.mux.HandleFunc("GET /", s.paged(func(http.ResponseWriter, *http.Request) error { return errNotFound }))
}

func (s *Server) paged(next func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { s.oops(w, r, next(w, r)) }
}

func (s *Server) pagedRun(next func(http.ResponseWriter, *http.Request, *watched) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		run, err := s.hub.open(r.Context(), r.PathValue("run"))
		if err == nil {
			err = next(w, r, run)
		}
		s.oops(w, r, err)
	}
}
