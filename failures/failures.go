// Package failures groups failed tasks by what they have in common, so that a
// thousand failures of one kind read as one line with a count.
//
// The common part is a signature: the line that says best what went wrong
// (the exception at the end of a traceback, the last line of standard error,
// or the message of the attempt), without what differs from task to task:
// numbers, quoted text, paths, addresses.
package failures

import (
	"sort"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// maxExamples is how many tasks of a group are kept as examples; maxGroups
// bounds the memory of a run whose failures have nothing in common.
const (
	maxExamples = 3
	maxGroups   = 200
)

// Other is the signature of the group that takes what is beyond maxGroups.
const Other = "other failures"

// Example is one failed task of a group.
type Example struct {
	Function string
	Index    int
	Attempt  int
	// Line is what went wrong, in this task's own words.
	Line   string
	Stderr []byte
	Log    task.Span
}

// Group is the failures with one signature.
type Group struct {
	Signature string
	Count     int
	Causes    map[task.Cause]int
	Functions map[string]int
	Examples  []Example // the first ones

	line  string // what all of them say, "" if they differ
	order int
}

// Title is what the failures have in common: their words if they all say the
// same, otherwise the signature.
func (g *Group) Title() string {
	switch {
	case g.line != "":
		return g.line
	case g.Count == 1 && len(g.Examples) > 0:
		return g.Examples[0].Line
	}
	return g.Signature
}

// Cause is the most frequent cause of the group.
func (g *Group) Cause() task.Cause {
	best, n := task.NoCause, 0
	for c, k := range g.Causes {
		if k > n || k == n && c < best {
			best, n = c, k
		}
	}
	return best
}

// FunctionNames is the functions of the group, by name.
func (g *Group) FunctionNames() []string {
	names := make([]string, 0, len(g.Functions))
	for fn := range g.Functions {
		names = append(names, fn)
	}
	sort.Strings(names)
	return names
}

// Grouper collects failures. The zero Grouper is empty. Its memory is bounded
// by the number of groups, whatever the number of failures.
type Grouper struct {
	groups map[string]*Group
	total  int
}

// Add counts one failed attempt.
func (g *Grouper) Add(fn string, o *task.Outcome) {
	if g.groups == nil {
		g.groups = make(map[string]*Group)
	}
	g.total++
	line := Line(o)
	sig := Signature(line)
	if sig == "" {
		sig = o.Cause.String()
	}
	grp := g.groups[sig]
	if grp == nil {
		if len(g.groups) >= maxGroups {
			sig = Other
		}
		if grp = g.groups[sig]; grp == nil {
			grp = &Group{Signature: sig, Causes: map[task.Cause]int{}, Functions: map[string]int{}, order: len(g.groups)}
			g.groups[sig] = grp
		}
	}
	switch grp.Count++; {
	case grp.Count == 1:
		grp.line = line
	case grp.line != line:
		grp.line = ""
	}
	grp.Causes[o.Cause]++
	grp.Functions[fn]++
	if len(grp.Examples) < maxExamples {
		grp.Examples = append(grp.Examples, Example{Function: fn, Index: o.Index, Attempt: o.Attempt, Line: line,
			Stderr: append([]byte(nil), o.Stderr...), Log: o.Log})
	}
}

// Total is the number of failures added.
func (g *Grouper) Total() int { return g.total }

// Groups is the groups, the largest first, in the order in which they first
// appeared where they are of one size.
func (g *Grouper) Groups() []*Group {
	all := make([]*Group, 0, len(g.groups))
	for _, grp := range g.groups {
		all = append(all, grp)
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Count != all[j].Count {
			return all[i].Count > all[j].Count
		}
		return all[i].order < all[j].order
	})
	return all
}
