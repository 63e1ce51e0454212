package web

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/schedule"
)

// Config is what the page shows and how it is guarded.
type Config struct {
	Engine *engine.Engine
	Keeper *schedule.Keeper
	// Files is the pipeline files as they were read last.
	Files func() []engine.ScheduledFile
	Token string   // "": nobody is asked for one
	Hosts []string // names of the server beside loopback ones
}

// Server is the page and its API.
type Server struct {
	cfg   Config
	guard *guard
	mux   *http.ServeMux
	hub   *hub
	list  *lister
	plan  *schedulesReader
	count counters

	mu    sync.Mutex
	beats map[string]time.Time // what is alive: "schedules" after each round
}

// lookEvery is how often a run is looked at that somebody watches, where that
// costs next to nothing.
const lookEvery = 500 * time.Millisecond

// listEvery is how often the list of runs is looked at that somebody watches.
const listEvery = 2 * time.Second

// New makes the page's handler.
func New(cfg Config) *Server {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	s := &Server{cfg: cfg, mux: http.NewServeMux(), beats: map[string]time.Time{}}
	s.guard = &guard{token: cfg.Token, key: key, hosts: cfg.Hosts, next: s.mux}
	s.hub = newHub(func() cloud.Store { return cfg.Engine.Store }, cfg.Engine.PollEvery(lookEvery))
	s.list = newLister(cfg.Engine, s.hub, cfg.Engine.PollEvery(listEvery))
	s.plan = &schedulesReader{every: cfg.Engine.PollEvery(listEvery), known: map[string]map[string]schedule.Record{}}
	s.mux.HandleFunc("GET /healthz", s.health)
	s.apiRoutes()
	s.pages()
	return s
}

// ServeHTTP answers a request, if the guard lets it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.guard.ServeHTTP(w, r) }

// Beat notes that a part of the server is alive.
func (s *Server) Beat(part string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats[part] = time.Now()
}

// silent is how long a part may be quiet before the server counts as sick.
const silent = 5 * time.Minute

// health is for probes: 200 while all parts are alive, 503 with their names if
// one is not.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	sick := []string{}
	for part, at := range s.beats {
		if time.Since(at) > silent {
			sick = append(sick, part)
		}
	}
	s.mu.Unlock()
	code, status := http.StatusOK, "ok"
	if len(sick) > 0 {
		code, status = http.StatusServiceUnavailable, "sick"
	}
	writeJSON(w, code, map[string]any{"status": status, "sick": sick})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the caller went away
}
