// Package archtest states which packages of this module may import which. It
// has nothing but a test.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/coiled-jobs/coiled-jobs"

// rule is an arrow that must not be there, neither directly nor through other
// packages.
type rule struct {
	from []string // packages of this module ("x/..." is x and what is below it)
	to   []string // packages of this module that they must not depend on
	but  []string // exceptions to to
	why  string
}

var rules = []rule{
	{
		from: []string{"value"}, to: []string{"..."},
		why: "values are the ground that everything stands on",
	},
	{
		from: []string{"spec"}, to: []string{"..."}, but: []string{"spec", "value"},
		why: "the language is bytes in, types and problems out; it knows nothing of running",
	},
	{
		from: []string{"cloud"}, to: []string{"..."}, but: []string{"cloud"},
		why: "the contract with a cloud is plain types",
	},
	{
		from: []string{"cloud/..."}, to: []string{"..."}, but: []string{"cloud/...", "value", "planner", "spec", "hardware", "internal/..."},
		why: "a cloud rents, stores and lists (for the planner); it does not run pipelines",
	},
	{
		from: []string{"cloud/local", "cloud/cloudtest"}, to: []string{"..."},
		but: []string{"cloud", "cloud/local", "cloud/cloudtest", "value"},
		why: "one cloud knows nothing of another, nor of pipelines",
	},
	{
		from: []string{"hardware"}, to: []string{"..."}, but: []string{"hardware", "spec", "value"},
		why: "choosing and pricing are arithmetic on tables that are handed in",
	},
	{
		from: []string{"planner/..."}, to: []string{"executor/...", "agent/...", "cloud/...", "cmd/..."}, but: []string{"cloud"},
		why: "a plan is made from inputs alone, which it lists through an interface of its own",
	},
	{
		from: []string{"executor/..."}, to: []string{"cloud/...", "cmd/..."}, but: []string{"cloud"},
		why: "the coordinator works with any cloud",
	},
	{
		from: []string{"agent/..."}, to: []string{"executor/...", "cloud/...", "cmd/..."}, but: []string{"cloud"},
		why: "an agent runs attempts and decides nothing about the run",
	},
	{
		from: []string{"schedule"}, to: []string{"..."}, but: []string{"schedule", "cloud", "spec", "value"},
		why: "what becomes of a tick is decided from times and records; runs are started through an interface",
	},
	{
		from: []string{"machine"}, to: []string{"engine/...", "fleet/...", "cloud/..."}, but: []string{"cloud"},
		why: "a machine knows its run from the store, and its cloud through functions that cmd hands in",
	},
	{
		from: []string{"fleet"}, to: []string{"..."}, but: []string{"fleet", "wire", "cloud", "task", "spec", "value"},
		why: "whoever rents machines works with any cloud, and sees its coordinator through an interface",
	},
	{
		from: []string{"wire"}, to: []string{"..."}, but: []string{"wire", "cloud", "task", "spec", "value"},
		why: "what coordinators and machines tell each other is plain types",
	},
	{
		from: []string{"bundle"}, to: []string{"..."}, but: []string{"bundle", "cloud", "hardware", "planner", "spec", "value"},
		why: "files travel through any store; planner is there for the language of patterns",
	},
	{
		from: []string{"software"}, to: []string{"..."}, but: []string{"software", "bundle", "cloud", "hardware", "planner", "spec", "value"},
		why: "environments are built on any machine and shared through any store",
	},
	{
		from: []string{"engine"}, to: []string{"cloud/..."}, but: []string{"cloud", "cloud/local"},
		why: "what the engine needs of a cloud beside this machine, cmd fills in",
	},
	{
		from: []string{"..."}, to: []string{"web"}, but: []string{"web", "cmd/..."},
		why: "the page is a face of the program; nothing else needs it",
	},
	{
		from: []string{"github"}, to: []string{"engine/...", "agent/...", "fleet/...", "machine/...", "cloud/...", "cmd/..."}, but: []string{"cloud"},
		why: "what GitHub shows is text, made of a report",
	},
	{
		from: []string{"internal/release"}, to: []string{"..."}, but: []string{"internal/release"},
		why: "a release is built from outside: it runs the Go tool",
	},
	{
		from: []string{"..."}, to: []string{"cmd/..."}, but: []string{"cmd/..."},
		why: "the command line is on top",
	},
	{
		from: []string{"..."}, to: []string{"cloud/cloudtest"}, but: []string{"cloud/cloudtest", "fleet/sim"},
		why: "fakes are for tests",
	},
	{
		from: []string{"..."}, to: []string{"fleet/sim"}, but: []string{"fleet/sim"},
		why: "simulations are for tests",
	},
	{
		from: []string{"..."}, to: []string{"internal/hypervisor"},
		why: "machines of our own are for tests",
	},
	{
		from: []string{"agent/...", "bundle/...", "cloud/...", "cmd/...", "engine/...", "executor/...", "fleet/...", "machine/...", "software/..."},
		to:   []string{"internal/motoserver", "internal/s3server"},
		why:  "servers that others wrote are for tests",
	},
}

// only says who may import a library directly.
var only = []struct {
	library string
	allowed []string
	why     string
}{
	{"github.com/spf13/cobra", []string{"cmd/..."}, "flags are the command line's"},
	{"github.com/spf13/pflag", []string{"cmd/..."}, "flags are the command line's"},
	{"github.com/aws/", []string{"cloud/aws/...", "cmd/...", "bench/..."}, "the SDK stops at cloud/aws (cmd may load credentials)"},
	{"gopkg.in/yaml.v3", []string{"spec/...", "cmd/..."}, "YAML becomes types in spec"},
	{"github.com/expr-lang/expr", []string{"spec/..."}, "expressions are compiled in spec"},
	{"mvdan.cc/sh/", []string{"spec/..."}, "scripts are read in spec"},
	{"testing", []string{"cloud/cloudtest"}, "the program does not carry the test framework"},
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// listPackages asks for the packages of the module without their tests.
func listPackages(t *testing.T) []pkg {
	t.Helper()
	// go test keeps a result until a file changes that the test looked at: it
	// does not see what go list looks at.
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if err == nil && (d.IsDir() || strings.HasSuffix(path, ".go")) {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,Deps", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// matches says whether a package of this module is meant by a pattern.
func matches(pattern, path string) bool {
	rel, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return false
	}
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return rel == base || strings.HasPrefix(rel, base+"/")
	}
	return rel == pattern
}

func anyMatches(patterns []string, path string) bool {
	for _, p := range patterns {
		if matches(p, path) {
			return true
		}
	}
	return false
}

// check gives the arrows that break the rules, one line each.
func check(list []pkg) []string {
	var bad []string
	for _, p := range list {
		for _, r := range rules {
			if !anyMatches(r.from, p.ImportPath) {
				continue
			}
			for _, dep := range p.Deps {
				if anyMatches(r.to, dep) && !anyMatches(r.but, dep) && dep != p.ImportPath {
					bad = append(bad, strings.TrimPrefix(p.ImportPath, module+"/")+" depends on "+
						strings.TrimPrefix(dep, module+"/")+": "+r.why)
				}
			}
		}
		for _, o := range only {
			for _, imp := range p.Imports {
				hit := imp == o.library || strings.HasPrefix(imp, strings.TrimSuffix(o.library, "/")+"/")
				if hit && !anyMatches(o.allowed, p.ImportPath) {
					bad = append(bad, strings.TrimPrefix(p.ImportPath, module+"/")+" imports "+imp+": "+o.why)
				}
			}
		}
		if p.ImportPath == module+"/cloud" {
			for _, imp := range p.Imports {
				if strings.Contains(strings.Split(imp, "/")[0], ".") {
					bad = append(bad, "cloud imports "+imp+": the contract needs the standard library only")
				}
			}
		}
	}
	return bad
}

func TestImportArrows(t *testing.T) {
	t.Parallel()
	list := listPackages(t)
	seen := map[string]bool{}
	for _, p := range list {
		seen[strings.TrimPrefix(p.ImportPath, module+"/")] = true
	}
	for _, name := range []string{"value", "spec", "planner", "cloud", "cloud/local", "task", "agent"} {
		if !seen[name] {
			t.Errorf("go list does not know the package %s: the rules about it prove nothing", name)
		}
	}
	for _, line := range check(list) {
		t.Error(line)
	}
}

// The rules do find what they forbid.
func TestRulesBite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, dep string
		bad       bool
	}{
		{"spec", "value", false},
		{"spec", "planner", true},
		{"value", "spec", true},
		{"planner", "cloud", false},
		{"planner", "cloud/aws", true},
		{"planner", "executor", true},
		{"executor", "planner", false},
		{"executor", "cloud", false},
		{"executor", "cloud/local", true},
		{"agent", "executor", true},
		{"cloud", "value", true},
		{"cloud/local", "cloud", false},
		{"cloud/local", "cloud/aws", true},
		{"cloud/local", "executor", true},
		{"cloud/aws", "planner", false},
		{"cloud/aws", "hardware", false},
		{"hardware", "spec", false},
		{"hardware", "cloud", true},
		{"cloud/aws", "executor", true},
		{"cmd/coiled-jobs", "executor", false},
		{"executor", "cmd/coiled-jobs", true},
		{"executor", "cloud/cloudtest", true},
	} {
		got := check([]pkg{{ImportPath: module + "/" + c.from, Deps: []string{module + "/" + c.dep}}})
		if (len(got) > 0) != c.bad {
			t.Errorf("%s -> %s: %q", c.from, c.dep, got)
		}
	}
	for _, c := range []struct {
		from, imp string
		bad       bool
	}{
		{"cmd/coiled-jobs", "github.com/spf13/cobra", false},
		{"planner", "github.com/spf13/cobra", true},
		{"cloud/aws", "github.com/aws/aws-sdk-go-v2/service/s3", false},
		{"planner", "github.com/aws/aws-sdk-go-v2/service/s3", true},
		{"cloud", "golang.org/x/sys/unix", true},
		{"cloud", "errors", false},
		{"agent", "testing", true},
	} {
		got := check([]pkg{{ImportPath: module + "/" + c.from, Imports: []string{c.imp}}})
		if (len(got) > 0) != c.bad {
			t.Errorf("%s imports %s: %q", c.from, c.imp, got)
		}
	}
}
