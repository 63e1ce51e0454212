package spec

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// source is the text of a file with its lines, to turn positions into offsets
// and back.
type source struct {
	file  string
	text  []byte // without a byte order mark
	lines []int  // offset of each line
	ascii bool
	// The last place that was looked for: places come mostly in the order of
	// the file, and a file may be one long line.
	mark mark
}

type mark struct{ line, col, off int }

var utf8BOM = []byte("\xef\xbb\xbf")

func newSource(text []byte, file string) *source {
	s := &source{file: file, text: bytes.TrimPrefix(text, utf8BOM), lines: []int{0}, ascii: true}
	if len(s.text) > maxSource {
		return s
	}
	for i := 0; i < len(s.text); i++ {
		c := s.text[i]
		if c >= utf8.RuneSelf {
			s.ascii = false
		}
		if n := breakLen(s.text[i:]); n > 0 {
			i += n - 1
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// breakLen is the length of the line break at the start of b: those of YAML
// 1.1, which the parser counts.
func breakLen(b []byte) int {
	switch {
	case b[0] == '\n':
		return 1
	case b[0] == '\r':
		if len(b) > 1 && b[1] == '\n' {
			return 2
		}
		return 1
	case b[0] == 0xc2 && len(b) > 1 && b[1] == 0x85:
		return 2
	case b[0] == 0xe2 && len(b) > 2 && b[1] == 0x80 && (b[2] == 0xa8 || b[2] == 0xa9):
		return 3
	}
	return 0
}

func (s *source) at(line, col int) Pos { return Pos{File: s.file, Line: line, Col: col} }

// offset is the byte offset of a line and column.
func (s *source) offset(line, col int) int {
	if line < 1 || line > len(s.lines) {
		return len(s.text)
	}
	start := s.lines[line-1]
	if s.ascii {
		return min(start+col-1, len(s.text))
	}
	c, off := 1, start
	if m := s.mark; m.line == line && m.col <= col {
		c, off = m.col, m.off
	}
	for ; c < col && off < len(s.text); c++ {
		_, n := utf8.DecodeRune(s.text[off:])
		off += n
	}
	s.mark = mark{line, col, off}
	return off
}

// posOf is the position of a byte offset.
func (s *source) posOf(off int) Pos {
	lo, hi := 0, len(s.lines)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; s.lines[mid] <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	if s.ascii {
		return s.at(lo+1, off-s.lines[lo]+1)
	}
	start, col := s.lines[lo], 1
	if m := s.mark; m.line == lo+1 && m.off <= off {
		start, col = m.off, m.col
	}
	col += utf8.RuneCount(s.text[start:off])
	s.mark = mark{lo + 1, col, off}
	return s.at(lo+1, col)
}

// line is the text of a line without its break.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	end := len(s.text)
	if n < len(s.lines) {
		end = s.lines[n]
	}
	return strings.TrimRight(string(s.text[s.lines[n-1]:end]), "\r\n\u0085\u2028\u2029")
}

// checkBytes finds what is not text, before the YAML parser stumbles over it
// without saying where.
func (s *source) checkBytes() *Problem {
	first := s.at(1, 1)
	if len(s.text) > maxSource {
		return &Problem{Pos: first, Message: fmt.Sprintf("the file has %s, a pipeline file at most %s: put long lists into a file of their own and map over it with lines, csv or jsonl",
			FormatSize(int64(len(s.text))), FormatSize(maxSource))}
	}
	t := s.text
	if len(t) >= 2 && (t[0] == 0xff && t[1] == 0xfe || t[0] == 0xfe && t[1] == 0xff || (t[0] == 0) != (t[1] == 0)) {
		return &Problem{Pos: first, Message: "the file looks like UTF-16: save it as UTF-8"}
	}
	for i := 0; i < len(t); {
		c := t[i]
		if c >= 0x20 && c < 0x7f || c == '\n' || c == '\r' || c == '\t' {
			i++
			continue
		}
		if c < 0x80 {
			return &Problem{Pos: s.posOf(i), Message: fmt.Sprintf("control character 0x%02x: this is not a text file, or it was damaged; in a quoted text write \\x%02x", c, c)}
		}
		r, n := utf8.DecodeRune(t[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return &Problem{Pos: s.posOf(i), Message: fmt.Sprintf("byte 0x%02x is not UTF-8: save the file as UTF-8 (a file name with such a byte is matched by a pattern with * or ?)", c)}
		case r >= 0x80 && r < 0xa0 && r != 0x85, r == 0xfeff, r == 0xfffe, r == 0xffff:
			return &Problem{Pos: s.posOf(i), Message: fmt.Sprintf("character U+%04X is not allowed in YAML: in a quoted text write \\u%04x", r, r)}
		}
		i += n
	}
	return nil
}

// tagAt is the YAML tag of a node, "" if it has none. It looks at the text,
// because the parser forgets a lone "!".
func (s *source) tagAt(off int, y *yaml.Node) string {
	off = s.skipAnchor(off, y.Anchor)
	if off < len(s.text) && s.text[off] == '!' {
		rest := s.text[off:]
		if i := bytes.IndexAny(rest, " \t\r\n,]}"); i >= 0 {
			rest = rest[:i]
		}
		return shorten(string(rest))
	}
	if y.Style&yaml.TaggedStyle != 0 {
		return y.Tag
	}
	return ""
}

// skipAnchor steps over "&name " at an offset.
func (s *source) skipAnchor(off int, anchor string) int {
	if anchor == "" || off >= len(s.text) || s.text[off] != '&' {
		return off
	}
	off += 1 + len(anchor)
	for off < len(s.text) && (s.text[off] == ' ' || s.text[off] == '\t') {
		off++
	}
	return off
}

// locator gives the position in the file of byte offsets in a scalar's text.
// It follows the two texts in step by their characters that are not white
// space, which folding and indentation leave alone.
func (n *node) locator() func(off int) Pos {
	if n.src == nil || n.kind != scalarNode {
		return func(int) Pos { return n.pos }
	}
	s := n.src
	start := n.off
	if start < len(s.text) && s.text[start] == '&' {
		if i := bytes.IndexAny(s.text[start:], " \t\r\n"); i >= 0 {
			start = s.skipAnchor(start, string(s.text[start+1:start+i]))
		}
	}
	style := byte(0)
	if start < len(s.text) && !n.plain {
		switch style = s.text[start]; style {
		case '"', '\'':
			start++
		case '|', '>':
			if i := bytes.IndexAny(s.text[start:], "\r\n"); i >= 0 {
				start += i
			}
		}
	}
	inText, inFile := 0, start
	return func(off int) Pos {
		off = min(off, len(n.text))
		if off < inText {
			inText, inFile = 0, start
		}
		for {
			for inText < off && isSpace(n.text[inText]) {
				inText++
			}
			inFile = s.skipSpace(inFile, style)
			if inText >= off || inFile >= len(s.text) {
				return s.posOf(min(inFile, len(s.text)))
			}
			_, size := utf8.DecodeRuneInString(n.text[inText:])
			inText += size
			inFile = s.skipChar(inFile, style)
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// skipSpace steps over white space, also where a double-quoted scalar writes
// it with an escape.
func (s *source) skipSpace(off int, style byte) int {
	for off < len(s.text) {
		switch {
		case isSpace(s.text[off]):
			off++
		case style == '"' && s.text[off] == '\\' && off+1 < len(s.text) && strings.IndexByte("ntr \t\r\n", s.text[off+1]) >= 0:
			off += 2
		default:
			return off
		}
	}
	return off
}

// skipChar steps over the source of one character of a scalar.
func (s *source) skipChar(off int, style byte) int {
	switch {
	case style == '"' && s.text[off] == '\\' && off+1 < len(s.text):
		switch s.text[off+1] {
		case 'x':
			return off + 4
		case 'u':
			return off + 6
		case 'U':
			return off + 10
		}
		return off + 2
	case style == '\'' && s.text[off] == '\'':
		return off + 2
	}
	_, size := utf8.DecodeRune(s.text[off:])
	return off + size
}
