package bundle

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// ignoreFile is a .gitignore: a folder and the rules for what is below it. It
// stands in for git where there is none.
type ignoreFile struct {
	folder string // "" is the top
	rules  []ignoreRule
}

type ignoreRule struct {
	segs    []string // "**" stands for any folders
	negated bool
	folders bool // only folders
}

// readIgnore adds the .gitignore of a folder, if it has one.
func readIgnore(list []*ignoreFile, dir, folder string) []*ignoreFile {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(folder), ".gitignore"))
	if err != nil || len(b) > 1<<20 {
		return list
	}
	f := &ignoreFile{folder: folder, rules: parseIgnore(string(b))}
	return append(list[:len(list):len(list)], f)
}

func parseIgnore(text string) (rules []ignoreRule) {
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		// Blanks at the end count only behind a backslash.
		for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
			line = line[:len(line)-1]
		}
		if line == "" || line[0] == '#' {
			continue
		}
		var r ignoreRule
		if line[0] == '!' {
			r.negated = true
			line = line[1:]
		}
		if rest, ok := strings.CutSuffix(line, "/"); ok {
			r.folders = true
			line = rest
		}
		anchored := strings.Contains(line, "/")
		line = strings.TrimPrefix(line, "/")
		if line == "" {
			continue
		}
		r.segs = strings.Split(line, "/")
		if !anchored {
			r.segs = append([]string{"**"}, r.segs...)
		}
		rules = append(rules, r)
	}
	return rules
}

// ignored says what the last rule that matches a path says. That nothing in an
// ignored folder can be brought back follows from not entering it.
func ignored(list []*ignoreFile, p string, folder bool) bool {
	for i := len(list) - 1; i >= 0; i-- {
		f := list[i]
		rel := p
		if f.folder != "" {
			rel = strings.TrimPrefix(p, f.folder+"/")
		}
		parts := strings.Split(rel, "/")
		for j := len(f.rules) - 1; j >= 0; j-- {
			r := &f.rules[j]
			if (folder || !r.folders) && matchSegs(r.segs, parts) {
				return !r.negated
			}
		}
	}
	return false
}

func matchSegs(segs, parts []string) bool {
	if len(segs) == 0 {
		return len(parts) == 0
	}
	if segs[0] == "**" {
		if len(segs) == 1 {
			return len(parts) > 0
		}
		for i := range parts {
			if matchSegs(segs[1:], parts[i:]) {
				return true
			}
		}
		return false
	}
	if len(parts) == 0 {
		return false
	}
	ok, _ := path.Match(segs[0], parts[0])
	return ok && matchSegs(segs[1:], parts[1:])
}
