package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// View is a reader's picture of a run: the fold of its journal, up to date as
// of the last Refresh. It never writes. Not safe for concurrent use.
type View struct {
	Header *Header

	store    cloud.Store
	rd       journalReader
	pipeline *spec.Pipeline
	state    *State
	next     int64 // where Refresh goes on
	items    map[string]planner.Items

	// What was read last, as neighbours lie in one record; and the outcomes
	// that others followed, as of a position of the journal.
	recent  [4]recentRecord
	oldest  int
	earlier map[attemptOf]*task.Outcome
	known   int64
}

type recentRecord struct {
	pos int64 // 0: none, as no record is there
	o   *outcomes
}

type attemptOf struct {
	function       string
	index, attempt int
}

// OpenView reads a run. KindNotFound if there is none.
func OpenView(ctx context.Context, store cloud.Store, run string) (*View, error) {
	h, err := LoadHeader(ctx, store, run)
	if err != nil {
		return nil, err
	}
	p, err := loadPipeline(ctx, store, h, 0)
	if err != nil {
		return nil, err
	}
	v := &View{Header: h, store: store, rd: journalReader{store, run}, pipeline: p,
		state: newState(run, Selected(p, h.Functions, h.Only), h.Only), items: map[string]planner.Items{}}
	for fn, n := range h.Planned { // known before a coordinator has begun
		if f := v.state.byName[fn]; f != nil && n >= 0 {
			f.plan(n)
		}
	}
	return v, v.Refresh(ctx)
}

// Refresh reads what the journal has got since.
func (v *View) Refresh(ctx context.Context) error {
	file := v.state.file
	next, err := v.store.ReadJournal(ctx, journalKey(v.Header.Run), v.next, folder{v.state}.record)
	if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
		return err
	}
	v.next = max(v.next, next)
	if v.state.file != file {
		p, err := loadPipeline(ctx, v.store, v.Header, v.state.file)
		if err != nil {
			return err
		}
		v.pipeline = p
		v.state.setSpecs(p)
	}
	return nil
}

// Alive says whether a coordinator works on the run now.
func (v *View) Alive(ctx context.Context) (bool, error) {
	alive, err := v.store.JournalAlive(ctx, journalKey(v.Header.Run))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return false, nil
	}
	return alive, err
}

// Report is the state of the run. Running tasks come from live.json while the
// coordinator lives; a run that is not finished and has no live coordinator
// is interrupted.
func (v *View) Report(ctx context.Context) (Report, error) {
	alive := false
	if !v.state.status.Final() {
		// Ask before reading, so that a coordinator that finishes in between is
		// seen as finished and not as dead.
		var err error
		if alive, err = v.Alive(ctx); err != nil {
			return Report{}, err
		}
		if err := v.Refresh(ctx); err != nil {
			return Report{}, err
		}
	}
	live := map[string]int{}
	if alive {
		tasks, err := v.Live(ctx)
		if err != nil {
			return Report{}, err
		}
		for _, l := range tasks {
			live[l.Function]++
		}
	}
	if v.state.status.Final() {
		return v.state.report(v.Header, live), nil
	}
	if !v.state.begun {
		r := v.state.report(v.Header, live)
		if v.interrupted(alive) {
			r.Status = RunInterrupted
		}
		return r, nil
	}
	until := time.Now()
	if !alive {
		// Machines go on without a coordinator, but not for ever.
		if end := time.Unix(0, v.state.last).Add(v.pipeline.Limits.Unattended); end.Before(until) {
			until = end
		}
	}
	r := v.state.reportAt(v.Header, live, until.UnixNano())
	if alive {
		r.Seconds = max(r.Seconds, time.Since(r.Started).Seconds()) // the last record may be long ago
	} else {
		r.Status = RunInterrupted
	}
	return r, nil
}

// localGrace is how long it may take on this machine from the record of a run
// until its coordinator has begun.
const localGrace = 30 * time.Second

// interrupted says whether nobody works on a run that is not finished.
func (v *View) interrupted(alive bool) bool {
	return !alive && (v.state.begun || time.Since(v.Header.Created) > v.beginGrace())
}

// beginGrace is how long a run may be pending. After that whoever wanted to
// begin it is dead. Elsewhere files are sent first, and a coordinator may need
// a machine.
func (v *View) beginGrace() time.Duration {
	if v.Header.Cloud == "aws" {
		return max(localGrace, v.pipeline.Limits.Unattended)
	}
	return localGrace
}

// Live is the tasks that run now, as of at most a second ago; of a run whose
// coordinator is dead, those that ran at its end.
func (v *View) Live(ctx context.Context) ([]task.Live, error) {
	b, err := v.store.Get(ctx, liveKey(v.Header.Run))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f liveFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, &cloud.Error{Op: "read", Resource: liveKey(v.Header.Run), Kind: cloud.KindCorrupt, Err: err}
	}
	open := f.Tasks[:0]
	for _, l := range f.Tasks {
		if t, ok := v.Task(l.Function, l.Index); ok && !t.Status.Final() {
			open = append(open, l)
		}
	}
	return open, nil
}

// Now calls yield for the tasks of a function that run now: who works on
// what is not in the journal.
func (v *View) Now(ctx context.Context, fn string, yield func(TaskReport)) error {
	alive, err := v.Alive(ctx)
	if err != nil || !alive {
		return err
	}
	live, err := v.Live(ctx)
	for _, l := range live {
		if t, ok := v.Task(l.Function, l.Index); ok && l.Function == fn {
			t.Status, t.Attempts, t.Cause = task.Running, l.Attempt, task.NoCause
			t.Seconds = max(0, time.Since(time.Unix(0, l.Started)).Seconds())
			yield(t)
		}
	}
	return err
}

// Pipeline is the pipeline as recorded at apply (or the last retry).
func (v *View) Pipeline() *spec.Pipeline { return v.pipeline }

// Functions is the functions of the run in file order.
func (v *View) Functions() []string {
	names := make([]string, len(v.state.order))
	for i, f := range v.state.order {
		names[i] = f.spec.Name
	}
	return names
}

// Mapped says whether a function fans out.
func (v *View) Mapped(fn string) bool {
	f := v.state.byName[fn]
	return f != nil && f.spec.Map != nil
}

// Code is the hash of the code that a function's coordinator last recorded.
func (v *View) Code(fn string) string { return v.state.code[fn] }

func (f *function) report(i int) TaskReport {
	if f.table.status == nil {
		return TaskReport{Index: i, Pos: -1}
	}
	t := &f.table
	return TaskReport{Index: i, Status: t.status[i], Cause: t.cause[i], Attempts: int(t.attempts[i]),
		Cached: t.flags[i]&taskCached != 0, Seconds: float64(t.seconds[i]), Pos: t.pos[i]}
}

// Tasks yields the tasks of a function in index order.
func (v *View) Tasks(fn string) iter.Seq[TaskReport] {
	return func(yield func(TaskReport) bool) {
		f := v.state.byName[fn]
		if f == nil {
			return
		}
		for i := 0; i < f.n; i++ {
			if !yield(f.report(i)) {
				return
			}
		}
	}
}

// Task is one task; false if there is no such function or index (yet).
func (v *View) Task(fn string, index int) (TaskReport, bool) {
	f := v.state.byName[fn]
	if f == nil || index < 0 || index >= f.n {
		return TaskReport{}, false
	}
	return f.report(index), true
}

// Outcome is the last outcome of a task; nil if there is none.
func (v *View) Outcome(ctx context.Context, _ string, t TaskReport) (*task.Outcome, error) {
	if t.Pos < 0 {
		return nil, nil
	}
	rec, ordinal := splitPos(t.Pos)
	o, err := v.record(ctx, rec)
	if err != nil {
		return nil, err
	}
	if ordinal >= len(o.list) {
		return nil, errRecord
	}
	return &o.list[ordinal], nil
}

func (v *View) record(ctx context.Context, pos int64) (*outcomes, error) {
	for _, r := range v.recent {
		if r.pos == pos && r.o != nil {
			return r.o, nil
		}
	}
	o, err := v.rd.record(ctx, pos)
	if err == nil {
		v.recent[v.oldest] = recentRecord{pos, o}
		v.oldest = (v.oldest + 1) % len(v.recent)
	}
	return o, err
}

// Attempts is every recorded outcome of a task, oldest first.
func (v *View) Attempts(ctx context.Context, fn string, index int) ([]task.Outcome, error) {
	var all []task.Outcome
	// What ended at the first attempt has one outcome, unless the run was taken
	// up again: then the whole journal is read.
	if t, ok := v.Task(fn, index); ok && v.state.epoch <= 1 && t.Status.Final() && t.Attempts <= 1 && t.Pos >= 0 {
		o, err := v.Outcome(ctx, fn, t)
		if err != nil || o == nil {
			return nil, err
		}
		return []task.Outcome{*o}, nil
	}
	err := v.Outcomes(ctx, func(name string, o *task.Outcome) bool {
		if name == fn && o.Index == index {
			c := *o
			c.Result, c.Stderr = bytes.Clone(o.Result), bytes.Clone(o.Stderr)
			all = append(all, c)
		}
		return true
	})
	return all, err
}

var errStop = errors.New("enough")

// Outcomes calls yield for every recorded outcome of every task (all
// attempts), in journal order. yield must not keep the outcome's bytes.
func (v *View) Outcomes(ctx context.Context, yield func(fn string, o *task.Outcome) bool) error {
	_, err := v.OutcomesSince(ctx, 0, yield)
	return err
}

// OutcomesSince is Outcomes from a position of the journal on; next is where
// to go on later. 0 is the beginning.
func (v *View) OutcomesSince(ctx context.Context, pos int64, yield func(fn string, o *task.Outcome) bool) (next int64, err error) {
	next, err = v.store.ReadJournal(ctx, journalKey(v.Header.Run), pos, func(_ int64, rec []byte) error {
		if len(rec) == 0 || rec[0] != recordOutcomes {
			return nil
		}
		o, err := decodeOutcomes(rec)
		if err != nil {
			return err
		}
		for i := range o.list {
			if !yield(o.function, &o.list[i]) {
				return errStop
			}
		}
		return nil
	})
	if errors.Is(err, errStop) || cloud.KindOf(err) == cloud.KindNotFound {
		return max(next, pos), nil
	}
	return max(next, pos), err
}

// Result is the result of a task as compact JSON; "null" if there is none.
func (v *View) Result(ctx context.Context, fn string, index int) ([]byte, error) {
	t, ok := v.Task(fn, index)
	if !ok || t.Pos < 0 || t.Status != task.Succeeded {
		return []byte("null"), nil
	}
	o, err := v.rd.outcome(ctx, t.Pos)
	if err != nil {
		return nil, err
	}
	return v.rd.result(ctx, o)
}

// EachResult calls yield for the tasks of a function in index order with
// their results (nil unless succeeded); faster than Result for each.
func (v *View) EachResult(ctx context.Context, fn string, yield func(t TaskReport, result []byte) bool) error {
	f := v.state.byName[fn]
	if f == nil {
		return fmt.Errorf("no function %q in this run", fn)
	}
	return v.rd.eachResult(ctx, f, func(i int, res []byte) bool { return yield(f.report(i), res) })
}

// Coordinator is the host and process of the last coordinator.
func (v *View) Coordinator() (host string, pid int) { return v.state.host, v.state.pid }

// Epoch counts the coordinators that the run has had.
func (v *View) Epoch() int { return v.state.epoch }

// Machines is the machines that are recorded, in the order in which they joined.
func (v *View) Machines() []task.Machine { return slices.Clone(v.state.fleet.machines) }

// Rates is what a second of a task costs on each machine, in dollars, if what a
// machine could have run is what it costs.
func (v *View) Rates() map[string]float64 {
	return v.state.fleet.bill(v.state.last, v.state.status.Final()).rates
}
