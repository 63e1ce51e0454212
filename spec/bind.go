package spec

import (
	"sort"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// BindOptions are what the caller of a pipeline decides.
type BindOptions struct {
	Params map[string]string // values by name, as --param gives them
	Cloud  string            // replaces the file's cloud if not ""
	// Lenient lets required parameters be missing, for checking a file. The
	// Pipeline that comes back then is for looking at only.
	Lenient bool
}

// Bind gives the parameters their values and evaluates the templates of
// everything that is the same for all tasks. The problems include those of
// Parse; if one is an error the Pipeline is nil.
func (doc *Document) Bind(opts BindOptions) (*Pipeline, Problems) {
	p, problems := doc.decode(opts, true)
	if problems.Err() != nil {
		return nil, problems
	}
	return p, problems
}

// compileKey is a text and the place that says which names it may use.
type compileKey struct {
	n     *node
	fn    string
	scope scopeKind
}

// compiledNode is what a text compiled to. It is kept between Parse and Bind.
type compiledNode struct {
	template *Template
	expr     *Expr
	script   *Script
	problems Problems
}

// compile finds or makes what a text compiles to here.
func (d *decoder) compile(n *node, scope scopeKind, p *keyPath, make func(sc *Scope) *compiledNode) (*compiledNode, bool) {
	key := compileKey{n: n, scope: scope}
	if d.fn != nil && !shared(scope) {
		key.fn = d.fn.name
	}
	c := d.doc.compiled[key]
	if c == nil || n.src == nil {
		c = make(d.scope(scope))
		if n.src != nil {
			d.doc.compiled[key] = c
		}
	}
	d.compiledProblems(c.problems, scope, p)
	return c, c.problems.Err() == nil
}

func (d *decoder) compileTemplate(f *field, n *node, s *shape) {
	if t, ok := d.templateOf(n, s.scope, f.path); ok {
		f.v, f.ok = t, true
	}
}

func (d *decoder) templateOf(n *node, scope scopeKind, p *keyPath) (*Template, bool) {
	c, ok := d.compile(n, scope, p, func(sc *Scope) *compiledNode {
		t, problems := ParseTemplate(n.text, n.locator(), sc)
		return &compiledNode{template: t, problems: problems}
	})
	if !ok || c.template == nil {
		return nil, false
	}
	d.uses(c.template.Refs())
	return c.template, true
}

func (d *decoder) compileCondition(f *field, n *node, s *shape) {
	c, ok := d.compile(n, s.scope, f.path, func(sc *Scope) *compiledNode {
		e, problems := CompileCondition(n.text, n.locator(), sc)
		return &compiledNode{expr: e, problems: problems}
	})
	if ok && c.expr != nil {
		d.uses(c.expr.Refs())
		f.v, f.ok = c.expr, true
	}
}

func (d *decoder) compileScript(n *node, shell []string, p *keyPath) *Script {
	c, ok := d.compile(n, scopeTask, p, func(sc *Scope) *compiledNode {
		s, problems := ParseScript(n.text, shell, n.locator(), sc)
		return &compiledNode{script: s, problems: problems}
	})
	if !ok || c.script == nil {
		return nil
	}
	d.uses(c.script.Refs())
	return c.script
}

// uses remembers the names that the current function's texts use.
func (d *decoder) uses(r Refs) {
	if d.fn == nil {
		return
	}
	d.fn.count = d.fn.count || r.Count
	d.fn.columns = append(d.fn.columns, r.Columns...)
	for _, name := range r.Needs {
		d.fn.results[name] = true
	}
}

// evalConfig evaluates a template in a value that is the same for all tasks.
// It is nil if that is not possible (yet).
func (d *decoder) evalConfig(n *node, p *keyPath) *node {
	t, ok := d.templateOf(n, scopeConfig, p)
	if !ok {
		return nil
	}
	refs := t.Refs()
	for _, name := range refs.Params {
		if _, known := d.params[name]; !known {
			return nil
		}
	}
	if refs.Env && len(refs.EnvVars) == 0 && len(d.envLater) > 0 {
		return nil
	}
	for _, name := range refs.EnvVars {
		if run, later := d.envLater[name]; later {
			if run {
				d.report(n.pos, p, "env.%s depends on the run, which does not exist yet where this is decided: use a parameter", name)
			}
			return nil
		}
	}
	v, err := t.Eval(&Env{Params: d.params, Env: d.env})
	if err != nil {
		d.report(n.pos, p, "%s", err)
		return nil
	}
	if !d.spend(n, countValues(v)) {
		return nil
	}
	return nodeOf(v, n.pos)
}

func countValues(v any) int {
	total := 1
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			total += countValues(e)
		}
	case map[string]any:
		for _, e := range v {
			total += countValues(e)
		}
	case *value.Object:
		return countValues(v.Map())
	}
	return total
}

// nodeOf is a value that a template evaluated to, as if it had been written
// into the file.
func nodeOf(v any, pos Pos) *node {
	n := &node{kind: scalarNode, pos: pos}
	switch v := v.(type) {
	case nil:
		n.plain, n.text = true, "null"
	case string:
		n.text = v
	case []any:
		n.kind = listNode
		for _, e := range v {
			n.items = append(n.items, nodeOf(e, pos))
		}
	case map[string]any:
		n.kind = mappingNode
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			n.pairs = append(n.pairs, pair{key: nodeOf(k, pos), value: nodeOf(v[k], pos)})
		}
	case *value.Object:
		n.kind = mappingNode
		for i, k := range v.Keys {
			n.pairs = append(n.pairs, pair{key: nodeOf(k, pos), value: nodeOf(v.Vals[i], pos)})
		}
	default:
		n.plain, n.text = true, value.Text(v)
	}
	return n
}

// value reads any value whose templates are evaluated later; nil if it has
// problems.
func (d *decoder) value(n *node, s *shape, p *keyPath) *Value {
	v := &Value{Pos: n.pos}
	switch n.kind {
	case badNode:
		return nil
	case scalarNode:
		switch {
		case HasTemplate(n.text) && s.literalOnly:
			d.report(n.pos, p, "a template cannot stand here: expected %s", s.what)
			return nil
		case HasTemplate(n.text) && n.src != nil:
			t, ok := d.templateOf(n, s.scope, p)
			if !ok {
				return nil
			}
			v.Template = t
		case s.sourceText || !n.plain:
			v.Literal, v.Source = n.text, n.text
		default:
			v.Literal, v.Source = value.Scalar(n.text), n.text
		}
		return v
	case listNode:
		if s.sourceText {
			d.wrong(n, s, p, "for a list as text write it in quotes, as JSON")
			return nil
		}
		v.List = make([]*Value, 0, len(n.items))
		for i, item := range n.items {
			if e := d.valueIn(item, s, p.index(i)); e != nil {
				v.List = append(v.List, e)
			} else {
				v = nil
				break
			}
		}
	case mappingNode:
		if s.sourceText {
			d.wrong(n, s, p, "for a mapping as text write it in quotes, as JSON")
			return nil
		}
		v.Map = make([]NamedValue, 0, len(n.pairs))
		bad := false
		for i := range n.pairs {
			pr := &n.pairs[i]
			at := pr.path(p)
			if HasTemplate(pr.key.text) {
				d.report(pr.key.pos, at, "a template cannot stand in a key")
				bad = true
			}
			e := d.valueIn(pr.value, s, at)
			bad = bad || e == nil
			v.Map = append(v.Map, NamedValue{Name: pr.key.text, Value: e})
		}
		if bad {
			return nil
		}
	}
	return v
}

func (d *decoder) valueIn(n *node, s *shape, p *keyPath) *Value {
	if !d.spend(n, 1) {
		return nil
	}
	return d.value(n, s, p)
}

// compiledProblems reports what is wrong with an expression, with a word on
// why a name that exists elsewhere does not exist here.
func (d *decoder) compiledProblems(ps Problems, scope scopeKind, p *keyPath) {
	if len(ps) == 0 {
		return
	}
	if where := scopeNote[scope]; where != "" {
		noted := make(Problems, len(ps))
		copy(noted, ps)
		for i := range noted {
			later := strings.HasPrefix(noted[i].Message, "there is no ") || scope != scopeMap && strings.HasPrefix(noted[i].Message, "needs.")
			if later {
				noted[i].Message += " (" + where + ")"
			}
		}
		ps = noted
	}
	d.compiled(ps, p)
}

var scopeNote = map[scopeKind]string{
	scopeConfig: "this is decided before any task starts: only params and env can be used",
	scopeTopEnv: "env at the top is the same for all tasks: only params and run can be used",
	scopeMap:    "a map is planned before its items exist: only params, env, run and needs can be used",
	scopeRun:    "only params, env and run can be used",
}
