//go:build unix

package software

import (
	"io/fs"
	"syscall"
)

// fileID tells one file from another.
type fileID struct{ dev, inode uint64 }

// hardLink says which file has this name, if it has others too.
func hardLink(info fs.FileInfo) (fileID, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), st.Ino}, true //nolint:unconvert // Dev differs between systems
}
