package planner

import (
	"errors"
	"fmt"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Matcher matches paths relative to a folder against patterns in the language
// of maps. It looks at no files.
type Matcher struct {
	all, named nfa // named: those that do not end in a mere star
}

// NewMatcher compiles patterns. They must be relative and stay in the folder.
// A slash at the end is ignored.
func NewMatcher(patterns []string) (*Matcher, error) {
	m := &Matcher{}
	for src, text := range patterns {
		bad := func(err error) error { return fmt.Errorf("pattern %q: %w", text, err) }
		switch {
		case text == "":
			return nil, errors.New("a pattern is empty")
		case strings.IndexByte(text, 0) >= 0:
			return nil, bad(errors.New("has a NUL byte, which no file name can"))
		}
		alts, err := expandBraces(text)
		if err != nil {
			return nil, bad(err)
		}
		for _, alt := range alts {
			abs, up, segs, err := splitLocal(strings.TrimRight(alt, "/"))
			switch {
			case err != nil:
				return nil, bad(err)
			case abs || up > 0:
				return nil, bad(errors.New("leads out of the folder of the pipeline file; it must be relative and stay in it"))
			}
			p := newPattern(segs, src)
			m.all = append(m.all, p)
			if !p.segs[len(p.segs)-1].plainStar() {
				m.named = append(m.named, p)
			}
		}
	}
	return m, nil
}

// Match says whether a pattern matches the whole path.
func (m *Matcher) Match(path string) bool { return m.all.match(path) }

// Named says whether a pattern matches the whole path that asks for more than
// any name: "*.pem" does, "certs/*" and "**" do not.
func (m *Matcher) Named(path string) bool { return m.named.match(path) }

// MayContain says whether something below a folder can match.
func (m *Matcher) MayContain(folder string) bool {
	return m.all.below(folder+"/") != cloud.FolderNone
}
