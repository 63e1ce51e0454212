package value

import (
	"unicode/utf16"
	"unicode/utf8"
)

// string reads a string; d.i is at its quote.
func (d *decoder) string() (string, error) {
	d.i++
	b, start := d.b, d.i
	i := start
	for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= ' ' {
		i++
	}
	if i < len(b) && b[i] == '"' {
		d.i = i + 1
		return string(b[start:i]), nil
	}
	buf := append(d.buf[:0], b[start:i]...)
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			d.i = i + 1
			d.buf = buf
			return string(buf), nil
		case c < ' ':
			d.i = i
			return "", d.fail("a control character in a string must be escaped")
		case c != '\\':
			buf = append(buf, c)
			i++
		default:
			d.i = i
			var err error
			if buf, err = d.escape(buf); err != nil {
				return "", err
			}
			i = d.i
		}
	}
	d.i = i
	return "", d.unexpected()
}

// skipString passes over a string.
func (d *decoder) skipString() error {
	b, i := d.b, d.i+1
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			d.i = i + 1
			return nil
		case c < ' ':
			d.i = i
			return d.fail("a control character in a string must be escaped")
		case c != '\\':
			i++
		default:
			d.i = i
			var room [4]byte
			if _, err := d.escape(room[:0]); err != nil {
				return err
			}
			i = d.i
		}
	}
	d.i = i
	return d.unexpected()
}

// escape reads the escape at d.i and appends what it stands for.
func (d *decoder) escape(buf []byte) ([]byte, error) {
	if d.i+1 >= len(d.b) {
		d.i = len(d.b)
		return nil, d.unexpected()
	}
	c := d.b[d.i+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		r, ok := d.hex4(d.i + 2)
		if !ok {
			return nil, d.fail("\\u needs four hexadecimal digits")
		}
		d.i += 6
		if !utf16.IsSurrogate(r) {
			return utf8.AppendRune(buf, r), nil
		}
		if r < 0xdc00 && d.i+1 < len(d.b) && d.b[d.i] == '\\' && d.b[d.i+1] == 'u' {
			if low, ok := d.hex4(d.i + 2); ok {
				if full := utf16.DecodeRune(r, low); full != utf8.RuneError {
					d.i += 6
					return utf8.AppendRune(buf, full), nil
				}
			}
		}
		if r >= 0xdc80 && r <= 0xdcff {
			return append(buf, byte(r)), nil
		}
		return append(buf, "\uFFFD"...), nil
	default:
		return nil, d.fail("unknown escape \\%c", c)
	}
	d.i += 2
	return append(buf, c), nil
}

func (d *decoder) hex4(at int) (rune, bool) {
	if at+4 > len(d.b) {
		return 0, false
	}
	var r rune
	for _, c := range d.b[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
