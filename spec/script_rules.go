package spec

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// The rules about commands: which of their words are program text.

const programAdvice = "give the value as an argument, or put it into env"

const inProgram = "the value would be part of a program text: " + programAdvice

// cmdWord is a word of a command, as far as it is known before it runs.
type cmdWord struct {
	text   string // the literal text at its start
	static bool   // text is all of it
	holes  []int
	proc   bool // it has a <( )
}

func (w cmdWord) templated() bool { return len(w.holes) > 0 }

// name is the command that the word names: without folder and version.
func (w cmdWord) name() string {
	if !w.static {
		return ""
	}
	base := path.Base(w.text)
	if t := strings.TrimRight(base, "0123456789.-"); t != "" && base != "." {
		return t
	}
	return base
}

func (p *placer) words(args []*syntax.Word) []cmdWord {
	words := make([]cmdWord, len(args))
	for i, a := range args {
		w := cmdWord{static: true}
		p.literal(a.Parts, &w)
		first, last := p.within(int(a.Pos().Offset()), int(a.End().Offset()))
		for h := first; h < last; h++ {
			w.holes = append(w.holes, h)
		}
		words[i] = w
	}
	return words
}

// literal collects the literal text at the start of a word.
func (p *placer) literal(parts []syntax.WordPart, w *cmdWord) {
	for _, part := range parts {
		if _, ok := part.(*syntax.ProcSubst); ok {
			w.proc = true
		}
		if !w.static {
			continue
		}
		text := ""
		switch n := part.(type) {
		case *syntax.Lit:
			text = strings.ReplaceAll(n.Value, `\`, "")
		case *syntax.SglQuoted:
			text = n.Value
		case *syntax.DblQuoted:
			p.literal(n.Parts, w)
			continue
		default:
			w.static = false
			continue
		}
		if before, _, ok := strings.Cut(text, p.mark); ok {
			text = before
			w.static = false
		}
		w.text += text
	}
}

// printers only print or test their arguments: a word of theirs that happens
// to be called like an interpreter is not one.
var printers = map[string]bool{"echo": true, "printf": true, "cat": true, "tee": true, "grep": true, "egrep": true, "fgrep": true,
	"rg": true, "test": true, "[": true, "mkdir": true, "cp": true, "mv": true, "ls": true, "rm": true, "touch": true,
	"head": true, "tail": true, "wc": true, "sort": true, "cut": true, "tr": true, "git": true}

// interpreter says how a program takes program text on its command line.
type interpreter struct {
	code     string   // letters of options whose argument is program text
	long     []string // long ones
	args     string   // letters of options with another argument
	longArgs []string
	attached string // letters after which the rest of the word is theirs
	shell    bool   // -c applies to the first argument, wherever it stands
	module   string // letters after which the rest are arguments of a module
	stdin    bool   // without a file it runs what it reads
}

var (
	shellInterp = interpreter{code: "c", args: "oO", longArgs: []string{"--rcfile", "--init-file"}, shell: true, stdin: true}
	dashE       = interpreter{code: "eE", long: []string{"--eval", "--execute", "--expression"}, stdin: true}

	interpreters = map[string]interpreter{
		"python": {code: "c", args: "WX", module: "m", stdin: true},
		"perl":   {code: "eE", args: "I", attached: "iMmFDxCV0l", stdin: true},
		"ruby":   {code: "e", args: "rIC", attached: "iFETWxK0", stdin: true},
		"node": {code: "ep", long: []string{"--eval", "--print"}, args: "rC",
			longArgs: []string{"--require", "--import", "--loader", "--conditions", "--env-file"}, stdin: true},
		"php": {code: "rBRE", long: []string{"--run", "--process-begin", "--process-code", "--process-end"}, args: "cdzf", stdin: true},
		"lua": {code: "e", args: "l", stdin: true},
		"R":   {code: "e", args: "f", stdin: true}, "Rscript": {code: "e", stdin: true},
		"julia":      {code: "eE", long: []string{"--eval", "--print"}, args: "LJCptmH", stdin: true},
		"octave":     {long: []string{"--eval"}, stdin: true},
		"deno":       {long: []string{"eval"}},
		"powershell": {long: []string{"-c", "-C", "-Command", "-command", "-e", "-EncodedCommand"}, stdin: true},
	}
)

func init() {
	for _, n := range []string{"bash", "rbash", "sh", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh"} {
		interpreters[n] = shellInterp
	}
	for _, n := range []string{"groovy", "scala", "elixir", "clojure", "ghc", "raku", "osascript", "guile", "racket", "luajit", "emacs", "tclsh", "expect", "erl"} {
		interpreters[n] = dashE
	}
	for alias, n := range map[string]string{"pypy": "python", "ipython": "python", "nodejs": "node", "bun": "node", "pwsh": "powershell"} {
		interpreters[alias] = interpreters[n]
	}
}

// callReason says why a hole may not stand in word w of a command; "" if it
// may.
func (p *placer) callReason(words []cmdWord, w int) string {
	if w == 0 {
		return "" // the value is the name of the command: one word, not parsed
	}
	if reason := p.builtinReason(words, w); reason != "" {
		return reason
	}
	if slices.Contains(programWords(words), w) {
		return inProgram
	}
	// A number is no program, whatever stands around it.
	if slices.Contains(filterWords(words), w) && slices.ContainsFunc(words[w].holes, func(i int) bool { return !p.number[i] }) {
		return inProgram
	}
	return ""
}

// runsStdin says whether a command runs what it reads from its standard input.
func (p *placer) runsStdin(cmd syntax.Command) bool {
	found := false
	if cmd == nil {
		return false
	}
	syntax.Walk(cmd, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CallExpr:
			found = found || readsProgram(p.words(n.Args))
		case *syntax.CmdSubst, *syntax.ProcSubst, *syntax.FuncDecl:
			return false
		}
		return !found
	})
	return found
}

// readsProgram says whether one of the words of a command is an interpreter
// without a program of its own.
func readsProgram(words []cmdWord) bool {
	if len(words) == 0 || printers[words[0].name()] {
		return false
	}
	for i, w := range words {
		name := w.name()
		switch name {
		case "source", ".":
			if i == 0 && len(words) > 1 && (words[1].text == "/dev/stdin" || words[1].text == "/dev/fd/0") {
				return true
			}
		case "at", "batch", "crontab":
			if i == 0 {
				return true
			}
		case "ssh":
			if host := sshHost(words[i+1:]); host >= 0 && len(words[i+1:]) == host+1 {
				return true
			}
		}
		if in, ok := interpreters[name]; ok && in.stdin {
			if _, file := in.program(words[i+1:]); !file {
				return true
			}
		}
		if i == 0 && !w.static && len(words) == 1 {
			return true // "$SHELL" alone
		}
	}
	return false
}

// programWords are the words of a command that are program text.
func programWords(words []cmdWord) []int {
	var all []int
	if printers[words[0].name()] {
		return nil
	}
	for i, w := range words {
		rest := words[i+1:]
		add := func(ks ...int) {
			for _, k := range ks {
				all = append(all, i+1+k)
			}
		}
		everything := func(from int) {
			for k := from; k >= 0 && k < len(rest); k++ {
				add(k)
			}
		}
		name := w.name()
		if in, ok := interpreters[name]; ok {
			program, _ := in.program(rest)
			add(program...)
			continue
		}
		switch name {
		case "eval":
			if i == 0 || words[i-1].text == "command" || words[i-1].text == "builtin" {
				everything(0)
			}
		case "ssh":
			if host := sshHost(rest); host >= 0 {
				everything(host + 1)
			}
		case "su", "script", "flock", "runuser":
			in := interpreter{code: "c", long: []string{"--command"}}
			for k := range rest {
				program, _ := in.program(rest[k:])
				for _, x := range program {
					add(k + x)
				}
			}
		case "env":
			in := interpreter{code: "S", long: []string{"--split-string"}, args: "uC"}
			program, _ := in.program(rest)
			add(program...)
		}
		if i > 0 {
			continue
		}
		switch name {
		case "trap", "alias", "watch", "compgen", "complete", "bind":
			everything(0)
		case "source", ".":
			if len(rest) > 0 && rest[0].proc {
				add(0)
			}
		case "parallel":
			for k := 0; k < len(rest) && !strings.HasPrefix(rest[k].text, ":::"); k++ {
				add(k)
			}
		case "":
			// "$PYTHON" -c ...: whatever it is, -c and -e look like program text.
			in := interpreter{code: "ceE", shell: true}
			program, _ := in.program(rest)
			add(program...)
		}
	}
	return all
}

// program finds the words that are program text among an interpreter's
// arguments, and whether it has a program other than its standard input.
func (in interpreter) program(words []cmdWord) (text []int, given bool) {
	pending := false // a shell's -c was seen: the first argument is the text
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w.text == "" || !isOption(w.text, in.shell):
			if eq := slices.Index(in.long, w.text); eq >= 0 { // deno eval
				return append(text, i+1), true
			}
			if pending || w.proc { // bash <(...)
				text = append(text, i)
			}
			return text, true // a file, or the text; what follows are its arguments
		case w.static && w.text == "-":
			return text, len(text) > 0
		case w.static && w.text == "--":
			if pending {
				text = append(text, i+1)
			}
			return text, i+1 < len(words) || len(text) > 0
		}
		if name, _, eq := strings.Cut(w.text, "="); slices.Contains(in.long, name) {
			if eq {
				text = append(text, i)
			} else {
				i++
				text = append(text, i)
			}
			continue
		}
		if strings.HasPrefix(w.text, "--") {
			if w.static && slices.Contains(in.longArgs, w.text) {
				i++
			}
			continue
		}
		skip := false
	letters:
		for k := 1; k < len(w.text); k++ {
			c := w.text[k]
			last := k == len(w.text)-1 && w.static
			switch {
			case strings.IndexByte(in.code, c) >= 0 && in.shell:
				pending = true
				if !w.static {
					text = append(text, i)
				}
			case strings.IndexByte(in.code, c) >= 0 && w.static && k+1 < len(w.text) && strings.IndexByte(in.code, w.text[k+1]) >= 0:
				// node -pe
			case strings.IndexByte(in.code, c) >= 0:
				if last {
					i++
				}
				text = append(text, i)
				if in.module != "" {
					return text, true // the rest are arguments
				}
				break letters
			case strings.IndexByte(in.module, c) >= 0 && in.module != "":
				return text, true
			case strings.IndexByte(in.args, c) >= 0:
				skip = last
				if !in.shell {
					break letters
				}
			case strings.IndexByte(in.attached, c) >= 0:
				break letters
			case in.shell && c == 's' && !pending:
				return text, false // the rest are arguments
			}
		}
		if skip {
			i++
		}
	}
	return text, len(text) > 0
}

func isOption(text string, plus bool) bool {
	return text[0] == '-' || plus && text[0] == '+'
}

// sshHost is the index of the host among ssh's arguments, -1 without one.
func sshHost(words []cmdWord) int {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if len(w.text) < 2 || w.text[0] != '-' {
			return i
		}
		if w.static && strings.ContainsAny(w.text[len(w.text)-1:], "bcDEeFIiJLlmOopQRSWw") {
			i++
		}
	}
	return -1
}

// builtinReason knows the shell's own commands that take names of variables,
// whose subscripts the shell evaluates, or arithmetic.
func (p *placer) builtinReason(words []cmdWord, w int) string {
	for len(words) > 1 && w > 0 && (words[0].name() == "command" || words[0].name() == "builtin") {
		words, w = words[1:], w-1
	}
	if w == 0 || !words[0].static {
		return ""
	}
	before := words[w-1]
	switch words[0].text {
	case "let":
		return inArithmetic
	case "unset", "getopts":
		return inName
	case "read":
		if before.static && len(before.text) == 2 && before.text[0] == '-' && strings.ContainsAny(before.text[1:], "dinNptu") {
			return ""
		}
		return inName
	case "mapfile", "readarray":
		if before.static && len(before.text) == 2 && before.text[0] == '-' && strings.ContainsAny(before.text[1:], "dnOsuc") {
			return ""
		}
		return inName
	case "printf", "wait":
		if before.text == "-v" || before.text == "-p" || strings.HasPrefix(words[w].text, "-v") {
			return inName
		}
	case "test", "[":
		if before.text == "-v" || before.text == "-R" {
			return inName
		}
		if p.lang == syntax.LangZsh || p.lang == syntax.LangMirBSDKorn {
			for _, x := range words { // these evaluate both sides
				if slices.Contains([]string{"-eq", "-ne", "-lt", "-le", "-gt", "-ge"}, x.text) {
					return inArithmetic
				}
			}
		}
	case "export", "readonly", "local", "declare", "typeset":
		if !nameFirst(words[w].text) {
			return inName
		}
		if name, _, _ := strings.Cut(words[w].text, "="); promptVars[name] {
			return "the shell expands the value of " + name + " again"
		}
	}
	return ""
}
