package spec

import (
	"fmt"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// MaxTemplate is the largest text that a template may render to.
const MaxTemplate = 100 << 10

// Static is the text of a template without expressions.
func (t *Template) Static() (string, bool) {
	for _, p := range t.parts {
		if p.expr != nil {
			return "", false
		}
	}
	return t.Source, true
}

// Refs is the names that the template uses.
func (t *Template) Refs() Refs {
	var r Refs
	for _, p := range t.parts {
		if p.expr != nil {
			r = r.Merge(p.expr.refs)
		}
	}
	return r
}

// Eval is the value of the template: of exactly one ${{ }} the value as it is
// (mappings as *value.Object or map[string]any), otherwise text.
func (t *Template) Eval(env *Env) (any, error) {
	if len(t.parts) == 1 && t.parts[0].expr != nil {
		e := t.parts[0].expr
		v, err := e.Eval(env)
		if err != nil {
			return nil, err
		}
		if value.HasNUL(v) {
			return nil, nulError(e.Source)
		}
		return v, nil
	}
	return t.Text(env)
}

// Text renders the template as text. Over MaxTemplate bytes, or with a NUL, is
// an error.
func (t *Template) Text(env *Env) (string, error) {
	if s, ok := t.Static(); ok {
		return s, nil
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		s, err := p.expr.text(env)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	if b.Len() > MaxTemplate {
		return "", tooLarge(t.Source, b.Len(), t.Refs())
	}
	return b.String(), nil
}

// text renders one expression within the limits of Template.Text.
func (e *Expr) text(env *Env) (string, error) {
	v, err := e.Eval(env)
	if err != nil {
		return "", err
	}
	s := value.Text(v)
	if len(s) > MaxTemplate {
		return "", tooLarge(quoteSource(e.Source), len(s), e.refs)
	}
	if value.HasNUL(v) {
		return "", nulError(e.Source)
	}
	return s, nil
}

func nulError(src string) error {
	return fmt.Errorf("%s: the value has a NUL byte, which no program can be given", quoteSource(src))
}

func tooLarge(src string, size int, refs Refs) error {
	where := "hand it over in a file"
	switch {
	case len(refs.Needs) > 0:
		where = fmt.Sprintf("read $COILED_JOBS_NEEDS/%s.jsonl instead", refs.Needs[0])
	case refs.Item:
		where = "read the file $COILED_JOBS_ITEM_FILE instead"
	}
	if r := []rune(src); len(r) > 80 {
		src = string(r[:77]) + "..."
	}
	return fmt.Errorf("%s: the text has %d KiB, a template may have %d: %s", src, (size+1023)>>10, MaxTemplate>>10, where)
}

// Eval is the value with its templates evaluated; mappings become
// *value.Object in the order of the file.
func (v *Value) Eval(env *Env) (any, error) { return v.eval(env, (*Template).Eval) }

// EvalTask is Eval for values that go to a task: the limits of Template.Text
// hold for the JSON of every template in it.
func (v *Value) EvalTask(env *Env) (any, error) {
	return v.eval(env, func(t *Template, env *Env) (any, error) {
		x, err := t.Eval(env)
		if err != nil {
			return nil, err
		}
		switch x.(type) {
		case []any, map[string]any, *value.Object, string:
			if s := value.Text(x); len(s) > MaxTemplate {
				return nil, tooLarge(t.Source, len(s), t.Refs())
			}
		}
		return x, nil
	})
}

func (v *Value) eval(env *Env, leaf func(*Template, *Env) (any, error)) (any, error) {
	switch {
	case v == nil:
		return nil, nil
	case v.Template != nil:
		return leaf(v.Template, env)
	case v.List != nil:
		list := make([]any, len(v.List))
		for i, e := range v.List {
			var err error
			if list[i], err = e.eval(env, leaf); err != nil {
				return nil, err
			}
		}
		return list, nil
	case v.Map != nil:
		o := value.NewObject(make([]string, len(v.Map)), make([]any, len(v.Map)))
		for i, e := range v.Map {
			x, err := e.Value.eval(env, leaf)
			if err != nil {
				return nil, err
			}
			o.Keys[i], o.Vals[i] = e.Name, x
		}
		return o, nil
	}
	return v.Literal, nil
}

// Text is the value as text: a literal scalar as its source text, lists and
// mappings as compact JSON.
func (v *Value) Text(env *Env) (string, error) {
	switch {
	case v == nil:
		return "", nil
	case v.Template != nil:
		return v.Template.Text(env)
	case v.List != nil || v.Map != nil:
		x, err := v.EvalTask(env)
		if err != nil {
			return "", err
		}
		s := value.Text(x)
		if r := v.Refs(); len(s) > MaxTemplate && !r.empty() {
			return "", tooLarge("the value", len(s), r)
		}
		return s, nil
	case v.Source != "":
		return v.Source, nil
	case v.Literal == nil: // nothing, or "" in quotes
		return "", nil
	}
	return value.Text(v.Literal), nil
}

// Refs is the names that the value's templates use.
func (v *Value) Refs() Refs {
	var r Refs
	switch {
	case v == nil:
	case v.Template != nil:
		return v.Template.Refs()
	default:
		for _, e := range v.List {
			r = r.Merge(e.Refs())
		}
		for _, e := range v.Map {
			r = r.Merge(e.Value.Refs())
		}
	}
	return r
}

// empty says that nothing is used.
func (r Refs) empty() bool {
	return r.Static() && !r.Env && len(r.Params) == 0
}
