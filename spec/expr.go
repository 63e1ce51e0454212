package spec

// Expr is a compiled expression. It is safe for concurrent use.
type Expr struct {
	Pos    Pos
	Source string // without braces
	refs   Refs
}

// CompileExpr compiles an expression that stands without braces. at gives the
// position of a byte offset in src.
func CompileExpr(src string, at func(off int) Pos, sc *Scope) (*Expr, Problems) {
	return &Expr{Pos: at(0), Source: src}, nil
}

// CompileCondition compiles the expression of if, where and when, which may
// stand in ${{ }} or not. What cannot be a bool is a problem.
func CompileCondition(src string, at func(off int) Pos, sc *Scope) (*Expr, Problems) {
	return CompileExpr(src, at, sc)
}

// Eval evaluates the expression.
func (e *Expr) Eval(env *Env) (any, error) { return nil, nil }

// Bool evaluates a condition; a result that is not a bool is an error.
func (e *Expr) Bool(env *Env) (bool, error) { return false, nil }

// Refs is the names that the expression uses.
func (e *Expr) Refs() Refs { return e.refs }

// UsesStatus says whether the expression calls success(), failure() or
// always(). An "if" that does not is true only if success() is too: see RunsIf.
func (e *Expr) UsesStatus() bool { return e.refs.Status }

// RunsIf decides the "if" of a function whose needs have all ended: the
// expression and, unless it calls one of the status functions, success(). A
// nil e is success().
func (e *Expr) RunsIf(env *Env) (bool, error) { return false, nil }
