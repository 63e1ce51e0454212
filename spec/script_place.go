package spec

import (
	"regexp"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// place is how a template's variable is written where the template stood.
type place int

const (
	placeNone    place = iota
	placeBare          // not in quotes
	placeQuoted        // in double quotes or a here-document
	placeSingle        // in single quotes
	placeDollar        // in $'...'
	placeComment       // in a comment: nothing happens
)

// reference is the text of the reference, with V for the variable.
func (p place) reference() string {
	switch p {
	case placeQuoted:
		return "${V}"
	case placeSingle:
		return `'"${V}"'`
	case placeDollar:
		return `'"${V}"$'`
	}
	return `"${V}"`
}

const (
	inArithmetic = "the shell would evaluate the value as arithmetic (which can run commands)"
	inName       = "the value would be a name of the script"
	inUnclear    = "in this nesting of quotes shells differ"
)

// placer walks the syntax tree of a script, ancestors at hand, and decides for
// each hole where it meets it.
type placer struct {
	*holes
	lang    syntax.LangVariant
	stack   []syntax.Node
	found   []place
	reasons []string // why a hole is refused; "" if it is not
	ints    map[string]bool
}

// placeIn decides for every hole with the grammar of one shell.
func (h *holes) placeIn(lang syntax.LangVariant) (found []place, reasons []string, err error) {
	file, err := parseShell(h.text, lang)
	if err != nil {
		return nil, nil, err
	}
	p := &placer{holes: h, lang: lang, found: make([]place, len(h.at)), reasons: make([]string, len(h.at)), ints: integerVars(file)}
	syntax.Walk(file, func(n syntax.Node) bool {
		if n == nil {
			p.stack = p.stack[:len(p.stack)-1]
			return true
		}
		switch n.(type) {
		case *syntax.Lit, *syntax.SglQuoted, *syntax.Comment:
			p.leaf(n)
		}
		p.stack = append(p.stack, n)
		return true
	})
	for i := range p.found {
		if p.found[i] == placeNone && p.reasons[i] == "" {
			p.reasons[i] = "it is not clear what the shell does with this text"
		}
	}
	return p.found, p.reasons, nil
}

// leaf decides for the holes of a literal text.
func (p *placer) leaf(n syntax.Node) {
	from, to := int(n.Pos().Offset()), int(n.End().Offset())
	first, last := p.within(from, to)
	for i := first; i < last; i++ {
		if _, ok := n.(*syntax.Comment); ok {
			p.found[i] = placeComment
			continue
		}
		where, reason := p.context(n)
		if reason == "" {
			reason = p.ancestors(i)
		}
		if reason == "" && where != placeSingle && p.escaped(from, p.at[i]) {
			reason = "a backslash stands directly before it: write \\\\ for a backslash, nothing for none"
		}
		if reason == "" && p.lang == syntax.LangZsh && where == placeBare && strings.Contains(p.text[from:to], "(") {
			reason = "zsh could take it for a part of a pattern that runs code"
		}
		if reason == "" && where == placeDollar && strings.HasSuffix(p.text[from:p.at[i]], `\c`) {
			reason = inUnclear
		}
		p.found[i], p.reasons[i] = where, reason
	}
}

// escaped says whether the character at off has an odd number of backslashes
// before it.
func (p *placer) escaped(from, off int) bool {
	n := 0
	for i := off - 1; i >= from && p.text[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// context looks at the word around a leaf: which quotes and expansions it is
// in, up to the statement or command substitution that the word belongs to.
func (p *placer) context(leaf syntax.Node) (place, string) {
	// The structure of the word, innermost first.
	var inner []syntax.Node
	i := len(p.stack) - 1
climb:
	for ; i >= 0; i-- {
		switch n := p.stack[i].(type) {
		case *syntax.Word, *syntax.DblQuoted, *syntax.ParamExp:
			inner = append(inner, n)
		default:
			break climb
		}
	}
	if i < 0 || len(inner) == 0 {
		if i >= 0 {
			if _, ok := p.stack[i].(*syntax.ExtGlob); ok {
				return 0, "shells do not agree on quotes in an extended pattern"
			}
		}
		return 0, inName
	}
	word, ok := inner[len(inner)-1].(*syntax.Word)
	if !ok {
		return 0, inUnclear
	}
	heredoc := false
	if r, ok := p.stack[i].(*syntax.Redirect); ok && r.Op != syntax.WordHdoc {
		switch {
		case r.Hdoc == word:
			heredoc = true
			if quotedDelimiter(r.Word) {
				return 0, "in a here-document whose delimiter is quoted nothing is expanded: unquote the delimiter, or put the value into env"
			}
		case r.Op == syntax.Hdoc || r.Op == syntax.DashHdoc:
			return 0, inName
		}
	}
	if p.sequence(word) {
		return 0, "the shell makes {a..b} before it knows the value: use seq"
	}
	return wordContext(leaf, inner, heredoc)
}

// wordContext decides by the structure of the word (innermost first).
func wordContext(leaf syntax.Node, inner []syntax.Node, heredoc bool) (place, string) {
	single, dollar := false, false
	if q, ok := leaf.(*syntax.SglQuoted); ok {
		single, dollar = true, q.Dollar
	}
	bare := func() (place, string) {
		switch {
		case dollar:
			return placeDollar, ""
		case single:
			return placeSingle, ""
		}
		return placeBare, ""
	}
	shape := ""
	var param *syntax.ParamExp
	for _, n := range inner {
		switch n := n.(type) {
		case *syntax.Word:
			shape += "w"
		case *syntax.DblQuoted:
			shape += "d"
		case *syntax.ParamExp:
			shape += "p"
			param = n
		}
	}
	var pattern bool
	if param != nil {
		var reason string
		if pattern, reason = paramWord(param, leaf, inner); reason != "" {
			return 0, reason
		}
		if assignsDefault(param) && !heredoc && !strings.HasSuffix(shape, "dw") {
			return 0, "outside of double quotes the shell may split what ${" + param.Param.Value + ":=...} gives: write \"${...}\""
		}
	}
	switch {
	case heredoc && single, heredoc && strings.Contains(shape, "d"):
		return 0, inUnclear
	case heredoc && shape == "w", heredoc && shape == "wpw" && !pattern:
		return placeQuoted, ""
	case heredoc:
		return 0, inUnclear
	case shape == "w", shape == "wpw":
		return bare()
	case shape == "dw", shape == "dwpw":
		return placeQuoted, ""
	case shape == "wpdw" && !single && pattern:
		return placeBare, ""
	case shape == "wpdw" && !single:
		return placeQuoted, ""
	}
	return 0, inUnclear
}

// paramWord looks at the part of ${x...} that the hole is in: whether it is a
// pattern, or why nothing may stand there.
func paramWord(param *syntax.ParamExp, leaf syntax.Node, inner []syntax.Node) (pattern bool, reason string) {
	if len(inner) == 0 || inner[0] == syntax.Node(param) {
		return false, inName + " (a $ directly before a template; write \\$ for a dollar sign)"
	}
	if param.Param == nil || param.Flags != nil || param.NestedParam != nil || len(param.Modifiers) > 0 {
		return false, inUnclear
	}
	var word syntax.Node
	for i, n := range inner {
		if n == syntax.Node(param) && i > 0 {
			word = inner[i-1]
		}
	}
	switch {
	case param.Exp != nil && word == syntax.Node(param.Exp.Word):
		switch param.Exp.Op {
		case syntax.AlternateUnset, syntax.AlternateUnsetOrNull, syntax.DefaultUnset, syntax.DefaultUnsetOrNull,
			syntax.ErrorUnset, syntax.ErrorUnsetOrNull, syntax.AssignUnset, syntax.AssignUnsetOrNull:
			return false, ""
		case syntax.RemSmallPrefix, syntax.RemLargePrefix, syntax.RemSmallSuffix, syntax.RemLargeSuffix,
			syntax.UpperFirst, syntax.UpperAll, syntax.LowerFirst, syntax.LowerAll:
			return true, ""
		}
		return false, inUnclear
	case param.Repl != nil && word == syntax.Node(param.Repl.Orig):
		return true, ""
	case param.Repl != nil && word == syntax.Node(param.Repl.With):
		return false, "shells treat & and quotes in a replacement differently"
	}
	return false, inArithmetic // an index, or a slice
}

// assignsDefault says that it is ${x:=...}, which gives the value of x: unlike
// ${x:-...}, quotes in it do not protect what comes out.
func assignsDefault(param *syntax.ParamExp) bool {
	return param.Exp != nil && (param.Exp.Op == syntax.AssignUnset || param.Exp.Op == syntax.AssignUnsetOrNull)
}

func quotedDelimiter(w *syntax.Word) bool {
	for _, part := range w.Parts {
		if lit, ok := part.(*syntax.Lit); !ok || strings.Contains(lit.Value, `\`) {
			return true
		}
	}
	return false
}

// sequence says whether the word has a {a..b} with a hole in it.
func (p *placer) sequence(w *syntax.Word) bool {
	if p.lang == syntax.LangPOSIX {
		return false
	}
	for _, part := range w.Parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			continue
		}
		for _, m := range braceSequence.FindAllString(lit.Value, -1) {
			if strings.Contains(m, p.mark) {
				return true
			}
		}
	}
	return false
}

var braceSequence = regexp.MustCompile(`\{[^{},]*\.\.[^{},]*\}`)

// ancestors looks for anything around hole i, at any distance, that would look
// into its value.
func (p *placer) ancestors(i int) string {
	printed := false // the value is text that a command of ours prints
	for k := len(p.stack) - 1; k >= 0; k-- {
		var child syntax.Node
		if k+1 < len(p.stack) {
			child = p.stack[k+1]
		}
		reason := ""
		switch n := p.stack[k].(type) {
		case *syntax.ArithmExp, *syntax.ArithmCmd, *syntax.BinaryArithm, *syntax.UnaryArithm, *syntax.ParenArithm,
			*syntax.FlagsArithm, *syntax.LetClause, *syntax.CStyleLoop:
			reason = inArithmetic
		case *syntax.CmdSubst:
			if n.Backquotes {
				reason = "text in backquotes is parsed twice: use $( )"
			}
		case *syntax.ArrayElem:
			if n.Index != nil && child == syntax.Node(n.Index) {
				reason = inArithmetic
			}
		case *syntax.UnaryTest:
			if n.Op == syntax.TsVarSet || n.Op == syntax.TsRefVar {
				reason = inName
			}
		case *syntax.BinaryTest:
			switch n.Op {
			case syntax.TsEql, syntax.TsNeq, syntax.TsLeq, syntax.TsGeq, syntax.TsLss, syntax.TsGtr:
				reason = inArithmetic + "; [ ] compares numbers without that"
			}
		case *syntax.Assign:
			reason = p.assign(n, child)
		case *syntax.DeclClause:
			reason = p.declare(n, child)
		case *syntax.ParamExp:
			if n.Index != nil && child == syntax.Node(n.Index) || n.Slice != nil && (child == syntax.Node(n.Slice.Offset) || child == syntax.Node(n.Slice.Length)) {
				reason = inArithmetic
			}
		case *syntax.CallExpr:
			words := p.words(n.Args)
			for w := range n.Args {
				if child == syntax.Node(n.Args[w]) {
					reason = p.callReason(words, w)
				}
			}
			if len(words) > 0 && printers[words[0].name()] {
				printed = true
			}
		case *syntax.Stmt:
			if r, ok := child.(*syntax.Redirect); ok {
				if r.Hdoc != nil || r.Op == syntax.WordHdoc || hasProcSubst(r.Word) {
					printed = true
					if p.runsStdin(n.Cmd) {
						reason = "the text would be a program: " + programAdvice
					}
				}
			}
		case *syntax.BinaryCmd:
			if (n.Op == syntax.Pipe || n.Op == syntax.PipeAll) && child == syntax.Node(n.X) && printed && p.runsStdin(n.Y.Cmd) {
				reason = "the text would be piped to an interpreter as its program: " + programAdvice
			}
		case *syntax.CoprocClause:
			if n.Name != nil && child == syntax.Node(n.Name) {
				reason = inName
			}
		case *syntax.TestDecl:
			reason = inUnclear
		}
		if reason != "" {
			return reason
		}
	}
	return ""
}

// assign checks the target of an assignment whose value has a hole.
func (p *placer) assign(a *syntax.Assign, child syntax.Node) string {
	switch {
	case a.Index != nil && child == syntax.Node(a.Index):
		return inArithmetic
	case a.Name == nil:
		return ""
	case child == syntax.Node(a.Name):
		return inName
	case promptVars[a.Name.Value]:
		return "the shell expands the value of " + a.Name.Value + " again"
	case p.ints[a.Name.Value]:
		return inArithmetic + ", because " + a.Name.Value + " is an integer or a reference"
	}
	return ""
}

// declare checks an argument of declare, local, export...: NAME=value with a
// fixed name, and no flag that makes the shell look into the value.
func (p *placer) declare(d *syntax.DeclClause, child syntax.Node) string {
	for _, a := range d.Args {
		if child != syntax.Node(a) {
			if flag := nakedWord(a); strings.HasPrefix(flag, "-") && strings.ContainsAny(flag, "in") {
				return "with " + flag + " the shell looks into the value"
			} else if strings.HasPrefix(flag, "-") && strings.ContainsAny(flag, "aA") && !arrayAssign(child) {
				return "with " + flag + " the shell can parse the value as a list: write name=(...)"
			}
			continue
		}
		if a.Naked && a.Value != nil && !nameFirst(p.text[a.Pos().Offset():a.End().Offset()]) {
			return inName
		}
	}
	return ""
}

func arrayAssign(n syntax.Node) bool {
	a, ok := n.(*syntax.Assign)
	return ok && a.Array != nil
}

func nakedWord(a *syntax.Assign) string {
	if !a.Naked || a.Value == nil {
		return ""
	}
	return a.Value.Lit()
}

// nameFirst says that text, possibly in quotes, starts with a fixed NAME=.
func nameFirst(text string) bool {
	name, _, ok := strings.Cut(strings.TrimLeft(text, `"'`), "=")
	return ok && isIdentifier(name)
}

// promptVars are variables whose values shells expand or execute.
var promptVars = map[string]bool{"PS0": true, "PS1": true, "PS2": true, "PS3": true, "PS4": true,
	"PROMPT_COMMAND": true, "BASH_ENV": true, "ENV": true, "SHELLOPTS": true, "BASHOPTS": true}

// integerVars are the variables with the integer or reference attribute: those
// that are always, and those that the script declares.
func integerVars(f *syntax.File) map[string]bool {
	ints := map[string]bool{"RANDOM": true, "SRANDOM": true, "SECONDS": true, "LINENO": true, "HISTCMD": true,
		"OPTIND": true, "BASHPID": true, "EPOCHSECONDS": true}
	syntax.Walk(f, func(n syntax.Node) bool {
		d, ok := n.(*syntax.DeclClause)
		if !ok {
			return true
		}
		special := d.Variant.Value == "integer" || d.Variant.Value == "nameref"
		for _, a := range d.Args {
			flag := nakedWord(a)
			special = special || strings.HasPrefix(flag, "-") && strings.ContainsAny(flag, "in")
		}
		for _, a := range d.Args {
			if special && a.Name != nil {
				ints[a.Name.Value] = true
			}
		}
		return true
	})
	return ints
}

func hasProcSubst(w *syntax.Word) bool {
	for _, part := range w.Parts {
		if _, ok := part.(*syntax.ProcSubst); ok {
			return true
		}
	}
	return false
}
