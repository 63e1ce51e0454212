//go:build unix

package agent

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/agent/warden"
)

// child is a started process, the leader of a process group of its own.
type child struct {
	pid int
	// exit becomes readable when the process has ended.
	exit int
	// reaped is set where the system has no pidfd: a goroutine waits then.
	reaped chan reaped
}

type reaped struct {
	status syscall.WaitStatus
	usage  syscall.Rusage
}

// command is what startChild needs.
type command struct {
	path  string
	argv  []string
	dir   string
	env   []string
	files []uintptr
}

// startChild starts a process. It must be called from a goroutine locked to
// its thread: the process is killed when that thread ends.
func startChild(c *command) (*child, error) {
	fd, pid := -1, 0
	err := warden.Started(func() (int, error) {
		var err error
		pid, err = syscall.ForkExec(c.path, c.argv, &syscall.ProcAttr{
			Dir: c.dir, Env: c.env, Files: c.files, Sys: childAttr(&fd),
		})
		return pid, err
	})
	if err != nil {
		return nil, err
	}
	ch := &child{pid: pid, exit: fd}
	if fd >= 0 {
		return ch, nil
	}
	var p [2]int
	if err := pipe(&p); err != nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		ch.exit = -1
		ch.wait()
		return nil, err
	}
	ch.exit = p[0]
	ch.reaped = make(chan reaped, 1)
	go func() {
		ch.reaped <- waitPID(pid)
		_ = unix.Close(p[1])
	}()
	return ch, nil
}

// signal sends a signal to the whole group.
func (c *child) signal(sig syscall.Signal) { _ = syscall.Kill(-c.pid, sig) }

// finish ends what is left of the group and gives the status of the leader.
// It is called once, after exit has become readable or the group was killed.
func (c *child) finish() (syscall.WaitStatus, syscall.Rusage) {
	// Before the leader is waited for: until then its number cannot be reused.
	c.signal(syscall.SIGKILL)
	warden.Ended(c.pid)
	r := c.wait()
	if c.exit >= 0 {
		_ = unix.Close(c.exit)
	}
	// As subreaper we inherit what the leader left; those that live for a
	// moment longer are left to the keeper.
	for {
		pid, err := syscall.Wait4(-c.pid, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return r.status, r.usage
		}
	}
}

func (c *child) wait() reaped {
	if c.reaped != nil {
		return <-c.reaped
	}
	return waitPID(c.pid)
}

func waitPID(pid int) (r reaped) {
	for {
		_, err := syscall.Wait4(pid, &r.status, 0, &r.usage)
		if err != syscall.EINTR {
			return r
		}
	}
}

// maxRSS is the peak memory of a finished process in bytes.
func maxRSS(u *syscall.Rusage) int64 { return u.Maxrss * rssUnit }

// poll waits until one of the descriptors is ready or the time has come; the
// zero time is never.
func poll(fds []unix.PollFd, until time.Time) {
	ms := -1
	if !until.IsZero() {
		d := time.Until(until)
		if d < 0 {
			d = 0
		}
		if d > time.Hour {
			d = time.Hour
		}
		ms = int((d + time.Millisecond - 1) / time.Millisecond)
	}
	for i := range fds {
		fds[i].Revents = 0
	}
	// An interrupted poll is like one that ran out of time: the caller looks
	// at the clock and comes back.
	_, _ = unix.Poll(fds, ms)
}

func closeFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
		*fd = -1
	}
}
