//go:build unix

// Package warden makes sure that no process of a run outlives its agent.
//
// There are three lines of defence. Direct children die with the thread that
// started them (Linux) and their process groups are killed after each task.
// Orphans come back to the agent, which is their subreaper, and are killed at
// the end of the run. And if the agent itself is killed, the warden, a process
// in a session of its own that holds the other end of a pipe, notices, kills
// the groups that ran, every process that carries the run's token in its
// environment, and those without it that the agent has told of while it lived
// (once a second), and removes the scratch folder.
package warden

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Variable is the environment variable that carries the token.
const Variable = "COILED_JOBS_WARD"

// Title is the name under which the warden stands in lists of processes.
const Title = "cj-warden"

// Groups is the process groups that run now, in memory that the warden shares
// through a file: telling it costs nothing per task.
type Groups struct {
	path string
	mem  []byte
}

// NewGroups makes a file with n cells; the caller removes it.
func NewGroups(path string, n int) (*Groups, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the table of process groups: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(int64(n) * 8); err != nil {
		return nil, fmt.Errorf("make the table of process groups: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, n*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the table of process groups: %w", err)
	}
	return &Groups{path: path, mem: mem}, nil
}

func (g *Groups) cell(i int) *int64 { return (*int64)(unsafe.Pointer(&g.mem[i*8])) }

// Set records the group of a cell; 0 is none.
func (g *Groups) Set(i, pgid int) { atomic.StoreInt64(g.cell(i), int64(pgid)) }

// list is the groups recorded in a table's file.
func list(path string) []int {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var pgids []int
	for ; len(b) >= 8; b = b[8:] {
		if n := *(*int64)(unsafe.Pointer(&b[0])); n > 1 {
			pgids = append(pgids, int(n))
		}
	}
	return pgids
}

// children is the direct children of all agents of this process. A child is
// started and added under the read lock: who holds the write lock sees them all.
var children struct {
	sync.RWMutex
	pids sync.Map
}

// Started runs start, which starts a child, and remembers it until Ended.
func Started(start func() (pid int, err error)) error {
	children.RLock()
	defer children.RUnlock()
	pid, err := start()
	if err == nil {
		children.pids.Store(pid, true)
	}
	return err
}

// Ended forgets a child; call it before it is waited for.
func Ended(pid int) { children.pids.Delete(pid) }

// Config is what Start needs.
type Config struct {
	Command []string // program and arguments; empty: no warden process
	Token   string
	Groups  *Groups
	Scratch string // removed if the agent dies
}

// Keeper is the agent's side.
type Keeper struct {
	cfg  Config
	pid  int
	pipe *os.File
	quit chan struct{}
	done chan struct{}
	dead map[int]bool // orphans that had ended when last looked at
	told map[int]uint64
}

// Start makes this process the one that orphans of its children come back to
// and starts the warden.
func Start(cfg Config) (*Keeper, error) {
	becomeSubreaper()
	k := &Keeper{cfg: cfg, quit: make(chan struct{}), done: make(chan struct{})}
	if len(cfg.Command) > 0 && cfg.Command[0] != "" {
		if err := k.start(); err != nil {
			return nil, fmt.Errorf("start the warden: %w", err)
		}
	}
	go k.keep()
	return k, nil
}

func (k *Keeper) start() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	argv := append([]string{Title}, k.cfg.Command[1:]...)
	// Its own session: signals of the terminal do not reach it. Its environment
	// names nothing, so that it is not mistaken for a task.
	proc, err := os.StartProcess(k.cfg.Command[0], argv, &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "GOMEMLIMIT=16MiB"},
		Files: []*os.File{r, null, null}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	closeErr := errors.Join(r.Close(), null.Close())
	if err != nil {
		return errors.Join(err, w.Close())
	}
	k.pid, k.pipe = proc.Pid, w
	_ = proc.Release()
	_, err = fmt.Fprintf(w, "%s\n%s\n%s\n", strconv.Quote(k.cfg.Token), strconv.Quote(k.cfg.Groups.path), strconv.Quote(k.cfg.Scratch))
	return errors.Join(err, closeErr)
}

// keep reaps orphans now and then, so that a long run does not fill the table
// of processes.
func (k *Keeper) keep() {
	defer close(k.done)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-k.quit:
			return
		case <-t.C:
			k.reap()
			k.tell()
		}
	}
}

// Stop kills what tasks left behind and ends the warden. Call it when no task
// runs any more.
func (k *Keeper) Stop() {
	close(k.quit)
	<-k.done
	Kill(k.cfg.Token)
	k.killOrphans()
	if k.pipe == nil {
		return
	}
	_, _ = io.WriteString(k.pipe, "done\n")
	_ = k.pipe.Close()
	// It only has to read that line.
	_, _ = waitChild(k.pid)
}

func waitChild(pid int) (syscall.WaitStatus, error) {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err != syscall.EINTR {
			return ws, err
		}
	}
}

// Main is the whole life of the warden process: it waits for the end of the
// pipe on standard input. It never returns.
func Main() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP)
	in := bufio.NewReader(os.Stdin)
	var f [3]string
	for i := range f {
		line, err := in.ReadString('\n')
		if err == nil {
			f[i], err = strconv.Unquote(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			os.Exit(1) // the agent died before it could say anything, or this is not an agent
		}
	}
	strays := map[int]uint64{}
	for {
		line, err := in.ReadString('\n')
		if line == "done\n" {
			os.Exit(0)
		}
		var pid int
		var start uint64
		if n, _ := fmt.Sscanf(line, "stray %d %d\n", &pid, &start); n == 2 && pid > 1 {
			strays[pid] = start
		}
		if err != nil {
			break
		}
	}
	token, groups, scratch := f[0], f[1], f[2]
	for _, pgid := range list(groups) {
		_ = syscall.Kill(-pgid, syscall.SIGKILL)
	}
	killStrays(strays)
	Kill(token)
	if filepath.IsAbs(scratch) && scratch != "/" {
		_ = os.RemoveAll(scratch)
	}
	os.Exit(0)
}
