package spec

import (
	"bytes"
	"encoding/json"
)

// templatePattern matches text with a template in it. Such text may stand in
// place of every value that is not text itself.
const templatePattern = `\$\{\{`

const (
	durationPattern = `^\s*([0-9.]+\s*[a-zA-Z]*\s*)+$`
	sizePattern     = `^\s*[0-9.]+\s*[a-zA-Z]*\s*$`
	identPattern    = `^[A-Za-z_][A-Za-z0-9_]*$`
)

// Schema is the JSON Schema (draft 2020-12) of pipeline files, for editors. It
// is made from the tables that the checker uses. What a schema cannot say
// (cycles, expressions, names of functions) only "validate" finds.
func Schema() []byte {
	b := &schemaBuilder{defs: map[string]any{}}
	root := obj(
		"$schema", "https://json-schema.org/draft/2020-12/schema",
		"title", "coiled-jobs pipeline",
		"description", "A pipeline of github.com/coiled-jobs/coiled-jobs.",
	)
	root = append(root, b.keys(topKeys)...)
	root = append(root, schemaMember{"$defs", b.defs})
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		// The tables hold nothing that JSON cannot: a mistake in them.
		panic(err)
	}
	return out.Bytes()
}

// orderedJSON is a JSON object whose keys stay in the order of the tables.
type orderedJSON []schemaMember

type schemaMember struct {
	key   string
	value any
}

// MarshalJSON writes the members in their order.
func (o orderedJSON) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	write := func(v any) error {
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	out.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := write(m.key); err != nil {
			return nil, err
		}
		out.WriteByte(':')
		if err := write(m.value); err != nil {
			return nil, err
		}
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

func obj(keysAndValues ...any) orderedJSON {
	var o orderedJSON
	for i := 0; i < len(keysAndValues); i += 2 {
		o = append(o, schemaMember{keysAndValues[i].(string), keysAndValues[i+1]})
	}
	return o
}

type schemaBuilder struct {
	defs map[string]any
}

// ref puts a mapping that occurs in several places, or in itself, into $defs.
func (b *schemaBuilder) ref(name string, make func() any) any {
	if _, there := b.defs[name]; !there {
		b.defs[name] = nil // it may contain itself
		b.defs[name] = make()
	}
	return obj("$ref", "#/$defs/"+name)
}

// keys is the schema of a mapping with the keys of a table.
func (b *schemaBuilder) keys(ks *keySet) orderedJSON {
	var props orderedJSON
	var required []string
	for _, k := range ks.keys {
		s := b.shape(k.shape)
		if o, ok := s.(orderedJSON); ok {
			s = append(orderedJSON{{"description", k.doc}}, o...)
		}
		props = append(props, schemaMember{k.name, s})
		if k.required {
			required = append(required, k.name)
		}
	}
	out := obj("type", "object", "properties", props, "additionalProperties", false)
	if len(required) > 0 {
		out = append(out, schemaMember{"required", required})
	}
	if len(ks.exactly) > 0 {
		var one []any
		for _, name := range ks.exactly {
			one = append(one, obj("required", []string{name}))
		}
		out = append(out, schemaMember{"oneOf", one})
	}
	return out
}

func (b *schemaBuilder) shape(s *shape) any {
	var alternatives []any
	if s.null {
		alternatives = append(alternatives, obj("type", "null"))
	}
	switch s.kind {
	case kindAlt:
		for _, alt := range []*shape{s.scalar, s.list, s.mapping} {
			if alt != nil {
				alternatives = append(alternatives, b.shape(alt))
			}
		}
	case kindList:
		list := obj("type", "array", "items", b.shape(s.elem))
		if s.nonEmpty {
			list = append(list, schemaMember{"minItems", 1})
		}
		alternatives = append(alternatives, list)
		if s.one {
			alternatives = append(alternatives, b.shape(s.elem))
		}
	case kindDict:
		dict := obj("type", "object", "additionalProperties", b.shape(s.elem))
		switch s.names {
		case nameIdent, nameEnv:
			dict = append(dict, schemaMember{"propertyNames", obj("pattern", identPattern)})
		}
		if s.nonEmpty {
			dict = append(dict, schemaMember{"minProperties", 1})
		}
		alternatives = append(alternatives, dict)
	case kindObject:
		switch s.keys {
		case functionKeys, mapKeys, hardwareKeys, softwareKeys, filesKeys, scheduleKeys, retriesKeys:
			alternatives = append(alternatives, b.ref(lastWord(s.keys.name), func() any { return b.keys(s.keys) }))
		default:
			alternatives = append(alternatives, b.keys(s.keys))
		}
	default:
		alternatives = append(alternatives, scalarSchema(s)...)
	}
	if s.kind != kindLiteral && s.kind != kindValue && !isTextKind(s.kind) && (s.kind != kindAlt || s.scalar == nil) {
		alternatives = append(alternatives, obj("type", "string", "pattern", templatePattern))
	}
	if len(alternatives) == 1 {
		return alternatives[0]
	}
	return obj("anyOf", alternatives)
}

func isTextKind(k kind) bool {
	return k == kindTemplate || k == kindScript
}

func lastWord(s string) string {
	if i := bytes.LastIndexByte([]byte(s), ' '); i >= 0 {
		return s[i+1:]
	}
	return s
}

// scalarSchema is what may stand for a scalar, without templates.
func scalarSchema(s *shape) []any {
	number := func(name string) orderedJSON {
		n := obj("type", name)
		if s.hasMin {
			n = append(n, schemaMember{"minimum", s.min})
		}
		if s.hasMax {
			n = append(n, schemaMember{"maximum", s.max})
		}
		return n
	}
	pattern := func(p string) orderedJSON { return obj("type", "string", "pattern", p) }
	// Plain scalars such as 3.12 or true are text where text is meant.
	anyScalar := obj("type", []string{"string", "number", "boolean"})
	switch s.kind {
	case kindText, kindLiteral:
		if len(s.enum) > 0 {
			return []any{obj("enum", s.enum)}
		}
		return []any{anyScalar}
	case kindInt:
		return []any{number("integer")}
	case kindNumber:
		return []any{number("number")}
	case kindBool:
		return []any{obj("type", "boolean")}
	case kindDuration:
		return []any{obj("type", "number", "minimum", 0), pattern(durationPattern)}
	case kindSize:
		return []any{obj("type", "number", "minimum", 0), pattern(sizePattern)}
	case kindShare:
		return []any{obj("type", "integer", "minimum", 0), pattern(`^\s*[0-9.]+\s*%\s*$`)}
	case kindPercent:
		return []any{obj("const", 0), pattern(`^\s*[0-9.]+\s*%\s*$`)}
	case kindFactor:
		return []any{obj("type", "number", "minimum", 1), pattern(`^\s*[0-9.]+x?\s*$`)}
	case kindCost:
		return []any{obj("type", "number", "minimum", 0), obj("const", "none")}
	case kindGPU:
		return []any{obj("type", "boolean"), obj("type", "integer", "minimum", 0), obj("type", "string")}
	case kindPython:
		return []any{pattern(`^.+:[^:]+$`)}
	case kindTemplate, kindScript:
		return []any{anyScalar}
	case kindCond:
		return []any{obj("type", []string{"string", "boolean"})}
	case kindValue:
		if s.sourceText {
			return []any{obj("type", []string{"string", "number", "boolean", "null"})}
		}
		return []any{obj()}
	}
	return []any{obj()}
}
