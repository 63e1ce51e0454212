package planner

import (
	"errors"
	"io/fs"
	"syscall"
)

// statOS is statPath by the functions of package os.
func statOS(path string, lstat, stat func(string) (fs.FileInfo, error)) (e ent, ok bool, err error) {
	fi, err := lstat(path)
	link := err == nil && fi.Mode()&fs.ModeSymlink != 0
	if link {
		fi, err = stat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return e, false, nil
	case err != nil:
		return e, false, err
	case fi.IsDir() && link:
		e.kind = kindDirLink
	case fi.IsDir():
		e.kind = kindDir
	case fi.Mode().IsRegular():
		e.kind, e.size, e.mtime = kindFile, fi.Size(), fi.ModTime().UnixNano()
	default:
		e.kind = kindOther
	}
	return e, true, nil
}
