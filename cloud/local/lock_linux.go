package local

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The writer lock is an open file description lock on the whole file: it
// belongs to the open file, so that two writers of one process exclude each
// other too; the kernel releases it when the process dies; and it can be
// queried without being taken, so that readers never get in a writer's way.

// tryLock takes the writer lock, or says that somebody else has it.
func tryLock(f *os.File) (bool, error) {
	err := fcntlLock(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

// unlock releases the lock, also for a child that has just been forked and has
// not closed the file yet.
func unlock(f *os.File) error {
	return fcntlLock(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
}

// locked says whether somebody holds the writer lock, without taking it.
func locked(f *os.File) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	err := fcntlLock(f, unix.F_OFD_GETLK, &lk)
	return lk.Type != unix.F_UNLCK, err
}

func fcntlLock(f *os.File, cmd int, lk *unix.Flock_t) error {
	return control(f, func(fd uintptr) error {
		for {
			if err := unix.FcntlFlock(fd, cmd, lk); err != unix.EINTR {
				return err
			}
		}
	})
}

// syncData makes what was written to f durable.
func syncData(f *os.File) error {
	return control(f, func(fd uintptr) error {
		for {
			if err := unix.Fdatasync(int(fd)); err != unix.EINTR {
				return err
			}
		}
	})
}
