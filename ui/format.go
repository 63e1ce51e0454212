package ui

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Count is a number with thousands separated: 1,234,567.
func Count(n int) string {
	s := strconv.Itoa(n)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Plural is a count with its noun: 1 task, 2 tasks.
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	switch {
	case strings.HasSuffix(noun, "y") && !strings.HasSuffix(noun, "ay"):
		noun = noun[:len(noun)-1] + "ies"
	default:
		noun += "s"
	}
	return Count(n) + " " + noun
}

// Seconds is a duration for people: 0.35 s, 12 s, 4m 05s, 3h 20m, 2d 4h.
func Seconds(s float64) string {
	switch {
	case math.IsNaN(s) || s <= 0:
		return "0 s"
	case s < 0.0995:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 0.995:
		return fmt.Sprintf("%.2f s", s)
	case s < 9.95:
		return fmt.Sprintf("%.1f s", s)
	case s < 59.5:
		return fmt.Sprintf("%.0f s", s)
	}
	if s > 1e9 {
		s = 1e9
	}
	n := int(s + 0.5)
	switch {
	case n < 3600:
		return fmt.Sprintf("%dm %02ds", n/60, n%60)
	case n < 86400:
		return fmt.Sprintf("%dh %02dm", n/3600, n/60%60)
	}
	return fmt.Sprintf("%dd %dh", n/86400, n/3600%24)
}

// Bytes is a size for people, in binary units.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		f /= 1024
		if f < 1024 {
			break
		}
	}
	if f < 10 {
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}

// Dollars is a cost for people.
func Dollars(d float64) string {
	if d > 0 && d < 0.01 {
		return fmt.Sprintf("$%.4f", d)
	}
	return fmt.Sprintf("$%.2f", d)
}

// Rate is tasks per second, or per minute or hour where that reads better.
func Rate(perSecond float64) string {
	switch {
	case perSecond <= 0 || math.IsInf(perSecond, 0) || math.IsNaN(perSecond):
		return ""
	case perSecond >= 10:
		return Count(int(perSecond+0.5)) + "/s"
	case perSecond >= 1:
		return fmt.Sprintf("%.1f/s", perSecond)
	case perSecond*60 >= 1:
		return fmt.Sprintf("%.1f/min", perSecond*60)
	}
	return fmt.Sprintf("%.1f/h", perSecond*3600)
}

// Clock is the time of day, for lines of progress.
func Clock(t time.Time) string { return t.Format("15:04:05") }

// Task is the name of a task: fn/index, or fn alone where it is the only one.
func Task(fn string, index, tasks int) string {
	if tasks == 1 && index == 0 {
		return Clean(fn)
	}
	return Clean(fn) + "/" + strconv.Itoa(index)
}
