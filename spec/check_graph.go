package spec

import (
	"slices"
	"strings"
)

// rawNeeds finds the functions that a function needs, before anything about
// it is checked: expressions may only use these.
func (d *decoder) rawNeeds(fs *funcScope) []string {
	var needs []string
	add := func(n *node) {
		if n != nil && n.kind == scalarNode && n.text != fs.name && d.byName[n.text] != nil && !slices.Contains(needs, n.text) {
			needs = append(needs, n.text)
		}
	}
	if n := fs.body.get("needs"); n != nil {
		add(n)
		for _, item := range n.items {
			add(item)
		}
	}
	var froms func(n *node)
	froms = func(n *node) {
		if n == nil || n.kind != mappingNode {
			return
		}
		add(n.get("from"))
		for _, form := range []string{"matrix", "zip"} {
			if parts := n.get(form); parts != nil {
				for _, p := range parts.pairs {
					froms(p.value)
				}
			}
		}
	}
	froms(fs.body.get("map"))
	return needs
}

// checkNeeds gives the functions in needs that exist, once each.
func (d *decoder) checkNeeds(fs *funcScope, f *field) []string {
	if f == nil {
		return nil
	}
	fromDefaults := f.path.root() == "defaults"
	var needs []string
	for _, e := range f.list {
		name := str(e, "")
		switch {
		case !e.ok, slices.Contains(needs, name):
		case name == fs.name && fromDefaults:
			// What all functions need does not need itself.
		case name == fs.name:
			d.report(e.n.pos, f.path, "%s cannot need itself", name)
		case !slices.Contains(d.names, name):
			d.report(e.n.pos, f.path, "no function %q%s", shorten(name), d.suggest(name, d.names))
		default:
			needs = append(needs, name)
		}
	}
	return needs
}

// checkFrom checks the function of a from.
func (d *decoder) checkFrom(f *field, name string) {
	switch {
	case !f.ok:
	case name == d.fn.name:
		d.report(f.n.pos, f.path, "%s cannot map over its own results", name)
	case !slices.Contains(d.names, name):
		d.report(f.n.pos, f.path, "no function %q%s", shorten(name), d.suggest(name, d.names))
	}
}

// checkCycles reports functions that wait for each other, each group once. It
// visits every edge once, however many ways lead to a function.
func (d *decoder) checkCycles() {
	const (
		onPath = 1
		done   = 2
	)
	state := make(map[string]int, len(d.functions))
	reported := map[string]bool{}
	type step struct {
		fs   *funcScope
		next int
	}
	for _, start := range d.functions {
		if state[start.name] != 0 {
			continue
		}
		state[start.name] = onPath
		stack := []step{{fs: start}}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.next == len(top.fs.needs) {
				state[top.fs.name] = done
				stack = stack[:len(stack)-1]
				continue
			}
			name := top.fs.needs[top.next]
			top.next++
			switch state[name] {
			case onPath:
				var cycle []string
				known := false
				for i := len(stack) - 1; i >= 0; i-- {
					cycle = append(cycle, stack[i].fs.name)
					known = known || reported[stack[i].fs.name]
					if stack[i].fs.name == name {
						break
					}
				}
				if !known {
					d.reportCycle(cycle)
					for _, c := range cycle {
						reported[c] = true
					}
				}
			case 0:
				state[name] = onPath
				stack = append(stack, step{fs: d.byName[name]})
			}
		}
	}
}

// reportCycle names a cycle at its first function in the file. The names come
// in the order in which each is needed by the next.
func (d *decoder) reportCycle(cycle []string) {
	slices.Reverse(cycle) // now each needs the next
	first := 0
	for i, name := range cycle {
		if d.before(name, cycle[first]) {
			first = i
		}
	}
	cycle = append(cycle[first:], cycle[:first]...)
	fs := d.byName[cycle[0]]
	pos := fs.pos
	if n := fs.body.get("needs"); n != nil {
		pos = n.pos
	}
	shown := append(slices.Clone(cycle), cycle[0])
	if len(shown) > 12 {
		shown = append(append(shown[:8:8], "..."), shown[len(shown)-2:]...)
	}
	d.report(pos, fs.path, "functions wait for each other and none can start: %s", strings.Join(shown, " -> "))
}

func (d *decoder) before(a, b string) bool {
	x, y := d.byName[a].pos, d.byName[b].pos
	return x.Line < y.Line || x.Line == y.Line && x.Col < y.Col
}
