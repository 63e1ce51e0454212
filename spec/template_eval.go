package spec

// MaxTemplate is the largest text that a template may render to.
const MaxTemplate = 100 << 10

// ParseTemplate parses a string with ${{ }} expressions in it.
func ParseTemplate(src string, at func(off int) Pos, sc *Scope) (*Template, Problems) {
	return &Template{Pos: at(0), Source: src}, nil
}

// HasTemplate says whether s contains a ${{.
func HasTemplate(s string) bool { return false }

// Eval is the value of the template: of exactly one ${{ }} the value as it is
// (mappings as *value.Object or map[string]any), otherwise text.
func (t *Template) Eval(env *Env) (any, error) { return nil, nil }

// Text renders the template as text. Over MaxTemplate bytes, or with a NUL, is
// an error.
func (t *Template) Text(env *Env) (string, error) { return "", nil }

// Static is the text of a template without expressions.
func (t *Template) Static() (string, bool) { return "", false }

// Refs is the names that the template uses.
func (t *Template) Refs() Refs { return Refs{} }

// Eval is the value with its templates evaluated; mappings become
// *value.Object in the order of the file.
func (v *Value) Eval(env *Env) (any, error) { return nil, nil }

// EvalTask is Eval for values that go to a task: the limits of Template.Text
// hold for the JSON of every template in it.
func (v *Value) EvalTask(env *Env) (any, error) { return nil, nil }

// Text is the value as text: a literal scalar as its source text, lists and
// mappings as compact JSON.
func (v *Value) Text(env *Env) (string, error) { return "", nil }

// Refs is the names that the value's templates use.
func (v *Value) Refs() Refs { return Refs{} }
