package spec

import (
	"strings"
	"unicode/utf8"
)

// maxSuggestLen bounds the names that are compared: longer ones are not typos.
const maxSuggestLen = 64

// Suggest finds the candidate that name was probably meant to be: the nearest
// by edit distance, "" if none is near. Case and the difference between a
// hyphen and an underscore do not count.
func Suggest(name string, candidates []string) string {
	if name == "" || len(name) > maxSuggestLen || !utf8.ValidString(name) {
		return ""
	}
	want := foldName(name)
	limit := max(1, min(3, (len(want)+1)/3))
	best, prefix, prefixes := "", "", 0
	for _, c := range candidates {
		if c == name || c == "" || len(c) > maxSuggestLen || !utf8.ValidString(c) {
			continue
		}
		folded := foldName(c)
		if folded == want {
			return c
		}
		if len(want) >= 3 && (strings.HasPrefix(folded, want) || strings.HasPrefix(want, folded) && len(folded) >= 3) {
			prefix = c
			prefixes++
		}
		if diff := len(folded) - len(want); diff > limit || -diff > limit {
			continue
		}
		// Everything different is another word, however short.
		if d := editDistance(want, folded); d <= limit && d < min(len(want), len(folded)) {
			best, limit = c, d-1
		}
	}
	if best == "" && prefixes == 1 {
		return prefix
	}
	return best
}

func foldName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == ' ':
			return '_'
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours between two short strings, by bytes.
func editDistance(a, b string) int {
	var rows [3][maxSuggestLen + 1]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := 0; j <= len(b); j++ {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// didYouMean is " (did you mean "x"?)", or "" without a near candidate.
func didYouMean(name string, candidates []string) string {
	if s := Suggest(name, candidates); s != "" {
		return " (did you mean \"" + s + "\"?)"
	}
	return ""
}
