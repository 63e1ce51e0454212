//go:build unix

package engine

import (
	"errors"
	"os"
	"syscall"
)

// private says whether a file is this user's and nobody else can write to it.
func private(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid() && info.Mode()&0o022 == 0
}

// newSession detaches a process from our terminal and process group.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// processExists says whether a process of this machine has the id.
func processExists(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
