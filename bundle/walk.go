package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// junkNames are folders and files that tools make anew: they do not travel
// unless git tracks them or a pattern names them.
var junkNames = newNames(
	".git", ".hg", ".svn", ".jj",
	"__pycache__", "*.pyc", "*.pyo", ".venv", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis",
	".tox", ".nox", ".eggs", "*.egg-info", ".pixi", ".conda", "__pypackages__",
	"node_modules", ".npm", ".yarn", ".terraform", ".gradle", ".cache", ".dvc", ".direnv",
	".DS_Store", "Thumbs.db", "*.swp", "*~", ".coverage",
	".coiled-jobs-*", // an output that was being brought back
)

// junk is the first element of a path that is rubbish by its name; -1 if none.
func junk(p string) int {
	for i := 0; ; i++ {
		name, rest, more := strings.Cut(p, "/")
		if _, ok := junkNames.find(name); ok {
			return i
		}
		if !more {
			return -1
		}
		p = rest
	}
}

// isGit says whether a path lies in a folder of git itself.
func isGit(p string) bool { return p == ".git" || strings.HasSuffix(p, "/.git") }

// isEnvironment says that a folder is an environment or a cache by what is in
// it: that of venv and conda, and that of the cache directory convention.
func isEnvironment(folder string) bool {
	for _, mark := range []string{"pyvenv.cfg", "conda-meta/history"} {
		if _, err := os.Stat(filepath.Join(folder, mark)); err == nil {
			return true
		}
	}
	f, err := os.Open(filepath.Join(folder, "CACHEDIR.TAG"))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	b, _ := io.ReadAll(io.LimitReader(f, 43))
	return string(b) == "Signature: 8a477f597d28d172789f06886806bc55"
}

// gitFiles is what git tracks or does not ignore below a folder. ok is false
// where that says nothing: no git, no work tree, or a folder that git ignores
// as a whole.
func gitFiles(ctx context.Context, dir string) (list []candidate, ok bool, err error) {
	list, ok, err = gitList(ctx, dir, "", 0)
	if err != nil || !ok {
		return nil, false, err
	}
	if len(list) == 0 {
		entries, err := os.ReadDir(dir)
		return nil, err == nil && len(entries) == 0, nil
	}
	return list, true, nil
}

const maxNesting = 16 // work trees in work trees

func gitList(ctx context.Context, dir, below string, depth int) (list []candidate, ok bool, err error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, false, nil
	}
	cmd := exec.CommandContext(ctx, git, "-c", "core.quotePath=false", "-c", "core.fsmonitor=false",
		"ls-files", "-c", "-o", "-t", "--exclude-standard", "-z")
	cmd.Dir = filepath.Join(dir, filepath.FromSlash(below))
	// A hook or an alias of git may have set which repository is meant.
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE":
		default:
			cmd.Env = append(cmd.Env, kv)
		}
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		return nil, false, nil // no work tree, or one that git does not trust
	}
	environments := map[string]bool{}
	for _, item := range strings.Split(out.String(), "\x00") {
		if len(item) < 3 {
			continue
		}
		tracked, p := item[0] != '?', item[2:]
		nested := strings.HasSuffix(p, "/")
		p = path.Join(below, strings.TrimSuffix(p, "/"))
		if !tracked && inEnvironment(dir, path.Dir(p), environments) {
			continue
		}
		if !nested && tracked {
			// A submodule is tracked as if it were a file.
			info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(p)))
			nested = err == nil && info.IsDir()
		}
		if !nested {
			list = append(list, candidate{path: p, tracked: tracked})
			continue
		}
		if depth >= maxNesting {
			return nil, false, fmt.Errorf("%s: work trees of git lie too deep in each other", printable(p))
		}
		if !tracked && junk(p) >= 0 {
			continue
		}
		// An own work tree has its own rules. A folder of a submodule that was
		// never fetched is empty; git would list the outer tree there.
		if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(p), ".git")); err != nil {
			continue
		}
		inner, ok, err := gitList(ctx, dir, p, depth+1)
		if err != nil {
			return nil, false, err
		}
		if ok {
			list = append(list, inner...)
		}
	}
	return list, true, nil
}

// inEnvironment says whether a folder is, or lies in, an environment below dir.
func inEnvironment(dir, folder string, known map[string]bool) bool {
	if folder == "." {
		return false
	}
	is, ok := known[folder]
	if !ok {
		is = isEnvironment(filepath.Join(dir, filepath.FromSlash(folder))) || inEnvironment(dir, path.Dir(folder), known)
		known[folder] = is
	}
	return is
}

// walkRules says where a walk goes.
type walkRules struct {
	ignore bool                     // .gitignore files count, environments are not entered
	enter  func(folder string) bool // nil: everywhere
}

// walk calls take for the files and links below a folder of dir, in order.
func (s *scanner) walk(ctx context.Context, below string, rules *walkRules, take func(candidate) error) error {
	var ignores []*ignoreFile
	if rules.ignore {
		// Those of the folders above count too.
		for i := range len(below) {
			if i == 0 || below[i] == '/' {
				ignores = readIgnore(ignores, s.dir, below[:i])
			}
		}
	}
	return s.walkFolder(ctx, below, ignores, rules, take)
}

func (s *scanner) walkFolder(ctx context.Context, folder string, ignores []*ignoreFile, rules *walkRules, take func(candidate) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.abs(folder))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("files that travel with the work: %w: leave it out with files.exclude", err)
		}
		return fmt.Errorf("files that travel with the work: %w", err)
	}
	if rules.ignore {
		ignores = readIgnore(ignores, s.dir, folder)
	}
	for _, e := range entries {
		p := path.Join(folder, e.Name())
		if !e.IsDir() {
			if rules.ignore && ignored(ignores, p, false) {
				continue
			}
			if err := take(candidate{path: p}); err != nil {
				return err
			}
			continue
		}
		switch {
		case isGit(p), s.excluded(p), rules.enter != nil && !rules.enter(p):
			continue
		case rules.ignore && ignored(ignores, p, true):
			continue
		}
		if i := junk(p); i >= 0 && !s.named(p, i) && (s.include == nil || !s.mayName(p)) {
			continue
		}
		if isEnvironment(s.abs(p)) && !s.named(p, strings.Count(p, "/")) {
			continue
		}
		if err := s.walkFolder(ctx, p, ignores, rules, take); err != nil {
			return err
		}
	}
	return nil
}

// mayName says that a pattern of files.include may name something in a folder
// of rubbish: whether it does is decided for each file.
func (s *scanner) mayName(folder string) bool { return s.include.MayContain(folder) }
