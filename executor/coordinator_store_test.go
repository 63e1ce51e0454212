package executor

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// When the journal cannot be written, nothing that was not recorded is acted
// upon, the error names the cause, and a later coordinator goes on.
func TestFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	for full := int64(200); full < 6000; full += 331 {
		mem := cloudtest.NewStore()
		faulty := cloudtest.Faulty(mem)
		g := newRig(t, faulty, `{name: p, functions: {a: {command: [x], map: {range: 40}}}}`)
		g.create()
		faulty.FullAfter(full)
		ran := map[int]int{}
		var mu sync.Mutex
		inner := g.run
		g.run = func(ctx context.Context, c *Coordinator, fn string, r cloud.Range, i int) task.Outcome {
			mu.Lock()
			ran[i]++
			mu.Unlock()
			return inner(ctx, c, fn, r, i)
		}
		_, err := g.coordinate(context.Background())
		if err != nil && cloud.KindOf(err) != cloud.KindFull {
			t.Fatalf("full after %d bytes: %v", full, err)
		}
		// Space is made; the run goes on.
		g.store = mem
		v, verr := OpenView(context.Background(), mem, "r1")
		if verr != nil {
			t.Fatal(verr)
		}
		recorded := map[int]bool{}
		for tr := range v.Tasks("a") {
			recorded[tr.Index] = tr.Status == task.Succeeded
		}
		before := map[int]int{}
		for i, n := range ran {
			before[i] = n
		}
		r, err := g.coordinate(context.Background())
		if err != nil || r.Functions[0].Succeeded != 40 {
			t.Fatalf("full after %d bytes, resumed: %s, %v", full, summaryOf(r), err)
		}
		for i := range 40 {
			if recorded[i] && ran[i] != before[i] {
				t.Errorf("full after %d bytes: task %d ran again after its success was recorded", full, i)
			}
		}
	}
}

// lostStore gives journals that another writer takes over.
type lostStore struct {
	cloud.Store
	lost chan struct{}
}

type lostAfter struct {
	cloud.Journal
	lost chan struct{}
}

func (s *lostStore) OpenJournal(ctx context.Context, key string) (cloud.Journal, error) {
	j, err := s.Store.OpenJournal(ctx, key)
	return &lostAfter{j, s.lost}, err
}

func (j *lostAfter) Lost() <-chan struct{} { return j.lost }

func (j *lostAfter) Append(recs ...[]byte) ([]int64, error) {
	select {
	case <-j.lost:
		return nil, &cloud.Error{Op: "append to journal", Kind: cloud.KindConflict}
	default:
		return j.Journal.Append(recs...)
	}
}

// A coordinator that lost its journal while it had nothing to record ends
// what it runs, records nothing, and says so.
func TestLostJournalEndsTheCoordinator(t *testing.T) {
	t.Parallel()
	store := &lostStore{Store: cloudtest.NewStore(), lost: make(chan struct{})}
	g := newRig(t, store, "name: p\nfunctions:\n  f: {command: [\"true\"]}\n")
	g.run = func(ctx context.Context, _ *Coordinator, _ string, _ cloud.Range, _ int) task.Outcome {
		close(store.lost)
		<-ctx.Done() // it is ended
		return task.Outcome{Status: task.Cancelled, Cause: task.CauseCancelled}
	}
	g.create()
	r, err := g.coordinate(t.Context())
	if cloud.KindOf(err) != cloud.KindConflict || r.Status.Final() {
		t.Errorf("ended as %s, %v", r.Status, err)
	}
	v, err := OpenView(t.Context(), store, g.header.Run)
	if err != nil {
		t.Fatal(err)
	}
	if tr, _ := v.Task("f", 0); tr.Status != task.Pending {
		t.Errorf("the task is recorded as %s", tr.Status)
	}
}

// slowStore has journals that take their time for one record.
type slowStore struct {
	cloud.Store
	takes time.Duration
}

type slowJournal struct {
	cloud.Journal
	s *slowStore
}

func (s *slowStore) OpenJournal(ctx context.Context, key string) (cloud.Journal, error) {
	j, err := s.Store.OpenJournal(ctx, key)
	return &slowJournal{j, s}, err
}

func (j *slowJournal) Append(recs ...[]byte) ([]int64, error) {
	time.Sleep(j.s.takes)
	j.s.takes = 0
	return j.Journal.Append(recs...)
}

// People hear of a store that takes nothing, and only then.
func TestStoreThatTakesNothing(t *testing.T) {
	t.Parallel()
	for takes, want := range map[time.Duration]int{20 * time.Second: 0, time.Hour: 1} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, &slowStore{cloudtest.NewStore(), takes}, "name: p\nfunctions:\n  f: {command: [x]}\n")
			g.create()
			if r, err := g.coordinate(context.Background()); err != nil || r.Status != RunSucceeded {
				t.Errorf("%s, %v", summaryOf(r), err)
			}
			told := 0
			for _, n := range g.notices {
				if n.Kind == NoticeWarning && strings.Contains(n.Text, "the store has taken nothing for 30s") {
					told++
				}
			}
			if told != want {
				t.Errorf("after %s it was told %d times", takes, told)
			}
		})
	}
}
