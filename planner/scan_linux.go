//go:build linux && (amd64 || arm64)

package planner

import (
	"bytes"
	"io/fs"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// direntBuffers hold what getdents gives: large, because a system call per
// 32 KiB is what makes listing slow.
var direntBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// scan reads a folder. want says, by name and kind, what of an entry is of
// interest; for links and unknown kinds it is asked about both. The name is
// only valid during the call.
func scan(path string, want func(name string, k kind) uint8) (*listing, error) {
	fd, err := openDir(path)
	if err != nil {
		return nil, &fs.PathError{Op: "read folder", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := direntBuffers.Get().(*[]byte)
	defer direntBuffers.Put(buf)
	l := &listing{}
	for {
		n, err := unix.Getdents(fd, *buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read folder", Path: path, Err: err}
		}
		if n <= 0 {
			break
		}
		l.addDirents((*buf)[:n], want)
	}
	if err := l.statAll(func(name []byte, e *ent) error { return statAt(fd, name, e) }); err != nil {
		return nil, &fs.PathError{Op: "stat a file in", Path: path, Err: err}
	}
	l.finish()
	return l, nil
}

func openDir(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// addDirents reads records of struct linux_dirent64: inode, offset (8 bytes
// each), length of the record (2), kind (1), name, NUL.
func (l *listing) addDirents(buf []byte, want func(string, kind) uint8) {
	const lenAt, kindAt, nameAt = 16, 18, 19
	for len(buf) >= nameAt {
		n := int(*(*uint16)(unsafe.Pointer(&buf[lenAt])))
		if n < nameAt || n > len(buf) {
			return
		}
		raw := buf[nameAt:n]
		k := direntKind(buf[kindAt])
		buf = buf[n:]
		end := bytes.IndexByte(raw, 0)
		if end <= 0 || raw[0] == '.' && (end == 1 || end == 2 && raw[1] == '.') || k == kindOther {
			continue
		}
		name := unsafe.String(&raw[0], end)
		if w := want(name, k); w != 0 {
			l.add(name, k, w)
		}
	}
}

func direntKind(t byte) kind {
	switch t {
	case unix.DT_REG:
		return kindFile
	case unix.DT_DIR:
		return kindDir
	case unix.DT_LNK:
		return kindLink
	case unix.DT_UNKNOWN:
		return kindUnknown
	}
	return kindOther
}

// statAt looks at one entry; name ends in a NUL.
func statAt(fd int, name []byte, e *ent) error {
	flags := 0
	if e.kind == kindUnknown {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	var st unix.Stat_t
	for {
		_, _, no := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(fd), uintptr(unsafe.Pointer(&name[0])),
			uintptr(unsafe.Pointer(&st)), uintptr(flags), 0, 0)
		switch no {
		case 0:
		case unix.EINTR:
			continue
		case unix.ENOENT, unix.ELOOP, unix.ENOTDIR: // gone, or a link to nowhere
			e.kind = kindOther
			return nil
		case unix.EACCES, unix.EPERM:
			if e.kind == kindLink { // a link into a folder that we cannot enter
				e.kind = kindOther
				return nil
			}
			return no
		default:
			return no
		}
		break
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		e.kind = kindLink
		return statAt(fd, name, e)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR && e.kind == kindLink:
		e.kind = kindDirLink
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		e.kind = kindDir
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		e.kind, e.size, e.mtime = kindFile, st.Size, st.Mtim.Nano()
	default:
		e.kind = kindOther
	}
	return nil
}

// statPath is what lies at a path; ok is false if nothing does.
func statPath(path string) (e ent, ok bool, err error) {
	return statOS(path, os.Lstat, os.Stat)
}
