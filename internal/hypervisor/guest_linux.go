package hypervisor

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// machinePath is where programs of a machine are looked for.
const machinePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// grace is how long processes of a machine that powers off may take to end.
// systemd waits longer.
const grace = 3 * time.Second

//go:embed shim.sh
var shim []byte

// GuestConfig is what a machine is like.
type GuestConfig struct {
	ID, Type, Zone, Role, Access, Secret string
	Spot                                 bool
	Dir                                  string // on the host: what remains of it
	Address, Router                      string
	Hide, Environ                        []string
	Hurry                                int
	Files                                map[string]string
	CA, Hosts                            string
	UserData                             []byte
}

// Guest is the first process of a machine. Its methods are called by the
// region.
type Guest struct {
	config GuestConfig
	imds   *imds

	mu       sync.Mutex // held while a process is started
	children map[int]func(syscall.WaitStatus)
	off      sync.Once
}

// guestMain is a machine's life: it ends with its power, which is an exit with
// status 0, or breaks down.
func guestMain() {
	g := &Guest{children: map[int]func(syscall.WaitStatus){}}
	server := rpc.NewServer()
	if err := server.Register(g); err != nil {
		log.Fatal(err)
	}
	server.ServeConn(stdio{})
	os.Exit(1) // the region has ended
}

// stdio is a connection to whoever started this process.
type stdio struct{}

func (stdio) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (stdio) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdio) Close() error                { return nil }

// Boot starts the machine.
func (g *Guest) Boot(c GuestConfig, _ *struct{}) error {
	g.config = c
	hostname := "ip-" + strings.ReplaceAll(c.Address, ".", "-")
	if err := g.network(); err != nil {
		return err
	}
	if err := g.files(); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(hostname)); err != nil {
		return err
	}
	g.imds = &imds{id: c.ID, kind: c.Type, zone: c.Zone, role: c.Role, spot: c.Spot, access: c.Access, secret: c.Secret, address: c.Address, hostname: hostname + ".ec2.internal"}
	l, err := net.Listen("tcp", "169.254.169.254:80")
	if err != nil {
		return err
	}
	go http.Serve(l, g.imds)
	if l, err = net.Listen("tcp", "127.0.0.1:1"); err != nil {
		return err
	}
	s := &systemd{hurry: c.Hurry, units: map[string]*unit{}, start: g.startUnit, powerOff: g.powerOff}
	go s.serve(l)
	go g.reap()
	return g.cloudInit()
}

func (g *Guest) network() error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(`link set lo up
addr add 169.254.169.254/32 dev lo
addr add ` + g.config.Address + `/24 dev eth0
link set eth0 up
route add default via ` + g.config.Router + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	return nil
}

// files gives the machine a copy of the host's files that it may change, with
// nothing of the tests in it.
func (g *Guest) files() error {
	base := filepath.Join(g.config.Dir, "disk")
	root := filepath.Join(base, "root")
	logs := filepath.Join(g.config.Dir, "log")
	var errs []error
	do := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	folder := func(path string) { do("make folder", os.MkdirAll(path, 0o755)) }
	mount := func(source, target, kind string, flags uintptr, data string) {
		if err := syscall.Mount(source, target, kind, flags, data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s at %s: %w", kind, target, err))
		}
	}
	folder(base)
	folder(logs)
	mount("none", base, "tmpfs", 0, "mode=755")
	for _, name := range []string{"upper", "work", "root"} {
		folder(filepath.Join(base, name))
	}
	mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+base+"/upper,workdir="+base+"/work")
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, path := range append([]string{"/tmp", "/var/tmp", "/run", "/opt", "/root", "/home"}, g.config.Hide...) {
		in := filepath.Join(root, path)
		if info, err := os.Lstat(in); err == nil && info.IsDir() {
			mode := "mode=755"
			if strings.HasSuffix(path, "/tmp") {
				mode = "mode=1777"
			}
			mount("none", in, "tmpfs", 0, mode)
		}
	}
	folder(filepath.Join(root, "var/log"))
	mount(logs, filepath.Join(root, "var/log"), "", syscall.MS_BIND, "")
	mount("/dev", filepath.Join(root, "dev"), "", syscall.MS_BIND|syscall.MS_REC, "")
	mount("proc", filepath.Join(root, "proc"), "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "")
	mount("sysfs", filepath.Join(root, "sys"), "sysfs", syscall.MS_RDONLY, "")
	if _, err := os.Stat("/proc/sysrq-trigger"); err == nil { // it would power off the host
		mount("/dev/null", filepath.Join(root, "proc/sysrq-trigger"), "", syscall.MS_BIND, "")
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	old := filepath.Join(root, "mnt")
	folder(old)
	do("pivot root", syscall.PivotRoot(root, old))
	do("change folder", os.Chdir("/"))
	do("unmount", syscall.Unmount("/mnt", syscall.MNT_DETACH))
	do("write", os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n"+g.config.Hosts), 0o644))
	for _, path := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"} {
		if b, err := os.ReadFile(path); err == nil && g.config.CA != "" {
			do("write", os.WriteFile(path, append(b, g.config.CA...), 0o644))
		}
	}
	for path, text := range g.config.Files {
		folder(filepath.Dir(path))
		os.Remove(path) // a link may lead elsewhere
		do("write", os.WriteFile(path, []byte(text), 0o755))
	}
	for _, name := range []string{"systemctl", "systemd-run", "poweroff", "shutdown"} {
		for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			path := filepath.Join(dir, name)
			if _, err := os.Lstat(path); err == nil || dir == "/usr/local/sbin" {
				do("make folder", os.MkdirAll(dir, 0o755))
				os.Remove(path) // often a link to systemctl
				do("write", os.WriteFile(path, shim, 0o755))
			}
		}
	}
	return errors.Join(errs...)
}

// cloudInit runs the user data as cloud-init does: in /, without HOME.
func (g *Guest) cloudInit() error {
	script := g.config.UserData
	if bytes.HasPrefix(script, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(script))
		if err == nil {
			script, err = io.ReadAll(z)
		}
		if err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(script, []byte("#!")) {
		return nil // cloud-init warns, and the machine runs
	}
	const dir = "/var/lib/cloud/instance/scripts"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := dir + "/part-001"
	if err := os.WriteFile(path, script, 0o700); err != nil {
		return err
	}
	_, err := g.startUnit([]string{path}, nil, "cloud-init-output", func(syscall.WaitStatus) {})
	return err
}

// startUnit starts a process as systemd does: with an environment that has
// little in it.
func (g *Guest) startUnit(argv, env []string, name string, ended func(syscall.WaitStatus)) (int, error) {
	out, err := os.OpenFile("/var/log/"+name+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	return g.start(argv, env, out, ended)
}

func (g *Guest) start(argv, env []string, out *os.File, ended func(syscall.WaitStatus)) (int, error) {
	in, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Dir: "/", Files: []uintptr{in.Fd(), out.Fd(), out.Fd()},
		Env: append(append([]string{"PATH=" + machinePath, "LANG=C.UTF-8"}, g.config.Environ...), env...),
		Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", argv[0], err)
	}
	g.children[pid] = ended
	return pid, nil
}

// reap waits for children, and for what has lost its parent.
func (g *Guest) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil { // no children
			time.Sleep(5 * time.Millisecond)
			continue
		}
		g.mu.Lock()
		ended := g.children[pid]
		delete(g.children, pid)
		g.mu.Unlock()
		if ended != nil {
			ended(status)
		}
	}
}

// powerOff ends the machine as systemd does: everything is asked to end, then
// killed.
func (g *Guest) powerOff() {
	g.off.Do(func() {
		time.Sleep(20 * time.Millisecond) // who asked gets an answer
		syscall.Kill(-1, syscall.SIGTERM)
		syscall.Kill(-1, syscall.SIGCONT)
		for end := time.Now().Add(grace); time.Now().Before(end) && len(processes()) > 1; {
			time.Sleep(10 * time.Millisecond)
		}
		os.Exit(0) // the kernel kills what is left
	})
}

// Notice makes the metadata service tell that the machine is taken back.
func (g *Guest) Notice(at time.Time, _ *struct{}) error {
	g.imds.setNotice(at)
	return nil
}

// SignalArgs says to which processes a signal goes: those whose command line
// has Match in it.
type SignalArgs struct {
	Match  string
	Signal syscall.Signal
}

// Signal sends a signal and says to how many processes.
func (g *Guest) Signal(a SignalArgs, n *int) error {
	for _, pid := range processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if pid == 1 || !strings.Contains(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})), a.Match) {
			continue
		}
		if err := syscall.Kill(pid, a.Signal); err == nil {
			*n++
		}
	}
	return nil
}

// Exec runs a program on the machine and returns what it prints.
func (g *Guest) Exec(argv []string, text *string) error {
	path, err := lookPath(argv[0])
	if err != nil {
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	out, err := os.CreateTemp("/run", "exec-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	ended := make(chan syscall.WaitStatus, 1)
	if _, err := g.start(append([]string{path}, argv[1:]...), []string{"HOME=/root"}, out, func(s syscall.WaitStatus) { ended <- s }); err != nil {
		return err
	}
	status := <-ended
	b, err := os.ReadFile(out.Name())
	if err != nil {
		return err
	}
	*text = string(b)
	if status != 0 {
		return fmt.Errorf("%q: exit status %d: %s", argv, status.ExitStatus(), b)
	}
	return nil
}
