package spec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/vm/runtime"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// instead is a function that the compiler puts in the place of one of the
// library, which gives keys in another order each time, takes files and ordered
// mappings apart, and loses digits and bytes in JSON. name has a $ before it.
func instead[T any](name string, f func(v any) (T, error)) *builtin.Function {
	return &builtin.Function{Name: name, Types: []reflect.Type{reflect.TypeFor[func(any) T]()},
		Func: func(args ...any) (any, error) {
			in := args[0]
			if _, grouped := grouping(in); !grouped || name == "$toJSON" || name == "$string" {
				in = normalize(in)
			}
			v, err := f(in)
			if err != nil {
				return nil, fmt.Errorf("%s() %w", name[1:], err)
			}
			return v, nil
		}}
}

// entriesOf makes a list of the entries of a mapping: in its order if it has
// one, else by key.
func entriesOf(one func(k, v any) any) func(any) ([]any, error) {
	return func(v any) ([]any, error) {
		list := []any{}
		if m, ok := grouping(v); ok {
			keys := m.MapKeys()
			slices.SortFunc(keys, func(a, b reflect.Value) int { return compareKeys(a.Interface(), b.Interface()) })
			for _, k := range keys {
				list = append(list, one(k.Interface(), normalize(m.MapIndex(k).Interface())))
			}
			return list, nil
		}
		switch m := v.(type) {
		case *value.Object:
			for i, k := range m.Keys {
				list = append(list, one(k, m.Vals[i]))
			}
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(m)) {
				list = append(list, one(k, m[k]))
			}
		default:
			return nil, fmt.Errorf("needs a mapping, not %s", describe(v))
		}
		return list, nil
	}
}

// grouping is what groupBy and fromPairs of the library give: its keys
// are what they were grouped by, not only text, and find the groups again.
func grouping(v any) (reflect.Value, bool) {
	m := reflect.ValueOf(v)
	return m, m.Kind() == reflect.Map && m.Type().Key().Kind() == reflect.Interface
}

// compareKeys orders numbers by size, before whatever else, which is ordered as
// text.
func compareKeys(a, b any) int {
	x, xn := keyNumber(a)
	y, yn := keyNumber(b)
	switch {
	case xn && yn:
		return cmp.Compare(x, y)
	case xn:
		return -1
	case yn:
		return 1
	}
	return strings.Compare(value.Text(a), value.Text(b))
}

func keyNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// flatten puts the elements of lists in a list in their place, at any depth.
func flatten(v any) ([]any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("needs a list, not %s", describe(v))
	}
	out := make([]any, 0, len(list))
	var add func(list []any)
	add = func(list []any) {
		for _, e := range list {
			if inner, ok := e.([]any); ok {
				add(inner)
			} else {
				out = append(out, e)
			}
		}
	}
	add(list)
	return out, nil
}

// characters is s from one character to another, counted from the end if
// negative, as len counts them; the library would cut between bytes.
func characters(s string, from, to int) string {
	n := utf8.RuneCountInString(s)
	place := func(i int) int {
		if i < 0 {
			i += n
		}
		return min(max(i, 0), n)
	}
	from, to = place(from), place(to)
	start, end := len(s), len(s)
	for i, at := 0, 0; at < len(s) && i <= to; i++ {
		if i == from {
			start = at
		}
		if i == to {
			end = at
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	return s[min(start, end):end]
}

// character is one character of a text. maybe gives nil instead of an error.
func character(s string, i int, maybe bool) (any, error) {
	n := utf8.RuneCountInString(s)
	switch at := i; {
	case at < 0 && at >= -n:
		return characters(s, at+n, at+n+1), nil
	case at >= 0 && at < n:
		return characters(s, at, at+1), nil
	case maybe:
		return nil, nil
	}
	return nil, fmt.Errorf("index out of range: %d (the length of the text is %d)", i, n)
}

// slice is v[from:to] of a text or list; nil is where the other side is meant.
func slice(args ...any) (any, error) {
	s, isText := args[0].(string)
	from, to := args[1], args[2]
	if from == nil {
		from = 0
	}
	switch kind := reflect.ValueOf(args[0]).Kind(); {
	case kind != reflect.String && kind != reflect.Slice && kind != reflect.Array:
		return nil, fmt.Errorf("[from:to] needs text or a list, not %s", describe(args[0]))
	case to == nil && isText:
		to = utf8.RuneCountInString(s)
	case to == nil:
		to = runtime.Len(args[0])
	}
	if !isText {
		return runtime.Slice(args[0], from, to), nil
	}
	return characters(s, runtime.ToInt(from), runtime.ToInt(to)), nil
}

func toJSON(v any) (string, error) {
	var b bytes.Buffer
	err := json.Indent(&b, value.JSON(v), "", "  ")
	return b.String(), err
}

func fromJSON(v any) (any, error) {
	s, ok := textual(v).(string)
	if !ok {
		return nil, fmt.Errorf("needs text, not %s", describe(v))
	}
	out, err := value.DecodeOrdered([]byte(s))
	if err != nil {
		return nil, fmt.Errorf("got text that is %w", err)
	}
	return out, nil
}
