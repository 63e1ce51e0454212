package aws

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// self is this process, as another one on this machine can look for it. A
// process id means something only within one boot and one process namespace:
// containers may share a host name.
func self() owner {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return owner{PID: os.Getpid()}
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return owner{PID: os.Getpid()}
	}
	_, start := processState(os.Getpid())
	if start == "" {
		return owner{PID: os.Getpid()}
	}
	return owner{Place: strings.TrimSpace(string(boot)) + " " + namespace, PID: os.Getpid(), Start: start}
}

// gone says whether the process is certain to have ended.
func (o owner) gone() bool {
	if o.Place == "" || o.PID <= 0 || o.Place != self().Place {
		return false
	}
	// Signal 0 first: /proc may hide the processes of others.
	if err := unix.Kill(o.PID, 0); err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	state, start := processState(o.PID)
	return start != "" && start != o.Start || state == "Z" || state == "X"
}

// processState is the state of a process, and when it started: the third and
// the 22nd field of its stat. The name between them may have any characters.
func processState(pid int) (state, start string) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", ""
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return "", ""
	}
	return string(fields[0]), string(fields[19])
}
