package spec

import (
	"fmt"
	"path"
	"strings"
)

// CheckOutput says what is wrong with a declared output, after its templates:
// it must be a path below the working directory or an object on S3.
func CheckOutput(p string) error {
	if scheme, rest, ok := strings.Cut(p, "://"); ok {
		bucket, key, _ := strings.Cut(rest, "/")
		if scheme != "s3" || bucket == "" || key == "" {
			return fmt.Errorf("output %q: a URI is s3://bucket/key; anything else is a path below the working directory", p)
		}
		return nil
	}
	switch c := path.Clean(p); {
	case p == "":
		return fmt.Errorf("an output is empty")
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("output %q contains a NUL byte", p)
	case path.IsAbs(c), c == ".", c == "..", strings.HasPrefix(c, "../"):
		return fmt.Errorf("output %q is not below the working directory: outputs are relative paths without \"..\"", p)
	}
	return nil
}

// checkOutputs reports outputs that cannot be right whatever the parameters are.
func (d *decoder) checkOutputs(f *field) {
	if f == nil {
		return
	}
	for _, e := range f.list {
		t, ok := e.v.(*Template)
		if !ok || t == nil {
			continue
		}
		text, static := t.Static()
		if !static || text == "" { // an empty one is reported already
			continue
		}
		if err := CheckOutput(text); err != nil {
			d.report(e.n.pos, e.path, "%v", err)
		}
	}
}
