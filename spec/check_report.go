package spec

import (
	"fmt"
	"strconv"
	"strings"
)

// keyPath is where a value stands: functions.clean.needs, args[1].
type keyPath struct {
	up   *keyPath
	name string
	idx  int // of a list, from 1; 0: name counts
}

func (p *keyPath) key(name string) *keyPath { return &keyPath{up: p, name: name} }
func (p *keyPath) index(i int) *keyPath     { return &keyPath{up: p, idx: i + 1} }

// String is the path with dots; "" for the whole file.
func (p *keyPath) String() string {
	if p == nil || p.up == nil {
		return ""
	}
	up := p.up.String()
	if p.idx > 0 {
		return up + "[" + strconv.Itoa(p.idx-1) + "]"
	}
	name := shorten(p.name)
	if name == "" {
		name = `""`
	}
	if up == "" {
		return name
	}
	return up + "." + name
}

// root is the first key of the path.
func (p *keyPath) root() string {
	if p == nil || p.up == nil {
		return ""
	}
	for p.up.up != nil {
		p = p.up
	}
	return p.name
}

// reporter collects problems without repetitions.
type reporter struct {
	problems Problems
	more     int
	seen     map[Problem]bool
	compared int
	// note is added to problems in values that come from defaults.
	note string
}

// report adds a problem with what stands at p.
func (r *reporter) report(pos Pos, p *keyPath, format string, args ...any) {
	if len(r.problems) >= maxCollected {
		r.more++
		return
	}
	msg := fmt.Sprintf(format, args...)
	if where := p.String(); where != "" {
		msg = where + ": " + msg
	}
	r.add(Problem{Pos: pos, Message: msg}, p.root() == "defaults")
}

func (r *reporter) add(pr Problem, inDefaults bool) {
	pr.Message = oneLine(pr.Message)
	if r.seen == nil {
		r.seen = map[Problem]bool{}
	}
	if r.seen[pr] {
		return
	}
	r.seen[pr] = true
	if inDefaults {
		// The same place is wrong for every function: the words may differ with
		// the names that exist there.
		place := Problem{Pos: pr.Pos}
		if r.seen[place] && r.note != "" {
			return
		}
		r.seen[place] = true
		pr.Message += r.note
	}
	r.problems = append(r.problems, pr)
}

// compiled adds the problems of an expression, template or script.
func (r *reporter) compiled(ps Problems, p *keyPath) {
	for _, pr := range ps {
		if len(r.problems) >= maxCollected {
			r.more++
			continue
		}
		if where := p.String(); where != "" {
			pr.Message = where + ": " + pr.Message
		}
		r.add(pr, p.root() == "defaults")
	}
}

// suggest is didYouMean within the budget.
func (r *reporter) suggest(name string, candidates []string) string {
	if r.compared += len(candidates); r.compared > maxCompared || len(r.problems) >= maxCollected {
		return ""
	}
	return didYouMean(name, candidates)
}

// sortAndCut sorts the problems and cuts them down to what can be read.
func sortAndCut(ps Problems, more int) Problems {
	ps.Sort()
	if len(ps) > maxShown {
		more += len(ps) - maxShown
		ps = ps[:maxShown:maxShown]
	}
	if more > 0 {
		ps = append(ps, Problem{Pos: Pos{File: ps[0].Pos.File}, Message: fmt.Sprintf("and %d more problems", more)})
	}
	return ps
}

// oneLine keeps a message on its line.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n\t") {
		return s
	}
	return strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ", "\t", " ").Replace(s)
}
