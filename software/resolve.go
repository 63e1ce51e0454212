package software

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// needs is what a pipeline wants installed, with the files that were found.
type needs struct {
	python   string
	pythonBy string // the file that names it, if one does
	lock     string // path of a uv.lock, relative to the folder of the pipeline file
	project  string // path of a pyproject.toml to install without a lock
	reqs     string // path of a requirements file
	conda    string // path of an environment.yml
	apt      []string
	setup    string
	image    string
	foundBy  string // the file that was found by itself
	reqFiles []string
	// locals are files and folders of packages that lie beside the pipeline.
	locals []local
	// lacking says of a package which machines cannot have; "" of none.
	lacking string
}

// local is a package that lies in a folder or file beside the pipeline file.
type local struct {
	path     string
	editable bool // its Python files are used where they lie
}

// environment says whether a Python environment has to be made.
func (n *needs) environment() bool {
	return n.python != "" || n.lock != "" || n.project != "" || n.reqs != "" || n.conda != ""
}

// nothing says that the machine is fine as it is.
func (n *needs) nothing() bool {
	return !n.environment() && len(n.apt) == 0 && n.setup == "" && n.image == ""
}

// resolve finds the files that describe the software. Explicit keys win over
// files that are found by themselves, and are errors if the file is not there.
func resolve(sw *spec.Software, dir string) (*needs, error) {
	if sw == nil {
		sw = &spec.Software{}
	}
	n := &needs{python: sw.Python, apt: sw.Apt, setup: sw.Setup, image: sw.Container}
	if n.image != "" {
		return n, nil
	}
	var err error
	if sw.UV != "" {
		p, err := existing(dir, "uv", sw.UV)
		if err != nil {
			return nil, err
		}
		switch {
		case strings.HasSuffix(p, ".lock"):
			n.lock = p
		case strings.HasSuffix(p, ".toml"):
			n.project = p
			if lock := path.Join(path.Dir(p), "uv.lock"); there(dir, lock) {
				n.lock, n.project = lock, ""
			}
		default:
			return nil, fmt.Errorf("software.uv: %s is neither a uv.lock nor a pyproject.toml", p)
		}
	}
	if sw.Requirements != "" {
		if n.reqs, err = existing(dir, "requirements", sw.Requirements); err != nil {
			return nil, err
		}
	}
	if sw.Conda != "" {
		if n.conda, err = existing(dir, "conda", sw.Conda); err != nil {
			return nil, err
		}
	}
	if sw.UV == "" && sw.Requirements == "" && sw.Conda == "" {
		n.find(dir)
	}
	if n.conda != "" && (n.lock != "" || n.project != "") {
		return nil, errors.New("software: conda and uv cannot make one environment together; choose one of them (conda and requirements can)")
	}
	if n.anyPython() {
		n.wantPython(dir)
	}
	if n.lock != "" && !there(dir, n.pyproject()) {
		return nil, fmt.Errorf("software: %s has no pyproject.toml beside it, and uv needs both", n.lock)
	}
	return n, n.findLocals(dir)
}

// pyproject is the pyproject.toml of the lock file or project.
func (n *needs) pyproject() string {
	if n.lock != "" {
		return path.Join(path.Dir(n.lock), "pyproject.toml")
	}
	return n.project
}

// find looks for the files beside the pipeline file, in order.
func (n *needs) find(dir string) {
	for _, name := range []string{"uv.lock", "pyproject.toml", "requirements.txt", "environment.yml", "environment.yaml"} {
		if !there(dir, name) {
			continue
		}
		switch name {
		case "uv.lock":
			if !there(dir, "pyproject.toml") {
				continue
			}
			n.lock = name
		case "pyproject.toml":
			// Many hold nothing but settings of tools.
			if !declaresProject(dir, name) {
				continue
			}
			n.project = name
		case "requirements.txt":
			n.reqs = name
		default:
			n.conda = name
		}
		n.foundBy = name
		return
	}
}

// pythonVersion is the version in a .python-version; more of it than two numbers
// is what its owner happened to have.
var pythonVersion = regexp.MustCompile(`(?m)^[ \t]*(?:cpython-)?(3\.[0-9]+)(?:\.[0-9]+)?[ \t]*\r?$`)

// wantPython finds the version of Python beside a requirements file, as uv and
// pyenv do.
func (n *needs) wantPython(dir string) {
	for _, folder := range []string{path.Dir(n.reqs), "."} {
		name := path.Join(folder, ".python-version")
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			continue
		}
		if m := pythonVersion.FindSubmatch(b); m != nil {
			n.python, n.pythonBy = string(m[1]), name
		}
		return
	}
}

func existing(dir, key, p string) (string, error) {
	clean := path.Clean(filepath.ToSlash(p))
	if !filepath.IsLocal(filepath.FromSlash(clean)) {
		return "", fmt.Errorf("software.%s: %s lies outside of the folder of the pipeline file, and only what is in it travels to machines", key, p)
	}
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(clean)))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("software.%s: there is no file %s beside the pipeline file", key, p)
		}
		return "", fmt.Errorf("software.%s: %w", key, err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("software.%s: %s is not a file", key, p)
	}
	return clean, nil
}

func there(dir, p string) bool {
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(p)))
	return err == nil && info.Mode().IsRegular()
}

func isFolder(dir, p string) bool {
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(p)))
	return err == nil && info.IsDir()
}

var (
	projectTable = regexp.MustCompile(`(?m)^[ \t]*\[(project|tool\.poetry)\]`)
	buildTable   = regexp.MustCompile(`(?m)^[ \t]*\[build-system\]`)
	tomlPath     = regexp.MustCompile(`\b(directory|editable|path|virtual)\s*=\s*(?:"([^"\n]+)"|'([^'\n]+)')`)
)

func declaresProject(dir, p string) bool {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p)))
	return err == nil && projectTable.Match(b)
}

func buildsPackage(dir, p string) bool {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p)))
	return err == nil && buildTable.Match(b)
}

// findLocals collects the packages beside the pipeline that are installed from
// their source.
func (n *needs) findLocals(dir string) error {
	if n.lock != "" {
		if err := n.tomlLocals(dir, n.lock); err != nil {
			return err
		}
	}
	if n.project != "" {
		if err := n.tomlLocals(dir, n.project); err != nil {
			return err
		}
		if buildsPackage(dir, n.project) {
			n.addLocal(local{path: path.Dir(n.project), editable: true})
		}
	}
	if n.conda != "" {
		if err := n.readConda(dir); err != nil {
			return err
		}
	}
	if n.reqs != "" {
		if err := n.readRequirements(dir, n.reqs, ".", 0); err != nil {
			return err
		}
	}
	slices.SortFunc(n.locals, func(a, b local) int { return strings.Compare(a.path, b.path) })
	return nil
}

// tomlLocals finds the sources of uv that are paths. Values of one kind of
// table are enough: what is taken for a path and is none is not there.
func (n *needs) tomlLocals(dir, p string) error {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p)))
	if err != nil {
		return fmt.Errorf("software: %w", err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		for _, m := range tomlPath.FindAllStringSubmatch(line, -1) {
			kind, rel := m[1], path.Join(path.Dir(p), m[2]+m[3])
			if kind == "virtual" {
				continue // its dependencies are wanted, not itself
			}
			editable := kind == "editable" || strings.Contains(strings.ReplaceAll(line, " ", ""), "editable=true")
			if err := n.tryLocal(dir, p, rel, editable); err != nil {
				return err
			}
		}
	}
	return nil
}

// tryLocal adds a path if there is something at it.
func (n *needs) tryLocal(dir, from, rel string, editable bool) error {
	rel = path.Clean(rel)
	if !filepath.IsLocal(filepath.FromSlash(rel)) {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(rel))); err == nil {
			return fmt.Errorf("software: %s needs %s, which lies outside of the folder of the pipeline file, and only what is in it travels to machines", from, rel)
		}
		return nil
	}
	if there(dir, rel) || isFolder(dir, rel) {
		n.addLocal(local{path: rel, editable: editable})
	}
	return nil
}

func (n *needs) addLocal(l local) {
	for i := range n.locals {
		if n.locals[i].path == l.path {
			n.locals[i].editable = n.locals[i].editable && l.editable
			return
		}
	}
	n.locals = append(n.locals, l)
}

// condaPip begins the entries of pip in the dependencies of an environment.yml,
// which are further in; condaEntry is one with an option or a path.
var (
	condaPip   = regexp.MustCompile(`^(\s*)-\s+["']?pip["']?\s*:`)
	condaEntry = regexp.MustCompile(`^\s*-\s+["']?([-.][^"'#]*)`)
)

// readConda finds what the pip section of an environment.yml names.
func (n *needs) readConda(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(n.conda)))
	if err != nil {
		return fmt.Errorf("software.conda: %w", err)
	}
	pip := -1 // how far in the section is
	for line := range strings.SplitSeq(string(b), "\n") {
		in := len(line) - len(strings.TrimLeft(line, " "))
		if m := condaPip.FindStringSubmatch(line); m != nil {
			pip = len(m[1])
			continue
		}
		if in <= pip && strings.TrimSpace(line) != "" {
			pip = -1
		}
		if m := condaEntry.FindStringSubmatch(line); m != nil && pip >= 0 {
			// Relative to the file: there pip is run.
			if err := n.requirement(dir, n.conda, path.Dir(n.conda), strings.TrimSpace(m[1]), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

const maxRequirements = 32 // files that name each other, in depth

// readRequirements follows a requirements file to those it names, and to local
// packages, whose paths are relative to base.
func (n *needs) readRequirements(dir, p, base string, depth int) error {
	if slices.Contains(n.reqFiles, p) {
		return nil
	}
	if depth > maxRequirements {
		return fmt.Errorf("software.requirements: %s: files name each other too deeply", p)
	}
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p)))
	if err != nil {
		return fmt.Errorf("software.requirements: %w", err)
	}
	n.reqFiles = append(n.reqFiles, p)
	text := strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\\\n", " ")
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if i := strings.Index(line, " #"); i >= 0 {
			line = strings.TrimSpace(line[:i])
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if err := n.requirement(dir, p, base, line, depth); err != nil {
			return err
		}
	}
	return nil
}

// requirement reads one line of a requirements file p.
func (n *needs) requirement(dir, p, base, line string, depth int) error {
	if more, ok := option(line, "-r", "--requirement", "-c", "--constraint"); ok {
		// Relative to the file that names it.
		q := path.Join(path.Dir(p), filepath.ToSlash(more))
		if strings.Contains(more, "://") {
			return nil
		}
		if !filepath.IsLocal(filepath.FromSlash(q)) {
			return fmt.Errorf("software.requirements: %s names %s, which lies outside of the folder of the pipeline file, and only what is in it travels to machines", p, more)
		}
		return n.readRequirements(dir, q, base, depth+1)
	}
	what, editable := option(line, "-e", "--editable")
	links := false
	if !editable {
		what = line
		if strings.HasPrefix(line, "-") {
			if what, links = option(line, "-f", "--find-links"); !links {
				return nil
			}
		}
	}
	if _, url, ok := strings.Cut(what, " @ "); ok {
		what = strings.TrimSpace(url)
	}
	what, marker, _ := strings.Cut(what, ";")
	what, _, _ = strings.Cut(what, " --")
	what, _, _ = strings.Cut(what, "#") // the name of an editable package
	what = strings.TrimSpace(what)
	rest, isPath := strings.CutPrefix(what, "file:")
	if isPath {
		what = strings.TrimPrefix(rest, "//")
	}
	if i := strings.IndexByte(what, '['); i > 0 {
		what = what[:i] // extras
	}
	if !editable && !isPath && !strings.ContainsAny(what, "/\\") && what != "." && !strings.HasSuffix(what, ".whl") {
		return nil // a name
	}
	switch {
	case strings.Contains(what, "://"), vcs.MatchString(what), strings.Contains(what, "${"):
		return nil
	case path.IsAbs(what):
		if _, err := os.Stat(filepath.FromSlash(what)); err == nil {
			n.lack("%s needs %s by its absolute path, which is this computer's: write it relative to the pipeline file, below which it has to lie", p, what)
		}
		return nil
	}
	rel := path.Join(base, what)
	if local := filepath.FromSlash(path.Clean(rel)); !links && strings.TrimSpace(marker) == "" && filepath.IsLocal(local) {
		if _, err := os.Stat(filepath.Join(dir, local)); errors.Is(err, fs.ErrNotExist) {
			n.lack("%s needs %s, which is not there", p, what)
		}
	}
	return n.tryLocal(dir, p, rel, editable)
}

// vcs is what addresses of version control begin with.
var vcs = regexp.MustCompile(`^(git|hg|svn|bzr)\+`)

// lack notes the first thing that a machine could not install. Whoever sends
// the files asks; a machine has perhaps come by it in another way.
func (n *needs) lack(format string, args ...any) {
	if n.lacking == "" {
		n.lacking = fmt.Sprintf("software: "+format, args...)
	}
}

// option is the value of an option on a line of a requirements file.
func option(line string, names ...string) (string, bool) {
	for _, name := range names {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" {
			continue
		}
		if rest[0] == ' ' || rest[0] == '\t' || rest[0] == '=' || len(name) == 2 && rest[0] != '-' {
			return strings.Trim(strings.TrimLeft(rest, " \t="), `"'`), true
		}
	}
	return "", false
}

// files is what has to travel: the files that describe the software, and local
// packages.
func (n *needs) files(dir string) []string {
	var list []string
	for _, p := range append([]string{n.lock, n.project, n.conda, n.pythonBy}, n.reqFiles...) {
		if p != "" {
			list = append(list, p)
		}
	}
	if n.lock != "" {
		list = append(list, n.pyproject())
	}
	if n.lock != "" || n.project != "" {
		for _, name := range []string{".python-version", "uv.toml"} {
			if p := path.Join(path.Dir(n.pyproject()), name); there(dir, p) {
				list = append(list, p)
			}
		}
	}
	for _, l := range n.locals {
		list = append(list, l.path)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
