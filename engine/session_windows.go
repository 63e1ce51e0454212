package engine

import (
	"os"
	"syscall"
)

// private says nothing here: each user has a folder for temporary files.
func private(os.FileInfo) bool { return true }

const detachedProcess = 0x00000008

// newSession detaches a process from our console.
func newSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP | detachedProcess}
}

// processExists cannot be told here: a coordinator is taken as alive while
// its journal is held.
func processExists(int) bool { return true }
