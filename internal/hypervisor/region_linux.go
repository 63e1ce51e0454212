package hypervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// Region is a running region.
type Region struct {
	EC2, S3 string // addresses of the servers
	S3Dir   string // folders in it are buckets, files in them objects
	Dir     string // what remains of machines: <id>/log is their /var/log

	t       T
	info    ServeInfo
	cmd     *exec.Cmd
	process *rpc.Client
	stderr  *lockedBuffer
	veth    string
	spaces  []string // its namespaces
}

// Start starts a region that ends with the test. Where that is impossible the
// test is skipped with the reason, but fails in CI, where CI=true is set.
func Start(t T, o Options) *Region {
	t.Helper()
	r := &Region{t: t, Dir: t.TempDir(), stderr: &lockedBuffer{}}
	err := r.start(o)
	if err != nil && r.cmd != nil {
		r.end()
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no region of machines: %v %s", err, r.stderr)
		}
		t.Skipf("no region of machines: %v %s", err, r.stderr)
	}
	t.Cleanup(r.check)
	return r
}

func (r *Region) start(o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("it takes root")
	}
	for _, tool := range []string{"ip", "curl", "bash", "gunzip", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	_, source, _, ok := runtime.Caller(0)
	if ok {
		o.Hide = append(o.Hide, filepath.Join(filepath.Dir(source), "..", ".."))
	}
	if home, err := os.UserHomeDir(); err == nil {
		o.Hide = append(o.Hide, home)
	}
	cmd := again(exe, "region")
	cmd.Stderr = r.stderr
	if r.process, err = startRPC(cmd); err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	r.cmd = cmd
	pid := cmd.Process.Pid
	for _, kind := range []string{"pid", "mnt", "net", "uts", "ipc"} {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return err
		}
		r.spaces = append(r.spaces, ns)
	}
	subnet, err := r.connect(pid)
	if err != nil {
		return err
	}
	if err := r.process.Call("Serve.Boot", ServeConfig{Options: o, Exe: exe, Dir: r.Dir, Subnet: subnet}, &r.info); err != nil {
		return err
	}
	if r.info.Skip != "" {
		return errors.New(r.info.Skip)
	}
	r.EC2, r.S3, r.S3Dir = r.info.EC2, r.info.S3, r.info.S3Dir
	return errors.Join(os.WriteFile(filepath.Join(r.Dir, "ca.pem"), []byte(r.info.CA), 0o644),
		os.WriteFile(filepath.Join(r.Dir, "hosts"), []byte("127.0.0.1 localhost\n"+r.info.Hosts), 0o644))
}

// connect joins the region's network to this machine's. The addresses are those
// set aside for tests of networks (RFC 2544); a name of an interface can be
// taken once, which keeps several regions apart.
func (r *Region) connect(pid int) (subnet string, err error) {
	for range 50 {
		n := rand.IntN(512)
		veth := fmt.Sprintf("cjtest%d", n)
		subnet = fmt.Sprintf("198.%d.%d", 18+n/256, n%256)
		err = ip(fmt.Sprintf("link add %s type veth peer name host netns %d", veth, pid))
		if err == nil {
			r.veth = veth
			return subnet, ip("addr add "+subnet+".2/24 dev "+veth, "link set "+veth+" up")
		}
		if !strings.Contains(err.Error(), "File exists") {
			return "", err
		}
	}
	return "", err
}

// Environ is the variables with which the SDK finds the servers, or trusts them
// where they have Amazon's names.
func (r *Region) Environ() []string {
	host := r.EC2[strings.Index(r.EC2, "//")+2 : strings.LastIndexByte(r.EC2, ':')]
	servers := []string{"AWS_ENDPOINT_URL=" + r.EC2, "AWS_ENDPOINT_URL_S3=" + r.S3}
	if r.info.CA != "" {
		servers = []string{"SSL_CERT_FILE=" + filepath.Join(r.Dir, "ca.pem")}
		host = ".amazonaws.com"
	}
	return append(servers, "AWS_ACCESS_KEY_ID="+r.info.Access, "AWS_SECRET_ACCESS_KEY="+r.info.Secret,
		"AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull,
		"AWS_PROFILE=", "AWS_SESSION_TOKEN=", "NO_PROXY="+host, "no_proxy="+host)
}

// Command runs a program of this machine as somebody who knows the region's
// servers by their names.
func (r *Region) Command(name string, args ...string) *exec.Cmd {
	if r.info.Hosts == "" {
		return exec.Command(name, args...)
	}
	return exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`,
		filepath.Join(r.Dir, "hosts"), name}, args...)...)
}

// Setenv sets Environ for the test, which therefore cannot be parallel.
func (r *Region) Setenv(t T) {
	t.Helper()
	for _, kv := range r.Environ() {
		key, value, _ := strings.Cut(kv, "=")
		t.Setenv(key, value)
	}
}

// Machines lists the machines of all times, in the order of their launch.
func (r *Region) Machines() []Machine {
	r.t.Helper()
	var list []Machine
	r.call("Machines", struct{}{}, &list)
	return list
}

// Live lists the machines that live.
func (r *Region) Live() []Machine {
	r.t.Helper()
	var live []Machine
	for _, m := range r.Machines() {
		if m.Ended.IsZero() {
			live = append(live, m)
		}
	}
	return live
}

// Inventory says what EC2, SQS and SSM have.
func (r *Region) Inventory() motoserver.Inventory {
	r.t.Helper()
	var i motoserver.Inventory
	r.call("Inventory", struct{}{}, &i)
	return i
}

func (r *Region) call(method string, in, out any) {
	r.t.Helper()
	if err := r.process.Call("Serve."+method, in, out); err != nil {
		r.t.Fatalf("region: %s: %v %s", method, err, r.stderr)
	}
}

func (r *Region) do(o Order) (string, error) {
	var text string
	err := r.process.Call("Serve.Do", o, &text)
	return text, err
}

// Reclaim gives a spot machine notice and takes it back after a while.
func (r *Region) Reclaim(id string, after time.Duration) error {
	_, err := r.do(Order{ID: id, What: "reclaim", In: after})
	return err
}

// Crash ends a machine as a broken one ends: EC2 says that it runs.
func (r *Region) Crash(id string) error {
	_, err := r.do(Order{ID: id, What: "crash"})
	return err
}

// Cut takes a machine off the network; Mend puts it back.
func (r *Region) Cut(id string) error {
	_, err := r.do(Order{ID: id, What: "cut"})
	return err
}

// Mend ends what Cut did.
func (r *Region) Mend(id string) error {
	_, err := r.do(Order{ID: id, What: "mend"})
	return err
}

// Signal sends a signal to the processes of a machine with this text in their
// command line. None is an error.
func (r *Region) Signal(id, match string, signal syscall.Signal) error {
	text, err := r.do(Order{ID: id, What: "signal", Signal: SignalArgs{match, signal}})
	if err == nil && text == "0" {
		err = fmt.Errorf("machine %s: no process with %q in its command line", id, match)
	}
	return err
}

// Exec runs a program on a machine and returns what it prints.
func (r *Region) Exec(id string, argv ...string) (string, error) {
	return r.do(Order{ID: id, What: "exec", Argv: argv})
}

// Log is a log of a machine, also of one that has ended: a name in /var/log.
func (r *Region) Log(id, name string) string {
	b, err := os.ReadFile(filepath.Join(r.Dir, id, "log", name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Left waits a moment for everything to end, and says what does not: instances,
// launch templates, queues, and what machines are made of.
func (r *Region) Left(wait time.Duration) []string {
	r.t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		var left []string
		r.call("Residue", struct{}{}, &left)
		i := r.Inventory()
		for what, list := range map[string][]string{"instance": i.Instances, "launch template": i.Templates, "queue": i.Queues, "message": i.Messages} {
			for _, name := range list {
				left = append(left, what+" "+name)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// check ends the region at the end of the test and makes sure that it did.
func (r *Region) check() {
	r.t.Helper()
	if r.t.Failed() {
		r.tell()
	}
	r.end()
	end := time.Now().Add(10 * time.Second)
	left := r.remains()
	for len(left) > 0 && time.Now().Before(end) { // the kernel takes its time
		time.Sleep(10 * time.Millisecond)
		left = r.remains()
	}
	if len(left) > 0 {
		r.t.Errorf("left of the region: %q", left)
	}
}

// end ends the region's first process, and with it everything in the region.
func (r *Region) end() {
	r.process.Close()
	timer := time.AfterFunc(5*time.Second, func() { r.cmd.Process.Kill() })
	defer timer.Stop()
	r.cmd.Wait()
	// The kernel takes networks apart in the background, some time.
	if _, err := os.Stat("/sys/class/net/" + r.veth); r.veth != "" && err == nil {
		ip("link del " + r.veth) // or the kernel was faster
	}
}

// remains says what there is of the region on this machine.
func (r *Region) remains() []string {
	var left []string
	if _, err := os.Stat("/sys/class/net/" + r.veth); r.veth != "" && err == nil {
		left = append(left, "network card "+r.veth)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/*")
	for _, link := range links {
		ns, err := os.Readlink(link)
		for _, mine := range r.spaces {
			if err == nil && ns == mine {
				left = append(left, link)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(r.Dir)) {
		left = append(left, fmt.Sprintf("a mount below %s (%v)", r.Dir, err))
	}
	return left
}

// tell shows the ends of the machines' logs.
func (r *Region) tell() {
	var list []Machine
	if err := r.process.Call("Serve.Machines", struct{}{}, &list); err != nil {
		r.t.Logf("region: %v", err)
	}
	for _, m := range list {
		r.t.Logf("%s %s in %s, spot %v, begun %s, ended %s: %s%s", m.ID, m.Type, m.Zone, m.Spot, clock(m.Begun), clock(m.Ended), m.How, m.Error)
		for _, name := range []string{"../console.log", "cloud-init-output.log", "coiled-jobs.log"} {
			if b, err := os.ReadFile(filepath.Join(r.Dir, m.ID, "log", name)); err == nil && len(b) > 0 {
				r.t.Logf("%s %s: %s", m.ID, name, b[max(0, len(b)-4000):])
			}
		}
	}
	if text := r.stderr.String(); text != "" {
		r.t.Logf("region: %s", text)
	}
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format("15:04:05.000")
}

// lockedBuffer keeps what is written to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
