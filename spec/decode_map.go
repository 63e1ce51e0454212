package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// mapOf reads a checked map and says what is known about its items. The Map is
// nil if it has no form.
func (d *decoder) mapOf(f *field) (*Map, *Shape) {
	m := &Map{Pos: f.n.pos, Limit: -1}
	switch {
	case f.n.kind == badNode:
		return nil, nil
	case f.n.kind == scalarNode: // short for glob
		if i, err := strconv.Atoi(f.n.text); err == nil && f.n.plain {
			d.report(f.n.pos, f.path, "expected a glob pattern, found the number %d: for numbers write {range: %d}", i, i)
		}
		m.Form = FormGlob
		if t, ok := f.v.(*Template); ok && f.ok {
			m.Glob = []*Template{t}
		}
		return m, &Shape{File: true}
	case f.n.kind == listNode: // short for items, in matrix and zip
		m.Form = FormItems
		return m, d.items(m, f)
	case f.keys == nil:
		return nil, nil
	}
	shape := d.mapForm(m, f)
	if m.Form == "" {
		return nil, nil
	}
	// where stands before batch, so it sees single items.
	if w := f.get("where"); w != nil {
		m.Where = d.where(w, shape)
	}
	m.Limit = num(f.get("limit"), -1)
	m.Sort, m.Desc = strings.CutPrefix(str(f.get("sort"), ""), "-")
	if b := f.get("batch"); b != nil && b.ok {
		if b.keys == nil {
			m.Batch.Items = num(b, 0)
		} else {
			m.Batch = Batch{Items: num(b.get("items"), 0), Bytes: size(b.get("bytes"), 0)}
			if s := b.get("bytes"); s != nil && s.ok && m.Batch.Bytes <= 0 {
				d.report(s.n.pos, s.path, "expected a size larger than 0, such as \"1 GiB\"")
			} else if len(b.keys) == 0 {
				d.report(b.n.pos, b.path, "the mapping is empty: expected {items: 10, bytes: 1 GiB}")
			}
		}
		if shape == nil {
			shape = &Shape{}
		}
		shape = &Shape{List: shape}
	}
	m.AllowEmpty, m.RequesterPays, m.Anonymous = isTrue(f.get("allow_empty")), isTrue(f.get("requester_pays")), isTrue(f.get("anonymous"))
	return m, shape
}

// where compiles a condition over items of this shape.
func (d *decoder) where(f *field, item *Shape) *Expr {
	n, ok := f.v.(*node)
	if !ok || !f.ok {
		return nil
	}
	before := d.fn.item
	d.fn.setItem(item)
	c := &field{n: n, path: f.path}
	d.compileCondition(c, n, mapKeys.find("where").shape)
	d.fn.setItem(before)
	e, _ := c.v.(*Expr)
	return e
}

// mapForm reads the form of a map.
func (d *decoder) mapForm(m *Map, f *field) *Shape {
	var form *field
	for _, name := range mapForms {
		if e := f.get(name); e != nil && form == nil {
			m.Form, form = Form(name), e
		}
	}
	switch m.Form {
	case FormGlob:
		m.Glob, m.Exclude = templates(form), templates(f.get("exclude"))
		return &Shape{File: true}
	case FormItems:
		return d.items(m, form)
	case FormRange:
		d.rangeForm(m, form)
		return &Shape{Int: true}
	case FormLines, FormCSV, FormJSONL:
		if t, ok := form.v.(*Template); ok && form.ok {
			m.Path = t
		}
		if m.Form == FormLines {
			return &Shape{Text: true}
		}
		if m.Form == FormCSV {
			return &Shape{Row: &m.Pos}
		}
	case FormMatrix, FormZip:
		shape := &Shape{Keys: map[string]*Shape{}}
		for _, e := range form.dict {
			part, s := d.mapOf(e.value)
			if part == nil {
				continue
			}
			part.Barrier = part.Form == FormFrom
			m.Parts = append(m.Parts, NamedMap{Name: e.key.text, Map: part})
			shape.Keys[e.key.text] = s
		}
		if m.Form == FormZip {
			d.checkZip(m, form)
		}
		return shape
	case FormFrom:
		m.From = str(form, "")
		d.checkFrom(form, m.From)
	}
	return nil
}

// items reads a list, or one template that yields one.
func (d *decoder) items(m *Map, f *field) *Shape {
	v, ok := f.v.(*Value)
	if !ok || !f.ok {
		return nil
	}
	m.Items = v
	switch {
	case v.Template != nil:
		if t := v.Template; !(len(t.parts) == 1 && t.parts[0].expr != nil) {
			d.report(f.n.pos, f.path, "expected a list or exactly one template that yields one: text beside the ${{ }} makes it text")
		}
		return nil
	case v.List == nil:
		d.report(f.n.pos, f.path, "expected a list such as [a, b], or one template that yields a list, found %s", f.n.found())
		return nil
	}
	shape := &Shape{Keys: map[string]*Shape{}}
	for _, e := range v.List {
		if e.Map == nil {
			return nil
		}
		for _, k := range e.Map {
			shape.Keys[k.Name] = nil
		}
	}
	if len(v.List) == 0 {
		return nil
	}
	return shape
}

// rangeForm reads n, [from, to] and [from, to, step]. What depends on other
// functions or the run is checked when it is known.
func (d *decoder) rangeForm(m *Map, f *field) {
	v, ok := f.v.(*Value)
	if !ok || !f.ok {
		return
	}
	m.Range = v
	switch {
	case v.Map != nil || v.List == nil && v.Template == nil && !isInt(v.Literal):
		d.report(f.n.pos, f.path, "expected n, [from, to] or [from, to, step] in whole numbers, found %s", f.n.found())
		return
	case v.List != nil && (len(v.List) < 2 || len(v.List) > 3):
		d.report(f.n.pos, f.path, "expected [from, to] or [from, to, step], found %d values", len(v.List))
		return
	}
	for i, e := range v.List {
		if e.Template == nil && !isInt(e.Literal) {
			d.report(e.Pos, f.path.index(i), "expected a whole number, found %s", f.n.items[i].found())
			return
		}
	}
	if _, why := d.rangeLen(v); why != "" {
		d.report(f.n.pos, f.path, "%s", why)
	}
}

func isInt(v any) bool {
	_, ok := v.(int)
	return ok
}

// known evaluates a value that depends on params and env at most, if they are
// known.
func (d *decoder) known(v *Value) (any, bool) {
	refs := v.Refs()
	if !refs.Static() || !d.paramsKnown(refs) {
		return nil, false
	}
	if refs.Env && len(refs.EnvVars) == 0 && len(d.envLater) > 0 {
		return nil, false
	}
	for _, name := range refs.EnvVars {
		if _, later := d.envLater[name]; later {
			return nil, false
		}
	}
	out, err := v.Eval(&Env{Params: d.params, Env: d.env})
	if err != nil {
		d.report(v.Pos, nil, "%s", err)
		return nil, false
	}
	return out, true
}

// rangeLen is the number of items of a range, -1 if that is not known yet; why
// is what is wrong with it.
func (d *decoder) rangeLen(v *Value) (n int, why string) {
	var bounds []int
	add := func(x any) bool {
		switch x := x.(type) {
		case int:
			bounds = append(bounds, x)
			return true
		case float64:
			if x == math.Trunc(x) && math.Abs(x) < 1<<52 {
				bounds = append(bounds, int(x))
				return true
			}
		}
		why = fmt.Sprintf("expected whole numbers, found %s", shorten(fmt.Sprint(x)))
		return false
	}
	switch {
	case v.List != nil:
		for i, e := range v.List {
			x, ok := d.known(e)
			if !ok {
				// The step alone can be wrong already.
				if s := v.List[len(v.List)-1]; i < 2 && len(v.List) == 3 && s.Template == nil && s.Literal == 0 {
					return -1, zeroStep
				}
				return -1, ""
			}
			if !add(x) {
				return -1, why
			}
		}
	default:
		x, ok := d.known(v)
		if !ok {
			return -1, ""
		}
		list, isList := x.([]any)
		if !isList {
			list = []any{x}
		} else if len(list) < 2 || len(list) > 3 {
			return -1, fmt.Sprintf("expected [from, to] or [from, to, step], found %d values", len(list))
		}
		for _, e := range list {
			if !add(e) {
				return -1, why
			}
		}
	}
	from, to, step := 0, bounds[0], 1
	if len(bounds) > 1 {
		from, to = bounds[0], bounds[1]
	}
	if len(bounds) > 2 {
		step = bounds[2]
	}
	switch {
	case step == 0:
		return -1, zeroStep
	case step > 0 && to > from:
		return ceilDiv(uint64(to)-uint64(from), uint64(step))
	case step < 0 && to < from:
		return ceilDiv(uint64(from)-uint64(to), -uint64(step))
	}
	return 0, ""
}

const zeroStep = "the step is 0, so the range never ends: use another step"

func ceilDiv(width, step uint64) (int, string) {
	n := width / step
	if width%step != 0 {
		n++
	}
	if n > math.MaxInt32 {
		return -1, fmt.Sprintf("the range has %d items, at most %d are possible", n, math.MaxInt32)
	}
	return int(n), ""
}

// staticLen is the number of items of a part, -1 if it is not known yet.
func (d *decoder) staticLen(m *Map) int {
	if m.Where != nil || m.Batch != (Batch{}) {
		return -1
	}
	n := -1
	switch m.Form {
	case FormItems:
		switch {
		case m.Items == nil:
		case m.Items.List != nil:
			n = len(m.Items.List)
		default:
			if v, ok := d.known(m.Items); ok {
				if list, ok := v.([]any); ok {
					n = len(list)
				}
			}
		}
	case FormRange:
		if m.Range != nil {
			n, _ = d.rangeLen(m.Range)
		}
	}
	if n >= 0 && m.Limit >= 0 {
		n = min(n, m.Limit)
	}
	return n
}

// checkZip compares the lengths that are known.
func (d *decoder) checkZip(m *Map, f *field) {
	first, firstLen := "", -1
	for _, part := range m.Parts {
		n := d.staticLen(part.Map)
		switch {
		case n < 0:
		case firstLen < 0:
			first, firstLen = part.Name, n
		case n != firstLen:
			d.report(part.Map.Pos, f.path, "all forms need the same length: %s has %d items, %s has %d", first, firstLen, part.Name, n)
			return
		}
	}
}
