package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/expr-lang/expr/builtin"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// instead is a function that the compiler puts in the place of one of the
// library, which gives keys in another order each time, takes files and ordered
// mappings apart, and loses digits and bytes in JSON. name has a $ before it.
func instead[T any](name string, f func(v any) (T, error)) *builtin.Function {
	return &builtin.Function{Name: name, Types: []reflect.Type{reflect.TypeFor[func(any) T]()},
		Func: func(args ...any) (any, error) {
			v, err := f(normalize(args[0]))
			if err != nil {
				return nil, fmt.Errorf("%s() %w", name[1:], err)
			}
			return v, nil
		}}
}

// entriesOf makes a list of the entries of a mapping: in its order if it has
// one, else by key.
func entriesOf(one func(k string, v any) any) func(any) ([]any, error) {
	return func(v any) ([]any, error) {
		list := []any{}
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
