package ui

import (
	"io"
	"unicode/utf8"
)

// LogWriter writes the output of tasks to a terminal: text, line breaks, tabs
// and (if Colour is set) colours pass, every other control character and
// escape sequence is dropped. A carriage return becomes a line break, so that
// progress bars are readable. Sequences may be split over writes.
type LogWriter struct {
	W      io.Writer
	Colour bool

	state   int
	seq     []byte // the sequence so far
	held    []byte // an incomplete UTF-8 character
	cr      bool   // the last byte was a carriage return, not yet written
	painted bool   // a colour is on
}

// The states of a LogWriter.
const (
	inText   = iota
	afterEsc // ESC
	inCSI    // ESC [ ... final byte
	inString // ESC ] P X ^ _ ... up to BEL or ESC \
	stringEsc
	inCharset // ESC ( and the like: one more byte
)

// Write cleans p and writes it. It reports all of p as written unless the
// writer behind it fails.
func (l *LogWriter) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+8)
	in := p
	if len(l.held) > 0 {
		in = append(l.held, p...)
		l.held = nil
	}
	for i := 0; i < len(in); {
		c := in[i]
		if l.state != inText {
			i++
			out = l.step(c, out)
			continue
		}
		if l.cr {
			l.cr = false
			out = append(out, '\n')
			if c == '\n' {
				i++
				continue
			}
		}
		switch {
		case c == 0x1b:
			l.state, l.seq = afterEsc, append(l.seq[:0], c)
			i++
		case c == '\r':
			l.cr = true
			i++
		case c == '\n' || c == '\t' || c >= 0x20 && c < 0x7f:
			out = append(out, c)
			i++
		case c < utf8.RuneSelf:
			i++
		default:
			if !utf8.FullRune(in[i:]) {
				l.held = append([]byte(nil), in[i:]...)
				i = len(in)
				continue
			}
			r, n := utf8.DecodeRune(in[i:])
			if r == utf8.RuneError || !unsafe(r) {
				out = utf8.AppendRune(out, r)
			}
			i += n
		}
	}
	if len(out) > 0 {
		if _, err := l.W.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// step takes one byte inside an escape sequence.
func (l *LogWriter) step(c byte, out []byte) []byte {
	switch l.state {
	case afterEsc:
		l.seq = append(l.seq, c)
		switch c {
		case '[':
			l.state = inCSI
		case ']', 'P', 'X', '^', '_':
			l.state = inString
		case '(', ')', '*', '+', '#', '%', ' ':
			l.state = inCharset
		case 0x1b:
			l.seq = l.seq[:1]
		default:
			l.state = inText
		}
	case inCSI:
		l.seq = append(l.seq, c)
		if c >= 0x40 && c <= 0x7e || c < 0x20 || len(l.seq) > 64 {
			l.state = inText
			if l.Colour && sgr(string(l.seq)) == len(l.seq) {
				l.painted = string(l.seq) != reset && string(l.seq) != "\x1b[m"
				out = append(out, l.seq...)
			}
			if c == '\n' {
				out = append(out, c)
			}
		}
	case inString:
		switch c {
		case 0x07:
			l.state = inText
		case 0x1b:
			l.state = stringEsc
		}
	case stringEsc:
		if c == '\\' {
			l.state = inText
		} else {
			l.state = inString
		}
	case inCharset:
		l.state = inText
	}
	return out
}

// End finishes a log: colours are off again and the next one starts plain.
func (l *LogWriter) End() error {
	var out []byte
	if l.cr {
		out = append(out, '\n')
	}
	if l.painted {
		out = append(out, reset...)
	}
	l.state, l.held, l.cr, l.painted = inText, nil, false, false
	if len(out) == 0 {
		return nil
	}
	_, err := l.W.Write(out)
	return err
}
