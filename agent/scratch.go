//go:build unix

package agent

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// itemFile is the file with the item of a task. Writing into one that is
// already open is several times cheaper than making one per task.
type itemFile struct {
	path string
	f    *os.File
	size int
}

func (i *itemFile) write(b []byte) error {
	var st unix.Stat_t
	// A task may have removed it, or put something else in its place.
	if i.f == nil || unix.Lstat(i.path, &st) != nil || !i.same(&st) {
		i.close()
		_ = os.RemoveAll(i.path)
		f, err := os.OpenFile(i.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write the item file: %w", err)
		}
		i.f = f
	}
	if _, err := i.f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write the item file: %w", err)
	}
	if int64(len(b)) < st.Size {
		if err := i.f.Truncate(int64(len(b))); err != nil {
			return fmt.Errorf("write the item file: %w", err)
		}
	}
	i.size = len(b)
	return nil
}

func (i *itemFile) same(st *unix.Stat_t) bool {
	var own unix.Stat_t
	return unix.Fstat(int(i.f.Fd()), &own) == nil && own.Ino == st.Ino && own.Dev == st.Dev
}

func (i *itemFile) close() {
	if i.f != nil {
		_ = i.f.Close()
		i.f = nil
	}
}

// tmpDir is the temporary folder of a task. One that a task did not touch is
// passed on to the next: it has a time of modification that no file system
// sets, so that one look tells.
type tmpDir struct {
	base string
	n    int
	path string
}

var untouched = unix.Timespec{Sec: 1_000_000_000}

// ready gives an empty folder.
func (t *tmpDir) ready() (string, error) {
	if t.path != "" {
		var st unix.Stat_t
		if unix.Lstat(t.path, &st) == nil && mtime(&st) == untouched && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return t.path, nil
		}
		t.remove()
	}
	p := t.base + strconv.Itoa(t.n)
	t.n++
	if err := os.Mkdir(p, 0o700); err != nil {
		return "", fmt.Errorf("make the temporary folder: %w", err)
	}
	t.path = p
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{untouched, untouched}, 0); err != nil {
		return "", fmt.Errorf("make the temporary folder: %w", err)
	}
	return p, nil
}

// clean removes the folder if a task has used it.
func (t *tmpDir) clean() {
	var st unix.Stat_t
	if t.path != "" && (unix.Lstat(t.path, &st) != nil || mtime(&st) != untouched) {
		t.remove()
	}
}

func (t *tmpDir) remove() {
	removeAll(t.path)
	t.path = ""
}

// removeAll removes a tree, also when a task took its own rights away.
func removeAll(path string) {
	if os.RemoveAll(path) == nil {
		return
	}
	makeWritable(path)
	_ = os.RemoveAll(path)
}

func makeWritable(path string) {
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return
	}
	_ = os.Chmod(path, 0o700)
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		if e.IsDir() {
			makeWritable(path + "/" + e.Name())
		}
	}
}

func mtime(st *unix.Stat_t) unix.Timespec { return unix.Timespec{Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec} }
