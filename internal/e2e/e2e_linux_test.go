package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/internal/hypervisor"
)

// The tests mostly wait for machines.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	var err error
	if programDir, err = os.MkdirTemp("", "coiled-jobs-e2e-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(programDir)
	os.Exit(code)
}

// programDir is the folder of program.
var programDir string

// program is the command line as it is shipped: static, for it is the agent too.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programDir, "coiled-jobs")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../../cmd/coiled-jobs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// person is somebody at a command line, with a home of their own.
type person struct {
	t         testing.TB
	region    *hypervisor.Region
	exe       string
	home, dir string
	store     string
	env       []string
}

// newPerson has a store of their own in the region.
func newPerson(t testing.TB, r *hypervisor.Region, name string) *person {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.S3Dir, "team"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, region: r, exe: exe, home: t.TempDir(), dir: t.TempDir(), store: "s3://team/" + name}
	if programs := filepath.Join(r.S3Dir, "team", "first", "agent"); name != "first" && there(programs) {
		if err := os.CopyFS(filepath.Join(r.S3Dir, "team", name, "agent"), os.DirFS(programs)); err != nil {
			t.Fatal(err)
		}
	}
	p.knowPrices()
	return p
}

// begin is a region's first run. What takes a while and is done once, others
// find done: reading types and prices, which moto lists slowly, and publishing
// the program.
func (p *person) begin() {
	p.t.Helper()
	p.write(map[string]string{"pipeline.yaml": "name: first\ncloud: aws\nfunctions: {f: {run: echo hello, hardware: {vm_type: m5.large, keepalive: 0s}}}\n"})
	p.run(0, "instances", "--vm-type", "m5.large") // it waits for the lists, apply does not
	p.run(0, "apply", "pipeline.yaml", "--yes")
	if err := os.CopyFS(p.prices(), os.DirFS(filepath.Join(p.home, "coiled-jobs", "prices"))); err != nil {
		p.t.Fatal(err)
	}
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (p *person) prices() string { return filepath.Join(p.region.Dir, "prices") }

// knowPrices lets a person know what the first one has read.
func (p *person) knowPrices() {
	p.t.Helper()
	if !there(p.prices()) {
		return
	}
	if err := os.CopyFS(filepath.Join(p.home, "coiled-jobs", "prices"), os.DirFS(p.prices())); err != nil {
		p.t.Fatal(err)
	}
}

// elsewhere is the same person at another computer.
func (p *person) elsewhere() *person {
	q := *p
	q.home, q.dir = p.t.TempDir(), p.t.TempDir()
	q.knowPrices()
	return &q
}

func (p *person) write(files map[string]string) {
	p.t.Helper()
	for name, text := range files {
		path := filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *person) command(args ...string) *exec.Cmd {
	cmd := p.region.Command(p.exe, args...)
	cmd.Dir = p.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "USER=tester", "XDG_STATE_HOME=" + p.home, "XDG_CACHE_HOME=" + p.home + "/cache",
		"COILED_JOBS_STORE=" + p.store}, append(p.region.Environ(), p.env...)...)
	return cmd
}

// output is what a command printed.
type output struct{ stdout, stderr string }

// started is a command on its way.
type started struct {
	p              *person
	cmd            *exec.Cmd
	stdout, stderr syncBuffer
	ended          chan struct{}
}

func (p *person) start(args ...string) *started {
	p.t.Helper()
	s := &started{p: p, cmd: p.command(args...), ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	if err := s.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.ended
	})
	go func() { s.cmd.Wait(); close(s.ended) }()
	return s
}

// wait waits for the command's end and checks its exit code.
func (s *started) wait(code int, within time.Duration) output {
	s.p.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(within):
		s.cmd.Process.Kill()
		<-s.ended
		s.p.t.Fatalf("%q has not ended after %v:\n%s\n%s", s.cmd.Args[1:], within, s.stdout.String(), s.stderr.String())
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.p.t.Fatalf("%q: exit code %d, want %d\n%s\n%s", s.cmd.Args[1:], got, code, s.stdout.String(), s.stderr.String())
	}
	return output{s.stdout.String(), s.stderr.String()}
}

func (p *person) run(code int, args ...string) output {
	p.t.Helper()
	return p.start(args...).wait(code, soon)
}

// status is what status and apply say as JSON.
type status struct {
	Run, Status string
	CostUSD     float64 `json:"cost_usd"`
	Machines    int
	Functions   map[string]struct {
		Status                                       string
		Tasks, Succeeded, Failed, Cancelled, Retries int
	}
}

func (o output) status(t *testing.T) status {
	t.Helper()
	var s status
	if err := json.Unmarshal([]byte(o.stdout), &s); err != nil {
		t.Fatalf("%v: %s\n%s", err, o.stdout, o.stderr)
	}
	return s
}

// results are a function's, by index.
func (p *person) results(run, fn string) []any {
	p.t.Helper()
	var list []struct{ Result any }
	out := p.run(0, "results", run, fn, "--format", "json")
	if err := json.Unmarshal([]byte(out.stdout), &list); err != nil {
		p.t.Fatalf("%v: %s", err, out.stdout)
	}
	var values []any
	for _, r := range list {
		values = append(values, r.Result)
	}
	return values
}

// soon is within seconds, on a machine that has nothing else to do.
const soon = 3 * time.Minute

// until waits for something to happen.
func until(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", within, what)
		}
	}
}

// contains checks texts for words.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

// syncBuffer is read while a process writes to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
