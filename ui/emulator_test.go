package ui

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// terminal is as much of a terminal as Screen uses: text, line breaks, moving
// up, and erasing. It keeps what scrolled off.
type terminal struct {
	lines    []string
	row, col int
}

func (t *terminal) Write(p []byte) (int, error) {
	s := string(p)
	for i := 0; i < len(s); {
		for t.row >= len(t.lines) {
			t.lines = append(t.lines, "")
		}
		switch c := s[i]; {
		case c == '\n':
			t.row, t.col = t.row+1, 0
			i++
		case c == '\r':
			t.col = 0
			i++
		case c == 0x1b:
			var n int
			switch rest := s[i+1:]; {
			case strings.HasPrefix(rest, "[K"):
				t.lines[t.row] = t.lines[t.row][:t.col]
				i += 3
			case strings.HasPrefix(rest, "[J"):
				t.lines[t.row] = t.lines[t.row][:t.col]
				t.lines = t.lines[:t.row+1]
				i += 3
			default:
				if _, err := fmt.Sscanf(rest, "[%dA", &n); err != nil || n > t.row {
					return 0, fmt.Errorf("cannot do %q in row %d", rest[:min(8, len(rest))], t.row)
				}
				t.row -= n
				i += 1 + strings.IndexByte(rest, 'A') + 1
			}
		default:
			line := t.lines[t.row]
			t.lines[t.row] = line[:t.col] + string(c) + line[min(t.col+1, len(line)):]
			t.col++
			i++
		}
	}
	return len(p), nil
}

func (t *terminal) text() []string {
	return slices.DeleteFunc(slices.Clone(t.lines), func(s string) bool { return s == "" })
}

// Whatever is drawn and printed in whatever order: on the terminal stands what
// was printed, once and in order, and below it the last frame.
func TestScreenOnATerminal(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		term := &terminal{}
		s := NewScreen(term, func() (int, int) { return 80, 24 })
		var printed, frame []string
		for i := range 60 {
			var err error
			switch r.IntN(3) {
			case 0:
				frame = nil
				for j := range r.IntN(6) {
					frame = append(frame, strings.Repeat("f", r.IntN(30)+1)+fmt.Sprint(i, j))
				}
				err = s.Draw(frame)
			case 1:
				printed = append(printed, fmt.Sprint("printed ", i))
				err = s.Print(printed[len(printed)-1])
			case 2:
				line := fmt.Sprint("written ", i)
				printed = append(printed, line)
				if _, err = s.Write([]byte(line[:4])); err == nil {
					_, err = s.Write([]byte(line[4:] + "\n"))
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := append(slices.Clone(printed), frame...); !slices.Equal(term.text(), want) {
				t.Fatalf("seed %d, step %d:\n%q\nwant\n%q", seed, i, term.text(), want)
			}
		}
		if err := s.End(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(term.text(), printed) {
			t.Fatalf("seed %d, at the end:\n%q\nwant\n%q", seed, term.text(), printed)
		}
	}
}
