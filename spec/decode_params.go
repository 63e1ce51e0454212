package spec

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// pipelineParams reads the declarations and gives the parameters their values.
func (d *decoder) pipelineParams(p *Pipeline, n *node, at *keyPath) {
	d.params, d.paramTypes = map[string]any{}, map[string]string{}
	if n != nil {
		f := d.check(n, topKeys.find("params").shape, at)
		for _, e := range f.dict {
			def, ok := d.paramDecl(e)
			d.paramTypes[e.key.text] = def.Type
			p.ParamDefs = append(p.ParamDefs, def)
			if ok && d.values && !def.Required {
				d.params[def.Name] = def.Default
			}
		}
	}
	d.defs = p.ParamDefs
	p.Params = d.params
	if !d.values {
		return
	}
	names := make([]string, 0, len(d.opts.Params))
	for name := range d.opts.Params {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := d.opts.Params[name]
		def := d.paramDef(name)
		if def == nil {
			advice := d.suggest(name, d.paramNames())
			if advice == "" && len(p.ParamDefs) == 0 {
				advice = ": the file declares no params"
			}
			d.report(Pos{File: d.doc.File}, nil, "--param %s=%s: no parameter %q%s", shorten(name), shorten(text), shorten(name), advice)
			continue
		}
		v, why := def.parse(text)
		if why != "" {
			delete(d.params, name)
			d.report(def.Pos, nil, "--param %s=%s: %s", name, shorten(text), why)
			continue
		}
		d.params[name] = v
	}
	for i := range p.ParamDefs {
		def := &p.ParamDefs[i]
		if _, given := d.opts.Params[def.Name]; def.Required && !given && !d.opts.Lenient {
			d.report(def.Pos, at.key(def.Name), "the parameter has no value: give it one with --param %s=...", def.Name)
		}
	}
}

func (d *decoder) paramDef(name string) *Param {
	for i := range d.defs {
		if d.defs[i].Name == name {
			return &d.defs[i]
		}
	}
	return nil
}

func (d *decoder) paramNames() []string {
	var names []string
	for _, def := range d.defs {
		names = append(names, def.Name)
	}
	return names
}

// paramDecl reads one declaration. Without ok its default is not to be used.
func (d *decoder) paramDecl(e dictEntry) (Param, bool) {
	def := Param{Name: e.key.text, Pos: e.key.pos}
	f := e.value
	if f.n.kind != mappingNode {
		def.Default, def.Type = d.paramDefault(f, "")
		return def, def.Type != ""
	}
	if f.keys == nil {
		return def, false
	}
	def.Description = str(f.get("description"), "")
	def.Type = str(f.get("type"), "")
	ok := f.ok
	dflt, enum := f.get("default"), f.get("enum")
	def.Required = dflt == nil
	if def.Type == "" && f.get("type") == nil {
		switch {
		case dflt != nil:
			_, def.Type = d.paramDefault(dflt, "")
			ok = ok && def.Type != ""
		case enum != nil && len(enum.list) > 0:
			_, def.Type = d.paramDefault(enum.list[0], "")
		default:
			d.report(f.n.pos, f.path, "the parameter has neither type nor default: write {type: string} for one that --param must give")
			return def, false
		}
	}
	if enum != nil && def.Type != "" {
		for _, v := range enum.list {
			if x, t := d.paramDefault(v, def.Type); t != "" {
				def.Enum = append(def.Enum, x)
			}
		}
	}
	if dflt != nil && def.Type != "" {
		var t string
		def.Default, t = d.paramDefault(dflt, def.Type)
		if t == "" {
			return def, false
		}
		if len(def.Enum) > 0 && !slices.Contains(def.Enum, def.Default) {
			d.report(dflt.n.pos, dflt.path, "the default %s is not in enum", shorten(dflt.n.text))
			return def, false
		}
	}
	return def, ok
}

// paramDefault is the value of a default or enum entry and its type, which is
// want if that is not "". The type is "" if there is a problem.
func (d *decoder) paramDefault(f *field, want string) (any, string) {
	n := f.n
	v, ok := f.v.(*Value)
	switch {
	case !f.ok || !ok:
		return nil, ""
	case n.kind != scalarNode:
		d.wrong(n, &shape{what: "text, a number, true or false"}, f.path, "a parameter has one value")
		return nil, ""
	case n.isNull():
		d.report(n.pos, f.path, "the parameter has no value: for one that --param must give write {type: string}")
		return nil, ""
	case want == "string":
		return n.text, want
	case want != "":
		def := Param{Type: want}
		x, why := def.parse(n.text)
		if why == "" && !n.plain && want != "string" {
			why = "expected " + typeWhat(want) + ", found the text " + strconv.Quote(shorten(n.text)) + " (remove the quotes)"
		}
		if why != "" {
			d.report(n.pos, f.path, "%s", why)
			return nil, ""
		}
		return x, want
	}
	switch v.Literal.(type) {
	case bool:
		return v.Literal, "bool"
	case int:
		return v.Literal, "int"
	case float64:
		return v.Literal, "float"
	}
	return n.text, "string"
}

func typeWhat(t string) string {
	switch t {
	case "int":
		return "a whole number"
	case "float":
		return "a number"
	case "bool":
		return "true or false"
	}
	return "text"
}

// parse reads a value as --param gives it; why is not "" if it is not allowed.
func (p *Param) parse(text string) (v any, why string) {
	switch p.Type {
	case "int":
		i, err := strconv.Atoi(text)
		if err == nil {
			v = i
		}
	case "float":
		x, err := strconv.ParseFloat(text, 64)
		if err == nil && !math.IsInf(x, 0) && !math.IsNaN(x) {
			v = x
		}
	case "bool":
		if text == "true" || text == "false" {
			v = text == "true"
		}
	default:
		v = text
	}
	if v == nil {
		return nil, fmt.Sprintf("expected %s, found %q", typeWhat(p.Type), shorten(text))
	}
	if len(p.Enum) > 0 && !slices.Contains(p.Enum, v) {
		allowed := make([]string, len(p.Enum))
		for i, e := range p.Enum {
			allowed[i] = value.Text(e)
		}
		return nil, fmt.Sprintf("expected %s%s", joinOr(allowed), didYouMean(text, allowed))
	}
	return v, ""
}
