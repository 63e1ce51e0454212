package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// What may travel at most, unless Options say otherwise.
const (
	DefaultMaxBytes = 2 << 30
	DefaultMaxFiles = 200_000
)

// Options are the settings of Scan. The zero value is fine.
type Options struct {
	// MaxBytes and MaxFiles are what may travel at most; 0 is the default.
	MaxBytes int64
	MaxFiles int
	// CacheDir is a folder on this machine for what is remembered of earlier
	// scans and pushes: hashes of files that have not changed since, and where
	// contents lie in a store. "" remembers nothing.
	CacheDir string
	// Name is that of the pipeline. Versions that were pushed under the same
	// name, by anybody, share contents.
	Name string
	// Without, if set, leaves out more files; it says nothing about those in
	// extra. Items of maps are given here.
	Without func(path string) bool
}

// Scan finds the files beside a pipeline file that travel with the work, and
// reads them once.
//
// Without files.include these are the files that git tracks or does not
// ignore; where dir is no work tree of git, everything that its .gitignore
// files do not name. Caches and environments (__pycache__, .venv, node_modules,
// ...) do not travel unless git tracks them. With files.include only what
// matches travels, whether git ignores it or not. A pattern that matches a
// folder stands for everything in it. files.exclude always applies. Files that
// look like secrets are left out, and named in Manifest.Left, unless a pattern
// of files.include names them: ".env" or "certs/*.pem" do, "**" does not.
//
// extra are paths of files and folders, relative to dir, that travel in any
// case: what the pipeline names itself, such as a requirements file or the
// module of a python function. It is an error if one is not there.
//
// A symbolic link that stays in the folder travels as a link. One that leads to
// a file elsewhere travels as that file; one that leads to a folder elsewhere
// is an error, since nobody knows how large that is. Other things (sockets,
// devices) are ignored. Empty folders do not travel.
func Scan(ctx context.Context, dir string, files spec.Files, extra []string, opts Options) (*Manifest, error) {
	s, err := newScanner(dir, files, opts)
	if err != nil {
		return nil, err
	}
	if err := s.find(ctx); err != nil {
		return nil, err
	}
	if err := s.addExtra(ctx, extra); err != nil {
		return nil, err
	}
	if err := s.checkSize(); err != nil {
		return nil, err
	}
	m := &Manifest{Left: s.left, dir: s.dir, cache: opts.CacheDir, name: opts.Name}
	for _, e := range s.found {
		m.Entries = append(m.Entries, *e)
	}
	cache := openHashCache(opts.CacheDir, s.dir)
	if err := cache.hashAll(ctx, s.dir, m.Entries); err != nil {
		return nil, err
	}
	cache.save()
	m.Hash = hashEntries(m.Entries)
	slices.SortFunc(m.Left, func(a, b Left) int { return strings.Compare(a.Path, b.Path) })
	return m, nil
}

// candidate is a file that may travel.
type candidate struct {
	path    string
	tracked bool // git has it: it is no rubbish
}

type scanner struct {
	dir              string // absolute
	real             string // without links
	include, exclude *planner.Matcher
	excludeAll       bool
	opts             Options
	found            map[string]*Entry
	bytes            int64
	left             []Left
	looked           int // into files that may be keys
}

func newScanner(dir string, files spec.Files, opts Options) (*scanner, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, fmt.Errorf("folder of the pipeline file: %w", err)
	}
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.MaxFiles == 0 {
		opts.MaxFiles = DefaultMaxFiles
	}
	s := &scanner{dir: abs, real: real, opts: opts, found: map[string]*Entry{}}
	if len(files.Include) > 0 {
		if s.include, err = planner.NewMatcher(files.Include); err != nil {
			return nil, fmt.Errorf("files.include: %w", err)
		}
	}
	var exclude []string
	for _, p := range files.Exclude {
		// Everything below, hidden names too.
		p = strings.TrimRight(p, "/")
		if rest, ok := strings.CutSuffix(p, "/**"); ok && rest != "" {
			exclude = append(exclude, rest)
		}
		s.excludeAll = s.excludeAll || p == "**"
		exclude = append(exclude, p)
	}
	if s.exclude, err = planner.NewMatcher(exclude); err != nil {
		return nil, fmt.Errorf("files.exclude: %w", err)
	}
	return s, nil
}

// find fills found and left with what travels by rule.
func (s *scanner) find(ctx context.Context) error {
	take := func(c candidate) error { return s.consider(ctx, c) }
	if s.include != nil {
		return s.walk(ctx, "", &walkRules{enter: func(folder string) bool {
			return s.asked(folder) || s.include.MayContain(folder)
		}}, take)
	}
	list, ok, err := gitFiles(ctx, s.dir)
	if err != nil {
		return err
	}
	if !ok {
		return s.walk(ctx, "", &walkRules{ignore: true}, take)
	}
	for _, c := range list {
		if err := take(c); err != nil {
			return err
		}
	}
	return nil
}

// asked says whether files.include means a path.
func (s *scanner) asked(p string) bool { return means(s.include, p) }

// means says whether a pattern matches a path, or names a folder above it: a
// star at the end means files, so that hidden ones are not swept along.
func means(m *planner.Matcher, p string) bool {
	for i := 0; i < len(p); i++ {
		if p[i] == '/' && m.Named(p[:i]) {
			return true
		}
	}
	return m.Match(p)
}

// excluded says whether files.exclude means a path.
func (s *scanner) excluded(p string) bool { return s.excludeAll || means(s.exclude, p) }

// named says whether a pattern of files.include names a path by more than a
// star, at the given element or below it.
func (s *scanner) named(p string, element int) bool {
	if s.include == nil {
		return false
	}
	parts := strings.Split(p, "/")
	// A star never matches a leading dot: who reaches that wrote it.
	dot := strings.HasPrefix(parts[element], ".")
	for n := element + 1; n <= len(parts); n++ {
		q := strings.Join(parts[:n], "/")
		if s.include.Named(q) || dot && s.include.Match(q) {
			return true
		}
	}
	return false
}

// consider takes a candidate, or not.
func (s *scanner) consider(ctx context.Context, c candidate) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.include != nil && !s.asked(c.path) || s.excluded(c.path) {
		return nil
	}
	if i := junk(c.path); i >= 0 && !c.tracked && !s.named(c.path, i) {
		return nil
	}
	if s.opts.Without != nil && s.opts.Without(c.path) {
		return nil
	}
	if i, why := secret(c.path); i >= 0 && !s.named(c.path, i) {
		return s.leave(c.path, why)
	}
	if maySettings(c.path) && !s.named(c.path, strings.Count(c.path, "/")) && hasToken(s.abs(c.path)) {
		return s.leave(c.path, "a password or token is in it")
	}
	if mayKey(c.path) && s.looked < maybeKeys && !s.named(c.path, strings.Count(c.path, "/")) {
		s.looked++
		if hasKey(s.abs(c.path)) {
			return s.leave(c.path, "a private key is in it")
		}
	}
	return s.take(c.path, false)
}

// leave notes a file that was left out, if it is there.
func (s *scanner) leave(p, why string) error {
	if _, err := os.Lstat(s.abs(p)); err == nil {
		s.left = append(s.left, Left{Path: p, Why: why})
	}
	return nil
}

func (s *scanner) abs(p string) string { return filepath.Join(s.dir, filepath.FromSlash(p)) }

// take adds a file or link. asked says that the user named it.
func (s *scanner) take(p string, asked bool) error {
	if _, ok := s.found[p]; ok {
		return nil
	}
	name := s.abs(p)
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !asked:
		return nil // git tracks it, and it was deleted
	case err != nil:
		return fmt.Errorf("file that travels with the work: %w", err)
	}
	e := Entry{Path: p, Mode: info.Mode() & fs.ModePerm}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, follow, err := s.link(p, asked)
		if err != nil || target == "" && follow == nil {
			return err
		}
		if e.Link = target; target != "" {
			e.Mode = 0o777 // what systems say of links differs and means nothing
			return s.add(e)
		}
		info = follow
		e.Mode = info.Mode() & fs.ModePerm
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	if runtime.GOOS == "windows" {
		e.Mode = 0o755 // Windows does not know which files are programs
	}
	e.Size, e.stamp = info.Size(), stampOf(info)
	return s.add(e)
}

func (s *scanner) add(e Entry) error {
	s.found[e.Path] = &e
	s.bytes += e.Size
	if len(s.found) > s.opts.MaxFiles {
		return fmt.Errorf("more than %d files beside the pipeline file would travel with the work; most of them are below %s: "+
			"name what is needed in files.include, leave out the rest with files.exclude, or give the pipeline file a folder of its own",
			s.opts.MaxFiles, s.crowd())
	}
	return nil
}

// crowd names the folders with the most files.
func (s *scanner) crowd() string {
	count := map[string]int{}
	for p := range s.found {
		top, _, ok := strings.Cut(p, "/")
		if !ok {
			top = "."
		}
		count[top]++
	}
	return topOf(count, func(n int) string { return fmt.Sprintf("%d files", n) })
}

func topOf[N int | int64](count map[string]N, show func(N) string) string {
	names := make([]string, 0, len(count))
	for n := range count {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if count[a] != count[b] {
			if count[a] > count[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	if len(names) > 3 {
		names = names[:3]
	}
	for i, n := range names {
		names[i] = fmt.Sprintf("%s (%s)", printable(n), show(count[n]))
	}
	return strings.Join(names, ", ")
}

// printable is a path as people can read it.
func printable(p string) string {
	if q := fmt.Sprintf("%q", p); q != `"`+p+`"` {
		return q
	}
	return p
}

// link says what becomes of a symbolic link: a target, if it stays a link; the
// file it leads to, if that travels instead; neither, if it is left out.
func (s *scanner) link(p string, asked bool) (target string, follow fs.FileInfo, err error) {
	name := s.abs(p)
	text, err := os.Readlink(name)
	if err != nil {
		return "", nil, fmt.Errorf("file that travels with the work: %w", err)
	}
	text = filepath.ToSlash(text)
	real, err := filepath.EvalSymlinks(name)
	switch {
	case err != nil:
		// It leads nowhere, now: as a text it may still be meant.
		if linkStays(p, text) {
			return text, nil, nil
		}
		return "", nil, s.leave(p, "a link that leads out of the folder, to nothing")
	case within(s.real, real):
		if linkStays(p, text) && s.linkStaysOnDisk(p, text) {
			return text, nil, nil
		}
		// The same place, said from here.
		here, err := filepath.EvalSymlinks(filepath.Dir(name))
		if err != nil {
			return "", nil, err
		}
		if within(s.real, here) && s.dirIsPlain(p) {
			rel, err := filepath.Rel(here, real)
			if err == nil && linkStays(p, filepath.ToSlash(rel)) {
				return filepath.ToSlash(rel), nil, nil
			}
		}
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", nil, err
	}
	if info.IsDir() {
		if within(s.real, real) {
			return "", nil, s.leave(p, "a link that cannot be made anew in another place")
		}
		return "", nil, fmt.Errorf("%s is a link to %s, a folder outside of that of the pipeline file: copy what is needed, or leave it out with files.exclude",
			printable(p), printable(real))
	}
	if i, why := secret(strings.TrimPrefix(filepath.ToSlash(real), "/")); i >= 0 && !asked && !s.named(p, strings.Count(p, "/")) {
		return "", nil, s.leave(p, "a link to "+real+": "+why)
	}
	return "", info, nil
}

// dirIsPlain says that no folder above a path is a link.
func (s *scanner) dirIsPlain(p string) bool {
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if info, err := os.Lstat(s.abs(d)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// linkStaysOnDisk says that a link whose text stays in the folder does so when
// other links on its way are followed, too.
func (s *scanner) linkStaysOnDisk(p, text string) bool {
	at := path.Dir(p)
	for _, part := range strings.Split(text, "/") {
		at = path.Join(at, part)
		if at == "." {
			continue
		}
		if at == ".." || strings.HasPrefix(at, "../") {
			return false
		}
		real, err := filepath.EvalSymlinks(s.abs(at))
		if err != nil || !within(s.real, real) {
			return false
		}
	}
	return true
}

// within says whether a path is a folder or below it.
func within(folder, p string) bool {
	rel, err := filepath.Rel(folder, p)
	return err == nil && (rel == "." || filepath.IsLocal(rel))
}

// addExtra adds what the pipeline names itself.
func (s *scanner) addExtra(ctx context.Context, extra []string) error {
	for _, p := range extra {
		p = path.Clean(filepath.ToSlash(p))
		if p == "." {
			if err := s.walk(ctx, "", &walkRules{ignore: true}, func(c candidate) error { return s.consider(ctx, c) }); err != nil {
				return err
			}
			continue
		}
		if !localPath(p) {
			return fmt.Errorf("%s lies outside of the folder of the pipeline file, and only what is in it travels to machines", printable(p))
		}
		info, err := os.Stat(s.abs(p))
		if err != nil {
			return fmt.Errorf("file that the pipeline names: %w", err)
		}
		if !info.IsDir() {
			if err := s.take(p, true); err != nil {
				return err
			}
			continue
		}
		err = s.walk(ctx, p, &walkRules{ignore: true}, func(c candidate) error {
			if i, why := secret(c.path); i >= 0 {
				return s.leave(c.path, why)
			}
			if junk(c.path) >= 0 {
				return nil
			}
			return s.take(c.path, false)
		})
		if err != nil {
			return err
		}
	}
	// What was left out by rule may have been asked for.
	s.left = slices.DeleteFunc(s.left, func(l Left) bool { _, ok := s.found[l.Path]; return ok })
	slices.SortFunc(s.left, func(a, b Left) int { return strings.Compare(a.Path, b.Path) })
	s.left = slices.Compact(s.left)
	return nil
}

func (s *scanner) checkSize() error {
	if s.bytes <= s.opts.MaxBytes {
		return nil
	}
	size := map[string]int64{}
	for p, f := range s.found {
		size[p] = f.Size
	}
	return fmt.Errorf("the files beside the pipeline file are %s, more than the %s that travel at most; the largest are %s: "+
		"leave out with files.exclude what the work does not need, and read data from s3:// instead",
		spec.FormatSize(s.bytes), spec.FormatSize(s.opts.MaxBytes), topOf(size, spec.FormatSize))
}
