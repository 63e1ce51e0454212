package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Manifest is one version of the files beside a pipeline file.
type Manifest struct {
	// Hash names the version: equal hashes, equal paths, modes and contents.
	Hash string
	// Entries are the files, in the order of their paths.
	Entries []Entry
	// Left are the files that were left out because they look like secrets.
	// People are told of them.
	Left []Left

	dir   string // where the contents are
	name  string // of the pipeline
	cache string // folder for what is remembered of earlier pushes; "" is none
}

// Entry is a file or a symbolic link.
type Entry struct {
	Path string // relative, with slashes; any bytes but NUL
	Mode fs.FileMode
	Size int64  // bytes
	Hash string // sha256 of the content, hex; "" of a link
	Link string // where a link leads; "" of a file

	stamp stamp // of the file, when Scan saw it
}

// Left is a file that was left out.
type Left struct {
	Path string
	Why  string
}

// Bytes is the size of all files.
func (m *Manifest) Bytes() int64 {
	var n int64
	for i := range m.Entries {
		n += m.Entries[i].Size
	}
	return n
}

// Key is where the manifest lies in a store.
func (m *Manifest) Key() string { return keyOf(m.Hash) }

// Find is the entry with a path; nil if there is none.
func (m *Manifest) Find(path string) *Entry {
	i, ok := slices.BinarySearchFunc(m.Entries, path, func(e Entry, p string) int { return strings.Compare(e.Path, p) })
	if !ok {
		return nil
	}
	return &m.Entries[i]
}

const (
	codePrefix   = "code/"
	packPrefix   = "code/packs/"
	latestPrefix = "code/latest/"
	filePrefix   = "files/"
	indexPrefix  = "files/index/"
)

func keyOf(hash string) string { return codePrefix + hash + ".json" }

func fileKey(hash string) string { return filePrefix + hash }

// HashOfKey is the hash of the manifest with a key.
func HashOfKey(key string) (string, bool) {
	hash, ok := strings.CutPrefix(key, codePrefix)
	if !ok {
		return "", false
	}
	hash, ok = strings.CutSuffix(hash, ".json")
	return hash, ok && isHash(hash)
}

// isHash says whether s is a sha256 in hex.
func isHash(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// hashEntries is the hash of a list of entries, which it sorts.
func hashEntries(list []Entry) string {
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	h := sha256.New()
	var b []byte
	for i := range list {
		e := &list[i]
		b = strconv.AppendQuote(b[:0], e.Path)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(e.Mode), 8)
		b = append(b, ' ')
		b = strconv.AppendInt(b, e.Size, 10)
		b = append(b, ' ')
		b = append(b, e.Hash...)
		b = append(b, ' ')
		b = strconv.AppendQuote(b, e.Link)
		b = append(b, '\n')
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// text is bytes in JSON: as they are if they are UTF-8, else in base64.
type text string

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal([1][]byte{[]byte(t)})
}

func (t *text) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte("[")) {
		var raw [1][]byte
		err := json.Unmarshal(b, &raw)
		*t = text(raw[0])
		return err
	}
	return json.Unmarshal(b, (*string)(t))
}

// stored is a manifest as it lies in the store.
type stored struct {
	Version int          `json:"version"`
	Pushed  time.Time    `json:"pushed"` // or looked after, see Push
	Packs   []storedPack `json:"packs,omitempty"`
	Files   []storedFile `json:"files"`
}

type storedPack struct {
	Key    string     `json:"key"`
	Frames [][3]int64 `json:"frames"` // offset and length in the object, length of the content
}

type storedFile struct {
	Path text        `json:"p"`
	Mode fs.FileMode `json:"m"`
	Size int64       `json:"s,omitempty"`
	Hash string      `json:"h,omitempty"`
	Link text        `json:"l,omitempty"`
	// At is pack, frame and offset of the content in it. Without, the content
	// is an object of its own.
	At *[3]int64 `json:"at,omitempty"`
}

const storedVersion = 1

func (f *storedFile) entry() Entry {
	return Entry{Path: string(f.Path), Mode: f.Mode, Size: f.Size, Hash: f.Hash, Link: string(f.Link)}
}

// entries is the entries of a stored manifest.
func (s *stored) entries() []Entry {
	list := make([]Entry, len(s.Files))
	for i := range s.Files {
		list[i] = s.Files[i].entry()
	}
	return list
}

// parseStored reads a manifest and checks that it is what its key says, and
// that nothing in it leads out of a folder.
func parseStored(key string, b []byte) (*stored, error) {
	bad := func(err error) error {
		return &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
	}
	hash, ok := HashOfKey(key)
	if !ok {
		return nil, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindInvalid, Err: errors.New("is not the key of a version of code")}
	}
	s := &stored{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, bad(err)
	}
	if s.Version != storedVersion {
		return nil, bad(fmt.Errorf("has format %d, this program knows %d", s.Version, storedVersion))
	}
	list := s.entries()
	if hashEntries(list) != hash {
		return nil, bad(errors.New("its content does not have the hash in its name"))
	}
	folders := map[string]bool{}
	for i := range list {
		if err := checkEntry(&list[i], folders); err != nil {
			return nil, bad(err)
		}
		if i > 0 && list[i].Path == list[i-1].Path {
			return nil, bad(fmt.Errorf("names %q twice", list[i].Path))
		}
	}
	for i := range list {
		if folders[list[i].Path] {
			return nil, bad(fmt.Errorf("%q is both a file and a folder", list[i].Path))
		}
	}
	for i := range s.Files {
		if err := s.checkAt(&s.Files[i]); err != nil {
			return nil, bad(err)
		}
	}
	return s, nil
}

// checkEntry refuses what cannot be made, or would lead out of the folder.
func checkEntry(e *Entry, folders map[string]bool) error {
	if !localPath(e.Path) {
		return fmt.Errorf("path %q leads out of the folder", e.Path)
	}
	for d := path.Dir(e.Path); d != "." && !folders[d]; d = path.Dir(d) {
		folders[d] = true
	}
	switch {
	case e.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("%q has mode %o", e.Path, uint32(e.Mode))
	case e.Link != "":
		if strings.IndexByte(e.Link, 0) >= 0 || !linkStays(e.Path, e.Link) {
			return fmt.Errorf("link %q leads out of the folder", e.Path)
		}
		if e.Hash != "" || e.Size != 0 {
			return fmt.Errorf("link %q has a content", e.Path)
		}
	case !isHash(e.Hash) || e.Size < 0:
		return fmt.Errorf("%q has no content", e.Path)
	}
	return nil
}

// checkAt refuses a place that does not exist.
func (s *stored) checkAt(f *storedFile) error {
	if f.At == nil {
		return nil
	}
	p, n, off := f.At[0], f.At[1], f.At[2]
	if p < 0 || p >= int64(len(s.Packs)) || n < 0 || n >= int64(len(s.Packs[p].Frames)) {
		return fmt.Errorf("%q lies in a pack that is not there", f.Path)
	}
	pack := &s.Packs[p]
	fr := pack.Frames[n]
	hash, _ := strings.CutPrefix(pack.Key, packPrefix)
	switch {
	case !isHash(hash):
		return fmt.Errorf("a pack has the key %q", pack.Key)
	case fr[0] < 0 || fr[1] < 0 || fr[2] < 0 || fr[2] > maxFrame || fr[1] > maxFrame+maxFrame/8+1024:
		return fmt.Errorf("a frame of %s has the extent %v", pack.Key, fr)
	case off < 0 || off > fr[2] || f.Size > fr[2]-off:
		return fmt.Errorf("%q lies behind the end of its frame", f.Path)
	}
	return nil
}

// localPath says whether a path with slashes names something below a folder,
// in one spelling only.
func localPath(p string) bool {
	return p != "" && p != "." && strings.IndexByte(p, 0) < 0 && path.Clean(p) == p &&
		!path.IsAbs(p) && p != ".." && !strings.HasPrefix(p, "../") && filepath.IsLocal(filepath.FromSlash(p))
}

// linkStays says whether a link in a folder leads to something below it, by
// the text alone.
func linkStays(name, target string) bool {
	if path.IsAbs(target) || filepath.IsAbs(target) {
		return false
	}
	to := path.Join(path.Dir(name), target)
	return to != ".." && !strings.HasPrefix(to, "../")
}
