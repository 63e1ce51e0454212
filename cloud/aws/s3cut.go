package aws

import (
	"strings"
	"unicode/utf8"
)

// cutsAfter guesses where the keys behind a page lie and cuts them into at
// most n pieces of a little less than a page.
//
// names is the page, in order; all of them start with the same base bytes.
// first is an earlier key, as far back as is known. A cut is greater than the
// last name and not greater than until, and is no folder's inside if folders
// is set.
//
// Where the names on the page differ from each other, they are taken for
// numbers in a system whose digits are the characters seen there: "part-0417"
// and "part-0581" count in decimal, hashes in hexadecimal. The page spans some
// distance in that system, and the keys behind it are cut at three quarters of
// that distance each, as far as the position before the first that was ever
// seen to change.
func cutsAfter(names []string, base int, first, until string, folders bool, n int) []string {
	if len(names) < 2 || n <= 0 {
		return nil
	}
	lo, hi := names[0], names[len(names)-1]
	digits := digitsOf(names, base)
	if digits == "" {
		return nil
	}
	// Positions before changing are the same in all keys so far.
	changing := commonPrefix(min(first, lo), hi)
	from := max(base, changing-1)
	end := len(hi)
	if folders {
		if i := strings.IndexByte(hi[min(base, len(hi)):], '/'); i >= 0 {
			end = base + i
		}
	}
	// As many positions as it takes to tell parts of the page from each other.
	for to := commonPrefix(lo, hi) + 1; to <= end; to++ {
		start := from
		for float64(to-start)*log2(len(digits)) > 60 {
			start++
		}
		a, _ := rank(lo, start, to, digits)
		b, limit := rank(hi, start, to, digits)
		if b-a < 8 && to < end {
			continue
		}
		if !utf8.ValidString(hi[:to]) {
			continue
		}
		step := max(1, (b-a)*3/4)
		var cuts []string
		for at := b + step; at < limit && len(cuts) < n; at += step {
			c := unrank(hi, start, to, digits, at)
			if until != "" && c >= until {
				break
			}
			if c > hi {
				cuts = append(cuts, c)
			}
		}
		return cuts
	}
	return nil
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func log2(n int) float64 {
	bits := 0
	for 1<<bits < n {
		bits++
	}
	return float64(bits)
}

// digitsOf is the characters that names count with, in order: whole classes of
// those that stand where one name differs from the next.
func digitsOf(names []string, base int) string {
	var decimal, lowHex, low, upHex, up bool
	for i := 1; i < len(names); i++ {
		a, b := names[i-1], names[i]
		p := max(base, commonPrefix(a, b))
		for _, s := range [2]string{a, b} {
			if p >= len(s) {
				continue
			}
			switch c := s[p]; {
			case c >= '0' && c <= '9':
				decimal = true
			case c >= 'a' && c <= 'f':
				lowHex = true
			case c >= 'g' && c <= 'z':
				low = true
			case c >= 'A' && c <= 'F':
				upHex = true
			case c >= 'G' && c <= 'Z':
				up = true
			}
		}
	}
	digits := ""
	if decimal {
		digits = "0123456789"
	}
	if up {
		digits += "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	} else if upHex {
		digits += "ABCDEF"
	}
	if low {
		digits += "abcdefghijklmnopqrstuvwxyz"
	} else if lowHex {
		digits += "abcdef"
	}
	return digits
}

// rank is the number that a key's bytes from one position to another mean, and
// the first number that needs one position more. Other characters than digits
// have no place in it.
func rank(key string, from, to int, digits string) (n, limit int) {
	limit = 1
	for i := from; i < to; i++ {
		d := 0
		if i < len(key) {
			if d = strings.IndexByte(digits, key[i]); d < 0 {
				continue
			}
		}
		n = n*len(digits) + d
		limit *= len(digits)
	}
	return n, limit
}

// unrank is like's bytes up to a position, with a number in the places of its
// digits.
func unrank(like string, from, to int, digits string, n int) string {
	b := []byte(like[:to])
	for i := to - 1; i >= from; i-- {
		if strings.IndexByte(digits, b[i]) >= 0 {
			b[i] = digits[n%len(digits)]
			n /= len(digits)
		}
	}
	return string(b)
}
