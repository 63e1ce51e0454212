package aws

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// How much is done at a time.
const (
	maxActive   = 40 // segments being listed, that is requests under way
	maxBuffered = 96 // pages fetched ahead of the one that is handed out
)

// List calls fn for the objects that q asks for, in key order.
//
// The keys are cut into segments, a list in key order. Each is listed by a
// goroutine of its own, page by page; the caller's goroutine hands out the
// pages of the first segment, then those of the next. Segments come from
//
//   - the roots of the query,
//   - folders: a prefix is listed with its folders first, those that cannot
//     match are left out and the others become segments,
//   - cuts: a segment that is longer than a page is cut where the keys on its
//     page suggest (see cutsAfter), a few pages ahead, as long as there are
//     goroutines to spare.
//
// A cut is only a guess at where keys lie. A wrong one costs a request that
// finds nothing; it can neither lose nor repeat a key, because a segment ends
// exactly where the next begins.
//
// Pages wait for their turn in memory, at most maxBuffered of them. The first
// segment never waits, so there is always one that goes on.
func (s *S3) List(ctx context.Context, loc cloud.S3Location, q cloud.S3Query, fn func(cloud.S3Object) error) error {
	return list(ctx, q, func(ctx context.Context, pq pageQuery) (*page, error) { return s.page(ctx, loc, pq) }, fn)
}

type fetchFunc func(context.Context, pageQuery) (*page, error)

func list(ctx context.Context, q cloud.S3Query, fetch fetchFunc, fn func(cloud.S3Object) error) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &lister{ctx: ctx, q: q, fetch: fetch, tokens: maxBuffered}
	l.changed.L = &l.mu
	unwatch := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.fail(context.Cause(ctx))
	})
	defer unwatch()
	last := &l.head
	for _, r := range q.Roots {
		g := &segment{prefix: r.Prefix, folders: !r.Exact}
		if r.Exact {
			g.until = r.Prefix
		}
		*last = g
		last = &g.next
		l.fresh++
	}
	err := l.emit(fn)
	cancel()
	l.mu.Lock()
	l.fail(context.Canceled)
	l.mu.Unlock()
	l.running.Wait()
	return err
}

// lister is one listing.
type lister struct {
	ctx     context.Context
	q       cloud.S3Query
	fetch   fetchFunc
	running sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	head    *segment // the one that is handed out
	active  int      // segments that may have a request under way
	fresh   int      // segments that nobody lists yet
	tokens  int      // pages that may be fetched ahead
	err     error    // the first one
}

// segment is the keys that start with prefix, are greater than after and not
// greater than until.
type segment struct {
	next    *segment
	prefix  string
	after   string
	until   string // "": no end but the prefix
	folders bool   // list with folders
	cuts    []string
	from    string // keys below it belong to others, although they are greater than after
	first   string // a key of the place it was cut from; "": none known
	splits  int    // how often its ancestors were cut

	started, done bool
	waiting       bool // for a token
	granted       bool // it has one for its next page
	pages         []readyPage
}

// readyPage is matching objects; token says that it counts against tokens.
type readyPage struct {
	objects []cloud.S3Object
	token   bool
}

func (l *lister) fail(err error) {
	if l.err == nil {
		l.err = err
	}
	l.changed.Broadcast()
}

// emit hands out everything in order.
func (l *lister) emit(fn func(cloud.S3Object) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.head != nil {
		g := l.head
		if !g.started {
			l.start(g)
		}
		if g.waiting { // it need not any more
			g.waiting = false
			l.active++
			l.changed.Broadcast()
		}
		for {
			l.pump()
			for len(g.pages) == 0 && !g.done && l.err == nil {
				l.changed.Wait()
			}
			if l.err != nil {
				return l.err
			}
			if l.ctx.Err() != nil {
				return context.Cause(l.ctx)
			}
			if len(g.pages) == 0 {
				break
			}
			p := g.pages[0]
			g.pages[0] = readyPage{}
			g.pages = g.pages[1:]
			if p.token {
				l.tokens++
				l.pump()
			}
			l.mu.Unlock()
			for _, o := range p.objects {
				if err := fn(o); err != nil {
					l.mu.Lock()
					return err
				}
			}
			l.mu.Lock()
		}
		l.head = g.next
	}
	return nil
}

// pump hands out tokens, to the first segments first: those that nobody lists
// yet are started with them.
func (l *lister) pump() {
	for g := l.head; g != nil && l.tokens > 0 && l.active < maxActive && l.err == nil; g = g.next {
		switch {
		case !g.started:
			l.tokens--
			g.granted = true
			l.start(g)
		case g.waiting:
			l.tokens--
			g.granted, g.waiting = true, false
			l.active++
			l.changed.Broadcast()
		}
	}
}

// start lists a segment in a goroutine of its own.
func (l *lister) start(g *segment) {
	g.started = true
	l.active++
	l.fresh--
	l.running.Go(func() { l.run(g) })
}

// cut shortens a segment to end at the first of the cuts and puts new segments
// for the rest behind it.
func (l *lister) cut(g *segment, at []string) {
	end, cuts := g.until, g.cuts
	tail := g.next
	for i, from := range slices.Backward(at) {
		n := &segment{next: tail, prefix: g.prefix, after: from, until: end, folders: g.folders, first: g.first, splits: g.splits + 1}
		n.cuts = cutsIn(cuts, from, end)
		if folder, ok := strings.CutSuffix(end, beyond); ok && len(cuts) > 0 && len(n.cuts) == 0 {
			n.prefix = folder // S3 says itself where it ends
		}
		tail, end = n, at[i]
	}
	g.next, g.until = tail, end
	g.cuts = cutsIn(cuts, "", end)
	l.fresh += len(at)
}

// cutsIn is the cuts between from and to, both excluded.
func cutsIn(cuts []string, from, to string) []string {
	i, found := slices.BinarySearch(cuts, from)
	if found {
		i++
	}
	j := len(cuts)
	if to != "" {
		j, _ = slices.BinarySearch(cuts, to)
	}
	return cuts[i:max(i, j)]
}

// run lists a segment to its end.
func (l *lister) run(g *segment) {
	q := pageQuery{prefix: g.prefix, after: g.after, folders: g.folders}
	for {
		token, ok := l.mayFetch(g)
		if !ok {
			break
		}
		p, err := l.fetch(l.ctx, q)
		if err != nil {
			l.mu.Lock()
			l.fail(err)
			l.mu.Unlock()
			break
		}
		var more bool
		if g, more = l.take(g, p, token, &q); !more {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g.done = true
	l.active--
	l.pump()
	l.changed.Broadcast()
}

// mayFetch waits until a segment may fetch a page: it is the first, or there is
// room. ok is false when the listing is over.
func (l *lister) mayFetch(g *segment) (token, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head != g && !g.granted {
		g.waiting = true
		l.active--
		l.pump()
		for g.waiting && l.err == nil {
			l.changed.Wait()
		}
		if g.waiting {
			g.waiting = false
			l.active++
		}
	}
	token, g.granted = g.granted, false
	return token, l.err == nil
}

// take puts a page into the list. It returns the segment that goes on, with
// the query of its next page, and whether there is one.
func (l *lister) take(g *segment, p *page, token bool, q *pageQuery) (*segment, bool) {
	names := entries(p)
	more := p.token != ""
	if g.until != "" {
		if i := len(names); i > 0 && names[i-1] >= g.until {
			// What is behind the end belongs to the next segment.
			more = false
			p.objects = slices.DeleteFunc(p.objects, func(o cloud.S3Object) bool { return o.Key > g.until })
			p.folders = slices.DeleteFunc(p.folders, func(f string) bool { return f > g.until })
		}
	}
	if g.first == "" && len(names) > 0 {
		g.first = names[0]
	}
	p.objects = slices.DeleteFunc(p.objects, func(o cloud.S3Object) bool { return o.Key < g.from || !l.q.Match(o.Key) })
	spans := l.spans(g, p)

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range spans {
		// The objects before a folder, the folder, and what comes then.
		i, _ := slices.BinarySearchFunc(p.objects, s.prefixOrAfter(), func(o cloud.S3Object, key string) int { return strings.Compare(o.Key, key) })
		token = l.ready(g, p.objects[:i], token)
		p.objects = p.objects[i:]
		rest := &segment{next: g.next, prefix: g.prefix, after: g.after, until: g.until, folders: g.folders,
			first: g.first, splits: g.splits, started: true}
		g.next, s.next, g.done = s, rest, true
		l.fresh++
		g = rest
	}
	token = l.ready(g, p.objects, token)
	if token {
		l.tokens++
	}
	if more {
		more = l.goOn(g, p, names, q)
	}
	l.pump()
	l.changed.Broadcast()
	return g, more
}

// goOn prepares the next page of a segment and, if there are goroutines to
// spare, cuts off what is behind it. It returns false if there is no next page.
func (l *lister) goOn(g *segment, p *page, names []string, q *pageQuery) bool {
	q.token, q.after = p.token, ""
	if len(names) == 0 {
		return true
	}
	last := names[len(names)-1]
	if skip := l.pruned(g, last); skip != "" && !g.folders {
		if g.until != "" && skip >= g.until {
			return false
		}
		q.token, q.after = "", skip
		last = skip
	}
	idle := maxActive - l.active - l.fresh
	if idle <= 0 {
		return true
	}
	var at []string
	if known := cutsIn(g.cuts, last, g.until); len(known) > 0 {
		// Pieces of about a page: as many folders as there were on this one.
		size := len(cutsIn(g.cuts, names[0], last))*3/4 + 1
		for i := size - 1; i < len(known) && len(at) < idle; i += size {
			at = append(at, known[i])
		}
	} else {
		at = cutsAfter(names, len(g.prefix), g.first, g.until, g.folders, min(idle, 4<<min(2*g.splits, 8)))
		at = slices.DeleteFunc(at, func(c string) bool { return c <= last })
	}
	if len(at) > 0 {
		l.cut(g, at)
	}
	return true
}

// ready makes objects wait for their turn; it returns whether the token is
// still there.
func (l *lister) ready(g *segment, objects []cloud.S3Object, token bool) bool {
	if len(objects) == 0 {
		return token
	}
	g.pages = append(g.pages, readyPage{objects, token})
	return false
}

// prefixOrAfter is where the keys of a segment begin.
func (g *segment) prefixOrAfter() string { return max(g.prefix, g.after) }

// entries is the names on a page in order.
func entries(p *page) []string {
	names := make([]string, 0, len(p.objects)+len(p.folders))
	i := 0
	for _, o := range p.objects {
		for i < len(p.folders) && p.folders[i] < o.Key {
			names = append(names, p.folders[i])
			i++
		}
		names = append(names, o.Key)
	}
	return append(names, p.folders[i:]...)
}

// beyond is greater than every key of a folder that S3 would allow to be made
// by hand.
const beyond = "\U0010FFFF"

// spans is the segments for the folders on a page. Neighbours of which
// everything may match are one segment, cut into them if it turns out to be
// long: there may be a million folders with one object each.
func (l *lister) spans(g *segment, p *page) []*segment {
	var out []*segment
	for i, f := range p.folders {
		kind := cloud.FolderAll
		if l.q.Folder != nil {
			kind = l.q.Folder(f)
		}
		switch kind {
		case cloud.FolderNone:
			continue
		case cloud.FolderSome:
			out = append(out, &segment{prefix: f, folders: true})
			continue
		}
		if n := len(out); n > 0 && i > 0 && !out[n-1].folders && out[n-1].until == p.folders[i-1]+beyond && !between(p.objects, p.folders[i-1], f) {
			last := out[n-1]
			last.cuts = append(last.cuts, last.until)
			last.until = f + beyond
			if last.prefix != g.prefix { // it was one folder
				last.after, last.from, last.prefix = before(last.prefix), last.prefix, g.prefix
			}
			continue
		}
		out = append(out, &segment{prefix: f, until: f + beyond})
	}
	return out
}

// between says whether an object lies between two folders.
func between(objects []cloud.S3Object, a, b string) bool {
	i, _ := slices.BinarySearchFunc(objects, a, func(o cloud.S3Object, key string) int { return strings.Compare(o.Key, key) })
	return i < len(objects) && objects[i].Key < b
}

// before is a key from which on a folder's keys come, with next to nothing in
// between: "." is the character before "/".
func before(folder string) string { return folder[:len(folder)-1] + "." + beyond }

// pruned is the end of the folder that key lies in, if nothing in it can
// match; "" otherwise.
func (l *lister) pruned(g *segment, key string) string {
	if l.q.Folder == nil {
		return ""
	}
	for i := len(g.prefix); i < len(key); i++ {
		if key[i] == '/' && l.q.Folder(key[:i+1]) == cloud.FolderNone {
			return key[:i+1] + beyond
		}
	}
	return ""
}
