package value

import "sync/atomic"

// Object is a mapping that remembers the order of its keys. Items that are
// mappings (of matrix, zip, csv, jsonl and items) are Objects, so that they
// render as they were written. A finished Object must not be changed: it may
// be read from many goroutines.
type Object struct {
	Keys []string
	Vals []any // Vals[i] belongs to Keys[i]

	plain atomic.Pointer[map[string]any]
}

// NewObject makes an Object with these keys and values; it keeps the slices.
func NewObject(keys []string, vals []any) *Object { return &Object{Keys: keys, Vals: vals} }

// Set adds a key, or replaces the value of one that is there.
func (o *Object) Set(key string, v any) {
	o.plain.Store(nil)
	for i, k := range o.Keys {
		if k == key {
			o.Vals[i] = v
			return
		}
	}
	o.Keys = append(o.Keys, key)
	o.Vals = append(o.Vals, v)
}

// Get finds the value of a key.
func (o *Object) Get(key string) (any, bool) {
	for i, k := range o.Keys {
		if k == key {
			return o.Vals[i], true
		}
	}
	return nil, false
}

// Len is the number of keys.
func (o *Object) Len() int { return len(o.Keys) }

// Map is the Object as a plain map, with the Objects inside it plain too. It
// is made once; the caller must not change it.
func (o *Object) Map() map[string]any {
	if m := o.plain.Load(); m != nil {
		return *m
	}
	m := make(map[string]any, len(o.Keys))
	for i, k := range o.Keys {
		m[k] = Plain(o.Vals[i])
	}
	o.plain.Store(&m)
	return m
}

// Plain is v with every Object in it as a plain map. Values without Objects
// come back as they are, not copied.
func Plain(v any) any {
	switch v := v.(type) {
	case *Object:
		return v.Map()
	case []any:
		var list []any
		for i, e := range v {
			if p := Plain(e); list != nil {
				list[i] = p
			} else if hasObject(e) {
				list = append(make([]any, 0, len(v)), v...)
				list[i] = p
			}
		}
		if list != nil {
			return list
		}
	case map[string]any:
		if hasObject(v) {
			m := make(map[string]any, len(v))
			for k, e := range v {
				m[k] = Plain(e)
			}
			return m
		}
	}
	return v
}

func hasObject(v any) bool {
	switch v := v.(type) {
	case *Object:
		return true
	case []any:
		for _, e := range v {
			if hasObject(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if hasObject(e) {
				return true
			}
		}
	}
	return false
}

// Number is an integer of JSON that does not fit an int, digit by digit. It
// goes through unchanged; expressions cannot calculate with it.
type Number string
