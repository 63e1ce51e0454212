package executor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// cluster runs a real coordinator, step by step and without its loop, with
// machines, queues and stored segments of the test's own. Everything happens
// in one goroutine, in an order that rng chooses.
type cluster struct {
	t     testing.TB
	rng   *rand.Rand
	rig   *rig
	c     *Coordinator
	store cloud.Store
	now   time.Time
	slots int
	// fate is what an attempt ends with after a task has failed own times by itself.
	fate func(fn string, own, index int) task.Outcome

	queue    []cloud.Range // of the present epoch; messages may come twice
	old      []cloud.Range // of the one before, which machines take from until they have answered
	claims   map[string]string
	machines []*machine
	born     int
	segments map[string][]*wire.Segment // durable, by machine/session
	lost     []string                   // machines that were given up
	gone     []string                   // machines whose last segments are not folded yet
	waiting  bool                       // the coordinator waits for Held
	crashes  bool
	tear     bool         // the next append is cut off
	gate     sync.RWMutex // held but while the coordinator may write Start objects
	stops    int          // StopWork was called
}

type machine struct {
	id       string
	epoch    int     // the coordinator it has heard of
	held     []*work // also what has ended, until a segment says so
	pending  []task.Batch
	written  int
	lost     bool   // given up; it does not know
	runs     string // "fn/index" that runs now
	runsOwn  int
	runsWork *work
}

// work is a claimed range.
type work struct {
	cloud.Range
	at int // next index
}

func newCluster(t testing.TB, rng *rand.Rand, yaml string) *cluster {
	g := newRig(t, nil, yaml)
	k := &cluster{t: t, rng: rng, rig: g, now: time.Unix(1e9, 0), slots: 1 + rng.IntN(4), claims: map[string]string{},
		segments: map[string][]*wire.Segment{}}
	k.crashes = rng.IntN(3) > 0
	k.gate.Lock()
	k.store = &tornStore{cloudtest.NewStore(), k}
	g.store = k.store
	g.header.Cloud = "aws"
	g.create()
	return k
}

// tornStore cuts an append in the middle when the test says so.
type tornStore struct {
	cloud.Store
	k *cluster
}

type tornJournal struct {
	cloud.Journal
	k *cluster
}

func (s *tornStore) OpenJournal(ctx context.Context, key string) (cloud.Journal, error) {
	j, err := s.Store.OpenJournal(ctx, key)
	return &tornJournal{j, s.k}, err
}

func (s *tornStore) Put(ctx context.Context, key string, data []byte) error {
	if strings.HasPrefix(key, "runs/r1/start/") {
		s.k.gate.RLock()
		defer s.k.gate.RUnlock()
	}
	return s.Store.Put(ctx, key, data)
}

var errTorn = errors.New("torn")

func (j *tornJournal) Append(recs ...[]byte) ([]int64, error) {
	if j.k.tear {
		j.k.tear = false
		if n := j.k.rng.IntN(len(recs) + 1); n > 0 {
			_, _ = j.Journal.Append(recs[:n]...)
		}
		return nil, errTorn
	}
	return j.Journal.Append(recs...)
}

// start is a new coordinator.
func (k *cluster) start(b Begin) {
	k.t.Helper()
	ctx := context.Background()
	if k.c != nil {
		_ = k.c.journal.Close()
		close(k.c.done)
		k.prepared()
	}
	k.tear = false
	var err error
	k.c, err = NewCoordinator(ctx, Config{Store: k.store, Header: k.rig.header, Pipeline: bind(k.t, k.rig.yaml), Begin: b,
		Scratch: k.t.TempDir(), StopWork: func() { k.stops++ }, Now: func() time.Time { return k.now },
		Remote: &RemoteConfig{Capacity: func(string) int { return k.slots }}})
	if err != nil {
		k.t.Fatal(err)
	}
	if k.stops == 0 { // what never ran begins anew after a cancel, with what was said of it
		k.recorded()
	}
	k.waiting = k.c.waits
	k.old = append(k.old, k.queue...)
	k.queue = nil
	if err := k.c.begin(ctx); err != nil {
		k.t.Fatal(err)
	}
	k.settle()
	// What it had not folded of machines that are no more comes first; what
	// these held was in nobody's hands any more.
	for _, id := range k.gone {
		k.foldAll(id)
	}
	k.gone = nil
}

// tell gives inputs to the coordinator; false if that was its end.
func (k *cluster) tell(ins ...input) bool {
	k.t.Helper()
	if err := k.c.steps(context.Background(), ins); err != nil {
		if !errors.Is(err, errTorn) {
			k.t.Fatal(err)
		}
		k.start(Begin{})
		return false
	}
	k.settle()
	return true
}

// settle waits for what the coordinator does beside its loop, and takes what it
// hands out.
func (k *cluster) settle() {
	k.t.Helper()
	k.sent()
	for {
		k.prepared()
		var ins []input
		for len(k.c.in) > 0 {
			ins = append(ins, <-k.c.in)
		}
		if len(ins) == 0 {
			break
		}
		tear := k.tear
		k.tear = false
		if err := k.c.steps(context.Background(), ins); err != nil {
			k.t.Fatal(err)
		}
		k.tear = tear
		k.sent()
	}
	k.check()
}

// sent takes what the coordinator hands out.
func (k *cluster) sent() {
	k.t.Helper()
	for _, r := range k.c.outbox.list {
		if wire.EpochOf(r.ID) != k.c.state.epoch {
			k.t.Fatalf("range %q in epoch %d", r.ID, k.c.state.epoch)
		}
		if k.waiting {
			k.t.Fatalf("%v handed out before Held", r)
		}
		if _, err := k.store.Get(context.Background(), wire.StartKey("r1", r.Function, k.c.state.epoch)); err != nil {
			k.t.Fatalf("%v handed out before its start was written: %v", r, err)
		}
		k.queue = append(k.queue, r)
	}
	k.c.outbox.list = nil
}

func (k *cluster) prepared() {
	k.gate.Unlock()
	k.c.prep.Wait()
	k.gate.Lock()
}

// recorded checks that what counts as folded is.
func (k *cluster) recorded() {
	k.t.Helper()
	for key, n := range k.c.Folded() {
		for _, s := range k.segments[key][:n] {
			for _, b := range s.Batches {
				for _, oc := range b.Outcomes {
					if t := &k.c.state.byName[b.Function].table; int(t.attempts[oc.Index]) < oc.Attempt {
						k.t.Fatalf("segment %d of %s is folded, attempt %d of %s/%d is not", s.N, key, oc.Attempt, b.Function, oc.Index)
					}
				}
			}
		}
	}
}

func (k *cluster) check() {
	k.t.Helper()
	checkState(k.t, k.c.state)
	h := k.c.state.hands
	for _, f := range k.c.state.order {
		ranges, left := 0, 0
		for _, r := range h.open {
			if r.Function == f.spec.Name {
				ranges++
				left += r.left
			}
		}
		if ranges != f.ranges || left != f.counts[task.Running] || len(h.open) != len(h.byID) {
			k.t.Fatalf("%s: %d ranges with %d tasks are open, %d and %d are known", f.spec.Name, ranges, left, f.ranges, f.counts[task.Running])
		}
	}
}

// one does one thing; false: there is nothing to do.
func (k *cluster) one() bool {
	k.t.Helper()
	if k.c.state.status.Final() {
		return false
	}
	if len(k.machines) == 0 || len(k.machines) < 4 && k.rng.IntN(4) == 0 {
		k.born++
		k.machines = append(k.machines, &machine{id: fmt.Sprintf("m%d", k.born), epoch: k.c.state.epoch})
		return true
	}
	if k.waiting && k.rng.IntN(4) == 0 {
		k.answer()
		return true
	}
	i := k.rng.IntN(len(k.machines))
	m := k.machines[i]
	switch n := k.rng.IntN(100); {
	case n < 40:
		k.work(m)
	case n < 65:
		k.receive(m)
	case n < 85:
		k.write(m)
		k.fold(m.id)
	case n < 88: // once more
		id := fmt.Sprintf("m%d", 1+k.rng.IntN(k.born))
		if n := k.c.Folded()[SegmentsKey(id, 1)]; n > 0 {
			k.report(id, k.segments[SegmentsKey(id, 1)][k.rng.IntN(n)])
		}
	case n < 91:
		k.lose(i, k.rng.IntN(2) == 0)
	case n < 93:
		k.leave(i)
	case n < 94: // those that were given up may have claimed something since
		for id := range k.open() {
			if by := k.claims[id]; slices.Contains(k.lost, by) {
				k.tell(input{lost: &lost{by, "machine " + by + " was lost: it is silent", []string{id}}})
				break
			}
		}
	case n < 95 && k.crashes:
		k.start(Begin{})
	case n < 96 && k.crashes:
		k.tear = true
	default:
		if due := k.c.state.nextDue(); due < 1<<62 && due > k.now.UnixNano() {
			k.now = time.Unix(0, due)
		}
		k.tell(input{})
	}
	return true
}
