package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// List calls fn for each object whose key starts with prefix, in key order.
// It holds the names of one folder at a time (and of those above it).
func (s *Store) List(ctx context.Context, prefix string, fn func(cloud.ObjectInfo) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, rest := "", prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir, rest = prefix[:i], prefix[i+1:]
		if err := s.checkKey("list", dir); err != nil {
			return err
		}
	}
	_, err := s.listDir(ctx, dir, rest, fn)
	return err
}

// listDir lists one folder. more is false once fn has had enough.
func (s *Store) listDir(ctx context.Context, dir, prefix string, fn func(cloud.ObjectInfo) bool) (more bool, err error) {
	at := dir
	if at == "" {
		at = "."
	}
	d, err := s.root.Open(at)
	if gone(err) {
		return true, nil
	}
	if err != nil {
		return false, s.fail("list", dir, err)
	}
	defer d.Close()
	var names []string
	for {
		entries, err := d.ReadDir(4096)
		for _, e := range entries {
			name := e.Name()
			if !strings.HasPrefix(name, prefix) || (dir == "" && name == tempDir) {
				continue
			}
			// Keys order by bytes, and a folder's keys go on with a slash.
			if e.IsDir() {
				name += "/"
			} else if !e.Type().IsRegular() {
				continue
			}
			names = append(names, name)
		}
		if len(entries) == 0 {
			if err != nil && err != io.EOF && !gone(err) {
				return false, s.fail("list", dir, err)
			}
			break
		}
	}
	d.Close()
	slices.Sort(names)
	for i, name := range names {
		if i%256 == 0 {
			if err := ctx.Err(); err != nil {
				return false, err
			}
		}
		if sub, ok := strings.CutSuffix(name, "/"); ok {
			if more, err := s.listDir(ctx, path.Join(dir, sub), "", fn); err != nil || !more {
				return false, err
			}
			continue
		}
		key := path.Join(dir, name)
		fi, err := s.root.Lstat(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return false, s.fail("list", key, err)
		}
		if !fn(cloud.ObjectInfo{Key: key, Size: fi.Size(), Modified: fi.ModTime()}) {
			return false, nil
		}
	}
	return true, nil
}

// Delete removes objects.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := s.begin(ctx, "delete", key); err != nil {
			return err
		}
		if fi, err := s.root.Lstat(key); err == nil && fi.IsDir() {
			continue // no object has this key
		}
		s.files.forget(key)
		if err := s.root.Remove(key); err != nil && !gone(err) {
			return s.fail("delete", key, err)
		}
	}
	return nil
}

// DeletePrefix removes every object under prefix + "/". For readers they
// vanish at one moment: the folder is moved away before it is emptied.
func (s *Store) DeletePrefix(ctx context.Context, prefix string) error {
	prefix = strings.TrimSuffix(prefix, "/")
	if err := s.begin(ctx, "delete", prefix); err != nil {
		return err
	}
	if fi, err := s.root.Lstat(prefix); gone(err) || (err == nil && !fi.IsDir()) {
		return nil
	}
	f, trash, err := s.createTemp()
	if err == nil {
		f.Close()
		if err = s.root.Remove(trash); err == nil {
			err = s.root.Rename(prefix, trash)
		}
	}
	s.files.close()
	switch {
	case gone(err):
		return nil // somebody else was faster
	case err == nil:
		if err = s.syncParent(prefix); gone(err) {
			err = nil
		}
		if rerr := s.root.RemoveAll(trash); err == nil {
			err = rerr
		}
	case cloud.KindOf(fail("", "", err)) == cloud.KindFull:
		// No room even for a name: removing in place makes some.
		err = s.root.RemoveAll(prefix)
	}
	return s.fail("delete", prefix, err)
}

// gone says that there is nothing at a key: no file, or no folder above it.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
