package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
)

// digests remembers the hashes of programs: reading one of tens of megabytes
// takes longer than all else that stands between a run and its machines. What
// cannot be kept is found out again.
type digests struct{ path string }

// fileStat tells whether a file is the same as it was.
type fileStat struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	Time   int64  `json:"time"`
	Digest string `json:"digest,omitempty"`
}

// statOf looks at a file; the zero value if it is not there.
func statOf(path string) fileStat {
	path, err := filepath.Abs(path)
	if err != nil {
		return fileStat{}
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return fileStat{}
	}
	return fileStat{Path: path, Size: info.Size(), Time: info.ModTime().UnixNano()}
}

// is says whether the file has this content.
func (f fileStat) is(digest string) bool {
	if f.Path == "" || digest == "" {
		return false
	}
	r, err := os.Open(f.Path)
	if err != nil {
		return false
	}
	defer r.Close()
	h := sha256.New()
	_, err = io.Copy(h, r)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == digest && statOf(f.Path) == f
}

func (d digests) all() map[string]fileStat {
	known := map[string]fileStat{}
	if b, err := os.ReadFile(d.path); err == nil {
		_ = json.Unmarshal(b, &known)
	}
	return known
}

// of is the hash of a file's content; "" if it is not known.
func (d digests) of(f fileStat) string {
	was := d.all()[f.Path]
	f.Digest = was.Digest
	if f.Path == "" || was != f || len(was.Digest) != 2*sha256.Size {
		return ""
	}
	return was.Digest
}

// note remembers the hash of a file's content.
func (d digests) note(f fileStat, digest string) {
	known := d.all()
	f.Digest = digest
	known[f.Path] = f
	for path, was := range known {
		if s := statOf(path); s.Time != was.Time || s.Size != was.Size {
			delete(known, path)
		}
	}
	b, err := json.Marshal(known)
	if err != nil || os.MkdirAll(filepath.Dir(d.path), 0o700) != nil {
		return
	}
	t, err := os.CreateTemp(filepath.Dir(d.path), ".digests-*")
	if err != nil {
		return
	}
	_, err = t.Write(b)
	if cerr := t.Close(); err == nil && cerr == nil {
		err = os.Rename(t.Name(), d.path)
	}
	if err != nil {
		os.Remove(t.Name())
	}
}
