package agent

import (
	"bytes"
	"encoding/json"
	"sort"
	"strings"
)

const stars = "***"

// secretSet is the values that must not appear anywhere, longest first.
type secretSet [][]byte

func newSecretSet(secrets map[string]string) secretSet {
	seen := map[string]bool{}
	for _, v := range secrets {
		// A program often prints a secret without the newline it was stored with,
		// one of many lines (a key) line by line, and either of them in JSON.
		forms := []string{v, strings.TrimSpace(v)}
		if lines := strings.Split(forms[1], "\n"); len(lines) > 1 {
			for _, l := range lines {
				if l = strings.TrimSpace(l); len(l) >= minMaskedLine {
					forms = append(forms, l)
				}
			}
		}
		for _, s := range forms {
			if s != "" {
				seen[s], seen[inJSON(s)] = true, true
			}
		}
	}
	set := make(secretSet, 0, len(seen))
	for s := range seen {
		set = append(set, []byte(s))
	}
	sort.Slice(set, func(i, j int) bool {
		if len(set[i]) != len(set[j]) {
			return len(set[i]) > len(set[j])
		}
		return bytes.Compare(set[i], set[j]) < 0
	})
	return set
}

// minMaskedLine is how long a line of a longer secret must be to be one by
// itself: shorter ones (braces, "END") are common words.
const minMaskedLine = 8

// inJSON is a text as it stands between the quotes of a JSON string.
func inJSON(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil || b.Len() < 3 {
		return s
	}
	return b.String()[1 : b.Len()-2]
}

// mask replaces the secrets in a whole text.
func (s secretSet) mask(b []byte) []byte {
	if len(s) == 0 || len(b) == 0 {
		return b
	}
	m := masker{set: s}
	out := m.write(b)
	return append(out[:len(out):len(out)], m.flush()...)
}

func (s secretSet) maskString(t string) string {
	if len(s) == 0 {
		return t
	}
	return string(s.mask([]byte(t)))
}

// masker replaces secrets in a stream, also one that is split over two writes:
// it holds back a tail that may be the beginning of a secret.
type masker struct {
	set  secretSet
	held []byte
	out  []byte
}

// write gives what can be passed on after b; it is valid until the next call.
func (m *masker) write(b []byte) []byte {
	if len(m.set) == 0 {
		return b
	}
	in := b
	if len(m.held) > 0 {
		in = append(m.held, b...)
	}
	m.out = m.out[:0]
	tail := len(in) - m.partial(in)
	for {
		at, secret := m.next(in)
		// What begins with the tail may turn out to be a longer secret than
		// the one that was found there.
		if at < 0 || at >= len(in)-tail {
			break
		}
		m.out = append(m.out, in[:at]...)
		m.out = append(m.out, stars...)
		in = in[at+len(secret):]
		if tail > len(in) {
			tail = len(in) - m.partial(in) // it overlapped with what was replaced
		}
	}
	m.out = append(m.out, in[:len(in)-tail]...)
	m.held = append([]byte(nil), in[len(in)-tail:]...)
	return m.out
}

// flush gives what was held back at the end of the stream.
func (m *masker) flush() []byte {
	if len(m.held) == 0 {
		return nil
	}
	in := m.held
	m.held = nil
	var out []byte
	for {
		at, secret := m.next(in)
		if at < 0 {
			return append(out, in...)
		}
		out = append(append(out, in[:at]...), stars...)
		in = in[at+len(secret):]
	}
}

// next finds the first secret, of several at one place the longest.
func (m *masker) next(b []byte) (int, []byte) {
	at, found := -1, []byte(nil)
	for _, s := range m.set {
		end := len(b)
		if at >= 0 && at+len(s) < end {
			end = at + len(s) // only an earlier or equal place is of interest
		}
		if i := bytes.Index(b[:end], s); i >= 0 && (at < 0 || i < at) {
			at, found = i, s
		}
	}
	return at, found
}

// partial is where a tail of b begins that is the beginning of a secret.
func (m *masker) partial(b []byte) int {
	first := len(b)
	for _, s := range m.set {
		from := len(b) - len(s) + 1
		if from < 0 {
			from = 0
		}
		for i := from; i < first; i++ {
			if bytes.HasPrefix(s, b[i:]) {
				first = i
				break
			}
		}
	}
	return first
}
