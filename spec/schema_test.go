package spec

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("pipeline.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("pipeline.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is YAML as an editor's schema validator sees it.
func asJSON(t *testing.T, src []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(src, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The schema must take every valid file that the checker takes.
func TestSchemaAcceptsValidFiles(t *testing.T) {
	t.Parallel()
	s := compileSchema(t)
	for _, file := range validFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(asJSON(t, src)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSchemaRejects(t *testing.T) {
	t.Parallel()
	s := compileSchema(t)
	const head = "name: x\nfunctions:\n  a: {run: echo"
	for name, src := range map[string]string{
		"no name":          "functions: {a: {run: echo}}",
		"unknown key":      head + ", tiemout: 3}",
		"unknown top key":  head + "}\nfoo: 1",
		"two forms":        head + ", map: {glob: a, range: 3}}",
		"nothing to run":   "name: x\nfunctions: {a: {timeout: 3}}",
		"two things":       head + ", python: 'a:b'}",
		"wrong enum":       head + ", on_failure: halt}",
		"wrong type":       head + ", concurrency: many}",
		"too small":        head + ", concurrency: 0}",
		"hyphen in a name": "name: x\nfunctions: {a-b: {run: echo}}",
		"bad duration":     head + ", timeout: {a: 1}}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := s.Validate(asJSON(t, []byte(src))); err == nil {
				t.Error("accepted")
			}
			if Validate([]byte(src), "p.yaml").Err() == nil {
				t.Error("the checker accepts what the schema must not")
			}
		})
	}
}

// Every key of every table stands in the schema with its description.
func TestSchemaHasEveryKey(t *testing.T) {
	t.Parallel()
	var tree any
	if err := json.Unmarshal(Schema(), &tree); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if props, ok := v["properties"].(map[string]any); ok {
				if v["additionalProperties"] != false {
					t.Errorf("a mapping with properties %v takes others too", props)
				}
				for name, p := range props {
					if m, ok := p.(map[string]any); ok {
						if doc, ok := m["description"].(string); ok {
							described[name+": "+doc] = true
						}
					}
				}
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(tree)
	seen := map[*keySet]bool{}
	var keys func(s *shape)
	keys = func(s *shape) {
		if s == nil {
			return
		}
		keys(s.scalar)
		keys(s.list)
		keys(s.elem)
		if s.mapping != nil && s.mapping != s {
			keys(s.mapping)
		}
		if s.keys == nil || seen[s.keys] {
			return
		}
		seen[s.keys] = true
		for _, k := range s.keys.keys {
			if k.doc == "" || !strings.HasSuffix(k.doc, ".") && !strings.HasSuffix(k.doc, "...") {
				t.Errorf("%s.%s: the description %q is no sentence", s.keys.name, k.name, k.doc)
			}
			if !described[k.name+": "+k.doc] {
				t.Errorf("%s.%s is not in the schema", s.keys.name, k.name)
			}
			if k.shape.what == "" {
				t.Errorf("%s.%s: no word for what is expected", s.keys.name, k.name)
			}
			if k.shape != mapShape && k.shape.elem != partShape {
				keys(k.shape)
			}
		}
	}
	keys(object(topKeys, ""))
	keys(mapShape.mapping)
	if len(seen) < 12 {
		t.Errorf("only %d tables found", len(seen))
	}
}

// What other tools call a key must lead to a key that exists.
func TestForeignKeysLeadSomewhere(t *testing.T) {
	t.Parallel()
	all := []*keySet{topKeys, functionKeys, mapKeys, hardwareKeys, softwareKeys, retriesKeys, limitsKeys, scheduleKeys, notifyKeys,
		paramShape.mapping.keys}
	for from, to := range foreignKeys {
		found := false
		for _, ks := range all {
			first, rest, nested := strings.Cut(to, ".")
			def := ks.find(first)
			if def == nil {
				continue
			}
			inner := def.shape.object()
			if def.shape.kind == kindList && def.shape.elem.kind == kindObject {
				inner = def.shape.elem.keys
			}
			found = found || !nested || inner != nil && inner.find(rest) != nil
		}
		if !found {
			t.Errorf("%s leads to %s, which does not exist", from, to)
		}
	}
}

func validFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/valid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	return files
}
