package value

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Text is v as a template renders it: text as it is, a *File as its path,
// lists and mappings as compact JSON, nil as "null".
func Text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case *File:
		if v != nil {
			return v.Path
		}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
		return string(appendFloat(nil, v)) // people write 5, not 5.0
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case time.Duration:
		return v.String()
	case []byte:
		return string(v)
	case nil, bool, []any, map[string]any, *Object, Number:
	default:
		if r := reflect.ValueOf(v); r.Kind() == reflect.String {
			return r.String()
		}
	}
	return string(Append(nil, v))
}

// HasNUL says whether some text in v (keys too) has a NUL byte.
func HasNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.IndexByte(v, 0) >= 0
	case *File:
		return v != nil && (strings.IndexByte(v.Path, 0) >= 0 || strings.IndexByte(v.Abs, 0) >= 0)
	case []any:
		for _, e := range v {
			if HasNUL(e) {
				return true
			}
		}
	case map[string]any:
		for k, e := range v {
			if HasNUL(k) || HasNUL(e) {
				return true
			}
		}
	case *Object:
		if v == nil {
			return false
		}
		for i, k := range v.Keys {
			if HasNUL(k) || HasNUL(v.Vals[i]) {
				return true
			}
		}
	}
	return false
}

// Scalar is the value of a plain YAML scalar in items and param defaults:
// true, false and null (also "~" and nothing) are what they are, a number is
// one only if it is written as JSON writes it and prints back identically,
// everything else is text.
func Scalar(source string) any {
	switch source {
	case "true":
		return true
	case "false":
		return false
	case "null", "~", "":
		return nil
	}
	if c := source[0]; c != '-' && (c < '0' || c > '9') {
		return source
	}
	if len(source) > 32 {
		return source
	}
	d := decoder{b: []byte(source)}
	v, err := d.number()
	if _, big := v.(Number); err != nil || big || d.i != len(source) || Text(v) != source {
		return source
	}
	return v
}
