//go:build linux || darwin

package bundle

import (
	"io/fs"
	"syscall"
)

// stampOf is what changes when a file is written: as much of it as the system
// tells.
func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
		s.ctime = changeTime(st)
	}
	return s
}
