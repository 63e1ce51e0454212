//go:build unix

package engine

import "syscall"

// newSession detaches a process from our terminal and process group.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
