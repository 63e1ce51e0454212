package local

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"
)

// diskFull says that an error is for want of space.
func diskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// describeDisk names the disk that path lies on and the space that is left.
func describeDisk(path string) string {
	disk := "the disk " + filepath.VolumeName(path)
	name, err := windows.UTF16PtrFromString(filepath.Dir(path))
	if err != nil {
		return disk
	}
	var free, size uint64
	if windows.GetDiskFreeSpaceEx(name, &free, &size, nil) != nil {
		return disk
	}
	return fmt.Sprintf("%s (%s free of %s)", disk, bytesText(free), bytesText(size))
}

// unlinked says that an open file has no name any more.
func unlinked(fd uintptr) bool {
	var info syscall.ByHandleFileInformation
	err := syscall.GetFileInformationByHandle(syscall.Handle(fd), &info)
	return err != nil || info.NumberOfLinks == 0
}
