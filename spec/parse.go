package spec

import "sync"

// Document is a parsed pipeline file whose parameters have no values yet.
type Document struct {
	File   string
	Source []byte
	// Name and ParamDefs are what can be known without parameter values.
	Name      string
	ParamDefs []Param

	root *node // nil: not YAML, see problems
	tree Problems

	mu       sync.Mutex // guards compiled
	compiled map[compileKey]*compiledNode
}

// Parse checks the structure of a pipeline file and everything else that does
// not depend on the values of parameters. The Document is never nil; if a
// problem is an error it is of no use but for Bind, which would give the same
// problems and more.
func Parse(src []byte, file string) (*Document, Problems) {
	doc := readDocument(src, file)
	p, problems := doc.decode(BindOptions{Lenient: true}, false)
	doc.Name, doc.ParamDefs = p.Name, p.ParamDefs
	return doc, problems
}

// Validate gives every problem of a file that can be found without the values
// of required parameters.
func Validate(src []byte, file string) Problems {
	_, problems := readDocument(src, file).Bind(BindOptions{Lenient: true})
	return problems
}

func readDocument(src []byte, file string) *Document {
	doc := &Document{File: file, Source: src, compiled: map[compileKey]*compiledNode{}}
	doc.root, doc.tree = readTree(src, file)
	return doc
}

// decode reads the tree. Without values, no parameter has one, not even its
// default: what depends on them is only compiled. The pipeline is never nil.
func (doc *Document) decode(opts BindOptions, values bool) (*Pipeline, Problems) {
	doc.mu.Lock()
	defer doc.mu.Unlock()
	d := &decoder{doc: doc, opts: opts, values: values}
	d.problems = append(d.problems, doc.tree...)
	p := &Pipeline{File: doc.File, Source: doc.Source}
	if doc.root != nil {
		d.pipeline(p)
	}
	return p, sortAndCut(d.problems, d.more)
}
