package executor

import (
	"container/heap"
	"slices"
)

// ranges is a queue of task indices, kept as intervals: a map of a million
// fresh tasks is one.
type ranges struct {
	list []span
	head int // list[:head] is used up
	size int
}

type span struct{ from, to int }

// push adds from to to-1 at the end.
func (r *ranges) push(from, to int) {
	if from >= to {
		return
	}
	r.size += to - from
	if n := len(r.list); n > r.head && r.list[n-1].to == from {
		r.list[n-1].to = to
		return
	}
	if r.head > 1024 && r.head*2 > len(r.list) {
		r.list = append(r.list[:0], r.list[r.head:]...)
		r.head = 0
	}
	r.list = append(r.list, span{from, to})
}

// pop takes up to n adjacent indices from the front for which same holds of
// the first and each other; (0, 0) if there are none.
func (r *ranges) pop(n int, same func(a, b int) bool) (from, to int) {
	if r.size == 0 || n <= 0 {
		return 0, 0
	}
	s := &r.list[r.head]
	from = s.from
	to = from + 1
	for to < s.to && to-from < n && same(from, to) {
		to++
	}
	r.size -= to - from
	if s.from = to; s.from == s.to {
		r.head++
	}
	if r.size == 0 {
		r.list, r.head = r.list[:0], 0
	}
	return from, to
}

// remove takes out an index, wherever it is.
func (r *ranges) remove(i int) {
	for k := r.head; k < len(r.list); k++ {
		s := &r.list[k]
		if i < s.from || i >= s.to {
			continue
		}
		r.size--
		switch {
		case i == s.from && i+1 == s.to:
			r.list = slices.Delete(r.list, k, k+1)
		case i == s.from:
			s.from++
		case i+1 == s.to:
			s.to--
		default:
			r.list = slices.Insert(r.list, k+1, span{i + 1, s.to})
			r.list[k].to = i
		}
		return
	}
}

// clear empties the queue.
func (r *ranges) clear() { r.list, r.head, r.size = nil, 0, 0 }

type retryHeap []retryItem

func (h retryHeap) Len() int { return len(h) }
func (h retryHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].index < h[j].index
}
func (h retryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *retryHeap) Push(x any)   { *h = append(*h, x.(retryItem)) }
func (h *retryHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func (f *function) pushRetry(it retryItem) { heap.Push((*retryHeap)(&f.retryAt), it) }
func (f *function) popRetry() retryItem    { return heap.Pop((*retryHeap)(&f.retryAt)).(retryItem) }

// fixRetries makes a heap of the waiting attempts again.
func (f *function) fixRetries() { heap.Init((*retryHeap)(&f.retryAt)) }

// unqueue takes a pending task out of what waits to be handed out.
func (f *function) unqueue(i int) {
	for k := range f.retryAt {
		if f.retryAt[k].index == i {
			heap.Remove((*retryHeap)(&f.retryAt), k)
			return
		}
	}
	f.ready.remove(i)
}
