package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// What a pipeline file may at most be. Longer lists of items belong into a
// file of their own; deeper or wider trees are accidents or attacks.
const (
	maxSource = 1 << 20
	maxDepth  = 100
	maxNodes  = 300_000 // with aliases expanded
)

type nodeKind uint8

const (
	badNode nodeKind = iota // already reported: says nothing more
	scalarNode
	listNode
	mappingNode
)

// node is a YAML value with its place. Aliases are expanded and merge keys
// merged, so what reads it sees a plain tree.
type node struct {
	kind  nodeKind
	plain bool // a scalar without quotes: may be null, a number or a bool
	// src leads back to the text; nil for what a template evaluated to.
	src   *source
	pos   Pos
	off   int    // byte offset of pos
	text  string // scalar
	items []*node
	pairs []pair
}

type pair struct {
	key   *node
	value *node
	// origin is the path of the mapping in which the pair was written, where
	// that is not the one it stands in now (a default, merged into a function).
	origin *keyPath
}

func (n *node) isNull() bool {
	if n.kind != scalarNode || !n.plain {
		return false
	}
	switch n.text {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// get finds the value of a key; nil if there is none.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key.text == key {
			return p.value
		}
	}
	return nil
}

// found describes what stands there, for "expected a, found b".
func (n *node) found() string {
	switch {
	case n.isNull():
		return "nothing"
	case n.kind == listNode:
		return "a list"
	case n.kind == mappingNode:
		return "a mapping"
	case n.plain:
		return shorten(n.text)
	}
	return fmt.Sprintf("the text %q", shorten(n.text))
}

func shorten(s string) string {
	if utf8.RuneCountInString(s) <= 60 {
		return s
	}
	return string([]rune(s)[:57]) + "..."
}

// readTree reads the one YAML document of a file. The tree is nil if it cannot
// be read at all.
func readTree(src []byte, file string) (*node, Problems) {
	s := newSource(src, file)
	if p := s.checkBytes(); p != nil {
		return nil, Problems{*p}
	}
	doc, second, err := decodeYAML(s.text)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Problems{{Pos: s.at(1, 1), Message: "the file is empty: a pipeline needs at least a name and functions"}}
		}
		return nil, Problems{s.explain(err)}
	}
	t := &treeBuilder{src: s, anchors: map[*yaml.Node]bool{}}
	if second > 0 {
		t.problem(s.at(second, 1), nil, "a second YAML document starts here: a file holds one pipeline; put the other into a file of its own")
	}
	root := t.build(doc.Content[0], 0, &keyPath{})
	return root, t.problems
}

// decodeYAML gives the first document and the line where a second one starts
// (0: there is none).
func decodeYAML(text []byte) (doc *yaml.Node, second int, err error) {
	defer func() {
		if r := recover(); r != nil {
			doc, err = nil, fmt.Errorf("yaml: %v", r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var first, next yaml.Node
	if err := dec.Decode(&first); err != nil {
		return nil, 0, err
	}
	if len(first.Content) != 1 {
		return nil, 0, io.EOF
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		second = next.Line
	case !errors.Is(err, io.EOF):
		return nil, 0, err
	}
	if first.Content[0].Kind == yaml.ScalarNode && first.Content[0].Value == "" && first.Content[0].Style == 0 && second == 0 {
		return nil, 0, io.EOF
	}
	return &first, second, nil
}

type treeBuilder struct {
	src      *source
	problems Problems
	nodes    int
	anchors  map[*yaml.Node]bool // being expanded
}

func (t *treeBuilder) problem(pos Pos, p *keyPath, format string, args ...any) *node {
	if len(t.problems) < maxCollected {
		msg := fmt.Sprintf(format, args...)
		if where := p.String(); where != "" {
			msg = where + ": " + msg
		}
		t.problems = append(t.problems, Problem{Pos: pos, Message: oneLine(msg)})
	}
	return &node{kind: badNode, src: t.src, pos: pos}
}

func (t *treeBuilder) build(y *yaml.Node, depth int, p *keyPath) *node {
	pos := t.src.at(y.Line, y.Column)
	if t.nodes++; t.nodes > maxNodes {
		if t.nodes == maxNodes+1 {
			return t.problem(pos, p, "too many values: with its aliases expanded the file has more than %d; put long lists into a file and map over it with lines, csv or jsonl", maxNodes)
		}
		return &node{kind: badNode, pos: pos}
	}
	if depth > maxDepth {
		return t.problem(pos, p, "nested more than %d levels deep", maxDepth)
	}
	if y.Kind == yaml.AliasNode {
		if t.anchors[y.Alias] {
			return t.problem(pos, p, "the alias *%s stands inside the value that it names", y.Value)
		}
		t.anchors[y.Alias] = true
		n := t.build(y.Alias, depth+1, p)
		delete(t.anchors, y.Alias)
		return n
	}
	n := &node{src: t.src, pos: pos, off: t.src.offset(y.Line, y.Column)}
	if tag := t.src.tagAt(n.off, y); tag != "" {
		return t.problem(pos, p, "%s is read as a YAML tag here: put quotes around the whole value", tag)
	}
	// A plain anchor may contain itself through an alias further down.
	if y.Anchor != "" {
		t.anchors[y] = true
		defer delete(t.anchors, y)
	}
	switch y.Kind {
	case yaml.ScalarNode:
		n.kind, n.text, n.plain = scalarNode, y.Value, y.Style == 0
		if strings.IndexByte(n.text, 0) >= 0 {
			return t.problem(pos, p, "the text contains a NUL byte, which no program can be given")
		}
		if y.Style&yaml.LiteralStyle == 0 && !utf8.ValidString(n.text) {
			return t.problem(pos, p, "the text is not UTF-8")
		}
	case yaml.SequenceNode:
		n.kind = listNode
		n.items = make([]*node, 0, len(y.Content))
		for i, c := range y.Content {
			n.items = append(n.items, t.build(c, depth+1, p.index(i)))
		}
	case yaml.MappingNode:
		n.kind = mappingNode
		return t.mapping(n, y, depth, p)
	default:
		return t.problem(pos, p, "this YAML cannot be read")
	}
	return n
}

func (t *treeBuilder) mapping(n *node, y *yaml.Node, depth int, p *keyPath) *node {
	n.pairs = make([]pair, 0, len(y.Content)/2)
	seen := make(map[string]Pos, len(y.Content)/2)
	var merges []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		yk, yv := y.Content[i], y.Content[i+1]
		pos := t.src.at(yk.Line, yk.Column)
		if yk.Kind == yaml.MappingNode && yk.Style&yaml.FlowStyle != 0 && y.Style&yaml.FlowStyle != 0 {
			return t.problem(n.pos, p, "{{ starts a YAML mapping here: a template is written \"${{ ... }}\", in quotes")
		}
		if yk.Kind == yaml.ScalarNode && yk.Tag == "!!merge" && yk.Style == 0 {
			merges = append(merges, t.build(yv, depth+1, p.key("<<")))
			continue
		}
		key := t.build(yk, depth+1, p)
		if key.kind == badNode {
			continue
		}
		if key.kind != scalarNode {
			t.problem(pos, p, "a key must be text, found %s", key.found())
			continue
		}
		key.pos = pos
		if first, dup := seen[key.text]; dup {
			t.problem(pos, p, "duplicate key %q: it already stands at %d:%d", shorten(key.text), first.Line, first.Col)
			continue
		}
		seen[key.text] = pos
		n.pairs = append(n.pairs, pair{key: key, value: t.build(yv, depth+1, p.key(key.text))})
	}
	for _, m := range merges {
		t.merge(n, m, seen, p)
	}
	return n
}

// merge adds what a merge key brings; keys that are there win.
func (t *treeBuilder) merge(n, from *node, seen map[string]Pos, p *keyPath) {
	switch from.kind {
	case mappingNode:
		for _, p := range from.pairs {
			if _, there := seen[p.key.text]; !there {
				seen[p.key.text] = p.key.pos
				n.pairs = append(n.pairs, p)
			}
		}
	case listNode:
		for _, m := range from.items {
			if m.kind == listNode {
				t.problem(m.pos, p, "the merge key << takes a mapping or a list of mappings, found a list in the list")
				continue
			}
			t.merge(n, m, seen, p)
		}
	case scalarNode:
		t.problem(from.pos, p, "the merge key << takes a mapping (as in <<: *name), found %s", from.found())
	}
}
