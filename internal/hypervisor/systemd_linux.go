package hypervisor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// systemd is what there is of it on a machine: transient services and timers,
// and the power switch. What it does not know is an error, so that a test does
// not pass because nothing happened.
type systemd struct {
	hurry    int
	start    func(argv, env []string, log string, ended func(syscall.WaitStatus)) (pid int, err error)
	powerOff func()

	mu    sync.Mutex
	units map[string]*unit
}

// unit is a service or a timer, by its whole name.
type unit struct {
	argv, env []string
	pid       int  // of a service that runs
	failed    bool // a service that ended badly: it stays loaded
	timer     *time.Timer
	elapsed   bool // of a timer
}

// loaded says whether systemd still knows the unit: transient ones that ended
// well are forgotten.
func (u *unit) loaded() bool {
	return u != nil && (u.pid != 0 || u.failed || u.timer != nil && !u.elapsed)
}

// result is what a command says.
type result struct {
	status, stream int
	text           string
}

func failure(status int, format string, args ...any) result {
	return result{status, 2, fmt.Sprintf(format, args...) + "\n"}
}

// serve answers the shims.
func (s *systemd) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			argv, err := readCommand(bufio.NewReader(c))
			r := failure(1, "%v", err)
			if err == nil {
				r = s.command(argv)
			}
			fmt.Fprintf(c, "%d %d\n%s", r.status, max(r.stream, 1), r.text)
		}()
	}
}

func readCommand(r *bufio.Reader) ([]string, error) {
	word := func() (string, error) {
		s, err := r.ReadString(0)
		return strings.TrimSuffix(s, "\x00"), err
	}
	count, err := word()
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil, err
	}
	argv := make([]string, n+1)
	for i := range argv {
		if argv[i], err = word(); err != nil {
			return nil, err
		}
	}
	return argv, nil
}

func (s *systemd) command(argv []string) result {
	switch argv[0] {
	case "systemd-run":
		return s.run(argv[1:])
	case "systemctl":
		return s.control(argv[1:])
	case "poweroff":
		go s.powerOff()
		return result{}
	case "shutdown":
		var at string
		for _, a := range argv[1:] {
			if !strings.HasPrefix(a, "-") {
				at = a
				break
			}
		}
		if !slices.ContainsFunc(argv, func(a string) bool { return a == "-P" || a == "-h" || a == "--poweroff" }) || at != "now" && at != "+0" {
			return failure(1, "this shutdown only knows -P now: %q", argv)
		}
		go s.powerOff()
		return result{}
	}
	return failure(127, "there is no %s", argv[0])
}

// run is systemd-run.
func (s *systemd) run(args []string) result {
	var name, after string
	u := &unit{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		option, value, has := strings.Cut(args[0], "=")
		args = args[1:]
		switch option {
		case "-q", "--quiet", "--collect", "-G", "--no-block", "--no-ask-password", "--system":
			continue
		case "--":
			option = ""
		case "--unit", "-u", "--on-active", "--property", "-p", "--setenv", "-E", "--description", "--timer-property":
			if !has && len(args) > 0 {
				value, args = args[0], args[1:]
			}
		default:
			return failure(1, "systemd-run: unrecognized option '%s'", option)
		}
		if option == "" {
			break
		}
		switch option {
		case "--unit", "-u":
			name = strings.TrimSuffix(value, ".service")
		case "--on-active":
			after = value
		case "--setenv", "-E":
			u.env = append(u.env, value)
		case "--property", "-p", "--timer-property":
			key, _, ok := strings.Cut(value, "=")
			if !ok || !slices.Contains(properties, key) {
				return failure(1, "Unknown assignment: %s", value)
			}
		}
	}
	if len(args) == 0 {
		return failure(1, "Command line to execute required.")
	}
	path, err := lookPath(args[0])
	if err != nil {
		return failure(1, "Failed to find executable %s: %v", args[0], err)
	}
	u.argv = append([]string{path}, args[1:]...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" {
		name = fmt.Sprintf("run-u%d", len(s.units))
	}
	if s.units[name+".service"].loaded() || after != "" && s.units[name+".timer"].loaded() {
		return failure(1, "Failed to start transient unit: Unit %s was already loaded or has a fragment file.", name)
	}
	if after == "" {
		s.units[name+".service"] = u
		if err := s.startLocked(name, u); err != nil {
			return failure(1, "Failed to start transient service unit: %v", err)
		}
		return result{}
	}
	d, err := span(after)
	if err != nil {
		return failure(1, "Failed to parse --on-active= argument: %s", after)
	}
	t := &unit{}
	s.units[name+".timer"] = t
	t.timer = time.AfterFunc(d/time.Duration(max(s.hurry, 1)), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.units[name+".timer"] != t {
			return
		}
		t.elapsed = true
		s.units[name+".service"] = u
		if err := s.startLocked(name, u); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		}
	})
	return result{}
}

// properties are those of services that are known, and that processes do
// without here.
var properties = []string{"OOMPolicy", "TasksMax", "LimitNOFILE", "Delegate", "KillMode", "Type", "Restart", "OOMScoreAdjust",
	"AccuracySec", "RemainAfterElapse", "StandardOutput", "StandardError", "CollectMode", "TimeoutStopSec", "MemoryAccounting", "CPUAccounting",
	"Description", "DefaultDependencies"}

func (s *systemd) startLocked(name string, u *unit) error {
	pid, err := s.start(u.argv, u.env, name, func(status syscall.WaitStatus) {
		s.mu.Lock()
		defer s.mu.Unlock()
		u.pid = 0
		u.failed = status != 0
	})
	u.pid = pid
	return err
}

// control is systemctl.
func (s *systemd) control(args []string) result {
	var words []string
	for _, a := range args {
		switch {
		case !strings.HasPrefix(a, "-"):
			words = append(words, a)
		case !slices.Contains([]string{"-q", "--quiet", "--no-block", "-i", "--force", "-f", "--no-wall", "--no-ask-password", "--ignore-inhibitors"}, a):
			return failure(1, "systemctl: unrecognized option '%s'", a)
		}
	}
	if len(words) == 0 {
		return failure(1, "this systemctl lists nothing")
	}
	verb, names := words[0], words[1:]
	switch verb {
	case "poweroff":
		go s.powerOff()
		return result{}
	case "is-system-running":
		return result{0, 1, "running\n"}
	case "daemon-reload":
		return result{}
	case "reset-failed", "stop", "is-active":
	default:
		return failure(1, "this systemctl knows no %s", verb)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := result{}
	for _, n := range names {
		if !strings.Contains(n, ".") {
			n += ".service"
		}
		u := s.units[n]
		switch {
		case verb == "is-active":
			if !u.loaded() || u.failed {
				r = result{3, 1, r.text + "inactive\n"}
			} else {
				r.stream, r.text = 1, r.text+"active\n"
			}
		case !u.loaded() && verb == "stop":
			r = failure(5, "Failed to stop %s: Unit %s not loaded.", n, n)
		case !u.loaded():
			r = failure(1, "Failed to reset failed state of unit %s: Unit %s not loaded.", n, n)
		case verb == "reset-failed":
			u.failed = false
		case u.timer != nil:
			u.timer.Stop()
			delete(s.units, n)
		case u.pid != 0:
			for _, pid := range family(u.pid) {
				syscall.Kill(pid, syscall.SIGTERM)
			}
		}
	}
	return r
}

// span reads a time span of systemd: seconds, or numbers with units.
func span(text string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(n * float64(time.Second)), nil
	}
	return time.ParseDuration(strings.NewReplacer(" ", "", "min", "m", "sec", "s").Replace(text))
}

// lookPath finds a program on the machine's own path.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		_, err := os.Stat(name)
		return name, err
	}
	for _, dir := range filepath.SplitList(machinePath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", os.ErrNotExist
}

// family is a process and what it has started and lives, by /proc.
func family(root int) []int {
	parents := map[int]int{}
	for _, pid := range processes() {
		parents[pid] = parentOf(pid)
	}
	var all []int
	for pid := range parents {
		for p := pid; p > 1; p = parents[p] {
			if p == root {
				all = append(all, pid)
				break
			}
		}
	}
	return all
}

// processes are those that /proc shows.
func processes() []int {
	var all []int
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return nil
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name may hold anything
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}
