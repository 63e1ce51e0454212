package spec

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// children calls f with each child of a node.
func children(n ast.Node, f func(*ast.Node)) {
	list := func(nodes []ast.Node) {
		for i := range nodes {
			f(&nodes[i])
		}
	}
	opt := func(n *ast.Node) {
		if *n != nil {
			f(n)
		}
	}
	switch n := n.(type) {
	case *ast.UnaryNode:
		f(&n.Node)
	case *ast.BinaryNode:
		f(&n.Left)
		f(&n.Right)
	case *ast.ChainNode:
		f(&n.Node)
	case *ast.MemberNode:
		f(&n.Node)
		f(&n.Property)
	case *ast.SliceNode:
		f(&n.Node)
		opt(&n.From)
		opt(&n.To)
	case *ast.CallNode:
		f(&n.Callee)
		list(n.Arguments)
	case *ast.BuiltinNode:
		list(n.Arguments)
	case *ast.PredicateNode:
		f(&n.Node)
	case *ast.VariableDeclaratorNode:
		f(&n.Value)
		f(&n.Expr)
	case *ast.SequenceNode:
		list(n.Nodes)
	case *ast.ConditionalNode:
		f(&n.Cond)
		f(&n.Exp1)
		f(&n.Exp2)
	case *ast.ArrayNode:
		list(n.Nodes)
	case *ast.MapNode:
		list(n.Pairs)
	case *ast.PairNode:
		f(&n.Key)
		f(&n.Value)
	}
}

func ident(name string) *ast.IdentifierNode { return &ast.IdentifierNode{Value: name} }

func call(name string, args ...ast.Node) *ast.CallNode {
	return &ast.CallNode{Callee: ident(name), Arguments: args}
}

// resolve replaces the names of the language by variables, and finds those
// that do not exist. It returns what is known about the node's value.
func (c *exprCompiler) resolve(n *ast.Node) *Shape {
	switch t := (*n).(type) {
	case *ast.IdentifierNode:
		if slices.Contains(c.lets, t.Value) {
			return nil
		}
		return c.resolveRoot(n, t.Value, nil)
	case *ast.MemberNode:
		return c.resolveMember(n, t)
	case *ast.ChainNode:
		return c.resolve(&t.Node)
	case *ast.CallNode:
		c.resolveCall(n, t)
		return nil
	case *ast.VariableDeclaratorNode:
		c.resolve(&t.Value)
		if isReserved(t.Name) {
			c.nodeProblem(t, fmt.Errorf("let %s: the name %s is taken, use another", t.Name, t.Name))
			return nil
		}
		c.lets = append(c.lets, t.Name)
		s := c.resolve(&t.Expr)
		c.lets = c.lets[:len(c.lets)-1]
		return s
	}
	children(*n, func(child *ast.Node) { c.resolve(child) })
	return nil
}

// resolveRoot replaces n, which is name with fields behind it.
func (c *exprCompiler) resolveRoot(n *ast.Node, name string, fields []string) *Shape {
	b, used, err := c.sc.root(name, fields)
	if err == nil && used != len(fields) {
		err = fmt.Errorf("%s has no field %q", name, fields[used])
	}
	if err != nil {
		c.nodeProblem(*n, err)
		return nil
	}
	c.bind(b)
	switch b.kind {
	case bindNeedResults:
		ast.Patch(n, call("$results", ident(b.key)))
	case bindNeedResult:
		ast.Patch(n, call("$result", ident(b.key)))
	default:
		ast.Patch(n, ident(b.key))
	}
	if b.kind == bindItem {
		return c.sc.ItemShape
	}
	return nil
}

func (c *exprCompiler) resolveMember(n *ast.Node, t *ast.MemberNode) *Shape {
	prop, named := t.Property.(*ast.StringNode)
	if id, ok := t.Node.(*ast.IdentifierNode); ok && !slices.Contains(c.lets, id.Value) {
		switch id.Value {
		case "params", "env", "run", "needs":
			if named {
				return c.resolveRootAt(n, id, id.Value, prop.Value)
			}
		}
	}
	if inner, ok := t.Node.(*ast.MemberNode); ok && named {
		id, isID := inner.Node.(*ast.IdentifierNode)
		fn, isName := inner.Property.(*ast.StringNode)
		if isID && isName && id.Value == "needs" && !slices.Contains(c.lets, "needs") {
			return c.resolveRootAt(n, id, "needs", fn.Value, prop.Value)
		}
	}
	shape := c.resolve(&t.Node)
	if !named {
		c.resolve(&t.Property)
		if shape != nil {
			return shape.List
		}
		return nil
	}
	if t.Optional {
		return nil
	}
	c.column(shape, prop.Value, c.offset(prop.Location()))
	next, err := shape.field(prop.Value)
	if err != nil {
		c.nodeProblem(prop, err)
	}
	return next
}

// resolveRootAt is resolveRoot with problems at the start of the chain.
func (c *exprCompiler) resolveRootAt(n *ast.Node, id *ast.IdentifierNode, name string, fields ...string) *Shape {
	(*n).SetLocation(id.Location())
	return c.resolveRoot(n, name, fields)
}

func (c *exprCompiler) resolveCall(n *ast.Node, t *ast.CallNode) {
	for i := range t.Arguments {
		c.resolve(&t.Arguments[i])
	}
	id, ok := t.Callee.(*ast.IdentifierNode)
	if !ok {
		c.resolve(&t.Callee)
		return
	}
	status := slices.Index(statusFuncs, id.Value)
	switch {
	case slices.Contains(c.lets, id.Value):
	case status >= 0 && !c.sc.Status:
		c.nodeProblem(t, fmt.Errorf("%s() can only be used in if", id.Value))
	case status >= 0 && len(t.Arguments) > 0:
		c.nodeProblem(t, fmt.Errorf("%s() takes no arguments", id.Value))
	case status >= 0:
		b := bind{key: "$" + id.Value, kind: bindSuccess + bindKind(status)}
		c.bind(b)
		ast.Patch(n, ident(b.key))
	case functions[id.Value] != nil && id.Value[0] != '$':
	default:
		c.nodeProblem(t, fmt.Errorf("unknown function %s()%s", id.Value, didYouMean(id.Value, functionNames())))
	}
}

// How builtins treat a file or an ordered mapping among their arguments:
// those named here look into lists, so files inside a list count as text too.
var deepBuiltins = map[string]bool{"join": true, "sort": true, "uniq": true, "indexOf": true, "lastIndexOf": true}

// keepBuiltins take a predicate; their first argument is a list whose elements
// stay what they are. The result of the predicate is text for the ones that
// compare it.
var predicateBuiltins = map[string]bool{"all": false, "none": false, "any": false, "one": false, "filter": false,
	"map": false, "count": false, "sum": false, "find": false, "findIndex": false, "findLast": false,
	"findLastIndex": false, "groupBy": true, "sortBy": true, "reduce": false}

// textual makes files act as their path, and ordered mappings as plain ones,
// where an operator or function uses them; fields are read by $get, which
// knows both. It works on the types of the first check, so what is known to be
// a number or text is left alone. It returns whether the type of the node was
// unknown.
func (c *exprCompiler) textual(n *ast.Node) (unknown bool) {
	kind := (*n).Type().Kind()
	unknown = kind == reflect.Interface
	switch t := (*n).(type) {
	case *ast.BinaryNode:
		deep := t.Operator == "==" || t.Operator == "!=" || t.Operator == "in"
		switch t.Operator {
		case "??", "and", "or", "&&", "||":
			c.textual(&t.Left)
			c.textual(&t.Right)
		default:
			c.operand(&t.Left, deep)
			c.operand(&t.Right, deep)
		}
	case *ast.SliceNode:
		c.operand(&t.Node, false)
		for _, p := range []*ast.Node{&t.From, &t.To} {
			if *p != nil {
				c.textual(p)
			}
		}
		if known := t.Node.Type().Kind(); unknown || known == reflect.String || known == reflect.Interface {
			args := []ast.Node{t.Node, t.From, t.To}
			for i, arg := range args {
				if arg == nil {
					args[i] = &ast.NilNode{}
				}
			}
			ast.Patch(n, call("$slice", args...))
		}
	case *ast.PairNode:
		c.operand(&t.Key, false)
		c.textual(&t.Value)
	case *ast.ChainNode:
		c.opt++
		c.textual(&t.Node)
		c.opt--
	case *ast.MemberNode:
		base := c.textual(&t.Node)
		c.operand(&t.Property, false)
		if base {
			get := "$get"
			if c.opt > 0 {
				get = "$maybe"
			}
			ast.Patch(n, call(get, t.Node, t.Property))
		}
	case *ast.PredicateNode:
		c.textual(&t.Node)
		c.expr.ticks = true
		tick := call("$tick", ident("$budget"), t.Node)
		tick.SetLocation(t.Node.Location())
		t.Node = tick
	case *ast.BuiltinNode:
		c.textualBuiltin(n, t)
	default:
		children(*n, func(child *ast.Node) { c.textual(child) })
	}
	return unknown
}

func (c *exprCompiler) textualBuiltin(n *ast.Node, t *ast.BuiltinNode) {
	if text, ok := predicateBuiltins[t.Name]; ok {
		for i := range t.Arguments {
			if p, ok := t.Arguments[i].(*ast.PredicateNode); ok && text {
				c.operand(&p.Node, false)
				continue
			}
			c.textual(&t.Arguments[i])
		}
		return
	}
	if t.Name == "get" && len(t.Arguments) == 2 {
		if base := c.textual(&t.Arguments[0]); base {
			c.operand(&t.Arguments[1], false)
			ast.Patch(n, call("$maybe", t.Arguments...))
			return
		}
		c.operand(&t.Arguments[1], false)
		return
	}
	if functions["$"+t.Name] != nil {
		c.textual(&t.Arguments[0])
		ast.Patch(n, call("$"+t.Name, t.Arguments...))
		return
	}
	for i := range t.Arguments {
		c.operand(&t.Arguments[i], deepBuiltins[t.Name])
	}
}

// operand is textual for a node that is used as text or as a plain value.
func (c *exprCompiler) operand(n *ast.Node, deep bool) {
	kind := (*n).Type().Kind()
	literal := isLiteral(*n)
	unknown := c.textual(n)
	name := ""
	switch {
	case literal:
	case deep && (unknown || kind == reflect.Slice || kind == reflect.Map):
		name = "$deep"
	case unknown:
		name = "$text"
	}
	if name != "" {
		ast.Patch(n, call(name, *n))
	}
}

// isLiteral says that nothing in n is computed.
func isLiteral(n ast.Node) bool {
	switch n.(type) {
	case *ast.NilNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.BytesNode, *ast.ConstantNode:
		return true
	case *ast.ArrayNode:
		all := true
		children(n, func(child *ast.Node) { all = all && isLiteral(*child) })
		return all
	}
	return false
}
