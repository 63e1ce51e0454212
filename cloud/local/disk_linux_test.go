package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
)

func init() {
	helpers["disk"] = smallDisk
	helpers["ulimit"] = fileSizeLimit
	helpers["denied"] = noPermission
}

// errUnavailable is what a helper prints when the system does not let it test.
var errUnavailable = errors.New("unavailable")

// runHelper runs a helper to its end and fails with what it prints.
func runHelper(t *testing.T, name, dir string, attr *syscall.SysProcAttr) {
	t.Helper()
	cmd := helper(t, name, dir)
	cmd.SysProcAttr = attr
	out, err := cmd.Output()
	if attr != nil && len(out) == 0 && err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	if strings.Contains(string(out), errUnavailable.Error()) {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Errorf("%s", out)
	}
}

// TestFullDisk fills a disk of 256 KiB. It is mounted in a namespace of a
// process of its own, which takes no privileges and vanishes with it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	runHelper(t, "disk", t.TempDir(), &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
}

func smallDisk(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		return fmt.Errorf("%w: mount: %w", errUnavailable, err)
	}
	ctx := context.Background()
	s, err := local.OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	if err := s.Put(ctx, "kept", []byte("kept")); err != nil {
		return err
	}
	j, err := s.OpenJournal(ctx, "runs/1/journal")
	if err != nil {
		return err
	}
	names := func(what string, err error) error {
		if cloud.KindOf(err) != cloud.KindFull || !strings.Contains(err.Error(), "the disk at "+dir+" (") {
			return fmt.Errorf("%s on a full disk: %w", what, err)
		}
		return nil
	}
	acked := 0
	for ; ; acked++ {
		if _, err = j.Append([]byte(strings.Repeat("r", 1000))); err != nil {
			break
		}
		if acked > 1000 {
			return errors.New("the disk does not get full")
		}
	}
	if err := names("append", err); err != nil {
		return err
	}
	big := strings.Repeat("x", 100<<10)
	if err := names("put", s.Put(ctx, "kept", []byte(big))); err != nil {
		return err
	}
	if err := names("put from", s.PutFrom(ctx, "kept", strings.NewReader(big))); err != nil {
		return err
	}
	if err := names("create", s.Create(ctx, "new", []byte(big))); err != nil {
		return err
	}
	if b, err := s.Get(ctx, "kept"); string(b) != "kept" {
		return fmt.Errorf("after a failed put: %.20q, %w", b, err)
	}
	if _, err := s.Get(ctx, "new"); cloud.KindOf(err) != cloud.KindNotFound {
		return fmt.Errorf("after a failed create: %w", err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "store", ".tmp"))
	if err != nil || len(left) > 0 {
		return fmt.Errorf("temporary files left: %v, %w", left, err)
	}
	n := 0
	if _, err := s.ReadJournal(ctx, "runs/1/journal", 0, func(int64, []byte) error { n++; return nil }); err != nil || n < acked {
		return fmt.Errorf("the journal has %d of %d records: %w", n, acked, err)
	}
	if err := j.Close(); err != nil {
		return err
	}
	// With room again, it goes on.
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		return err
	}
	if j, err = s.OpenJournal(ctx, "runs/1/journal"); err != nil {
		return err
	}
	if _, err := j.Append([]byte("more")); err != nil {
		return err
	}
	if err := j.Close(); err != nil {
		return err
	}
	// And read-only it can still be read.
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	r, err := local.OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		return fmt.Errorf("open a read-only store: %w", err)
	}
	if b, err := r.Get(ctx, "kept"); string(b) != "kept" {
		return fmt.Errorf("read-only get: %q, %w", b, err)
	}
	if alive, err := r.JournalAlive(ctx, "runs/1/journal"); alive || err != nil {
		return fmt.Errorf("read-only alive: %v, %w", alive, err)
	}
	_, jerr := r.OpenJournal(ctx, "runs/1/journal")
	_, oerr := local.OpenStore(filepath.Join(dir, "another"))
	for what, err := range map[string]error{"put": r.Put(ctx, "a", nil), "journal": jerr, "open": oerr} {
		if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--store") {
			return fmt.Errorf("%s on a read-only disk: %w", what, err)
		}
	}
	return nil
}

// TestFileSizeLimit: ulimit -f is no reason to die of a signal.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	runHelper(t, "ulimit", t.TempDir(), nil)
}

func fileSizeLimit(dir string) error {
	const most = 8192
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
		return fmt.Errorf("%w: setrlimit: %w", errUnavailable, err)
	}
	ctx := context.Background()
	s, err := local.OpenStore(dir)
	if err != nil {
		return err
	}
	if err := s.Put(ctx, "a", make([]byte, 2*most)); cloud.KindOf(err) != cloud.KindFull || !strings.Contains(err.Error(), "ulimit") {
		return fmt.Errorf("put: %w", err)
	}
	j, err := s.OpenJournal(ctx, "j")
	if err != nil {
		return err
	}
	acked := 0
	for ; err == nil; acked++ {
		_, err = j.Append(make([]byte, 1000))
	}
	if acked--; acked != most/1016 || cloud.KindOf(err) != cloud.KindFull {
		return fmt.Errorf("after %d records: %w", acked, err)
	}
	n := 0
	if _, err := s.ReadJournal(ctx, "j", 0, func(int64, []byte) error { n++; return nil }); err != nil || n != acked {
		return fmt.Errorf("the journal has %d of %d records: %w", n, acked, err)
	}
	return nil
}

// TestNoPermission: what is refused is named. The process runs as a user
// without privileges, in a namespace of its own if the tests run as root.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store"))
	if err := s.Put(t.Context(), "secret", nil); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"store/secret": 0, "store": 0o500} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "store"), 0o700) })
	runHelper(t, "denied", filepath.Join(dir, "store"), &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}},
	})
}

func noPermission(dir string) error {
	ctx := context.Background()
	s, err := local.OpenStore(dir)
	if err != nil {
		return err
	}
	_, get := s.Get(ctx, "secret")
	_, journal := s.OpenJournal(ctx, "runs/1/journal")
	_, inside := local.OpenStore(filepath.Join(dir, "a", "b"))
	for what, err := range map[string]error{"get": get, "put": s.Put(ctx, "a", nil), "create": s.Create(ctx, "a", nil),
		"open journal": journal, "open store": inside} {
		if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), dir) {
			return fmt.Errorf("%s without permission: %w", what, err)
		}
	}
	return nil
}
