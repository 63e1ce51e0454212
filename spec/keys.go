package spec

import "slices"

// This file and keys_table.go define the language once. The checker
// (check.go), the JSON Schema (schema.go) and the suggestions read the same
// tables, so that they cannot disagree.

// kind is what a value is.
type kind uint8

const (
	kindText     kind = iota // text
	kindLiteral              // text without templates: names that shape the graph
	kindInt                  // a whole number between min and max
	kindNumber               // a number between min and max
	kindBool                 // true or false
	kindDuration             // 30m; a bare number is seconds
	kindSize                 // 16 GiB; a bare number is GiB
	kindShare                // n or p%
	kindPercent              // p%
	kindFactor               // 2x
	kindCost                 // dollars or none
	kindGPU                  // true, a count or a model
	kindPython               // module:function
	kindTemplate             // text whose templates are evaluated later
	kindCond                 // an expression, with braces or without
	kindValue                // any value whose templates are evaluated later
	kindScript               // a shell script
	kindList                 // a list of elem
	kindDict                 // a mapping of free names to elem
	kindObject               // a mapping of the keys of the table
	kindAlt                  // depends on whether it is a scalar, a list or a mapping
)

// scopeKind says which names the templates of a value may use, and with that
// when they are evaluated.
type scopeKind uint8

const (
	scopeConfig scopeKind = iota // params, env: when the parameters are bound
	scopeTopEnv                  // params, run
	scopeTask                    // everything a task has
	scopeMap                     // params, env, run, needs: when the map is planned
	scopeWhere                   // the same with item and index
	scopeIf                      // params, env, run, needs, success() and so on
	scopeWhen                    // a failed attempt, params, env, item
	scopeRun                     // params, env, run
)

// nameRule says what the keys of a dict may be.
type nameRule uint8

const (
	nameAny      nameRule = iota
	nameIdent             // functions, params: letters, digits, _
	nameEnv               // environment variables
	namePython            // keyword arguments
	nameReserved          // nothing to check here: the reader checks
)

// shape is the type of a value in the file.
type shape struct {
	kind kind
	what string // "a duration such as 30m": for messages and the schema
	enum []string
	// min and max bound numbers where hasMin and hasMax are set.
	min, max       float64
	hasMin, hasMax bool
	elem           *shape
	names          nameRule
	keys           *keySet
	one            bool // a list: a single value is a list of one
	nonEmpty       bool // text and lists: must not be empty
	scope          scopeKind
	sourceText     bool // a value: scalars keep their source text, whatever they look like
	literalOnly    bool // a value: no templates
	// null says that an empty value ("params:" with nothing behind it) is an
	// empty mapping or list.
	null                  bool
	scalar, list, mapping *shape // alternatives
}

// keySet is the keys of a mapping.
type keySet struct {
	name string // "a function": for messages
	keys []keyDef
	// exactly is the keys of which one must be there, oneOf what they are called.
	exactly []string
	oneOf   string
	// exclusive pairs two groups of keys that cannot stand together.
	exclusive [][2][]string
}

type keyDef struct {
	name     string
	shape    *shape
	doc      string
	required bool
	with     []string // goes only with one of these keys
}

func (ks *keySet) find(name string) *keyDef {
	for i := range ks.keys {
		if ks.keys[i].name == name {
			return &ks.keys[i]
		}
	}
	return nil
}

func (ks *keySet) names() []string {
	names := make([]string, len(ks.keys))
	for i, k := range ks.keys {
		names[i] = k.name
	}
	return names
}

// without is the set less some keys, and less the rule that one of them must
// be there.
func (ks *keySet) without(name string, drop ...string) *keySet {
	out := &keySet{name: name, exclusive: ks.exclusive}
	for _, k := range ks.keys {
		if !slices.Contains(drop, k.name) {
			k.with = nil
			out.keys = append(out.keys, k)
		}
	}
	return out
}

// Constructors, so that the table reads as one.

func text(what string) *shape    { return &shape{kind: kindText, what: what, nonEmpty: true} }
func anyText(what string) *shape { return &shape{kind: kindText, what: what} }
func literal(what string) *shape { return &shape{kind: kindLiteral, what: what, nonEmpty: true} }
func boolean() *shape            { return &shape{kind: kindBool, what: "true or false"} }
func durationOf() *shape         { return &shape{kind: kindDuration, what: "a duration such as 30m"} }
func sizeOf(example string) *shape {
	return &shape{kind: kindSize, what: "a size such as \"" + example + "\""}
}
func intFrom(minimum float64, example string) *shape {
	return &shape{kind: kindInt, what: "a whole number such as " + example, min: minimum, hasMin: true}
}
func enumOf(values ...string) *shape {
	return &shape{kind: kindText, enum: values, what: "one of " + joinOr(values)}
}
func template(what string, scope scopeKind) *shape {
	return &shape{kind: kindTemplate, what: what, scope: scope, nonEmpty: true}
}
func condition(example string, scope scopeKind) *shape {
	return &shape{kind: kindCond, what: "an expression such as " + example, scope: scope}
}
func anyValue(what string, scope scopeKind) *shape {
	return &shape{kind: kindValue, what: what, scope: scope}
}
func textValue(what string, scope scopeKind) *shape {
	return &shape{kind: kindValue, what: what, scope: scope, sourceText: true}
}
func oneOrMore(elem *shape, what string) *shape {
	return &shape{kind: kindList, elem: elem, what: what, one: true, nonEmpty: true}
}
func dictOf(elem *shape, names nameRule, what string) *shape {
	return &shape{kind: kindDict, elem: elem, names: names, what: what}
}
func object(keys *keySet, what string) *shape {
	return &shape{kind: kindObject, keys: keys, what: what}
}
func orEmpty(s *shape) *shape {
	c := *s
	c.null = true
	return &c
}

// rangeOf is a single value or a list of two of them.
func rangeOf(elem *shape, what string) *shape {
	return &shape{kind: kindAlt, what: what, scalar: elem, list: &shape{kind: kindList, elem: elem, what: what}}
}

func joinOr(values []string) string {
	switch len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	}
	out := values[0]
	for _, v := range values[1 : len(values)-1] {
		out += ", " + v
	}
	return out + " or " + values[len(values)-1]
}
