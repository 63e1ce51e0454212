package warden

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func becomeSubreaper() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Kill ends every process that has the token in its environment and returns
// when none is left, or after ten seconds: one that hangs in the kernel cannot
// be waited for.
func Kill(token string) {
	if len(token) < 8 {
		return // never by a name that could be anybody's
	}
	end := time.Now().Add(10 * time.Second)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if killMarked(token) == 0 || time.Now().After(end) {
			return
		}
		time.Sleep(wait)
	}
}

// killMarked kills the processes that carry the token and counts those that
// lived.
func killMarked(token string) int {
	n := 0
	for _, pid := range processes() {
		if pid == os.Getpid() || !marked(pid, token) {
			continue
		}
		// The process we looked at, not another that got its number since.
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case err == unix.ENOSYS:
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				n++
			}
		case err == nil:
			if marked(pid, token) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
				n++
			}
			_ = unix.Close(fd)
		}
	}
	return n
}

func marked(pid int, token string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for len(env) > 0 {
		var v []byte
		v, env, _ = bytes.Cut(env, []byte{0})
		// A coordinator that is itself a task passes on the tokens above it.
		if bytes.HasPrefix(v, []byte(Variable+"=")) && bytes.Contains(v, []byte(token)) {
			return true
		}
	}
	return false
}

func processes() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = d.Close() }()
	names, _ := d.Readdirnames(-1)
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// process is what /proc/<pid>/stat says.
type process struct {
	pid, parent, group int
	state              byte
	start              uint64 // in clock ticks after boot
}

func stat(pid int) (process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name, in parentheses, may hold anything.
	i := bytes.LastIndexByte(b, ')')
	f := bytes.Fields(b[max(i+1, 0):])
	if len(f) < 20 {
		return process{}, false
	}
	parent, _ := strconv.Atoi(string(f[1]))
	group, _ := strconv.Atoi(string(f[2]))
	start, _ := strconv.ParseUint(string(f[19]), 10, 64)
	return process{pid, parent, group, f[0][0], start}, true
}

// orphans is the children that nobody here started: those that came back to
// us, and those that other parts of the program have put into a group of their
// own.
func (k *Keeper) orphans() []process {
	children.Lock()
	defer children.Unlock()
	pids := childrenOf("self")
	if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children"); err != nil {
		pids = processes()
	}
	var all []process
	own := syscall.Getpgrp()
	for _, pid := range pids {
		p, ok := stat(pid)
		if _, known := children.pids.Load(pid); ok && !known && p.parent == os.Getpid() && p.group != own && pid != k.pid {
			all = append(all, p)
		}
	}
	return all
}

// reap takes the status of orphans that have ended. One that is still there
// when we look a second time has nobody else who waits for it.
func (k *Keeper) reap() {
	dead := map[int]bool{}
	for _, p := range k.orphans() {
		switch {
		case p.state != 'Z':
		case k.dead[p.pid]:
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
		default:
			dead[p.pid] = true
		}
	}
	k.dead = dead
}

// killOrphans ends those that threw their environment away, and with it the
// token. What runs this program itself is not a task's.
func (k *Keeper) killOrphans() {
	self, _ := os.Readlink("/proc/self/exe")
	end := time.Now().Add(10 * time.Second)
	for wait := time.Millisecond; time.Now().Before(end); wait = min(2*wait, 100*time.Millisecond) {
		alive := 0
		for _, p := range k.orphans() {
			exe, err := os.Readlink("/proc/" + strconv.Itoa(p.pid) + "/exe")
			if p.state == 'Z' || err != nil || exe == self || marked(p.pid, "") {
				continue
			}
			alive++
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		if alive == 0 {
			return
		}
		time.Sleep(wait)
	}
}
