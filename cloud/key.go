package cloud

import (
	"io/fs"
	"strings"
	"unicode/utf8"
)

// BadKey says why a text cannot be the key of an object; "" if it can.
func BadKey(key string) string {
	switch {
	case key == "":
		return "the key is empty"
	case !utf8.ValidString(key):
		return "the key is not valid UTF-8"
	case strings.IndexByte(key, 0) >= 0:
		return "the key has a NUL byte"
	case key[0] == '/':
		return "a key does not begin with a slash"
	case !fs.ValidPath(key) || key == ".":
		return "a key has no empty, . or .. elements"
	}
	return ""
}
