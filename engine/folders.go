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
			if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(d))); err == nil && info.IsDir() {
				list = append(list, d)
			}
		}
	}
	slices.Sort(list)
	return list
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
