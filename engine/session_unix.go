//go:build unix

package engine

import (
	"errors"
	"syscall"
)

// newSession detaches a process from our terminal and process group.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// processExists says whether a process of this machine has the id.
func processExists(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
