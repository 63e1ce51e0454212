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
