package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openPTY opens a terminal of this size: what is written to it can be read
// from screen.
func openPTY(t *testing.T, width, height uint16) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
	return screen, terminal
}

// onTerminal runs a command line with standard error on a terminal and gives
// what was written there.
func onTerminal(t *testing.T, environ []string, args ...string) (int, string) {
	t.Helper()
	screen, terminal := openPTY(t, 70, 20)
	seen := make(chan string)
	go func() {
		var b bytes.Buffer
		_, _ = io.Copy(&b, screen) // ends with an error when the terminal is closed
		seen <- b.String()
	}()
	code := run(context.Background(), args, strings.NewReader(""), io.Discard, terminal, environ)
	terminal.Close()
	return code, <-seen
}

func TestLiveView(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "p.yaml")
	// Long enough for some frames; what a task prints tries to clear the screen.
	pipeline := `
name: live
functions:
  slow:
    map: {range: 4}
    concurrency: 1
    run: |
      sleep 0.15
      if [ $COILED_JOBS_INDEX = 1 ]; then printf '\033[2J\033]0;owned\007bad' >&2; exit 1; fi
`
	if err := os.WriteFile(file, []byte(pipeline), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"XDG_STATE_HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TERM=xterm"}
	code, out := onTerminal(t, environ, "apply", file)
	if code != exitFailed {
		t.Fatalf("exit %d: %q", code, out)
	}
	for _, want := range []string{"A\r", "slow", "of 4 tasks", "slow/1 failed (exit 1): bad", "live\x1b[0m", "coiled-jobs why"} {
		if !strings.Contains(out, want) {
			t.Errorf("the terminal has no %q: %q", want, out)
		}
	}
	// Only colours, moving up and erasing below: nothing that would have to be
	// put back, nothing that came from the task.
	rest := regexp.MustCompile(`\x1b\[(?:[0-9]+m|[0-9]+A|[KJ])`).ReplaceAllString(out, "")
	if strings.ContainsAny(rest, "\x1b\x07") {
		t.Errorf("other control sequences: %q", rest)
	}
	if strings.Contains(strings.ReplaceAll(out, "\x1b[K\r\n\x1b[J", ""), "\x1b[2J") {
		t.Error("the screen was cleared")
	}

	for _, quiet := range []string{"NO_COLOR=1", "TERM=dumb", "CI=true"} {
		code, out := onTerminal(t, append(environ, quiet), "apply", file, "--only", "slow/0", "--function", "slow")
		if code != exitDone || strings.Contains(out, "\x1b") || !strings.Contains(out, "live succeeded after") {
			t.Errorf("%s: exit %d: %q", quiet, code, out)
		}
	}
}
