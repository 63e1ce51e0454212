//go:build unix && !linux

package local

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The writer lock is taken with flock: it belongs to the open file, so that
// two writers of one process exclude each other too, and the kernel releases
// it when the process dies. It is queried with fcntl, which on BSD systems
// sees these locks, without being taken: readers never get in a writer's way.

// tryLock takes the writer lock, or says that somebody else has it.
func tryLock(f *os.File) (bool, error) {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// unlock releases the lock, also for a child that has just been forked and has
// not closed the file yet.
func unlock(f *os.File) error { return flock(f, unix.LOCK_UN) }

func flock(f *os.File, how int) error {
	return control(f, func(fd uintptr) error {
		for {
			if err := unix.Flock(int(fd), how); err != unix.EINTR {
				return err
			}
		}
	})
}

// locked says whether somebody holds the writer lock, without taking it.
func locked(f *os.File) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	err := control(f, func(fd uintptr) error { return unix.FcntlFlock(fd, unix.F_GETLK, &lk) })
	return lk.Type != unix.F_UNLCK, err
}

// syncData makes what was written to f durable (on macOS with F_FULLFSYNC).
func syncData(f *os.File) error { return f.Sync() }
