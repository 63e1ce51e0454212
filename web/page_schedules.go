package web

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

const (
	pastTicks   = 40  // in the list of schedules
	moreTicks   = 200 // on the page of one
	comingTicks = 5
	moreComing  = 20
)

// tickData is a tick and its run.
type tickData struct {
	schedule.Record
	Outcome string // ran, succeeded, failed, skipped, missed ...
	Seconds float64
	CostUSD float64
}

// scheduleData is a schedule as it is shown.
type scheduleData struct {
	schedule.Schedule
	Paused   bool
	Declared bool // paused: true in the file
	Next     []time.Time
	Past     []tickData // oldest first
	P50, P95 float64    // seconds of succeeded runs; 0: unknown
	Problem  string
}

// Last is the newest tick that has an outcome; nil: none.
func (d scheduleData) Last() *tickData {
	if len(d.Past) == 0 {
		return nil
	}
	return &d.Past[len(d.Past)-1]
}

// schedulesReader reads schedules for everybody who looks at them.
type schedulesReader struct {
	every time.Duration

	mu      sync.Mutex
	known   map[string]map[string]schedule.Record // settled ticks by schedule
	looked  time.Time
	list    []scheduleData
	version int // grows whenever the list is read

	frames frames // what is shown of the newest version
}

func (p *schedulesReader) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = time.Time{}
}

// settled says whether a record will not change any more.
func settled(r schedule.Record) bool {
	return r.State == schedule.Skipped || r.State == schedule.Missed || r.State == schedule.Ran && r.Status != ""
}

// schedules is all schedules with their last and next ticks, and the version
// of that.
func (s *Server) schedules(ctx context.Context) ([]scheduleData, int, error) {
	p := s.plan
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.looked) < p.every {
		return p.list, p.version, nil
	}
	runs, err := s.runsByID(ctx)
	if err != nil {
		return p.list, p.version, err
	}
	var list []scheduleData
	now := time.Now()
	for _, f := range s.files() {
		for _, one := range f.Schedules {
			d, err := s.describe(ctx, one, now, pastTicks, comingTicks, runs)
			if err != nil {
				d.Problem = err.Error()
			}
			list = append(list, d)
		}
	}
	if ctx.Err() == nil {
		p.list, p.looked = list, time.Now()
		p.version++
	}
	return list, p.version, nil
}

func (s *Server) runsByID(ctx context.Context) (map[string]engine.RunSummary, error) {
	list, _, _, err := s.list.now(ctx)
	if err != nil {
		return nil, err
	}
	runs := make(map[string]engine.RunSummary, len(list))
	for _, r := range list {
		runs[r.Run] = r
	}
	return runs, nil
}

// describe reads a schedule. The caller holds s.plan.mu.
func (s *Server) describe(ctx context.Context, one schedule.Schedule, now time.Time, past, coming int, runs map[string]engine.RunSummary) (scheduleData, error) {
	d := scheduleData{Schedule: one, Declared: one.Policy.Paused, Paused: one.Policy.Paused}
	for at := one.Times.Next(now); len(d.Next) < coming && !at.IsZero(); at = one.Times.Next(at) {
		d.Next = append(d.Next, at)
	}
	paused, err := s.cfg.Keeper.Paused(ctx, one.Pipeline)
	if err != nil {
		return d, err
	}
	d.Paused = d.Paused || paused
	id := one.Pipeline + "/" + one.ID
	if s.plan.known[id] == nil {
		s.plan.known[id] = map[string]schedule.Record{}
	}
	known := s.plan.known[id]
	recs, err := s.cfg.Keeper.Recent(ctx, one, past, known)
	if err != nil {
		return d, err
	}
	var seconds []float64
	for _, rec := range recs {
		if settled(rec) {
			known[schedule.RecordKey(one, rec.Tick)] = rec
		}
		rec.Tick = rec.Tick.In(one.Times.Location())
		t := tickData{Record: rec, Outcome: rec.State}
		if r, ok := runs[rec.Run]; ok && rec.Run != "" {
			t.Outcome, t.Seconds, t.CostUSD = r.Status, r.Seconds, r.CostUSD
			if r.Status == string(executor.RunSucceeded) {
				seconds = append(seconds, r.Seconds)
			}
		} else if rec.Status != "" {
			t.Outcome = rec.Status
		}
		d.Past = append(d.Past, t)
	}
	d.P50, d.P95 = quantile(seconds, 0.5), quantile(seconds, 0.95)
	return d, nil
}

// quantile is the value that a share of the values does not exceed; 0: there are none.
func quantile(list []float64, share float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}

// brokenFile is a file whose schedules are not kept.
type brokenFile struct {
	File  string
	Lines []string
}

// schedulesData is the page of schedules.
type schedulesData struct {
	Schedules []scheduleData
	Broken    []brokenFile
	Files     int
	Csrf      string
	Problem   string
}

func (s *Server) schedulesData(ctx context.Context) (d schedulesData, version int, err error) {
	list, version, err := s.schedules(ctx)
	d = schedulesData{Schedules: list, Csrf: s.guard.csrf()}
	if err != nil {
		d.Problem = err.Error()
	}
	for _, f := range s.files() {
		d.Files++
		if f.Err != nil {
			d.Broken = append(d.Broken, brokenFile{f.File, problemLines(f.Err)})
		}
	}
	return d, version, ctx.Err()
}

func problemLines(err error) []string {
	var problems spec.Problems
	if errors.As(err, &problems) {
		var lines []string
		for _, p := range problems {
			lines = append(lines, p.String())
		}
		return lines
	}
	return []string{err.Error()}
}

func (s *Server) schedulesPage(w http.ResponseWriter, r *http.Request) error {
	d, _, err := s.schedulesData(r.Context())
	if err != nil {
		return err
	}
	return s.show(w, r, page{template: "schedules", title: "Schedules", here: "schedules", script: "schedules.js"}, d)
}

// schedulesEvents sends the schedules as they change.
func (s *Server) schedulesEvents(w http.ResponseWriter, r *http.Request) error {
	t := time.NewTicker(s.plan.every)
	defer t.Stop()
	again := make(chan struct{}, 1)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-t.C:
				select {
				case again <- struct{}{}:
				default:
				}
			case <-stop:
				return
			}
		}
	}()
	return s.followed(w, r, func() ([]byte, <-chan struct{}, error) {
		d, version, err := s.schedulesData(r.Context())
		if err != nil {
			return nil, again, err
		}
		event := func() ([]byte, error) {
			html, err := s.render("schedules-live", d)
			return eventOf("live", html), err
		}
		if d.Problem != "" { // that has no version
			b, err := event()
			return b, again, err
		}
		f, err := s.plan.frames.get("live", version, event)
		if err != nil {
			return nil, again, err
		}
		return f.body, again, nil
	})
}

// pointJSON is a run in the chart of durations.
type pointJSON struct {
	Tick    int64   `json:"t"` // Unix seconds
	Seconds float64 `json:"s"`
	OK      bool    `json:"ok"`
	Run     string  `json:"run"`
}

func (s *Server) schedulePage(w http.ResponseWriter, r *http.Request) error {
	f, ok := s.scheduled(r.PathValue("pipeline"))
	if !ok {
		return errNotFound
	}
	for _, one := range f.Schedules {
		if one.ID != r.PathValue("id") {
			continue
		}
		runs, err := s.runsByID(r.Context())
		if err != nil {
			return err
		}
		s.plan.mu.Lock()
		d, err := s.describe(r.Context(), one, time.Now(), moreTicks, moreComing, runs)
		s.plan.mu.Unlock()
		if err != nil {
			return err
		}
		points := []pointJSON{}
		for _, t := range d.Past {
			if t.Seconds > 0 && executor.RunStatus(t.Outcome).Final() {
				points = append(points, pointJSON{t.Tick.Unix(), t.Seconds, t.Outcome == string(executor.RunSucceeded), t.Run})
			}
		}
		b, err := json.Marshal(points)
		if err != nil {
			return err
		}
		newest := slices.Clone(d.Past)
		slices.Reverse(newest)
		return s.show(w, r, page{template: "schedule", title: one.Pipeline + " · schedule", here: "schedules", script: "schedules.js", plots: true},
			map[string]any{"S": d, "Newest": newest, "Points": string(b), "Csrf": s.guard.csrf()})
	}
	return errNotFound
}
