//go:build !unix

package software

import "io/fs"

// fileID tells one file from another.
type fileID struct{}

// hardLink says which file has this name, if it has others too.
func hardLink(fs.FileInfo) (fileID, bool) { return fileID{}, false }
