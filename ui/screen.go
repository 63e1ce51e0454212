package ui

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// Screen keeps a few lines at the bottom of a terminal up to date while other
// text scrolls by above them. It changes no terminal mode and hides nothing,
// so that a program that is killed leaves a usable terminal behind. Safe for
// concurrent use.
type Screen struct {
	w    io.Writer
	size func() (width, height int)

	mu    sync.Mutex
	lines []string // drawn now
	part  []byte   // the begin of a line given to Write
	ended bool
}

// NewScreen draws on w, a terminal whose size is asked for at every draw.
func NewScreen(w io.Writer, size func() (width, height int)) *Screen {
	return &Screen{w: w, size: size}
}

// Draw replaces the lines at the bottom.
func (s *Screen) Draw(lines []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	var b bytes.Buffer
	s.up(&b)
	s.paint(&b, lines)
	_, err := s.w.Write(b.Bytes())
	return err
}

// Print writes lines above. Text must be clean.
func (s *Screen) Print(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.print([]byte(text + "\n"))
}

// Write prints whole lines above and keeps the rest until it is a line.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part = append(s.part, p...)
	i := bytes.LastIndexByte(s.part, '\n')
	if i < 0 {
		return len(p), nil
	}
	err := s.print(s.part[:i+1])
	s.part = append([]byte(nil), s.part[i+1:]...)
	return len(p), err
}

func (s *Screen) print(text []byte) error {
	if s.ended {
		_, err := s.w.Write(text)
		return err
	}
	var b bytes.Buffer
	s.up(&b)
	if len(s.lines) > 0 {
		b.WriteString("\x1b[J")
	}
	b.Write(text)
	lines := s.lines
	s.lines = nil
	s.paint(&b, lines)
	_, err := s.w.Write(b.Bytes())
	return err
}

// End removes the lines at the bottom; what is written later just scrolls.
func (s *Screen) End() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	var b bytes.Buffer
	s.up(&b)
	if len(s.lines) > 0 {
		b.WriteString("\x1b[J")
	}
	s.lines, s.ended = nil, true
	if len(s.part) > 0 {
		b.Write(s.part)
		b.WriteByte('\n')
		s.part = nil
	}
	_, err := s.w.Write(b.Bytes())
	return err
}

// up moves the cursor to the start of what is drawn. A terminal that has
// become narrower since has wrapped lines: they count as often as they wrap.
func (s *Screen) up(b *bytes.Buffer) {
	width, height := s.size()
	rows := 0
	for _, line := range s.lines {
		rows++
		if width > 0 {
			rows += max(Width(line)-1, 0) / width
		}
	}
	if height > 1 {
		rows = min(rows, height-1)
	}
	if rows > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r", rows)
	}
}

func (s *Screen) paint(b *bytes.Buffer, lines []string) {
	for _, line := range lines {
		b.WriteString(line)
		b.WriteString("\x1b[K\n")
	}
	if len(s.lines) > len(lines) {
		b.WriteString("\x1b[J")
	} else if len(s.lines) > 0 {
		// A narrower terminal may have left wrapped rows below.
		b.WriteString("\x1b[J")
	}
	s.lines = lines
}
