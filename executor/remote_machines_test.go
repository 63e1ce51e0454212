package executor

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// receive lets a machine take a range from the queue that it knows.
func (k *cluster) receive(m *machine) {
	q := &k.queue
	if m.epoch != k.c.state.epoch {
		q = &k.old
	}
	if len(*q) == 0 || len(m.held) >= 3 {
		return
	}
	i := k.rng.IntN(len(*q))
	r := (*q)[i]
	if k.rng.IntN(4) > 0 { // else the message comes once more
		*q = slices.Delete(*q, i, i+1)
	}
	if wire.EpochOf(r.ID) < m.epoch || k.claims[r.ID] != "" {
		return
	}
	k.claims[r.ID] = m.id
	m.held = append(m.held, &work{r, r.From})
}

// work starts or ends a task of a machine.
func (k *cluster) work(m *machine) {
	k.t.Helper()
	if m.runs != "" {
		w := m.runsWork
		oc := k.fate(w.Function, m.runsOwn, w.at)
		oc.Index, oc.Attempt, oc.Machine, oc.Seconds = w.at, w.Attempt, m.id, 1
		m.pending = append(m.pending, task.Batch{Function: w.Function, Outcomes: []task.Outcome{oc}})
		m.runs = ""
		w.at++
		return
	}
	todo := slices.DeleteFunc(slices.Clone(m.held), func(w *work) bool { return w.at == w.To })
	if len(todo) == 0 {
		return
	}
	w := todo[k.rng.IntN(len(todo))]
	name := fmt.Sprintf("%s/%d", w.Function, w.at)
	f := k.c.state.byName[w.Function]
	if !m.lost {
		if f.table.status != nil && f.table.status[w.at] == task.Succeeded {
			k.t.Fatalf("%s starts after its success was recorded", name)
		}
		for _, o := range k.machines {
			if o.runs == name && !o.lost {
				k.t.Fatalf("%s runs on %s and on %s", name, o.id, m.id)
			}
		}
	}
	if f.from != nil {
		up, err := ReadUpstream(context.Background(), k.store, "r1", w.Upstream, w.at)
		if err != nil || string(up.Result) != fmt.Sprintf("%q", f.from.spec.Name+"/"+itoa(w.at)) {
			k.t.Fatalf("%s follows %s, %v", name, up.Result, err)
		}
	}
	m.runs, m.runsWork = name, w
	if f.table.status != nil {
		m.runsOwn = ownFailures(f, w.at)
	}
}

func ownFailures(f *function, i int) int {
	if b := f.table.budgets[i]; b != nil {
		return b.own
	}
	return 0
}

func itoa(i int) string { return fmt.Sprint(i) }

// write stores a segment with what a machine has to report.
func (k *cluster) write(m *machine) {
	s := &wire.Segment{Machine: m.id, Session: 1, N: m.written + 1, Batches: m.pending}
	for _, w := range m.held {
		if w.at == w.To {
			s.Ended = append(s.Ended, w.ID)
		}
	}
	if len(s.Batches)+len(s.Ended) == 0 {
		return
	}
	m.written++
	m.pending = nil
	m.held = slices.DeleteFunc(m.held, func(w *work) bool { return w.at == w.To })
	if m.lost {
		return // nobody looks
	}
	key := SegmentsKey(m.id, 1)
	k.segments[key] = append(k.segments[key], s)
}

func (k *cluster) report(id string, s *wire.Segment) bool {
	b, err := s.Encode() // folding must not share memory with what is stored
	if err != nil {
		k.t.Fatal(err)
	}
	if s, err = wire.DecodeSegment(b); err != nil {
		k.t.Fatal(err)
	}
	return k.tell(input{seg: &segment{key: SegmentsKey(id, s.Session), machine: id, n: s.N, batches: s.Batches, ended: s.Ended}})
}

// fold reports the next segment of a machine, if there is one.
func (k *cluster) fold(id string) bool {
	key := SegmentsKey(id, 1)
	n := k.c.Folded()[key]
	return n < len(k.segments[key]) && k.report(id, k.segments[key][n])
}

func (k *cluster) foldAll(id string) {
	for k.fold(id) {
		continue
	}
}

// lose gives a machine up; as a zombie it goes on, and nobody listens.
func (k *cluster) lose(i int, zombie bool) {
	m := k.machines[i]
	if m.lost {
		k.machines = slices.Delete(k.machines, i, i+1)
		return
	}
	m.lost = zombie
	k.lost = append(k.lost, m.id)
	if !zombie {
		k.machines = slices.Delete(k.machines, i, i+1)
	}
	epoch := k.c.state.epoch
	k.gone = append(k.gone, m.id)
	k.foldAll(m.id)
	if k.c.state.epoch != epoch {
		return // it died of that; the next one knows
	}
	k.gone = k.gone[:len(k.gone)-1]
	k.tell(input{lost: &lost{m.id, "machine " + m.id + " was lost: it is silent", k.claimed(m.id)}})
}

// cancel stops the run. Some machines end what they run and say so, some die,
// some do not hear of it.
func (k *cluster) cancel() {
	k.t.Helper()
	epoch := k.c.state.epoch
	k.tell(input{event: &event{Kind: evCancel, Reason: "test"}})
	if k.c.state.epoch != epoch {
		return // it died before that was recorded, or goes on because it died
	}
	for i := len(k.machines) - 1; i >= 0; i-- {
		switch m := k.machines[i]; k.rng.IntN(3) {
		case 0:
			k.giveBack(m, task.Outcome{Status: task.Cancelled, Cause: task.CauseCancelled})
			k.write(m)
			k.foldAll(m.id)
		case 1:
			k.machines = slices.Delete(k.machines, i, i+1)
			k.lost = append(k.lost, m.id)
		}
		if k.c.state.epoch != epoch {
			return
		}
	}
	k.tell(input{event: &event{Kind: evGone}})
}

// giveBack ends what a machine runs, and what it has claimed.
func (k *cluster) giveBack(m *machine, running task.Outcome) {
	for _, w := range m.held {
		if w.at == w.To {
			continue
		}
		b := task.Batch{Function: w.Function}
		for i := w.at; i < w.To; i++ {
			if w == m.runsWork && m.runs != "" && i == w.at {
				running.Index, running.Attempt, running.Machine = i, w.Attempt, m.id
				b.Outcomes = append(b.Outcomes, running)
				continue
			}
			b.Unrun = append(b.Unrun, i)
		}
		m.pending = append(m.pending, b)
		w.at = w.To
	}
	m.runs = ""
}

// open is the ids of ranges that have not ended, in an order that is always
// the same.
func (k *cluster) open() iter.Seq[string] {
	return slices.Values(slices.Sorted(maps.Keys(k.c.state.hands.byID)))
}

func (k *cluster) claimed(id string) []string {
	var ids []string
	for r, by := range k.claims {
		if by == id {
			ids = append(ids, r)
		}
	}
	slices.Sort(ids)
	return ids
}

// leave lets a machine go that gives back what it has not started.
func (k *cluster) leave(i int) {
	m := k.machines[i]
	if m.lost || m.epoch != k.c.state.epoch {
		return
	}
	if slices.ContainsFunc(m.held, func(w *work) bool { return w.at < w.To && k.c.state.byName[w.Function].spec.OnFailureStop }) {
		return // the order in which such tasks run would be another
	}
	k.giveBack(m, task.Outcome{Status: task.Failed, Cause: task.CauseMachine, Message: "taken back"})
	k.write(m)
	k.machines = slices.Delete(k.machines, i, i+1)
	k.gone = append(k.gone, m.id)
	epoch := k.c.state.epoch
	k.foldAll(m.id)
	if k.c.state.epoch == epoch {
		k.gone = k.gone[:len(k.gone)-1]
	}
}

// answer is what a fleet does at a takeover: machines say what they hold, and
// take nothing from old queues any more; what they had reported goes first.
func (k *cluster) answer() {
	epoch := k.c.state.epoch
	for _, m := range k.machines {
		if !m.lost {
			k.foldAll(m.id)
		}
	}
	if k.c.state.epoch != epoch {
		return
	}
	var held []cloud.Range
	for _, m := range k.machines {
		if m.lost {
			continue
		}
		m.epoch = epoch
		for _, w := range m.held {
			held = append(held, w.Range)
		}
	}
	k.old = nil
	k.waiting = false
	k.tell(input{held: &held})
}

// fateOf is like fate, but attempts that machines spoiled change nothing.
func fateOf(seed uint64) func(fn string, own, i int) task.Outcome {
	return func(fn string, own, i int) task.Outcome {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d/%s/%d/%d", seed, fn, i, own)
		if h.Sum64()%10 < 3 {
			return failed(task.CauseExit)
		}
		return task.Outcome{Status: task.Succeeded, Result: fmt.Appendf(nil, "%q", fn+"/"+itoa(i))}
	}
}
