package spec

// Template is a string with ${{ }} expressions in it, parsed and compiled.
// See expr.go for how it is parsed and evaluated.
type Template struct {
	Pos    Pos
	Source string
	parts  []part
}

// part is literal text, or an expression if expr is set.
type part struct {
	text string
	expr *Expr
}

// Value is a YAML value that may contain templates: a literal scalar, a
// template, a list (List is not nil) or a mapping (Map is not nil).
type Value struct {
	Pos      Pos
	Literal  any    // nil, bool, int, float64 or string
	Source   string // the source text of a literal scalar
	Template *Template
	// Spread: the template stands for the whole list (command, args) or mapping
	// (kwargs), of which this is then the only element; see EvalList, EvalObject.
	Spread bool
	List   []*Value
	Map    []NamedValue
}
