package machine

import (
	"io"
	"sync"
)

// Tail passes on what is written to it and remembers the end of it: a log.
type Tail struct {
	w io.Writer
	n int

	mu  sync.Mutex
	buf []byte
}

// NewTail makes a Tail of the last n bytes.
func NewTail(w io.Writer, n int) *Tail { return &Tail{w: w, n: n} }

// Write passes p on, and keeps the end of it.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.n {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.n:]...)
	}
	return t.w.Write(p)
}

// Bytes is the end of what was written.
func (t *Tail) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.buf[max(0, len(t.buf)-t.n):]...)
}
