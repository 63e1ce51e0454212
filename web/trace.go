package web

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Tracer sends runs that have ended to a collector, as traces of OpenTelemetry:
// the run, its functions, their tasks, and the attempts of these. It reads them
// from their journals, so that no run does anything for it.
//
// It speaks OTLP over HTTP in JSON by itself. The official SDK is made for
// programs that trace themselves while they run, and would bring gRPC into a
// binary that is copied to every machine.
type Tracer struct {
	URL     string            // where spans are posted to: .../v1/traces
	Headers map[string]string // such as a key
	Service string            // service.name
	Version string
	Client  *http.Client // nil: one with a timeout
	// Tell is told of what does not work, once until it changes; may be nil.
	Tell func(string)

	last string
}

const (
	// traceEvery is how often runs that have ended are looked for.
	traceEvery = 10 * time.Second
	// traceWithin is for how long after its end a run is sent that was not.
	traceWithin = 24 * time.Hour
	// maxTraced is about how many tasks of a run are sent: those that failed, and
	// some of the others, evenly.
	maxTraced = 10_000
	// spansAtOnce is how many spans a request has.
	spansAtOnce = 1000
)

// tracedKey says of which end of a run the trace was sent.
func tracedKey(run string) string { return executor.Prefix(run) + "/traced" }

// Trace sends runs as they end, until ctx does.
func (s *Server) Trace(ctx context.Context, t *Tracer) {
	tick := time.NewTicker(traceEvery)
	defer tick.Stop()
	done := map[string]time.Time{}
	for {
		t.say(s.traceEnded(ctx, t, done, time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *Tracer) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != t.last && t.Tell != nil && text != "" {
		t.Tell(text)
	}
	t.last = text
}

// traceEnded sends the runs that have ended of late and were not sent.
func (s *Server) traceEnded(ctx context.Context, t *Tracer, done map[string]time.Time, now time.Time) error {
	list, _, _, err := s.list.now(ctx)
	if err != nil {
		return err
	}
	store := s.cfg.Engine.Store
	for i := range list {
		r := &list[i]
		if !executor.RunStatus(r.Status).Final() || r.Finished == nil || now.Sub(*r.Finished) > traceWithin || done[r.Run].Equal(*r.Finished) {
			continue
		}
		mark := r.Finished.UTC().Format(time.RFC3339Nano)
		if b, err := store.Get(ctx, tracedKey(r.Run)); err == nil && string(b) == mark {
			done[r.Run] = *r.Finished
			continue
		} else if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
			return err
		}
		if err := t.send(ctx, store, r); err != nil {
			return fmt.Errorf("trace of run %s: %w", r.Run, err) // the next round tries again
		}
		if err := store.Put(ctx, tracedKey(r.Run), []byte(mark)); err != nil {
			return err
		}
		done[r.Run] = *r.Finished
	}
	return nil
}

// span is a span in the JSON of OTLP.
type span struct {
	TraceID    string     `json:"traceId"`
	SpanID     string     `json:"spanId"`
	Parent     string     `json:"parentSpanId,omitempty"`
	Name       string     `json:"name"`
	Kind       int        `json:"kind"`
	Start      string     `json:"startTimeUnixNano"`
	End        string     `json:"endTimeUnixNano"`
	Attributes []keyValue `json:"attributes,omitempty"`
	Status     spanStatus `json:"status"`
}

type spanStatus struct {
	Code    int    `json:"code"` // 1: ok, 2: error
	Message string `json:"message,omitempty"`
}

type keyValue struct {
	Key   string         `json:"key"`
	Value map[string]any `json:"value"`
}

// attribute is a name with a value: text, a whole number, a number or a truth.
func attribute(key string, v any) keyValue {
	switch v := v.(type) {
	case int:
		return keyValue{key, map[string]any{"intValue": strconv.Itoa(v)}}
	case float64:
		return keyValue{key, map[string]any{"doubleValue": v}}
	case bool:
		return keyValue{key, map[string]any{"boolValue": v}}
	}
	return keyValue{key, map[string]any{"stringValue": fmt.Sprint(v)}}
}

// idOf is an id that is the same whoever sends the span, and however often.
func idOf(size int, parts ...any) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(parts...)))
	return hex.EncodeToString(sum[:size])
}

const internal = 1 // a span of the kind that is about nobody else

func nano(ns int64) string { return strconv.FormatInt(max(0, ns), 10) }

// traced is a task that is sent.
type traced struct {
	attempts []task.Outcome // without what they printed and returned
}

// send sends a run.
func (t *Tracer) send(ctx context.Context, store cloud.Store, r *engine.RunSummary) error {
	v, err := executor.OpenView(ctx, store, r.Run)
	if err != nil {
		return err
	}
	report, err := v.Report(ctx)
	if err != nil {
		return err
	}
	tasks, left, err := collect(ctx, v, report)
	if err != nil {
		return err
	}
	b := &batch{tracer: t, ctx: ctx, trace: idOf(16, "trace", r.Run, r.Finished.UnixNano())}
	root := idOf(8, b.trace, "run")
	status := spanStatus{Code: 1}
	if r.Status != string(executor.RunSucceeded) {
		status = spanStatus{2, r.Status + ": " + report.Reason}
		if report.Reason == "" {
			status.Message = r.Status
		}
	}
	b.add(span{SpanID: root, Name: r.Pipeline, Start: nano(r.Started.UnixNano()), End: nano(r.Finished.UnixNano()), Status: status,
		Attributes: []keyValue{attribute("coiled_jobs.run", r.Run), attribute("coiled_jobs.pipeline", r.Pipeline), attribute("coiled_jobs.status", r.Status),
			attribute("coiled_jobs.owner", r.Owner), attribute("coiled_jobs.tasks", r.Tasks), attribute("coiled_jobs.tasks_failed", r.Failed),
			attribute("coiled_jobs.cost_dollars", r.CostUSD), attribute("coiled_jobs.tasks_left_out", left)}})
	for _, f := range report.Functions {
		b.function(root, f, tasks[f.Name])
	}
	return b.flush()
}

// collect reads the attempts of the tasks that are sent, and how many tasks are not.
func collect(ctx context.Context, v *executor.View, report executor.Report) (tasks map[string]map[int]*traced, left int, err error) {
	total := 0
	for _, f := range report.Functions {
		total += f.Tasks
	}
	stride := (total + maxTraced - 1) / maxTraced
	tasks = map[string]map[int]*traced{}
	failed, kept := 0, 0
	for _, f := range report.Functions {
		tasks[f.Name] = map[int]*traced{}
		for t := range v.Tasks(f.Name) {
			bad := t.Status == task.Failed && failed < maxTraced
			if bad {
				failed++
			}
			if t.Attempts > 0 && (bad || t.Index%stride == 0) {
				tasks[f.Name][t.Index] = &traced{}
				kept++
			} else if t.Attempts > 0 {
				left++
			}
		}
	}
	err = v.Outcomes(ctx, func(fn string, o *task.Outcome) bool {
		if t := tasks[fn][o.Index]; t != nil && o.Attempt > 0 && o.Started > 0 {
			t.attempts = append(t.attempts, task.Outcome{Index: o.Index, Attempt: o.Attempt, Status: o.Status, Cause: o.Cause, Exit: o.Exit,
				Started: o.Started, Seconds: o.Seconds, Message: o.Message, Machine: o.Machine, MaxRSS: o.MaxRSS})
		}
		return true
	})
	return tasks, left, err
}

// batch collects spans and sends them in turns.
type batch struct {
	tracer *Tracer
	ctx    context.Context //nolint:containedctx // it lives as long as a call
	trace  string
	spans  []span
	err    error
}

func (b *batch) add(s span) {
	s.TraceID, s.Kind = b.trace, internal
	if b.spans = append(b.spans, s); len(b.spans) >= spansAtOnce {
		b.err = b.flush()
	}
}

func (b *batch) function(root string, f executor.FunctionReport, tasks map[int]*traced) {
	id := idOf(8, b.trace, f.Name)
	first, last := int64(0), int64(0)
	for index, t := range tasks {
		begin, end := int64(0), int64(0)
		taskID := idOf(8, b.trace, f.Name, "/", index)
		for i := range t.attempts {
			o := &t.attempts[i]
			from, to := o.Started, o.Started+int64(max(0, o.Seconds)*1e9)
			if begin == 0 || from < begin {
				begin = from
			}
			end = max(end, to)
			b.add(span{SpanID: idOf(8, taskID, "#", o.Attempt, o.Started), Parent: taskID, Name: fmt.Sprintf("%s/%d attempt %d", f.Name, index, o.Attempt), Start: nano(from), End: nano(to),
				Status: statusOf(o), Attributes: []keyValue{attribute("coiled_jobs.attempt", o.Attempt), attribute("coiled_jobs.cause", o.Cause.String()),
					attribute("coiled_jobs.exit_code", o.Exit), attribute("coiled_jobs.machine", o.Machine), attribute("coiled_jobs.max_rss_bytes", int(o.MaxRSS))}})
		}
		if len(t.attempts) == 0 {
			continue
		}
		b.add(span{SpanID: taskID, Parent: id, Name: fmt.Sprintf("%s/%d", f.Name, index), Start: nano(begin), End: nano(end), Status: statusOf(&t.attempts[len(t.attempts)-1]),
			Attributes: []keyValue{attribute("coiled_jobs.function", f.Name), attribute("coiled_jobs.index", index)}})
		if first == 0 || begin < first {
			first = begin
		}
		last = max(last, end)
	}
	if first == 0 {
		return // nothing of it ran
	}
	status := spanStatus{Code: 1}
	if f.Status != task.Succeeded.String() {
		status = spanStatus{2, f.Status}
		if f.Reason != "" {
			status.Message = f.Status + ": " + f.Reason
		}
	}
	b.add(span{SpanID: id, Parent: root, Name: f.Name, Start: nano(first), End: nano(last), Status: status, Attributes: []keyValue{attribute("coiled_jobs.function", f.Name),
		attribute("coiled_jobs.tasks", f.Tasks), attribute("coiled_jobs.tasks_failed", f.Failed), attribute("coiled_jobs.retries", f.Retries)}})
}

func statusOf(o *task.Outcome) spanStatus {
	if o.Status == task.Succeeded {
		return spanStatus{Code: 1}
	}
	return spanStatus{2, o.Message}
}

// flush posts what was collected. Behind an error it does nothing more.
func (b *batch) flush() error {
	if b.err != nil || len(b.spans) == 0 {
		return b.err
	}
	body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
		"resource":   map[string]any{"attributes": []keyValue{attribute("service.name", b.tracer.Service), attribute("service.version", b.tracer.Version)}},
		"scopeSpans": []any{map[string]any{"scope": map[string]any{"name": "coiled-jobs", "version": b.tracer.Version}, "spans": b.spans}},
	}}})
	b.spans = b.spans[:0]
	if err != nil {
		return err
	}
	return b.tracer.post(b.ctx, body)
}

var patientClient = &http.Client{Timeout: 30 * time.Second}

func (t *Tracer) post(ctx context.Context, body []byte) error {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(body) // into memory
	_ = w.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, &z)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	for k, v := range t.Headers {
		req.Header.Set(k, v)
	}
	client := t.Client
	if client == nil {
		client = patientClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // for the message
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s: %s", t.URL, resp.Status, bytes.ToValidUTF8(said, []byte("?")))
	}
	return nil
}
