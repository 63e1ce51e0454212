package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var durationUnits = map[string]time.Duration{
	"ms": time.Millisecond, "millisecond": time.Millisecond, "milliseconds": time.Millisecond,
	"s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hrs": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// sizeUnits has lower-case names: K, M, G, T alone and Ki, Mi... are powers of
// 1024, KB, MB... are powers of 1000.
var sizeUnits = map[string]float64{
	"b": 1, "byte": 1, "bytes": 1,
	"k": 1 << 10, "ki": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mi": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gi": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "ti": 1 << 40, "tib": 1 << 40, "tb": 1e12,
}

// What is said about text that is nothing like a duration or size.
const (
	noDuration = "expected numbers with units such as 1h30m"
	noSize     = "expected a number with a unit"
)

// ParseDuration reads a duration: 30m, 1h30m, 2d, 1.5h, "30 s", "10 minutes".
// A bare number is seconds.
func ParseDuration(s string) (time.Duration, error) {
	d, why := parseDuration(s)
	if why != "" {
		return 0, fmt.Errorf("%q is no duration such as 30m: %s", s, why)
	}
	return d, nil
}

// parseDuration says why text is no duration.
func parseDuration(s string) (d time.Duration, why string) {
	rest := strings.TrimSpace(s)
	if strings.HasPrefix(rest, "-") {
		return 0, "it is negative"
	}
	total := 0.0
	for first := true; rest != "" || first; first = false {
		n, unit, tail, ok := numberAndUnit(rest)
		if !ok {
			return 0, noDuration
		}
		u, known := durationUnits[strings.ToLower(unit)]
		if unit == "" && first && tail == "" {
			u, known = time.Second, true
		}
		switch {
		case known:
		case unit == "":
			return 0, "a number has no unit (ms, s, m, h, d, w)"
		default:
			return 0, fmt.Sprintf("unknown unit %q (there are ms, s, m, h, d, w)", unit)
		}
		total += n * float64(u)
		rest = tail
	}
	if total >= math.MaxInt64 {
		return 0, "it is too long"
	}
	return time.Duration(math.Round(total)), ""
}

// ParseSize reads a number of bytes: "16 GiB", 512MB, 1.5TiB. KB, MB, GB are
// powers of 1000, KiB (also K, Ki) and so on powers of 1024. A bare number is
// GiB.
func ParseSize(s string) (int64, error) {
	n, why := parseSize(s)
	if why != "" {
		return 0, fmt.Errorf("%q is no size such as 16 GiB: %s", s, why)
	}
	return n, nil
}

// parseSize says why text is no size.
func parseSize(s string) (bytes int64, why string) {
	rest := strings.TrimSpace(s)
	if strings.HasPrefix(rest, "-") {
		return 0, "it is negative"
	}
	n, unit, tail, ok := numberAndUnit(rest)
	if !ok || tail != "" {
		return 0, noSize
	}
	factor, known := sizeUnits[strings.ToLower(unit)]
	if unit == "" {
		factor, known = 1<<30, true
	}
	if !known {
		return 0, fmt.Sprintf("unknown unit %q (there are MiB, GiB, TiB, MB, GB, TB)", unit)
	}
	if n*factor >= math.MaxInt64 {
		return 0, "it is too large"
	}
	return int64(math.Round(n * factor)), ""
}

// FormatSize is a number of bytes for people: "512 B", "1.5 GiB".
func FormatSize(bytes int64) string {
	if bytes < 0 {
		return "-" + FormatSize(-max(bytes, -math.MaxInt64))
	}
	if bytes < 1<<10 {
		return strconv.FormatInt(bytes, 10) + " B"
	}
	v, unit := float64(bytes), 0
	for v >= 1024 && unit < 5 {
		v /= 1024
		unit++
	}
	text := strconv.FormatFloat(v, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + " " + []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}

// formatDuration writes a duration as a pipeline file would: 30m, 1h30m, 2d.
func formatDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if n := d / u.d; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.d
		}
	}
	if d > 0 || b.Len() == 0 {
		b.WriteString(strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s")
	}
	return b.String()
}

// parsePercent reads "5%" as 5.
func parsePercent(s string) (float64, bool) {
	text, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	if !ok {
		return 0, false
	}
	n, unit, tail, ok := numberAndUnit(strings.TrimSpace(text))
	return n, ok && unit == "" && tail == ""
}

// numberAndUnit splits "10 minutes rest" into 10, "minutes" and "rest". The
// number has digits and at most one point.
func numberAndUnit(s string) (n float64, unit, rest string, ok bool) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	n, err := strconv.ParseFloat(s[:i], 64)
	if err != nil {
		return 0, "", "", false
	}
	s = strings.TrimLeft(s[i:], " ")
	j := 0
	for j < len(s) && (s[j] >= 'a' && s[j] <= 'z' || s[j] >= 'A' && s[j] <= 'Z') {
		j++
	}
	if j == 0 && s != "" && (s[0] < '0' || s[0] > '9') {
		return 0, "", "", false
	}
	return n, s[:j], strings.TrimLeft(s[j:], " "), true
}
