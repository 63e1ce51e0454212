package planner

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// kind is what a directory entry is.
type kind uint8

const (
	kindFile    kind = iota
	kindDir          // a folder
	kindDirLink      // a link to a folder
	kindLink         // a link, not looked at yet
	kindUnknown      // the directory does not say
	kindOther        // gone, a dangling link, a device, a pipe
)

// What a caller of scan wants of an entry.
const (
	wantFile = 1 << iota
	wantDir
)

// listing is the entries of one folder that somebody wanted, in path order:
// a folder sorts as its name with a slash, because that is how the paths in it
// begin. Names lie in one arena, so that a folder of a million files is a few
// allocations.
type listing struct {
	arena []byte // names, folders with a slash; a NUL behind each
	ents  []ent
}

type ent struct {
	key   uint64 // the bytes of the name behind what all names share: decides most comparisons
	size  int64
	mtime int64 // Unix nanoseconds
	off   uint32
	n     uint16 // without the slash
	kind  kind
	want  uint8
}

func (l *listing) name(e *ent) []byte { return l.arena[e.off : e.off+uint32(e.n)] }

// sortName is the name as it sorts.
func (l *listing) sortName(e *ent) []byte {
	n := uint32(e.n)
	if e.kind == kindDir || e.kind == kindDirLink {
		n++
	}
	return l.arena[e.off : e.off+n]
}

func (l *listing) add(name string, k kind, want uint8) {
	l.ents = append(l.ents, ent{off: uint32(len(l.arena)), n: uint16(len(name)), kind: k, want: want})
	l.arena = append(l.arena, name...)
	// The slot behind the name is the slash of a folder, or the end of a C
	// string: stat is called before the slash is set.
	l.arena = append(l.arena, 0, 0)
}

// statAll finds size and time of files, and what links and unknown entries
// are. stat must be safe for concurrent use.
func (l *listing) statAll(stat func(name []byte, e *ent) error) error {
	const chunk = 256
	work := func(from int) error {
		for i := from; i < min(from+chunk, len(l.ents)); i++ {
			e := &l.ents[i]
			if e.kind == kindDir {
				continue
			}
			if err := stat(l.arena[e.off:e.off+uint32(e.n)+1], e); err != nil {
				return err
			}
		}
		return nil
	}
	workers := min(runtime.GOMAXPROCS(0), len(l.ents)/chunk)
	if workers <= 1 {
		for from := 0; from < len(l.ents); from += chunk {
			if err := work(from); err != nil {
				return err
			}
		}
		return nil
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for errs[w] == nil {
				from := int(next.Add(chunk)) - chunk
				if from >= len(l.ents) {
					return
				}
				errs[w] = work(from)
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// finish drops what turned out not to be wanted and sorts the rest.
func (l *listing) finish() {
	kept := l.ents[:0]
	for _, e := range l.ents {
		switch e.kind {
		case kindFile:
			if e.want&wantFile == 0 {
				continue
			}
		case kindDir, kindDirLink:
			if e.want&wantDir == 0 {
				continue
			}
			l.arena[e.off+uint32(e.n)] = '/'
		default:
			continue
		}
		kept = append(kept, e)
	}
	l.ents = kept
	if len(l.ents) < 2 {
		return
	}
	shared := l.sortName(&l.ents[0])
	for i := range l.ents {
		shared = shared[:commonPrefix(shared, l.sortName(&l.ents[i]))]
	}
	skip := len(shared)
	var pad [8]byte
	for i := range l.ents {
		e := &l.ents[i]
		pad = [8]byte{}
		copy(pad[:], l.sortName(e)[skip:])
		e.key = binary.BigEndian.Uint64(pad[:])
	}
	slices.SortFunc(l.ents, func(a, b ent) int {
		if a.key != b.key {
			return cmp.Compare(a.key, b.key)
		}
		return bytes.Compare(l.sortName(&a), l.sortName(&b))
	})
}

func commonPrefix[T []byte | string](a, b T) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
