package planner

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/klauspost/compress/gzip"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// dataError is a mistake in a data file.
type dataError struct {
	line int
	msg  string
}

func (e *dataError) Error() string { return e.msg }

// data is the items of "lines", "csv" and "jsonl".
func (x *expander) data(m *spec.Map, to sink) error {
	path, err := m.Path.Text(x.env)
	if err != nil {
		return x.problem(m.Path.Pos, m.Form, "%v", err)
	}
	if path == "" {
		return x.problem(m.Path.Pos, m.Form, "the path is empty")
	}
	f, err := x.open(m, path)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return x.problem(m.Path.Pos, m.Form, "%s: not gzip data: %v", path, err)
		}
		r = z
	}
	lines := &lineReader{r: bufio.NewReaderSize(r, 256<<10)}
	read := map[spec.Form]func(*lineReader, sink) error{
		spec.FormLines: readLines, spec.FormJSONL: readJSONL,
		spec.FormCSV: func(l *lineReader, to sink) error {
			return readCSV(l, to, func(header []string) error { return x.columns(m, path, header) })
		}}[m.Form]
	err = read(lines, &watched{x: x, next: to})
	var bad *dataError
	var problems spec.Problems
	switch {
	case err == nil, errors.Is(err, errStop), errors.As(err, &problems):
		return err
	case errors.As(err, &bad):
		return x.problem(m.Path.Pos, m.Form, "%s:%d: %s", path, bad.line, bad.msg)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF) && r != io.Reader(f):
		return x.problem(m.Path.Pos, m.Form, "%s:%d: damaged gzip data: %v", path, lines.n+1, err)
	}
	return x.trouble(m.Form, fmt.Errorf("read %s: %w", path, err))
}

// watched ends a long read when the context does.
type watched struct {
	x    *expander
	next sink
	n    int
}

func (w *watched) file(e *fileEntry) error { return w.next.file(e) }

func (w *watched) value(v any) error {
	if w.n++; w.n%4096 == 0 && w.x.ctx.Err() != nil {
		return fmt.Errorf("stopped: %w", w.x.ctx.Err())
	}
	return w.next.value(v)
}

// open opens a data file, which may be an S3 object.
func (x *expander) open(m *spec.Map, path string) (io.ReadCloser, error) {
	pos := m.Path.Pos
	if scheme, _, ok := strings.Cut(path, "://"); ok {
		if scheme != "s3" {
			return nil, x.problem(pos, m.Form, "%s: only files and s3:// can be read, not %s://", path, scheme)
		}
		bucket, key := splitS3(path)
		if bucket == "" || key == "" {
			return nil, x.problem(pos, m.Form, "%s is not s3://bucket/key", path)
		}
		s3, err := x.client()
		if err != nil {
			return nil, x.trouble(m.Form, err)
		}
		f, err := s3.Open(x.ctx, x.location(m, bucket), key)
		if cloud.KindOf(err) == cloud.KindNotFound {
			return nil, x.problem(pos, m.Form, "there is no object %s", path)
		}
		if err != nil {
			return nil, x.trouble(m.Form, err)
		}
		return f, nil
	}
	if strings.IndexByte(path, 0) >= 0 {
		return nil, x.problem(pos, m.Form, "the path has a NUL byte")
	}
	full := path
	if !strings.HasPrefix(path, "/") {
		full = x.dir() + path
	}
	f, err := os.Open(full)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, x.problem(pos, m.Form, "there is no file %s", path)
	case err != nil:
		return nil, x.trouble(m.Form, err)
	}
	if fi, err := f.Stat(); err == nil && fi.IsDir() {
		f.Close()
		return nil, x.problem(pos, m.Form, "%s is a folder; %s reads one file", path, m.Form)
	}
	return f, nil
}

// client is the S3 to use.
func (x *expander) client() (S3, error) {
	if x.s3 == nil {
		if x.in.S3 == nil {
			return nil, errors.New("s3:// is not available here")
		}
		s3, err := x.in.S3()
		if err != nil {
			return nil, err
		}
		x.s3 = s3
	}
	return x.s3, nil
}

func (x *expander) location(m *spec.Map, bucket string) S3Location {
	return S3Location{Bucket: bucket, RequesterPays: m.RequesterPays, Anonymous: m.Anonymous}
}

// splitS3 splits s3://bucket/key.
func splitS3(path string) (bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimPrefix(path, s3Scheme), "/")
	return bucket, key
}

// lineReader reads lines of any length and counts them.
type lineReader struct {
	r   *bufio.Reader
	buf []byte
	n   int // lines read
}

// next is the next line with its end; io.EOF behind the last one. The line is
// valid until the next call. A byte order mark before the first is dropped.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if err == nil && len(l.buf) == 0 {
			l.n++
			return l.unmarked(part), nil
		}
		l.buf = append(l.buf, part...)
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(l.buf) == 0:
			return nil, io.EOF
		case err != nil && err != io.EOF:
			return nil, err
		}
		l.n++
		return l.unmarked(l.buf), nil
	}
}

func (l *lineReader) unmarked(line []byte) []byte {
	if l.n == 1 {
		return bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	return line
}

// trimEnd cuts off the LF or CR LF at the end of a line.
func trimEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
		if n > 1 && line[n-2] == '\r' {
			line = line[:n-2]
		}
	}
	return line
}

func readLines(l *lineReader, to sink) error {
	for {
		line, err := l.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		line = trimEnd(line)
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return &dataError{l.n, "a NUL byte, which no program can be given; is this a text file?"}
		}
		if err := to.value(string(line)); err != nil {
			return err
		}
	}
}

func readJSONL(l *lineReader, to sink) error {
	for {
		line, err := l.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		v, err := value.DecodeOrdered(bytes.TrimSpace(line))
		if err != nil {
			return &dataError{l.n, err.Error()}
		}
		if value.HasNUL(v) {
			return &dataError{l.n, "a NUL character, which no program can be given"}
		}
		if err := to.value(v); err != nil {
			return err
		}
	}
}

// columns finds columns that the function's texts name and the file does not
// have: null would stand there in every task.
func (x *expander) columns(m *spec.Map, path string, header []string) error {
	var problems spec.Problems
	for _, c := range x.fn.Columns {
		if c.Map != m.Pos || slices.Contains(header, c.Name) {
			continue
		}
		near := ""
		if s := spec.Suggest(c.Name, header); s != "" {
			near = fmt.Sprintf(" (did you mean %q?)", s)
		}
		problems = append(problems, spec.Problem{Pos: c.Pos, Message: fmt.Sprintf(
			"functions.%s: %s has no column %q%s; there are %s (write ?. for one that may be missing)", x.fn.Name, path, c.Name, near, strings.Join(header, ", "))})
	}
	problems.Sort()
	return problems.Err()
}

// readCSV reads rows; columns checks the header.
func readCSV(l *lineReader, to sink, columns func([]string) error) error {
	header, _, err := readRecord(l)
	if err == io.EOF {
		return &dataError{1, "the file is empty; the first line must name the columns"}
	}
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(header))
	for i, h := range header {
		switch {
		case strings.TrimSpace(h) == "":
			return &dataError{l.n, fmt.Sprintf("column %d has no name", i+1)}
		case seen[h]:
			return &dataError{l.n, fmt.Sprintf("two columns are named %q", h)}
		}
		seen[h] = true
	}
	if err := columns(header); err != nil {
		return err
	}
	for {
		row, line, err := readRecord(l)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(row) != len(header) {
			return &dataError{line, fmt.Sprintf("%s, but the header has %s", count(len(row), "value"), count(len(header), "column"))}
		}
		vals := make([]any, len(row))
		for i, s := range row {
			if strings.IndexByte(s, 0) >= 0 {
				return &dataError{line, "a NUL byte, which no program can be given; is this a CSV file?"}
			}
			vals[i] = s
		}
		if err := to.value(value.NewObject(header, vals)); err != nil {
			return err
		}
	}
}

// readRecord reads a CSV record and says at which line it starts. It is not
// package encoding/csv because values are data: that one changes CR LF inside
// quotes. Blank lines are skipped; a quote inside an unquoted value is itself.
func readRecord(l *lineReader) (row []string, start int, err error) {
	line, err := l.next()
	for err == nil && len(trimEnd(line)) == 0 {
		line, err = l.next()
	}
	if err != nil {
		return nil, 0, err
	}
	start = l.n
	for {
		if len(line) == 0 || line[0] != '"' {
			rest := trimEnd(line)
			i := bytes.IndexByte(rest, ',')
			if i < 0 {
				return append(row, string(rest)), start, nil
			}
			row = append(row, string(rest[:i]))
			line = line[i+1:]
			continue
		}
		var val []byte
		opened := l.n
		line = line[1:]
		for {
			i := bytes.IndexByte(line, '"')
			if i < 0 {
				val = append(val, line...)
				if line, err = l.next(); err == io.EOF {
					return nil, 0, &dataError{opened, "a quoted value is not closed"}
				} else if err != nil {
					return nil, 0, err
				}
				continue
			}
			val = append(val, line[:i]...)
			line = line[i+1:]
			if len(line) == 0 || line[0] != '"' {
				break
			}
			val = append(val, '"')
			line = line[1:]
		}
		row = append(row, string(val))
		rest := trimEnd(line)
		if len(rest) == 0 {
			return row, start, nil
		}
		if rest[0] != ',' {
			return nil, 0, &dataError{l.n, fmt.Sprintf("text behind the quote that closes value %d; write a quote inside a value twice", len(row))}
		}
		line = line[1:]
	}
}
