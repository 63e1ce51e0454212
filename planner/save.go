package planner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// ref is stored items: what is computed as its rule, what is listed as the
// objects that hold it.
type ref struct {
	Kind string `json:"kind"` // range, packed, matrix, zip, head, batch, only
	// range
	From int `json:"from,omitempty"`
	Step int `json:"step,omitempty"`
	N    int `json:"n"`
	// packed
	Dir    []byte     `json:"dir,omitempty"` // bytes: a folder's name need not be UTF-8
	Bytes  int64      `json:"bytes,omitempty"`
	Inline []byte     `json:"inline,omitempty"` // the only chunk, if it is small
	Chunks []chunkRef `json:"chunks,omitempty"`
	// matrix, zip
	Names []string `json:"names,omitempty"`
	Parts []*ref   `json:"parts,omitempty"`
	// head, batch, only
	Of       *ref       `json:"of,omitempty"`
	Size     int        `json:"size,omitempty"`
	Elements int        `json:"elements,omitempty"`
	Numbers  []byte     `json:"numbers,omitempty"` // starts or indices, if few
	Spilled  []chunkRef `json:"spilled,omitempty"` // the same, if many
}

// chunkRef is an object with items. Its key is the hash of its content, so
// storing the same items again changes nothing.
type chunkRef struct {
	N    int    `json:"n"` // items in it
	Hash string `json:"hash"`
}

const (
	chunkBytes  = 512 << 10 // compressed, about
	inlineBytes = 4 << 10
)

// SaveItems stores items under a prefix of keys and returns a small JSON
// document from which LoadItems finds them again.
func SaveItems(ctx context.Context, store cloud.Store, prefix string, it Items) ([]byte, error) {
	s := saver{ctx: ctx, store: store, prefix: prefix}
	r, err := s.save(it)
	if err != nil {
		return nil, fmt.Errorf("store items: %w", err)
	}
	return json.Marshal(r)
}

type saver struct {
	ctx    context.Context
	store  cloud.Store
	prefix string
}

func (s *saver) save(it Items) (*ref, error) {
	switch it := it.(type) {
	case rangeItems:
		return &ref{Kind: "range", From: it.from, Step: it.step, N: it.n}, nil
	case *packed:
		return s.packed(it)
	case *storedItems:
		// Another run's items: their objects lie elsewhere.
		p := newPacker(it.dir)
		if err := it.each(0, it.n, func(_ int, e *fileEntry) error { return p.file(e) },
			func(_ int, v any) error { return p.value(v) }); err != nil {
			return nil, err
		}
		return s.packed(p.done())
	case *matrixItems:
		parts, err := s.parts(it.parts)
		return &ref{Kind: "matrix", N: it.n, Names: it.names, Parts: parts}, err
	case *zipItems:
		parts, err := s.parts(it.parts)
		return &ref{Kind: "zip", N: it.Len(), Names: it.names, Parts: parts}, err
	case *headItems:
		of, err := s.save(it.of)
		return &ref{Kind: "head", N: it.n, Of: of, Elements: it.elements, Bytes: it.bytes}, err
	case *onlyItems:
		return s.numbered(&ref{Kind: "only", N: len(it.index), Elements: it.elements, Bytes: it.bytes}, it.of, it.index)
	case *batchItems:
		return s.numbered(&ref{Kind: "batch", N: it.Len(), Size: it.size}, it.of, it.starts)
	}
	p := newPacker("")
	if err := it.Each(0, it.Len(), func(_ int, v any) error { return p.value(v) }); err != nil {
		return nil, err
	}
	return s.packed(p.done())
}

func (s *saver) parts(parts []Items) ([]*ref, error) {
	refs := make([]*ref, len(parts))
	for i, p := range parts {
		var err error
		if refs[i], err = s.save(p); err != nil {
			return nil, err
		}
	}
	return refs, nil
}

// numbered saves items with a list of ascending numbers, as differences.
func (s *saver) numbered(r *ref, of Items, numbers []int) (*ref, error) {
	var err error
	if r.Of, err = s.save(of); err != nil || numbers == nil {
		return r, err
	}
	var b []byte
	last := 0
	for _, n := range numbers {
		b = binary.AppendUvarint(b, uint64(n-last))
		last = n
	}
	b = s2.Encode(nil, b)
	if len(b) <= inlineBytes {
		r.Numbers = b
		return r, nil
	}
	c, err := s.put(b, len(numbers))
	r.Spilled = []chunkRef{c}
	return r, err
}

func (s *saver) put(b []byte, n int) (chunkRef, error) {
	sum := sha256.Sum256(b)
	c := chunkRef{N: n, Hash: hex.EncodeToString(sum[:])}
	return c, s.store.Put(s.ctx, s.prefix+"/"+c.Hash, b)
}

// packed stores blocks, several to an object: the number of blocks, then for
// each the number of items and the length, then the blocks.
func (s *saver) packed(p *packed) (*ref, error) {
	r := &ref{Kind: "packed", N: p.n, Dir: []byte(p.dir), Bytes: p.bytes}
	for from := 0; from < len(p.blocks); {
		to, size := from, 0
		for to < len(p.blocks) && (to == from || size+len(p.blocks[to]) <= chunkBytes) {
			size += len(p.blocks[to])
			to++
		}
		b := binary.AppendUvarint(make([]byte, 0, size+16*(to-from)), uint64(to-from))
		for i := from; i < to; i++ {
			b = binary.AppendUvarint(b, uint64(p.count(i)))
			b = binary.AppendUvarint(b, uint64(len(p.blocks[i])))
		}
		b = append(b, bytes.Join(p.blocks[from:to], nil)...)
		n := p.firsts[to-1] + p.count(to-1) - p.firsts[from]
		if from == 0 && to == len(p.blocks) && len(b) <= inlineBytes {
			r.Inline = b
			return r, nil
		}
		c, err := s.put(b, n)
		if err != nil {
			return nil, err
		}
		r.Chunks = append(r.Chunks, c)
		from = to
	}
	return r, nil
}

// count is the number of items in a block.
func (p *packed) count(block int) int {
	if block+1 < len(p.firsts) {
		return p.firsts[block+1] - p.firsts[block]
	}
	return p.n - p.firsts[block]
}

// LoadItems finds items that SaveItems stored. Chunks are fetched when they
// are first needed, with the values but not the end of ctx, and checked.
func LoadItems(ctx context.Context, store cloud.Store, prefix string, b []byte) (Items, error) {
	var r ref
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("stored items: %w", err)
	}
	l := loader{ctx: context.WithoutCancel(ctx), store: store, prefix: prefix}
	it, err := l.load(&r)
	if err != nil {
		return nil, fmt.Errorf("stored items: %w", err)
	}
	return it, nil
}

type loader struct {
	ctx    context.Context
	store  cloud.Store
	prefix string
}

func (l *loader) load(r *ref) (Items, error) {
	if r == nil || r.N < 0 || r.N > maxItems {
		return nil, errBadRef
	}
	switch r.Kind {
	case "range":
		return rangeItems{from: r.From, step: r.Step, n: r.N}, nil
	case "packed":
		return l.packed(r)
	case "matrix", "zip":
		return l.parts(r)
	}
	of, err := l.load(r.Of)
	if err != nil {
		return nil, err
	}
	numbers, err := l.numbers(r, of.Len())
	if err != nil {
		return nil, err
	}
	switch {
	case r.Kind == "head" && r.N <= of.Len():
		return &headItems{of: of, n: r.N, elements: r.Elements, bytes: r.Bytes}, nil
	case r.Kind == "only" && len(numbers) == r.N:
		return &onlyItems{of: of, index: numbers, elements: r.Elements, bytes: r.Bytes}, nil
	case r.Kind == "batch" && (r.Size > 0 || len(numbers) == r.N && r.N > 0 && numbers[0] == 0):
		return &batchItems{of: of, size: r.Size, starts: numbers}, nil
	}
	return nil, errBadRef
}

var errBadRef = fmt.Errorf("the reference is damaged")

func (l *loader) parts(r *ref) (Items, error) {
	parts := make([]Items, len(r.Parts))
	for i, p := range r.Parts {
		var err error
		if parts[i], err = l.load(p); err != nil {
			return nil, err
		}
		if r.Kind == "zip" && parts[i].Len() != r.N {
			return nil, errBadRef
		}
	}
	if len(parts) == 0 || len(parts) != len(r.Names) {
		return nil, errBadRef
	}
	if r.Kind == "zip" {
		return &zipItems{names: r.Names, parts: parts}, nil
	}
	m, ok := newMatrix(r.Names, parts)
	if !ok || m.n != r.N {
		return nil, errBadRef
	}
	return m, nil
}

// numbers reads ascending numbers below limit; nil if there are none.
func (l *loader) numbers(r *ref, limit int) ([]int, error) {
	b := r.Numbers
	if len(r.Spilled) == 1 {
		var err error
		if b, err = l.get(r.Spilled[0]); err != nil {
			return nil, err
		}
	}
	if b == nil {
		return nil, nil
	}
	raw, err := s2.Decode(nil, b)
	if err != nil {
		return nil, errBadRef
	}
	numbers := make([]int, 0, min(r.N, len(raw)))
	last := 0
	for br := (blockReader{b: raw}); len(br.b) > 0; {
		d := br.uvarint()
		if br.bad || d >= uint64(limit-last) {
			return nil, errBadRef
		}
		last += int(d)
		numbers = append(numbers, last)
	}
	return numbers, nil
}

func (l *loader) get(c chunkRef) ([]byte, error) {
	b, err := l.store.Get(l.ctx, l.prefix+"/"+c.Hash)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != c.Hash {
		return nil, &cloud.Error{Op: "get", Resource: l.prefix + "/" + c.Hash, Kind: cloud.KindCorrupt,
			Err: fmt.Errorf("stored items do not have the hash they were stored with")}
	}
	return b, nil
}

func (l *loader) packed(r *ref) (Items, error) {
	if r.Inline != nil || r.N == 0 {
		p, err := openChunk(r.Inline, string(r.Dir))
		if err != nil {
			return nil, err
		}
		if p.n != r.N {
			return nil, errBadRef
		}
		p.bytes = r.Bytes
		return p, nil
	}
	s := &storedItems{l: l, dir: string(r.Dir), n: r.N, bytes: r.Bytes, chunks: r.Chunks}
	n := 0
	for _, c := range r.Chunks {
		if c.N <= 0 {
			return nil, errBadRef
		}
		s.firsts = append(s.firsts, n)
		n += c.N
	}
	if n != r.N {
		return nil, errBadRef
	}
	return s, nil
}

// openChunk reads the table of a chunk and finds its blocks.
func openChunk(b []byte, dir string) (*packed, error) {
	p := &packed{dir: dir}
	if len(b) == 0 {
		return p, nil
	}
	r := blockReader{b: b}
	n := r.uvarint()
	if n > uint64(len(b)) {
		return nil, errBadBlock
	}
	lens := make([]uint64, n)
	for i := range lens {
		p.firsts = append(p.firsts, p.n)
		p.n += int(min(r.uvarint(), maxItems))
		lens[i] = r.uvarint()
	}
	for _, n := range lens {
		if r.bad || n > uint64(len(r.b)) {
			return nil, errBadBlock
		}
		p.blocks = append(p.blocks, r.b[:n])
		r.b = r.b[n:]
	}
	return p, nil
}

// storedItems is packed items whose chunks are fetched when they are needed.
type storedItems struct {
	l      *loader
	dir    string
	n      int
	bytes  int64
	chunks []chunkRef
	firsts []int

	mu   sync.Mutex
	open []openedChunk // a few, the last used one last
}

type openedChunk struct {
	i int
	p *packed
}

// maxOpenChunks is how many chunks are kept: one is read from its start to its
// end, another may be asked for single items of it.
const maxOpenChunks = 4

func (s *storedItems) Len() int      { return s.n }
func (s *storedItems) Elements() int { return s.n }
func (s *storedItems) Bytes() int64  { return s.bytes }

func (s *storedItems) Each(from, to int, fn func(int, any) error) error {
	return s.each(from, to, func(i int, e *fileEntry) error { return fn(i, e.item(s.dir)) }, fn)
}

func (s *storedItems) each(from, to int, file func(int, *fileEntry) error, val func(int, any) error) error {
	if err := checkRange(from, to, s.n); err != nil || from == to {
		return err
	}
	for c := sort.SearchInts(s.firsts, from+1) - 1; c < len(s.chunks) && s.firsts[c] < to; c++ {
		p, err := s.chunk(c)
		if err != nil {
			return err
		}
		first := s.firsts[c]
		err = p.each(max(from-first, 0), min(to-first, p.n),
			func(i int, e *fileEntry) error { return file(first+i, e) },
			func(i int, v any) error { return val(first+i, v) })
		if err != nil {
			return err
		}
	}
	return nil
}

// chunk fetches a chunk, once however many ask for it at a time.
func (s *storedItems) chunk(i int) (*packed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range s.open {
		if c.i == i {
			s.open = append(slices.Delete(s.open, k, k+1), c)
			return c.p, nil
		}
	}
	b, err := s.l.get(s.chunks[i])
	if err != nil {
		return nil, err
	}
	p, err := openChunk(b, s.dir)
	if err == nil && p.n != s.chunks[i].N {
		err = errBadBlock
	}
	if err != nil {
		return nil, err
	}
	if len(s.open) >= maxOpenChunks {
		s.open = slices.Delete(s.open, 0, 1)
	}
	s.open = append(s.open, openedChunk{i, p})
	return p, nil
}
