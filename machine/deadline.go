package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// deadline calls off when the time in a file has passed, again every half
// minute: it may have had no effect.
func deadline(ctx context.Context, file string, off func()) {
	var at time.Time
	for {
		if t, ok := readDeadline(file); ok {
			at = t
		} else if _, err := os.Stat(filepath.Dir(file)); errors.Is(err, fs.ErrNotExist) {
			return
		}
		next := time.Now().Add(2 * time.Second)
		if !at.IsZero() && !time.Now().Before(at) {
			off()
			next = time.Now().Add(30 * time.Second)
		}
		if !wait(ctx, next, nil) {
			return
		}
	}
}

// readDeadline reads the time, in Unix seconds, that a file holds.
func readDeadline(file string) (time.Time, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return time.Unix(n, 0), err == nil
}
