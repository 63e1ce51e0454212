package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/wire"
)

// EC2 is a machine rented from EC2: what its metadata service says, its system
// timers and its power switch.
type EC2 struct {
	// Path is where the process that watches the time finds programs.
	Path string

	meta *metadata
	dir  string
	exe  string
	log  *slog.Logger

	mu       sync.Mutex
	known    bool // it is a rented machine
	timers   int
	watching bool
	cpu      cpuTimes
}

// NewEC2 makes the host. endpoint is that of the metadata service ("": EC2's),
// dir the machine's own folder, exe this program.
func NewEC2(endpoint, dir, exe string, log *slog.Logger) *EC2 {
	h := &EC2{meta: newMetadata(endpoint), dir: dir, exe: exe, log: log, Path: systemPath}
	h.cpu, _ = readCPU("/proc/stat")
	return h
}

// Identity asks the metadata service.
func (h *EC2) Identity(ctx context.Context) (Identity, error) {
	id, err := h.meta.identity(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = h.known || err == nil
	return id, err
}

// Region is where the machine is, as the metadata service says.
func (h *EC2) Region(ctx context.Context) (string, error) {
	return h.meta.get(ctx, "meta-data/placement/region")
}

// Notice asks whether the machine is taken back.
func (h *EC2) Notice(ctx context.Context) (time.Time, error) { return h.meta.notice(ctx) }

// Arm sets a timer of the system, and tells a process that watches the time
// where there is no systemd.
func (h *EC2) Arm(at time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.tellWatcher(at)
	left := max(time.Until(at), time.Second)
	// The new timer is there before the old one goes.
	name := func(n int) string { return "coiled-jobs-grant-" + strconv.Itoa(n) }
	h.timers++
	timerErr := command("systemd-run", "--quiet", "--collect", "--unit="+name(h.timers),
		"--on-active="+strconv.Itoa(int(left/time.Second)), "--timer-property=AccuracySec=1s", "systemctl", "poweroff")
	if timerErr != nil {
		h.timers-- // the last one that is there
		if err == nil {
			h.log.Warn("no timer of the system; a process watches the time", "err", timerErr)
			return nil
		}
		return errors.Join(err, timerErr)
	}
	if h.timers > 1 {
		if err := command("systemctl", "stop", name(h.timers-1)+".timer"); err != nil {
			h.log.Warn("an earlier timer was not stopped", "err", err)
		}
	}
	return nil
}

// tellWatcher writes the time for the watching process, and starts it.
func (h *EC2) tellWatcher(at time.Time) error {
	file := filepath.Join(h.dir, "deadline")
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, []byte(strconv.FormatInt(at.Unix(), 10)+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return err
	}
	if h.watching || h.exe == "" {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	// A session of its own, and nothing in its environment by which it could be
	// taken for a task.
	proc, err := os.StartProcess(h.exe, []string{"cj-deadline", "__deadline", file}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + h.Path, "GOMAXPROCS=1", "GOMEMLIMIT=16MiB"},
		Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start the process that watches the time: %w", err)
	}
	_ = proc.Release()
	h.watching = true
	return nil
}

// PowerOff ends the machine.
func (h *EC2) PowerOff() {
	h.mu.Lock()
	known := h.known
	h.mu.Unlock()
	powerOff(h.log, known)
}

// systemPath finds the commands of the system where PATH is not set.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// powerOff asks the system in the ways there are. If all of them fail and this
// is a rented machine, it asks the kernel.
func powerOff(log *slog.Logger, rented bool) {
	for _, argv := range [][]string{{"systemctl", "poweroff"}, {"poweroff"}, {"shutdown", "-P", "now"}} {
		err := command(argv[0], argv[1:]...)
		if err == nil {
			return
		}
		log.Error("power off", "command", argv[0], "err", err)
	}
	if rented {
		unix.Sync()
		if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
			log.Error("power off", "err", err)
		}
	}
}

// command runs a command of the system; it must not take long.
func command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range filepath.SplitList(systemPath) {
			if p := filepath.Join(dir, name); unix.Access(p, unix.X_OK) == nil {
				path, err = p, nil
				break
			}
		}
	}
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.200s", name, err, out)
	}
	return nil
}

// Deadline is the whole life of the process that watches the time: it powers
// the machine off when the time in the file has passed. A file that cannot be
// read says what it said last; without its folder this is no machine any more,
// and nothing to end.
func Deadline(file string, log *slog.Logger) {
	deadline(context.Background(), file, func() {
		log.Error("the time has passed: power off")
		powerOff(log, true)
	})
}

// Metrics measures the machine.
func (h *EC2) Metrics() wire.Metrics {
	h.mu.Lock()
	defer h.mu.Unlock()
	var m wire.Metrics
	if now, err := readCPU("/proc/stat"); err == nil {
		m.CPU, m.CPUs = now.since(h.cpu), now.cpus
		h.cpu = now
	}
	m.Memory, m.MemoryTotal = readMemory("/proc/meminfo")
	m.NetIn, m.NetOut = readNet("/proc/net/dev")
	var fs unix.Statfs_t
	if unix.Statfs(h.dir, &fs) == nil {
		m.DiskTotal = int64(fs.Blocks) * fs.Bsize
		m.Disk = m.DiskTotal - int64(fs.Bfree)*fs.Bsize
	}
	return m
}
