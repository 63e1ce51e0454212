package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

const (
	packBuffer = 256 << 10 // what a pack holds in memory at most
	packSize   = 64 << 20  // a pack is ended after the task that exceeds this
)

// appender is what a store may offer for logs: an object that grows and can be
// read while it does. Other stores get whole objects.
type appender interface {
	OpenAppend(key string) (*os.File, error)
}

// pack writes the output of tasks, one after the other, into stored objects:
// a task's output is one span. It belongs to one goroutine.
type pack struct {
	store   cloud.Store
	prefix  string // of keys; a number follows
	scratch string // folder for objects that cannot grow in the store

	n     int
	key   string
	file  *os.File
	live  bool  // file is the object itself
	size  int64 // in the object, with buf
	buf   []byte
	start int64 // where the current task's output begins
	open  bool  // a task is writing
	err   error // the first error; nothing is written after it

	grows bool // stored objects can grow
	copy  liveLog
}

func newPack(store cloud.Store, prefix, scratch string) *pack {
	p := &pack{store: store, prefix: prefix, scratch: scratch, copy: liveLog{store: store}}
	_, p.grows = store.(appender)
	p.key = p.name()
	return p
}

func (p *pack) name() string { return fmt.Sprintf("%s-%d", p.prefix, p.n) }

// begin starts the output of a task and says where it can be seen while the
// task runs.
func (p *pack) begin() task.Span {
	p.start, p.open = p.size, true
	s := task.Span{Key: p.key, Off: p.start}
	if !p.grows {
		return p.copy.begin(s)
	}
	return s
}

// unseen says that the running task has written what nobody can see yet.
func (p *pack) unseen() bool {
	return p.open && !p.grows && p.err == nil && p.copy.wants(p.size-p.start)
}

// show makes that visible, if it is time.
func (p *pack) show(ctx context.Context, now time.Time) {
	if now.Before(p.copy.due) {
		return
	}
	p.spill(p.buf)
	p.buf = p.buf[:0]
	if p.err == nil {
		p.copy.show(ctx, now, p.file, p.start, p.size-p.start)
	}
}

// end ends the output of the task; the span is zero if there was none.
func (p *pack) end() task.Span {
	p.open = false
	if !p.grows {
		p.copy.end()
	}
	s := task.Span{Key: p.key, Off: p.start, Len: p.size - p.start}
	if s.Len == 0 {
		return task.Span{}
	}
	return s
}

func (p *pack) write(b []byte) {
	if len(b) == 0 || p.err != nil {
		return
	}
	p.size += int64(len(b))
	if len(p.buf)+len(b) > packBuffer {
		p.spill(p.buf)
		p.buf = p.buf[:0]
		if len(b) > packBuffer/2 {
			p.spill(b)
			return
		}
	}
	p.buf = append(p.buf, b...)
}

// spill writes to the file behind the pack.
func (p *pack) spill(b []byte) {
	if len(b) == 0 || p.err != nil {
		return
	}
	if p.file == nil {
		if p.err = p.create(); p.err != nil {
			return
		}
	}
	if _, err := p.file.Write(b); err != nil {
		p.err = p.failed(err)
	}
}

// failed says what went wrong with the log's file. A store that gave out the
// file itself can tell more, for instance which disk is full.
func (p *pack) failed(err error) error {
	if e, ok := p.store.(interface {
		Explain(op, key string, err error) error
	}); ok {
		return e.Explain("write log", p.key, err)
	}
	return fmt.Errorf("write log %s: %w", p.key, err)
}

func (p *pack) create() (err error) {
	if a, ok := p.store.(appender); ok {
		p.live = true
		p.file, err = a.OpenAppend(p.key)
		return err
	}
	p.live = false
	name := filepath.Join(p.scratch, "log")
	p.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err == nil {
		err = os.Remove(name) // the open file is all we need
	}
	return err
}

// flush makes everything that finished tasks wrote readable, and what the
// current one wrote if the store can. In a store whose objects cannot grow it
// ends the object, and the output of the current task moves to the next one:
// its span is not known to anybody yet.
func (p *pack) flush(ctx context.Context) error {
	if len(p.buf) > 0 {
		p.spill(p.buf)
		p.buf = p.buf[:0]
	}
	switch {
	case p.err != nil || p.file == nil:
	case p.live:
		if p.size > packSize && !p.open {
			p.next()
		}
	case !p.open:
		p.put(ctx, p.size)
		p.next()
	case p.start > 0:
		p.put(ctx, p.start)
		p.move()
	}
	return p.err
}

func (p *pack) put(ctx context.Context, n int64) {
	if p.err == nil {
		p.err = p.store.PutFrom(ctx, p.key, io.NewSectionReader(p.file, 0, n))
	}
}

// move starts the next object with the output of the current task.
func (p *pack) move() {
	old, rest := p.file, io.NewSectionReader(p.file, p.start, p.size-p.start)
	size := p.size - p.start
	p.file = nil
	p.next()
	p.size, p.start = size, 0
	if p.err == nil && size > 0 {
		if p.err = p.create(); p.err == nil {
			_, p.err = io.Copy(p.file, rest)
		}
	}
	if err := old.Close(); p.err == nil {
		p.err = err
	}
}

// next closes the object; what follows goes to another one.
func (p *pack) next() {
	if p.file != nil {
		if err := p.file.Close(); p.err == nil && err != nil {
			p.err = p.failed(err)
		}
		p.file = nil
	}
	p.n++
	p.size = 0
	p.key = p.name()
}

// close ends the pack after everything in it is stored.
func (p *pack) close(ctx context.Context) error {
	p.open = false
	err := p.flush(ctx)
	if p.file != nil {
		p.next()
	}
	p.copy.close()
	return err
}

// spool keeps what a task prints when that is its result: in memory while it
// is small, then in a file.
type spool struct {
	dir  string
	buf  []byte
	file *os.File
	size int64
	err  error
}

const (
	spoolMemory = 1 << 20
	maxResult   = 1 << 30
)

func (s *spool) reset() {
	s.buf, s.size, s.err = s.buf[:0], 0, nil
	if s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.file.Name())
		s.file = nil
	}
}

func (s *spool) write(b []byte) {
	s.size += int64(len(b))
	if s.err != nil || s.size > maxResult {
		return
	}
	if s.file == nil && len(s.buf)+len(b) <= spoolMemory {
		s.buf = append(s.buf, b...)
		return
	}
	if s.file == nil {
		s.file, s.err = os.OpenFile(filepath.Join(s.dir, "stdout"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if s.err != nil {
			return
		}
		_, s.err = s.file.Write(s.buf)
		s.buf = s.buf[:0]
	}
	if s.err == nil {
		_, s.err = s.file.Write(b)
	}
}

// bytes is everything that was written.
func (s *spool) bytes() ([]byte, error) {
	if s.err != nil || s.file == nil {
		return s.buf, s.err
	}
	b := make([]byte, s.size)
	_, err := s.file.ReadAt(b, 0)
	return b, err
}

// tail remembers the last bytes of a stream.
type tail struct{ buf []byte }

const tailSize = 4 << 10

func (t *tail) write(b []byte) {
	if len(b) >= tailSize {
		t.buf = append(t.buf[:0], b[len(b)-tailSize:]...)
		return
	}
	if over := len(t.buf) + len(b) - 2*tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	t.buf = append(t.buf, b...)
}

func (t *tail) bytes() []byte {
	if len(t.buf) > tailSize {
		return t.buf[len(t.buf)-tailSize:]
	}
	return t.buf
}
