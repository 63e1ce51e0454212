package web

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"sync"
)

// shown is something that many look at: made once, compressed once.
type shown struct {
	body []byte

	once sync.Once
	zip  []byte
}

// zippers are kept: a new one costs more than what it compresses.
var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a valid one
	return z
}}

// zipped is the body with gzip.
func (s *shown) zipped() []byte {
	s.once.Do(func() {
		var b bytes.Buffer
		z := zippers.Get().(*gzip.Writer) //nolint:errcheck // there is nothing else in it
		defer zippers.Put(z)
		z.Reset(&b)
		_, _ = z.Write(s.body) // into memory
		_ = z.Close()
		s.zip = b.Bytes()
	})
	return s.zip
}

// answer writes it, with gzip where the caller takes that.
func (s *shown) answer(w http.ResponseWriter, r *http.Request, kind string) error {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept-Encoding")
	body := s.body
	if len(body) >= 1024 && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = s.zipped()
	}
	_, err := w.Write(body)
	return err
}

// frames is what is shown of the newest version of something, made once for
// all who look at it, however many they are.
type frames struct {
	mu      sync.Mutex
	version int
	made    map[string]*frame
}

// frame is made by the first who asks for it; the others wait.
type frame struct {
	mu sync.Mutex
	s  *shown
}

// maxFrames is how many are kept: what they are called is up to who asks.
const maxFrames = 64

// get is what is called name of a version, or of a newer one. What make shows
// must be at least of that version.
func (f *frames) get(name string, version int, make func() ([]byte, error)) (*shown, error) {
	f.mu.Lock()
	if version > f.version || f.made == nil {
		f.version, f.made = version, map[string]*frame{}
	}
	one := f.made[name]
	if one == nil {
		one = new(frame)
		if len(f.made) < maxFrames {
			f.made[name] = one
		}
	}
	f.mu.Unlock()
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.s == nil {
		b, err := make()
		if err != nil {
			return nil, err // who asks next tries again
		}
		one.s = &shown{body: b}
	}
	return one.s, nil
}
