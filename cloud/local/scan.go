package local

import (
	"errors"
	"fmt"
	"io"
)

// scanner reads the records of a journal file that may be growing, and tells
// a torn end from corruption.
type scanner struct {
	f   io.ReaderAt
	buf []byte // what was read of the file from off on
	off int64
	mem []byte // the memory behind buf
}

// corruptError is damage to data that had been acknowledged.
type corruptError struct {
	at    int64 // where no valid record is
	proof int64 // the record behind it
}

func (e *corruptError) Error() string {
	return fmt.Sprintf("the record at byte %d is damaged, and valid records follow at byte %d", e.at, e.proof)
}

// errPosition is a position where no record begins.
var errPosition = errors.New("no record begins at this position")

// errVersion is a file of a later version, errNoJournal some other file.
var (
	errVersion   = errors.New("the journal was written by a later version of this program")
	errNoJournal = errors.New("this is not a journal")
)

// readSize is how much of a file is read at once, at least.
const readSize = 128 << 10

func newScanner(f io.ReaderAt) *scanner { return &scanner{f: f} }

// at gives n bytes of the file from pos on, fewer at its end.
func (s *scanner) at(pos int64, n int) ([]byte, error) {
	if pos >= s.off && pos+int64(n) <= s.off+int64(len(s.buf)) {
		i := int(pos - s.off)
		return s.buf[i : i+n], nil
	}
	// Move what is known of the wanted part to the front, read on behind it.
	known := 0
	if pos >= s.off && pos < s.off+int64(len(s.buf)) {
		known = copy(s.mem, s.buf[pos-s.off:])
	}
	if size := max(n, readSize); len(s.mem) < size {
		mem := make([]byte, size)
		copy(mem, s.mem[:known])
		s.mem = mem
	}
	got, err := s.f.ReadAt(s.mem[known:], pos+int64(known))
	s.buf, s.off = s.mem[:known+got], pos
	if err != nil && err != io.EOF {
		return nil, err
	}
	return s.buf[:min(n, len(s.buf))], nil
}

// forget makes the next look at the file a fresh one.
func (s *scanner) forget() { s.buf = nil }

// record reads the record at pos: nil, 0 if there is none (which is the end,
// or damage; see tail).
func (s *scanner) record(pos int64) (payload []byte, size int, err error) {
	b, err := s.at(pos, headerSize)
	if err != nil {
		return nil, 0, err
	}
	payload, need, perr := parseRecord(b, pos)
	if perr == errShort && len(b) == headerSize {
		if b, err = s.at(pos, need); err != nil {
			return nil, 0, err
		}
		payload, need, perr = parseRecord(b, pos)
	}
	if perr != nil {
		return nil, 0, nil
	}
	return payload, need, nil
}

// each calls fn for the records from pos on (0: the first) and returns the
// position behind the last. What fn gets is only good until it returns.
func (s *scanner) each(pos int64, fn func(pos int64, rec []byte) error) (int64, error) {
	start := pos
	if pos < int64(len(magic)) {
		if pos != 0 {
			return pos, errPosition
		}
		ok, err := s.magic()
		if err != nil || !ok {
			return 0, err
		}
		pos = int64(len(magic))
	}
	for {
		rec, size, err := s.record(pos)
		if err != nil {
			return pos, err
		}
		if size == 0 {
			again, err := s.tail(pos)
			var corrupt *corruptError
			if errors.As(err, &corrupt) && pos == start && !s.boundary(pos) {
				err = errPosition
			}
			if err == nil && !again && pos == start {
				err = s.checkStart(pos)
			}
			if err != nil || !again {
				return pos, err
			}
			continue
		}
		if err := fn(pos, rec); err != nil {
			return pos, err
		}
		pos += int64(size)
	}
}

// magic checks the start of the file: false if it is not written yet.
func (s *scanner) magic() (bool, error) {
	s.forget()
	b, err := s.at(0, len(magic))
	if err != nil {
		return false, err
	}
	switch n := len(magic) - 1; {
	case string(b) == magic:
		return true, nil
	case len(b) == len(magic) && string(b[:n]) == magic[:n]:
		return false, fmt.Errorf("%w (format %d, known is %d)", errVersion, b[n], magic[n])
	case len(b) < len(magic) && string(b) == magic[:len(b)]:
		return false, nil
	}
	if _, err := s.tail(0); err != nil {
		return false, err
	}
	for _, c := range b {
		if c != 0 { // not even an unwritten block
			return false, errNoJournal
		}
	}
	return false, nil
}

// boundary says whether a record begins, or the last one ends, at pos.
func (s *scanner) boundary(pos int64) bool {
	at := int64(len(magic))
	for at < pos {
		_, size, err := s.record(at)
		if err != nil || size == 0 {
			return false
		}
		at += int64(size)
	}
	return at == pos
}

// checkStart tells the end of a journal from a position that is none: the
// reader's, when a writer cut off a torn end that the reader had seen.
func (s *scanner) checkStart(pos int64) error {
	b, err := s.at(pos-1, 1+headerSize)
	if err == nil && (len(b) == 0 || (len(b) == 1+headerSize && !s.boundary(pos))) {
		err = errPosition
	}
	return err
}

// tail looks at what lies behind pos, where no valid record was found. It says
// whether to look again (a writer was just at it), or that this is the end, or
// returns the corruptError that proves the damage.
func (s *scanner) tail(pos int64) (again bool, err error) {
	s.forget()
	probe := newScanner(s.f) // keeps its own place: s goes through the file once
	torn := false            // the last group has a hole: its records prove nothing
	for at := pos + 1; ; {
		b, err := s.at(at, readSize)
		if err != nil {
			return false, err
		}
		for i := 0; i+headerSize <= len(b); i++ {
			q := at + int64(i)
			h, ok := parseHeader(b[i:], q)
			if !ok || (torn && h.base <= pos) {
				continue
			}
			proven := h.base > pos
			if !proven {
				probe.forget()
				_, size, err := probe.record(q)
				if err != nil {
					return false, err
				}
				if torn, err = probe.unwritten(pos, q); err != nil {
					return false, err
				}
				proven = size > 0 && !torn
			}
			// The header is newer than the first look at pos: if a writer is
			// at work, pos is whole by now.
			probe.forget()
			_, size, err := probe.record(pos)
			if err != nil || size > 0 {
				s.forget()
				return size > 0, err
			}
			if proven {
				return false, &corruptError{at: pos, proof: q}
			}
		}
		if len(b) < readSize {
			return false, nil
		}
		at += int64(len(b) - headerSize + 1)
	}
}

// unwritten says whether a block between from and to is all zeros up to its end.
func (s *scanner) unwritten(from, to int64) (bool, error) {
	for at := from; ; {
		end := at - at%blockSize + blockSize
		if end > to {
			return false, nil
		}
		b, err := s.at(at, int(end-at))
		if err != nil {
			return false, err
		}
		zero := true
		for _, c := range b {
			zero = zero && c == 0
		}
		if zero {
			return true, nil
		}
		at = end
	}
}
