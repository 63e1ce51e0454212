package local_test

import (
	"context"
	"os"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
)

func open(t testing.TB, dir string) *local.Store {
	t.Helper()
	s, err := local.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	cloudtest.TestStore(t, func(t testing.TB) cloud.Store { return open(t, t.TempDir()) })
}

func TestQueue(t *testing.T) {
	t.Parallel()
	cloudtest.TestQueue(t, func(testing.TB) cloud.Queue { return local.NewQueue() })
}

func TestMachines(t *testing.T) {
	t.Parallel()
	cloudtest.TestMachines(t, func(testing.TB) cloud.Machines {
		return local.NewMachines(func(ctx context.Context, _ cloud.Machine) { <-ctx.Done() })
	})
}

// A writer learns that its journal was deleted instead of writing into nothing.
func TestJournalDeletedWhileWritten(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	ctx := context.Background()
	j, err := s.OpenJournal(ctx, "runs/a/journal")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.URL()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte("two")); cloud.KindOf(err) != cloud.KindNotFound {
		t.Errorf("append to a deleted journal: %v", err)
	}
}
