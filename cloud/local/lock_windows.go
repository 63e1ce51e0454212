package local

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// The writer lock is on one byte far behind the end of the file: locks of this
// system keep others from reading what is locked. The kernel releases it when
// the process dies.
func lockAt() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: 1 << 30} }

// tryLock takes the writer lock, or says that somebody else has it.
func tryLock(f *os.File) (bool, error) {
	err := control(f, func(fd uintptr) error {
		return windows.LockFileEx(windows.Handle(fd), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, lockAt())
	})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

// unlock releases the lock.
func unlock(f *os.File) error {
	return control(f, func(fd uintptr) error { return windows.UnlockFileEx(windows.Handle(fd), 0, 1, 0, lockAt()) })
}

// locked says whether somebody holds the writer lock. It cannot be asked here
// without being taken for a moment.
func locked(f *os.File) (bool, error) {
	ok, err := tryLock(f)
	if !ok || err != nil {
		return !ok && err == nil, err
	}
	return false, unlock(f)
}

// syncData makes what was written to f durable.
func syncData(f *os.File) error { return f.Sync() }
