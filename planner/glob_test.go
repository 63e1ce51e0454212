package planner

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// listLocal is the paths that patterns find below dir, as they render.
func listLocal(t interface{ Fatalf(string, ...any) }, dir string, patterns, excludes []string) []string {
	segs := dirSegments(dir)
	g := &globs{}
	for i, p := range patterns {
		if err := g.add(segs, p, i, false); err != nil {
			t.Fatalf("pattern %q: %v", p, err)
		}
	}
	for _, p := range excludes {
		if err := g.add(segs, p, 0, true); err != nil {
			t.Fatalf("exclude %q: %v", p, err)
		}
	}
	var got []string
	err := walkLocal(context.Background(), g.include, g.exclude, make([]bool, len(patterns)), func(path []byte, pat int, _, _ int64) error {
		got = append(got, string(g.local[pat].renderer(segs).render(nil, path)))
		return nil
	})
	if err != nil {
		t.Fatalf("list %q: %v", patterns, err)
	}
	return got
}

func writeTree(t interface{ Fatalf(string, ...any) }, dir string, files ...string) {
	for _, f := range files {
		full := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(full), 0o777); err != nil {
			t.Fatalf("%v", err)
		}
		if err := os.WriteFile(full, []byte(f), 0o666); err != nil {
			t.Fatalf("%v", err)
		}
	}
}

func TestGlobLocal(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "pro[j]ect")
	writeTree(t, root, "shared/s.csv", "pro[j]ect/a.csv", "pro[j]ect/b.txt", "pro[j]ect/.hidden.csv", "pro[j]ect/a/1.csv",
		"pro[j]ect/a.b/2.csv", "pro[j]ect/a-b/3.csv", "pro[j]ect/deep/x/y/4.csv", "pro[j]ect/deep/5.csv", "pro[j]ect/.git/6.csv",
		"pro[j]ect/odd/with space.csv", "pro[j]ect/odd/new\nline.csv", "pro[j]ect/odd/-dash.csv", "pro[j]ect/odd/\xff\xfe.csv",
		"pro[j]ect/odd/[x].csv", "pro[j]ect/odd/{y}.csv", "pro[j]ect/odd/*.csv", "pro[j]ect/odd/é.csv", `pro[j]ect/odd/back\slash.csv`)
	for link, to := range map[string]string{"link.csv": "a.csv", "dangling.csv": "nowhere", "loop.csv": "loop.csv", "linkdir": "deep", "deep/up": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name     string
		patterns []string
		excludes []string
		want     []string
	}{
		{"star does not match a leading dot, links to files are items", []string{"*.csv"}, nil, []string{"a.csv", "link.csv"}},
		{"a dot that is written matches", []string{".*.csv"}, nil, []string{".hidden.csv"}},
		{"** matches no folder too, skips hidden ones and links, whole paths in order", []string{"**/*.csv"}, []string{"odd/**"},
			[]string{"a-b/3.csv", "a.b/2.csv", "a.csv", "a/1.csv", "deep/5.csv", "deep/x/y/4.csv", "link.csv"}},
		{"** at the end is every file", []string{"deep/**"}, nil, []string{"deep/5.csv", "deep/x/y/4.csv"}},
		{"a link to a folder is followed when a segment names it", []string{"linkdir/*.csv", "link*/x/y/*"}, nil, []string{"linkdir/5.csv", "linkdir/x/y/4.csv"}},
		{"braces, nested", []string{"{a,{a.b,a-b}}/?.csv"}, nil, []string{"a-b/3.csv", "a.b/2.csv", "a/1.csv"}},
		{"braces across a slash", []string{"{deep/x/y,a}/*"}, nil, []string{"a/1.csv", "deep/x/y/4.csv"}},
		{"classes", []string{"a/[0-9].csv", "a/[!0-9].csv", "a.b/[^3].csv"}, nil, []string{"a.b/2.csv", "a/1.csv"}},
		{"an item found twice counts once", []string{"a/*.csv", "a/1.csv", "./a/../a/[1].csv"}, nil, []string{"a/1.csv"}},
		{"up", []string{"../shared/*.csv"}, nil, []string{"../shared/s.csv"}},
		{"up to a folder with special characters", []string{"../pro[[]j]ect/a.csv"}, nil, []string{"../pro[j]ect/a.csv"}},
		{"absolute", []string{root + "/shared/*"}, nil, []string{root + "/shared/s.csv"}},
		{"literal path", []string{"b.txt"}, nil, []string{"b.txt"}},
		{"no match", []string{"*.nope"}, nil, nil},
		{"a folder is no item", []string{"a", "deep"}, nil, nil},
		{"a file is no folder", []string{"a.csv/*", "b.txt/x"}, nil, nil},
		{"odd names", []string{"odd/*"}, nil, []string{"odd/*.csv", "odd/-dash.csv", "odd/[x].csv", `odd/back\slash.csv`, "odd/new\nline.csv",
			"odd/with space.csv", "odd/{y}.csv", "odd/é.csv", "odd/\xff\xfe.csv"}},
		{"special characters as themselves", []string{"odd/[[]x].csv", "odd/[{]y}.csv", "odd/[*].csv", `odd/back\*.csv`}, nil,
			[]string{"odd/*.csv", "odd/[x].csv", `odd/back\slash.csv`, "odd/{y}.csv"}},
		{"? is one character, or one byte that is not UTF-8", []string{"odd/?.csv", "odd/??.csv"}, []string{"odd/[*].csv"}, []string{"odd/é.csv", "odd/\xff\xfe.csv"}},
		{"exclude by an absolute pattern", []string{"*.csv"}, []string{dir[:len(root)] + "/pro[[]j]ect/l*"}, []string{"a.csv"}},
		{"excluding ** keeps hidden names that are asked for", []string{".git/*", "**/.hidden.csv"}, []string{"**"}, []string{".git/6.csv", ".hidden.csv"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := listLocal(t, dir, tt.patterns, tt.excludes)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("patterns %q (-want +got):\n%s", tt.patterns, diff)
			}
		})
	}
}

func TestGlobUnreadableFolder(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root may read every folder")
	}
	dir := t.TempDir()
	writeTree(t, dir, "open/a", "shut/b")
	if err := os.Chmod(filepath.Join(dir, "shut"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "shut"), 0o777) })
	g := &globs{}
	if err := g.add(dirSegments(dir), "**", 0, false); err != nil {
		t.Fatal(err)
	}
	err := walkLocal(t.Context(), g.include, nil, []bool{false}, func([]byte, int, int64, int64) error { return nil })
	if err == nil {
		t.Error("a folder that cannot be read must be an error: its files would be missing silently")
	}
	if got := listLocal(t, dir, []string{"**"}, []string{"shut/**"}); !slices.Equal(got, []string{"open/a"}) {
		t.Errorf("with the folder excluded: %q", got)
	}
}

func TestPatternErrors(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"":                              "is empty",
		"data/":                         "folders are not items",
		".":                             "folders are not items",
		"*/../x":                        "behind a wildcard",
		"a\x00b":                        "NUL",
		"gs://bucket/x":                 "not gs://",
		"s3:///key":                     "must name its bucket",
		"s3://b*/key":                   "must name its bucket",
		"s3://bucket":                   "buckets are not items; add /* or /**",
		"s3://bucket/x/":                "add * or **",
		strings.Repeat("{a,b}", 13):     "more than 4096 patterns",
		strings.Repeat("x", 9000):       "longer than",
		strings.Repeat("{a,b}x/", 1000): "more than 4096 patterns",
	} {
		err := (&globs{}).add(dirSegments("/p"), pattern, 0, false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pattern %.40q: got error %v, want one with %q", pattern, err, want)
		}
	}
}

// naive is the meaning of patterns, written for clarity: every file under
// dir, in the order of paths, that one of the patterns matches as a regular
// expression. follow says whether folders that are links are entered.
func naive(t *rapid.T, dir string, patterns []string) []string {
	var res []*regexp.Regexp
	for _, p := range patterns {
		alts, err := expandBraces(p)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for _, alt := range alts {
			res = append(res, naiveRegexp(alt))
		}
	}
	var got []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, dir+"/")
		if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
			return nil
		}
		if slices.ContainsFunc(res, func(re *regexp.Regexp) bool { return re.MatchString(runes(rel)) }) {
			got = append(got, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	slices.Sort(got)
	return got
}

// runes makes bytes that are not UTF-8 characters of a private range, so that
// a regular expression sees one character for each.
func runes(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, w := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && w == 1 {
			r = 0x100000 + rune(s[i])
		}
		b.WriteRune(r)
		i += w
	}
	return b.String()
}

func naiveRegexp(p string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("(?s)^")
	segs := strings.Split(p, "/")
	for i, s := range segs {
		last := i == len(segs)-1
		if s == "**" {
			b.WriteString(`([^./][^/]*/)*`)
			if last {
				b.WriteString(`[^./][^/]*`)
			}
			continue
		}
		// A wildcard at the start does not match a dot: Go has no lookahead, so
		// the first wildcard is written out.
		first := true
		for j := 0; j < len(s); j++ {
			c, any := s[j], `[^/]`
			if first {
				any = `[^./]`
			}
			switch c {
			case '*':
				for j+1 < len(s) && s[j+1] == '*' {
					j++
				}
				if rest := s[j+1:]; first {
					// Either it takes something, or what follows stands at the start.
					b.WriteString(`(` + any + `[^/]*` + naiveSegment(rest, false) + `|` + naiveSegment(rest, true) + `)`)
					j = len(s)
					continue
				}
				b.WriteString(`[^/]*`)
			default:
				part := naiveSegment(s[j:], first)
				b.WriteString(part)
				j = len(s)
			}
			first = false
		}
		if !last {
			b.WriteByte('/')
		}
	}
	b.WriteByte('$')
	return regexp.MustCompile(b.String())
}

// naiveSegment is a segment as a regular expression; a wildcard at the start
// does not match a dot, and neither does a literal one behind a star.
func naiveSegment(s string, start bool) string {
	var b strings.Builder
	for j := 0; j < len(s); j++ {
		switch c := s[j]; {
		case c == '*':
			rest := strings.TrimLeft(s[j:], "*")
			if start {
				return b.String() + `([^./][^/]*` + naiveSegment(rest, false) + `|` + naiveSegment(rest, true) + `)`
			}
			b.WriteString(`[^/]*`)
		case c == '?' && start:
			b.WriteString(`[^./]`)
		case c == '?':
			b.WriteString(`[^/]`)
		case c == '[' && strings.HasPrefix(s[j:], "[ab]"):
			b.WriteString(`[ab]`)
			j += 3
		case c == '[' && strings.HasPrefix(s[j:], "[!a]"):
			b.WriteString(map[bool]string{true: `[^a./]`, false: `[^a/]`}[start])
			j += 3
		default:
			b.WriteString(regexp.QuoteMeta(runes(s[j : j+1])))
		}
		start = false
	}
	return b.String()
}

func TestGlobIsTheNaiveOne(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		name := rapid.StringMatching(`[ab.\-]{1,3}`).Filter(func(s string) bool { return s != "." && s != ".." })
		odd := rapid.SampledFrom([]string{"\xff", "é", "a b", "a\nb", "[", "*", "aa\xfe"})
		element := rapid.OneOf(name, name, name, odd)
		for range rapid.IntRange(1, 12).Draw(t, "files") {
			parts := rapid.SliceOfN(element, 1, 4).Draw(t, "path")
			path := filepath.Join(append([]string{dir}, parts...)...)
			if os.MkdirAll(filepath.Dir(path), 0o777) != nil {
				continue // a file lies where a folder should be
			}
			if rapid.IntRange(0, 5).Draw(t, "link") == 0 {
				os.Symlink(dir, path)
				continue
			}
			os.WriteFile(path, nil, 0o666)
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatalf("%v", err)
		}
		segment := rapid.OneOf(rapid.Just("**"), rapid.Just("*"), rapid.StringMatching(`([ab.\-*?]|\[ab\]|\[!a\]){1,4}`),
			rapid.Just("{a,b*}"), rapid.Just("{,a}b"), rapid.Just("{a/b,*}")).
			Filter(func(s string) bool {
				return s != "." && s != ".." && strings.Trim(s, "*") != "" || s == "*" || s == "**"
			})
		pattern := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, "segments"), "/")
		})
		patterns := rapid.SliceOfN(pattern, 1, 3).Draw(t, "patterns")
		// The reference does not enter links to folders.
		walkable := !hasDirLink(dir)
		if !walkable {
			patterns = []string{"**/" + strings.Repeat("*", rapid.IntRange(1, 2).Draw(t, "stars"))}
		}
		want, got := naive(t, dir, patterns), listLocal(t, dir, patterns, nil)
		if !slices.Equal(want, got) {
			t.Fatalf("patterns %q:\nwant %q\ngot  %q", patterns, want, got)
		}
	})
}

func hasDirLink(dir string) bool {
	found := false
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			fi, err := os.Stat(path)
			found = found || err == nil && fi.IsDir()
		}
		return nil
	})
	return found
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{"*.csv", "{a,b{c,d}}/**/[!x-z]?", "[", "{", "[]]", "[!]", "{a,[}]}", "**/**", "s3://b/**", "../*", "a//b", "\xff*"} {
		f.Add(s, "a/b.csv")
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		g := &globs{}
		if g.add(dirSegments("/p"), pattern, 0, false) != nil {
			return
		}
		g.include.match(path)
		for _, b := range g.buckets {
			ok := b.include.match(path)
			inRoot := slices.ContainsFunc(roots(b.include), func(r cloud.S3Root) bool {
				return r.Prefix == path || !r.Exact && strings.HasPrefix(path, r.Prefix)
			})
			if ok && !inRoot {
				t.Errorf("pattern %q matches %q, which is not below its roots", pattern, path)
			}
			for i := range path {
				if ok && path[i] == '/' && b.folder(path[:i+1]) == cloud.FolderNone {
					t.Errorf("pattern %q matches %q, but not its folder %q", pattern, path, path[:i+1])
				}
			}
		}
	})
}

func TestRoots(t *testing.T) {
	t.Parallel()
	tests := []struct {
		patterns []string
		want     []cloud.S3Root
	}{
		{[]string{"s3://b/data/x*.csv"}, []cloud.S3Root{{Prefix: "data/x"}}},
		{[]string{"s3://b/data/*/y.csv"}, []cloud.S3Root{{Prefix: "data/"}}},
		{[]string{"s3://b/**"}, []cloud.S3Root{{}}},
		{[]string{"s3://b/a/b.csv"}, []cloud.S3Root{{Prefix: "a/b.csv", Exact: true}}},
		{[]string{"s3://b/{2020,2019}/*"}, []cloud.S3Root{{Prefix: "2019/"}, {Prefix: "2020/"}}},
		{[]string{"s3://b/a/*", "s3://b/a/b/*", "s3://b/a/c"}, []cloud.S3Root{{Prefix: "a/"}}},
		{[]string{"s3://b/a", "s3://b/ab*", "s3://b/a"}, []cloud.S3Root{{Prefix: "a", Exact: true}, {Prefix: "ab"}}},
		{[]string{"s3://b//x", "s3://b/ sp ace/*"}, []cloud.S3Root{{Prefix: " sp ace/"}, {Prefix: "/x", Exact: true}}},
	}
	for _, tt := range tests {
		g := &globs{}
		for i, p := range tt.patterns {
			if err := g.add(nil, p, i, false); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(tt.want, roots(g.buckets[0].include)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.patterns, diff)
		}
	}
}
