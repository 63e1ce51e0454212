package spec

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/optimizer"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
)

// builtins are the functions of the expression library, by name.
var builtins = func() conf.FunctionsTable {
	t := conf.FunctionsTable{}
	for _, f := range builtin.Builtins {
		t[f.Name] = f
	}
	return t
}()

func functionNames() []string {
	names := append([]string(nil), builtin.Names...)
	for name := range functions {
		if !strings.HasPrefix(name, "$") {
			names = append(names, name)
		}
	}
	return append(names, statusFuncs...)
}

// compileExpr compiles an expression; kind is the name of its static type, ""
// if that is only known when it runs.
func compileExpr(src string, at func(off int) Pos, sc *Scope) (e *Expr, kind string, problems Problems) {
	if sc == nil {
		sc = &Scope{}
	}
	c := &exprCompiler{src: src, at: at, sc: sc, expr: &Expr{Source: strings.TrimSpace(src)}, seen: map[string]bool{}}
	first := len(src) - len(strings.TrimLeft(src, " \t\r\n"))
	c.expr.Pos = at(first)
	defer func() {
		// The library is not ours: whatever it trips over is the expression's
		// problem, never a crash.
		if r := recover(); r != nil {
			e, kind = nil, ""
			problems = Problems{{Pos: c.expr.Pos, Message: fmt.Sprintf("%s cannot be compiled: %v", quoteSource(src), r)}}
		}
	}()
	switch {
	case strings.TrimSpace(src) == "":
		c.problem(first, "the expression is empty")
	case len(src) > maxExprSource:
		c.problem(first, fmt.Sprintf("the expression has %d bytes, %d is the limit: compute it in a script", len(src), maxExprSource))
	case c.sc.compiled >= maxExprs:
		c.problem(first, fmt.Sprintf("more than %d expressions: use a file of items", maxExprs))
	case nesting(src) > maxExprDepth:
		c.problem(first, fmt.Sprintf("the expression is nested deeper than %d levels", maxExprDepth))
	default:
		if kind, ok := c.plainChain(first); ok {
			return c.done(kind)
		}
		c.sc.compiled++
		kind = c.compile()
		return c.done(kind)
	}
	return c.done("")
}

// nesting is the depth of brackets, and of operators that nest without one.
func nesting(src string) int {
	depth, deepest, run := 0, 0, 0
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case '!', '-', '+', '?', ':':
			run++
		case '"', '\'', '`':
			i = skipQuoted(src, i) - 1
		}
		deepest = max(deepest, depth)
	}
	// "not not not ..." and "a ? b : a ? b : ..." recurse as well.
	run += strings.Count(src, "not ")
	if run > 5*maxExprDepth {
		return run
	}
	return deepest
}

type exprCompiler struct {
	src      string
	at       func(off int) Pos
	sc       *Scope
	expr     *Expr
	problems Problems
	seen     map[string]bool // bound variables
	lets     []string        // names of let
	opt      int             // inside an optional chain (a?.b)
}

func (c *exprCompiler) done(kind string) (*Expr, string, Problems) {
	if len(c.problems) > 0 {
		return nil, "", c.problems
	}
	return c.expr, kind, nil
}

func (c *exprCompiler) problem(off int, msg string) {
	c.problems = append(c.problems, Problem{Pos: c.at(off), Message: msg})
}

// offset turns a place of the library, which counts characters, into a byte
// offset.
func (c *exprCompiler) offset(loc file.Location) int {
	n := 0
	for i := range c.src {
		if n == loc.From {
			return i
		}
		n++
	}
	return len(c.src)
}

func (c *exprCompiler) nodeProblem(n ast.Node, err error) {
	c.problem(c.offset(n.Location()), err.Error())
}

// column notes that the expression takes a key from a row.
func (c *exprCompiler) column(s *Shape, name string, off int) {
	if s != nil && s.Row != nil {
		c.expr.refs.Columns = append(c.expr.refs.Columns, Column{Name: name, Map: *s.Row, Pos: c.at(off)})
	}
}

func (c *exprCompiler) bind(b bind) {
	c.expr.refs.note(b, c.sc)
	if !c.seen[b.key] {
		c.seen[b.key] = true
		c.expr.binds = append(c.expr.binds, b)
	}
}

// plainChain handles a.b.c without the library: nearly every template is one.
func (c *exprCompiler) plainChain(first int) (kind string, ok bool) {
	parts := strings.Split(c.expr.Source, ".")
	for _, p := range parts {
		if !isIdentifier(p) {
			return "", false
		}
	}
	if !isReserved(parts[0]) {
		return "", false // true, false, nil, functions and mistakes
	}
	b, used, err := c.sc.root(parts[0], parts[1:])
	if err != nil {
		c.problem(first, err.Error())
		return "", true
	}
	rest := parts[1+used:]
	if len(rest) > 0 && b.kind != bindItem && b.kind != bindNeedResult {
		return "", false // a method of a time, or a type error: the library knows
	}
	if b.kind == bindItem {
		shape, off := c.sc.ItemShape, first+len("item")
		for _, f := range rest {
			c.column(shape, f, off+1)
			if shape, err = shape.field(f); err != nil {
				c.problem(off+1, err.Error())
				return "", true
			}
			off += 1 + len(f)
		}
	}
	c.bind(b)
	c.expr.path = rest
	if len(rest) == 0 {
		kind = b.typeName(c.sc)
	}
	return kind, true
}

func isIdentifier(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// compile is the way through the library: parse, resolve names, check types,
// let files act as text, check again, emit.
func (c *exprCompiler) compile() (kind string) {
	cfg := &conf.Config{
		Optimize:     true,
		ShortCircuit: true,
		MaxNodes:     conf.DefaultMaxNodes,
		ConstFns:     map[string]reflect.Value{},
		Functions:    functions,
		Builtins:     builtins,
		Disabled:     map[string]bool{},
	}
	tree, err := parser.ParseWithConfig(c.src, cfg)
	if err != nil {
		c.libraryProblem(err)
		return ""
	}
	c.resolve(&tree.Node)
	if len(c.problems) > 0 {
		return ""
	}
	env := types.Map{}
	for _, b := range c.expr.binds {
		env[b.key] = typeOf(b.typeName(c.sc))
	}
	env["$budget"] = types.Any
	cfg.WithEnv(env)
	cfg.Strict = true
	t, err := checker.Check(tree, cfg)
	if err != nil {
		c.libraryProblem(err)
		return ""
	}
	if t.Kind() != reflect.Interface {
		kind = t.String()
	}
	c.textual(&tree.Node)
	if _, err := checker.Check(tree, cfg); err != nil {
		c.libraryProblem(err)
		return ""
	}
	if err := optimizer.Optimize(&tree.Node, cfg); err != nil {
		c.libraryProblem(err)
		return ""
	}
	if c.expr.program, err = compiler.Compile(tree, cfg); err != nil {
		c.libraryProblem(err)
		return ""
	}
	return kind
}

func (c *exprCompiler) libraryProblem(err error) {
	var fe *file.Error
	if !errors.As(err, &fe) {
		c.problem(0, err.Error())
		return
	}
	c.problem(c.offset(fe.Location), friendlier(fe.Message))
}

func typeOf(name string) types.Type {
	switch name {
	case "string":
		return types.String
	case "int":
		return types.Int
	case "float":
		return types.Float64
	case "bool":
		return types.Bool
	case "time":
		return types.TypeOf(time.Time{})
	case "env":
		return types.TypeOf(map[string]string{})
	case "params":
		return types.TypeOf(map[string]any{})
	}
	return types.Any
}

// kindName is a static type in words.
func kindName(kind string) string {
	switch kind {
	case "string":
		return "text"
	case "int", "float64", "float":
		return "a number"
	case "time.Time", "time":
		return "a time"
	case "bool":
		return "true or false"
	case "nil":
		return "null"
	}
	switch {
	case strings.HasPrefix(kind, "[]"):
		return "a list"
	case strings.HasPrefix(kind, "map["), kind == "env", kind == "params":
		return "a mapping"
	}
	return kind
}

// friendlier rewords what the library says in terms of Go.
func friendlier(msg string) string {
	msg, _, _ = strings.Cut(msg, "\n")
	if rest, ok := strings.CutPrefix(msg, "interface conversion: interface {} is "); ok {
		if is, want, ok := strings.Cut(rest, ", not "); ok {
			return fmt.Sprintf("%s where %s is needed", kindName(goName(is)), kindName(goName(want)))
		}
	}
	if strings.HasPrefix(msg, "unexpected token EOF") || msg == "unexpected end of expression" {
		return "the expression ends too early"
	}
	if textAndNumber.MatchString(msg) {
		msg += ": int(...) or float(...) makes a number of text, string(...) text of a number"
	}
	return goName(msg)
}

// textAndNumber is how the library says that an operator got both.
var textAndNumber = regexp.MustCompile(`^invalid operation: .*(\bstring\b.*\b(int|float64)\b|\b(int|float64)\b.*\bstring\b)`)

var goNames = strings.NewReplacer("interface {}", "any", "*value.Object", "mapping", "*value.File", "file", "<nil>", "null")

func goName(s string) string { return goNames.Replace(s) }
