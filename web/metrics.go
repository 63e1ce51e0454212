package web

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/schedule"
)

// counters is what this server has seen happen.
type counters struct {
	mu    sync.Mutex
	ticks map[[2]string]int // by pipeline and outcome
}

// Settled notes what became of ticks, for the metrics.
func (s *Server) Settled(recs []schedule.Record) {
	s.count.mu.Lock()
	defer s.count.mu.Unlock()
	if s.count.ticks == nil {
		s.count.ticks = map[[2]string]int{}
	}
	for _, r := range recs {
		s.count.ticks[[2]string{r.Pipeline, r.State}] += max(1, r.Count)
	}
}

// metrics is for Prometheus, in its text format. It is made from what is known
// of runs when somebody asks: no run does anything for it.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	list, _, _, err := s.list.now(r.Context())
	m := new(exposition)
	up := 1.0
	if err != nil {
		if r.Context().Err() != nil {
			return nil
		}
		up = 0
	}
	m.family("coiled_jobs_store_up", "gauge", "Whether the store answered.")
	m.sample("coiled_jobs_store_up", up)
	s.runMetrics(r, m, list)
	m.family("coiled_jobs_ticks_total", "counter", "Ticks of schedules that this server settled, by outcome.")
	s.count.mu.Lock()
	for _, k := range sortedKeys(s.count.ticks) {
		m.sample("coiled_jobs_ticks_total", float64(s.count.ticks[k]), "pipeline", k[0], "outcome", k[1])
	}
	s.count.mu.Unlock()
	broken := 0
	for _, f := range s.files() {
		if f.Err != nil {
			broken++
		}
	}
	m.family("coiled_jobs_broken_files", "gauge", "Pipeline files that cannot be read, so that nothing of them is scheduled.")
	m.sample("coiled_jobs_broken_files", float64(broken))
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(m.b.Bytes()) // the caller went away
	return nil
}

func (s *Server) runMetrics(r *http.Request, m *exposition, list []engine.RunSummary) {
	runs, tasks := map[[2]string]int{}, map[[2]string]int{}
	cost, success, seconds := map[[2]string]float64{}, map[[2]string]float64{}, map[[2]string]float64{}
	for _, one := range list { // newest first
		p := [2]string{one.Pipeline}
		runs[[2]string{one.Pipeline, one.Status}]++
		cost[p] += one.CostUSD
		if one.Status == string(executor.RunSucceeded) && one.Finished != nil {
			if _, have := success[p]; !have {
				success[p], seconds[p] = float64(one.Finished.UnixMilli())/1000, one.Seconds
			}
		}
		if executor.RunStatus(one.Status).Final() {
			tasks[[2]string{one.Pipeline, "failed"}] += one.Failed
			tasks[[2]string{one.Pipeline, "ended"}] += one.Tasks - one.Failed
			continue
		}
		w, err := s.hub.open(r.Context(), one.Run)
		if err != nil {
			continue // removed meanwhile, or it is asked again with the next scrape
		}
		_, report, _, _ := w.now()
		for _, f := range report.Functions {
			for status, n := range map[string]int{"running": f.Running, "pending": f.Pending, "failed": f.Failed,
				"ended": f.Succeeded + f.Skipped + f.Cancelled} {
				tasks[[2]string{one.Pipeline, status}] += n
			}
		}
	}
	m.family("coiled_jobs_runs", "gauge", "Runs in the store by status.")
	for _, k := range sortedKeys(runs) {
		m.sample("coiled_jobs_runs", float64(runs[k]), "pipeline", k[0], "status", k[1])
	}
	m.family("coiled_jobs_tasks", "gauge", "Tasks of runs in the store: pending, running, failed, or ended otherwise.")
	for _, k := range sortedKeys(tasks) {
		m.sample("coiled_jobs_tasks", float64(tasks[k]), "pipeline", k[0], "status", k[1])
	}
	m.family("coiled_jobs_cost_dollars", "gauge", "What the runs in the store have cost until now.")
	for _, k := range sortedKeys(cost) {
		m.sample("coiled_jobs_cost_dollars", cost[k], "pipeline", k[0])
	}
	m.family("coiled_jobs_last_success_timestamp_seconds", "gauge", "When the newest run that succeeded ended.")
	for _, k := range sortedKeys(success) {
		m.sample("coiled_jobs_last_success_timestamp_seconds", success[k], "pipeline", k[0])
	}
	m.family("coiled_jobs_last_success_duration_seconds", "gauge", "How long the newest run that succeeded took.")
	for _, k := range sortedKeys(seconds) {
		m.sample("coiled_jobs_last_success_duration_seconds", seconds[k], "pipeline", k[0])
	}
}

func sortedKeys[V any](m map[[2]string]V) [][2]string {
	keys := make([][2]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return keys
}

// exposition is a text in the format of Prometheus.
type exposition struct{ b bytes.Buffer }

func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(&e.b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample adds a value; labels are names and values in turn.
func (e *exposition) sample(name string, v float64, labels ...string) {
	e.b.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		e.b.WriteByte(sep)
		fmt.Fprintf(&e.b, `%s="%s"`, labels[i], labelEscapes.Replace(strings.ToValidUTF8(labels[i+1], "\ufffd")))
	}
	if len(labels) > 0 {
		e.b.WriteByte('}')
	}
	text := strconv.FormatFloat(v, 'g', -1, 64)
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		text = strconv.FormatFloat(v, 'f', 0, 64)
	}
	e.b.WriteString(" " + text + "\n")
}
