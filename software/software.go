package software

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// idVersion changes when the way of building does, so that nothing old is
// taken for it.
const idVersion = "software 1"

// ID names what has to be installed: equal ids, equal environments. It is ""
// if there is nothing to install. dir is the folder of the pipeline file,
// platform such as linux/amd64.
func ID(sw *spec.Software, dir, platform string) (string, error) {
	n, err := resolve(sw, dir)
	if err != nil || n.nothing() {
		return "", err
	}
	h := sha256.New()
	put := func(parts ...string) { _, _ = fmt.Fprintf(h, "%q\n", parts) }
	put(idVersion, platform)
	put("python", n.python)
	put(append([]string{"apt"}, n.apt...)...)
	put("setup", n.setup)
	put("image", n.image)
	files := []string{n.lock, n.pyproject(), n.conda}
	if n.pyproject() != "" {
		for _, name := range []string{".python-version", "uv.toml"} {
			if p := path.Join(path.Dir(n.pyproject()), name); there(dir, p) {
				files = append(files, p)
			}
		}
	}
	for _, p := range append(files, n.reqFiles...) {
		if p == "" {
			continue
		}
		put("file", p)
		if err := hashFile(h, dir, p); err != nil {
			return "", err
		}
	}
	for _, l := range n.locals {
		put("local", l.path, fmt.Sprint(l.editable))
		if err := hashLocal(h, dir, l); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

func hashFile(h io.Writer, dir, p string) error {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(p)))
	if err != nil {
		return fmt.Errorf("software: %w", err)
	}
	defer func() { _ = f.Close() }()
	n, err := io.Copy(h, f)
	if err != nil {
		return fmt.Errorf("software: %w", err)
	}
	_, _ = fmt.Fprintf(h, "\n%d bytes\n", n)
	return nil
}

// buildExts are the sources that a package is compiled from.
var buildExts = map[string]bool{
	".c": true, ".cc": true, ".cpp": true, ".cxx": true, ".h": true, ".hpp": true, ".pyx": true, ".pxd": true,
	".rs": true, ".f": true, ".f90": true, ".cu": true, ".go": true, ".toml": true, ".cfg": true, ".in": true, ".build": true,
}

var buildNames = map[string]bool{"setup.py": true, "CMakeLists.txt": true, "Cargo.lock": true, "VERSION": true, ".python-version": true}

// requirementsName says that a file is called like those from which projects
// read what they depend on.
func requirementsName(name string) bool {
	return strings.HasSuffix(name, ".txt") && strings.Contains(name, "requirements")
}

// skipFolders hold nothing that a package is built from.
var skipFolders = map[string]bool{
	".git": true, "__pycache__": true, ".venv": true, "venv": true, "node_modules": true, ".ipynb_checkpoints": true, ".mypy_cache": true,
	".pytest_cache": true, ".ruff_cache": true, ".tox": true, ".nox": true, ".eggs": true, "build": true, "dist": true,
}

// hashLocal hashes what decides how a local package is installed: of an
// editable one only what it is built from and which modules there are, since
// these are read where they lie.
func hashLocal(h io.Writer, dir string, l local) error {
	if there(dir, l.path) {
		return hashFile(h, dir, l.path)
	}
	top := filepath.Join(dir, filepath.FromSlash(l.path))
	return filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("software: %w", err)
		}
		if d.IsDir() {
			if name != top && (skipFolders[d.Name()] || strings.HasSuffix(d.Name(), ".egg-info")) {
				return filepath.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		ext := strings.ToLower(filepath.Ext(name))
		build := buildExts[ext] || buildNames[d.Name()] || requirementsName(d.Name())
		if l.editable && !build {
			if ext == ".py" {
				_, _ = fmt.Fprintf(h, "module %q\n", filepath.ToSlash(rel))
			}
			return nil
		}
		if ext == ".pyc" {
			return nil
		}
		_, _ = fmt.Fprintf(h, "source %q\n", filepath.ToSlash(rel))
		return hashFile(h, dir, filepath.ToSlash(rel))
	})
}

// Files are the paths, relative to dir, that have to travel so that the
// software can be installed: give them to bundle.Scan. What is named and could
// not be had on a machine is an error.
func Files(sw *spec.Software, dir string) ([]string, error) {
	n, err := resolve(sw, dir)
	if err != nil {
		return nil, err
	}
	if n.lacking != "" {
		return nil, errors.New(n.lacking)
	}
	return n.files(dir), nil
}

// Describe says what would be installed, a line each, for people.
func Describe(sw *spec.Software, dir string) ([]string, error) {
	n, err := resolve(sw, dir)
	if err != nil {
		return nil, err
	}
	var out []string
	found := func(p string) string {
		if p == n.foundBy {
			return p + " (found beside the pipeline file)"
		}
		return p
	}
	if n.image != "" {
		out = append(out, "container "+n.image)
	}
	if len(n.apt) > 0 {
		out = append(out, "packages of the system: "+strings.Join(n.apt, ", "))
	}
	version := "Python"
	if n.python != "" {
		version += " " + n.python
	}
	switch {
	case n.lock != "":
		out = append(out, version+" with the packages of "+found(n.lock))
	case n.project != "":
		out = append(out, version+" with the dependencies of "+found(n.project))
	case n.conda != "":
		out = append(out, version+" with the conda environment "+found(n.conda))
	case n.reqs != "":
		out = append(out, version+" with the packages of "+found(n.reqs))
	case n.python != "":
		out = append(out, version)
	}
	if n.reqs != "" && (n.lock != "" || n.project != "" || n.conda != "") {
		out = append(out, "packages of "+n.reqs)
	}
	for _, l := range n.locals {
		if l.editable {
			out = append(out, "local package "+l.path+" (editable)")
		} else {
			out = append(out, "local package "+l.path)
		}
	}
	if n.setup != "" {
		out = append(out, "a set-up script on each machine")
	}
	return slices.Clip(out), nil
}

// InstallError says that software could not be installed. It is the user's to
// mend: tasks fail with the cause "setup".
type InstallError struct {
	What   string // what was tried
	Output string // the last lines of what it printed
	Err    error
}

func (e *InstallError) Error() string {
	s := "software: " + e.What + ": " + e.Err.Error()
	if e.Output != "" {
		s += ":\n" + e.Output
	}
	return s
}

func (e *InstallError) Unwrap() error { return e.Err }

// IsInstall says whether an error is about the software itself, not about the
// store or the network to it.
func IsInstall(err error) bool {
	var e *InstallError
	return errors.As(err, &e)
}
