package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Prefix is where everything of a run lies in its store.
func Prefix(run string) string { return "runs/" + run }

// The keys of a run's objects.
func headerKey(run string) string  { return Prefix(run) + "/header.json" }
func journalKey(run string) string { return Prefix(run) + "/journal" }
func liveKey(run string) string    { return Prefix(run) + "/live.json" }

// SummaryKey is where a hint at the state of the run lies for listings.
func SummaryKey(run string) string { return Prefix(run) + "/summary.json" }

// IndexPrefix is before the id of every run in keys of empty objects, so that
// runs can be listed without looking at all that they hold.
const IndexPrefix = "index/"

// CancelKey is the object whose existence asks the coordinator to cancel; its
// content says who asked.
func CancelKey(run string) string { return Prefix(run) + "/control/cancel" }

// PipelineKey is where the nth recorded pipeline file lies (0: of apply).
func PipelineKey(run string, n int) string {
	key := Prefix(run) + "/pipeline.yaml"
	if n > 0 {
		key += "." + strconv.Itoa(n)
	}
	return key
}

func itemsPrefix(run, fn string) string { return Prefix(run) + "/items/" + fn }
func itemsRefKey(run, fn string) string { return itemsPrefix(run, fn) + "/ref.json" }

// SaveItems records the items of a function.
func SaveItems(ctx context.Context, store cloud.Store, run, fn string, it planner.Items) error {
	ref, err := planner.SaveItems(ctx, store, itemsPrefix(run, fn), it)
	if err != nil {
		return err
	}
	return store.Put(ctx, itemsRefKey(run, fn), ref)
}

// LoadItems opens the recorded items of a function. KindNotFound if there are none (yet).
func LoadItems(ctx context.Context, store cloud.Store, run, fn string) (planner.Items, error) {
	ref, err := store.Get(ctx, itemsRefKey(run, fn))
	if err != nil {
		return nil, err
	}
	return planner.LoadItems(ctx, store, itemsPrefix(run, fn), ref)
}

// Create records a new run: its header and its file. KindConflict if the id is taken.
func Create(ctx context.Context, store cloud.Store, h *Header, source []byte) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	if err := store.Put(ctx, PipelineKey(h.Run, 0), source); err != nil {
		return err
	}
	if err := store.Put(ctx, IndexPrefix+h.Run, nil); err != nil {
		return err
	}
	return store.Create(ctx, headerKey(h.Run), b)
}

// LoadHeader reads the header of a run. KindNotFound if there is no such run.
func LoadHeader(ctx context.Context, store cloud.Store, run string) (*Header, error) {
	b, err := store.Get(ctx, headerKey(run))
	if err != nil {
		return nil, err
	}
	h := &Header{}
	if err := json.Unmarshal(b, h); err != nil {
		return nil, &cloud.Error{Op: "read", Resource: headerKey(run), Kind: cloud.KindCorrupt, Err: err}
	}
	return h, nil
}

// loadPipeline reads and binds the nth recorded file of a run.
func loadPipeline(ctx context.Context, store cloud.Store, h *Header, n int) (*spec.Pipeline, error) {
	src, err := store.Get(ctx, PipelineKey(h.Run, n))
	if err != nil {
		return nil, err
	}
	p, err := Bind(src, h.File, h.Params, h.Cloud)
	if err != nil {
		return nil, fmt.Errorf("the file recorded with run %s: %w", h.Run, err)
	}
	return p, nil
}

// Bind parses and binds a file's bytes.
func Bind(src []byte, file string, params map[string]string, cloudName string) (*spec.Pipeline, error) {
	doc, problems := spec.Parse(src, file)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	p, problems := doc.Bind(spec.BindOptions{Params: params, Cloud: cloudName})
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// Selected is the functions that take part in a run: all, or those named (by
// names or only) with everything that they need, in file order.
func Selected(p *spec.Pipeline, names []string, only map[string][]int) []*spec.Function {
	want := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		f := p.Function(name)
		if f == nil || want[name] {
			return
		}
		want[name] = true
		for _, n := range f.AllNeeds() {
			add(n)
		}
	}
	for _, n := range names {
		add(n)
	}
	for n := range only {
		add(n)
	}
	if len(names) == 0 && len(only) == 0 {
		return p.Functions
	}
	var out []*spec.Function
	for _, f := range p.Functions {
		if want[f.Name] {
			out = append(out, f)
		}
	}
	return out
}

// journalReader reads outcomes by position.
type journalReader struct {
	store cloud.Store
	run   string
}

// outcome reads the outcome at a position that the table of a function has.
func (j journalReader) outcome(ctx context.Context, pos int64) (*task.Outcome, error) {
	rec, ordinal := splitPos(pos)
	o, err := j.record(ctx, rec)
	if err != nil {
		return nil, err
	}
	if ordinal >= len(o.list) {
		return nil, errRecord
	}
	return &o.list[ordinal], nil
}

func (j journalReader) record(ctx context.Context, rec int64) (*outcomes, error) {
	b, err := j.store.ReadRecord(ctx, journalKey(j.run), rec)
	if err != nil {
		return nil, err
	}
	return decodeOutcomes(b)
}

// result is the result of an outcome as compact JSON.
func (j journalReader) result(ctx context.Context, o *task.Outcome) ([]byte, error) {
	switch {
	case o.ResultAt.Key != "":
		return readSpan(ctx, j.store, o.ResultAt)
	case o.Result == nil:
		return []byte("null"), nil
	}
	return o.Result, nil
}

func readSpan(ctx context.Context, store cloud.Store, s task.Span) ([]byte, error) {
	b := make([]byte, s.Len)
	n, err := store.ReadAt(ctx, s.Key, b, s.Off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if int64(n) < s.Len {
		return nil, &cloud.Error{Op: "read", Resource: s.Key, Kind: cloud.KindCorrupt,
			Err: fmt.Errorf("%d bytes where %d were recorded", n, s.Len)}
	}
	return b, nil
}

// resultBlock is how many tasks eachResult looks at together: records are
// read once each, in the order in which they lie, and given out by index.
const resultBlock = 1 << 14

// kept is what others may want of an outcome.
type kept struct {
	has     bool // the task succeeded
	result  []byte
	at      task.Span
	outputs []task.Output
	id      task.ID
}

// eachKept calls yield in index order with every task of f and what it gave.
func (j journalReader) eachKept(ctx context.Context, f *function, yield func(i int, k kept) bool) error {
	for base := 0; base < f.n; base += resultBlock {
		end := min(base+resultBlock, f.n)
		block := make([]kept, end-base)
		byPos := make([]int, 0, end-base)
		for i := base; i < end; i++ {
			if f.table.status != nil && f.table.status[i] == task.Succeeded && f.table.pos[i] >= 0 {
				byPos = append(byPos, i)
			}
		}
		sort.Slice(byPos, func(a, b int) bool { return f.table.pos[byPos[a]] < f.table.pos[byPos[b]] })
		var at int64 = -1
		var rec *outcomes
		for _, i := range byPos {
			r, ordinal := splitPos(f.table.pos[i])
			if r != at {
				o, err := j.record(ctx, r)
				if err != nil {
					return err
				}
				at, rec = r, o
			}
			if ordinal >= len(rec.list) {
				return errRecord
			}
			oc := &rec.list[ordinal]
			block[i-base] = kept{true, bytes.Clone(oc.Result), oc.ResultAt, oc.Outputs, oc.ID}
		}
		for k, it := range block {
			if !yield(base+k, it) {
				return nil
			}
		}
	}
	return nil
}

// resultOf is the result of a task; nil if it did not succeed.
func (j journalReader) resultOf(ctx context.Context, k kept) ([]byte, error) {
	if !k.has {
		return nil, nil
	}
	return j.result(ctx, &task.Outcome{Result: k.result, ResultAt: k.at})
}

// eachResult calls yield in index order with every task of f and its result;
// nil for tasks that did not succeed.
func (j journalReader) eachResult(ctx context.Context, f *function, yield func(i int, result []byte) bool) error {
	var failed error
	err := j.eachKept(ctx, f, func(i int, k kept) bool {
		res, err := j.resultOf(ctx, k)
		if failed = err; failed != nil {
			return false
		}
		return yield(i, res)
	})
	if err == nil {
		err = failed
	}
	return err
}
