package planner

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of one pattern, so that none can eat the machine.
const (
	maxPattern   = 8 << 10 // bytes
	maxExpansion = 4096    // alternatives of all its braces
)

// expandBraces turns "a{b,c{d,e}}" into its alternatives. Braces without a
// comma, and those that are not closed, are ordinary characters, as are braces
// inside [...].
func expandBraces(s string) ([]string, error) {
	if len(s) > maxPattern {
		return nil, fmt.Errorf("pattern is longer than %d bytes", maxPattern)
	}
	n := 0
	out, err := expand(s, &n)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(out))
	uniq := out[:0]
	for _, p := range out {
		if !seen[p] {
			seen[p] = true
			uniq = append(uniq, p)
		}
	}
	return uniq, nil
}

func expand(s string, work *int) ([]string, error) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[':
			if _, n, ok := parseClass(s[i:]); ok {
				i += n - 1
			}
		case '{':
			alts, end, ok := splitBraces(s[i:])
			if !ok {
				continue
			}
			tails, err := expand(s[i+end:], work)
			if err != nil {
				return nil, err
			}
			var out []string
			for _, alt := range alts {
				heads, err := expand(alt, work)
				if err != nil {
					return nil, err
				}
				for _, h := range heads {
					for _, t := range tails {
						if *work++; *work > 4*maxExpansion || len(out) >= maxExpansion {
							return nil, fmt.Errorf("braces give more than %d patterns", maxExpansion)
						}
						out = append(out, s[:i]+h+t)
					}
				}
			}
			return out, nil
		}
	}
	return []string{s}, nil
}

// splitBraces splits "{a,b}..." at its top-level commas; end is behind the
// closing brace.
func splitBraces(s string) (alts []string, end int, ok bool) {
	depth, start := 0, 1
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[':
			if _, n, ok := parseClass(s[i:]); ok {
				i += n - 1
			}
		case '{':
			depth++
		case ',':
			if depth == 1 {
				alts = append(alts, s[start:i])
				start = i + 1
			}
		case '}':
			if depth--; depth == 0 {
				if alts == nil {
					return nil, 0, false
				}
				return append(alts, s[start:i]), i + 1, true
			}
		}
	}
	return nil, 0, false
}

// segment is the part of a pattern between two slashes.
type segment struct {
	lit   string // what it stands for, if it is not magic
	magic bool
	super bool // **
	ops   []op
}

// op is one step of a magic segment: literal text, or one of the others.
type op struct {
	kind  opKind
	lit   string
	class *class
}

type opKind uint8

const (
	opLit   opKind = iota
	opAny          // ?
	opStar         // *
	opClass        // [...]
)

type class struct {
	not    bool
	ranges [][2]rune
}

func (c *class) match(r rune) bool {
	for _, x := range c.ranges {
		if x[0] <= r && r <= x[1] {
			return !c.not
		}
	}
	return c.not
}

// parseClass reads "[...]" at the start of s. It does not cross a slash; one
// that is not closed is no class.
func parseClass(s string) (c *class, n int, ok bool) {
	c = &class{}
	i := 1
	if i < len(s) && (s[i] == '!' || s[i] == '^') {
		c.not = true
		i++
	}
	for first := true; i < len(s) && s[i] != '/'; first = false {
		if s[i] == ']' && !first {
			return c, i + 1, true
		}
		lo, w := decodeRune(s[i:])
		i += w
		hi := lo
		if i+1 < len(s) && s[i] == '-' && s[i+1] != ']' && s[i+1] != '/' {
			hi, w = decodeRune(s[i+1:])
			i += 1 + w
		}
		c.ranges = append(c.ranges, [2]rune{lo, hi})
	}
	return nil, 0, false
}

// decodeRune is the first character of s; a byte that is not UTF-8 is a
// character of its own, beyond all others.
func decodeRune(s string) (rune, int) {
	if s[0] < utf8.RuneSelf {
		return rune(s[0]), 1
	}
	r, w := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && w == 1 {
		return utf8.MaxRune + 1 + rune(s[0]), 1
	}
	return r, w
}

func parseSegment(s string) segment {
	if s == "**" {
		return segment{super: true, magic: true}
	}
	var g segment
	lit := ""
	flush := func() {
		if lit != "" {
			g.ops = append(g.ops, op{kind: opLit, lit: lit})
			lit = ""
		}
	}
	start := 0
	for i := 0; i < len(s); i++ {
		var o op
		n := 1
		switch s[i] {
		case '*':
			o.kind = opStar
			for i+n < len(s) && s[i+n] == '*' {
				n++
			}
		case '?':
			o.kind = opAny
		case '[':
			c, w, ok := parseClass(s[i:])
			if !ok {
				continue
			}
			// [[] is the way to write a special character as itself.
			if !c.not && len(c.ranges) == 1 && c.ranges[0][0] == c.ranges[0][1] {
				lit += s[start:i] + s[i+1:i+w-1]
				i += w - 1
				start = i + 1
				continue
			}
			o, n = op{kind: opClass, class: c}, w
		default:
			continue
		}
		lit += s[start:i]
		flush()
		g.ops = append(g.ops, o)
		g.magic = true
		i += n - 1
		start = i + 1
	}
	lit += s[start:]
	if !g.magic {
		return segment{lit: lit}
	}
	flush()
	return g
}

// match says whether the segment (not **) matches a name. A wildcard at the
// start does not match a leading dot.
func (g *segment) match(name string) bool {
	if !g.magic {
		return g.lit == name
	}
	if strings.HasPrefix(name, ".") && g.ops[0].kind != opLit {
		return false
	}
	// At a mismatch the last star takes one character more; going back to an
	// earlier one can never help.
	ops, i, at := g.ops, 0, 0
	star, mark := -1, 0
	for {
		if i == len(ops) {
			if at == len(name) {
				return true
			}
		} else if ops[i].kind == opStar {
			star, mark = i, at
			i++
			continue
		} else if n := ops[i].take(name[at:]); n > 0 {
			at += n
			i++
			continue
		}
		if star < 0 || mark >= len(name) {
			return false
		}
		_, w := decodeRune(name[mark:])
		mark += w
		i, at = star+1, mark
	}
}

// take is how many bytes of s the op (not *) matches; 0: it does not.
func (o *op) take(s string) int {
	if o.kind == opLit {
		if strings.HasPrefix(s, o.lit) {
			return len(o.lit)
		}
		return 0
	}
	if s == "" {
		return 0
	}
	r, w := decodeRune(s)
	if o.kind == opClass && !o.class.match(r) {
		return 0
	}
	return w
}

// prefix is the literal text that every name of the segment starts with.
func (g *segment) prefix() string {
	switch {
	case !g.magic:
		return g.lit
	case !g.super && g.ops[0].kind == opLit:
		return g.ops[0].lit
	}
	return ""
}

// plainStar says that the segment matches every name but hidden ones.
func (g *segment) plainStar() bool {
	return g.super || len(g.ops) == 1 && g.ops[0].kind == opStar
}

// pattern is one alternative of a pattern, without braces.
type pattern struct {
	segs []segment
	src  int // which pattern of the map it came from
}

func (p *pattern) magic() bool {
	for i := range p.segs {
		if p.segs[i].magic {
			return true
		}
	}
	return false
}

// newPattern compiles segments of text. A ** at the end stands for all files
// below, and repeated ones are one.
func newPattern(segs []string, src int) pattern {
	p := pattern{src: src}
	for _, s := range segs {
		g := parseSegment(s)
		if g.super && len(p.segs) > 0 && p.segs[len(p.segs)-1].super {
			continue
		}
		p.segs = append(p.segs, g)
	}
	if n := len(p.segs); n > 0 && p.segs[n-1].super {
		p.segs = append(p.segs, parseSegment("*"))
	}
	return p
}

// splitLocal cuts a local pattern into segments: cleaned, with the number of
// leading "..".
func splitLocal(s string) (abs bool, up int, segs []string, err error) {
	abs = strings.HasPrefix(s, "/")
	if strings.HasSuffix(s, "/") {
		return false, 0, nil, errors.New("ends in a slash, but folders are not items; add * or ** for the files in it")
	}
	for _, g := range strings.Split(s, "/") {
		switch g {
		case "", ".":
			continue
		case "..":
			switch {
			case len(segs) == 0:
				if !abs {
					up++
				}
				continue
			case parseIsMagic(segs[len(segs)-1]):
				return false, 0, nil, errors.New(`".." cannot stand behind a wildcard`)
			}
			segs = segs[:len(segs)-1]
			continue
		}
		segs = append(segs, g)
	}
	if len(segs) == 0 {
		return false, 0, nil, errors.New("names a folder, but folders are not items; add /* or /** for the files in it")
	}
	return abs, up, segs, nil
}

func parseIsMagic(s string) bool {
	g := parseSegment(s)
	return g.magic
}

// prefix is the longest literal text that every match of the pattern starts
// with; exact says that it is the whole pattern.
func (p *pattern) prefix() (prefix string, exact bool) {
	var b strings.Builder
	for i := range p.segs {
		g := &p.segs[i]
		b.WriteString(g.prefix())
		if g.magic {
			return b.String(), false
		}
		if i < len(p.segs)-1 {
			b.WriteByte('/')
		}
	}
	return b.String(), true
}
