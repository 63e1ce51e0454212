package local

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// journalImage is the bytes of a journal and where its groups and records end.
type journalImage struct {
	data   []byte
	recs   [][]byte
	ends   []int64 // ends[i] is where record i ends
	acked  []int64 // acked[i] is where the group of record i ends
	starts []int64
}

// makeImage writes groups of records, each one Append.
func makeImage(t testing.TB, groups ...[]string) journalImage {
	t.Helper()
	f := &memFile{}
	j, err := newJournal(f, "j")
	if err != nil {
		t.Fatal(err)
	}
	var im journalImage
	for _, g := range groups {
		var recs [][]byte
		for _, r := range g {
			recs = append(recs, []byte(r))
		}
		pos, err := j.Append(recs...)
		if err != nil {
			t.Fatal(err)
		}
		end := pos[len(pos)-1] + headerSize + int64(len(recs[len(recs)-1]))
		for i, p := range pos {
			im.recs = append(im.recs, recs[i])
			im.starts = append(im.starts, p)
			im.ends = append(im.ends, p+headerSize+int64(len(recs[i])))
			im.acked = append(im.acked, end)
		}
	}
	im.data = f.data
	return im
}

// recover opens what is left of a journal, appends a record and reads it back.
func recoverImage(data []byte) (recs [][]byte, file []byte, err error) {
	f := &memFile{data: slices.Clone(data)}
	j, err := newJournal(f, "j")
	if err != nil {
		return nil, nil, err
	}
	if _, err := j.Append([]byte("after recovery")); err != nil {
		return nil, nil, err
	}
	_, err = newScanner(f).each(0, func(_ int64, rec []byte) error {
		recs = append(recs, bytes.Clone(rec))
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading what was recovered: %w", err)
	}
	if n := len(recs); n == 0 || string(recs[n-1]) != "after recovery" {
		return nil, nil, fmt.Errorf("the record after recovery is missing in %q", recs)
	}
	return recs[:len(recs)-1], f.data, nil
}

func testImage(t testing.TB) journalImage {
	return makeImage(t, []string{"a", "", "ccc"}, []string{"second group"}, []string{strings.Repeat("x", 500), "y", strings.Repeat("z", 100)},
		[]string{"fourth", "\x00\x00\x01", "sixth"})
}

// Cut anywhere: the whole records before the cut are there, nothing else is,
// and the journal goes on.
func TestTornAtEveryOffset(t *testing.T) {
	t.Parallel()
	im := testImage(t)
	for n := range len(im.data) + 1 {
		want := 0
		for want < len(im.ends) && im.ends[want] <= int64(n) {
			want++
		}
		for _, tail := range []string{"", "\x00", strings.Repeat("\x00", 600), "garbage", strings.Repeat("\xff", 100)} {
			if n == 0 && tail != "" && tail[0] != 0 {
				continue // a file that is not a journal at all
			}
			if n < len(magic) && n > 0 && tail != "" {
				continue // neither a torn write nor a journal
			}
			data := append(slices.Clone(im.data[:n]), tail...)
			recs, _, err := recoverImage(data)
			if err != nil {
				t.Fatalf("cut at %d and %d bytes of %.3q behind: %v", n, len(tail), tail, err)
			}
			if !slices.EqualFunc(recs, im.recs[:want], bytes.Equal) {
				t.Fatalf("cut at %d: %d records; want %d", n, len(recs), want)
			}
		}
	}
}

// Flip any byte: what was acknowledged before the damage survives; damage to
// anything that a later record proves is reported with its place; a damaged
// record never comes back as another one.
func TestFlipAtEveryOffset(t *testing.T) {
	t.Parallel()
	im := testImage(t)
	last := len(im.recs) - 1
	for n := range im.data {
		data := slices.Clone(im.data)
		data[n] ^= 0x5a
		hit := 0 // the first record that cannot be read
		for hit < last && im.ends[hit] <= int64(n) {
			hit++
		}
		recs, _, err := recoverImage(data)
		var ce *corruptError
		switch {
		case n == len(magic)-1:
			if !errors.Is(err, errVersion) {
				t.Fatalf("flip of the version: %v", err)
			}
		case n >= int(im.starts[last]): // nothing behind it tells
			if err != nil || !slices.EqualFunc(recs, im.recs[:last], bytes.Equal) {
				t.Fatalf("flip at %d in the last record: %d records, %v", n, len(recs), err)
			}
		case !errors.As(err, &ce):
			t.Fatalf("flip at %d: %d records, %v; want corruption", n, len(recs), err)
		case n >= len(magic) && ce.at != im.starts[hit]:
			t.Fatalf("flip at %d: corruption reported at %d; want %d", n, ce.at, im.starts[hit])
		case cloud.KindOf(err) != cloud.KindCorrupt:
			t.Fatalf("flip at %d: kind %v", n, cloud.KindOf(err))
		}
	}
}

// Blocks of the last write that never reached the disk read as zeros, also in
// front of blocks that did: nobody was told of that write, so it is cut off.
func TestUnwrittenBlocks(t *testing.T) {
	t.Parallel()
	var big []string
	for i := range 40 {
		big = append(big, fmt.Sprintf("%d %s", i, strings.Repeat("r", 100+i*13%300)))
	}
	im := makeImage(t, []string{"one", "two"}, []string{"three"}, big)
	start := im.starts[3]
	for from := start; from < int64(len(im.data)); from += 97 {
		block := from - from%blockSize
		for blocks := int64(1); blocks <= 3; blocks++ {
			lo, hi := max(block, start), min(block+blocks*blockSize, int64(len(im.data)))
			data := slices.Clone(im.data)
			clear(data[lo:hi])
			want := 0
			for im.ends[want] <= lo {
				want++
			}
			recs, _, err := recoverImage(data)
			if err != nil || len(recs) < 3 || !slices.EqualFunc(recs, im.recs[:want], bytes.Equal) {
				t.Fatalf("zeros from %d to %d: %d records, %v; want %d", lo, hi, len(recs), err, want)
			}
		}
	}
	// In a group before the last, the same zeros are corruption.
	im = makeImage(t, big, []string{"told"})
	data := slices.Clone(im.data)
	clear(data[blockSize : 2*blockSize])
	if _, _, err := recoverImage(data); cloud.KindOf(err) != cloud.KindCorrupt {
		t.Errorf("zeros in an acknowledged group: %v", err)
	}
}

// Random crashes: a journal is cut and garbled behind a random point, again
// and again, and never loses what was acknowledged before that point.
func TestRandomCrashes(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		var groups [][]string
		for range 1 + rnd.IntN(6) {
			var g []string
			for range 1 + rnd.IntN(4) {
				g = append(g, strings.Repeat(string(rune('a'+rnd.IntN(26))), rnd.IntN(1200)))
			}
			groups = append(groups, g)
		}
		im := makeImage(t, groups...)
		data := slices.Clone(im.data)
		at := len(magic) + rnd.IntN(len(data)-len(magic))
		switch rnd.IntN(3) {
		case 0:
			data = data[:at]
		case 1:
			for range 1 + rnd.IntN(5) {
				data[at+rnd.IntN(len(data)-at)] ^= byte(1 + rnd.IntN(255))
			}
		case 2:
			data = data[:at]
			for range rnd.IntN(3000) {
				data = append(data, byte(rnd.IntN(256)))
			}
		}
		survivors := 0
		for im.ends[survivors] <= int64(at) {
			survivors++
		}
		var read [][]byte
		_, rerr := newScanner(&memFile{data: data}).each(0, func(_ int64, rec []byte) error {
			read = append(read, bytes.Clone(rec))
			return nil
		})
		if len(read) < survivors || len(read) > len(im.recs) || !slices.EqualFunc(read, im.recs[:len(read)], bytes.Equal) {
			t.Fatalf("round %d: damage at %d: read %d records, %d lay before it (%v)", round, at, len(read), survivors, rerr)
		}
		recs, _, err := recoverImage(data)
		if (err == nil) != (rerr == nil) || (err != nil && cloud.KindOf(err) != cloud.KindCorrupt) {
			t.Fatalf("round %d: reader says %v, writer %v", round, rerr, err)
		}
		if err == nil && len(recs) != len(read) {
			t.Fatalf("round %d: reader found %d records, writer %d", round, len(read), len(recs))
		}
	}
}

func TestNotAJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		content string
		kind    cloud.Kind
		want    string
	}{
		{"hello, this is some other file", cloud.KindCorrupt, "not a journal"},
		{"short", cloud.KindCorrupt, "not a journal"},
		{magic[:len(magic)-1] + "\x02 what a later version wrote", cloud.KindInvalid, "later version"},
	} {
		path := filepath.Join(dir, "j")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.OpenJournal(t.Context(), "j")
		_, rerr := s.ReadJournal(t.Context(), "j", 0, func(int64, []byte) error { return nil })
		for _, err := range []error{err, rerr} {
			if cloud.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.want) || !strings.Contains(fmt.Sprint(err), path) {
				t.Errorf("%.8q: %v", c.content, err)
			}
		}
		if got, _ := os.ReadFile(path); string(got) != c.content {
			t.Errorf("%.8q was changed to %q", c.content, got)
		}
		if alive, err := s.JournalAlive(t.Context(), "j"); alive || err != nil {
			t.Errorf("the failed open left the lock: %v, %v", alive, err)
		}
	}
}

// A reader that has seen the torn end of a group is told when it was cut off,
// instead of reading on in the middle of other records.
func TestPositionBehindACut(t *testing.T) {
	t.Parallel()
	im := makeImage(t, []string{"kept"}, []string{"cut off, and rather long"})
	other := makeImage(t, []string{"kept"}, []string{"other"}, []string{strings.Repeat("x", 200)})
	for _, file := range [][]byte{im.data[:im.ends[0]], other.data, other.data[:other.ends[1]]} {
		_, err := newScanner(&memFile{data: file}).each(im.ends[1], func(int64, []byte) error { return nil })
		if !errors.Is(err, errPosition) {
			t.Errorf("read of %d bytes from %d: %v", len(file), im.ends[1], err)
		}
	}
}

// FuzzJournal: whatever bytes a file has, reading ends without a panic, and
// what can be recovered reads back as it was read before.
func FuzzJournal(f *testing.F) {
	im := testImage(f)
	f.Add(im.data)
	f.Add(im.data[:len(im.data)-3])
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Add(bytes.Replace(im.data, []byte("second"), []byte("secund"), 1))
	f.Add(append(slices.Clone(im.data[:200]), make([]byte, 600)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var read [][]byte
		end, rerr := newScanner(&memFile{data: data}).each(0, func(_ int64, rec []byte) error {
			read = append(read, bytes.Clone(rec))
			return nil
		})
		if end < 0 || end > int64(len(data)) {
			t.Fatalf("end %d of %d bytes", end, len(data))
		}
		recs, _, err := recoverImage(data)
		if (rerr == nil) != (err == nil) {
			t.Fatalf("reader: %v, writer: %v", rerr, err)
		}
		if err == nil && !slices.EqualFunc(recs, read, bytes.Equal) {
			t.Fatalf("read %d records, recovered %d", len(read), len(recs))
		}
		for _, pos := range []int64{1, 8, int64(len(data) / 2), int64(len(data))} {
			_, _ = newScanner(&memFile{data: data}).each(pos, func(int64, []byte) error { return nil })
		}
	})
}
