package value

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// maxDepth bounds the nesting of a document, so that no input can exhaust the
// stack.
const maxDepth = 1000

// Decode reads one JSON document. Mappings become map[string]any, integers
// that fit become int, larger ones Number, other numbers float64. Surrogate
// escapes from \udc80 to \udcff become the bytes they stand for, other lone
// ones U+FFFD; bytes that are not UTF-8 are kept.
func Decode(b []byte) (any, error) { return decode(b, modePlain) }

// DecodeOrdered is Decode with mappings as *Object, their keys in the order of
// the document. Of a repeated key the last value counts.
func DecodeOrdered(b []byte) (any, error) { return decode(b, modeOrdered) }

// DecodeItem reads what AppendItem wrote: files as *File, mappings as *Object.
func DecodeItem(b []byte) (any, error) { return decode(b, modeItem) }

// Valid checks that b is one JSON document that Decode would accept, without
// building it.
func Valid(b []byte) error {
	_, err := decode(b, modeSkip)
	return err
}

type mode int

const (
	modePlain mode = iota
	modeOrdered
	modeItem
	modeSkip // check only
)

type decoder struct {
	b    []byte
	i    int
	mode mode
	buf  []byte
}

// SyntaxError says where a document is not JSON.
type SyntaxError struct {
	Offset  int // bytes before the mistake
	Message string
}

// Error is the message with its place.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("not JSON at byte %d: %s", e.Offset+1, e.Message)
}

func (d *decoder) fail(format string, args ...any) error {
	return &SyntaxError{Offset: d.i, Message: fmt.Sprintf(format, args...)}
}

func (d *decoder) unexpected() error {
	if d.i >= len(d.b) {
		return d.fail("it ends too early")
	}
	return d.fail("unexpected %q", d.b[d.i])
}

func decode(b []byte, m mode) (any, error) {
	d := decoder{b: b, mode: m}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	d.space()
	if d.i < len(b) {
		return nil, d.fail("more text behind the document")
	}
	return v, nil
}

func (d *decoder) space() {
	for d.i < len(d.b) {
		switch d.b[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

func (d *decoder) value(depth int) (any, error) {
	d.space()
	if d.i >= len(d.b) {
		return nil, d.unexpected()
	}
	switch c := d.b[d.i]; c {
	case '"':
		if d.mode == modeSkip {
			return nil, d.skipString()
		}
		return d.string()
	case '{', '[':
		if depth >= maxDepth {
			return nil, d.fail("nested deeper than %d levels", maxDepth)
		}
		d.i++
		if c == '[' {
			return d.list(depth + 1)
		}
		if d.mode == modePlain {
			return d.mapping(depth + 1)
		}
		return d.object(depth + 1)
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return d.number()
		}
	}
	return nil, d.unexpected()
}

func (d *decoder) word(w string) error {
	for k := 0; k < len(w); k++ {
		if d.i >= len(d.b) || d.b[d.i] != w[k] {
			return d.unexpected()
		}
		d.i++
	}
	return nil
}

// next is the next byte that is not space; 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.i < len(d.b) {
		return d.b[d.i]
	}
	return 0
}

func (d *decoder) list(depth int) (any, error) {
	if d.next() == ']' {
		d.i++
		if d.mode == modeSkip {
			return nil, nil
		}
		return []any{}, nil
	}
	var list []any
	for {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		if d.mode != modeSkip {
			list = append(list, v)
		}
		switch d.next() {
		case ',':
			d.i++
		case ']':
			d.i++
			if d.mode == modeSkip {
				return nil, nil
			}
			return list, nil
		default:
			return nil, d.unexpected()
		}
	}
}

// key reads `"key":`.
func (d *decoder) key() (string, error) {
	if d.next() != '"' {
		return "", d.unexpected()
	}
	var k string
	var err error
	if d.mode == modeSkip {
		err = d.skipString()
	} else {
		k, err = d.string()
	}
	if err != nil {
		return "", err
	}
	if d.next() != ':' {
		return "", d.unexpected()
	}
	d.i++
	return k, nil
}

func (d *decoder) mapping(depth int) (any, error) {
	m := map[string]any{}
	if d.next() == '}' {
		d.i++
		return m, nil
	}
	for {
		k, err := d.key()
		if err != nil {
			return nil, err
		}
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		m[k] = v
		switch d.next() {
		case ',':
			d.i++
		case '}':
			d.i++
			return m, nil
		default:
			return nil, d.unexpected()
		}
	}
}

func (d *decoder) object(depth int) (any, error) {
	var o *Object
	var seen map[string]int // built when an object is too large for a scan
	if d.mode != modeSkip {
		o = &Object{}
	}
	finish := func() any {
		d.i++
		if o == nil {
			return nil
		}
		if d.mode == modeItem {
			if f := fileOf(o); f != nil {
				return f
			}
		}
		return o
	}
	if d.next() == '}' {
		return finish(), nil
	}
	for {
		k, err := d.key()
		if err != nil {
			return nil, err
		}
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		switch {
		case o == nil:
		case len(o.Keys) < 16:
			o.Set(k, v)
		default:
			if seen == nil {
				seen = make(map[string]int, 64)
				for i, k := range o.Keys {
					seen[k] = i
				}
			}
			if i, ok := seen[k]; ok {
				o.Vals[i] = v
			} else {
				seen[k] = len(o.Keys)
				o.Keys = append(o.Keys, k)
				o.Vals = append(o.Vals, v)
			}
		}
		switch d.next() {
		case ',':
			d.i++
		case '}':
			return finish(), nil
		default:
			return nil, d.unexpected()
		}
	}
}

// number reads a number: digits of JSON's grammar only.
func (d *decoder) number() (any, error) {
	b, start := d.b, d.i
	i := start
	digits := func() bool {
		from := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > from
	}
	isInt := true
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		d.i = i
		return nil, d.unexpected()
	}
	if i < len(b) && b[i] == '.' {
		isInt = false
		i++
		if !digits() {
			d.i = i
			return nil, d.unexpected()
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		isInt = false
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			d.i = i
			return nil, d.unexpected()
		}
	}
	d.i = i
	text := b[start:i]
	if d.mode == modeSkip && len(text) < 300 && bytes.IndexByte(text, 'e') < 0 && bytes.IndexByte(text, 'E') < 0 {
		return nil, nil // too short to be too large
	}
	if isInt {
		if n, ok := smallInt(text); ok {
			return n, nil
		}
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil && int64(int(n)) == n {
			return int(n), nil
		}
		if d.mode == modeSkip {
			return nil, nil
		}
		return Number(text), nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil && math.IsInf(f, 0) {
		d.i = start
		return nil, d.fail("the number is too large")
	}
	if d.mode == modeSkip {
		return nil, nil
	}
	return f, nil
}

// smallInt is the fast way for integers of up to 18 digits.
func smallInt(b []byte) (int, bool) {
	neg := b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) > 18 || neg && len(b) == 1 && b[0] == '0' { // -0 is a float
		return 0, false
	}
	n := 0
	for _, c := range b {
		n = n*10 + int(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}
