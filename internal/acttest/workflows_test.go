//go:build unix

package acttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// workflows are those of this repository, and the examples.
func workflows(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{".github/workflows/*.yml", "examples/github/*.yml"} {
		found, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v %v", pattern, found, err)
		}
		paths = append(paths, found...)
	}
	return paths
}

func TestActionlint(t *testing.T) {
	t.Parallel()
	lint := tool(t, "actionlint")
	cmd := exec.CommandContext(t.Context(), lint, append([]string{"-no-color", "-shellcheck=", "-pyflakes="}, workflows(t)...)...)
	cmd.Dir = root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The workflow that docs/github-actions.md begins with is one, and runs.
func TestDocumentedWorkflow(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root(t), "docs", "github-actions.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := func(language, begin string) string {
		m := regexp.MustCompile("(?s)```" + language + "\n(" + begin + ".*?)```").FindSubmatch(b)
		if m == nil {
			t.Fatalf("no %s that begins with %s", language, begin)
		}
		return string(m[1])
	}
	r := open(t, map[string]string{"w.yml": block("yml", "on:"), "pipeline.yaml": block("yaml", "name:"), "README.md": "two words\n", "docs/more.md": "x\n"})
	r.flags = []string{"--local-repository", "coiled-jobs/coiled-jobs@v1=" + shared.action}
	r.run("push").want(t, true).has(t, "succeeded: 2 tasks, ")
	lint := exec.CommandContext(t.Context(), tool(t, "actionlint"), "-no-color", "-shellcheck=", "-pyflakes=", filepath.Join(r.dir, ".github", "workflows", "w.yml"))
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

var pinned = regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)

// Other people's actions are pinned, ours gets inputs that it has, and none is
// pasted into a script.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root(t), "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Inputs, Outputs map[string]any
	}
	if err := yaml.Unmarshal(b, &action); err != nil {
		t.Fatal(err)
	}
	for _, path := range workflows(t) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		for line := range strings.Lines(string(b)) {
			if _, uses, ok := strings.Cut(line, "uses: "); ok && !strings.HasPrefix(uses, "./") && !strings.HasPrefix(uses, "coiled-jobs/coiled-jobs@v1\n") && !pinned.MatchString(strings.TrimSpace(uses)) && !strings.Contains(line, "`") {
				t.Errorf("%s: not pinned: %s", name, line)
			}
		}
		var w struct {
			Permissions any
			Jobs        map[string]struct {
				Timeout int `yaml:"timeout-minutes"`
				Steps   []struct {
					Uses, Run string
					With      map[string]any
				}
			}
		}
		if err := yaml.Unmarshal(b, &w); err != nil {
			t.Fatal(err)
		}
		if w.Permissions == nil {
			t.Errorf("%s: no permissions: it has more rights than it needs", name)
		}
		for job, j := range w.Jobs {
			if j.Timeout == 0 {
				t.Errorf("%s: job %s has no timeout-minutes", name, job)
			}
			for _, s := range j.Steps {
				if strings.Contains(s.Run, "${{") {
					t.Errorf("%s: job %s pastes an expression into a script:\n%s", name, job, s.Run)
				}
				if s.Uses != "./" && !strings.HasPrefix(s.Uses, "coiled-jobs/coiled-jobs@") {
					continue
				}
				for input := range s.With {
					if _, ok := action.Inputs[input]; !ok {
						t.Errorf("%s: job %s: the Action has no input %s", name, job, input)
					}
				}
			}
		}
		for _, m := range regexp.MustCompile(`steps\.jobs\.outputs\.([a-z-]+)`).FindAllStringSubmatch(string(b), -1) {
			if _, ok := action.Outputs[m[1]]; !ok {
				t.Errorf("%s: the Action has no output %s", name, m[1])
			}
		}
	}
}

// The examples that need no account run as they are.
func TestExamples(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ event, want string }{
		"push.yml":   {"push", "succeeded, 2 tasks, "},
		"manual.yml": {"workflow_dispatch", "succeeded: 2 tasks, "},
		"plan.yml":   {"pull_request", "2 tasks in 1 function, 2 B of input"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(filepath.Join(root(t), "examples", "github", name))
			if err != nil {
				t.Fatal(err)
			}
			word := `it's "$(touch pwned)"`
			r := open(t, map[string]string{"w.yml": string(b), "a.txt": "x", "b.txt": "y", "pipeline.yaml": `name: example
params: {word: none, limit: 2}
functions:
  look: {map: {glob: "*.txt", limit: "${{ params.limit }}"}, run: 'printf "%s\n" ${{ params.word }} >>"$OUT/words"'}
`})
			r.flags = []string{"--local-repository", "coiled-jobs/coiled-jobs@v1=" + shared.action, "--input", "word=" + word, "--input", "limit=2"}
			l := r.run(c.event).want(t, true)
			l.has(t, c.want)
			if name == "manual.yml" {
				if got, want := r.read("words"), fmt.Sprintf("%s\n%s\n", word, word); got != want {
					t.Errorf("the tasks got %q, want %q", got, want)
				}
			}
		})
	}
}
