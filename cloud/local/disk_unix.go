//go:build unix

package local

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
)

// diskFull says that an error is for want of space.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// describeDisk names the disk that path lies on and the space that is left.
func describeDisk(path string) string {
	for {
		var st syscall.Statfs_t
		if err := syscall.Statfs(path, &st); err == nil {
			size := uint64(st.Bsize)
			return fmt.Sprintf("the disk at %s (%s free of %s)", mountPoint(path),
				bytesText(uint64(st.Bavail)*size), bytesText(uint64(st.Blocks)*size))
		}
		parent := filepath.Dir(path)
		if parent == path {
			return "the disk of " + path
		}
		path = parent
	}
}

// mountPoint is the topmost folder that is on the same device as path.
func mountPoint(path string) string {
	dev, ok := device(path)
	for ok {
		parent := filepath.Dir(path)
		d, found := device(parent)
		if parent == path || !found || d != dev {
			break
		}
		path = parent
	}
	return path
}

func device(path string) (uint64, bool) {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	return uint64(st.Dev), err == nil
}

// unlinked says that an open file has no name any more.
func unlinked(fd uintptr) bool {
	var st syscall.Stat_t
	err := syscall.Fstat(int(fd), &st)
	return err != nil || st.Nlink == 0
}
