package spec

import (
	"fmt"
	"maps"
	"slices"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// This file is about templates that stand for a whole list or mapping:
// kwargs: ${{ item }}.

// single is the expression of a template that is exactly one.
func (t *Template) single() (*Expr, bool) {
	if len(t.parts) == 1 && t.parts[0].expr != nil {
		return t.parts[0].expr, true
	}
	return nil, false
}

// Texts renders a template in a list of texts: a list that it yields is
// several of them.
func (t *Template) Texts(env *Env) ([]string, error) {
	e, ok := t.single()
	if !ok {
		s, err := t.Text(env)
		return []string{s}, err
	}
	v, err := e.Eval(env)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		s, err := t.Text(env)
		return []string{s}, err
	}
	texts := make([]string, len(list))
	for i, x := range list {
		if value.HasNUL(x) {
			return nil, nulError(e.Source)
		}
		texts[i] = value.Text(x)
	}
	return texts, nil
}

// EvalList is the list that a Spread template yields.
func (v *Value) EvalList(env *Env) ([]any, error) {
	x, err := v.EvalTask(env)
	if err != nil {
		return nil, err
	}
	list, ok := x.([]any)
	if !ok {
		return nil, v.notA("list", x)
	}
	return list, nil
}

// EvalObject is the mapping that a Spread template yields.
func (v *Value) EvalObject(env *Env) (*value.Object, error) {
	x, err := v.EvalTask(env)
	if err != nil {
		return nil, err
	}
	switch x := x.(type) {
	case *value.Object:
		return x, nil
	case map[string]any:
		o := &value.Object{}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			o.Set(k, x[k])
		}
		return o, nil
	}
	return nil, v.notA("mapping", x)
}

func (v *Value) notA(what string, x any) error {
	text := []rune(value.Text(x))
	if len(text) > 60 {
		text = append(text[:57], []rune("...")...)
	}
	return fmt.Errorf("%s: needs a %s, found %s", v.Template.Source, what, string(text))
}

// checkWhole reads a template in the place of a list or mapping whose
// elements belong to a task. It is for later unless params and env are enough
// to evaluate it now.
func (d *decoder) checkWhole(f *field, n *node, s *shape) (later bool) {
	if s.kind != kindList && s.kind != kindDict || s.one || s.elem.kind != kindValue || s.elem.scope != scopeTask || s.names == nameEnv {
		return false
	}
	t, ok := d.templateOf(n, s.elem.scope, f.path)
	if !ok {
		return true
	}
	if _, single := t.single(); !single {
		d.report(n.pos, f.path, "expected %s, or exactly one template that yields one: text beside the ${{ }} makes it text", s.what)
		return true
	}
	if t.Refs().Static() {
		return false
	}
	f.v, f.ok = &Value{Pos: n.pos, Template: t, Spread: true}, true
	return true
}
