package planner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// fileEntry is a listed file before it is a value.File.
type fileEntry struct {
	path  []byte // as it renders
	size  int64
	mtime int64 // Unix nanoseconds; noTime if unknown
	etag  string
}

const noTime = math.MinInt64

// blockSize is how much is compressed at a time, and decoded to read one item.
const blockSize = 32 << 10

// packed is a list of items in compressed blocks. A block begins with a byte
// that says what is in it:
//
//	'f'  files:  bytes shared with the path before, length of the rest, rest,
//	             size, modified (nanoseconds), length of the etag, etag
//	'v'  values: length, value.AppendItem
type packed struct {
	dir    string // folder of relative paths, ends in a slash
	blocks [][]byte
	firsts []int // index of each block's first item
	n      int
	bytes  int64

	cache atomic.Pointer[openBlock] // the block that was decoded last
}

type openBlock struct {
	i   int
	raw []byte
}

const (
	blockFiles  = 'f'
	blockValues = 'v'
)

// packer builds a packed list.
type packer struct {
	p    packed
	raw  []byte
	last []byte // path before, for what is shared
	in   int    // items in raw
	item []byte // scratch
}

func newPacker(dir string) *packer { return &packer{p: packed{dir: dir}} }

// open starts a new block if the kind changes or the block is full.
func (p *packer) open(kind byte) {
	if len(p.raw) > 0 && (p.raw[0] != kind || len(p.raw) >= blockSize) {
		p.flush()
	}
	if len(p.raw) == 0 {
		p.raw = append(p.raw, kind)
		p.last = p.last[:0]
	}
}

func (p *packer) file(e *fileEntry) error {
	p.open(blockFiles)
	shared := commonPrefix(p.last, e.path)
	rest := e.path[shared:]
	p.raw = binary.AppendUvarint(p.raw, uint64(shared))
	p.raw = binary.AppendUvarint(p.raw, uint64(len(rest)))
	p.raw = append(p.raw, rest...)
	p.raw = binary.AppendVarint(p.raw, e.size)
	p.raw = binary.AppendVarint(p.raw, e.mtime)
	p.raw = binary.AppendUvarint(p.raw, uint64(len(e.etag)))
	p.raw = append(p.raw, e.etag...)
	p.last = append(p.last[:shared], rest...)
	p.in++
	p.p.bytes += e.size
	return nil
}

func (p *packer) value(v any) error {
	p.item = value.AppendItem(p.item[:0], v)
	p.encoded(p.item)
	p.p.bytes += fileBytes(v)
	return nil
}

func (p *packer) encoded(item []byte) {
	p.open(blockValues)
	p.raw = binary.AppendUvarint(p.raw, uint64(len(item)))
	p.raw = append(p.raw, item...)
	p.in++
}

func (p *packer) flush() {
	if len(p.raw) == 0 {
		return
	}
	p.p.blocks = append(p.p.blocks, s2.Encode(nil, p.raw))
	p.p.firsts = append(p.p.firsts, p.p.n)
	p.p.n += p.in
	p.raw, p.in = p.raw[:0], 0
}

func (p *packer) done() *packed {
	p.flush()
	return &p.p
}

// fileBytes is the sum of the sizes of the files in a value.
func fileBytes(v any) int64 {
	var n int64
	switch v := v.(type) {
	case *value.File:
		return int64(v.Size)
	case []any:
		for _, e := range v {
			n += fileBytes(e)
		}
	case *value.Object:
		for _, e := range v.Vals {
			n += fileBytes(e)
		}
	}
	return n
}

func (p *packed) Len() int      { return p.n }
func (p *packed) Elements() int { return p.n }
func (p *packed) Bytes() int64  { return p.bytes }

// Each decodes the blocks that hold the items, one after the other.
func (p *packed) Each(from, to int, fn func(int, any) error) error {
	return p.each(from, to, func(i int, e *fileEntry) error { return fn(i, e.item(p.dir)) }, fn)
}

// each is Each with files as entries that are only valid during the call.
func (p *packed) each(from, to int, file func(int, *fileEntry) error, val func(int, any) error) error {
	if err := checkRange(from, to, p.n); err != nil || from == to {
		return err
	}
	b := sort.SearchInts(p.firsts, from+1) - 1
	for ; b < len(p.blocks) && p.firsts[b] < to; b++ {
		raw, err := p.block(b)
		if err != nil {
			return err
		}
		r := blockReader{b: raw[1:]}
		var e fileEntry
		for i := p.firsts[b]; i < to && len(r.b) > 0; i++ {
			if raw[0] == blockFiles {
				r.file(&e)
				if r.bad {
					return errBadBlock
				}
				if i >= from {
					if err := file(i, &e); err != nil {
						return err
					}
				}
				continue
			}
			item := r.bytes()
			if r.bad {
				return errBadBlock
			}
			if i < from {
				continue
			}
			v, err := value.DecodeItem(item)
			if err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
			if err := val(i, v); err != nil {
				return err
			}
		}
	}
	return nil
}

var errBadBlock = errors.New("packed items are damaged")

func (p *packed) block(i int) ([]byte, error) {
	if c := p.cache.Load(); c != nil && c.i == i {
		return c.raw, nil
	}
	raw, err := s2.Decode(nil, p.blocks[i])
	if err != nil || len(raw) == 0 || raw[0] != blockFiles && raw[0] != blockValues {
		return nil, errBadBlock
	}
	p.cache.Store(&openBlock{i, raw})
	return raw, nil
}

// blockReader reads the parts of a block; bad is set at the first damage.
type blockReader struct {
	b   []byte
	bad bool
}

func (r *blockReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *blockReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *blockReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

// file reads a file; e.path must hold the path before.
func (r *blockReader) file(e *fileEntry) {
	shared := r.uvarint()
	rest := r.bytes()
	if shared > uint64(len(e.path)) {
		r.bad = true
		return
	}
	e.path = append(e.path[:shared], rest...)
	e.size = r.varint()
	e.mtime = r.varint()
	e.etag = string(r.bytes())
}

const s3Scheme = "s3://"

// isS3 says whether a file's path is that of an S3 object. A cleaned local
// path never has two slashes in a row.
func isS3(path []byte) bool {
	return len(path) > len(s3Scheme) && string(path[:len(s3Scheme)]) == s3Scheme
}

// item makes the value of an entry; dir is the folder of relative paths.
func (e *fileEntry) item(dir string) *value.File {
	var modified time.Time
	if e.mtime != noTime {
		modified = time.Unix(0, e.mtime).UTC()
	}
	path := string(e.path)
	if isS3(e.path) {
		bucket, key := splitS3(path)
		return value.NewS3File(bucket, key, e.size, modified, e.etag)
	}
	return value.NewLocalFile(path, absolute(dir, path), e.size, modified)
}

// absolute is the absolute path behind a rendered one; dir ends in a slash.
func absolute(dir, path string) string {
	if len(path) > 0 && path[0] == '/' {
		return path
	}
	for len(path) > 3 && path[:3] == "../" {
		path = path[3:]
		end := len(dir) - 1
		for end > 0 && dir[end-1] != '/' {
			end--
		}
		if end > 0 {
			dir = dir[:end]
		}
	}
	return dir + path
}

// checkRange guards Each against a caller's mistake.
func checkRange(from, to, n int) error {
	if from < 0 || to > n || from > to {
		return fmt.Errorf("items %d to %d of %d", from, to, n)
	}
	return nil
}
