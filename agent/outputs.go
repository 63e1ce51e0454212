//go:build unix

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// outputRegistry knows which task writes which path, to catch two that write
// the same. It is compact: a run may have a million outputs.
type outputRegistry struct {
	seed maphash.Seed
	mu   sync.Mutex
	by   map[uint64]outputOwner
	fns  []string
}

type outputOwner struct{ fn, index int32 }

func newOutputRegistry() *outputRegistry {
	return &outputRegistry{seed: maphash.MakeSeed(), by: map[uint64]outputOwner{}}
}

// claim notes that a task writes a path; an error names the other that does.
func (r *outputRegistry) claim(p, fn string, index int) error {
	h := maphash.String(r.seed, p)
	r.mu.Lock()
	defer r.mu.Unlock()
	me := outputOwner{index: int32(index), fn: -1}
	for i, n := range r.fns {
		if n == fn {
			me.fn = int32(i)
		}
	}
	if me.fn < 0 {
		me.fn = int32(len(r.fns))
		r.fns = append(r.fns, fn)
	}
	if o, ok := r.by[h]; ok && o != me {
		return fmt.Errorf("output %q is also written by %s/%d: give each task its own path, for example with ${{ index }}",
			p, r.fns[o.fn], o.index)
	}
	r.by[h] = me
	return nil
}

func isURI(p string) bool { return strings.Contains(p, "://") }

// fileState tells one version of a file from another without reading it; of a
// folder, one state of everything in it.
type fileState struct {
	exists     bool
	ino        uint64
	size       int64
	mtim, ctim unix.Timespec
	tree       string
	uri        cloud.S3Look
}

func stateOf(name string) fileState {
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil {
		return fileState{}
	}
	s := fileState{exists: true, ino: st.Ino, size: st.Size, mtim: mtime(&st),
		ctim: unix.Timespec{Sec: st.Ctim.Sec, Nsec: st.Ctim.Nsec}}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		h := sha256.New()
		_ = filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				_, _ = fmt.Fprintf(h, "%q %v\n", p, stateOf(p))
			}
			return nil
		})
		s.tree = string(h.Sum(nil))
	}
	return s
}

// checkOutputs refuses outputs that cannot be right and notes what is there
// before the attempt.
func (a *Agent) checkOutputs(ctx context.Context, j *job) error {
	j.before = make([]fileState, len(j.outputs))
	for i, p := range j.outputs {
		if err := spec.CheckOutput(p); err != nil {
			return err
		}
		if isURI(p) {
			if a.cfg.Look == nil {
				return fmt.Errorf("output %q: there is no access to S3 here", p)
			}
			if err := a.outputs.claim(p, j.fn.name, j.index); err != nil {
				return err
			}
			look, err := a.cfg.Look(ctx, p)
			if err != nil {
				return fmt.Errorf("look up output %q: %w", p, err)
			}
			j.before[i] = fileState{exists: look.Found, uri: look}
			continue
		}
		j.outputs[i] = path.Clean(p)
		if err := a.outputs.claim(j.outputs[i], j.fn.name, j.index); err != nil {
			return err
		}
		j.before[i] = stateOf(filepath.Join(a.run.Dir, p))
	}
	return nil
}

// keepOutputs checks that the attempt has written what it declared and stores
// it.
func (a *Agent) keepOutputs(ctx context.Context, j *job) ([]task.Output, error) {
	var all []task.Output
	if len(j.outputs) == 0 {
		return nil, nil
	}
	root, err := os.OpenRoot(a.run.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the working directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	for i, p := range j.outputs {
		if isURI(p) {
			look, err := a.cfg.Look(ctx, p)
			switch {
			case err != nil:
				return nil, fmt.Errorf("look up output %q: %w", p, err)
			case !look.Found:
				return nil, fmt.Errorf("output %q does not exist although the task succeeded", p)
			case !look.Since(j.before[i].uri):
				return nil, fmt.Errorf("output %q was there before and the task did not write it", p)
			}
			all = append(all, task.Output{Path: p, Tag: look.Tag})
			continue
		}
		info, err := root.Stat(p)
		if err != nil {
			return nil, a.noOutput(p, err)
		}
		if now := stateOf(filepath.Join(a.run.Dir, p)); now == j.before[i] {
			return nil, fmt.Errorf("output %q was there before and the task did not write it", p)
		}
		if info.IsDir() {
			err = fs.WalkDir(root.FS(), p, func(name string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				o, err := a.keepFile(ctx, root, j, name)
				all = append(all, o)
				return err
			})
		} else {
			var o task.Output
			o, err = a.keepFile(ctx, root, j, p)
			all = append(all, o)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// noOutput says why there is no output at p.
func (a *Agent) noOutput(p string, err error) error {
	switch _, outside := os.Stat(filepath.Join(a.run.Dir, p)); {
	case errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(p, "*?["):
		return fmt.Errorf("output %q does not exist although the task succeeded (outputs are no patterns: name the files, or their folder)", p)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("output %q does not exist although the task succeeded", p)
	case outside == nil:
		return fmt.Errorf("output %q escapes from the working directory through a link: outputs must be files below it", p)
	}
	return fmt.Errorf("output %q: %w", p, err)
}

func (a *Agent) keepFile(ctx context.Context, root *os.Root, j *job, name string) (o task.Output, err error) {
	info, err := root.Stat(name)
	if err != nil {
		return o, fmt.Errorf("output %q: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return o, fmt.Errorf("output %q is neither a file nor a folder", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return o, fmt.Errorf("output %q: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	o = task.Output{Path: name, Mode: uint32(info.Mode().Perm()),
		Key: fmt.Sprintf("%s/outputs/%s/%d/%s", a.run.Prefix, j.fn.name, j.index, keyPath(name))}
	r := &hashed{f: f, h: sha256.New()}
	if err := a.run.Store.PutFrom(ctx, o.Key, r); err != nil {
		return o, fmt.Errorf("keep output %q: %w", name, err)
	}
	o.Size, o.Hash = r.n, hex.EncodeToString(r.h.Sum(nil))
	return o, nil
}

// hashed hashes what is read of a file. A store that tries again reads it from
// the start again.
type hashed struct {
	f *os.File
	h hash.Hash
	n int64
}

func (r *hashed) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	r.n += int64(n)
	_, _ = r.h.Write(p[:n]) // never fails
	return n, err
}

// Seek goes back to the start, the only place it can go to.
func (r *hashed) Seek(off int64, whence int) (int64, error) {
	if off != 0 || whence != io.SeekStart {
		return 0, errors.New("a file that is being hashed is read from its start")
	}
	r.h.Reset()
	r.n = 0
	return r.f.Seek(0, io.SeekStart)
}

// keyPath is a path as part of a store key, which must be UTF-8.
func keyPath(p string) string {
	if utf8.ValidString(p) {
		return p
	}
	parts := strings.Split(p, "/")
	for i, e := range parts {
		parts[i] = url.PathEscape(e)
	}
	return strings.Join(parts, "/")
}

// outputsThere makes sure that the outputs of earlier work are still there: in
// place with the same content, or put back from the store.
func (a *Agent) outputsThere(ctx context.Context, outs []task.Output) bool {
	if len(outs) == 0 {
		return true
	}
	root, err := os.OpenRoot(a.run.Dir)
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }()
	for i := range outs {
		o := &outs[i]
		if isURI(o.Path) {
			if a.cfg.Look == nil {
				return false
			}
			if look, err := a.cfg.Look(ctx, o.Path); err != nil || !look.Found || o.Tag != look.Tag {
				return false
			}
			continue
		}
		if !filepath.IsLocal(o.Path) {
			return false
		}
		kept := a.stored(ctx, o)
		name := filepath.Join(a.run.Dir, o.Path)
		if hash, err := a.files.hash(name); err == nil && hash == o.Hash {
			if !kept {
				o.Key = "" // only the one in place is left
			}
			continue
		}
		if !kept || a.restore(ctx, root, o) != nil {
			return false
		}
	}
	return true
}

// place puts the outputs of a needed function where its tasks had written them.
func (a *Agent) place(ctx context.Context, fn string, index int) error {
	if a.run.Outputs == nil {
		return nil
	}
	outs, err := a.run.Outputs(ctx, fn, index)
	if err != nil {
		return fmt.Errorf("read the outputs of %s: %w", fn, err)
	}
	if len(outs) == 0 {
		return nil
	}
	a.placing.Lock()
	defer a.placing.Unlock()
	root, err := os.OpenRoot(a.run.Dir)
	if err != nil {
		return fmt.Errorf("open the working directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	for i := range outs {
		o := &outs[i]
		if o.Key == "" {
			continue // a URI, or only in place
		}
		if hash, err := a.files.hash(filepath.Join(a.run.Dir, o.Path)); err == nil && hash == o.Hash {
			continue
		}
		if err := a.restore(ctx, root, o); err != nil {
			return fmt.Errorf("put output %q of %s in place: %w", o.Path, fn, err)
		}
	}
	return nil
}

// stored says whether the kept copy is in the store and unchanged.
func (a *Agent) stored(ctx context.Context, o *task.Output) bool {
	if o.Key == "" {
		return false
	}
	h := sha256.New()
	n, err := io.Copy(h, &objectReader{ctx: ctx, a: a, key: o.Key})
	return err == nil && n == o.Size && hex.EncodeToString(h.Sum(nil)) == o.Hash
}

func (a *Agent) restore(ctx context.Context, root *os.Root, o *task.Output) error {
	if d := path.Dir(o.Path); d != "." {
		if err := root.MkdirAll(d, 0o777); err != nil {
			return err
		}
	}
	tmp := o.Path + ".part-" + a.session
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fs.FileMode(o.Mode)|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, &objectReader{ctx: ctx, a: a, key: o.Key})
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(tmp, o.Path)
	}
	if err != nil {
		_ = root.Remove(tmp)
	}
	return err
}

// objectReader reads a stored object from start to end.
type objectReader struct {
	ctx context.Context
	a   *Agent
	key string
	off int64
}

func (r *objectReader) Read(p []byte) (int, error) {
	n, err := r.a.run.Store.ReadAt(r.ctx, r.key, p, r.off)
	r.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}
