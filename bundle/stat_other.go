//go:build !linux && !darwin

package bundle

import "io/fs"

// stampOf is what changes when a file is written: as much of it as the system
// tells.
func stampOf(info fs.FileInfo) stamp {
	return stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
}
