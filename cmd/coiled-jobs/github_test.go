package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

// actionFile is action.yml.
type actionFile struct {
	Inputs map[string]struct {
		Description string `yaml:"description"`
		Default     string `yaml:"default"`
		Required    bool   `yaml:"required"`
	} `yaml:"inputs"`
	Outputs map[string]struct {
		Description string `yaml:"description"`
	} `yaml:"outputs"`
	Runs struct{ Using, Main, Post string } `yaml:"runs"`
}

func readAction(t *testing.T) (action actionFile) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&action); err != nil {
		t.Fatal(err)
	}
	return action
}

// Every input is read, and every input that is read is declared.
func TestActionInputs(t *testing.T) {
	t.Parallel()
	action := readAction(t)
	declared := slices.Sorted(maps.Keys(action.Inputs))
	read := slices.Sorted(slices.Values(slices.Concat(githubInputs, githubOthers)))
	if diff := cmp.Diff(read, declared); diff != "" {
		t.Errorf("inputs that are read (-) and those of action.yml (+):\n%s", diff)
	}
	for name, in := range action.Inputs {
		if in.Description == "" || in.Required {
			t.Errorf("input %s: no description, or required", name)
		}
	}
	// The lists are what the sources say.
	code := sources(t, "github.go", "github_files.go", "github_inputs.go", "github_plan.go")
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`g\.(?:input|flag)\("([a-z-]+)"`).FindAllStringSubmatch(code, -1) {
		used[m[1]] = true
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(githubInputs)), slices.Sorted(maps.Keys(used))); diff != "" {
		t.Errorf("githubInputs (-) and what the code reads (+):\n%s", diff)
	}
	used = map[string]bool{}
	script := sources(t, "../../scripts/action/main.js")
	for _, m := range regexp.MustCompile(`INPUT_([A-Z-]+)`).FindAllStringSubmatch(script, -1) {
		used[strings.ToLower(m[1])] = true
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(githubOthers)), slices.Sorted(maps.Keys(used))); diff != "" {
		t.Errorf("githubOthers (-) and what main.js reads (+):\n%s", diff)
	}
	for _, path := range []string{action.Runs.Main, action.Runs.Post} {
		if _, err := os.Stat(filepath.Join("..", "..", path)); err != nil {
			t.Error(err)
		}
	}
}

func sources(t *testing.T, names ...string) string {
	t.Helper()
	var all strings.Builder
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// The inputs are flags of the command line under the same name, or say here
// what they are instead.
func TestActionInputsAreFlags(t *testing.T) {
	t.Parallel()
	instead := map[string]string{
		"file": "argument of apply", "run": "argument of wait", "command": "the command", "params": "param", "outputs": "no-download",
		"matrix": "", "working-directory": "", "version": "", "token": "",
	}
	root := newRoot(newApp(nil, nil, nil, nil))
	apply, _, err := root.Find([]string{"apply"})
	if err != nil {
		t.Fatal(err)
	}
	for name := range readAction(t).Inputs {
		flag, other := instead[name]
		if !other {
			flag = name
		}
		if flag == "" || strings.Contains(flag, " ") {
			continue
		}
		if apply.Flags().Lookup(flag) == nil && root.PersistentFlags().Lookup(flag) == nil {
			t.Errorf("input %s is no flag: apply has no --%s", name, flag)
		}
	}
}

// Outputs are written under the names that action.yml declares.
func TestActionOutputs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "out")
	g := newGithubStep(newApp(nil, nil, nil, []string{"GITHUB_OUTPUT=" + file}))
	if err := g.outputs(map[string]string{}); err != nil {
		t.Fatal(err)
	}
	var written []string
	for line := range strings.Lines(sources(t, file)) {
		if name, _, ok := strings.Cut(line, "<<"); ok {
			written = append(written, name)
		}
	}
	slices.Sort(written)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(readAction(t).Outputs)), written); diff != "" {
		t.Errorf("outputs of action.yml (-) and those written (+):\n%s", diff)
	}
}

func TestActionParams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want map[string]string
		err  string
	}{
		{"", map[string]string{}, ""},
		{"a=1\n\n  b=x=y z \r\nc=", map[string]string{"a": "1", "b": "x=y z ", "c": ""}, ""},
		{"a=$(x)\nb='\"`", map[string]string{"a": "$(x)", "b": "'\"`"}, ""},
		{"novalue", nil, "write name=value"},
		{` {"a": "two\nlines", "n": 1.50, "big": 12345678901234567890, "b": false}`, map[string]string{"a": "two\nlines", "n": "1.50", "big": "12345678901234567890", "b": "false"}, ""},
		{`{"a": null}`, nil, "params: a: write text"},
		{`{"a": {"b": 1}}`, nil, "params: a: write text"},
		{`{"a": `, nil, "begins like a JSON object"},
	} {
		g := newGithubStep(newApp(nil, nil, nil, []string{"INPUT_PARAMS=" + c.text}))
		got, err := g.params()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want %q", c.text, err, c.err)
			}
			continue
		}
		// What the runner hands over is trimmed at its ends.
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", c.text, err, diff)
		}
	}
}

// The key of a step is the same in each attempt, and another one for whatever
// makes it another run.
func TestActionKey(t *testing.T) {
	t.Parallel()
	base := map[string]string{"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_REPOSITORY": "o/r", "GITHUB_JOB": "job", "GITHUB_ACTION": "__self",
		"INPUT_FILE": "pipeline.yaml", "INPUT_PARAMS": "a=1\nb=2", "INPUT_MATRIX": "null"}
	key := func(changes map[string]string) string {
		all := maps.Clone(base)
		maps.Copy(all, changes)
		var environ []string
		for k, v := range all {
			environ = append(environ, k+"="+v)
		}
		g := newGithubStep(newApp(nil, nil, nil, environ))
		o, err := g.options()
		if err != nil && !strings.Contains(err.Error(), "no file") {
			t.Fatal(err)
		}
		return g.key(o)
	}
	first := key(nil)
	if !strings.HasPrefix(first, "github/o/r/7/job/__self/") {
		t.Errorf("key %s", first)
	}
	for name, same := range map[string]map[string]string{
		"attempt": {"GITHUB_RUN_ATTEMPT": "2"}, "order": {"INPUT_PARAMS": "b=2\na=1"}, "form": {"INPUT_PARAMS": `{"a": 1, "b": 2}`}, "limit": {"INPUT_MAX-COST": "5"},
	} {
		if got := key(same); got != first {
			t.Errorf("%s: another key %s, first %s", name, got, first)
		}
	}
	seen := map[string]string{first: "the first"}
	for name, other := range map[string]map[string]string{
		"run": {"GITHUB_RUN_ID": "8"}, "repository": {"GITHUB_REPOSITORY": "o/s"}, "job": {"GITHUB_JOB": "other"}, "step": {"GITHUB_ACTION": "__self_2"},
		"params": {"INPUT_PARAMS": "a=1\nb=3"}, "matrix": {"INPUT_MATRIX": `{"os": "x"}`}, "file": {"INPUT_FILE": "other.yaml"}, "cloud": {"INPUT_CLOUD": "aws"},
	} {
		got := key(other)
		if with, again := seen[got]; again {
			t.Errorf("%s: the same key as %s", name, with)
		}
		seen[got] = name
	}
	if got := key(map[string]string{"INPUT_KEY": "nightly"}); got != "nightly" {
		t.Errorf("a given key became %s", got)
	}
	for name, none := range map[string]map[string]string{"outside of GitHub": {"GITHUB_RUN_ID": ""}, "under act": {"ACT": "true", "GITHUB_RUN_ID": "1"}} {
		if got := key(none); got != "" {
			t.Errorf("%s: key %s", name, got)
		}
	}
}

// Outside of GitHub the step is just a command.
func TestActionOutside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "p.yaml")
	if err := os.WriteFile(file, []byte("name: p\nfunctions: {a: {run: 'true'}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), []string{"__github", "run"}, strings.NewReader(""), &stdout, &stderr,
		[]string{"HOME=" + dir, "XDG_STATE_HOME=" + dir, "PATH=" + os.Getenv("PATH"), "INPUT_FILE=" + file})
	if code != 0 || stdout.Len() > 0 || !strings.Contains(stderr.String(), "succeeded: 1 task") {
		t.Errorf("exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	code = run(context.Background(), []string{"__github", "cleanup"}, strings.NewReader(""), &stdout, &stderr, []string{"HOME=" + dir})
	if code != 0 {
		t.Errorf("clean-up of nothing: exit code %d\n%s", code, stderr.String())
	}
}
