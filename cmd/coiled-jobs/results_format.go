package main

import (
	"bufio"
	"encoding/base64"
	"encoding/csv"
	"math"
	"strconv"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/ui"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// sink writes rows in one of the formats of results.
type sink interface {
	begin() error
	row(*row) error
	end() error
}

func newSink(format string, w *bufio.Writer, a *app) sink {
	switch format {
	case "jsonl":
		return &jsonSink{w: w}
	case "csv":
		return &csvSink{w: csv.NewWriter(w)}
	case "table":
		return &tableSink{w: w, app: a}
	}
	return &jsonSink{w: w, array: true}
}

// jsonSink writes an array, or lines.
type jsonSink struct {
	w     *bufio.Writer
	array bool
	n     int
	buf   []byte
}

func (s *jsonSink) begin() error {
	if !s.array {
		return nil
	}
	return s.w.WriteByte('[')
}

func (s *jsonSink) row(r *row) error {
	s.buf = s.buf[:0]
	switch {
	case s.array && s.n > 0:
		s.buf = append(s.buf, ",\n"...)
	case s.array:
		s.buf = append(s.buf, '\n')
	}
	s.n++
	s.buf = appendRow(s.buf, r)
	if !s.array {
		s.buf = append(s.buf, '\n')
	}
	_, err := s.w.Write(s.buf)
	return err
}

func (s *jsonSink) end() error {
	end := "]\n"
	switch {
	case !s.array:
		return nil
	case s.n > 0:
		end = "\n]\n"
	}
	_, err := s.w.WriteString(end)
	return err
}

// appendRow appends the JSON of a row. Keys are always the same, in this
// order; item_base64 comes with items that JSON cannot hold as they are, and
// cost_usd where machines were rented.
func appendRow(b []byte, r *row) []byte {
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, int64(r.Index), 10)
	b = append(b, `,"item":`...)
	if r.hasItem {
		b = value.Append(b, r.item)
		if raw, ok := planner.RawItem(r.item); ok {
			b = append(b, `,"item_base64":"`...)
			b = base64.StdEncoding.AppendEncode(b, raw)
			b = append(b, '"')
		}
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"status":"`...)
	b = append(b, r.Status.String()...)
	b = append(b, `","result":`...)
	if len(r.result) == 0 {
		b = append(b, "null"...)
	} else {
		b = append(b, r.result...)
	}
	b = append(b, `,"attempts":`...)
	b = strconv.AppendInt(b, int64(r.Attempts), 10)
	b = append(b, `,"cause":`...)
	if c := r.Cause.String(); c == "" {
		b = append(b, "null"...)
	} else {
		b = append(append(append(b, '"'), c...), '"')
	}
	b = append(b, `,"seconds":`...)
	b = append(b, seconds(r.Seconds)...)
	if r.paid {
		b = append(b, `,"cost_usd":`...)
		b = append(b, strconv.FormatFloat(math.Round(r.cost*1e8)/1e8, 'f', -1, 64)...)
	}
	return append(b, '}')
}

// seconds is a duration to the microsecond.
func seconds(s float64) string { return strconv.FormatFloat(math.Round(s*1e6)/1e6, 'f', -1, 64) }

// csvSink writes CSV. Items and results that are text stand as they are,
// everything else as compact JSON.
type csvSink struct{ w *csv.Writer }

func (s *csvSink) begin() error {
	return s.w.Write([]string{"index", "item", "status", "attempts", "cause", "seconds", "result"})
}

func (s *csvSink) row(r *row) error {
	item := ""
	if r.hasItem {
		item = value.Text(r.item)
	}
	return s.w.Write([]string{strconv.Itoa(r.Index), item, r.Status.String(), strconv.Itoa(r.Attempts), r.Cause.String(),
		seconds(r.Seconds), resultText(r.result)})
}

func (s *csvSink) end() error {
	s.w.Flush()
	return s.w.Error()
}

// resultText is a result for people and cells: text as it is, null as nothing.
func resultText(result []byte) string {
	switch {
	case len(result) == 0 || string(result) == "null":
		return ""
	case result[0] == '"':
		if v, err := value.Decode(result); err == nil {
			return value.Text(v)
		}
	}
	return string(result)
}

// tableSink writes a table. It looks at the first rows to choose its widths
// and then streams.
type tableSink struct {
	w     *bufio.Writer
	app   *app
	first []tableRow
	wide  [4]int // index, item, status, time
	total int    // columns of the terminal; 0: no terminal
	ready bool
	items bool // there are items: the function is mapped
}

type tableRow struct{ index, item, status, time, result string }

// tableLook is how many rows decide about widths, maxItem the widest item.
const (
	tableLook = 200
	maxItem   = 40
)

func (s *tableSink) begin() error {
	s.total = width(s.app.stdout)
	s.first = append(s.first, tableRow{"INDEX", "ITEM", "STATUS", "TIME", "RESULT"})
	return nil
}

func (s *tableSink) row(r *row) error {
	t := tableRow{index: strconv.Itoa(r.Index), status: r.Status.String(), time: ui.Seconds(r.Seconds)}
	if r.hasItem {
		s.items = true
		t.item = ui.Clean(clip(value.Text(r.item)))
	}
	if c := r.Cause.String(); c != "" {
		t.status += " (" + c + ")"
	}
	if r.Attempts == 0 {
		t.time = "-"
	}
	t.result = ui.Clean(clip(resultText(r.result)))
	if s.ready {
		return s.write(t, false)
	}
	if s.first = append(s.first, t); len(s.first) > tableLook {
		return s.start()
	}
	return nil
}

func (s *tableSink) start() error {
	s.ready = true
	for _, t := range s.first {
		for i, cell := range []string{t.index, t.item, t.status, t.time} {
			s.wide[i] = max(s.wide[i], ui.Width(cell))
		}
	}
	s.wide[1] = min(s.wide[1], maxItem)
	for i, t := range s.first {
		if err := s.write(t, i == 0); err != nil {
			return err
		}
	}
	s.first = nil
	return nil
}

func (s *tableSink) write(t tableRow, head bool) error {
	st := s.app.style(s.app.stdout)
	status := pad(t.status, s.wide[2])
	if !head {
		name, _, _ := strings.Cut(t.status, " ")
		status = st.Status(name, status)
	}
	line := left(t.index, s.wide[0]) + "  "
	if s.items {
		line += pad(ui.Truncate(t.item, s.wide[1]), s.wide[1]) + "  "
	}
	line += status + "  " + left(t.time, s.wide[3]) + "  " + t.result
	line = strings.TrimRight(line, " ")
	if s.total > 0 {
		line = ui.Truncate(line, s.total)
	}
	if head {
		line = st.Dim(line)
	}
	_, err := s.w.WriteString(line + "\n")
	return err
}

func (s *tableSink) end() error {
	if !s.ready {
		return s.start()
	}
	return nil
}

// clip bounds what is cleaned for a cell that shows a line at most.
func clip(s string) string {
	if len(s) > 4096 {
		return s[:4096]
	}
	return s
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(n-ui.Width(s), 0)) }

func left(s string, n int) string { return strings.Repeat(" ", max(n-ui.Width(s), 0)) + s }
