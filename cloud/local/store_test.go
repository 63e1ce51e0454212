package local_test

import (
	"context"
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
