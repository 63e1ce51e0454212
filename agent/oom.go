//go:build unix

package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// oomWatch tells a task that was killed for want of memory from one that was
// killed by somebody: the kernel counts the former.
type oomWatch struct {
	count func() int64

	mu   sync.Mutex
	at   time.Time
	last int64
}

func newOOMWatch(count func() int64) *oomWatch {
	if count == nil {
		count = kernelOOMKills()
	}
	return &oomWatch{count: count}
}

// before is the count when a task starts. It may be a second old: reading it
// for each of a thousand tasks a second would cost more than it tells.
func (w *oomWatch) before() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.at.IsZero() || now.Sub(w.at) > time.Second {
		w.at, w.last = now, w.count()
	}
	return w.last
}

// since says whether the system killed something for want of memory since.
func (w *oomWatch) since(before int64) bool {
	n := w.count()
	w.mu.Lock()
	w.at, w.last = time.Now(), n
	w.mu.Unlock()
	return n > before
}

// kernelOOMKills reads the counters of this process's control group, of either
// version, and the one of the whole machine. Their sum grows with every kill.
func kernelOOMKills() func() int64 {
	files := []string{"/proc/vmstat"}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for _, line := range strings.Split(string(groups), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			files = append(files, filepath.Join("/sys/fs/cgroup", f[2], "memory.events"))
		}
		for _, c := range strings.Split(f[1], ",") {
			if c == "memory" {
				files = append(files, filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.oom_control"))
			}
		}
	}
	return func() int64 {
		var sum int64
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			for _, line := range bytes.Split(b, []byte("\n")) {
				if v, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
					n, _ := strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 64)
					sum += n
				}
			}
		}
		return sum
	}
}
