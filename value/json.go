package value

// Append appends the compact JSON of v to dst. Keys of maps are sorted, those
// of an Object stay in their order; a *File is its path, a time is RFC 3339
// text. Bytes that are not UTF-8 become surrogate escapes (\udc80 to \udcff).
func Append(dst []byte, v any) []byte { return dst }

// JSON is the compact JSON of v; see Append.
func JSON(v any) []byte { return Append(nil, v) }

// Decode reads one JSON document. Mappings become map[string]any, integers
// that fit become int, other numbers float64.
func Decode(b []byte) (any, error) { return nil, nil }

// DecodeOrdered is Decode with mappings as *Object, their keys in the order of
// the document. Of a repeated key the last value counts.
func DecodeOrdered(b []byte) (any, error) { return nil, nil }

// Valid checks that b is one JSON document that Decode would accept, without
// building it.
func Valid(b []byte) error { return nil }

// AppendItem appends an item in the form in which it is stored: like Append,
// but a *File keeps all its fields. DecodeItem reads it back.
func AppendItem(dst []byte, v any) []byte { return dst }

// DecodeItem reads what AppendItem wrote: files as *File, mappings as *Object.
func DecodeItem(b []byte) (any, error) { return nil, nil }
