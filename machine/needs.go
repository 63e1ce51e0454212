package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// maxResults is how many bytes of results an expression may ask for.
const maxResults = 64 << 20

// needs is what tasks must know of others, as the coordinator has stored it.
type needs struct {
	st  *stay
	dir string // where files of results go
	up  *executor.UpstreamReader

	mu        sync.Mutex
	starts    map[string]*wire.Start // by function: of the newest epoch
	epochs    map[string]int
	items     map[string]planner.Items
	following map[string]map[string]cloud.Range // ranges in hand that follow others, by function and id
}

func newNeeds(st *stay) *needs {
	return &needs{st: st, up: executor.NewUpstreamReader(st.store, st.run), starts: map[string]*wire.Start{},
		epochs: map[string]int{}, items: map[string]planner.Items{},
		following: map[string]map[string]cloud.Range{}}
}

// start reads what a coordinator says of a function; it did so before it handed
// out tasks of it.
func (st *stay) start(ctx context.Context, fn string, epoch int) (*wire.Start, error) {
	n := st.needs
	n.mu.Lock()
	have, known := n.starts[fn], n.epochs[fn]
	n.mu.Unlock()
	if have != nil && known >= epoch {
		return have, nil
	}
	s := &wire.Start{}
	if err := st.m.read(ctx, wire.StartKey(st.run, fn, epoch), s); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if epoch > n.epochs[fn] {
		n.starts[fn], n.epochs[fn] = s, epoch
	}
	return n.starts[fn], nil
}

// follow remembers where what the tasks of a range follow lies; unfollow
// forgets it.
func (st *stay) follow(r cloud.Range) {
	st.following(r, func(ranges map[string]cloud.Range) { ranges[r.ID] = r })
}

func (st *stay) unfollow(r cloud.Range) {
	st.following(r, func(ranges map[string]cloud.Range) { delete(ranges, r.ID) })
}

// following changes the ranges that follow the same function as r does, if it
// follows one.
func (st *stay) following(r cloud.Range, change func(ranges map[string]cloud.Range)) {
	if r.Upstream == "" {
		return
	}
	from := st.followed(r.Function)
	n := st.needs
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.following[from] == nil {
		n.following[from] = map[string]cloud.Range{}
	}
	change(n.following[from])
}

// followed is the function whose tasks those of fn follow one by one.
func (st *stay) followed(fn string) string {
	if f := st.pipeline.Function(fn); f != nil {
		from, _ := f.Follows()
		return from
	}
	return ""
}

func (n *needs) startOf(fn string) *wire.Start {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.starts[fn]
}

// Count is the number of tasks of a function that this machine has work of.
func (n *needs) Count(fn string) int {
	if s := n.startOf(fn); s != nil {
		return s.Count
	}
	return 0
}

// Items gives the items of a mapped function.
func (n *needs) Items(ctx context.Context, fn string) (planner.Items, error) {
	n.mu.Lock()
	it := n.items[fn]
	n.mu.Unlock()
	if it != nil {
		return it, nil
	}
	it, err := executor.LoadItems(ctx, n.st.store, n.st.run, fn)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.items[fn] = it
	return it, nil
}

// upstream reads what task index that follows one of fn must know of it.
func (n *needs) upstream(ctx context.Context, fn string, index int) (executor.Upstream, bool, error) {
	n.mu.Lock()
	var at string
	for _, r := range n.following[fn] {
		if index >= r.From && index < r.To {
			at = r.Upstream
		}
	}
	n.mu.Unlock()
	if at == "" {
		return executor.Upstream{}, false, nil
	}
	u, err := n.up.Read(ctx, at, index)
	return u, true, err
}

// Upstream is the result of a task of fn that another one follows.
func (n *needs) Upstream(ctx context.Context, fn string, index int) ([]byte, error) {
	u, ok, err := n.upstream(ctx, fn, index)
	if err == nil && !ok {
		err = fmt.Errorf("nobody has told where the result of %s/%d lies", fn, index)
	}
	return u.Result, err
}

// NeedsID is the identity of the work of fn: of all its tasks, or of one.
func (n *needs) NeedsID(ctx context.Context, fn string, index int) (task.ID, error) {
	if index >= 0 {
		u, _, err := n.upstream(ctx, fn, index)
		return u.ID, err
	}
	need, ok := n.need(fn)
	if !ok {
		return task.ID{}, fmt.Errorf("nobody has told what became of %s", fn)
	}
	return need.ID, nil
}

// Outputs lists what tasks of fn (one, if index >= 0) kept.
func (n *needs) Outputs(ctx context.Context, fn string, index int) ([]task.Output, error) {
	if index >= 0 {
		u, _, err := n.upstream(ctx, fn, index)
		return u.Outputs, err
	}
	need, ok := n.need(fn)
	if !ok || need.Outputs == "" {
		return nil, nil
	}
	var all []task.Output
	err := n.lines(ctx, need.Outputs, func(line []byte) error {
		var o task.Output
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("outputs of %s: %w", fn, err)
		}
		all = append(all, o)
		return nil
	})
	return all, err
}

// need is what a function that this machine has work of was told of fn. All
// that need fn as a whole are told the same: it has ended.
func (n *needs) need(fn string) (wire.Need, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	best, found, epoch := wire.Need{}, false, -1
	for name, s := range n.starts {
		if need, ok := s.Needs[fn]; ok && !need.Streams && n.epochs[name] > epoch {
			best, found, epoch = need, true, n.epochs[name]
		}
	}
	return best, found
}

// Needs gives what tasks of fn see of the functions in needs, and a folder with
// their results.
func (n *needs) Needs(ctx context.Context, fn string) (map[string]*spec.NeedsInfo, string, error) {
	s := n.startOf(fn)
	if s == nil {
		return nil, "", fmt.Errorf("nobody has told what %s needs", fn)
	}
	dir := filepath.Join(n.dir, fn)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	infos := map[string]*spec.NeedsInfo{}
	for name, need := range s.Needs {
		info := &spec.NeedsInfo{Status: need.Status, Count: need.Count, Failed: need.Failed, Mapped: need.Mapped,
			BehindFailure: need.BehindFailure,
			Without:       func(i int) bool { return i >= need.Count || within(need.Without, i) },
			Results:       func() ([]any, error) { return nil, fmt.Errorf("the results of %s are not all there yet", name) }}
		infos[name] = info
		if need.Streams {
			continue
		}
		path := filepath.Join(dir, name+".jsonl")
		if err := n.fetch(ctx, need.Results, path); err != nil {
			return nil, "", fmt.Errorf("results of %s: %w", name, err)
		}
		info.Results = sync.OnceValues(func() ([]any, error) { return results(name, path) })
	}
	return infos, dir, nil
}

func within(spans [][2]int, i int) bool {
	for _, s := range spans {
		if i >= s[0] && i < s[1] {
			return true
		}
	}
	return false
}

// results decodes a file of results for an expression.
func results(fn, path string) ([]any, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() > 2*maxResults {
		return nil, tooLarge(fn)
	}
	all := []any{}
	size := 0
	err = eachLine(f, func(line []byte) error {
		if size += len(line); size > maxResults {
			return tooLarge(fn)
		}
		v, err := value.DecodeOrdered(bytes.Clone(line))
		if err != nil {
			return fmt.Errorf("result %d of %s: %w", len(all), fn, err)
		}
		all = append(all, v)
		return nil
	})
	return all, err
}

func tooLarge(fn string) error {
	return fmt.Errorf("the results of %s are over %d MiB together: too large for an expression; read them from the file $COILED_JOBS_NEEDS/%s.jsonl",
		fn, maxResults>>20, fn)
}

// fetch copies an object to a file; "" is an empty one.
func (n *needs) fetch(ctx context.Context, key, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if key == "" {
		return nil
	}
	_, err = io.Copy(f, &object{ctx: ctx, store: n.st.store, key: key})
	return err
}

func (n *needs) lines(ctx context.Context, key string, fn func(line []byte) error) error {
	return eachLine(&object{ctx: ctx, store: n.st.store, key: key}, fn)
}

// eachLine calls fn with each line; it must not keep it.
func eachLine(r io.Reader, fn func(line []byte) error) error {
	br := bufio.NewReaderSize(r, 1<<16)
	var long []byte
	for {
		part, err := br.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			long = append(long, part...)
			continue
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 {
			if ferr := fn(line); ferr != nil {
				return ferr
			}
		}
		long = long[:0]
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// object reads a stored object from its start, in large pieces.
type object struct {
	ctx   context.Context
	store cloud.Store
	key   string
	off   int64
	buf   []byte
	have  []byte
	end   bool
}

func (o *object) Read(p []byte) (int, error) {
	if len(o.have) == 0 && !o.end {
		if o.buf == nil {
			o.buf = make([]byte, 1<<20)
		}
		n, err := o.store.ReadAt(o.ctx, o.key, o.buf, o.off)
		if o.end = errors.Is(err, io.EOF); err != nil && !o.end {
			return 0, err
		}
		o.off += int64(n)
		o.have = o.buf[:n]
	}
	n := copy(p, o.have)
	o.have = o.have[n:]
	if n == 0 && o.end && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
