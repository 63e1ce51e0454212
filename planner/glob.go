package planner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// globs is the patterns of a map, compiled.
type globs struct {
	texts   []string // as evaluated
	at      []spec.Pos
	local   []localPattern
	include nfa // of local
	exclude nfa
	buckets []*bucketGlobs // in the order of their paths
}

// bucketGlobs is the patterns of one bucket.
type bucketGlobs struct {
	name             string
	include, exclude nfa
}

func (g *globs) bucket(name string) *bucketGlobs {
	i, ok := slices.BinarySearchFunc(g.buckets, name, func(b *bucketGlobs, name string) int {
		return strings.Compare(b.name+"/", name+"/")
	})
	if !ok {
		g.buckets = slices.Insert(g.buckets, i, &bucketGlobs{name: name})
	}
	return g.buckets[i]
}

// glob is the files that match, in the order of their paths.
func (x *expander) glob(m *spec.Map, to sink) error {
	g, dir, err := x.compile(m)
	if err != nil {
		return err
	}
	found := make([]bool, len(g.texts))
	// What comes from one place comes in order.
	oneKind := len(g.local) == 0 || len(g.buckets) == 0 && !slices.ContainsFunc(g.local, func(p localPattern) bool {
		return p.abs != g.local[0].abs || p.up != g.local[0].up
	})
	var sorted *sorter
	if !oneKind {
		sorted = &sorter{dir: x.dir(), by: "name", next: to}
		to = sorted
	}
	if len(g.local) > 0 {
		if err := x.globLocal(g, dir, found, to); err != nil {
			return err
		}
	}
	for _, b := range g.buckets {
		if len(b.include) > 0 {
			if err := x.globBucket(m, b, found, to); err != nil {
				return err
			}
		}
	}
	if !m.AllowEmpty {
		var problems spec.Problems
		for i, ok := range found {
			if !ok {
				problems = append(problems, x.noMatch(m, g.at[i], g.texts[i])...)
			}
		}
		if len(problems) > 0 {
			return problems
		}
	}
	if sorted != nil {
		return sorted.drain()
	}
	return nil
}

// compile evaluates and compiles the patterns of a map.
func (x *expander) compile(m *spec.Map) (*globs, []segment, error) {
	g := &globs{}
	dir := dirSegments(x.in.Dir)
	var problems spec.Problems
	add := func(t *spec.Template, exclude bool) {
		what := "pattern"
		if exclude {
			what = "exclude"
		}
		trouble := func(text string, err error) {
			var ps spec.Problems
			errors.As(x.problem(t.Pos, m.Form, "%s %q: %v", what, text, err), &ps)
			problems = append(problems, ps...)
		}
		texts, err := t.Texts(x.env)
		if err != nil {
			trouble("", err)
		}
		for _, text := range texts {
			if err := g.add(dir, text, len(g.texts), exclude); err != nil {
				trouble(text, err)
			}
			if !exclude {
				g.texts = append(g.texts, text)
				g.at = append(g.at, t.Pos)
			}
		}
	}
	for _, t := range m.Glob {
		add(t, false)
	}
	for _, t := range m.Exclude {
		add(t, true)
	}
	if len(g.texts) == 0 && len(problems) == 0 && !m.AllowEmpty {
		return nil, nil, x.problem(m.Pos, m.Form, "the list of patterns is empty; if that is fine, set allow_empty: true")
	}
	if len(problems) > 0 {
		return nil, nil, problems
	}
	return g, dir, nil
}

func (g *globs) add(dir []segment, text string, src int, exclude bool) error {
	if text == "" {
		return errors.New("is empty")
	}
	if strings.IndexByte(text, 0) >= 0 {
		return errors.New("has a NUL byte, which no file name can")
	}
	alts, err := expandBraces(text)
	if err != nil {
		return err
	}
	for _, alt := range alts {
		scheme, rest, ok := strings.Cut(alt, "://")
		switch {
		case ok && scheme == "s3":
			bucket, key, _ := strings.Cut(rest, "/")
			if bucket == "" || strings.ContainsAny(bucket, "*?[") {
				return errors.New("must name its bucket: s3://bucket/key")
			}
			if key == "" {
				return errors.New("names a bucket, but buckets are not items; add /* or /** for the objects in it")
			}
			if strings.HasSuffix(key, "/") {
				return errors.New("ends in a slash, but folders are not items; add * or ** for the objects in it")
			}
			b := g.bucket(bucket)
			p := newPattern(strings.Split(key, "/"), src)
			if exclude {
				b.exclude = append(b.exclude, p)
			} else {
				b.include = append(b.include, p)
			}
		case ok && !strings.ContainsAny(scheme, "/*?["):
			return fmt.Errorf("only files and s3:// can be listed, not %s://", scheme)
		default:
			p, err := newLocalPattern(dir, alt, src)
			if err != nil {
				return err
			}
			if exclude {
				g.exclude = append(g.exclude, p.pat)
				continue
			}
			g.local = append(g.local, p)
			g.include = append(g.include, p.pat)
		}
	}
	return nil
}

func (x *expander) globLocal(g *globs, dir []segment, found []bool, to sink) error {
	render := make([]renderer, len(g.local))
	for i := range g.local {
		render[i] = g.local[i].renderer(dir)
	}
	var e fileEntry
	err := walkLocal(x.ctx, g.include, g.exclude, found, func(path []byte, pat int, size, mtime int64) error {
		e.path = render[pat].render(e.path[:0], path)
		e.size, e.mtime = size, mtime
		return to.file(&e)
	})
	var pe *fs.PathError
	if errors.As(err, &pe) && errors.Is(err, fs.ErrPermission) {
		path := strings.TrimPrefix(pe.Path, x.dir())
		return x.trouble(spec.FormGlob, fmt.Errorf("%s %s: %w; to leave it out: exclude: %q", pe.Op, path, pe.Err,
			strings.TrimSuffix(path, "/")+"/**"))
	}
	if errors.As(err, &pe) {
		return x.trouble(spec.FormGlob, err)
	}
	return err
}

func (x *expander) globBucket(m *spec.Map, b *bucketGlobs, found []bool, to sink) error {
	s3, err := x.client()
	if err != nil {
		return x.trouble(m.Form, err)
	}
	q := cloud.S3Query{
		Roots: roots(b.include),
		Match: func(key string) bool {
			return !strings.HasSuffix(key, "/") && b.include.match(key) && !b.exclude.match(key)
		},
		Folder: b.folder,
	}
	var stopped error
	e := fileEntry{}
	prefix := s3Scheme + b.name + "/"
	err = s3.List(x.ctx, x.location(m, b.name), q, func(o S3Object) error {
		if len(b.include) > 1 {
			ss, name := b.include.walk(o.Key)
			b.include.hits(ss, name, found)
		} else {
			found[b.include[0].src] = true
		}
		if strings.IndexByte(o.Key, 0) >= 0 {
			stopped = x.problem(m.Pos, m.Form, "the key %q has a NUL byte, which no program can be given; exclude it", o.Key)
			return stopped
		}
		e.path = append(append(e.path[:0], prefix...), o.Key...)
		e.size, e.etag, e.mtime = o.Size, o.ETag, noTime
		if !o.Modified.IsZero() {
			e.mtime = o.Modified.UnixNano()
		}
		stopped = to.file(&e)
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	if err != nil {
		return x.trouble(m.Form, err)
	}
	return nil
}

// folder says what to expect below a folder of the bucket.
func (b *bucketGlobs) folder(folder string) cloud.FolderMatch {
	f := b.include.below(folder)
	if f != cloud.FolderNone && len(b.exclude) > 0 {
		// As for local folders: what is excluded as a whole is not listed,
		// unless hidden names below it could still match.
		if ss, _ := b.exclude.walk(folder); b.exclude.swallows(ss) && !b.include.hidden() {
			return cloud.FolderNone
		}
	}
	return f
}

// roots is the prefixes to list: sorted, none of them below another.
func roots(pats nfa) []cloud.S3Root {
	var all []cloud.S3Root
	for i := range pats {
		prefix, exact := pats[i].prefix()
		all = append(all, cloud.S3Root{Prefix: prefix, Exact: exact})
	}
	slices.SortFunc(all, func(a, b cloud.S3Root) int {
		if c := strings.Compare(a.Prefix, b.Prefix); c != 0 {
			return c
		}
		if a.Exact == b.Exact {
			return 0
		} else if b.Exact {
			return -1
		}
		return 1
	})
	kept := all[:0]
	for _, r := range all {
		if n := len(kept); n > 0 {
			last := kept[n-1]
			if r == last || !last.Exact && strings.HasPrefix(r.Prefix, last.Prefix) {
				continue
			}
		}
		kept = append(kept, r)
	}
	return kept
}

// noMatch is the problem of a pattern that matches nothing.
func (x *expander) noMatch(m *spec.Map, at spec.Pos, text string) spec.Problems {
	problem := func(format string, args ...any) spec.Problems {
		var ps spec.Problems
		errors.As(x.problem(at, m.Form, format, args...), &ps)
		return ps
	}
	msg := fmt.Sprintf("no file matches %q", text)
	if p, err := expandBraces(text); err == nil && len(p) == 1 && !newPatternOf(text).magic() {
		msg = fmt.Sprintf("there is no file %q", text)
	}
	if !strings.HasPrefix(text, s3Scheme) {
		msg += x.missingFolder(text)
		if fi, err := os.Stat(x.absolutePath(text)); err == nil && fi.IsDir() {
			return problem("%q is a folder, and folders are not items; add /* or /** for the files in it", text)
		}
		if _, err := os.Lstat(x.absolutePath(text)); err == nil && strings.ContainsAny(text, "*?[{") {
			msg += "; a file has exactly this name: write [[], [*], [?] or [{] for a special character that stands for itself"
		}
	}
	if len(m.Exclude) > 0 {
		msg += " and is not excluded"
	}
	return problem("%s; if that is fine, set allow_empty: true", msg)
}

func newPatternOf(text string) *pattern {
	p := newPattern(strings.Split(text, "/"), 0)
	return &p
}

func (x *expander) absolutePath(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return x.dir() + path
}

// missingFolder names the first folder of a pattern that does not exist.
func (x *expander) missingFolder(text string) string {
	if strings.Contains(text, "{") {
		return ""
	}
	parts := strings.Split(text, "/")
	for i, part := range parts[:len(parts)-1] {
		if parseIsMagic(part) {
			return ""
		}
		if part == "" {
			continue
		}
		folder := strings.Join(parts[:i+1], "/")
		if _, err := os.Stat(x.absolutePath(folder)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Sprintf(": there is no folder %s", folder)
		}
	}
	return ""
}
