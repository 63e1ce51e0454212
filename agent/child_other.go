//go:build unix && !linux

package agent

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const rssUnit = 1 // ru_maxrss is in bytes

func childAttr(*int) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func pipe(p *[2]int) error {
	// No pipe2 here: the lock keeps a fork from happening in between.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(p[:]); err != nil {
		return err
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	return nil
}
