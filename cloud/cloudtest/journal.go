package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

const journalKey = "runs/1/journal"

func mustOpen(t testing.TB, s cloud.Store, key string) cloud.Journal {
	t.Helper()
	j, err := s.OpenJournal(context.Background(), key)
	if err != nil {
		t.Fatalf("open journal: %v", err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func mustClose(t testing.TB, j cloud.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatalf("close journal: %v", err)
	}
}

func mustAppend(t testing.TB, j cloud.Journal, recs ...string) []int64 {
	t.Helper()
	var bs [][]byte
	for _, r := range recs {
		bs = append(bs, []byte(r))
	}
	pos, err := j.Append(bs...)
	if err != nil || len(pos) != len(recs) {
		t.Fatalf("append: %d positions for %d records, %v", len(pos), len(recs), err)
	}
	return pos
}

// readAll reads a journal from pos on.
func readAll(t testing.TB, s cloud.Store, pos int64) (recs []string, at []int64, next int64) {
	t.Helper()
	next, err := s.ReadJournal(context.Background(), journalKey, pos, func(pos int64, rec []byte) error {
		recs, at = append(recs, string(rec)), append(at, pos)
		return nil
	})
	if err != nil {
		t.Fatalf("read journal from %d: %v", pos, err)
	}
	return recs, at, next
}

func journalRecords(t *testing.T, s cloud.Store) {
	j := mustOpen(t, s, journalKey)
	if recs, _, _ := readAll(t, s, 0); len(recs) > 0 {
		t.Errorf("an empty journal has %q", recs)
	}
	if pos, err := j.Append(); len(pos) > 0 || err != nil {
		t.Errorf("append of nothing: %v, %v", pos, err)
	}
	all := []string{"one", "two", "", "with\x00bytes\xff\n", strings.Repeat("long", 300000), "last"}
	var pos []int64
	pos = append(pos, mustAppend(t, j, all[0])...)
	pos = append(pos, mustAppend(t, j, all[1:4]...)...)
	pos = append(pos, mustAppend(t, j, all[4])...)
	pos = append(pos, mustAppend(t, j, all[5])...)
	recs, at, next := readAll(t, s, 0)
	if !slices.Equal(recs, all) || !slices.Equal(at, pos) {
		t.Fatalf("read back %d records at %v; want %d at %v", len(recs), at, len(all), pos)
	}
	for i, p := range pos {
		if rec, err := s.ReadRecord(t.Context(), journalKey, p); err != nil || string(rec) != all[i] {
			t.Errorf("record at %d: %.40q, %v; want %.40q", p, rec, err, all[i])
		}
		if recs, _, n := readAll(t, s, p); !slices.Equal(recs, all[i:]) || n != next {
			t.Errorf("from %d on: %d records up to %d; want %d up to %d", p, len(recs), n, len(all)-i, next)
		}
	}
	if recs, _, n := readAll(t, s, next); len(recs) > 0 || n != next {
		t.Errorf("behind the end: %q, %d", recs, n)
	}
	// It is one object, or several below its key.
	listed := keysOf(t, s, "runs/1/")
	if !slices.ContainsFunc(listed, func(key string) bool { return key == journalKey || strings.HasPrefix(key, journalKey+"/") }) {
		t.Errorf("the journal is not listed: %q", listed)
	}
}

func journalReopen(t *testing.T, s cloud.Store) {
	var all []string
	var pos []int64
	for i := range 5 {
		j := mustOpen(t, s, journalKey)
		for k := range i {
			all = append(all, fmt.Sprintf("%d.%d", i, k))
			pos = append(pos, mustAppend(t, j, all[len(all)-1])...)
		}
		mustClose(t, j)
		if recs, at, _ := readAll(t, s, 0); !slices.Equal(recs, all) || !slices.Equal(at, pos) {
			t.Fatalf("after %d writers: %q at %v; want %q at %v", i+1, recs, at, all, pos)
		}
	}
}

func journalOneWriter(t *testing.T, s cloud.Store) {
	alive := func(want bool) {
		t.Helper()
		for range 3 { // asking changes nothing
			if got, err := s.JournalAlive(t.Context(), journalKey); err != nil || got != want {
				t.Errorf("alive: %v, %v; want %v", got, err, want)
			}
		}
	}
	alive(false)
	j := mustOpen(t, s, journalKey)
	alive(true)
	_, err := s.OpenJournal(t.Context(), journalKey)
	wantKind(t, "second writer", err, cloud.KindConflict)
	alive(true)
	mustAppend(t, j, "still mine")
	k := mustOpen(t, s, "runs/2/journal") // another journal is free
	mustClose(t, k)
	mustClose(t, j)
	alive(false)
	j = mustOpen(t, s, journalKey)
	alive(true)
	mustClose(t, j)
	alive(false)
}

// journalWriterRace: at no time are there two writers, also while others ask
// whether there is one.
func journalWriterRace(t *testing.T, s cloud.Store) {
	var holders, turns atomic.Int32
	stop := make(chan struct{})
	var asking, wg sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.JournalAlive(t.Context(), journalKey); err != nil {
					t.Errorf("alive: %v", err)
				}
			}
		})
	}
	for w := range 16 {
		wg.Go(func() {
			for range 20 {
				j, err := s.OpenJournal(t.Context(), journalKey)
				if err != nil {
					wantKind(t, "open", err, cloud.KindConflict)
					continue
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d writers", n)
				}
				if _, err := j.Append(fmt.Appendf(nil, "%d", w)); err != nil {
					t.Errorf("append: %v", err)
				}
				turns.Add(1)
				holders.Add(-1)
				if err := j.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
	}
	wg.Wait()
	// With nobody writing, the questions alone must not keep a writer out.
	for range 20 {
		mustClose(t, mustOpen(t, s, journalKey))
	}
	close(stop)
	asking.Wait()
	if recs, _, _ := readAll(t, s, 0); len(recs) != int(turns.Load()) {
		t.Errorf("%d records of %d turns", len(recs), turns.Load())
	}
}

func journalClosed(t *testing.T, s cloud.Store) {
	j := mustOpen(t, s, journalKey)
	mustAppend(t, j, "one")
	mustClose(t, j)
	_, err := j.Append([]byte("two"))
	wantKind(t, "append after close", err, cloud.KindClosed)
	if err := j.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	k := mustOpen(t, s, journalKey)
	if err := j.Close(); err != nil {
		t.Errorf("close a third time: %v", err)
	}
	if _, err := s.OpenJournal(t.Context(), journalKey); cloud.KindOf(err) != cloud.KindConflict {
		t.Errorf("the old writer's close released the new one's lock: %v", err)
	}
	mustAppend(t, k, "two")
	if recs, _, _ := readAll(t, s, 0); !slices.Equal(recs, []string{"one", "two"}) {
		t.Errorf("journal has %q", recs)
	}
}

func journalMissing(t *testing.T, s cloud.Store) {
	_, err := s.ReadJournal(t.Context(), journalKey, 0, func(int64, []byte) error { return nil })
	wantKind(t, "read journal", err, cloud.KindNotFound)
	_, err = s.ReadRecord(t.Context(), journalKey, 0)
	wantKind(t, "read record", err, cloud.KindNotFound)
	j := mustOpen(t, s, journalKey)
	pos := mustAppend(t, j, "first record", "second record")
	for _, p := range []int64{-1, pos[0] + 1, pos[1] - 1, pos[1] + 1, pos[1] + 1<<40} {
		_, err = s.ReadRecord(t.Context(), journalKey, p)
		wantKind(t, fmt.Sprintf("read record at %d", p), err, cloud.KindCorrupt)
		_, err := s.ReadJournal(t.Context(), journalKey, p, func(int64, []byte) error { return nil })
		wantKind(t, fmt.Sprintf("read journal from %d", p), err, cloud.KindInvalid)
	}
}

// journalConcurrent: many callers share the journal, each one's records stay
// in its order and lie where Append said.
func journalConcurrent(t *testing.T, s cloud.Store) {
	const callers, each = 32, 40
	j := mustOpen(t, s, journalKey)
	positions := make([][]int64, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := 0; i < each; i += 2 {
				pos, err := j.Append(fmt.Appendf(nil, "%d %d", c, i), fmt.Appendf(nil, "%d %d", c, i+1))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				positions[c] = append(positions[c], pos...)
				// Acknowledged is readable, at once.
				if rec, err := s.ReadRecord(t.Context(), journalKey, pos[1]); err != nil || string(rec) != fmt.Sprintf("%d %d", c, i+1) {
					t.Errorf("record just appended: %q, %v", rec, err)
				}
			}
		})
	}
	wg.Wait()
	next := make([]int, callers)
	recs, at, _ := readAll(t, s, 0)
	if len(recs) != callers*each {
		t.Fatalf("%d records", len(recs))
	}
	for n, rec := range recs {
		var c, i int
		if _, err := fmt.Sscanf(rec, "%d %d", &c, &i); err != nil {
			t.Fatalf("record %q: %v", rec, err)
		}
		if i != next[c] || positions[c][i] != at[n] {
			t.Fatalf("caller %d: record %d at %d; want %d at %d", c, i, at[n], next[c], positions[c][i])
		}
		next[c]++
	}
}

// journalReadWhileWritten: a reader that follows sees every record once, in
// order, and never part of one.
func journalReadWhileWritten(t *testing.T, s cloud.Store) {
	const records = 600
	rec := func(i int) []byte {
		return append(fmt.Appendf(nil, "%d:", i), bytes.Repeat([]byte{byte(i)}, i*37%9000)...)
	}
	j := mustOpen(t, s, journalKey)
	var written atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var pos int64
			seen := 0
			for seen < records && !t.Failed() {
				acked := int(written.Load())
				next, err := s.ReadJournal(t.Context(), journalKey, pos, func(at int64, got []byte) error {
					if !bytes.Equal(got, rec(seen)) {
						return fmt.Errorf("record %d at %d is %.20q", seen, at, got)
					}
					seen++
					return nil
				})
				if err != nil {
					t.Errorf("follow: %v", err)
					return
				}
				if seen < acked {
					t.Errorf("read %d records when %d were acknowledged", seen, acked)
					return
				}
				pos = next
			}
		})
	}
	for i := 0; i < records; i += 3 {
		if _, err := j.Append(rec(i), rec(i+1), rec(i+2)); err != nil {
			t.Fatal(err)
		}
		written.Store(int64(i + 3))
	}
	wg.Wait()
}

func journalStop(t *testing.T, s cloud.Store) {
	j := mustOpen(t, s, journalKey)
	pos := mustAppend(t, j, "a", "b", "c")
	enough := errors.New("enough")
	next, err := s.ReadJournal(t.Context(), journalKey, 0, func(_ int64, rec []byte) error {
		if string(rec) == "b" {
			return enough
		}
		return nil
	})
	if err != enough || next != pos[1] {
		t.Errorf("stopped at %d with %v; want %d", next, err, pos[1])
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.ReadJournal(ctx, journalKey, 0, func(int64, []byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("read on with a cancelled context: %v", err)
	}
}

// journalDeleted: after deleting a run its key begins anew.
func journalDeleted(t *testing.T, s cloud.Store) {
	j := mustOpen(t, s, journalKey)
	mustAppend(t, j, "old", "older")
	readAll(t, s, 0)
	mustClose(t, j)
	if err := s.DeletePrefix(t.Context(), "runs/1"); err != nil {
		t.Fatal(err)
	}
	_, err := s.ReadJournal(t.Context(), journalKey, 0, func(int64, []byte) error { return nil })
	wantKind(t, "read a deleted journal", err, cloud.KindNotFound)
	j = mustOpen(t, s, journalKey)
	mustAppend(t, j, "new")
	if recs, _, _ := readAll(t, s, 0); !slices.Equal(recs, []string{"new"}) {
		t.Errorf("journal has %q", recs)
	}
}
