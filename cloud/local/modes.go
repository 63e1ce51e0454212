package local

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"runtime"
)

// shared says whether a folder with this mode is its group's. Without the bit
// that hands the group on, new files are of the process's own group, which may be
// everybody's.
func shared(mode fs.FileMode) bool {
	return runtime.GOOS != "windows" && mode&0o020 != 0 && (mode&fs.ModeSetgid != 0 || runtime.GOOS == "darwin")
}

// openFile opens a file of the store, creating it if flag says so.
func (s *Store) openFile(name string, flag int) (*os.File, error) {
	if !s.group {
		return s.root.OpenFile(name, flag, 0o600)
	}
	f, err := s.root.OpenFile(name, flag, 0o660)
	if err != nil {
		return nil, err
	}
	if err := widen(f, 0o660); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// mkdirAll makes a folder of the store and those above it.
func (s *Store) mkdirAll(name string) error {
	if !s.group {
		return s.root.MkdirAll(name, 0o700)
	}
	if name == "." {
		return nil
	}
	if err := s.mkdirAll(path.Dir(name)); err != nil {
		return err
	}
	if err := s.root.Mkdir(name, 0o770); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	d, err := s.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return widen(d, 0o770)
}

// widen gives back the rights that the process's umask has taken. What is
// somebody else's has them already.
func widen(f *os.File, mode fs.FileMode) error {
	info, err := f.Stat()
	if err != nil || info.Mode()&mode == mode {
		return err
	}
	err = f.Chmod(info.Mode()&^fs.ModePerm | mode)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
