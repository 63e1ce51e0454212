package planner

import (
	"strings"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// state is a place in a pattern: segs[seg] is to be matched next.
type state struct{ pat, seg int32 }

// nfa matches paths, segment by segment, against several patterns at once.
type nfa []pattern

// start is the states before the first segment.
func (n nfa) start() []state {
	var ss []state
	for i := range n {
		ss = n.add(ss, state{int32(i), 0})
	}
	return ss
}

// add adds a state and, as ** also matches no folder, those behind it.
func (n nfa) add(ss []state, s state) []state {
	for {
		for _, t := range ss {
			if t == s {
				return ss
			}
		}
		ss = append(ss, s)
		if !n[s.pat].segs[s.seg].super {
			return ss
		}
		s.seg++
	}
}

func (n nfa) last(s state) bool { return int(s.seg) == len(n[s.pat].segs)-1 }

// folder is the states behind a folder's name. Links are not followed by **.
func (n nfa) folder(ss []state, name string, link bool) []state {
	var out []state
	for _, s := range ss {
		g := &n[s.pat].segs[s.seg]
		switch {
		case g.super:
			if !link && !strings.HasPrefix(name, ".") {
				out = n.add(out, s)
			}
		case !n.last(s) && g.match(name):
			out = n.add(out, state{s.pat, s.seg + 1})
		}
	}
	return out
}

// file says whether a file of this name matches.
func (n nfa) file(ss []state, name string) bool {
	for _, s := range ss {
		if n.last(s) && n[s.pat].segs[s.seg].match(name) {
			return true
		}
	}
	return false
}

// hits is the first pattern that a file of this name matches, -1 if none; all
// of them are marked by their source.
func (n nfa) hits(ss []state, name string, marked []bool) int {
	first := -1
	for _, s := range ss {
		if n.last(s) && n[s.pat].segs[s.seg].match(name) {
			marked[n[s.pat].src] = true
			if first < 0 || int(s.pat) < first {
				first = int(s.pat)
			}
		}
	}
	return first
}

// wantsFolder says whether a folder of this name may hold matches.
func (n nfa) wantsFolder(ss []state, name string) bool {
	for _, s := range ss {
		g := &n[s.pat].segs[s.seg]
		if g.super && !strings.HasPrefix(name, ".") || !g.super && !n.last(s) && g.match(name) {
			return true
		}
	}
	return false
}

// swallows says that everything below matches.
func (n nfa) swallows(ss []state) bool {
	for _, s := range ss {
		p := &n[s.pat]
		if p.segs[s.seg].super && int(s.seg) == len(p.segs)-2 && p.segs[s.seg+1].plainStar() {
			return true
		}
	}
	return false
}

// hidden says that a pattern asks for hidden names: those can match below a
// folder of which an excluding ** swallows all but the hidden names.
func (n nfa) hidden() bool {
	for _, p := range n {
		for i := range p.segs {
			if strings.HasPrefix(p.segs[i].prefix(), ".") {
				return true
			}
		}
	}
	return false
}

// walk is the states behind all folders of a path and its last element.
func (n nfa) walk(path string) ([]state, string) {
	ss := n.start()
	for {
		i := strings.IndexByte(path, '/')
		if i < 0 || len(ss) == 0 {
			return ss, path
		}
		ss = n.folder(ss, path[:i], false)
		path = path[i+1:]
	}
}

// match says whether a whole path matches.
func (n nfa) match(path string) bool {
	ss, name := n.walk(path)
	return len(ss) > 0 && n.file(ss, name)
}

// below says what may match below a folder whose name ends in a slash.
func (n nfa) below(folder string) cloud.FolderMatch {
	ss, _ := n.walk(folder)
	if len(ss) == 0 {
		return cloud.FolderNone
	}
	for _, s := range ss {
		// A folder level that names its folders is worth looking at before
		// listing what is below all of them.
		segs := n[s.pat].segs
		for _, g := range segs[s.seg : len(segs)-1] {
			if g.super {
				break
			}
			if !g.plainStar() {
				return cloud.FolderSome
			}
		}
	}
	return cloud.FolderAll
}
