package agent

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const rssUnit = 1024 // ru_maxrss is in KiB

// childAttr puts a child into its own group and ties its life to the thread
// that starts it, so that it dies with us even after kill -9.
func childAttr(pidfd *int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: pidfd}
}

func pipe(p *[2]int) error { return unix.Pipe2(p[:], unix.O_CLOEXEC) }
