package software

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// writeArchive packs a folder: files, folders and links, with their modes and
// times (compiled Python files are tied to the times of their sources).
func writeArchive(ctx context.Context, w io.Writer, dir string) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	seen := map[fileID]string{}
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || rel == "." || rel == readyFile {
			return err
		}
		return addToArchive(t, name, filepath.ToSlash(rel), d, seen)
	})
	if err == nil {
		err = t.Close()
	}
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	return err
}

func addToArchive(t *tar.Writer, name, rel string, d fs.DirEntry, seen map[fileID]string) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: rel, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX}
	switch {
	case info.IsDir():
		h.Typeflag = tar.TypeDir
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(name); err != nil {
			return err
		}
	case info.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		// Names of one file stay names of one file.
		if id, ok := hardLink(info); ok {
			if first, ok := seen[id]; ok {
				h.Typeflag, h.Size, h.Linkname = tar.TypeLink, 0, first
			} else {
				seen[id] = rel
			}
		}
	default:
		return nil // sockets and the like
	}
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := io.CopyN(t, f, h.Size); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	return nil
}

// readArchive unpacks into an empty folder. Nothing is written outside of it,
// whatever names and links the archive has.
func readArchive(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	src := &sourceErr{r: r}
	bad := func(err error) error {
		if src.err != nil {
			return src.err // reading failed, the archive may be fine
		}
		return &cloud.Error{Op: "unpack", Resource: "the environment", Kind: cloud.KindCorrupt, Err: err}
	}
	z, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(2))
	if err != nil {
		return bad(err)
	}
	defer z.Close()
	t := tar.NewReader(bufio.NewReaderSize(z, 1<<20))
	var folders []*tar.Header
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad(err)
		}
		if !filepath.IsLocal(h.Name) {
			return bad(fmt.Errorf("%q leads out of the folder", h.Name))
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			folders = append(folders, h)
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = writeMember(root, name, h, t, bad)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeLink:
			if !filepath.IsLocal(h.Linkname) {
				return bad(fmt.Errorf("%q is a link to %q, out of the folder", h.Name, h.Linkname))
			}
			err = root.Link(filepath.Clean(h.Linkname), name)
		default:
			return bad(fmt.Errorf("%q is neither a file, a folder nor a link", h.Name))
		}
		if err != nil {
			return outside(err, bad)
		}
	}
	// Folders last: what was made in them has changed their times.
	for i := len(folders) - 1; i >= 0; i-- {
		h := folders[i]
		name := filepath.Clean(h.Name)
		if err := root.Chmod(name, fs.FileMode(h.Mode).Perm()); err != nil {
			return outside(err, bad)
		}
		if err := root.Chtimes(name, h.ModTime, h.ModTime); err != nil {
			return outside(err, bad)
		}
	}
	return nil
}

// outside turns what an os.Root refuses into damage of the archive.
func outside(err error, bad func(error) error) error {
	var pe *fs.PathError
	var le *os.LinkError
	cause := err
	if errors.As(err, &pe) {
		cause = pe.Err
	} else if errors.As(err, &le) {
		cause = le.Err
	}
	if cause.Error() == "path escapes from parent" || errors.Is(err, fs.ErrExist) {
		return bad(err)
	}
	return err
}

func writeMember(root *os.Root, name string, h *tar.Header, r io.Reader, bad func(error) error) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := &sinkErr{w: f}
	if _, err := io.Copy(w, r); err != nil {
		_ = f.Close()
		if w.err != nil {
			return w.err // the disk, not the archive
		}
		return bad(err)
	}
	err = f.Chmod(fs.FileMode(h.Mode).Perm())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Chtimes(name, h.ModTime, h.ModTime)
	}
	return err
}

// sourceErr keeps the error of a reader, to tell it from one of a decoder.
type sourceErr struct {
	r   io.Reader
	err error
}

func (s *sourceErr) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// sinkErr likewise of a writer.
type sinkErr struct {
	w   io.Writer
	err error
}

func (s *sinkErr) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}
