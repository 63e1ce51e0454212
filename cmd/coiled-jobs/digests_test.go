package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDigests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	write := func(text string, at time.Time) (digest string) {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256([]byte(text))
		return hex.EncodeToString(h[:])
	}
	day := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	d := digests{filepath.Join(dir, "state", "digests.json")}
	one := write("one", day)
	f := statOf(path)
	if d.of(f) != "" || !f.is(one) || f.is(hex.EncodeToString(make([]byte, 32))) {
		t.Errorf("%+v: %q", f, d.of(f))
	}
	d.note(f, one)
	if got := d.of(statOf(path)); got != one {
		t.Errorf("known as %q", got)
	}
	two := write("two", day.Add(time.Second)) // of the same size
	if got := d.of(statOf(path)); got != "" {
		t.Errorf("after a change known as %q", got)
	}
	d.note(statOf(path), two)
	if got := d.of(statOf(path)); got != two {
		t.Errorf("known as %q", got)
	}
	if f := statOf(filepath.Join(dir, "nothing")); f != (fileStat{}) || d.of(f) != "" || f.is(two) {
		t.Errorf("%+v", f)
	}
	if err := os.WriteFile(d.path, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := d.of(statOf(path)); got != "" {
		t.Errorf("from a torn file: %q", got)
	}
}
