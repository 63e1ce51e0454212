package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// CodeOf finds the code of a function: its Python module or the program files
// that its text names (scripts and binaries, never data), the local modules
// and scripts that these use, and the files of its cache setting.
//
// The hash is "" if there are none; files has the hash of each by its path
// below the folder.
func CodeOf(f *spec.Function, dir string) (hash string, files map[string]string, err error) {
	s := &codeSearch{dir: dir, files: map[string]string{}}
	switch {
	case f.Python != nil:
		if strings.HasSuffix(f.Python.Module, ".py") || strings.Contains(f.Python.Module, "/") {
			s.program(f.Python.Module)
		} else {
			s.module(f.Python.Module, "")
		}
	case f.Run != nil:
		for _, w := range f.Run.Shell {
			s.program(w)
		}
		s.words(f.Run.Source, "")
	default:
		for i, v := range f.Command {
			if v.Template != nil {
				continue
			}
			s.program(v.Source)
			if i > 0 && f.Command[i-1].Source == "-m" {
				s.module(v.Source, "")
			}
		}
	}
	if f.Cache != nil {
		for _, p := range f.Cache.Files {
			if err := s.pattern(p); err != nil {
				return "", nil, err
			}
		}
	}
	if s.err != nil {
		return "", nil, s.err
	}
	if len(s.files) == 0 {
		return "", s.files, nil
	}
	h := sha256.New()
	for _, name := range sortedKeys(s.files) {
		_, _ = fmt.Fprintf(h, "%q %s\n", name, s.files[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), s.files, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// maxParsed is how large a program may be to be searched for others.
const maxParsed = 1 << 20

type codeSearch struct {
	dir   string
	files map[string]string
	err   error
}

// programExts are the extensions of files that are run, not read.
var programExts = map[string]bool{
	".py": true, ".sh": true, ".bash": true, ".zsh": true, ".r": true, ".jl": true, ".js": true, ".mjs": true,
	".cjs": true, ".ts": true, ".pl": true, ".rb": true, ".lua": true, ".php": true, ".awk": true, ".sed": true,
	".sql": true, ".jar": true, ".go": true, ".ipynb": true, ".m": true, ".do": true, ".sas": true, ".tcl": true,
}

// program adds a file that a text names, if it is one and is a program.
func (s *codeSearch) program(word string) {
	if word == "" || strings.HasPrefix(word, "-") {
		return
	}
	rel := word
	if filepath.IsAbs(rel) {
		var err error
		if rel, err = filepath.Rel(s.dir, rel); err != nil {
			return
		}
	}
	rel = filepath.Clean(rel)
	if !filepath.IsLocal(rel) {
		return
	}
	info, err := os.Stat(filepath.Join(s.dir, rel))
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	if programExts[strings.ToLower(filepath.Ext(rel))] || info.Mode()&0o111 != 0 || s.hasShebang(rel) {
		s.add(rel)
	}
}

func (s *codeSearch) hasShebang(rel string) bool {
	f, err := os.Open(filepath.Join(s.dir, rel))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var b [2]byte
	_, err = io.ReadFull(f, b[:])
	return err == nil && string(b[:]) == "#!"
}

// add hashes a file and looks into it for others.
func (s *codeSearch) add(rel string) {
	if _, ok := s.files[rel]; ok || s.err != nil {
		return
	}
	f, err := os.Open(filepath.Join(s.dir, rel))
	if err != nil {
		s.err = fmt.Errorf("read the code: %w", err)
		return
	}
	defer func() { _ = f.Close() }()
	var head bytes.Buffer
	h := sha256.New()
	if _, err = io.Copy(h, io.TeeReader(io.LimitReader(f, maxParsed), &head)); err == nil {
		_, err = io.Copy(h, f)
	}
	if err != nil {
		s.err = fmt.Errorf("read the code: %w", err)
		return
	}
	s.files[rel] = hex.EncodeToString(h.Sum(nil)[:16])
	text := head.Bytes()
	python := filepath.Ext(rel) == ".py" || bytes.HasPrefix(text, []byte("#!")) && bytes.Contains(firstLine(text), []byte("python"))
	switch {
	case python:
		s.imports(string(text), filepath.Dir(rel))
	case bytes.HasPrefix(text, []byte("#!")) || strings.HasSuffix(rel, ".sh") || strings.HasSuffix(rel, ".bash"):
		s.words(string(text), filepath.Dir(rel))
	}
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}

// words adds the programs that a script names.
func (s *codeSearch) words(text, near string) {
	words := strings.FieldsFunc(text, func(r rune) bool {
		return strings.ContainsRune(" \t\r\n\"'`;|&()<>={}$,", r)
	})
	seen := map[string]bool{}
	for i, w := range words {
		if i > 0 && words[i-1] == "-m" {
			s.module(w, near)
		}
		if seen[w] {
			continue
		}
		seen[w] = true
		s.program(w)
		if near != "" && near != "." && !filepath.IsAbs(w) {
			s.program(filepath.Join(near, w))
		}
	}
}

var (
	importLine = regexp.MustCompile(`(?m)^[ \t]*(?:import[ \t]+([^\n#;]+)|from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]+))`)
	importCall = regexp.MustCompile(`import_module\(\s*["']([\w.]+)["']`)
	comment    = regexp.MustCompile(`#[^\n]*`)
)

// imports adds the local modules that a Python file imports.
func (s *codeSearch) imports(text, near string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for _, m := range importLine.FindAllStringSubmatch(text, -1) {
		if m[1] != "" {
			for _, name := range strings.Split(m[1], ",") {
				name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
				s.module(name, near)
			}
			continue
		}
		from, base := m[2], near
		dots := len(from) - len(strings.TrimLeft(from, "."))
		if dots > 0 {
			for range dots - 1 {
				base = filepath.Dir(base)
			}
			from = from[dots:]
		}
		if from != "" {
			s.module(from, base)
		}
		for _, name := range strings.Split(strings.Trim(comment.ReplaceAllString(m[3], ""), "() \t\n"), ",") {
			name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
			switch {
			case name == "" || name == "*":
			case from == "":
				s.moduleIn(base, name)
			default:
				s.module(from+"."+name, base)
			}
		}
	}
	for _, m := range importCall.FindAllStringSubmatch(text, -1) {
		s.module(m[1], near)
	}
}

// module adds a module if it lies in the folder: seen from the file that
// imports it, or from the top.
func (s *codeSearch) module(name, near string) {
	if near != "" && near != "." {
		s.moduleIn(near, name)
	}
	s.moduleIn("", name)
}

// moduleIn adds a module and the packages above it.
func (s *codeSearch) moduleIn(base, name string) {
	at := base
	for _, part := range strings.Split(name, ".") {
		if part == "" {
			return
		}
		at = path.Join(at, part)
		if !filepath.IsLocal(at) {
			return
		}
		for _, file := range []string{at + ".py", at + "/__init__.py", at + "/__main__.py"} {
			if info, err := os.Stat(filepath.Join(s.dir, file)); err == nil && info.Mode().IsRegular() {
				s.add(file)
			}
		}
	}
}

// pattern adds the files of cache.files.
func (s *codeSearch) pattern(p string) error {
	found := false
	err := eachMatch(s.dir, p, func(rel string) {
		found = true
		s.add(rel)
	})
	if err == nil && !found {
		err = errors.New("no such file")
	}
	if err != nil {
		return fmt.Errorf("cache.files: %q: %w", p, err)
	}
	return nil
}

// eachMatch calls fn for the files below dir that a pattern with *, ?, [] and
// ** names; a folder stands for everything in it.
func eachMatch(dir, pattern string, fn func(rel string)) error {
	pattern = path.Clean(pattern)
	if !filepath.IsLocal(pattern) {
		return errors.New("it must be a relative path below the pipeline file")
	}
	want := strings.Split(pattern, "/")
	if _, err := path.Match(strings.ReplaceAll(pattern, "**", "*"), ""); err != nil {
		return err
	}
	start := 0
	for start < len(want)-1 && !strings.ContainsAny(want[start], `*?[\`) {
		start++
	}
	top := filepath.Join(append([]string{dir}, want[:start]...)...)
	return filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "__pycache__" {
				return filepath.SkipDir
			}
			return nil
		}
		parts := strings.Split(rel, string(filepath.Separator))
		if matchParts(want, parts) {
			if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
				fn(rel)
			}
		}
		return nil
	})
}

// matchParts matches a path, or one of the folders above it.
func matchParts(want, parts []string) bool {
	if len(want) == 0 {
		return true
	}
	if want[0] == "**" {
		for i := 0; i <= len(parts); i++ {
			if i < len(parts) && matchParts(want[1:], parts[i:]) {
				return true
			}
		}
		return len(want) == 1
	}
	if len(parts) == 0 {
		return false
	}
	ok, _ := path.Match(want[0], parts[0])
	return ok && matchParts(want[1:], parts[1:])
}

// codeBook computes the code of each function once per run.
type codeBook struct {
	p   *spec.Pipeline
	dir string
	mu  sync.Mutex
	by  map[string]codeEntry
}

type codeEntry struct {
	hash  string
	files map[string]string
	err   error
}

func newCodeBook(p *spec.Pipeline, dir string) *codeBook {
	return &codeBook{p: p, dir: dir, by: map[string]codeEntry{}}
}

func (b *codeBook) of(fn string) codeEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.by[fn]
	if !ok {
		f := b.p.Function(fn)
		if f == nil {
			return codeEntry{err: fmt.Errorf("the pipeline has no function %q", fn)}
		}
		e.hash, e.files, e.err = CodeOf(f, b.dir)
		b.by[fn] = e
	}
	return e
}
