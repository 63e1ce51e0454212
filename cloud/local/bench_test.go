package local_test

import (
	"bytes"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name    string
		callers int
	}{{"alone", 0}, {"256 callers", 128}} {
		b.Run(c.name, func(b *testing.B) {
			j, err := open(b, b.TempDir()).OpenJournal(b.Context(), "j")
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			rec := bytes.Repeat([]byte("r"), 200)
			if c.callers == 0 {
				for b.Loop() {
					if _, err := j.Append(rec); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.SetParallelism(c.callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := j.Append(rec); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// journalOf makes a store with a journal of n records in groups of 100.
func journalOf(b *testing.B, n, size int) (s cloud.Store, pos []int64) {
	s = open(b, b.TempDir())
	j, err := s.OpenJournal(b.Context(), "j")
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	group := make([][]byte, 100)
	for i := range group {
		group[i] = bytes.Repeat([]byte{byte(i)}, size)
	}
	for len(pos) < n {
		p, err := j.Append(group...)
		if err != nil {
			b.Fatal(err)
		}
		pos = append(pos, p...)
	}
	return s, pos
}

func BenchmarkReadJournal(b *testing.B) {
	const n, size = 100_000, 200
	s, _ := journalOf(b, n, size)
	b.SetBytes(n * (size + 16))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ReadJournal(b.Context(), "j", 0, func(int64, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadRecord(b *testing.B) {
	s, pos := journalOf(b, 10_000, 200)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.ReadRecord(b.Context(), "j", pos[i*7919%len(pos)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	s := open(b, b.TempDir())
	data := bytes.Repeat([]byte("d"), 4096)
	for b.Loop() {
		if err := s.Put(b.Context(), "runs/1/object", data); err != nil {
			b.Fatal(err)
		}
	}
}
