package spec

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/expr-lang/expr/vm"
)

// Limits of one expression. They stand far above what people write and well
// below what would exhaust a stack or a second.
const (
	maxExprSource = 64 << 10
	maxExprDepth  = 200
	maxExprs      = 20000 // per Scope, that is about per function
)

// Expr is a compiled expression. It is safe for concurrent use.
//
// The names of the language do not reach the expression library as they are:
// "params.year" becomes one variable of that name, and so do run.id and
// needs.f.count. That way a wrong name is found with its position and its
// type is known, and evaluating fills in only what the expression uses.
type Expr struct {
	Pos    Pos
	Source string // without braces

	refs  Refs
	binds []bind

	// A plain chain of names (item.path, params.x) needs no program:
	// it is binds[0] and these fields of it.
	path []string

	program *vm.Program
	ticks   bool      // the program has loops, so it needs a budget
	pool    sync.Pool // of *runner
}

// CompileExpr compiles an expression that stands without braces. at gives the
// position of a byte offset in src.
func CompileExpr(src string, at func(off int) Pos, sc *Scope) (*Expr, Problems) {
	e, _, problems := compileExpr(src, at, sc)
	return e, problems
}

// CompileCondition compiles the expression of if, where and when, which may
// stand in ${{ }} or not. What cannot be a bool is a problem.
func CompileCondition(src string, at func(off int) Pos, sc *Scope) (*Expr, Problems) {
	start := len(src) - len(strings.TrimLeft(src, " \t\r\n"))
	inner := strings.TrimSpace(src)
	if strings.HasPrefix(inner, openBrace) {
		end, ok := closeOf(inner, len(openBrace))
		switch {
		case !ok:
			return nil, Problems{{Pos: at(start), Message: unclosed}}
		case end+len(closeBrace) != len(inner):
			return nil, Problems{{Pos: at(start + end + len(closeBrace)),
				Message: "text behind ${{ }}: a condition is one expression; write all of it inside the braces, or none"}}
		}
		inner = inner[len(openBrace):end]
		start += len(openBrace)
	} else if i := strings.Index(inner, openBrace); i >= 0 {
		return nil, Problems{{Pos: at(start + i),
			Message: "${{ inside a condition: the whole condition is an expression already; leave the braces out"}}
	}
	e, kind, problems := compileExpr(inner, func(off int) Pos { return at(start + off) }, sc)
	if len(problems) == 0 && kind != "" && kind != "bool" {
		problems = Problems{{Pos: e.Pos, Message: fmt.Sprintf(
			"the condition %s gives %s, it must be true or false", quoteSource(e.Source), kindName(kind))}}
		e = nil
	}
	return e, problems
}

// Refs is the names that the expression uses.
func (e *Expr) Refs() Refs { return e.refs }

// Excuses says whether an "if" itself decides what becomes of a function when
// this need ended with this status, not succeeded: it calls success(),
// failure() or always(), or it looks at needs.<need>.status or, where that
// failed, .failed. Without e nothing is excused.
func (e *Expr) Excuses(need, status string) bool {
	return e != nil && (e.refs.Status || slices.Contains(e.refs.NeedStatus, need) ||
		status == "failed" && slices.Contains(e.refs.NeedFailed, need))
}

// RunsIf decides the "if" of a function whose needs (all of env.Needs) have
// all ended: every need succeeded or is excused, and the expression is true.
// A nil e is success().
func (e *Expr) RunsIf(env *Env) (bool, error) {
	for name, n := range env.Needs {
		if n != nil && n.Status != "succeeded" && !e.Excuses(name, n.Status) {
			return false, nil
		}
	}
	if e == nil {
		return true, nil
	}
	return e.Bool(env)
}

// success: every needed function succeeded.
func (env *Env) success() bool {
	for _, n := range env.Needs {
		if n != nil && n.Status != "succeeded" {
			return false
		}
	}
	return true
}

// failure: some needed function failed, or was skipped because of one that
// did.
func (env *Env) failure() bool {
	for _, n := range env.Needs {
		if n != nil && (n.Status == "failed" || n.BehindFailure) {
			return true
		}
	}
	return false
}

// quoteSource shortens an expression for a message.
func quoteSource(src string) string {
	src = strings.Join(strings.Fields(src), " ")
	if r := []rune(src); len(r) > 60 {
		src = string(r[:57]) + "..."
	}
	return "${{ " + src + " }}"
}
