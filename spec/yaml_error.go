package spec

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxLocate bounds the files in which the line of a syntax error is searched
// by parsing prefixes; in larger ones the parser's own line has to do.
const maxLocate = 128 << 10

// explain turns an error of the YAML parser, which names a line at best and
// often another one, into a problem with a place and advice.
func (s *source) explain(err error) Problem {
	line, msg := splitYAMLError(err.Error())
	if name, ok := cutQuoted(msg, "unknown anchor '"); ok {
		return s.unknownAnchor(name)
	}
	first, last := s.locate(line, msg)
	for n := first; n <= last; n++ {
		if p, ok := s.suspicious(n); ok {
			return p
		}
	}
	text := s.line(first)
	off := max(0, errorOffset(msg, text))
	return Problem{Pos: s.at(first, utf8.RuneCountInString(text[:off])+1), Message: "not valid YAML: " + yamlAdvice(msg, text)}
}

// splitYAMLError cuts "yaml: line 3: message" into 3 and "message".
func splitYAMLError(text string) (line int, msg string) {
	msg = strings.TrimPrefix(text, "yaml: ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if number, tail, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				return n, tail
			}
		}
	}
	return 0, msg
}

func cutQuoted(s, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return "", false
	}
	name, _, ok := strings.Cut(rest, "'")
	return name, ok
}

func (s *source) unknownAnchor(name string) Problem {
	for n := 1; n <= len(s.lines); n++ {
		text := s.line(n)
		if i := strings.Index(text, "*"+name); i >= 0 {
			return Problem{Pos: s.at(n, utf8.RuneCountInString(text[:i])+1),
				Message: `*` + name + ` is read as a YAML alias and no anchor &` + name + ` stands before it: put quotes around a value that starts with *`}
		}
	}
	return Problem{Pos: s.at(1, 1), Message: "the YAML alias *" + name + " has no anchor"}
}

// locate finds the lines among which a syntax error lies, the cause first:
// the first line after which the parser fails in this way.
func (s *source) locate(reported int, msg string) (first, last int) {
	fails := func(lines int) bool {
		end := len(s.text)
		if lines < len(s.lines) {
			end = s.lines[lines]
		}
		_, _, err := decodeYAML(s.text[:end])
		if err == nil {
			return false
		}
		_, m := splitYAMLError(err.Error())
		return m == msg
	}
	clamp := func(n int) int { return max(1, min(n, len(s.lines))) }
	switch {
	case len(s.text) > maxLocate:
		// Scanner errors name the line, parser errors the one before.
		return clamp(reported), clamp(reported + 1)
	case msg == "found unexpected end of stream", strings.HasPrefix(msg, "could not find expected ':'"):
		// The parser names the line where the text starts, but not if that is
		// the first.
		if reported == 0 || fails(1) {
			return 1, 1
		}
		if n := clamp(reported); strings.TrimSpace(s.line(n)) != "" {
			return n, n
		}
		return 1, 1
	}
	if strings.HasPrefix(msg, "did not find expected ',' or") {
		// The parser names the line before the bracket, counting from zero. A
		// prefix that ends inside any brackets fails in the same way, so the
		// search below would not help.
		first = clamp(reported + 1)
		if reported == 0 || !strings.ContainsAny(s.line(first), "[{") {
			first = 1
		}
		return first, s.blockEnd(first)
	}
	lo, hi := 0, len(s.lines)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; fails(mid) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi, hi
}

// blockEnd is the last line of what starts in a line and is indented deeper.
func (s *source) blockEnd(line int) int {
	indent := func(text string) int { return len(text) - len(strings.TrimLeft(text, " ")) }
	start, end := indent(s.line(line)), line
	for n := line + 1; n <= len(s.lines); n++ {
		text := s.line(n)
		if strings.TrimSpace(text) != "" && indent(text) <= start {
			break
		}
		end = n
	}
	return end
}

// suspicious looks for what people write without the quotes it needs.
func (s *source) suspicious(line int) (Problem, bool) {
	text := s.line(line)
	problem := func(byteCol int, msg string) (Problem, bool) {
		return Problem{Pos: s.at(line, utf8.RuneCountInString(text[:byteCol])+1), Message: msg}, true
	}
	if indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]; strings.Contains(indent, "\t") {
		return problem(strings.Index(indent, "\t"), "a tab in the indentation: YAML wants spaces")
	}
	if strings.HasPrefix(text, "%") {
		return problem(0, "YAML directives (%...) are not used in pipeline files: remove the line, or put quotes around the value")
	}
	// The start of a value: at the start of the line, after "- ", "key: ", or
	// inside [ ] and { }.
	starts := regexp.MustCompile(`(?:^\s*|^\s*(?:- +)+|^\s*(?:- +)*[^\s:#'"{\[][^:#'"]*:[ \t]+|[\[{,][ \t]*|[\[{,][ \t]*\w+:[ \t]+)` +
		"([*&!@%`]|\\$?\\{\\{|\t)")
	if m := starts.FindStringSubmatchIndex(text); m != nil {
		value := text[m[2]:]
		switch {
		case strings.HasPrefix(value, "{{"):
			return problem(m[2], `{{ starts a YAML mapping here: a template is written "${{ ... }}", in quotes`)
		case strings.HasPrefix(value, "${{"):
			return problem(m[2], `this template needs quotes: "${{ ... }}"; YAML gives some characters in it (such as ": ", " #", { } , and [ ]) a meaning of their own`)
		case value[0] == '\t':
			return problem(m[2], "a tab before the value: YAML wants spaces")
		}
		return problem(m[2], "a value that starts with "+value[:1]+" needs quotes: YAML gives this character a meaning of its own")
	}
	if i := strings.Index(text, "${{"); i >= 0 && !strings.ContainsAny(text[:i], `'"`) {
		return problem(i, `put quotes around the whole value with this template: YAML gives some characters in it (such as ": ", " #", { } , and [ ]) a meaning of their own`)
	}
	return Problem{}, false
}

// errorOffset guesses where in its line the parser failed.
func errorOffset(msg, line string) int {
	off := -1
	switch {
	case strings.HasPrefix(msg, "mapping values are not allowed"):
		if off = strings.Index(line, ": "); off >= 0 && strings.Contains(line[off+1:], ": ") {
			off += 1 + strings.Index(line[off+1:], ": ")
		} else {
			off = -1
		}
	case msg == "found unexpected end of stream":
		off = strings.IndexAny(line, `"'`)
	case strings.HasPrefix(msg, "found unknown escape character"):
		off = strings.IndexByte(line, '\\')
	case strings.HasPrefix(msg, "block sequence entries"):
		off = strings.Index(line, "- ")
	case strings.HasPrefix(msg, "did not find expected ',' or"):
		off = strings.IndexAny(line, "[{")
	}
	if off < 0 {
		return len(line) - len(strings.TrimLeft(line, " \t"))
	}
	return off
}

// yamlAdvice says in other words what the parser found.
func yamlAdvice(msg, line string) string {
	switch {
	case strings.HasPrefix(msg, "mapping values are not allowed"):
		if strings.Count(line, ": ") > 1 {
			return `": " stands inside a value: put quotes around the value`
		}
		return `a "key: value" cannot stand here: the line before is already a value, or the indentation does not fit`
	case msg == "did not find expected key", strings.HasPrefix(msg, "did not find expected '-'"):
		return "this line does not fit the lines above it: look at the indentation, at quotes, and at lists mixed with keys"
	case strings.HasPrefix(msg, "did not find expected ',' or"):
		closing := strings.TrimPrefix(msg, "did not find expected ',' or ")
		return "a comma or " + closing + " is missing here or before; text with commas, brackets or colons needs quotes"
	case strings.HasPrefix(msg, "could not find expected ':'"):
		return `this line is no "key: value": a colon and a space are missing, or the text belongs to the line before and needs more indentation`
	case msg == "found unexpected end of stream":
		return "the quote that opens here is never closed"
	case strings.HasPrefix(msg, "exceeded max depth"):
		return "nested more than " + strconv.Itoa(maxDepth) + " levels deep"
	case strings.HasPrefix(msg, "found unknown escape character"):
		return `an unknown \ escape in double quotes: write \\ for a backslash, or use single quotes`
	case strings.HasPrefix(msg, "did not find expected <document start>"):
		return "something stands after the end of the document: a file holds one pipeline"
	case strings.HasPrefix(msg, "block sequence entries are not allowed"):
		return `a list entry "- " cannot stand on the line of its key: start it on the next line`
	case strings.HasPrefix(msg, "found undefined tag handle"), strings.Contains(msg, "tag"):
		return "a value that starts with ! needs quotes"
	case strings.HasPrefix(msg, "found a tab character"):
		return "a tab in the indentation: YAML wants spaces"
	}
	return msg
}
