package planner

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// sink takes items one after the other. A fileEntry is only valid during the
// call. errStop means that no more are wanted.
type sink interface {
	file(e *fileEntry) error
	value(v any) error
}

var errStop = errors.New("no more items are wanted")

// sorter sorts items by a key and hands them on. Many items are sorted in
// runs, which are kept compressed and merged at the end. Items with the same
// key stay in their order, also when it is a descending one.
type sorter struct {
	dir  string // folder of relative paths
	by   string // name, size, modified
	desc bool
	next sink

	buf  []byte // keys and items of recs
	recs []record
	runs [][][]byte // compressed blocks of key and item, both with their length before
}

type record struct {
	prefix   uint64 // first bytes of the key: decides most comparisons
	key, end uint32 // in buf; the item lies behind the key up to end
	klen     uint32
}

// runBytes is how much is sorted at a time.
const runBytes = 8 << 20

func (s *sorter) file(e *fileEntry) error {
	start := len(s.buf)
	switch s.by {
	case "size":
		s.buf = appendNumberKey(s.buf, e.size)
	case "modified":
		s.buf = appendNumberKey(s.buf, e.mtime)
	default:
		s.buf = append(s.buf, e.path...)
	}
	klen := len(s.buf) - start
	s.buf = append(s.buf, blockFiles)
	s.buf = binary.AppendUvarint(s.buf, 0)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(e.path)))
	s.buf = append(s.buf, e.path...)
	s.buf = binary.AppendVarint(s.buf, e.size)
	s.buf = binary.AppendVarint(s.buf, e.mtime)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(e.etag)))
	s.buf = append(s.buf, e.etag...)
	s.add(start, klen)
	return nil
}

// errNotFiles says that sort needs files and got something else.
var errNotFiles = errors.New("only files have a size and a time")

func (s *sorter) value(v any) error {
	start := len(s.buf)
	f, isFile := v.(*value.File)
	switch {
	case s.by == "name":
		s.buf = appendNameKey(s.buf, v)
	case !isFile:
		return errNotFiles
	case s.by == "size":
		s.buf = appendNumberKey(s.buf, int64(f.Size))
	default:
		s.buf = appendNumberKey(s.buf, f.Modified.UnixNano())
	}
	klen := len(s.buf) - start
	s.buf = append(s.buf, blockValues)
	s.buf = value.AppendItem(s.buf, v)
	s.add(start, klen)
	return nil
}

// appendNumberKey appends a number so that bytes compare as numbers do.
func appendNumberKey(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(n)^1<<63)
}

// appendNameKey appends what an item is sorted by as a name: its text, but
// numbers compare as numbers and come before text.
func appendNameKey(dst []byte, v any) []byte {
	f, ok := v.(float64)
	if n, isInt := v.(int); isInt {
		f, ok = float64(n), true
	}
	if ok {
		bits := math.Float64bits(f)
		if bits>>63 != 0 {
			bits = ^bits
		} else {
			bits |= 1 << 63
		}
		dst = binary.BigEndian.AppendUint64(append(dst, 0), bits)
		if n, isInt := v.(int); isInt { // beyond 2^53 several have one float
			dst = appendNumberKey(dst, int64(n))
		}
		return dst
	}
	return append(append(dst, 1), value.Text(v)...)
}

func (s *sorter) add(start, klen int) {
	r := record{key: uint32(start), klen: uint32(klen), end: uint32(len(s.buf))}
	var pad [8]byte
	copy(pad[:], s.buf[start:start+klen])
	r.prefix = binary.BigEndian.Uint64(pad[:])
	s.recs = append(s.recs, r)
	if len(s.buf) >= runBytes {
		s.cut()
	}
}

func (s *sorter) compare(a, b []byte) int {
	if s.desc {
		return bytes.Compare(b, a)
	}
	return bytes.Compare(a, b)
}

func (s *sorter) sortRecs() {
	key := func(r record) []byte { return s.buf[r.key : r.key+r.klen] }
	slices.SortStableFunc(s.recs, func(a, b record) int {
		if a.prefix != b.prefix {
			if (a.prefix < b.prefix) != s.desc {
				return -1
			}
			return 1
		}
		return s.compare(key(a), key(b))
	})
}

// cut ends a run: sorts it and puts it away.
func (s *sorter) cut() {
	s.sortRecs()
	var run [][]byte
	var raw []byte
	for _, r := range s.recs {
		item := s.buf[r.key+r.klen : r.end]
		raw = binary.AppendUvarint(raw, uint64(r.klen))
		raw = append(raw, s.buf[r.key:r.key+r.klen]...)
		raw = binary.AppendUvarint(raw, uint64(len(item)))
		raw = append(raw, item...)
		if len(raw) >= blockSize {
			run = append(run, s2.Encode(nil, raw))
			raw = raw[:0]
		}
	}
	if len(raw) > 0 {
		run = append(run, s2.Encode(nil, raw))
	}
	s.runs = append(s.runs, run)
	s.buf, s.recs = s.buf[:0], s.recs[:0]
}

// drain hands on everything in order.
func (s *sorter) drain() error {
	if len(s.runs) == 0 {
		s.sortRecs()
		for _, r := range s.recs {
			if err := s.pass(s.buf[r.key+r.klen : r.end]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(s.recs) > 0 {
		s.cut()
	}
	s.buf, s.recs = nil, nil
	m := &merger{s: s}
	for i, run := range s.runs {
		c := &cursor{run: run, order: i}
		if err := c.next(); err != nil {
			return err
		}
		m.cursors = append(m.cursors, c)
	}
	heap.Init(m)
	for len(m.cursors) > 0 {
		c := m.cursors[0]
		if err := s.pass(c.item); err != nil {
			return err
		}
		if err := c.next(); err != nil {
			return err
		}
		if c.ended {
			heap.Pop(m)
		} else {
			heap.Fix(m, 0)
		}
	}
	return nil
}

func (s *sorter) pass(item []byte) error {
	if item[0] == blockFiles {
		var e fileEntry
		r := blockReader{b: item[1:]}
		r.file(&e)
		if r.bad {
			return errBadBlock
		}
		return s.next.file(&e)
	}
	v, err := value.DecodeItem(item[1:])
	if err != nil {
		return err
	}
	return s.next.value(v)
}

// cursor reads a run.
type cursor struct {
	run       [][]byte
	order     int
	r         blockReader
	key, item []byte
	ended     bool
}

func (c *cursor) next() error {
	if len(c.r.b) == 0 {
		if len(c.run) == 0 {
			c.ended = true
			return nil
		}
		raw, err := s2.Decode(nil, c.run[0])
		if err != nil {
			return errBadBlock
		}
		c.run[0] = nil
		c.run = c.run[1:]
		c.r = blockReader{b: raw}
	}
	c.key, c.item = c.r.bytes(), c.r.bytes()
	if c.r.bad {
		return errBadBlock
	}
	return nil
}

// merger is a heap of cursors, the one with the next item on top.
type merger struct {
	s       *sorter
	cursors []*cursor
}

func (m *merger) Len() int      { return len(m.cursors) }
func (m *merger) Swap(i, j int) { m.cursors[i], m.cursors[j] = m.cursors[j], m.cursors[i] }
func (m *merger) Push(x any)    { m.cursors = append(m.cursors, x.(*cursor)) }

func (m *merger) Less(i, j int) bool {
	a, b := m.cursors[i], m.cursors[j]
	if c := m.s.compare(a.key, b.key); c != 0 {
		return c < 0
	}
	return a.order < b.order
}

func (m *merger) Pop() any {
	last := m.cursors[len(m.cursors)-1]
	m.cursors = m.cursors[:len(m.cursors)-1]
	return last
}
