package value

import (
	"math"
	"reflect"
	"sort"
	"strconv"
	"time"
	"unicode/utf8"
)

// Append appends the compact JSON of v to dst. Keys of maps are sorted, those
// of an Object stay in their order; a *File is its path, a time is RFC 3339
// text. Bytes that are not UTF-8 become surrogate escapes (\udc80 to \udcff).
// NaN and infinities, which JSON cannot say, become null.
func Append(dst []byte, v any) []byte { return appendValue(dst, v, false) }

// JSON is the compact JSON of v; see Append.
func JSON(v any) []byte { return Append(nil, v) }

// AppendItem appends an item in the form in which it is stored: like Append,
// but a *File keeps all its fields. DecodeItem reads it back.
func AppendItem(dst []byte, v any) []byte { return appendValue(dst, v, true) }

func appendValue(dst []byte, v any, stored bool) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case string:
		return AppendString(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case bool:
		return strconv.AppendBool(dst, v)
	case Number:
		return append(dst, v...)
	case float64:
		return appendJSONFloat(dst, v)
	case *File:
		switch {
		case v == nil:
			return append(dst, "null"...)
		case stored:
			return appendFile(dst, v)
		}
		return AppendString(dst, v.Path)
	case *Object:
		if v == nil {
			return append(dst, "null"...)
		}
		dst = append(dst, '{')
		for i, k := range v.Keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendString(dst, k), ':')
			dst = appendValue(dst, v.Vals[i], stored)
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, e, stored)
		}
		return append(dst, ']')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		dst = append(dst, '{')
		for i, k := range keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendString(dst, k), ':')
			dst = appendValue(dst, v[k], stored)
		}
		return append(dst, '}')
	case time.Time:
		return AppendString(dst, v.Format(time.RFC3339Nano))
	case time.Duration:
		return AppendString(dst, v.String())
	case []byte:
		return AppendString(dst, string(v))
	}
	return appendReflected(dst, reflect.ValueOf(v), stored)
}

// appendReflected is for what only an expression or a caller's literal can
// bring in: other number types, typed slices and maps, structs.
func appendReflected(dst []byte, r reflect.Value, stored bool) []byte {
	switch r.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(dst, r.Bool())
	case reflect.String:
		return AppendString(dst, r.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(dst, r.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.AppendUint(dst, r.Uint(), 10)
	case reflect.Float32, reflect.Float64:
		return appendJSONFloat(dst, r.Float())
	case reflect.Pointer, reflect.Interface:
		if r.IsNil() {
			return append(dst, "null"...)
		}
		return appendValue(dst, r.Elem().Interface(), stored)
	case reflect.Slice, reflect.Array:
		dst = append(dst, '[')
		for i := range r.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, r.Index(i).Interface(), stored)
		}
		return append(dst, ']')
	case reflect.Map:
		return appendValue(dst, plainMap(r), stored)
	}
	return append(dst, "null"...)
}

// plainMap turns a map with keys of any type into one with text keys.
func plainMap(r reflect.Value) map[string]any {
	m := make(map[string]any, r.Len())
	for it := r.MapRange(); it.Next(); {
		m[Text(it.Key().Interface())] = it.Value().Interface()
	}
	return m
}

// appendJSONFloat writes a float so that it comes back as one: what has no
// fraction keeps its ".0".
func appendJSONFloat(dst []byte, f float64) []byte {
	start := len(dst)
	dst = appendFloat(dst, f)
	for _, c := range dst[start:] {
		if c != '-' && (c < '0' || c > '9') {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// appendFloat writes a float as encoding/json does.
func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	abs := math.Abs(f)
	format := byte('f')
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if format == 'e' { // e-09 is written e-9
		if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
	}
	return dst
}

const hex = "0123456789abcdef"

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, '\\', 'b')
			case '\f':
				dst = append(dst, '\\', 'f')
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError || size != 1 {
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = append(dst, '\\', 'u', 'd', 'c', hex[c>>4], hex[c&15])
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// A stored file is an object whose first key begins with a NUL, which no item
// can contain: {"\u0000file":path,"size":n,...}.
const fileKey = "\x00file"

func appendFile(dst []byte, f *File) []byte {
	dst = append(dst, '{')
	dst = append(AppendString(dst, fileKey), ':')
	dst = AppendString(dst, f.Path)
	dst = append(dst, `,"size":`...)
	dst = strconv.AppendInt(dst, int64(f.Size), 10)
	if !f.Modified.IsZero() {
		dst = append(dst, `,"modified":`...)
		dst = strconv.AppendInt(dst, f.Modified.UnixNano(), 10)
	}
	text := func(key, v string) {
		if v != "" {
			dst = append(dst, ',')
			dst = append(AppendString(dst, key), ':')
			dst = AppendString(dst, v)
		}
	}
	text("abs", f.Abs)
	text("etag", f.ETag)
	text("bucket", f.Bucket)
	text("key", f.Key)
	return append(dst, '}')
}

// fileOf makes the File of a stored object; nil if o is not one.
func fileOf(o *Object) *File {
	if len(o.Keys) == 0 || o.Keys[0] != fileKey {
		return nil
	}
	text := func(key string) string {
		v, _ := o.Get(key)
		s, _ := v.(string)
		return s
	}
	path, ok := o.Vals[0].(string)
	if !ok {
		return nil
	}
	var modified time.Time
	if v, ok := o.Get("modified"); ok {
		if n, ok := v.(int); ok {
			modified = time.Unix(0, int64(n)).UTC()
		}
	}
	v, _ := o.Get("size")
	size, _ := v.(int)
	if bucket := text("bucket"); bucket != "" {
		f := NewS3File(bucket, text("key"), int64(size), modified, text("etag"))
		f.Path = path
		f.fillNames(path)
		return f
	}
	return NewLocalFile(path, text("abs"), int64(size), modified)
}
