package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// stream is an answer of server-sent events.
type stream struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	gone  bool
}

// aliveEvery is how often a stream says that it is there: a connection that
// broke is noticed, and no proxy in between gives up.
const aliveEvery = 15 * time.Second

func newStream(w http.ResponseWriter) *stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	s := &stream{w: w, flush: http.NewResponseController(w)}
	// So that the other side knows at once that it is connected.
	_, err := fmt.Fprint(w, ": connected\n\n")
	s.gone = err != nil || s.flush.Flush() != nil
	return s
}

// eventOf is an event as it is sent.
func eventOf(event string, data []byte) []byte {
	data = bytes.ReplaceAll(data, []byte("\r"), nil) // that would be a line's end, too
	b := bytes.NewBuffer(make([]byte, 0, len(event)+len(data)+7*bytes.Count(data, []byte("\n"))+32))
	fmt.Fprintf(b, "event: %s\n", event)
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		b.WriteString("data: ")
		b.Write(line)
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// send adds an event, raw one that eventOf made; push sends what was added.
func (s *stream) send(event string, data []byte) { s.raw(eventOf(event, data)) }

func (s *stream) raw(event []byte) {
	if !s.gone {
		_, err := s.w.Write(event)
		s.gone = err != nil
	}
}

func (s *stream) push() {
	s.gone = s.gone || s.flush.Flush() != nil
}

func (s *stream) alive() {
	if !s.gone {
		_, err := fmt.Fprint(s.w, ": alive\n\n")
		s.gone = err != nil
		s.push()
	}
}

// runEvents tells a page of a run what changes: "live" is the part of the
// page that does, "grid" the tasks that changed state, "end" the end.
func (s *Server) runEvents(w http.ResponseWriter, r *http.Request, run *watched) error {
	defer run.watch(r.Context())()
	out := newStream(w)
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	sent, grid := 0, -1
	var last []byte
	for !out.gone {
		_, report, version, changed := run.now()
		if version != sent {
			live, err := s.liveEvent(r.Context(), run, version)
			if err != nil {
				return nil // the store is away; what comes next is tried again
			}
			if !bytes.Equal(live, last) {
				out.raw(live)
				last = live
			}
			if grid < 0 { // who has a grid that is older asks for it again
				grid = version
				out.send("hello", strconv.AppendInt(nil, int64(version), 10))
			}
			list, ok := run.since(grid)
			if !ok {
				out.send("regrid", nil)
			}
			for _, d := range list {
				out.raw(d.event)
			}
			sent, grid = version, version
			if report.Status.Final() {
				out.send("end", nil)
				out.push()
				return nil
			}
			out.push()
		}
		select {
		case <-changed:
		case <-alive.C:
			out.alive()
		case <-r.Context().Done():
			return nil
		}
	}
	return nil
}

// followed sends a part of a page whenever it is not what was sent before:
// make gives it as an event.
func (s *Server) followed(w http.ResponseWriter, r *http.Request, make func() (event []byte, changed <-chan struct{}, err error)) error {
	out := newStream(w)
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	var last []byte
	for !out.gone {
		event, changed, err := make()
		if err == nil && !bytes.Equal(event, last) {
			out.raw(event)
			out.push()
			last = event
		}
		select {
		case <-changed:
		case <-alive.C:
			out.alive()
		case <-r.Context().Done():
			return nil
		}
	}
	return nil
}

// jsonText is a text as JSON, to be sent in a line.
func jsonText(s string) []byte {
	b, _ := json.Marshal(s) // a text is always valid
	return b
}
