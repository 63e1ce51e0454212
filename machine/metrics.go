package machine

import (
	"errors"
	"os"
	"strconv"
	"strings"
)

// cpuTimes is what all CPUs have done since boot, in clock ticks.
type cpuTimes struct {
	busy, all uint64
	cpus      int
}

// since is the share of all CPUs that was in use since an earlier reading.
func (c cpuTimes) since(before cpuTimes) float64 {
	if c.all <= before.all || c.busy < before.busy {
		return 0
	}
	return float64(c.busy-before.busy) / float64(c.all-before.all)
}

// readCPU reads /proc/stat.
func readCPU(file string) (c cpuTimes, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && f[0] == "cpu":
			// user nice system idle iowait irq softirq steal; guests are in user
			for i, s := range f[1:min(len(f), 9)] {
				n, err := strconv.ParseUint(s, 10, 64)
				if err != nil {
					return c, err
				}
				c.all += n
				if i != 3 && i != 4 {
					c.busy += n
				}
			}
		case len(f) > 0 && strings.HasPrefix(f[0], "cpu"):
			c.cpus++
		}
	}
	if c.all == 0 {
		return c, errors.New(file + " has no line about all CPUs")
	}
	return c, nil
}

// readMemory reads /proc/meminfo.
func readMemory(file string) (used, total int64) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0
	}
	var free int64
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			free = n << 10
		}
	}
	return max(0, total-free), total
}

// readNet reads /proc/net/dev: what came and went on all but the loopback.
func readNet(file string) (in, out int64) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, counts, ok := strings.Cut(line, ":")
		f := strings.Fields(counts)
		if !ok || len(f) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		i, err1 := strconv.ParseInt(f[0], 10, 64)
		o, err2 := strconv.ParseInt(f[8], 10, 64)
		if err1 == nil && err2 == nil {
			in, out = in+i, out+o
		}
	}
	return in, out
}
