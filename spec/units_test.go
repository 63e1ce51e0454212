package spec

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"30": 30 * time.Second, "0": 0, "1.5": 1500 * time.Millisecond, "30m": 30 * time.Minute,
		"1h30m": 90 * time.Minute, "1h 30m": 90 * time.Minute, "2d": 48 * time.Hour, "1.5h": 90 * time.Minute,
		"30 s": 30 * time.Second, "10 minutes": 10 * time.Minute, "1 Hour": time.Hour, "500ms": 500 * time.Millisecond,
		"1w": 7 * 24 * time.Hour, " 5 min ": 5 * time.Minute, "0.1s": 100 * time.Millisecond, "30d": 30 * 24 * time.Hour,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "1h30m", "abc": "1h30m", "-5": "negative", "-1h": "negative", "5x": `unknown unit "x"`, "1h30": "no unit", "5 5": "no unit",
		"1e3": `unknown unit "e"`, ".": "1h30m", "1.2.3s": "1h30m", "h": "1h30m", "5%": "1h30m", "1h,30m": "1h30m",
		"999999999999h": "too long", "1µs": "1h30m",
	} {
		if got, err := ParseDuration(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q in the error", text, got, err, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"16 GiB": 16 << 30, "512MB": 512e6, "1 GiB": 1 << 30, "100": 100 << 30, "0.5": 1 << 29, "1.5TiB": 3 << 39,
		"10b": 10, "1k": 1 << 10, "2Ki": 2 << 10, "3 mib": 3 << 20, "4G": 4 << 30, "5gb": 5e9, "0": 0,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "number with a unit", "-1": "negative", "big": "number with a unit", "5 XB": `unknown unit "XB"`, "1 GiB 5": "number with a unit",
		"99999999999 TiB": "too large", "GiB": "number with a unit",
	} {
		if got, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q in the error", text, got, err, want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 16 << 30: "16 GiB", 5 << 40: "5 TiB", -2048: "-2 KiB",
		math.MaxInt64: "8192 PiB", math.MinInt64: "-8192 PiB",
	} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// A size that is written by FormatSize is read back as itself, within its one
// decimal.
func TestFormatSizeReadsBack(t *testing.T) {
	t.Parallel()
	for n := int64(1); n > 0 && n < 1<<50; n = n*3 + 7 {
		got, err := ParseSize(strings.Replace(FormatSize(n), "PiB", "TiB", 1))
		if err != nil || math.Abs(float64(got-n)) > float64(n)/15 {
			t.Errorf("%d: %d, %v", n, got, err)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 30 * time.Second: "30s", 90 * time.Minute: "1h30m", 24 * time.Hour: "1d", 30 * time.Hour: "1d6h",
		1500 * time.Millisecond: "1.5s",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
		if back, err := ParseDuration(want); err != nil || back != d {
			t.Errorf("%q: %v, %v; want %v", want, back, err, d)
		}
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		among string
		want  string
	}{
		{"prepar", "clean prepare", "prepare"},
		{"yeer", "year month", "year"},
		{"tiemout", "timeout run", "timeout"},
		{"Timeout", "timeout run", "timeout"},
		{"max-failures", "max_failures", "max_failures"},
		{"desc", "description name", "description"},
		{"ab", "xy cd", ""},
		{"a", "b c", ""},
		{"cron", "run", ""},
		{"xyz", "abc def", ""},
		{"", "a", ""},
		{"run", "run", ""},
		{"rum", "run", "run"},
		{"re", "retries result", ""},
		{strings.Repeat("x", 100), strings.Repeat("x", 99), ""},
		{strings.Repeat("\xff", 64), strings.Repeat("\xfe", 64), ""},
	} {
		if got := Suggest(tt.name, strings.Fields(tt.among)); got != tt.want {
			t.Errorf("%q among %q: %q, want %q", tt.name, tt.among, got, tt.want)
		}
	}
}
