package spec

import "strings"

const (
	// maxCollected bounds the problems that are kept, maxShown those that are
	// given out: a file with more is not a pipeline.
	maxCollected = 1000
	maxShown     = 100
	// maxWork bounds the values that are looked at, with defaults repeated for
	// every function.
	maxWork = 500_000
	// maxFunctions bounds the functions of a file.
	maxFunctions = 5000
	// maxCompared bounds the names that are compared for suggestions.
	maxCompared = 200_000
)

// field is a checked value.
type field struct {
	n    *node
	path *keyPath
	// ok says that v, list, dict or keys hold a value. It is false if there is
	// a problem, or if the value depends on what is not known yet.
	ok   bool
	v    any
	list []*field
	dict []dictEntry
	keys map[string]*field
	// oneOnly: a list that was written as a single value.
	oneOnly bool
}

type dictEntry struct {
	key   *node
	value *field
}

// get is the field of a key; nil if it is not there.
func (f *field) get(key string) *field {
	if f == nil {
		return nil
	}
	return f.keys[key]
}

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n *node, s *shape, p *keyPath, why string) {
	if n.kind == badNode {
		return
	}
	if why != "" {
		why = " (" + why + ")"
	}
	d.report(n.pos, p, "expected %s, found %s%s", s.what, n.found(), why)
}

// check compares a value with its shape.
func (d *decoder) check(n *node, s *shape, p *keyPath) *field {
	f := &field{n: n, path: p}
	if n.kind == badNode || !d.spend(n, 1) {
		return f
	}
	if n.kind == scalarNode && n.src != nil && d.configured(s) && HasTemplate(n.text) {
		if d.checkWhole(f, n, s) {
			return f
		}
		evaluated := d.evalConfig(n, p)
		if evaluated == nil {
			return f
		}
		n = evaluated
		f.n = n
	}
	switch s.kind {
	case kindAlt:
		return d.checkAlt(n, s, p)
	case kindList:
		d.checkList(f, n, s)
	case kindDict:
		d.checkDict(f, n, s)
	case kindObject:
		d.checkObject(f, n, s)
	case kindValue:
		f.v = d.value(n, s, p)
		f.ok = f.v != (*Value)(nil)
	default:
		if n.kind != scalarNode || n.isNull() && s.kind != kindCost {
			d.wrong(n, s, p, "")
			return f
		}
		d.checkScalar(f, n, s)
	}
	return f
}

// spend counts the values that are looked at.
func (d *decoder) spend(n *node, values int) bool {
	before := d.work
	d.work += values
	if d.work > maxWork {
		if before <= maxWork {
			d.report(n.pos, nil, "too many values: with defaults in every function the file has more than %d", maxWork)
		}
		return false
	}
	return true
}

// configured says whether a template in place of this value is evaluated when
// the parameters are bound.
func (d *decoder) configured(s *shape) bool {
	switch s.kind {
	case kindLiteral, kindTemplate, kindCond, kindValue, kindScript:
		return false
	case kindList:
		return !s.one || d.configured(s.elem)
	case kindAlt:
		return s.scalar == nil || d.configured(s.scalar)
	}
	return true
}

func (d *decoder) checkAlt(n *node, s *shape, p *keyPath) *field {
	to := s.scalar
	switch n.kind {
	case listNode:
		to = s.list
	case mappingNode:
		to = s.mapping
	}
	if to == nil || n.isNull() {
		d.wrong(n, s, p, "")
		return &field{n: n, path: p}
	}
	if n.kind == scalarNode && to.kind != kindValue && to.what != "" {
		// Say all that is possible here, not only the scalar form.
		c := *to
		if len(c.enum) == 0 && !c.hasMin && !c.hasMax {
			c.what = s.what
		}
		to = &c
	}
	return d.check(n, to, p)
}

func (d *decoder) checkList(f *field, n *node, s *shape) {
	switch {
	case n.isNull() && s.null:
		f.ok = true
		return
	case n.kind == listNode:
	case s.one && !n.isNull() && (n.kind == scalarNode || s.elem.kind == kindObject):
		e := d.check(n, s.elem, f.path)
		f.list, f.ok, f.oneOnly = []*field{e}, e.ok, true
		return
	default:
		d.wrong(n, s, f.path, "")
		return
	}
	if s.nonEmpty && len(n.items) == 0 {
		d.report(n.pos, f.path, "the list is empty: expected %s", s.what)
		return
	}
	f.ok = true
	f.list = make([]*field, 0, len(n.items))
	for i, item := range n.items {
		e := d.check(item, s.elem, f.path.index(i))
		f.ok = f.ok && e.ok
		f.list = append(f.list, e)
	}
}

func (d *decoder) checkDict(f *field, n *node, s *shape) {
	if n.isNull() && s.null {
		f.ok = true
		return
	}
	if n.kind != mappingNode {
		d.wrong(n, s, f.path, "")
		return
	}
	if s.nonEmpty && len(n.pairs) == 0 {
		d.report(n.pos, f.path, "the mapping is empty: expected %s", s.what)
		return
	}
	f.ok = true
	for _, pr := range n.pairs {
		p := pr.path(f.path)
		if !d.checkName(pr.key, s.names, p) {
			f.ok = false
		}
		e := d.check(pr.value, s.elem, p)
		f.ok = f.ok && e.ok
		f.dict = append(f.dict, dictEntry{pr.key, e})
	}
}

// path is the path of the pair's value in a mapping that stands at p.
func (pr *pair) path(p *keyPath) *keyPath {
	if pr.origin != nil {
		p = pr.origin
	}
	return p.key(pr.key.text)
}

func (d *decoder) checkObject(f *field, n *node, s *shape) {
	if n.isNull() && s.null {
		f.ok = true
		return
	}
	if n.kind != mappingNode {
		d.wrong(n, s, f.path, "")
		return
	}
	known, ok := d.objectKeys(n, s.keys, f.path, n.pos)
	f.ok = ok
	f.keys = make(map[string]*field, len(known))
	for i := range known {
		k := known[i]
		e := d.check(k.pair.value, k.def.shape, k.pair.path(f.path))
		f.keys[k.def.name] = e
		f.ok = f.ok && e.ok
	}
}

type knownKey struct {
	def  *keyDef
	pair *pair
}

// objectKeys finds the keys of a mapping and reports what is unknown, missing
// or does not go together. pos is where missing keys are reported.
func (d *decoder) objectKeys(n *node, ks *keySet, p *keyPath, pos Pos) (known []knownKey, ok bool) {
	ok = true
	have := make(map[string]*pair, len(n.pairs))
	for i := range n.pairs {
		pr := &n.pairs[i]
		def := ks.find(pr.key.text)
		if def == nil {
			ok = false
			if len(d.problems) >= maxCollected {
				d.more++
				continue
			}
			at := p
			if pr.origin != nil {
				at = pr.origin
			}
			d.report(pr.key.pos, at, "unknown key %q%s", shorten(pr.key.text), d.keyAdvice(pr.key.text, ks))
			continue
		}
		have[def.name] = pr
		known = append(known, knownKey{def, pr})
	}
	for i := range ks.keys {
		def := &ks.keys[i]
		if def.required && have[def.name] == nil {
			ok = false
			d.report(pos, p, "%s has no %s: expected %s", ks.name, def.name, def.shape.what)
		}
		if pr := have[def.name]; pr != nil && len(def.with) > 0 && !anyOf(have, def.with) {
			ok = false
			d.report(pr.key.pos, p, "%s goes only with %s", def.name, joinOr(def.with))
		}
	}
	return known, d.exactlyOne(have, ks, p, pos) && d.exclusive(have, ks, p) && ok
}

func anyOf(have map[string]*pair, names []string) bool {
	for _, name := range names {
		if have[name] != nil {
			return true
		}
	}
	return false
}

func (d *decoder) exactlyOne(have map[string]*pair, ks *keySet, p *keyPath, pos Pos) bool {
	if len(ks.exactly) == 0 {
		return true
	}
	var given []string
	for _, name := range ks.exactly {
		if have[name] != nil {
			given = append(given, name)
		}
	}
	switch {
	case len(given) == 0 && ks == mapKeys:
		d.report(pos, p, "a map needs a form: one of %s", joinOr(ks.exactly))
	case len(given) == 0:
		d.report(pos, p, "nothing to run: a function needs one of %s", joinOr(ks.exactly))
	case len(given) == 1:
		return true
	case ks == mapKeys:
		d.report(have[given[1]].key.pos, p, "two forms in one map, %s: keep one, or combine them with matrix or zip", joinAnd(given))
	default:
		d.report(have[given[1]].key.pos, p, "a function runs one thing, found %s: keep one, or make two functions", joinAnd(given))
	}
	return false
}

func (d *decoder) exclusive(have map[string]*pair, ks *keySet, p *keyPath) bool {
	for _, groups := range ks.exclusive {
		for _, a := range groups[0] {
			for _, b := range groups[1] {
				if have[a] != nil && have[b] != nil {
					d.report(have[b].key.pos, p, "%s and %s cannot stand together: keep one", a, b)
					return false
				}
			}
		}
	}
	return true
}

func joinAnd(values []string) string {
	return strings.Join(values[:len(values)-1], ", ") + " and " + values[len(values)-1]
}

// keyAdvice says what an unknown key was probably meant to be.
func (d *decoder) keyAdvice(name string, ks *keySet) string {
	names := ks.names()
	folded := foldName(name)
	if ks.find(folded) != nil {
		return " (did you mean \"" + folded + "\"?)"
	}
	if to, ok := foreignKeys[folded]; ok {
		first, _, _ := strings.Cut(to, ".")
		if last := to[strings.LastIndexByte(to, '.')+1:]; ks.find(first) != nil {
			return " (did you mean \"" + to + "\"?)"
		} else if ks.find(last) != nil {
			return " (did you mean \"" + last + "\"?)"
		} else if ks != topKeys && topKeys.find(first) != nil {
			return " (did you mean \"" + to + "\" at the top of the file?)"
		}
	}
	if s := d.suggest(name, names); s != "" {
		return s
	}
	// The key may belong into one of the mappings here, or to another level.
	for i := range ks.keys {
		if inner := ks.keys[i].shape.object(); inner != nil && inner.find(folded) != nil && inner != mapKeys {
			return " (did you mean \"" + ks.keys[i].name + "." + folded + "\"?)"
		}
	}
	if ks != topKeys && topKeys.find(folded) != nil {
		return ": it stands at the top of the file"
	}
	if ks == topKeys && functionKeys.find(folded) != nil {
		if defaultsKeys.find(folded) != nil {
			return ": it belongs to a function, or into defaults for all functions"
		}
		return ": it belongs to a function"
	}
	if ks == defaultsKeys && functionKeys.find(folded) != nil {
		return ": defaults cannot say what to run or map; write it in each function"
	}
	if len(names) <= 12 {
		return "; known keys: " + strings.Join(names, ", ")
	}
	return ""
}

// object is the keys of a shape that is or may be a mapping.
func (s *shape) object() *keySet {
	switch {
	case s.kind == kindObject:
		return s.keys
	case s.kind == kindAlt && s.mapping != nil:
		return s.mapping.keys
	}
	return nil
}
