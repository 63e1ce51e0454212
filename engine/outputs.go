package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Output is a declared output of a task.
type Output struct {
	Function string `json:"function"`
	Index    int    `json:"index"`
	task.Output
}

// Outputs lists the declared outputs of succeeded tasks: of all functions
// (fn ""), of one, or of one task (index >= 0).
func (e *Engine) Outputs(ctx context.Context, run, fn string, index int) ([]Output, error) {
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return nil, err
	}
	var all []Output
	for _, name := range v.Functions() {
		if fn != "" && name != fn || len(v.Pipeline().Function(name).Outputs) == 0 {
			continue
		}
		for t := range v.Tasks(name) {
			if !finalOutcome(t) || index >= 0 && t.Index != index {
				continue
			}
			o, err := v.Outcome(ctx, name, t)
			if err != nil {
				return nil, err
			}
			for _, out := range o.Outputs {
				all = append(all, Output{Function: name, Index: t.Index, Output: out})
			}
		}
	}
	return all, nil
}

// FetchOutputs writes the kept outputs of a run (of fn, of one index; -1: all)
// below dir where they are missing or differ. It returns the outputs, and the
// paths that were written.
func (e *Engine) FetchOutputs(ctx context.Context, run, fn string, index int, dir string) (all []Output, written []string, err error) {
	if all, err = e.Outputs(ctx, run, fn, index); err != nil {
		return nil, nil, err
	}
	for _, o := range all {
		if o.Key == "" {
			continue // a URI: it is where the task put it
		}
		if !filepath.IsLocal(o.Path) {
			return all, written, fmt.Errorf("output %q of %s/%d leads out of the folder", o.Path, o.Function, o.Index)
		}
		path := filepath.Join(dir, o.Path)
		if sameContent(path, o.Output) {
			continue
		}
		if err := e.fetch(ctx, o, path); err != nil {
			return all, written, err
		}
		written = append(written, o.Path)
	}
	return all, written, nil
}

// placeMissing puts in dir what the functions that f needs have kept. What lies
// there is left as it is: it may have been changed to find a mistake.
func (e *Engine) placeMissing(ctx context.Context, past *executor.Past, f *spec.Function, index int, dir string) error {
	from, _ := f.Follows()
	for _, need := range f.AllNeeds() {
		of := -1
		if need == from {
			of = index
		}
		outs, err := past.Outputs(ctx, need, of)
		if err != nil {
			return err
		}
		for _, o := range outs {
			path := filepath.Join(dir, o.Path)
			if _, err := os.Lstat(path); err == nil || o.Key == "" || !filepath.IsLocal(o.Path) {
				continue
			}
			if err := e.fetch(ctx, Output{Output: o}, path); err != nil {
				return fmt.Errorf("put output %q of %s in place: %w", o.Path, need, err)
			}
		}
	}
	return nil
}

func sameContent(path string, o task.Output) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != o.Size {
		return false
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == o.Hash
}

// fetch copies a kept output to path, all of it or nothing.
func (e *Engine) fetch(ctx context.Context, o Output, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".coiled-jobs-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := copyObject(ctx, e.Store, o.Key, tmp); err != nil {
		return err
	}
	mode := os.FileMode(o.Mode) & os.ModePerm
	if mode == 0 {
		mode = 0o644
	}
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func copyObject(ctx context.Context, store cloud.Store, key string, w io.Writer) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := store.ReadAt(ctx, key, buf, off)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		off += int64(n)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
