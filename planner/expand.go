package planner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// Expand expands the map of a function, whose needs are done if it has any: env
// has their results. Errors are as those of Make.
//
// A map over the results of another function leaves out the items that failed
// there.
func Expand(ctx context.Context, p *spec.Pipeline, fn *spec.Function, in Inputs, opt Options, env *spec.Env) (Items, error) {
	x := &expander{ctx: ctx, p: p, fn: fn, in: in, env: env}
	it, err := x.expand(fn.Map)
	if err != nil {
		return nil, err
	}
	return narrow(fn, it, opt)
}

// narrow applies the options to the items of a function.
func narrow(fn *spec.Function, it Items, opt Options) (Items, error) {
	if only, ok := opt.Only[fn.Name]; ok {
		for _, i := range only {
			if i < 0 || i >= it.Len() {
				return nil, noSuchIndex(fn, i, it.Len())
			}
		}
		return choose(it, only)
	}
	if opt.First > 0 {
		return head(it, opt.First)
	}
	return it, nil
}

func noSuchIndex(fn *spec.Function, i, n int) error {
	msg := fmt.Sprintf("functions.%s has no task %d: it has %s", fn.Name, i, count(n, "task"))
	if n > 1 {
		msg += fmt.Sprintf(", 0 to %d", n-1)
	}
	return spec.Problems{{Pos: fn.Pos, Message: msg}}
}

// count is "1 task", "2 tasks".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// expander expands the map of one function.
type expander struct {
	ctx context.Context
	p   *spec.Pipeline
	fn  *spec.Function
	in  Inputs
	env *spec.Env
	s3  S3 // made when first needed
}

// problem is a mistake in the file or its data: exit 2.
func (x *expander) problem(pos spec.Pos, form spec.Form, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if i := strings.IndexByte(msg, '\n'); i >= 0 {
		msg = msg[:i]
	}
	return spec.Problems{{Pos: pos, Message: fmt.Sprintf("functions.%s.map.%s: %s", x.fn.Name, form, msg)}}
}

// trouble is anything else that went wrong.
func (x *expander) trouble(form spec.Form, err error) error {
	return fmt.Errorf("functions.%s.map.%s: %w", x.fn.Name, form, err)
}

// expand resolves a map: its form, then where, sort, limit and batch.
func (x *expander) expand(m *spec.Map) (Items, error) {
	it, err := x.elements(m)
	if err != nil {
		return nil, err
	}
	if m.Limit >= 0 {
		if it, err = head(it, m.Limit); err != nil {
			return nil, x.trouble(m.Form, err)
		}
	}
	if m.Batch == (spec.Batch{}) {
		return it, nil
	}
	b, err := newBatch(it, m.Batch.Items, m.Batch.Bytes)
	if err != nil {
		return nil, x.trouble(m.Form, err)
	}
	return b, nil
}

// elements is the items of a map after where and sort.
func (x *expander) elements(m *spec.Map) (Items, error) {
	var source func(sink) error
	switch m.Form {
	case spec.FormRange, spec.FormMatrix, spec.FormZip:
		it, err := x.arithmetic(m)
		if err != nil || m.Where == nil && !sorts(m) {
			return it, err
		}
		source = func(to sink) error {
			return it.Each(0, it.Len(), func(i int, v any) error {
				if i%1024 == 0 && x.ctx.Err() != nil {
					return context.Cause(x.ctx)
				}
				return to.value(v)
			})
		}
	case spec.FormGlob:
		source = func(to sink) error { return x.glob(m, to) }
	case spec.FormItems:
		source = func(to sink) error { return x.literal(m, x.noNUL(m, to)) }
	case spec.FormLines, spec.FormCSV, spec.FormJSONL:
		source = func(to sink) error { return x.data(m, to) }
	case spec.FormFrom:
		source = func(to sink) error { return x.results(m, x.noNUL(m, to)) }
	default:
		return nil, x.problem(m.Pos, m.Form, "unknown form of map")
	}
	return x.pack(m, source)
}

func sorts(m *spec.Map) bool { return m.Sort != "" && m.Sort != "none" }

// pack collects what a source gives, filtered and sorted.
func (x *expander) pack(m *spec.Map, source func(sink) error) (Items, error) {
	p := newPacker(x.dir())
	var to sink = &limited{next: p, left: maxItems}
	var sorted *sorter
	// Without a sort, what is behind the limit need not be looked for; but a
	// list of patterns is looked through, as each must match something.
	if m.Limit >= 0 && !sorts(m) && len(m.Glob) <= 1 && m.Form != spec.FormRange {
		if m.Limit == 0 && m.Form != spec.FormGlob {
			return p.done(), nil
		}
		to = &limited{next: p, left: m.Limit, stop: true}
	}
	if sorts(m) && !(m.Form == spec.FormGlob && m.Sort == "name" && !m.Desc) {
		sorted = &sorter{dir: x.dir(), by: m.Sort, desc: m.Desc, next: to}
		to = sorted
	}
	if m.Where != nil {
		to = &filter{x: x, m: m, next: to}
	}
	err := source(to)
	if err == nil && sorted != nil {
		err = sorted.drain()
	}
	switch {
	case err == nil, errors.Is(err, errStop):
		return p.done(), nil
	case errors.Is(err, errTooMany):
		return nil, x.problem(m.Pos, m.Form, "%v", err)
	case errors.Is(err, errNotFiles):
		return nil, x.problem(m.Pos, m.Form, "sort: %s: %v; these items can be sorted by name", m.Sort, err)
	}
	return nil, err
}

// dir is the pipeline file's folder with a slash at its end.
func (x *expander) dir() string { return strings.TrimSuffix(x.in.Dir, "/") + "/" }

var errTooMany = fmt.Errorf("more than %d items", maxItems)

// limited passes a number of items on.
type limited struct {
	next sink
	left int
	stop bool // the rest is not wanted, otherwise it is an error
}

func (l *limited) take() error {
	if l.left > 0 {
		l.left--
		return nil
	}
	if l.stop {
		return errStop
	}
	return errTooMany
}

func (l *limited) file(e *fileEntry) error {
	if err := l.take(); err != nil {
		return err
	}
	return l.next.file(e)
}

func (l *limited) value(v any) error {
	if err := l.take(); err != nil {
		return err
	}
	return l.next.value(v)
}

// filter passes on what where accepts.
type filter struct {
	x    *expander
	m    *spec.Map
	next sink
	n    int
}

func (f *filter) accepts(item any) (bool, error) {
	env := *f.x.env
	env.Item, env.HasItem, env.Index = item, true, f.n
	f.n++
	ok, err := f.m.Where.Bool(&env)
	if err != nil {
		return false, spec.Problems{{Pos: f.m.Where.Pos, Message: fmt.Sprintf("functions.%s.map.where: item %d (%s): %v",
			f.x.fn.Name, f.n-1, shorten(value.Text(item)), err)}}
	}
	return ok, nil
}

func (f *filter) file(e *fileEntry) error {
	ok, err := f.accepts(e.item(f.x.dir()))
	if err != nil || !ok {
		return err
	}
	return f.next.file(e)
}

func (f *filter) value(v any) error {
	ok, err := f.accepts(v)
	if err != nil || !ok {
		return err
	}
	return f.next.value(v)
}

// shorten makes text fit into a message.
func shorten(s string) string { return strconv.Quote(clip(s)) }

func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "..."
	}
	return s
}

// nulCheck refuses items with a NUL: no program could be given one.
type nulCheck struct {
	x    *expander
	m    *spec.Map
	next sink
	n    int
}

func (x *expander) noNUL(m *spec.Map, next sink) sink { return &nulCheck{x: x, m: m, next: next} }

func (c *nulCheck) file(e *fileEntry) error { c.n++; return c.next.file(e) }

func (c *nulCheck) value(v any) error {
	if value.HasNUL(v) {
		return c.x.problem(c.m.Pos, c.m.Form, "item %d has a NUL byte, which no program can be given: %s", c.n, shorten(value.Text(v)))
	}
	c.n++
	return c.next.value(v)
}

// arithmetic is the items of the forms that are computed.
func (x *expander) arithmetic(m *spec.Map) (Items, error) {
	if m.Form == spec.FormRange {
		return x.rangeOf(m)
	}
	names := make([]string, len(m.Parts))
	parts := make([]Items, len(m.Parts))
	var problems spec.Problems
	var other error
	for i, part := range m.Parts {
		names[i] = part.Name
		it, err := x.expand(part.Map)
		var ps spec.Problems
		switch {
		case errors.As(err, &ps):
			problems = append(problems, ps...)
		case err != nil && other == nil:
			other = err
		}
		parts[i] = it
	}
	switch {
	case len(problems) > 0:
		return nil, problems
	case other != nil:
		return nil, other
	case len(parts) == 0:
		return nil, x.problem(m.Pos, m.Form, "needs at least one name")
	}
	if m.Form == spec.FormMatrix {
		product, ok := newMatrix(names, parts)
		if !ok {
			return nil, x.problem(m.Pos, m.Form, "%s: together that is %v", lengths(names, parts, ", "), errTooMany)
		}
		return product, nil
	}
	for _, p := range parts {
		if p.Len() != parts[0].Len() {
			return nil, x.problem(m.Pos, m.Form, "all parts must have the same length, but %s", lengths(names, parts, ", "))
		}
	}
	return &zipItems{names: names, parts: parts}, nil
}

func lengths(names []string, parts []Items, sep string) string {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteString(sep)
		}
		fmt.Fprintf(&b, "%s has %s", names[i], count(p.Len(), "item"))
	}
	return b.String()
}

func (x *expander) rangeOf(m *spec.Map) (Items, error) {
	pos := m.Range.Pos
	v, err := m.Range.Eval(x.env)
	if err != nil {
		return nil, x.problem(pos, m.Form, "%v", err)
	}
	list, ok := listOf(v)
	if !ok {
		list = []any{0, v}
	} else if len(list) != 2 && len(list) != 3 {
		return nil, x.problem(pos, m.Form, "a list must be [from, to] or [from, to, step], not %s", count(len(list), "value"))
	}
	n := [3]int{0, 0, 1}
	for i, e := range list {
		if n[i], ok = wholeNumber(e); !ok {
			return nil, x.problem(pos, m.Form, "%s is not a whole number; a range is n, [from, to] or [from, to, step]", shorten(value.Text(e)))
		}
	}
	from, to, step := n[0], n[1], n[2]
	if step == 0 {
		return nil, x.problem(pos, m.Form, "the step is 0, so the range would never end")
	}
	length, ok := rangeLen(from, to, step)
	if !ok {
		return nil, x.problem(pos, m.Form, "%v", errTooMany)
	}
	return rangeItems{from: from, step: step, n: length}, nil
}

// rangeLen is how many numbers there are from from to to, which is excluded;
// false if too many. Differences are computed unsigned: they can be larger
// than an int.
func rangeLen(from, to, step int) (int, bool) {
	var span, stride uint64
	switch {
	case step > 0 && from < to:
		span, stride = uint64(to)-uint64(from), uint64(step)
	case step < 0 && from > to:
		span, stride = uint64(from)-uint64(to), -uint64(step)
	default:
		return 0, true
	}
	n := (span-1)/stride + 1
	return int(n), n <= maxItems
}

// wholeNumber takes what people mean as one: 5, 5.0 (of a division), "5".
func wholeNumber(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
			return int(v), true
		}
	case string:
		n, err := strconv.Atoi(strings.TrimSpace(v))
		return n, err == nil
	}
	return 0, false
}

// listOf is v as a list if it is one; expressions give typed slices too.
func listOf(v any) ([]any, bool) {
	if list, ok := v.([]any); ok {
		return list, true
	}
	r := reflect.ValueOf(v)
	if v == nil || r.Kind() != reflect.Slice && r.Kind() != reflect.Array {
		return nil, false
	}
	list := make([]any, r.Len())
	for i := range list {
		list[i] = r.Index(i).Interface()
	}
	return list, true
}

// literal is the items of "items".
func (x *expander) literal(m *spec.Map, to sink) error {
	v, err := m.Items.Eval(x.env)
	if err != nil {
		return x.problem(m.Items.Pos, m.Form, "%v", err)
	}
	list, ok := listOf(v)
	if !ok {
		if s, ok := v.(string); ok {
			return x.problem(m.Items.Pos, m.Form, "needs a list, but %s is text", shorten(s))
		}
		return x.problem(m.Items.Pos, m.Form, "needs a list, found %s", clip(value.Text(v)))
	}
	for _, e := range list {
		if err := to.value(e); err != nil {
			return err
		}
	}
	return nil
}

// results is the items of "from", when it waits for the whole function.
func (x *expander) results(m *spec.Map, to sink) error {
	info := x.env.Needs[m.From]
	if info == nil {
		return x.trouble(m.Form, fmt.Errorf("the results of %s are not known yet", m.From))
	}
	list, err := info.Results()
	if err != nil {
		return x.trouble(m.Form, fmt.Errorf("results of %s: %w", m.From, err))
	}
	for i, v := range list {
		// Where it is not known which results are missing, those that are null
		// in a function with failures are taken for it.
		if v == nil && (info.Without != nil && info.Without(i) || info.Without == nil && info.Failed > 0) {
			continue
		}
		if err := to.value(v); err != nil {
			return err
		}
	}
	return nil
}
