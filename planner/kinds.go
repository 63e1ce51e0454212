package planner

import (
	"slices"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// maxItems bounds a map: what is above it is a typing mistake, and indices
// stay within 32 bits.
const maxItems = 1_000_000_000

// rangeItems is from, from+step, ...: n numbers.
type rangeItems struct{ from, step, n int }

func (r rangeItems) Len() int      { return r.n }
func (r rangeItems) Elements() int { return r.n }
func (r rangeItems) Bytes() int64  { return 0 }

func (r rangeItems) Each(from, to int, fn func(int, any) error) error {
	if err := checkRange(from, to, r.n); err != nil {
		return err
	}
	for i := from; i < to; i++ {
		if err := fn(i, r.from+i*r.step); err != nil {
			return err
		}
	}
	return nil
}

// matrixItems is the Cartesian product of its parts, as mappings; the last one
// varies fastest.
type matrixItems struct {
	names []string
	parts []Items
	n     int
	bytes int64
}

func newMatrix(names []string, parts []Items) (*matrixItems, bool) {
	m := &matrixItems{names: names, parts: parts, n: 1}
	for _, p := range parts {
		if p.Len() == 0 {
			m.n = 0
			return m, true
		}
	}
	for _, p := range parts {
		if m.n > maxItems/p.Len() {
			return nil, false
		}
		m.n *= p.Len()
	}
	for _, p := range parts {
		m.bytes += p.Bytes() * int64(m.n/p.Len())
	}
	return m, true
}

func (m *matrixItems) Len() int      { return m.n }
func (m *matrixItems) Elements() int { return m.n }
func (m *matrixItems) Bytes() int64  { return m.bytes }

func (m *matrixItems) Each(from, to int, fn func(int, any) error) error {
	if err := checkRange(from, to, m.n); err != nil || from == to {
		return err
	}
	i := from
	return m.each(0, m.n, from, to, make([]any, len(m.parts)), func(v any) error {
		i++
		return fn(i-1, v)
	})
}

// each goes through the items from to to-1 of the product of the parts from d
// on, which has n items.
func (m *matrixItems) each(d, n, from, to int, vals []any, fn func(any) error) error {
	if d == len(m.parts) {
		return fn(value.NewObject(m.names, slices.Clone(vals)))
	}
	n /= m.parts[d].Len()
	return m.parts[d].Each(from/n, (to-1)/n+1, func(i int, v any) error {
		vals[d] = v
		return m.each(d+1, n, max(from-i*n, 0), min(to-i*n, n), vals, fn)
	})
}

// zipItems is its parts side by side, as mappings.
type zipItems struct {
	names []string
	parts []Items
}

func (z *zipItems) Len() int      { return z.parts[0].Len() }
func (z *zipItems) Elements() int { return z.parts[0].Len() }

func (z *zipItems) Bytes() int64 {
	var n int64
	for _, p := range z.parts {
		n += p.Bytes()
	}
	return n
}

// Each goes through the parts a stretch at a time, so that each is decoded
// once and never all of it is held.
func (z *zipItems) Each(from, to int, fn func(int, any) error) error {
	if err := checkRange(from, to, z.Len()); err != nil {
		return err
	}
	const stretch = 512
	for ; from < to; from += stretch {
		rows := make([][]any, min(stretch, to-from))
		for i := range rows {
			rows[i] = make([]any, len(z.parts))
		}
		for d, p := range z.parts {
			err := p.Each(from, from+len(rows), func(i int, v any) error {
				rows[i-from][d] = v
				return nil
			})
			if err != nil {
				return err
			}
		}
		for i, row := range rows {
			if err := fn(from+i, value.NewObject(z.names, row)); err != nil {
				return err
			}
		}
	}
	return nil
}

// headItems is the first n of other items.
type headItems struct {
	of       Items
	n        int
	elements int
	bytes    int64
}

// head is the first n of the items; an error is one of reading them.
func head(it Items, n int) (Items, error) {
	if n >= it.Len() {
		return it, nil
	}
	h := &headItems{of: it, n: n, elements: n}
	if b, ok := it.(*batchItems); ok {
		h.elements = b.start(n)
	}
	if it.Bytes() > 0 {
		err := it.Each(0, n, func(_ int, v any) error {
			h.bytes += fileBytes(v)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *headItems) Len() int      { return h.n }
func (h *headItems) Elements() int { return h.elements }
func (h *headItems) Bytes() int64  { return h.bytes }

func (h *headItems) Each(from, to int, fn func(int, any) error) error {
	if err := checkRange(from, to, h.n); err != nil {
		return err
	}
	return h.of.Each(from, to, fn)
}

// onlyItems is chosen ones of other items.
type onlyItems struct {
	of       Items
	index    []int // ascending
	elements int
	bytes    int64
}

func (o *onlyItems) Len() int      { return len(o.index) }
func (o *onlyItems) Elements() int { return o.elements }
func (o *onlyItems) Bytes() int64  { return o.bytes }

func (o *onlyItems) Each(from, to int, fn func(int, any) error) error {
	if err := checkRange(from, to, len(o.index)); err != nil {
		return err
	}
	for i := from; i < to; i++ {
		at := o.index[i]
		if err := o.of.Each(at, at+1, func(_ int, v any) error { return fn(i, v) }); err != nil {
			return err
		}
	}
	return nil
}

// choose is the items with these indices, which must exist.
func choose(it Items, index []int) (Items, error) {
	index = slices.Compact(slices.Sorted(slices.Values(index)))
	o := &onlyItems{of: it, index: index}
	_, batched := it.(*batchItems)
	err := o.Each(0, len(index), func(_ int, v any) error {
		o.bytes += fileBytes(v)
		if list, ok := v.([]any); ok && batched {
			o.elements += len(list)
		} else {
			o.elements++
		}
		return nil
	})
	return o, err
}

// IndexOf is the index that task i has among all items of its map: i itself,
// unless Options.Only chose some of them.
func IndexOf(it Items, i int) int {
	if o, ok := it.(*onlyItems); ok {
		return o.index[i]
	}
	return i
}

// batchItems groups other items into lists.
type batchItems struct {
	of     Items
	size   int   // items in each but the last, if starts is nil
	starts []int // first item of each batch, if they differ
}

// newBatch groups items: at most count (0: any number) and at most size bytes
// (0: any) each, but never none.
func newBatch(it Items, count int, size int64) (*batchItems, error) {
	if size <= 0 || it.Bytes() <= size {
		if count <= 0 {
			count = max(1, it.Len())
		}
		return &batchItems{of: it, size: count}, nil
	}
	b := &batchItems{of: it, starts: []int{}}
	in, sum := 0, int64(0)
	err := it.Each(0, it.Len(), func(i int, v any) error {
		n := fileBytes(v)
		if i == 0 || in == count && count > 0 || sum+n > size {
			b.starts = append(b.starts, i)
			in, sum = 0, 0
		}
		in++
		sum += n
		return nil
	})
	return b, err
}

func (b *batchItems) Len() int {
	if b.starts != nil {
		return len(b.starts)
	}
	return (b.of.Len() + b.size - 1) / b.size
}

func (b *batchItems) Elements() int { return b.of.Len() }
func (b *batchItems) Bytes() int64  { return b.of.Bytes() }

// start is the first item of a batch, the number of items for the one behind
// the last.
func (b *batchItems) start(i int) int {
	switch {
	case b.starts == nil:
		return min(i*b.size, b.of.Len())
	case i < len(b.starts):
		return b.starts[i]
	}
	return b.of.Len()
}

func (b *batchItems) Each(from, to int, fn func(int, any) error) error {
	if err := checkRange(from, to, b.Len()); err != nil || from == to {
		return err
	}
	batch, end := from, b.start(from+1)
	var list []any
	return b.of.Each(b.start(from), b.start(to), func(i int, v any) error {
		list = append(list, v)
		if i+1 < end {
			return nil
		}
		done := list
		list = make([]any, 0, len(done))
		batch++
		end = b.start(batch + 1)
		return fn(batch-1, done)
	})
}
