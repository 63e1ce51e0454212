//go:build unix

package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/agent/python"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// maxWorkers is how many warm interpreters a slot keeps: that of the function
// it works on and of the one before, which often alternate.
const maxWorkers = 2

// Kinds of replies, as in worker.py.
const (
	replyOK = iota
	replyRaised
	replyExited
	replyBadResult
	replyNoMemory
	replyHello = 9
)

const recordSize = 56

// record is what a worker says about one call.
type record struct {
	seq, kind, code     int
	started, took       int64 // ns
	logEnd, peak        int64
	result, msg, stderr []byte
}

// worker is a warm interpreter. It belongs to its slot.
type worker struct {
	s    *slot
	fn   *function
	cell int // in the table of process groups
	ch   *child
	dir  string

	req, notify int
	replies     *os.File
	replyAt     int64
	replyBuf    []byte

	log    *os.File // standard output and error of the interpreter
	logKey string   // "": a private file, from where output is copied
	logEnd int64    // what lies before belongs to earlier calls
	copied int64    // of the private file
	mask   masker

	ready   bool // it has said hello
	helloAt int64
	path    string
	seq     int
	baseRSS int64
	rssAt   time.Time
}

// startWorker starts an interpreter for a function.
func (s *slot) startWorker(fn *function, j *job, n int) (w *worker, err error) {
	bin := fn.f.Python.Bin
	if bin == "" {
		bin = "python3"
	}
	w = &worker{s: s, fn: fn, cell: s.freeCell(), req: -1, notify: -1,
		dir: filepath.Join(s.dir, "w"+strconv.Itoa(n)), mask: masker{set: s.a.secrets}}
	defer func() {
		if err != nil {
			w.stop()
			w = nil
		}
	}()
	if w.path, err = fn.program(bin, s.pathOf(j)); err != nil {
		return w, err
	}
	tmp := filepath.Join(w.dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return w, fmt.Errorf("make the scratch folder: %w", err)
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, tmp, []unix.Timespec{untouched, untouched}, 0); err != nil {
		return w, fmt.Errorf("make the temporary folder: %w", err)
	}
	script := filepath.Join(s.dir, "worker.py")
	if _, err := os.Lstat(script); err != nil {
		if err := os.WriteFile(script, python.Worker, 0o600); err != nil {
			return w, fmt.Errorf("write the Python worker: %w", err)
		}
	}
	if err := w.openFiles(n); err != nil {
		return w, err
	}
	var req, notify [2]int
	if err := pipe(&req); err != nil {
		return w, fmt.Errorf("make a pipe: %w", err)
	}
	w.req = req[1]
	defer func() { _ = unix.Close(req[0]) }()
	if err := pipe(&notify); err != nil {
		return w, fmt.Errorf("make a pipe: %w", err)
	}
	w.notify = notify[0]
	defer func() { _ = unix.Close(notify[1]) }()

	env := append(fn.fixed,
		"COILED_JOBS_ITEM_FILE="+filepath.Join(w.dir, "item.json"),
		"COILED_JOBS_RESULT="+filepath.Join(w.dir, "result"))
	if !fn.tmpGiven {
		env = append(env, "TMPDIR="+tmp)
	}
	log := w.log.Fd()
	cmd := &command{path: w.path, argv: []string{bin, script}, dir: s.a.run.Dir, env: env,
		files: []uintptr{s.null.Fd(), log, log, uintptr(req[0]), uintptr(notify[1]), w.replies.Fd()}}
	if w.ch, err = s.start(j, cmd); err != nil {
		return w, err
	}
	s.a.groups.Set(w.cell, w.ch.pid)
	if err := errors.Join(unix.SetNonblock(w.req, true), unix.SetNonblock(w.notify, true)); err != nil {
		return w, err
	}
	hello := value.NewObject(
		[]string{"target", "module", "func", "dir", "tmp", "result", "item_file", "mapped"},
		[]any{fn.f.Python.Target, fn.f.Python.Module, fn.f.Python.Func, s.a.run.Dir, tmp,
			filepath.Join(w.dir, "result"), filepath.Join(w.dir, "item.json"), fn.f.Map != nil})
	return w, w.send(value.JSON(hello), nil)
}

// openFiles opens the log and the replies.
func (w *worker) openFiles(n int) (err error) {
	a := w.s.a
	if ap, ok := a.run.Store.(appender); ok && len(a.secrets) == 0 {
		// The interpreter writes straight into the stored object.
		w.logKey = fmt.Sprintf("%s/logs/%s-%d-py%d", a.run.Prefix, a.session, w.s.n, n)
		w.log, err = ap.OpenAppend(w.logKey)
	} else {
		w.log, err = os.OpenFile(filepath.Join(w.dir, "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	}
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	w.replies, err = os.OpenFile(filepath.Join(w.dir, "replies"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make the file for replies: %w", err)
	}
	return nil
}

var errGone = errors.New("the interpreter is gone")

// send writes a frame; it waits until the worker reads it.
func (w *worker) send(doc []byte, cancelled func() bool) error {
	frame := make([]byte, 4, 4+len(doc))
	binary.LittleEndian.PutUint32(frame, uint32(len(doc)))
	frame = append(frame, doc...)
	fds := []unix.PollFd{
		{Fd: int32(w.req), Events: unix.POLLOUT},
		{Fd: int32(w.ch.exit), Events: unix.POLLIN},
		{Fd: int32(w.s.a.cancelR), Events: unix.POLLIN},
	}
	for len(frame) > 0 {
		n, err := unix.Write(w.req, frame)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			poll(fds, time.Time{})
			if fds[1].Revents != 0 || fds[2].Revents != 0 && cancelled != nil && cancelled() {
				return errGone
			}
			if fds[2].Revents != 0 {
				fds[2].Fd = -1
			}
		case err != nil:
			return errGone
		default:
			frame = frame[n:]
		}
	}
	return nil
}

// appendCall adds a call to a frame.
func (w *worker) appendCall(b []byte, j *job) []byte {
	w.seq++
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(w.seq), 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, int64(j.index), 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, int64(j.attempt), 10)
	b = append(b, ',')
	b = value.AppendString(b, string(j.itemJSON))
	b = append(b, ',')
	if j.args == nil {
		b = append(b, "null"...)
	} else {
		b = value.Append(b, j.args)
	}
	b = append(b, ',')
	if j.kw == nil || j.kw.Len() == 0 {
		b = append(b, "null,"...)
	} else {
		b = append(value.Append(b, j.kw), ',')
	}
	if len(j.vars) == 0 {
		b = append(b, "null"...)
	} else {
		o := &value.Object{}
		for _, kv := range j.vars {
			name, v, _ := strings.Cut(kv, "=")
			o.Set(name, v)
		}
		b = value.Append(b, o)
	}
	return append(b, ']')
}

// collect reads the replies that are there.
func (w *worker) collect(fn func(*record)) error {
	for {
		const step = 64 << 10
		if cap(w.replyBuf)-len(w.replyBuf) < step {
			w.replyBuf = append(make([]byte, 0, 2*len(w.replyBuf)+2*step), w.replyBuf...)
		}
		n, err := w.replies.ReadAt(w.replyBuf[len(w.replyBuf):cap(w.replyBuf)], w.replyAt)
		w.replyBuf = w.replyBuf[:len(w.replyBuf)+n]
		w.replyAt += int64(n)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read replies of the interpreter: %w", err)
		}
		b := w.replyBuf
		for len(b) >= recordSize {
			size := int(binary.LittleEndian.Uint32(b))
			if size < recordSize+4 {
				return errors.New("the interpreter sent a malformed reply")
			}
			if len(b) < size {
				break
			}
			r, err := parseRecord(b[:size])
			if err != nil {
				return err
			}
			b = b[size:]
			if r.kind == replyHello {
				w.ready = true
				w.logEnd, w.helloAt = r.logEnd, r.started
				continue
			}
			fn(r)
		}
		w.replyBuf = w.replyBuf[:copy(w.replyBuf[:cap(w.replyBuf)], b)]
		if err == io.EOF {
			return nil
		}
	}
}

func parseRecord(b []byte) (*record, error) {
	le := binary.LittleEndian
	r := &record{seq: int(le.Uint32(b[4:])), kind: int(int32(le.Uint32(b[8:]))), code: int(int32(le.Uint32(b[12:]))),
		started: int64(le.Uint64(b[16:])), took: int64(le.Uint64(b[24:])), logEnd: int64(le.Uint64(b[32:])),
		peak: int64(le.Uint64(b[40:]))}
	body, n := b[recordSize:], int(le.Uint32(b[48:]))
	if n+4 > len(body) {
		return nil, errors.New("the interpreter sent a malformed reply")
	}
	r.result, body = body[:n], body[n:]
	n, body = int(le.Uint32(body)), body[4:]
	if n > len(body) {
		return nil, errors.New("the interpreter sent a malformed reply")
	}
	r.msg, r.stderr = body[:n], body[n:]
	return r, nil
}

// begin says where the output of the next call goes.
func (w *worker) begin() task.Span {
	if w.logKey != "" {
		return task.Span{Key: w.logKey, Off: w.logEnd}
	}
	return w.s.pack.begin()
}

// end is where the output of a call lies that ended at this size of the log.
func (w *worker) end(logEnd int64) task.Span {
	if w.logKey == "" {
		w.follow(logEnd)
		w.s.pack.write(w.mask.flush())
		w.logEnd = logEnd
		return w.s.pack.end()
	}
	span := task.Span{Key: w.logKey, Off: w.logEnd, Len: logEnd - w.logEnd}
	w.logEnd = logEnd
	if span.Len <= 0 {
		return task.Span{}
	}
	return span
}

// follow copies what the interpreter has written to its private log; end < 0
// is everything.
func (w *worker) follow(end int64) {
	if w.logKey != "" {
		return
	}
	for end < 0 || w.copied < end {
		buf := w.s.buf
		if end >= 0 && end-w.copied < int64(len(buf)) {
			buf = buf[:end-w.copied]
		}
		n, err := w.log.ReadAt(buf, w.copied)
		w.copied += int64(n)
		w.s.pack.write(w.mask.write(buf[:n]))
		if err != nil {
			return
		}
	}
}

func (w *worker) logSize() int64 {
	info, err := w.log.Stat()
	if err != nil {
		return w.logEnd
	}
	return info.Size()
}

// logTail is the last output before this size of the log.
func (w *worker) logTail(from, end int64) []byte {
	if end-from > tailSize {
		from = end - tailSize
	}
	if end <= from {
		return nil
	}
	b := make([]byte, end-from)
	if w.logKey == "" {
		n, _ := w.log.ReadAt(b, from)
		return w.s.a.secrets.mask(b[:n])
	}
	// The stored object is open for writing only.
	f, err := os.Open(fmt.Sprintf("/dev/fd/%d", w.log.Fd()))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	n, _ := f.ReadAt(b, from)
	return b[:n]
}

// rest gives back space between batches.
func (w *worker) rest() {
	const large = 1 << 20
	if w.replyAt > large && len(w.replyBuf) == 0 {
		if w.replies.Truncate(0) == nil {
			w.replyAt = 0
		}
		if cap(w.replyBuf) > large {
			w.replyBuf = nil
		}
	}
	if w.logKey == "" && w.copied > large && w.copied == w.logSize() && w.log.Truncate(0) == nil {
		w.copied, w.logEnd = 0, 0
	}
}

// bloated says whether the interpreter should be replaced: its memory has
// grown by a lot, and by half of what it had after its first calls.
func (w *worker) bloated() bool {
	if time.Since(w.rssAt) < 200*time.Millisecond {
		return false
	}
	w.rssAt = time.Now()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(w.ch.pid) + "/statm")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 2 {
		return false
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	rss := pages * int64(os.Getpagesize())
	if w.baseRSS == 0 {
		w.baseRSS = rss
	}
	return rss > w.baseRSS+w.s.a.leak && rss > w.baseRSS*3/2
}

// stop ends the interpreter and removes its files.
func (w *worker) stop() {
	if w.ch != nil {
		w.ch.finish()
		w.ch = nil
		w.s.a.groups.Set(w.cell, 0)
	}
	w.closeFiles()
}

func (w *worker) closeFiles() {
	closeFD(&w.req)
	closeFD(&w.notify)
	for _, f := range []*os.File{w.log, w.replies} {
		if f != nil {
			_ = f.Close()
		}
	}
	w.log, w.replies = nil, nil
	removeAll(w.dir)
}
