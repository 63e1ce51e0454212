package software

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
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

// prepare makes a command in the environment of whatever installs.
func (e *ensurer) prepare(ctx context.Context, c command) (*exec.Cmd, error) {
	name := c.argv[0]
	if !strings.Contains(name, "/") {
		p, err := e.look(name)
		if err != nil {
			return nil, err
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
	ownGroup(cmd)
	return cmd, nil
}

// failed is the error of a command.
func failed(ctx context.Context, c command, err error, output string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &InstallError{What: c.what, Output: output, Err: err}
}

// exec runs a program. What it prints goes to the log; the last lines of it
// become part of the error. What it leaves running in the background, as a
// set-up script may, goes on: so it prints to a file, not to a pipe that
// would be waited for, or break.
func (e *ensurer) exec(ctx context.Context, c command) error {
	e.c.Log("software: " + c.what)
	cmd, err := e.prepare(ctx, c)
	if err != nil {
		return failed(ctx, c, err, "")
	}
	out, err := os.CreateTemp("", "coiled-jobs-install-")
	if err != nil {
		return fmt.Errorf("software: %w", err)
	}
	defer func() { _ = out.Close() }()
	if err := os.Remove(out.Name()); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return failed(ctx, c, err, "")
	}
	tail := &lineTail{log: e.c.Log}
	ended, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		tail.follow(out, ended)
	}()
	err = cmd.Wait()
	close(ended)
	<-read
	if err != nil {
		killGroup(cmd)
		return failed(ctx, c, fmt.Errorf("%s: %w", c.argv[0], err), tail.last())
	}
	return nil
}

// output runs a program quietly and gives what it printed.
func (e *ensurer) output(ctx context.Context, c command) (string, error) {
	cmd, err := e.prepare(ctx, c)
	if err != nil {
		return "", failed(ctx, c, err, "")
	}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	killGroup(cmd)
	if err != nil {
		tail := &lineTail{log: func(string) {}}
		tail.add(problems.Bytes())
		tail.flush()
		return "", failed(ctx, c, fmt.Errorf("%s: %w", c.argv[0], err), tail.last())
	}
	return strings.TrimSpace(out.String()), nil
}

// lineTail hands lines to a log and keeps the last of them.
type lineTail struct {
	log   func(string)
	part  []byte
	lines []string
}

// follow reads a file that grows until it has ended.
func (t *lineTail) follow(f *os.File, ended <-chan struct{}) {
	buf := make([]byte, 32<<10)
	var at int64
	for last := false; ; {
		for {
			n, err := f.ReadAt(buf, at)
			at += int64(n)
			t.add(buf[:n])
			if err != nil || n == 0 {
				break // the end, for now
			}
		}
		if last {
			t.flush()
			return
		}
		select {
		case <-ended:
			last = true
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (t *lineTail) add(p []byte) {
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
	t.line(string(t.part))
	t.part = nil
}

// last is the last lines, as valid text.
func (t *lineTail) last() string {
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
