package examples

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// yamlBlock is a fenced block of YAML in Markdown.
var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestDocumentedYAML validates every block of YAML in the documentation. A
// block is a whole file, or begins with functions:, or is the top of a file
// without functions, or is some indented keys of one function.
func TestDocumentedYAML(t *testing.T) {
	t.Parallel()
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var files []string
	for _, doc := range append(docs, "../README.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range yamlBlock.FindAllSubmatch(text, -1) {
			name := fmt.Sprintf("%s-%d.yaml", strings.TrimSuffix(filepath.Base(doc), ".md"), i+1)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(whole(string(m[1]))), 0o644); err != nil {
				t.Fatal(err)
			}
			files = append(files, name)
		}
	}
	if len(files) < 10 {
		t.Fatalf("found %d blocks of YAML in the documentation, which cannot be all", len(files))
	}
	cmd := exec.Command(program, append([]string{"validate"}, files...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		var bad strings.Builder
		for _, line := range strings.Split(string(out), "\n") {
			if line != "" && !strings.HasSuffix(line, ": ok") {
				bad.WriteString(line + "\n")
			}
		}
		t.Errorf("the documentation has YAML that is not valid: %v\n%s", err, bad.String())
	}
}

// whole makes a pipeline file of a block.
func whole(block string) string {
	if strings.HasPrefix(block, "    ") {
		run := "    run: echo\n"
		for _, key := range []string{"run", "command", "python"} {
			if strings.Contains("\n"+block, "\n    "+key+":") {
				run = ""
			}
		}
		return "name: doc\nfunctions:\n  other: {run: echo}\n  f:\n" + run + block
	}
	if !strings.Contains("\n"+block, "\nname:") {
		block = "name: doc\n" + block
	}
	if !strings.Contains("\n"+block, "\nfunctions:") {
		block += "\nfunctions: {f: {run: echo}}\n"
	}
	return block
}

// helpNames finds the commands, and the flags of one command, in --help.
var (
	helpCommand = regexp.MustCompile(`(?m)^  ([a-z]+) {2,}\S`)
	helpFlag    = regexp.MustCompile(`(?m)^ {2,6}(?:-[a-z], )?--([a-z-]+)`)
)

// TestDocumentedCommands compares docs/commands.md with what --help says.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	commands := helpCommand.FindAllStringSubmatch(help(t), -1)
	if len(commands) < 20 {
		t.Fatalf("found %d commands in --help, which cannot be all", len(commands))
	}
	for _, c := range commands {
		name := c[1]
		if !regexp.MustCompile(`(?m)^(### |- \*\*)` + name + `\b`).MatchString(doc) {
			t.Errorf("docs/commands.md has nothing about %s", name)
		}
		for _, f := range helpFlag.FindAllStringSubmatch(help(t, name), -1) {
			if flag := "--" + f[1]; flag != "--help" && !regexp.MustCompile("`[^`\n]*"+flag+`\b`).MatchString(doc) {
				t.Errorf("docs/commands.md has nothing about %s %s", name, flag)
			}
		}
	}
}

func help(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, append(args, "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v --help: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestReadmeStart: the two commands with which README.md begins are what it
// says they are, and CI calls the second.
func TestReadmeStart(t *testing.T) {
	t.Parallel()
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	start := regexp.MustCompile(`(?s)\n## Start\n(.*?)\n## `).FindStringSubmatch(read("../README.md"))
	if start == nil {
		t.Fatal("README.md has no section Start")
	}
	var commands []string
	for _, m := range regexp.MustCompile(`(?m)^    (\S.*)$`).FindAllStringSubmatch(start[1], -1) {
		commands = append(commands, m[1])
	}
	equal(t, "commands", commands, []string{
		"go run ./cmd/coiled-jobs apply examples/pipelines/nyc-taxi/pipeline.yaml",
		"./scripts/test",
	})
	if !strings.Contains(read("../.ci/run"), "\n./scripts/test") {
		t.Error(".ci/run does not call ./scripts/test")
	}
}
