package web

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// collects is a collector that reads what it gets by the official definitions.
type collects struct {
	t *testing.T

	mu       sync.Mutex
	requests int
	spans    []*tracepb.Span
	refuse   int // so many requests are refused first
}

func (c *collects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse > 0 {
		c.refuse--
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	c.requests++
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		c.t.Error(err)
		return
	}
	body, err := io.ReadAll(z)
	if err != nil || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Key") != "k" || r.URL.Path != "/v1/traces" {
		c.t.Errorf("%v %s %v", err, r.URL, r.Header)
	}
	// The JSON of OTLP is that of protobuf but for ids, which are hexadecimal.
	var any map[string]any
	if err := json.Unmarshal(body, &any); err != nil {
		c.t.Error(err)
	}
	ids(c.t, any)
	body, _ = json.Marshal(any)
	var req collector.ExportTraceServiceRequest
	if err := protojson.Unmarshal(body, &req); err != nil {
		c.t.Errorf("%v\n%.500s", err, body)
	}
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
}

func ids(t *testing.T, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if k == "traceId" || k == "spanId" || k == "parentSpanId" {
				b, err := hex.DecodeString(x.(string))
				if want := map[string]int{"traceId": 16, "spanId": 8, "parentSpanId": 8}[k]; err != nil || len(b) != want {
					t.Errorf("%s %v", k, x)
				}
				v[k] = base64.StdEncoding.EncodeToString(b)
				continue
			}
			ids(t, x)
		}
	case []any:
		for _, x := range v {
			ids(t, x)
		}
	}
}

func TestTraceOfAFunction(t *testing.T) {
	t.Parallel()
	c := &collects{t: t}
	server := httptest.NewServer(c)
	defer server.Close()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()
	tasks := map[int]*traced{}
	for i := range 1500 {
		tasks[i] = &traced{attempts: []task.Outcome{{Index: i, Attempt: 1, Status: task.Succeeded, Started: at + int64(i), Seconds: 1}}}
	}
	tasks[7].attempts = []task.Outcome{
		{Index: 7, Attempt: 1, Status: task.Failed, Cause: task.CauseExit, Exit: 3, Started: at - 5e9, Seconds: 2, Message: "exit code 3 <b>", Machine: "i-1"},
		{Index: 7, Attempt: 2, Status: task.Succeeded, Started: at, Seconds: 4},
	}
	tasks[8] = &traced{} // chosen, and its attempts are not recorded
	tr := &Tracer{URL: server.URL + "/v1/traces", Headers: map[string]string{"X-Key": "k"}, Service: "coiled-jobs", Version: "v1"}
	b := &batch{tracer: tr, ctx: t.Context(), trace: idOf(16, "trace", "r")}
	b.function(idOf(8, "root"), executor.FunctionReport{Name: "clean", Status: "succeeded", Tasks: 1500}, tasks)
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	byID, byName := map[string]*tracepb.Span{}, map[string]*tracepb.Span{}
	for _, s := range c.spans {
		if byID[string(s.SpanId)] != nil {
			t.Errorf("two spans have the id of %s", s.Name)
		}
		byID[string(s.SpanId)], byName[s.Name] = s, s
	}
	if want := 1 + 1499 + 1500; len(c.spans) != want || c.requests != 3 {
		t.Errorf("%d spans in %d requests, want %d in 3", len(c.spans), c.requests, want)
	}
	fn, one, first, second := byName["clean"], byName["clean/7"], byName["clean/7 attempt 1"], byName["clean/7 attempt 2"]
	if fn == nil || one == nil || first == nil || second == nil {
		t.Fatal("spans are missing")
	}
	if byID[string(first.ParentSpanId)] != one || byID[string(second.ParentSpanId)] != one || byID[string(one.ParentSpanId)] != fn {
		t.Error("attempts belong to their task, that to its function")
	}
	if first.Status.Code != tracepb.Status_STATUS_CODE_ERROR || first.Status.Message != "exit code 3 <b>" || one.Status.Code != tracepb.Status_STATUS_CODE_OK {
		t.Errorf("%v, %v", first.Status, one.Status)
	}
	if one.StartTimeUnixNano != uint64(at-5e9) || one.EndTimeUnixNano != uint64(at+4e9) || fn.StartTimeUnixNano != one.StartTimeUnixNano || fn.EndTimeUnixNano != one.EndTimeUnixNano {
		t.Errorf("%v\n%v", one, fn)
	}
}

func TestTracerTellsTroubleOnce(t *testing.T) {
	t.Parallel()
	var told []string
	tr := &Tracer{Tell: func(s string) { told = append(told, s) }}
	for _, err := range []error{io.EOF, io.EOF, nil, io.EOF, io.ErrClosedPipe} {
		tr.say(err)
	}
	if got := strings.Join(told, "|"); got != "EOF|EOF|io: read/write on closed pipe" {
		t.Error(got)
	}
	server := httptest.NewServer(&collects{t: t, refuse: 1})
	defer server.Close()
	tr = &Tracer{URL: server.URL + "/v1/traces"}
	if err := tr.post(t.Context(), []byte("{}")); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "not now") {
		t.Errorf("%v", err)
	}
}
