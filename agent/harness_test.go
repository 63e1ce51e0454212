//go:build unix

package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__warden" {
		WardenMain()
	}
	if dir := os.Getenv("CJ_TEST_COORDINATOR"); dir != "" {
		coordinatorMain(dir)
	}
	os.Exit(m.Run())
}

// list is items in memory.
type list []any

func (l list) Len() int      { return len(l) }
func (l list) Bytes() int64  { return 0 }
func (l list) Elements() int { return len(l) }
func (l list) Each(from, to int, fn func(int, any) error) error {
	for i := from; i < to; i++ {
		if err := fn(i, l[i]); err != nil {
			return err
		}
	}
	return nil
}

// world is a pipeline in a folder, with a store, ready to run.
type world struct {
	t     testing.TB
	dir   string
	store cloud.Store
	cfg   Config
	run   *Run
	items map[string]list
	stop  map[string]bool

	mu       sync.Mutex
	outcomes map[string]map[int]task.Outcome
	unrun    []string
	batches  []task.Batch
	reported func(task.Batch)
	tune     func(*Agent)
	queue    func(cloud.Queue) cloud.Queue
}

func newWorld(t testing.TB, yaml string) *world {
	t.Helper()
	dir := t.TempDir()
	doc, problems := spec.Parse([]byte("name: test\n"+yaml), "pipeline.yaml")
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	p, problems := doc.Bind(spec.BindOptions{})
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	store, err := local.OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: filepath.Join(dir, "work"), store: store, items: map[string]list{}, stop: map[string]bool{},
		outcomes: map[string]map[int]task.Outcome{}}
	scratch := filepath.Join(dir, "scratch")
	for _, d := range []string{w.dir, scratch} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.run = &Run{
		ID: "r1", Pipeline: p, Info: spec.RunInfo{ID: "r1"}, Dir: w.dir, Scratch: scratch, Store: store, Prefix: "runs/r1",
		BaseEnv: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"},
		Items:   func(_ context.Context, fn string) (planner.Items, error) { return w.items[fn], nil },
		Count: func(fn string) int {
			if p.Function(fn).Map == nil {
				return 1
			}
			return len(w.items[fn])
		},
		Needs: func(context.Context, string) (map[string]*spec.NeedsInfo, string, error) { return nil, scratch, nil },
		Upstream: func(_ context.Context, fn string, i int) ([]byte, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.outcomes[fn][i].Result, nil
		},
		NeedsID: func(context.Context, string, int) (task.ID, error) { return task.ID{1}, nil },
		Stopped: func(fn string) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.stop[fn] },
	}
	w.cfg = Config{Run: w.run, Slots: 1}
	w.cfg.Report = func(b task.Batch) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.batches = append(w.batches, b)
		for _, o := range b.Outcomes {
			m := w.outcomes[b.Function]
			if m == nil {
				m = map[int]task.Outcome{}
				w.outcomes[b.Function] = m
			}
			if old, ok := m[o.Index]; ok && old.Attempt == o.Attempt {
				w.t.Errorf("%s/%d was reported twice", b.Function, o.Index)
			}
			m[o.Index] = o
		}
		for _, i := range b.Unrun {
			w.unrun = append(w.unrun, fmt.Sprintf("%s/%d", b.Function, i))
		}
		if w.reported != nil {
			w.reported(b)
		}
	}
	return w
}

func (w *world) file(name, text string) {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		w.t.Fatal(err)
	}
	mode := os.FileMode(0o600)
	if strings.HasPrefix(text, "#!") {
		mode = 0o700
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
}

// all is the ranges of every task of these functions.
func (w *world) all(fns ...string) []cloud.Range {
	var rs []cloud.Range
	for _, fn := range fns {
		rs = append(rs, cloud.Range{Run: "r1", Function: fn, To: w.run.Count(fn), Attempt: 1})
	}
	return rs
}

// work runs these ranges to the end.
func (w *world) work(ctx context.Context, ranges ...cloud.Range) {
	w.t.Helper()
	a, done := w.start(ctx, ranges...)
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
	_ = a
}

// start runs these ranges; the channel gives the error of Work.
func (w *world) start(ctx context.Context, ranges ...cloud.Range) (*Agent, <-chan error) {
	w.t.Helper()
	q := local.NewQueue()
	w.cfg.Queue = q
	left, report := 0, w.cfg.Report
	for _, r := range ranges {
		left += r.To - r.From
	}
	cfg := w.cfg
	if w.queue != nil {
		cfg.Queue = w.queue(q)
	}
	cfg.Report = func(b task.Batch) {
		report(b)
		w.mu.Lock()
		defer w.mu.Unlock()
		if left -= len(b.Outcomes) + len(b.Unrun); left == 0 {
			_ = q.Close()
		}
	}
	if err := q.Send(context.Background(), ranges...); err != nil {
		w.t.Fatal(err)
	}
	a := New(cfg)
	a.graceCancel, a.graceTimeout = 200*time.Millisecond, 200*time.Millisecond
	if w.tune != nil {
		w.tune(a)
	}
	done := make(chan error, 1)
	go func() { done <- a.Work(ctx) }()
	return a, done
}

// do runs the only task of a function.
func (w *world) do(fn string) task.Outcome {
	w.t.Helper()
	w.work(context.Background(), w.all(fn)...)
	return w.get(fn, 0)
}

func (w *world) get(fn string, i int) task.Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	o, ok := w.outcomes[fn][i]
	if !ok {
		w.t.Fatalf("%s/%d was not reported", fn, i)
	}
	return o
}

func (w *world) log(o task.Outcome) string {
	w.t.Helper()
	if o.Log.Len == 0 {
		return ""
	}
	b := make([]byte, o.Log.Len)
	if n, err := w.store.ReadAt(context.Background(), o.Log.Key, b, o.Log.Off); n != len(b) {
		w.t.Fatalf("log %+v: %d, %v", o.Log, n, err)
	}
	return string(b)
}

func (w *world) result(o task.Outcome) string {
	w.t.Helper()
	if o.ResultAt.Key == "" {
		if o.Result == nil {
			return "null"
		}
		return string(o.Result)
	}
	b := make([]byte, o.ResultAt.Len)
	if _, err := w.store.ReadAt(context.Background(), o.ResultAt.Key, b, o.ResultAt.Off); err != nil && err != io.EOF {
		w.t.Fatal(err)
	}
	return string(b)
}

// each checks every outcome of a function.
func (w *world) each(fn string, f func(i int, o task.Outcome)) {
	w.t.Helper()
	for i := range w.run.Count(fn) {
		f(i, w.get(fn, i))
	}
}

func ranged(n int) list {
	l := make(list, n)
	for i := range l {
		l[i] = i
	}
	return l
}

func texts(s ...string) list {
	l := make(list, len(s))
	for i := range l {
		l[i] = s[i]
	}
	return l
}

func indent(s string) string {
	return "      " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n      ") + "\n"
}

func sortedStrings(s []string) []string { sort.Strings(s); return s }

// coordinatorMain is an agent in a process of its own, to be killed.
func coordinatorMain(dir string) {
	var t quietTB
	b, err := os.ReadFile(filepath.Join(dir, "pipeline.yaml"))
	if err != nil {
		panic(err)
	}
	w := newWorld(&t, string(b))
	defer os.RemoveAll(filepath.Dir(w.dir))
	exe, _ := os.Executable()
	w.cfg.Warden = []string{exe, "__warden"}
	w.cfg.Slots = 2
	w.run.Dir = dir
	w.run.Scratch = filepath.Join(dir, "scratch")
	_ = os.MkdirAll(w.run.Scratch, 0o700)
	var fns []string
	for _, f := range w.run.Pipeline.Functions {
		fns = append(fns, f.Name)
	}
	a, done := w.start(context.Background(), w.all(fns...)...)
	_ = os.WriteFile(filepath.Join(dir, "token"), []byte(a.Token()), 0o600)
	err = <-done
	fmt.Println("done", err)
	os.Exit(0)
}

// quietTB is a testing.TB outside of a test.
type quietTB struct {
	testing.TB
}

func (*quietTB) Helper()               {}
func (*quietTB) Fatal(args ...any)     { panic(fmt.Sprint(args...)) }
func (*quietTB) Errorf(string, ...any) {}
func (*quietTB) TempDir() string {
	d, err := os.MkdirTemp("", "cj-agent-test")
	if err != nil {
		panic(err)
	}
	return d
}

func jsonOf(v any) string { return string(value.JSON(v)) }
