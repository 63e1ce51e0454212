package spec

import (
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// normalize turns what a program may give (typed slices, maps with keys of any
// type, small number types) into the values of package value. What already is
// one is not copied.
func normalize(v any) any {
	switch v := v.(type) {
	case nil, bool, int, float64, string, value.Number, *value.File, *value.Object, time.Time, time.Duration:
		return v
	case []any:
		var out []any
		for i, e := range v {
			n := normalize(e)
			if out == nil && !identical(n, e) {
				out = append(make([]any, 0, len(v)), v...)
			}
			if out != nil {
				out[i] = n
			}
		}
		if out != nil {
			return out
		}
		return v
	case map[string]any:
		var out map[string]any
		for k, e := range v {
			n := normalize(e)
			if out == nil && !identical(n, e) {
				out = make(map[string]any, len(v))
				for k, e := range v {
					out[k] = e
				}
			}
			if out != nil {
				out[k] = n
			}
		}
		if out != nil {
			return out
		}
		return v
	case []byte:
		return string(v)
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return int(r.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if u := r.Uint(); u <= math.MaxInt {
			return int(u)
		}
		return float64(r.Uint())
	case reflect.Float32:
		return r.Float()
	case reflect.String:
		return r.String()
	case reflect.Bool:
		return r.Bool()
	case reflect.Slice, reflect.Array:
		out := make([]any, r.Len())
		for i := range out {
			out[i] = normalize(r.Index(i).Interface())
		}
		return out
	case reflect.Map:
		out := make(map[string]any, r.Len())
		for it := r.MapRange(); it.Next(); {
			out[value.Text(normalize(it.Key().Interface()))] = normalize(it.Value().Interface())
		}
		return out
	}
	return fmt.Sprint(v)
}

// identical says that normalizing changed nothing.
func identical(a, b any) bool {
	ra, rb := reflect.ValueOf(a), reflect.ValueOf(b)
	if !ra.IsValid() || !rb.IsValid() {
		return ra.IsValid() == rb.IsValid()
	}
	if ra.Type() != rb.Type() {
		return false
	}
	switch ra.Kind() {
	case reflect.Slice, reflect.Map:
		return ra.Pointer() == rb.Pointer() && ra.Len() == rb.Len()
	}
	return true
}

// describe says what a value is, for messages.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprint(v)
	case int, float64, value.Number:
		return "the number " + value.Text(v)
	case string:
		if r := []rune(v); len(r) > 40 {
			v = string(r[:37]) + "..."
		}
		return fmt.Sprintf("the text %q", v)
	case []any:
		return "a list"
	case map[string]any, *value.Object:
		return "a mapping"
	case *value.File:
		return fmt.Sprintf("the file %q", v.Path)
	case time.Time:
		return "a time"
	}
	return fmt.Sprintf("a %T", v)
}
