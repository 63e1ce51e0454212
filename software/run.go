package software

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// command is a program to run.
type command struct {
	what string   // for people: "install the packages of requirements.txt"
	dir  string   // working folder; "" is that of the code
	env  []string // on top of Config.Env
	argv []string
}

const (
	tailLines = 30
	tailBytes = 4 << 10
)

// exec runs a program and its children. What it prints goes to the log; the
// last lines of it become part of the error.
func (e *ensurer) exec(ctx context.Context, c command) error {
	_, err := e.output(ctx, c)
	return err
}

// output is exec, and gives what was printed to standard output.
func (e *ensurer) output(ctx context.Context, c command) (string, error) {
	e.c.Log("software: " + c.what)
	fail := func(err error, output string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &InstallError{What: c.what, Output: output, Err: err}
	}
	name := c.argv[0]
	if !strings.Contains(name, "/") {
		p, err := e.look(name)
		if err != nil {
			return "", fail(err, "")
		}
		name = p
	}
	cmd := exec.CommandContext(ctx, name, c.argv[1:]...)
	cmd.Args[0] = c.argv[0]
	cmd.Dir = c.dir
	if c.dir == "" {
		cmd.Dir = e.c.Dir
	}
	cmd.Env = append(append([]string{}, e.c.Env...), c.env...)
	var out bytes.Buffer
	tail := &lineTail{log: e.c.Log, keep: &out}
	cmd.Stdout, cmd.Stderr = tail.stdout(), tail
	ownGroup(cmd)
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	tail.flush()
	killGroup(cmd) // a daemon that a script left must not hold the machine
	if err != nil {
		return "", fail(fmt.Errorf("%s: %w", c.argv[0], err), tail.last())
	}
	return strings.TrimSpace(out.String()), nil
}

// lineTail hands lines to a log and keeps the last of them.
type lineTail struct {
	mu    sync.Mutex
	log   func(string)
	part  []byte
	lines []string
	keep  *bytes.Buffer
}

// stdout is a writer for standard output, which is kept as a whole, within
// bounds.
func (t *lineTail) stdout() *tailStdout { return &tailStdout{t} }

type tailStdout struct{ t *lineTail }

func (s *tailStdout) Write(p []byte) (int, error) {
	s.t.mu.Lock()
	if room := 64<<10 - s.t.keep.Len(); room > 0 {
		s.t.keep.Write(p[:min(room, len(p))])
	}
	s.t.mu.Unlock()
	return s.t.Write(p)
}

func (t *lineTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = append(t.part, p...)
	for {
		i := bytes.IndexAny(t.part, "\r\n")
		if i < 0 {
			break
		}
		t.line(string(t.part[:i]))
		t.part = t.part[i+1:]
	}
	if len(t.part) > tailBytes {
		t.line(string(t.part))
		t.part = t.part[:0]
	}
	return len(p), nil
}

func (t *lineTail) line(s string) {
	if s = strings.TrimRight(s, " \t"); s == "" {
		return
	}
	t.log(s)
	t.lines = append(t.lines, s)
	if len(t.lines) > 2*tailLines {
		t.lines = append(t.lines[:0], t.lines[len(t.lines)-tailLines:]...)
	}
}

func (t *lineTail) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line(string(t.part))
	t.part = nil
}

// last is the last lines, as valid text.
func (t *lineTail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	s := strings.Join(lines, "\n")
	if len(s) > tailBytes {
		s = s[len(s)-tailBytes:]
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
