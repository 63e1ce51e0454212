package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// How contents are put together: a pack is one object, a frame what has to be
// read for one file.
const (
	smallFile = 512 << 10 // larger contents are objects of their own
	fullFrame = 512 << 10 // a frame of so much is closed
	maxFrame  = smallFile + fullFrame
	fullPack  = 32 << 20 // a pack of so much content is closed
	maxPacks  = 16       // of one version; more are put together anew
)

// ErrChanged says that a file was changed between Scan and Push: scan again.
var ErrChanged = errors.New("was changed while it was read; do not change files during the start of a run")

var encoders = sync.Pool{New: func() any {
	e, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault)) // cannot fail: constant options
	return e
}}

var decoders = sync.Pool{New: func() any {
	d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame+1)) // likewise
	return d
}}

// decodeFrame unpacks a frame whose content must have this length.
func decodeFrame(b []byte, size int64) ([]byte, error) {
	d := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(d)
	out, err := d.DecodeAll(b, make([]byte, 0, size))
	if err == nil && int64(len(out)) != size {
		err = fmt.Errorf("holds %d bytes instead of %d", len(out), size)
	}
	return out, err
}

// place is where a content lies: a frame of a pack. pack is nil for an object
// of its own.
type place struct {
	pack       *storedPack
	frame, off int64
}

// plannedPack is contents that become one pack.
type plannedPack struct {
	list []*Entry
}

// planPacks groups contents, in their order.
func planPacks(list []*Entry) (packs []plannedPack) {
	var size int64
	for _, e := range list {
		if len(packs) == 0 || size >= fullPack {
			packs = append(packs, plannedPack{})
			size = 0
		}
		p := &packs[len(packs)-1]
		p.list = append(p.list, e)
		size += e.Size
	}
	return packs
}

// build reads the contents and makes the object.
func (p *plannedPack) build(ctx context.Context, dir string) (obj []byte, sp *storedPack, places []place, err error) {
	sp = &storedPack{}
	enc := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(enc)
	var frame []byte
	flush := func() {
		from := len(obj)
		obj = enc.EncodeAll(frame, obj)
		sp.Frames = append(sp.Frames, [3]int64{int64(from), int64(len(obj) - from), int64(len(frame))})
		frame = frame[:0]
	}
	for i, e := range p.list {
		if err := ctx.Err(); err != nil {
			return nil, nil, nil, err
		}
		if len(frame) >= fullFrame {
			flush()
		}
		places = append(places, place{pack: sp, frame: int64(len(sp.Frames)), off: int64(len(frame))})
		if frame, err = appendFile(frame, dir, e); err != nil {
			return nil, nil, nil, err
		}
		if i == len(p.list)-1 {
			flush()
		}
	}
	sum := sha256.Sum256(obj)
	sp.Key = packPrefix + hex.EncodeToString(sum[:])
	return obj, sp, places, nil
}

// appendFile reads a small file, which must have the content it had.
func appendFile(b []byte, dir string, e *Entry) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(e.Path)))
	if err != nil {
		return b, err
	}
	defer func() { _ = f.Close() }()
	from := len(b)
	for {
		if len(b) == cap(b) {
			b = append(b, make([]byte, 64<<10)...)[:len(b)]
		}
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)-from) > e.Size {
			break
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return b[:from], fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	sum := sha256.Sum256(b[from:])
	if hex.EncodeToString(sum[:]) != e.Hash {
		return b[:from], fmt.Errorf("%s %w", printable(e.Path), ErrChanged)
	}
	return b, nil
}

// checkedReader fails at the end if what was read does not have the hash, so
// that a writer behind it stores nothing.
type checkedReader struct {
	r    io.Reader
	h    interface{ Sum([]byte) []byte }
	want string
	name string
}

func newCheckedReader(r io.Reader, e *Entry) *checkedReader {
	h := sha256.New()
	return &checkedReader{r: io.TeeReader(r, h), h: h, want: e.Hash, name: e.Path}
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err == io.EOF && hex.EncodeToString(c.h.Sum(nil)) != c.want {
		return n, fmt.Errorf("%s %w", printable(c.name), ErrChanged)
	}
	return n, err
}

// sendFile stores a content as an object of its own.
func sendFile(ctx context.Context, store cloud.Store, dir string, e *Entry) error {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(e.Path)))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if e.Size <= smallFile {
		b, err := appendFile(nil, dir, e)
		if err != nil {
			return err
		}
		return store.Put(ctx, fileKey(e.Hash), b)
	}
	return store.PutFrom(ctx, fileKey(e.Hash), newCheckedReader(f, e))
}

// Contents that nothing young refers to may be removed by Collect. What is
// built on must be younger than trusted; Collect spares what is younger than
// spared. The day between is the time that a push may take.
const (
	refreshed = 24 * time.Hour
	trusted   = 7 * 24 * time.Hour
	spared    = 8 * 24 * time.Hour
)

// exists says whether an object is there.
func exists(ctx context.Context, store cloud.Store, key string) (bool, error) {
	var b [1]byte
	_, err := store.ReadAt(ctx, key, b[:], 0)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return true, nil
	case cloud.KindOf(err) == cloud.KindNotFound:
		return false, nil
	}
	return false, err
}

// young says whether an object is there and will be for a while.
func young(ctx context.Context, store cloud.Store, key string) (ok bool, err error) {
	err = store.List(ctx, key, func(o cloud.ObjectInfo) bool {
		if o.Key == key {
			ok = time.Since(o.Modified) < trusted
		}
		return false
	})
	return ok, err
}
