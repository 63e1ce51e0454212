package hypervisor

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// self is the name under which the test's program starts itself again.
const self = "coiled-jobs-hypervisor"

// A program that imports this package can be started as the first process of a
// region or of a machine.
func init() {
	if len(os.Args) != 2 || os.Args[0] != self {
		return
	}
	// What is mounted here stays here.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		log.Fatal(err)
	}
	switch os.Args[1] {
	case "region":
		serveMain()
	case "machine":
		guestMain()
	}
	os.Exit(2)
}

// again is the command that starts this program as something else, in
// namespaces of its own.
func again(exe, what string) *exec.Cmd {
	return &exec.Cmd{Path: exe, Args: []string{self, what}, Env: os.Environ(), SysProcAttr: &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}}
}

// ServeConfig is what a region is like.
type ServeConfig struct {
	Options
	Exe, Dir string
	Subnet   string // its first three numbers
}

// ServeInfo is what a test must know of a region.
type ServeInfo struct {
	EC2, S3, S3Dir string
	Access, Secret string
	CA, Hosts      string // of servers with Amazon's names
	Skip           string // why there is none
}

// Serve is the first process of a region. Its methods are called by the test.
type Serve struct {
	config ServeConfig
	info   ServeInfo
	moto   *motoserver.Server

	mu       sync.Mutex
	machines map[string]*host
}

// host is a machine as its region sees it.
type host struct {
	Machine
	veth  string
	cmd   *exec.Cmd
	guest *rpc.Client
	ready chan struct{} // closed when it was started, or could not be
}

func serveMain() {
	server := rpc.NewServer()
	if err := server.Register(&Serve{machines: map[string]*host{}}); err != nil {
		log.Fatal(err)
	}
	server.ServeConn(stdio{}) // until the test ends
	os.Exit(0)
}

func ip(lines ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	return nil
}

// Boot starts the network and the servers. The other end of the veth named
// host is the test's.
func (s *Serve) Boot(c ServeConfig, info *ServeInfo) error {
	s.config = c
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	address := c.Subnet + ".1"
	// With an address of its own: a bridge otherwise takes the least of those of
	// its ports, and whoever knew another one speaks to nobody for a while.
	err := ip("link set lo up", "link add bridge0 address 02:00:00:00:00:01 type bridge", "addr add "+address+"/24 dev bridge0",
		"link set bridge0 up", "link set host master bridge0", "link set host up")
	if err != nil {
		return err
	}
	t := &serverT{dir: c.Dir}
	var s3 *s3server.Server
	t.run(func() { s3 = s3server.StartAt(t, s3server.Options{Host: address, Domain: s3Domain}) })
	t.run(func() {
		s.moto = motoserver.Start(t, motoserver.Options{Capacity: c.Capacity, Host: address, Watch: s.watch})
	})
	if t.err != nil {
		return t.err
	}
	if t.skip == "" {
		s.info = ServeInfo{EC2: s.moto.URL, S3: s3.URL, S3Dir: s3.Dir, Access: s3.Access, Secret: s3.Secret}
	}
	s.info.Skip = t.skip
	if len(c.Buckets) > 0 && t.skip == "" {
		names := amazonNames(c.Buckets)
		if s.info.CA, err = serveNames(address, s.moto.URL, s3.URL, names); err != nil {
			return err
		}
		s.info.Hosts = address + " " + strings.Join(names, " ") + "\n"
	}
	*info = s.info
	return nil
}

// serverT is the test of servers that live until the region ends.
type serverT struct {
	dir, skip string
	err       error
}

func (t *serverT) Helper()               {}
func (t *serverT) Cleanup(func())        {}
func (t *serverT) Setenv(string, string) {}
func (t *serverT) TempDir() string {
	dir, err := os.MkdirTemp(t.dir, "server-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	return dir
}

func (t *serverT) Skipf(format string, args ...any) {
	t.skip = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (t *serverT) Fatalf(format string, args ...any) {
	t.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}

// run calls f, which may give up.
func (t *serverT) run(f func()) {
	if t.skip != "" || t.err != nil {
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	<-done
}

// watch hears of instances, one after the other.
func (s *Serve) watch(e motoserver.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Event == "begin" {
		h := &host{Machine: Machine{ID: e.ID, Type: e.Type, Zone: e.Zone, Spot: e.Spot, Begun: time.Now()},
			veth: fmt.Sprintf("m%d", len(s.machines)), ready: make(chan struct{})}
		config := GuestConfig{ID: e.ID, Type: e.Type, Zone: e.Zone, Spot: e.Spot, Access: s.info.Access, Secret: s.info.Secret,
			Dir: filepath.Join(s.config.Dir, e.ID), Hide: s.config.Hide, Hurry: s.config.Hurry, UserData: e.UserData,
			Address: fmt.Sprintf("%s.%d", s.config.Subnet, len(s.machines)+10), Router: s.config.Subnet + ".1",
			Environ: s.config.Environ, Files: s.config.Files, CA: s.info.CA, Hosts: s.info.Hosts}
		if e.Profile != "" {
			config.Role = "role-of-" + e.Profile
		}
		s.machines[e.ID] = h
		go s.live(h, config)
		return
	}
	if h := s.machines[e.ID]; h != nil && h.Ended.IsZero() {
		h.Ended = time.Now()
		if h.How == "" {
			h.How = "terminated"
		}
		if h.cmd != nil {
			h.cmd.Process.Kill()
		}
	}
}

// live is a machine from its launch to its end.
func (s *Serve) live(h *host, c GuestConfig) {
	err := s.boot(h, c)
	s.mu.Lock()
	if err != nil && h.Ended.IsZero() {
		h.Error = err.Error()
	} else if err == nil {
		h.Booted = time.Now()
	}
	if err != nil && h.cmd != nil {
		h.cmd.Process.Kill()
	}
	s.mu.Unlock()
	close(h.ready)
	if h.cmd == nil {
		return
	}
	err = h.cmd.Wait()
	var exit *exec.ExitError
	errors.As(err, &exit)
	// The kernel ends the first process with an interrupt when another one
	// calls reboot(2).
	off := err == nil || exit != nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGINT
	s.mu.Lock()
	// A machine that breaks down still runs for all that EC2 knows.
	if off && h.How == "" {
		h.How = "powered off"
	} else if h.How == "" {
		h.How = "crashed"
	}
	if h.Ended.IsZero() {
		h.Ended = time.Now()
	}
	s.mu.Unlock()
	if off {
		if err := s.moto.PowerOff(h.ID); err != nil {
			log.Print(err)
		}
	}
}

func (s *Serve) boot(h *host, c GuestConfig) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "user-data"), c.UserData, 0o600); err != nil {
		return err
	}
	console, err := os.Create(filepath.Join(c.Dir, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := again(s.config.Exe, "machine")
	cmd.Stderr = console
	client, err := startRPC(cmd)
	if err != nil {
		return err
	}
	s.mu.Lock()
	h.cmd, h.guest = cmd, client
	gone := !h.Ended.IsZero()
	s.mu.Unlock()
	if gone {
		return cmd.Process.Kill()
	}
	err = ip(fmt.Sprintf("link add %s type veth peer name eth0 netns %d", h.veth, cmd.Process.Pid),
		"link set "+h.veth+" master bridge0", "link set "+h.veth+" up")
	if err != nil {
		return err
	}
	return client.Call("Guest.Boot", c, &struct{}{})
}

// startRPC starts a process that serves on its standard streams.
func startRPC(cmd *exec.Cmd) (*rpc.Client, error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, stdoutW, err := os.Pipe() // not StdoutPipe: Wait would close it while answers are read
	if err != nil {
		return nil, err
	}
	cmd.Stdout = stdoutW
	err = cmd.Start()
	stdoutW.Close()
	if err != nil {
		stdout.Close()
		return nil, err
	}
	return rpc.NewClient(pipes{stdout, stdin}), nil
}

type pipes struct {
	*os.File
	w interface {
		Write([]byte) (int, error)
		Close() error
	}
}

func (p pipes) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p pipes) Close() error                { return errors.Join(p.w.Close(), p.File.Close()) }

// machine finds a machine that has been started and lives.
func (s *Serve) machine(id string) (*host, error) {
	s.mu.Lock()
	h := s.machines[id]
	s.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("there is no machine %s", id)
	}
	<-h.ready
	s.mu.Lock()
	defer s.mu.Unlock()
	if !h.Ended.IsZero() || h.Error != "" {
		return nil, fmt.Errorf("machine %s has ended: %s%s", id, h.How, h.Error)
	}
	return h, nil
}

// Machines lists the machines of all times, in the order of their launch.
func (s *Serve) Machines(_ struct{}, list *[]Machine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.machines {
		*list = append(*list, h.Machine)
	}
	slices.SortFunc(*list, func(a, b Machine) int { return a.Begun.Compare(b.Begun) })
	return nil
}

// Inventory is what moto's server has.
func (s *Serve) Inventory(_ struct{}, i *motoserver.Inventory) (err error) {
	*i, err = s.moto.Inventory()
	return err
}

// Order is what is to be done to a machine.
type Order struct {
	ID, What string
	In       time.Duration // of reclaim
	Argv     []string      // of exec
	Signal   SignalArgs
}

// Do does something to a machine.
func (s *Serve) Do(o Order, text *string) error {
	h, err := s.machine(o.ID)
	if err != nil {
		return err
	}
	switch o.What {
	case "reclaim":
		if !h.Spot {
			return fmt.Errorf("%s is no spot machine", o.ID)
		}
		time.AfterFunc(o.In, func() {
			if err := s.moto.Reclaim(o.ID); err != nil {
				log.Print(err)
			}
		})
		return h.guest.Call("Guest.Notice", time.Now().Add(o.In), &struct{}{})
	case "crash":
		return h.cmd.Process.Kill()
	case "cut":
		return ip("link set " + h.veth + " down")
	case "mend":
		return ip("link set " + h.veth + " up")
	case "signal":
		n := 0
		err := h.guest.Call("Guest.Signal", o.Signal, &n)
		*text = fmt.Sprint(n)
		return err
	case "exec":
		return h.guest.Call("Guest.Exec", o.Argv, text)
	}
	return fmt.Errorf("nobody knows how to %s a machine", o.What)
}

// Residue is what is in the region beside its servers.
func (s *Serve) Residue(_ struct{}, list *[]string) error {
	s.mu.Lock()
	veths := map[string]string{}
	for id, h := range s.machines {
		veths[h.veth] = id
	}
	s.mu.Unlock()
	mine, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	for _, pid := range processes() {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && ns != mine {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			*list = append(*list, fmt.Sprintf("process %d: %q", pid, line))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(veths)) {
		if _, err := os.Stat("/sys/class/net/" + name); err == nil {
			*list = append(*list, "network card of "+veths[name])
		}
	}
	return nil
}
