package value

import (
	"net/url"
	"path"
	"strings"
	"time"
)

// File is a file item: an element of a map over files or S3 objects.
//
// Wherever it becomes text or JSON it is its Path; in expressions its fields
// are read by the lower-case names of the tags.
type File struct {
	Path     string    `expr:"path"` // as given by the pattern: relative, absolute or s3://bucket/key
	URI      string    `expr:"uri"`  // file:///... or s3://...
	Name     string    `expr:"name"` // last element, with its extension
	Stem     string    `expr:"stem"` // name without the last extension
	Ext      string    `expr:"ext"`  // last extension with its dot, or ""
	Dir      string    `expr:"dir"`  // what comes before the name, without the slash
	Size     int       `expr:"size"` // bytes
	Modified time.Time `expr:"modified"`
	ETag     string    `expr:"etag"`   // S3 only
	Bucket   string    `expr:"bucket"` // S3 only
	Key      string    `expr:"key"`    // S3 only
	Abs      string    `expr:"-"`      // local only: the absolute path behind Path
}

// NewLocalFile makes the item of a local file. p is the path as it renders,
// abs the absolute path behind it.
func NewLocalFile(p, abs string, size int64, modified time.Time) *File {
	f := &File{Path: p, Size: int(size), Modified: modified, Abs: abs}
	f.URI = (&url.URL{Scheme: "file", Path: abs}).String()
	f.fillNames(p)
	return f
}

// NewS3File makes the item of an S3 object.
func NewS3File(bucket, key string, size int64, modified time.Time, etag string) *File {
	f := &File{Path: "s3://" + bucket + "/" + key, Size: int(size), Modified: modified,
		ETag: strings.Trim(etag, `"`), Bucket: bucket, Key: key}
	f.URI = f.Path
	f.fillNames(f.Path)
	return f
}

func (f *File) fillNames(p string) {
	f.Name = Basename(p)
	f.Dir = Dirname(p)
	f.Ext = Ext(p)
	f.Stem = Stem(p)
}

// Basename is the last element of a path or URI.
func Basename(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

// Dirname is what comes before the last element, without its slash; "" if
// there is none, "/" for the root.
func Dirname(p string) string {
	i := strings.LastIndexByte(p, '/')
	switch {
	case i < 0:
		return ""
	case i == 0:
		return "/"
	}
	return p[:i]
}

// Ext is the last extension of the name with its dot. A name that starts with
// its only dot (".bashrc") has none.
func Ext(p string) string {
	name := Basename(p)
	if e := path.Ext(name); e != name {
		return e
	}
	return ""
}

// Stem is the name without its last extension.
func Stem(p string) string { return strings.TrimSuffix(Basename(p), Ext(p)) }

// EachLocal calls see with the path of each local file in an item, wherever in
// it that is, until one call fails: files that must be where the item is used.
func EachLocal(item any, see func(path string) error) error {
	switch x := item.(type) {
	case *File:
		if x.Bucket == "" {
			return see(x.Path)
		}
	case []any:
		for _, v := range x {
			if err := EachLocal(v, see); err != nil {
				return err
			}
		}
	case *Object:
		for _, key := range x.Keys {
			v, _ := x.Get(key)
			if err := EachLocal(v, see); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, v := range x {
			if err := EachLocal(v, see); err != nil {
				return err
			}
		}
	}
	return nil
}
