//go:build linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// deadlineMain is the watching process of tests: it leaves a mark where the real
// one would power off.
func deadlineMain(file string) {
	deadline(context.Background(), file, func() {
		_ = os.WriteFile(file+".off", nil, 0o600)
		os.Exit(0)
	})
}

// fakeIMDS is a metadata service that only answers to its tokens.
type fakeIMDS struct {
	mu     sync.Mutex
	data   map[string]string
	tokens int
	down   int // requests that fail
}

func (f *fakeIMDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/latest/")
	switch {
	case f.down > 0:
		f.down--
		w.WriteHeader(http.StatusServiceUnavailable)
	case path == "api/token" && r.Method == http.MethodPut && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
		f.tokens++
		_, _ = fmt.Fprintf(w, "token-%d", f.tokens)
	case r.Header.Get("X-aws-ec2-metadata-token") != fmt.Sprintf("token-%d", f.tokens):
		w.WriteHeader(http.StatusUnauthorized)
	case f.data[path] == "":
		w.WriteHeader(http.StatusNotFound)
	default:
		_, _ = fmt.Fprintln(w, f.data[path])
	}
}

func (f *fakeIMDS) set(path, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data[path] = text
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	f := &fakeIMDS{data: map[string]string{"meta-data/instance-id": "i-0abc", "meta-data/instance-type": "m6i.large",
		"meta-data/placement/availability-zone": "us-east-1a", "meta-data/instance-life-cycle": "spot", "meta-data/placement/region": "us-east-1"}}
	server := httptest.NewServer(f)
	defer server.Close()
	h := NewEC2(server.URL+"/", t.TempDir(), "", slog.New(slog.DiscardHandler))
	id, err := h.Identity(t.Context())
	if want := (Identity{ID: "i-0abc", Type: "m6i.large", Zone: "us-east-1a", Spot: true}); err != nil || id != want {
		t.Errorf("%+v, %v", id, err)
	}
	if r, err := h.Region(t.Context()); err != nil || r != "us-east-1" {
		t.Errorf("region %q, %v", r, err)
	}
	if at, err := h.Notice(t.Context()); err != nil || !at.IsZero() {
		t.Errorf("a notice for %v, %v", at, err)
	}
	// The service forgets the token.
	f.mu.Lock()
	f.tokens++
	f.mu.Unlock()
	f.set("meta-data/spot/instance-action", `{"action":"terminate","time":"2026-11-20T12:00:00Z"}`)
	if at, err := h.Notice(t.Context()); err != nil || !at.Equal(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("a notice for %v, %v", at, err)
	}
	f.set("meta-data/spot/instance-action", `something new`)
	if at, err := h.Notice(t.Context()); err != nil || time.Until(at) < time.Minute {
		t.Errorf("a notice that cannot be read is for %v, %v", at, err)
	}
	f.mu.Lock()
	f.down = 1
	f.mu.Unlock()
	if _, err := h.Notice(t.Context()); err == nil || errors.Is(err, errNoData) {
		t.Errorf("a failure is no answer: %v", err)
	}
	f.set("meta-data/instance-life-cycle", "")
	if id, err := h.Identity(t.Context()); err != nil || id.Spot {
		t.Errorf("without a life cycle: %+v, %v", id, err)
	}
	f.set("meta-data/instance-id", "a/b")
	if id, err := h.Identity(t.Context()); err == nil {
		t.Errorf("%+v was taken for a machine", id)
	}
}

// fakeCommands makes commands of the system that note how they were called;
// those in bad fail.
func fakeCommands(t *testing.T, bad ...string) (calls func() string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	for _, name := range []string{"systemd-run", "systemctl", "poweroff", "shutdown"} {
		code := 0
		for _, b := range bad {
			if b == name {
				code = 1
			}
		}
		text := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s\nexit %d\n", name, log, code)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return func() string {
		b, err := os.ReadFile(log)
		if err != nil {
			return ""
		}
		return string(b)
	}
}

func TestArm(t *testing.T) {
	calls := fakeCommands(t)
	dir := t.TempDir()
	h := NewEC2("", dir, "", slog.New(slog.DiscardHandler))
	for range 2 {
		if err := h.Arm(time.Now().Add(time.Hour + 500*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	want := `systemd-run --quiet --collect --unit=coiled-jobs-grant-1 --on-active=3600 --timer-property=AccuracySec=1s systemctl poweroff
systemd-run --quiet --collect --unit=coiled-jobs-grant-2 --on-active=3600 --timer-property=AccuracySec=1s systemctl poweroff
systemctl stop coiled-jobs-grant-1.timer
`
	if got := calls(); got != want {
		t.Errorf("called:\n%swant:\n%s", got, want)
	}
	if at, ok := readDeadline(filepath.Join(dir, "deadline")); !ok || time.Until(at) < 59*time.Minute {
		t.Errorf("the file says %v, %v", at, ok)
	}
}

// Where systemd has no timers, a process of its own watches the time.
func TestArmWithoutSystemd(t *testing.T) {
	calls := fakeCommands(t, "systemd-run")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h := NewEC2("", dir, exe, slog.New(slog.DiscardHandler))
	h.Path = os.Getenv("PATH")
	if err := h.Arm(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := calls(); !strings.HasPrefix(got, "systemd-run ") {
		t.Errorf("called: %s", got)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		if _, err := os.Stat(filepath.Join(dir, "deadline.off")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the process did nothing")
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestPowerOff(t *testing.T) {
	for _, c := range []struct {
		bad  []string
		want string
	}{
		{nil, "systemctl poweroff\n"},
		{[]string{"systemctl"}, "systemctl poweroff\npoweroff\n"},
		{[]string{"systemctl", "poweroff"}, "systemctl poweroff\npoweroff\nshutdown -P now\n"},
	} {
		t.Run(strings.Join(c.bad, " "), func(t *testing.T) {
			calls := fakeCommands(t, c.bad...)
			powerOff(slog.New(slog.DiscardHandler), false)
			if got := calls(); got != c.want {
				t.Errorf("called:\n%swant:\n%s", got, c.want)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "machine", "deadline")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		set := func(at time.Time) {
			if err := os.WriteFile(file, fmt.Appendln(nil, at.Unix()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		set(begun.Add(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		var offs []time.Duration
		over := make(chan struct{})
		go func() {
			defer close(over)
			deadline(ctx, file, func() { offs = append(offs, time.Since(begun)) })
		}()
		time.Sleep(50 * time.Minute)
		set(begun.Add(2 * time.Hour))
		time.Sleep(time.Hour)
		if err := os.Remove(file); err != nil { // what it said last holds
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute + 40*time.Second)
		cancel()
		<-over
		if err := os.Remove(filepath.Dir(file)); err != nil { // no machine is left: it ends by itself
			t.Fatal(err)
		}
		deadline(t.Context(), file, func() { t.Error("it powered off what is no machine") })
		if len(offs) != 2 || offs[0] < 2*time.Hour || offs[0] > 2*time.Hour+3*time.Second {
			t.Errorf("it powered off after %v", offs)
		}
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		writeFile(t, p, text)
		return p
	}
	a, err := readCPU(write("stat1", "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5\n"))
	if err != nil || a.cpus != 2 {
		t.Fatalf("%+v, %v", a, err)
	}
	b, err := readCPU(write("stat2", "cpu  200 0 150 750 100 0 0 0 90 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := b.since(a); got != 0.75 {
		t.Errorf("%v of the CPUs were in use", got)
	}
	if got := a.since(b); got != 0 {
		t.Errorf("time went back: %v", got)
	}
	if _, err := readCPU(write("stat3", "intr 5\n")); err == nil {
		t.Error("no CPU was found and nobody says so")
	}
	if used, total := readMemory(write("mem", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")); used != 600<<10 || total != 1000<<10 {
		t.Errorf("memory %d of %d", used, total)
	}
	in, out := readNet(write("net", `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0
  eth0:1000 0 0 0 0 0 0 0 2000 0 0 0 0 0 0 0
  eth1: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0
`))
	if in != 1001 || out != 2002 {
		t.Errorf("network %d, %d", in, out)
	}
	h := NewEC2("", dir, "", slog.New(slog.DiscardHandler))
	if m := h.Metrics(); m.CPUs < 1 || m.MemoryTotal == 0 || m.DiskTotal == 0 || m.Disk > m.DiskTotal {
		t.Errorf("this machine: %+v", m)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	tail := NewTail(&all, 10)
	for i := range 100 {
		if _, err := fmt.Fprintf(tail, "%03d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(tail.Bytes()); got != "7\n098\n099\n" || all.Len() != 400 {
		t.Errorf("%q, %d bytes passed on", got, all.Len())
	}
}
