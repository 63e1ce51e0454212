package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// fail turns an error of the operating system into a cloud.Error about path,
// the absolute path of a file in the store. Errors that have a kind, and the
// end of a context, pass through.
func fail(op, path string, err error) error {
	var ce *cloud.Error
	if err == nil || errors.As(err, &ce) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	cause := bare(err)
	kind := cloud.KindOther
	switch {
	case diskFull(err):
		kind, cause = cloud.KindFull, fmt.Errorf("%w on %s", cause, describeDisk(path))
	case errors.Is(err, syscall.EFBIG):
		kind, cause = cloud.KindFull, fmt.Errorf("%w: the largest file allowed here (ulimit -f, or the file system) is reached", cause)
	case errors.Is(err, syscall.EROFS):
		kind, cause = cloud.KindDenied, fmt.Errorf("%w: choose another folder with --store", cause)
	case errors.Is(err, syscall.ENOTDIR) && (op == "get" || op == "read" || op == "delete"):
		kind = cloud.KindNotFound
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENAMETOOLONG),
		errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EINVAL):
		kind = cloud.KindInvalid
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		kind = cloud.KindTransient
	case errors.Is(err, fs.ErrNotExist):
		kind = cloud.KindNotFound
	case errors.Is(err, fs.ErrExist):
		kind = cloud.KindConflict
	case errors.Is(err, fs.ErrPermission):
		kind = cloud.KindDenied
	}
	return &cloud.Error{Op: op, Resource: path, Kind: kind, Err: cause}
}

// bare removes the operation and path that package os puts before an error:
// the cloud.Error says both already.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	var se *os.SyscallError
	if errors.As(err, &se) {
		return se.Err
	}
	return err
}

func bytesText(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
