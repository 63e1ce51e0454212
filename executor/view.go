package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
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
	if v.state.status.Final() || !v.state.begun {
		return v.state.report(v.Header, live), nil
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

// Live is the tasks that run now, as of at most a second ago.
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

// EachItem calls yield for the items of the tasks from to to-1 in index order
// (nil for an unmapped function, and for a task whose item is not known yet).
func (v *View) EachItem(ctx context.Context, fn string, from, to int, yield func(index int, item any) bool) error {
	f := v.state.byName[fn]
	if f == nil {
		return fmt.Errorf("no function %q in this run", fn)
	}
	switch {
	case f.spec.Map == nil:
		for i := from; i < to; i++ {
			if !yield(i, nil) {
				return nil
			}
		}
		return nil
	case f.from != nil:
		return v.eachUpstream(ctx, f, from, to, yield)
	}
	it, err := v.loadItems(ctx, fn)
	if err != nil || it == nil {
		return err
	}
	err = it.Each(from, min(to, it.Len()), func(i int, item any) error {
		if !yield(i, item) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (v *View) eachUpstream(ctx context.Context, f *function, from, to int, yield func(int, any) bool) error {
	for i := from; i < to; i++ {
		b, err := v.Result(ctx, f.from.spec.Name, i)
		if err != nil {
			return err
		}
		item, err := value.DecodeOrdered(b)
		if err != nil {
			return err
		}
		if !yield(i, item) {
			return nil
		}
	}
	return nil
}

func (v *View) loadItems(ctx context.Context, fn string) (planner.Items, error) {
	if it, ok := v.items[fn]; ok {
		return it, nil
	}
	it, err := LoadItems(ctx, v.store, v.Header.Run, fn)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, nil // expanded later, or never
	}
	if err != nil {
		return nil, err
	}
	v.items[fn] = it
	return it, nil
}

// logPage is how much Log returns at a time.
const logPage = 1 << 20

// Log is output of an attempt of a task (0: the last one, or the one that
// runs) from byte off on, at most a page of it. done says that the attempt
// has ended and nothing follows what was returned.
func (v *View) Log(ctx context.Context, fn string, index, attempt int, off int64) (data []byte, done bool, err error) {
	var live []task.Live
	if !v.state.status.Final() {
		if live, err = v.Live(ctx); err != nil {
			return nil, false, err
		}
	}
	for _, l := range live {
		if l.Function == fn && l.Index == index && (attempt == 0 || attempt == l.Attempt) {
			if l.Log.Key == "" {
				return nil, false, nil
			}
			data, err := v.readLog(ctx, l.Log.Key, l.Log.Off+off, logPage)
			return data, false, err
		}
	}
	o, err := v.attempt(ctx, fn, index, attempt)
	if err != nil {
		return nil, false, err
	}
	if o == nil {
		t, _ := v.Task(fn, index)
		return nil, t.Status.Final(), nil
	}
	left := o.Log.Len - off
	if left <= 0 {
		return nil, true, nil
	}
	data, err = v.readLog(ctx, o.Log.Key, o.Log.Off+off, min(left, logPage))
	return data, err == nil && int64(len(data)) >= left, err
}

// attempt is an attempt of a task (0: the last); of an earlier one only what
// its log needs; nil if there is none.
func (v *View) attempt(ctx context.Context, fn string, index, attempt int) (*task.Outcome, error) {
	if attempt == 0 {
		t, ok := v.Task(fn, index)
		if !ok {
			return nil, nil
		}
		return v.Outcome(ctx, fn, t)
	}
	if t, ok := v.Task(fn, index); ok && t.Attempts == attempt {
		return v.Outcome(ctx, fn, t)
	}
	if v.earlier == nil || v.known != v.next {
		v.earlier, v.known = map[attemptOf]*task.Outcome{}, v.next
		err := v.Outcomes(ctx, func(name string, o *task.Outcome) bool {
			if t, ok := v.Task(name, o.Index); ok && o.Attempt < t.Attempts {
				v.earlier[attemptOf{name, o.Index, o.Attempt}] = &task.Outcome{Index: o.Index, Status: o.Status, Cause: o.Cause,
					Attempt: o.Attempt, Log: o.Log}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return v.earlier[attemptOf{fn, index, attempt}], nil
}

func (v *View) readLog(ctx context.Context, key string, off, n int64) ([]byte, error) {
	// Most logs are short, and who follows one gets a few lines at a time.
	b := make([]byte, min(n, 16<<10))
	got, err := v.store.ReadAt(ctx, key, b, off)
	if got == len(b) && int64(got) < n {
		b = make([]byte, n)
		got, err = v.store.ReadAt(ctx, key, b, off)
	}
	if errors.Is(err, io.EOF) || cloud.KindOf(err) == cloud.KindNotFound {
		err = nil
	}
	return b[:got], err
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
