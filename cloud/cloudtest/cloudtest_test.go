package cloudtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

func TestStoreInMemory(t *testing.T) {
	t.Parallel()
	cloudtest.TestStore(t, func(testing.TB) cloud.Store { return cloudtest.NewStore() })
}

// A wrapper without a script is the store it wraps.
func TestFaultyWithoutFaults(t *testing.T) {
	t.Parallel()
	cloudtest.TestStore(t, func(testing.TB) cloud.Store { return cloudtest.Faulty(cloudtest.NewStore()) })
}

func TestStoreInSynctest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := cloudtest.NewStore()
		j, err := s.OpenJournal(t.Context(), "j")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := j.Append([]byte("x"))
			done <- err
		}()
		synctest.Wait()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestKill(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := cloudtest.NewStore()
	b := a.Process()
	ja, err := a.OpenJournal(ctx, "j")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ja.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.OpenJournal(ctx, "j"); cloud.KindOf(err) != cloud.KindConflict {
		t.Errorf("second writer: %v", err)
	}
	a.Kill()
	if alive, err := b.JournalAlive(ctx, "j"); alive || err != nil {
		t.Errorf("alive after kill: %v, %v", alive, err)
	}
	if _, err := ja.Append([]byte("ghost")); err == nil {
		t.Error("a killed process appended")
	}
	if err := a.Put(ctx, "x", nil); err == nil {
		t.Error("a killed process put")
	}
	jb, err := b.OpenJournal(ctx, "j")
	if err != nil {
		t.Fatal(err)
	}
	if err := ja.Close(); err == nil {
		t.Error("a killed process closed its journal")
	}
	if _, err := jb.Append([]byte("two")); err != nil {
		t.Error(err)
	}
	var got []string
	if _, err := b.ReadJournal(ctx, "j", 0, func(_ int64, rec []byte) error {
		got = append(got, string(rec))
		return nil
	}); err != nil || len(got) != 2 || got[0] != "one" || got[1] != "two" {
		t.Errorf("journal has %q, %v", got, err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	errDisk := errors.New("disk on fire")
	killed := 0
	s := cloudtest.Faulty(cloudtest.NewStore(),
		cloudtest.Fault{Op: cloudtest.OpPut, Key: "plan", Nth: 2, Times: 2, Kind: cloud.KindTransient},
		cloudtest.Fault{Op: cloudtest.OpCreate, Kind: cloud.KindThrottled, After: true},
		cloudtest.Fault{Op: cloudtest.OpGet, Key: "secret", Times: -1, Kind: cloud.KindDenied, Err: errDisk, Do: func() { killed++ }},
		cloudtest.Fault{Op: cloudtest.OpAppend, Nth: 2, Kind: cloud.KindOther, After: true},
	)
	for i, want := range []bool{true, false, false, true} {
		if err := s.Put(ctx, "plan.json", nil); (err == nil) != want {
			t.Errorf("put %d: %v", i+1, err)
		}
	}
	if err := s.Put(ctx, "other", nil); err != nil {
		t.Errorf("put of another key: %v", err)
	}
	// The reply is lost, the effect is not.
	if err := s.Create(ctx, "k", []byte("v")); cloud.KindOf(err) != cloud.KindThrottled {
		t.Errorf("create: %v", err)
	}
	if err := s.Create(ctx, "k", nil); cloud.KindOf(err) != cloud.KindConflict {
		t.Errorf("create again: %v", err)
	}
	for range 3 {
		if _, err := s.Get(ctx, "my/secret"); !errors.Is(err, errDisk) {
			t.Errorf("get: %v", err)
		}
	}
	if killed != 3 {
		t.Errorf("do was called %d times", killed)
	}
	j, err := s.OpenJournal(ctx, "j")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false} {
		if _, err := j.Append([]byte("r")); (err == nil) != want {
			t.Errorf("append %d: %v", i+1, err)
		}
	}
	n := 0
	if _, err := s.ReadJournal(ctx, "j", 0, func(int64, []byte) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("journal has %d records, %v; want 2", n, err)
	}
	if got := s.Count(cloudtest.OpPut); got != 5 {
		t.Errorf("%d puts", got)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := cloudtest.Faulty(cloudtest.NewStore())
	s.FullAfter(10)
	j, err := s.OpenJournal(ctx, "j")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "a", []byte("12345")); err != nil {
		t.Errorf("put that fits: %v", err)
	}
	if err := s.Put(ctx, "b", []byte("123456")); cloud.KindOf(err) != cloud.KindFull {
		t.Errorf("put that does not fit: %v", err)
	}
	if _, err := j.Append([]byte("12345")); err != nil {
		t.Errorf("append that fits: %v", err)
	}
	if _, err := j.Append([]byte("1")); cloud.KindOf(err) != cloud.KindFull {
		t.Errorf("append that does not fit: %v", err)
	}
	s.FullAfter(-1)
	if _, err := j.Append([]byte("1")); cloud.KindOf(err) != cloud.KindFull {
		t.Errorf("append after an error: %v", err)
	}
	if err := s.Put(ctx, "b", []byte("123456")); err != nil {
		t.Errorf("put on a disk with room: %v", err)
	}
}
