package aws

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// self is this process, as another one on this machine can look for it.
func self() owner {
	boot, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return owner{PID: os.Getpid()}
	}
	_, start := processState(os.Getpid())
	if start == "" {
		return owner{PID: os.Getpid()}
	}
	return owner{Place: boot, PID: os.Getpid(), Start: start}
}

// gone says whether the process is certain to have ended.
func (o owner) gone() bool {
	if o.Place == "" || o.PID <= 0 || o.Place != self().Place {
		return false
	}
	if err := unix.Kill(o.PID, 0); err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	zombie, start := processState(o.PID)
	return start != "" && (zombie || start != o.Start)
}

// processState says whether a process has ended and waits for its parent, and
// when it started.
func processState(pid int) (zombie bool, start string) {
	const zombieState = 5 // SZOMB
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return false, ""
	}
	t := p.Proc.P_starttime
	return p.Proc.P_stat == zombieState, fmt.Sprintf("%d.%06d", t.Sec, t.Usec)
}
