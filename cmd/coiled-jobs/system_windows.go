package main

import (
	"math"

	"golang.org/x/sys/windows"
)

// diskFree is the space left on the disk of a folder.
func diskFree(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(name, &free, nil, nil)
	return int64(free), err
}

// openFiles is how many files this process may have open: this system has no limit.
func openFiles() (uint64, error) { return math.MaxUint64, nil }
