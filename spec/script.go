package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// maxScript bounds the scripts that are parsed: a parser recurses, and no
// script of a pipeline comes near it.
const maxScript = 128 << 10

// scriptVar is the prefix of the variables that hold the values of templates.
const scriptVar = "__COILED_JOBS_"

// Script is a shell script whose templates are handed over out of band. It is
// safe for concurrent use.
//
// A template is never pasted into the script. The script is parsed with a
// placeholder where each template stands; the syntax around the placeholder
// says how a variable must be written there so that it expands to exactly its
// value: in double quotes where it stood bare, without where it stood inside
// double quotes, and so on. Where the shell would look into the value, the
// script is rejected.
type Script struct {
	Pos    Pos
	Source string
	Shell  []string

	text string
	vars []*Expr // the value of scriptVar + index
}

// ParseScript parses a script for this shell (nil: bash -euo pipefail) and
// finds, for each template, how its value can be handed over as data.
func ParseScript(src string, shell []string, at func(off int) Pos, sc *Scope) (*Script, Problems) {
	s := &Script{Pos: at(0), Source: src, Shell: shell, text: src}
	lang, known := shellLang(shell)
	spans, bad := findTemplates(src)
	if bad != nil {
		return nil, Problems{{Pos: at(bad.off), Message: bad.msg}}
	}
	if len(spans) == 0 {
		if known && len(src) <= maxScript {
			return s, syntaxWarning(src, lang, at)
		}
		return s, nil
	}
	one := func(off int, msg string) (*Script, Problems) {
		return nil, Problems{{Pos: at(off), Message: msg}}
	}
	switch {
	case !known:
		return one(spans[0].start, fmt.Sprintf("a template cannot be put into a script for %s, whose syntax is not a shell's: "+
			"put the value into env and read the variable in the script", shellName(shell)))
	case len(src) > maxScript:
		return one(spans[0].start, fmt.Sprintf("the script has %d KiB, with templates %d is the limit: put it into a file", len(src)>>10, maxScript>>10))
	case strings.IndexByte(src, 0) >= 0:
		return one(strings.IndexByte(src, 0), "the script has a NUL byte")
	case strings.Contains(src, scriptVar):
		return one(strings.Index(src, scriptVar), "variables that start with "+scriptVar+" are taken")
	}
	var problems Problems
	exprs, numbers := make([]*Expr, len(spans)), make([]bool, len(spans))
	for i, sp := range spans {
		inner := sp.start + len(openBrace)
		e, kind, ps := compileExpr(src[inner:sp.end-len(closeBrace)], func(off int) Pos { return at(inner + off) }, sc)
		exprs[i], problems = e, append(problems, ps...)
		numbers[i] = kind == "int" || kind == "float64" || kind == "float"
	}
	h := newHoles(src, spans)
	h.number = numbers
	found, ps := h.place(lang, at)
	problems = append(problems, ps...)
	if len(problems) > 0 {
		problems.Sort()
		return nil, problems
	}
	s.rewrite(h, found, exprs)
	if why := checkReferences(s.text, lang); why != "" {
		return one(spans[0].start, "the templates of this script cannot be replaced safely ("+why+"); put the values into env and use these variables")
	}
	return s, nil
}

// rewrite writes the script with a reference in the place of each template.
func (s *Script) rewrite(h *holes, found []place, exprs []*Expr) {
	var b strings.Builder
	last := 0
	names := map[string]int{}
	for i, sp := range h.spans {
		b.WriteString(s.Source[last:sp.start])
		last = sp.end
		if found[i] == placeComment {
			b.WriteString(strings.NewReplacer("\n", " ", "\r", " ").Replace(s.Source[sp.start:sp.end]))
			continue
		}
		n, ok := names[exprs[i].Source]
		if !ok {
			n = len(s.vars)
			names[exprs[i].Source] = n
			s.vars = append(s.vars, exprs[i])
		}
		b.WriteString(strings.Replace(found[i].reference(), "V", fmt.Sprint(scriptVar, n), 1))
	}
	b.WriteString(s.Source[last:])
	s.text = b.String()
}

// Render gives the text to run, which is the same for every task, and the
// "NAME=value" entries that the environment must have for it.
func (s *Script) Render(env *Env) (text string, vars []string, err error) {
	if len(s.vars) > 0 {
		vars = make([]string, len(s.vars))
	}
	for i, e := range s.vars {
		v, err := e.text(env)
		if err != nil {
			return "", nil, err
		}
		vars[i] = fmt.Sprint(scriptVar, i, "=", v)
	}
	return s.text, vars, nil
}

// Text is the text that Render gives: the same for every task.
func (s *Script) Text() string { return s.text }

// Refs is the names that the script's templates use.
func (s *Script) Refs() Refs {
	var r Refs
	for _, e := range s.vars {
		r = r.Merge(e.refs)
	}
	return r
}

// shellLang says which grammar the scripts of a shell have; not ok for
// interpreters that are not shells.
func shellLang(shell []string) (lang syntax.LangVariant, ok bool) {
	if len(shell) == 0 {
		return syntax.LangBash, true
	}
	i := 0
	for i < len(shell)-1 {
		switch path.Base(shell[i]) {
		case "env", "nice", "nohup", "time", "setsid", "busybox":
			if !strings.HasPrefix(shell[i+1], "-") { // env -i would take the variables away
				i++
				continue
			}
		}
		break
	}
	switch path.Base(shell[i]) {
	case "bash", "rbash":
		return syntax.LangBash, true
	case "sh", "dash", "ash":
		return syntax.LangPOSIX, true
	case "zsh":
		return syntax.LangZsh, true
	case "ksh", "ksh93", "mksh":
		return syntax.LangMirBSDKorn, true
	}
	return 0, false
}

func shellName(shell []string) string { return path.Base(shell[0]) }

func parseShell(text string, lang syntax.LangVariant) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(lang), syntax.KeepComments(true)).Parse(strings.NewReader(text), "")
}

// syntaxWarning reports what looks like a mistake in a script without
// templates. It is not an error: the shell has the last word there.
func syntaxWarning(src string, lang syntax.LangVariant, at func(int) Pos) Problems {
	if shellNesting(src) > maxShellDepth {
		return nil
	}
	if _, err := parseShell(src, lang); err != nil {
		off, msg := parseProblem(err)
		return Problems{{Pos: at(min(off, len(src))), Message: "the script: " + msg, Warning: true}}
	}
	return nil
}

// parseProblem takes an error of the shell parser apart.
func parseProblem(err error) (off int, msg string) {
	var pe syntax.ParseError
	var le syntax.LangError
	switch {
	case errors.As(err, &pe):
		return int(pe.Pos.Offset()), pe.Text
	case errors.As(err, &le):
		_, text, _ := strings.Cut(le.Error(), ": ")
		return int(le.Pos.Offset()), text
	}
	return 0, err.Error()
}

// maxShellDepth bounds the nesting of a script that is parsed.
const maxShellDepth = 2000

// shellNesting is an upper bound for the depth of a script's syntax.
func shellNesting(src string) int {
	n := 0
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '(', '{', '`', '!':
			n++
		}
	}
	for _, w := range []string{"if", "while", "until", "for", "case", "select", "function", "time", "coproc", "do", "then", "else"} {
		n += strings.Count(src, w)
	}
	return n
}

// holes are the places of templates in a script, whose text has placeholders
// there.
type holes struct {
	spans []span // in the source
	text  string // with placeholders
	mark  string // how placeholders start
	at    []int  // where they start in text
	end   []int

	number []bool // the value is a number
}

func newHoles(src string, spans []span) *holes {
	h := &holes{spans: spans, mark: "CJTPL"}
	for strings.Contains(src, h.mark) {
		h.mark += "Q"
	}
	var b strings.Builder
	last := 0
	for i, sp := range spans {
		b.WriteString(src[last:sp.start])
		last = sp.end
		h.at = append(h.at, b.Len())
		fmt.Fprintf(&b, "%s%dX", h.mark, i)
		h.end = append(h.end, b.Len())
	}
	b.WriteString(src[last:])
	h.text = b.String()
	return h
}

// source turns an offset in text into one in the source.
func (h *holes) source(off int) int {
	i, inside := slices.BinarySearch(h.at, off)
	if inside {
		return h.spans[i].start
	}
	if i == 0 {
		return off
	}
	return h.spans[i-1].end + max(0, off-h.end[i-1])
}

// within gives the holes from one offset of text to another.
func (h *holes) within(from, to int) (first, last int) {
	first, _ = slices.BinarySearch(h.at, from)
	last, _ = slices.BinarySearch(h.at, to)
	return first, last
}

// place decides for every hole.
func (h *holes) place(lang syntax.LangVariant, at func(int) Pos) ([]place, Problems) {
	if n := shellNesting(h.text); n > maxShellDepth {
		return nil, Problems{{Pos: at(h.spans[0].start), Message: "the script is too deeply nested to put templates into it: put it into a file, and the values into env"}}
	}
	found, reasons, err := h.placeIn(lang)
	if err != nil {
		off, msg := parseProblem(err)
		return nil, Problems{{Pos: at(h.source(off)), Message: "the script: " + strings.ReplaceAll(msg, h.mark, "a template")}}
	}
	if lang == syntax.LangPOSIX {
		// What is called sh is bash on some machines, and then (( )) and [[ ]]
		// mean something: a place must be safe in both.
		if b, bashReasons, err := h.placeIn(syntax.LangBash); err == nil {
			for i := range found {
				switch {
				case reasons[i] != "":
				case bashReasons[i] != "":
					reasons[i] = bashReasons[i]
				case b[i] != found[i]:
					reasons[i] = "it stands where shells that are called sh differ"
				}
			}
		}
	}
	var problems Problems
	for i, r := range reasons {
		if r == "" {
			continue
		}
		advice := "; put the value into env and use that variable, or give it as an argument"
		if strings.Contains(r, " env") {
			advice = ""
		}
		problems = append(problems, Problem{Pos: at(h.spans[i].start), Message: "a template cannot be used here: " + r + advice})
	}
	return found, problems
}
