package engine

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// outputFolders are the folders that outputs of functions lie in and that are
// there: empty ones do not travel with the files, and a task that writes into
// one would find it here and not on a machine.
func outputFolders(fs []*spec.Function, dir string) []string {
	var list []string
	for _, f := range fs {
		for _, t := range f.Outputs {
			prefix := literal(t)
			d := path.Dir(prefix)
			if strings.HasSuffix(prefix, "/") {
				d = path.Clean(prefix)
			}
			if d == "." || slices.Contains(list, d) || !filepath.IsLocal(filepath.FromSlash(d)) {
				continue
			}
			full := filepath.Join(dir, filepath.FromSlash(d))
			if info, err := os.Stat(full); err != nil || !info.IsDir() {
				continue
			}
			if rel, ok := realBelow(dir, full); ok {
				d = rel // links travel as they are: what they lead to has to be there
			}
			if d != "." && !slices.Contains(list, d) {
				list = append(list, d)
			}
		}
	}
	slices.Sort(list)
	return list
}

// realBelow is where a folder below dir really is, if that is below dir, too.
func realBelow(dir, folder string) (string, bool) {
	base, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", false
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return "", false
	}
	rel, err := filepath.Rel(base, folder)
	return filepath.ToSlash(rel), err == nil && filepath.IsLocal(rel)
}

// literal is what a template begins with before its first expression, as a path
// in its shortest spelling.
func literal(t *spec.Template) string {
	text, _, _ := strings.Cut(t.Source, "${{")
	folder, name := path.Split(text)
	if folder = path.Clean(folder); folder == "." {
		return name
	}
	return folder + "/" + name
}
