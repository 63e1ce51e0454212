package planner

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// walker finds the local files that match patterns, in path order. The
// patterns are matched together, level by level, so that every folder is read
// once however many patterns lead to it.
//
// One goroutine (the caller's) emits; a few others read folders ahead of it,
// those first that come first, and stop when enough is waiting.
type walker struct {
	include nfa
	exclude nfa
	prune   bool   // a folder whose whole content is excluded need not be read
	found   []bool // by source of the pattern
	emit    func(path []byte, pat int, size, mtime int64) error

	mu      sync.Mutex
	wake    sync.Cond
	ahead   []*node // read next: the last one first
	waiting int     // entries read and not emitted
	closed  bool
}

// maxWaiting bounds the entries that are read ahead.
const maxWaiting = 1 << 16

// node is a folder to be visited.
type node struct {
	path    string // absolute, ends in a slash
	in, out []state
	taken   atomic.Bool
	done    chan struct{}
	list    *listing
	err     error
	kids    []*node // those of list's folders, in order
}

// walkLocal calls emit for every file that matches, with its absolute path and
// the first pattern that matches it. It marks the sources of the patterns that
// match something in found.
func walkLocal(ctx context.Context, include, exclude nfa, found []bool, emit func(path []byte, pat int, size, mtime int64) error) error {
	w := &walker{include: include, exclude: exclude, prune: !include.hidden(), found: found, emit: emit}
	w.wake.L = &w.mu
	root := &node{path: "/", in: include.start(), out: exclude.start(), done: make(chan struct{})}
	var wg sync.WaitGroup
	for range min(8, max(2, runtime.GOMAXPROCS(0))) {
		wg.Go(w.readAhead)
	}
	err := w.visit(ctx, root)
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake.Broadcast()
	wg.Wait()
	return err
}

// readAhead reads folders until the walk is over.
func (w *walker) readAhead() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for !w.closed && (len(w.ahead) == 0 || w.waiting > maxWaiting) {
			w.wake.Wait()
		}
		if w.closed {
			return
		}
		n := w.ahead[len(w.ahead)-1]
		w.ahead = w.ahead[:len(w.ahead)-1]
		if !n.taken.CompareAndSwap(false, true) {
			continue
		}
		w.mu.Unlock()
		w.read(n)
		w.mu.Lock()
	}
}

// read fills a node and offers its folders to those who read ahead.
func (w *walker) read(n *node) {
	defer close(n.done)
	if name, ok := w.onlyName(n); ok {
		n.list, n.err = w.look(n, name)
	} else {
		n.list, n.err = scan(n.path, func(name string, k kind) uint8 { return w.want(n, name, k) })
	}
	if n.err != nil {
		// A folder that is not there, or is no folder, has no files; only
		// names written out in a pattern can lead to one.
		if errors.Is(n.err, fs.ErrNotExist) || errors.Is(n.err, syscall.ENOTDIR) || errors.Is(n.err, syscall.ELOOP) {
			n.err = nil
		}
		n.list = &listing{}
		return
	}
	for i := range n.list.ents {
		e := &n.list.ents[i]
		if e.kind == kindFile {
			continue
		}
		name := string(n.list.name(e))
		kid := &node{path: n.path + name + "/", done: make(chan struct{})}
		kid.in = w.include.folder(n.in, name, e.kind == kindDirLink)
		kid.out = w.exclude.folder(n.out, name, false)
		if len(kid.in) == 0 || w.prune && w.exclude.swallows(kid.out) {
			e.want = 0
			continue
		}
		n.kids = append(n.kids, kid)
	}
	w.mu.Lock()
	w.waiting += len(n.list.ents)
	for _, kid := range slices.Backward(n.kids) {
		w.ahead = append(w.ahead, kid)
	}
	w.mu.Unlock()
	if len(n.kids) > 0 {
		w.wake.Broadcast()
	}
}

// want says what of an entry is of interest.
func (w *walker) want(n *node, name string, k kind) uint8 {
	var want uint8
	if k != kindDir && w.include.file(n.in, name) && !w.exclude.file(n.out, name) {
		want |= wantFile
	}
	if k != kindFile && w.include.wantsFolder(n.in, name) {
		want |= wantDir
	}
	return want
}

// onlyName is the only name that can be of interest in a folder.
func (w *walker) onlyName(n *node) (string, bool) {
	name := ""
	for i, s := range n.in {
		g := &w.include[s.pat].segs[s.seg]
		if g.magic || i > 0 && g.lit != name {
			return "", false
		}
		name = g.lit
	}
	return name, len(n.in) > 0
}

// look is scan where only one name matters: the folder may be huge, or not
// readable.
func (w *walker) look(n *node, name string) (*listing, error) {
	l := &listing{}
	e, ok, err := statPath(n.path + name)
	if err != nil || !ok {
		return l, err
	}
	if want := w.want(n, name, e.kind); want != 0 {
		l.add(name, e.kind, want)
		l.ents[0].size, l.ents[0].mtime = e.size, e.mtime
		l.finish()
	}
	return l, nil
}

// visit emits what is in a folder, reading it first if nobody has.
func (w *walker) visit(ctx context.Context, n *node) error {
	if n.taken.CompareAndSwap(false, true) {
		w.read(n)
	}
	<-n.done
	if n.err != nil {
		return n.err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	path := []byte(n.path)
	kid := 0
	for i := range n.list.ents {
		e := &n.list.ents[i]
		name := n.list.name(e)
		if e.kind != kindFile {
			if e.want == 0 {
				continue
			}
			k := n.kids[kid]
			n.kids[kid] = nil
			kid++
			if err := w.visit(ctx, k); err != nil {
				return err
			}
			continue
		}
		pat := 0
		if len(w.include) > 1 {
			pat = w.include.hits(n.in, unsafe.String(&name[0], len(name)), w.found)
		} else {
			w.found[w.include[0].src] = true
		}
		path = append(path[:len(n.path)], name...)
		if err := w.emit(path, pat, e.size, e.mtime); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.waiting -= len(n.list.ents)
	w.mu.Unlock()
	w.wake.Broadcast()
	n.list = nil
	return nil
}

// localPattern is a local pattern, ready to be matched against absolute paths.
type localPattern struct {
	abs bool
	up  int // leading ".." of a relative one
	pat pattern
}

// dirSegments is an absolute folder as literal segments.
func dirSegments(dir string) []segment {
	var segs []segment
	for _, s := range strings.Split(dir, "/") {
		if s != "" && s != "." {
			segs = append(segs, segment{lit: s})
		}
	}
	return segs
}

// newLocalPattern compiles one alternative of a local pattern.
func newLocalPattern(dir []segment, text string, src int) (localPattern, error) {
	abs, up, segs, err := splitLocal(text)
	if err != nil {
		return localPattern{}, err
	}
	p := localPattern{abs: abs, up: up, pat: newPattern(segs, src)}
	if !abs {
		base := dir[:max(0, len(dir)-up)]
		p.pat.segs = append(slices.Clip(base), p.pat.segs...)
	}
	return p, nil
}

// renderer turns absolute paths back into what the pattern's kind shows.
type renderer struct {
	base string // absolute folder with a slash at its end, "" for absolute patterns
	up   string // "../../"
}

func (p *localPattern) renderer(dir []segment) renderer {
	if p.abs {
		return renderer{}
	}
	var b strings.Builder
	b.WriteByte('/')
	for _, s := range dir[:max(0, len(dir)-p.up)] {
		b.WriteString(s.lit)
		b.WriteByte('/')
	}
	return renderer{base: b.String(), up: strings.Repeat("../", p.up)}
}

// render appends the path as it is shown.
func (r renderer) render(dst, abs []byte) []byte {
	dst = append(dst, r.up...)
	return append(dst, abs[len(r.base):]...)
}
