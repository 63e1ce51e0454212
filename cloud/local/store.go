package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// tempDir is the folder at the top of a store in which objects are written
// before they get their name. It never shows up as a key.
const tempDir = ".tmp"

// staleAfter is how old something in tempDir must be to be the leftover of a
// process that was killed. Files that are being written keep their time fresh.
const staleAfter = 6 * time.Hour

// Store keeps objects as files of a folder: the key is the relative path.
// Files are readable by their owner only, results may be private; where the
// group of the folder may write in it and new files are of that group, it has
// the same rights to all files, so that a team can share a store. As a key is a
// path, an object cannot lie "under" another one ("a" and "a/b").
//
// An object is written to a temporary file, synced, and renamed (Put) or
// linked (Create) to its name, so that readers never see a part of it, not
// even after a power cut.
type Store struct {
	dir   string
	root  *os.Root
	files fileCache
	group bool // the folder's group has the same rights as the owner of a file

	tempOnce sync.Once
}

var _ cloud.Store = (*Store)(nil)

// OpenStore opens the store in a folder, which it creates if needed. Reading
// needs no more than read permission on it.
func OpenStore(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fail("open store", dir, err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, openError(abs, err)
	}
	return FindStore(abs)
}

// FindStore opens the store in a folder that exists; KindNotFound if it does
// not. Nothing is written.
func FindStore(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fail("open store", dir, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, openError(abs, err)
	}
	info, err := root.Stat(".")
	if err != nil {
		_ = root.Close()
		return nil, openError(abs, err)
	}
	return &Store{dir: abs, root: root, group: shared(info.Mode())}, nil
}

// openError names the folder and what is wrong with it, or with the parent
// that is in the way.
func openError(dir string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		at := dir
		for at != filepath.Dir(at) {
			if fi, serr := os.Stat(at); serr == nil && !fi.IsDir() {
				break
			}
			at = filepath.Dir(at)
		}
		return &cloud.Error{Op: "open store", Resource: dir, Kind: cloud.KindInvalid,
			Err: fmt.Errorf("%s is a file, not a folder: %w", at, syscall.ENOTDIR)}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Path != "" && pe.Path != dir {
		if errors.Is(err, fs.ErrPermission) {
			return &cloud.Error{Op: "open store", Resource: dir, Kind: cloud.KindDenied,
				Err: fmt.Errorf("cannot create %s: %w: choose another folder with --store", pe.Path, pe.Err)}
		}
	}
	return fail("open store", dir, err)
}

// URL is the absolute path of the folder.
func (s *Store) URL() string { return s.dir }

// Close releases the files the store keeps open. Open journals are not affected.
func (s *Store) Close() error {
	s.files.close()
	return s.root.Close()
}

// Path is the file in which the object with this key is (or would be).
func (s *Store) Path(key string) string { return filepath.Join(s.dir, filepath.FromSlash(key)) }

// checkKey refuses what is not a key: the message says why.
func (s *Store) checkKey(op, key string) error {
	why := cloud.BadKey(key)
	switch {
	case why != "":
	case key == tempDir || strings.HasPrefix(key, tempDir+"/"):
		why = "keys under " + tempDir + " are reserved"
	default:
		return nil
	}
	return &cloud.Error{Op: op, Resource: fmt.Sprintf("%q in %s", key, s.dir), Kind: cloud.KindInvalid, Err: errors.New(why)}
}

func (s *Store) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.checkKey(op, key)
}

// fail wraps an error about a key. An os.Root reports a link that leads out of
// the folder without an errno.
func (s *Store) fail(op, key string, err error) error {
	if err != nil && strings.HasSuffix(err.Error(), "path escapes from parent") {
		return &cloud.Error{Op: op, Resource: s.Path(key), Kind: cloud.KindInvalid,
			Err: errors.New("a symbolic link leads out of the store")}
	}
	return fail(op, s.Path(key), err)
}

// Get reads a whole object.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	f, err := s.openObject(key)
	if err != nil {
		return nil, s.fail("get", key, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, s.fail("get", key, err)
	}
	// One byte more than the size lets the last Read report the end.
	b := make([]byte, 0, fi.Size()+1)
	for {
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, s.fail("get", key, err)
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// openObject opens a file for reading; a folder does not exist as an object.
func (s *Store) openObject(key string) (*os.File, error) {
	f, err := s.root.Open(key)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadAt reads a part of an object, which may be growing.
func (s *Store) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := s.begin(ctx, "read", key); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, &cloud.Error{Op: "read", Resource: s.Path(key), Kind: cloud.KindInvalid, Err: fmt.Errorf("negative offset %d", off)}
	}
	f, err := s.files.get(s, key)
	if err != nil {
		return 0, s.fail("read", key, err)
	}
	defer s.files.put(f)
	n, err := f.ReadAt(p, off)
	if err != nil && err != io.EOF {
		return n, s.fail("read", key, err)
	}
	return n, err
}

// Put writes an object, replacing one that exists.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	if err := s.begin(ctx, "put", key); err != nil {
		return err
	}
	return s.write(ctx, "put", key, func(f *os.File) error { return writeAll(f, data) }, s.root.Rename)
}

// PutFrom writes an object from a reader. From a file it copies inside the
// kernel, without copying at all where the file system can share the blocks.
func (s *Store) PutFrom(ctx context.Context, key string, r io.Reader) error {
	if err := s.begin(ctx, "put", key); err != nil {
		return err
	}
	const step = 64 << 20 // how much is copied between two looks at ctx
	return s.write(ctx, "put", key, func(f *os.File) error {
		for {
			n, err := io.CopyN(f, r, step)
			if err == io.EOF || (err == nil && n < step) {
				return nil
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
		}
	}, s.root.Rename)
}

// Create writes an object only if there is none.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	if err := s.begin(ctx, "create", key); err != nil {
		return err
	}
	// A look first: the loser of most races need not write anything. The link
	// decides, it exists for exactly one caller.
	if _, err := s.root.Lstat(key); err == nil {
		return s.fail("create", key, fs.ErrExist)
	}
	return s.write(ctx, "create", key, func(f *os.File) error { return writeAll(f, data) }, s.root.Link)
}

func writeAll(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return err
}

// write makes a temporary file with fill, syncs it and gives it its name with
// place (rename or link).
func (s *Store) write(ctx context.Context, op, key string, fill func(*os.File) error, place func(from, to string) error) (err error) {
	f, temp, err := s.createTemp()
	if err != nil {
		return s.fail(op, key, err)
	}
	defer func() {
		// After a rename the name is gone; after a link it is one too many.
		if rerr := s.root.Remove(temp); rerr != nil && err == nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = s.fail(op, key, rerr)
		}
	}()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.inParent(key, func() error { return place(temp, key) })
	}
	if err == nil {
		// Where the folder is gone, the object was deleted since: after us.
		if err = s.syncParent(key); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return s.fail(op, key, err)
}

// createTemp makes a new file in the folder for temporary files.
func (s *Store) createTemp() (*os.File, string, error) {
	s.tempOnce.Do(s.sweepTemp)
	for try := 0; ; try++ {
		name := tempDir + "/" + rand.Text()
		f, err := s.openFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		if err == nil {
			return f, name, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || try == 3 {
			return nil, "", err
		}
		if err := s.mkdirAll(tempDir); err != nil {
			return nil, "", err
		}
	}
}

// sweepTemp removes what processes left that were killed while writing.
func (s *Store) sweepTemp() {
	d, err := s.root.Open(tempDir)
	if err != nil {
		return // not there yet
	}
	entries, _ := d.ReadDir(-1)
	d.Close()
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > staleAfter {
			_ = s.root.RemoveAll(tempDir + "/" + e.Name()) // somebody else may be at it too
		}
	}
}

// inParent does something that needs the folder of key to exist, and makes the
// folder if it does not. It tries again, as another process may be removing
// the folder at the same time.
func (s *Store) inParent(key string, do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if err == nil || try == 100 || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.makeParents(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// makeParents makes the folders above key and syncs the ones it added to.
func (s *Store) makeParents(key string) error {
	parent := path.Dir(key)
	var missing []string
	for p := parent; p != "."; p = path.Dir(p) {
		if fi, err := s.root.Stat(p); err == nil && fi.IsDir() {
			break
		}
		missing = append(missing, p)
	}
	if err := s.mkdirAll(parent); err != nil {
		return err
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := s.syncParent(missing[i]); err != nil {
			return err
		}
	}
	return nil
}

// syncParent makes the name of key durable.
func (s *Store) syncParent(key string) error {
	if runtime.GOOS == "windows" {
		return nil // folders are not synced there
	}
	d, err := s.root.Open(path.Dir(key))
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // file systems that cannot sync a folder
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// OpenAppend opens an object for appending, creating it if needed, for logs:
// what is written is visible to readers at once, and not atomic. Every write
// goes to the end, also those of child processes that inherit the file.
func (s *Store) OpenAppend(key string) (*os.File, error) {
	if err := s.checkKey("append", key); err != nil {
		return nil, err
	}
	var f *os.File
	err := s.inParent(key, func() (err error) {
		f, err = s.openFile(key, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
		return err
	})
	if err != nil {
		return nil, s.fail("append", key, err)
	}
	return f, nil
}

// Explain makes an error of a file from OpenAppend one of the store: with a
// kind, and, when its disk is full, with the disk and what is free on it.
func (s *Store) Explain(op, key string, err error) error { return s.fail(op, key, err) }
