//go:build unix

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// identity is what a task's work is made of, part by part: "command", "code",
// "item", "env", "outputs", "software", "needs.<fn>". Same parts, same work.
type identity struct {
	parts map[string]string
	id    task.ID
}

// Remembered is what the cache knows about a task: its record for an identity,
// and (without result and outputs) the last one for an item.
type Remembered struct {
	ID       string            `json:"id"`
	Run      string            `json:"run"`
	Function string            `json:"function"`
	Index    int               `json:"index"`
	Finished time.Time         `json:"finished"`
	Result   json.RawMessage   `json:"result,omitempty"`
	ResultAt *task.Span        `json:"result_at,omitempty"`
	Outputs  []task.Output     `json:"outputs,omitempty"`
	Parts    map[string]string `json:"parts"`
	Files    map[string]string `json:"files,omitempty"` // the code, file by file
}

// CacheKey is where the record for an identity lies.
func CacheKey(pipeline, fn string, id task.ID) string {
	return "cache/" + pipeline + "/" + fn + "/" + hex.EncodeToString(id[:])
}

// LastKey is where the last record for an item lies, whatever its content was;
// item is its JSON, "null" for a function without a map. Comparing its parts
// with those of a task says why the task ran.
func LastKey(pipeline, fn string, item []byte) string {
	h := sha256.Sum256(item)
	return "cache/" + pipeline + "/" + fn + "/last/" + hex.EncodeToString(h[:16])
}

func part(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}

// identify computes the identity of a job.
func (a *Agent) identify(ctx context.Context, j *job) (*identity, error) {
	f, run := j.fn.f, a.run
	parts := map[string]string{}
	var what []any
	switch {
	case f.Run != nil:
		shell := make([]any, len(f.Run.Shell))
		for i, w := range f.Run.Shell {
			shell[i] = w
		}
		vars := make([]any, len(j.rendered.vars))
		for i, v := range j.rendered.vars {
			vars[i] = v
		}
		what = []any{"run", j.text, shell, vars}
	case f.Command != nil:
		argv := make([]any, len(j.argv))
		for i, w := range j.argv {
			argv[i] = w
		}
		what = []any{"command", argv}
	default:
		var args any
		if j.args != nil {
			args = j.args
		}
		what = []any{"python", f.Python.Target, f.Python.Bin, args, j.kw}
	}
	parts["command"] = part(value.JSON(append(what, string(f.Result))))

	code := a.codes.of(j.fn.name)
	if code.err != nil {
		return nil, code.err
	}
	if code.hash != "" {
		parts["code"] = code.hash
	}
	if j.mapped {
		x, err := a.itemIdentity(j.item)
		if err != nil {
			return nil, fmt.Errorf("read the item: %w", err)
		}
		parts["item"] = part(value.JSON(x))
	}
	env := &value.Object{}
	for _, v := range f.Env {
		env.Set(v.Name, "")
	}
	for i, name := range env.Keys {
		if v, ok := lookup(j.vars, name); ok {
			env.Vals[i] = v
		} else if v, ok := lookup(j.fn.fixed, name); ok {
			env.Vals[i] = v
		}
	}
	if env.Len() > 0 {
		parts["env"] = part(value.JSON(env.Map()))
	}
	if len(j.outputs) > 0 {
		outs := make([]any, len(j.outputs))
		for i, p := range j.outputs {
			outs[i] = p
		}
		parts["outputs"] = part(value.JSON(outs))
	}
	if s, err := a.software(f); err != nil {
		return nil, err
	} else if s != "" {
		parts["software"] = s
	}
	for _, n := range f.AllNeeds() {
		index := -1
		if n == j.fn.from {
			index = j.index
		}
		id, err := run.NeedsID(ctx, n, index)
		if err != nil {
			return nil, fmt.Errorf("identity of %s: %w", n, err)
		}
		parts["needs."+n] = hex.EncodeToString(id[:])
	}
	h := sha256.New()
	for _, k := range sortedKeys(parts) {
		_, _ = fmt.Fprintf(h, "%s=%s\n", k, parts[k])
	}
	x := &identity{parts: parts}
	copy(x.id[:], h.Sum(nil))
	return x, nil
}

func lookup(env []string, name string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if e := env[i]; len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:], true
		}
	}
	return "", false
}

// itemIdentity is an item with every file in it replaced by its path and
// content.
func (a *Agent) itemIdentity(v any) (any, error) {
	switch v := v.(type) {
	case *value.File:
		if v == nil {
			return nil, nil
		}
		if v.Abs == "" {
			id := v.ETag
			if id == "" {
				id = strconv.Itoa(v.Size) + " " + v.Modified.UTC().Format(time.RFC3339Nano)
			}
			return []any{"object", v.Path, id}, nil
		}
		h, err := a.files.hash(v.Abs)
		return []any{"file", v.Path, h}, err
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			x, err := a.itemIdentity(e)
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	case *value.Object:
		out := make([]any, 0, 2*v.Len())
		for i, k := range v.Keys {
			x, err := a.itemIdentity(v.Vals[i])
			if err != nil {
				return nil, err
			}
			out = append(out, k, x)
		}
		return out, nil
	case map[string]any:
		out := make([]any, 0, 2*len(v))
		for _, k := range sortedKeys(v) {
			x, err := a.itemIdentity(v[k])
			if err != nil {
				return nil, err
			}
			out = append(out, k, x)
		}
		return out, nil
	}
	return v, nil
}

// software is the identity of a function's software with its lock files.
func (a *Agent) software(f *spec.Function) (string, error) {
	b, err := json.Marshal(f.Software)
	if err != nil {
		return "", err
	}
	empty, err := json.Marshal(spec.Software{})
	if err != nil || string(b) == string(empty) {
		return "", err
	}
	h := sha256.New()
	_, _ = h.Write(b)
	for _, name := range []string{f.Software.Requirements, f.Software.UV, f.Software.Conda} {
		if name == "" {
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(a.run.Dir, name)
		}
		sum, err := a.files.hash(name)
		if os.IsNotExist(err) {
			sum = "missing" // here the caller's environment is used as it is
		} else if err != nil {
			return "", fmt.Errorf("software: %w", err)
		}
		_, _ = fmt.Fprintf(h, "\n%s", sum)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// recall computes the identity of a job and looks for earlier work. An
// outcome: there is some, and what it made is still there.
func (a *Agent) recall(ctx context.Context, j *job) (*task.Outcome, error) {
	x, err := a.identify(ctx, j)
	if err != nil {
		if j.fn.f.Cache != nil {
			return nil, err
		}
		a.log.Debug("no identity", "function", j.fn.name, "index", j.index, "err", err)
		return nil, nil
	}
	j.parts = x
	if j.fn.f.Cache == nil {
		return nil, nil
	}
	if a.run.NoCache {
		j.whyRun = "--no-cache runs everything"
		return nil, nil
	}
	b, err := a.run.Store.Get(ctx, CacheKey(a.run.Pipeline.Name, j.fn.name, x.id))
	if cloud.KindOf(err) == cloud.KindNotFound {
		j.whyRun = a.changed(ctx, j)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look into the cache: %w", err)
	}
	var r Remembered
	if json.Unmarshal(b, &r) != nil {
		j.whyRun = "what is remembered of it cannot be read"
		return nil, nil
	}
	if r.ResultAt != nil {
		j.whyRun = "the remembered result is gone"
		var one [1]byte
		if _, err := a.run.Store.ReadAt(ctx, r.ResultAt.Key, one[:], r.ResultAt.Off+r.ResultAt.Len-1); err != nil {
			return nil, nil
		}
	}
	for _, p := range j.outputs {
		if !isURI(p) {
			if err := a.outputs.claim(filepath.Clean(p), j.fn.name, j.index); err != nil {
				return nil, err
			}
		}
	}
	if !a.outputsThere(ctx, r.Outputs) {
		j.whyRun = fmt.Sprintf("outputs of its earlier run in %s are gone or were changed", r.Run)
		return nil, nil
	}
	o := j.outcome()
	o.Attempt, o.Status, o.Cached, o.ID = 0, task.Succeeded, true, x.id
	o.From = fmt.Sprintf("%s %s/%d", r.Run, r.Function, r.Index)
	o.Result, o.Outputs = r.Result, r.Outputs
	if r.ResultAt != nil {
		o.ResultAt = *r.ResultAt
	}
	o.Code = a.codes.of(j.fn.name).hash
	a.note(ctx, j, Remembered{ID: r.ID, Run: r.Run, Function: r.Function, Index: r.Index, Finished: r.Finished})
	return &o, nil
}

// changed says what differs from the last time the same item was worked on.
func (a *Agent) changed(ctx context.Context, j *job) string {
	var last Remembered
	b, err := a.run.Store.Get(ctx, LastKey(a.run.Pipeline.Name, j.fn.name, j.itemJSON))
	if err != nil || json.Unmarshal(b, &last) != nil {
		return "no earlier work is remembered for this item"
	}
	var what []string
	for name, now := range j.parts.parts {
		if last.Parts[name] != now {
			what = append(what, name)
		}
	}
	for name := range last.Parts {
		if _, ok := j.parts.parts[name]; !ok {
			what = append(what, name)
		}
	}
	sort.Strings(what)
	for i, name := range what {
		if name == "code" {
			if files := changedFiles(last.Files, a.codes.of(j.fn.name).files); len(files) > 0 {
				what[i] += " (" + strings.Join(files, ", ") + ")"
			}
		}
	}
	return fmt.Sprintf("changed since %s: %s", last.Run, strings.Join(what, ", "))
}

// changedFiles names the files that differ between two versions of code.
func changedFiles(old, now map[string]string) []string {
	var names []string
	for name, hash := range now {
		if old[name] != hash {
			names = append(names, name)
		}
	}
	for name := range old {
		if _, ok := now[name]; !ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// finish completes the outcome of an attempt: outputs, identity, cache.
func (s *slot) finish(ctx context.Context, j *job, o task.Outcome) task.Outcome {
	a := s.a
	code := a.codes.of(j.fn.name)
	o.Code = code.hash
	if j.parts != nil {
		o.ID, o.From = j.parts.id, j.whyRun
	}
	if o.Status != task.Succeeded {
		return o
	}
	ctx = context.WithoutCancel(ctx) // it succeeded: what it made is kept
	outs, err := a.keepOutputs(ctx, j)
	if err != nil {
		s.storeFailed(err)
		return outputFailed(o, err)
	}
	o.Outputs = outs
	if j.parts == nil || j.fn.f.Cache == nil {
		return o
	}
	r := Remembered{ID: hex.EncodeToString(o.ID[:]), Run: a.run.ID, Function: j.fn.name, Index: j.index,
		Finished: time.Now().UTC(), Result: o.Result, Outputs: outs, Parts: j.parts.parts, Files: code.files}
	if o.ResultAt.Key != "" {
		// The run may be deleted before the cache is.
		at := task.Span{Key: CacheKey(a.run.Pipeline.Name, j.fn.name, o.ID) + ".result", Len: o.ResultAt.Len}
		err := a.run.Store.PutFrom(ctx, at.Key, &objectReader{ctx: ctx, a: a, key: o.ResultAt.Key, off: o.ResultAt.Off})
		if err != nil {
			a.log.Warn("the result was not remembered", "function", j.fn.name, "index", j.index, "err", err)
			return o
		}
		r.ResultAt = &at
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = a.run.Store.Put(ctx, CacheKey(a.run.Pipeline.Name, j.fn.name, o.ID), b)
	}
	if err != nil {
		a.log.Warn("the task was not remembered", "function", j.fn.name, "index", j.index, "err", err)
		return o
	}
	a.note(ctx, j, Remembered{ID: r.ID, Run: r.Run, Function: r.Function, Index: r.Index, Finished: r.Finished})
	return o
}

// note remembers what the work for an item was made of the last time.
func (a *Agent) note(ctx context.Context, j *job, r Remembered) {
	r.Parts = j.parts.parts
	r.Files = a.codes.of(j.fn.name).files
	b, err := json.Marshal(r)
	if err == nil {
		err = a.run.Store.Put(ctx, LastKey(a.run.Pipeline.Name, j.fn.name, j.itemJSON), b)
	}
	if err != nil {
		a.log.Warn("the task was not noted", "function", j.fn.name, "index", j.index, "err", err)
	}
}
