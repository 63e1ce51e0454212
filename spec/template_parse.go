package spec

import (
	"fmt"
	"strings"
)

const (
	openBrace  = "${{"
	closeBrace = "}}"
	unclosed   = "${{ is not closed: }} is missing"

	// maxParts bounds the templates in one string.
	maxParts = 1000
)

// HasTemplate says whether s contains a ${{.
func HasTemplate(s string) bool { return strings.Contains(s, openBrace) }

// ParseTemplate parses a string with ${{ }} expressions in it. There is no
// escape: text that needs a literal ${{ writes ${{ "${{" }}.
func ParseTemplate(src string, at func(off int) Pos, sc *Scope) (*Template, Problems) {
	spans, bad := findTemplates(src)
	if bad != nil {
		return nil, Problems{{Pos: at(bad.off), Message: bad.msg}}
	}
	t := &Template{Pos: at(0), Source: src}
	var problems Problems
	text := 0
	for _, s := range spans {
		if s.start > text {
			t.parts = append(t.parts, part{text: src[text:s.start]})
		}
		text = s.end
		inner := s.start + len(openBrace)
		e, ps := CompileExpr(src[inner:s.end-len(closeBrace)], func(off int) Pos { return at(inner + off) }, sc)
		problems = append(problems, ps...)
		t.parts = append(t.parts, part{expr: e})
	}
	if len(problems) > 0 {
		return nil, problems
	}
	if text < len(src) {
		t.parts = append(t.parts, part{text: src[text:]})
	}
	return t, nil
}

// span is where a template stands in a string, its braces included.
type span struct{ start, end int }

type badSpan struct {
	off int
	msg string
}

// findTemplates finds the templates of a string.
func findTemplates(src string) ([]span, *badSpan) {
	var spans []span
	for off := 0; ; {
		i := strings.Index(src[off:], openBrace)
		if i < 0 {
			return spans, nil
		}
		start := off + i
		end, ok := closeOf(src, start+len(openBrace))
		if !ok {
			return nil, &badSpan{start, unclosed}
		}
		if len(spans) == maxParts {
			return nil, &badSpan{start, fmt.Sprintf("more than %d templates in one text: put the data into a file", maxParts)}
		}
		off = end + len(closeBrace)
		spans = append(spans, span{start, off})
	}
}

// closeOf finds the }} that ends the expression starting at off: not one in
// quotes, nor one that closes braces of the expression.
func closeOf(src string, off int) (end int, ok bool) {
	depth := 0
	for i := off; i < len(src); i++ {
		switch src[i] {
		case '"', '\'', '`':
			i = skipQuoted(src, i) - 1
		case '{':
			depth++
		case '}':
			switch {
			case depth > 0:
				depth--
			case strings.HasPrefix(src[i:], closeBrace):
				return i, true
			}
		case '$':
			// Another ${{ before this one is closed: this one never is.
			if depth == 0 && strings.HasPrefix(src[i:], openBrace) {
				return 0, false
			}
		}
	}
	return 0, false
}

// skipQuoted gives the end of the quoted text that starts at i.
func skipQuoted(src string, i int) int {
	quote := src[i]
	for i++; i < len(src); i++ {
		switch {
		case src[i] == quote:
			return i + 1
		case src[i] == '\\' && quote != '`':
			i++
		}
	}
	return len(src)
}
