package planner

import (
	"bufio"
	"encoding/base64"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// WriteItemsJSON writes the tasks of a function as JSON lines:
// {"function","index","item"} and, of a file, its fields. Where an item has
// bytes that are not UTF-8, item_base64 is the base64 of its text as it
// reaches a program.
func WriteItemsJSON(w io.Writer, fn string, it Items) error {
	out := bufio.NewWriterSize(w, 256<<10)
	head := append([]byte(`{"function":`), value.JSON(fn)...)
	head = append(head, `,"index":`...)
	if r, ok := it.(rangeItems); ok {
		if err := writeRange(out, head, r); err != nil {
			return err
		}
		return out.Flush()
	}
	var line []byte
	err := it.Each(0, it.Len(), func(i int, item any) error {
		line = append(line[:0], head...)
		line = strconv.AppendInt(line, int64(IndexOf(it, i)), 10)
		line = append(line, `,"item":`...)
		line = value.Append(line, item)
		if f, ok := item.(*value.File); ok {
			line = appendFileFields(line, f)
		}
		if !validText(item) {
			line = append(line, `,"item_base64":"`...)
			line = base64.StdEncoding.AppendEncode(line, rawText(item))
			line = append(line, '"')
		}
		line = append(line, "}\n"...)
		_, err := out.Write(line)
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

// writeRange writes a range without going through values: it may be a million
// lines.
func writeRange(out *bufio.Writer, head []byte, r rangeItems) error {
	for i := range r.n {
		line := append(out.AvailableBuffer(), head...)
		line = strconv.AppendInt(line, int64(i), 10)
		line = append(line, `,"item":`...)
		line = strconv.AppendInt(line, int64(r.from+i*r.step), 10)
		line = append(line, "}\n"...)
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	return nil
}

func appendFileFields(dst []byte, f *value.File) []byte {
	text := func(name, v string) {
		dst = append(dst, ',', '"')
		dst = append(append(dst, name...), '"', ':')
		dst = value.AppendString(dst, v)
	}
	text("path", f.Path)
	text("uri", f.URI)
	text("name", f.Name)
	text("stem", f.Stem)
	text("ext", f.Ext)
	text("dir", f.Dir)
	dst = append(dst, `,"size":`...)
	dst = strconv.AppendInt(dst, int64(f.Size), 10)
	dst = append(dst, `,"modified":`...)
	if f.Modified.IsZero() {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, '"')
		dst = f.Modified.AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	text("etag", f.ETag)
	if f.Bucket != "" {
		text("bucket", f.Bucket)
		text("key", f.Key)
	}
	return dst
}

// validText says whether all text in v is UTF-8.
func validText(v any) bool {
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v)
	case *value.File:
		return utf8.ValidString(v.Path)
	case []any:
		for _, e := range v {
			if !validText(e) {
				return false
			}
		}
	case *value.Object:
		for i, k := range v.Keys {
			if !utf8.ValidString(k) || !validText(v.Vals[i]) {
				return false
			}
		}
	}
	return true
}

// rawText is the bytes of text and paths; lists and mappings as JSON whose
// strings have their bytes instead of surrogate escapes.
func rawText(v any) []byte {
	switch v.(type) {
	case []any, *value.Object:
		return unescapeSurrogates(value.JSON(v))
	}
	return []byte(value.Text(v))
}

// unescapeSurrogates puts the bytes back that \udc80 to \udcff stand for.
func unescapeSurrogates(b []byte) []byte {
	out := b[:0:0]
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			if i+5 < len(b) && b[i+1] == 'u' && (b[i+2]|0x20) == 'd' && (b[i+3]|0x20) == 'c' {
				if n, err := strconv.ParseUint(string(b[i+4:i+6]), 16, 8); err == nil && n >= 0x80 {
					out = append(out, byte(n))
					i += 5
					continue
				}
			}
			out = append(out, b[i], b[i+1])
			i++
			continue
		}
		out = append(out, b[i])
	}
	return out
}
