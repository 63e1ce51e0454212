//go:build unix

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// maxScriptArg is how long a script may be to be handed to a shell as an
// argument; the kernel's limit is 128 KiB.
const maxScriptArg = 96 << 10

// drainLimit bounds what is read after the end of a process: what its pipes
// held, not what somebody who outlives it goes on writing.
const drainLimit = 1 << 20

// stream is one of the outputs of a process.
type stream struct {
	fd   int
	mask masker
	tail *tail  // standard error
	keep *spool // standard output that is the result
}

// runProcess runs a script or command. The outcome has the result, but its
// outputs are not checked yet.
func (s *slot) runProcess(ctx context.Context, j *job) task.Outcome {
	o := j.outcome()
	cmd, err := s.command(j)
	if err != nil {
		return setupFailed(o, err)
	}
	var out, errs [2]int
	if err := pipe(&out); err != nil {
		return setupFailed(o, fmt.Errorf("make a pipe: %w", err))
	}
	if err := pipe(&errs); err != nil {
		_, _ = unix.Close(out[0]), unix.Close(out[1])
		return setupFailed(o, fmt.Errorf("make a pipe: %w", err))
	}
	cmd.files = []uintptr{s.null.Fd(), uintptr(out[1]), uintptr(errs[1])}
	var stderr tail
	so := stream{fd: out[0], mask: masker{set: s.a.secrets}}
	se := stream{fd: errs[0], mask: masker{set: s.a.secrets}, tail: &stderr}
	if j.fn.f.Result != spec.ResultFile {
		s.stdout.reset()
		so.keep = &s.stdout
	}
	defer func() { closeFD(&so.fd); closeFD(&se.fd) }()

	before := s.a.oom.before()
	started := time.Now()
	o.Started = started.UnixNano()
	ch, err := s.start(j, cmd)
	_, _ = unix.Close(out[1]), unix.Close(errs[1])
	if err != nil {
		return setupFailed(o, err)
	}
	s.a.groups.Set(s.n*slotGroups, ch.pid)
	_, _ = unix.SetNonblock(so.fd, true), unix.SetNonblock(se.fd, true)
	s.setLive(task.Live{Function: j.fn.name, Index: j.index, Attempt: j.attempt, Started: o.Started, Log: s.pack.begin()})
	s.logDue = started.Add(followEvery)

	g := &guard{a: s.a, ch: ch, timeout: j.fn.f.Timeout, started: started}
	s.watch(ctx, g, &so, &se)
	ws, usage := ch.finish()
	s.a.groups.Set(s.n*slotGroups, 0)
	s.drain(&so)
	s.drain(&se)
	for _, st := range []*stream{&so, &se} {
		s.pass(st, st.mask.flush())
	}
	o.Seconds = time.Since(started).Seconds()
	o.MaxRSS = maxRSS(&usage)
	o.Log = s.pack.end()
	ok := g.judge(&o, ws, func() bool { return s.a.oom.since(before) })
	if ok {
		if err := s.processResult(ctx, j, &o); err != nil {
			s.storeFailed(err)
			o = outputFailed(o, err)
		}
	} else {
		if o.Cause == task.CauseExit {
			o.Message = withLastLine(o.Message, stderr.bytes())
		}
		_ = syscall.Unlink(s.result)
	}
	if o.Status == task.Failed {
		o.Stderr = bytes.Clone(stderr.bytes())
	}
	s.tmp.clean()
	return o
}

// withLastLine adds what a program said last.
func withLastLine(msg string, stderr []byte) string {
	text := strings.TrimSpace(string(stderr))
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return clip(msg, strings.ToValidUTF8(strings.TrimSpace(text), "\ufffd"))
}

func clip(msg, text string) string {
	if text == "" {
		return msg
	}
	return msg + ": " + short(text)
}

// short is a message cut to a length that fits a line or two.
func short(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// start starts the command of a job.
func (s *slot) start(j *job, cmd *command) (*child, error) {
	if wrap := s.a.run.Wrap; len(wrap) > 0 {
		cmd.path, cmd.argv = wrap[0], append(wrap[:len(wrap):len(wrap)], cmd.argv...)
	}
	ch, err := startChild(cmd)
	if errors.Is(err, syscall.ENOENT) && !strings.Contains(cmd.argv[0], "/") {
		// Somebody replaced the program since we looked.
		path := s.pathOf(j)
		j.fn.forget(cmd.argv[0], path)
		if cmd.path, err = j.fn.program(cmd.argv[0], path); err != nil {
			return nil, err
		}
		ch, err = startChild(cmd)
	}
	if errors.Is(err, syscall.ENOEXEC) {
		// A script without a first line that names its interpreter.
		cmd.argv = append([]string{"sh", cmd.path}, cmd.argv[1:]...)
		cmd.path = "/bin/sh"
		ch, err = startChild(cmd)
	}
	if err != nil {
		return nil, startError(cmd.argv[0], cmd.path, cmd.dir, err)
	}
	return ch, nil
}

// watch reads what the process prints until it has ended.
func (s *slot) watch(ctx context.Context, g *guard, so, se *stream) {
	fds := []unix.PollFd{
		{Fd: int32(g.ch.exit), Events: unix.POLLIN},
		{Fd: int32(so.fd), Events: unix.POLLIN},
		{Fd: int32(se.fd), Events: unix.POLLIN},
		{Fd: int32(s.a.cancelR), Events: unix.POLLIN},
	}
	for {
		poll(fds, earliest(g.next(), s.due()))
		if fds[1].Revents != 0 && !s.read(so) {
			fds[1].Fd = -1
		}
		if fds[2].Revents != 0 && !s.read(se) {
			fds[2].Fd = -1
		}
		if fds[0].Revents != 0 {
			return
		}
		now := time.Now()
		if fds[3].Revents != 0 {
			fds[3].Fd = -1
			if ctx.Err() != nil {
				g.cancel(now)
			}
		}
		g.check(now)
		s.tick(ctx, now)
	}
}

// read passes on what one read gives; false at the end of the stream.
func (s *slot) read(st *stream) bool {
	n, err := unix.Read(st.fd, s.buf)
	if err == unix.EAGAIN || err == unix.EINTR {
		return true
	}
	if n <= 0 {
		return false
	}
	b := s.buf[:n]
	if st.keep != nil {
		st.keep.write(b)
	}
	s.pass(st, st.mask.write(b))
	return true
}

func (s *slot) pass(st *stream, b []byte) {
	if st.tail != nil {
		st.tail.write(b)
	}
	s.pack.write(b)
}

// drain reads what is left in a pipe after the end of the process. It does not
// wait for those who inherited the other end.
func (s *slot) drain(st *stream) {
	for total := 0; total < drainLimit; {
		n, err := unix.Read(st.fd, s.buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		total += n
		if st.keep != nil {
			st.keep.write(s.buf[:n])
		}
		s.pass(st, st.mask.write(s.buf[:n]))
	}
}

func (s *slot) processResult(ctx context.Context, j *job, o *task.Outcome) error {
	var result []byte
	b, err := readResult(s.result)
	if err != nil {
		_ = os.RemoveAll(s.result)
		return err
	}
	switch {
	case j.fn.f.Result != spec.ResultFile:
		if s.stdout.size > maxResult {
			return tooLarge(s.stdout.size)
		}
		printed, err := s.stdout.bytes()
		if err != nil {
			return fmt.Errorf("keep standard output: %w", err)
		}
		if result, err = stdoutResult(j.fn.f.Result, printed); err != nil {
			return err
		}
		s.stdout.reset()
	case b != nil:
		result = fileResult(b)
	}
	return s.a.keepResult(ctx, o, j.fn.name, bytes.Clone(result))
}

// command is the program, arguments and environment of a job; the slot's item
// file and temporary folder are made ready.
func (s *slot) command(j *job) (*command, error) {
	env, err := s.environ(j)
	if err != nil {
		return nil, err
	}
	c := &command{dir: s.a.run.Dir, env: env, argv: j.argv}
	if j.fn.f.Run != nil {
		if c.argv, err = s.shell(j); err != nil {
			return nil, err
		}
	}
	if c.path, err = j.fn.program(c.argv[0], s.pathOf(j)); err != nil {
		return nil, err
	}
	if c.path == "" {
		return nil, errors.New("there is nothing to run")
	}
	return c, nil
}

func (s *slot) pathOf(j *job) string {
	if j.fn.envTask {
		if p := lookupVar(j.vars, "PATH"); p != "" {
			return p
		}
	}
	return j.fn.path
}

// environ is the environment of a job.
func (s *slot) environ(j *job) ([]string, error) {
	tmp, err := s.tmp.ready()
	if err != nil {
		return nil, err
	}
	if err := s.items.write(j.itemJSON); err != nil {
		return nil, err
	}
	env := make([]string, len(j.fn.fixed), len(j.fn.fixed)+len(j.vars)+len(j.rendered.vars)+6)
	copy(env, j.fn.fixed)
	env = append(env, j.vars...)
	env = append(env, j.rendered.vars...)
	env = append(env,
		"COILED_JOBS_INDEX="+strconv.Itoa(j.index),
		"COILED_JOBS_ATTEMPT="+strconv.Itoa(j.attempt),
		"COILED_JOBS_ITEM_FILE="+s.items.path,
		"COILED_JOBS_RESULT="+s.result,
	)
	if len(j.itemJSON) <= maxItemVar {
		env = append(env, "COILED_JOBS_ITEM="+string(j.itemJSON))
	}
	if !j.fn.tmpGiven {
		env = append(env, "TMPDIR="+tmp)
	}
	return env, nil
}

// shell is the argument list that runs a script. Shells get it as an argument,
// so that their messages and $0 name the function and not a temporary file.
func (s *slot) shell(j *job) ([]string, error) {
	words := j.fn.f.Run.Shell
	if len(words) == 0 {
		words = []string{"bash", "-euo", "pipefail"}
	}
	argv := append([]string(nil), words...)
	if len(j.text) <= maxScriptArg && takesScript(words) {
		return append(argv, "-c", j.text, j.fn.name), nil
	}
	name := filepath.Join(s.dir, "script-"+j.fn.name)
	if old, err := os.ReadFile(name); err != nil || string(old) != j.text {
		if err := os.WriteFile(name, []byte(j.text), 0o700); err != nil {
			return nil, fmt.Errorf("write the script: %w", err)
		}
	}
	return append(argv, name), nil
}

// takesScript says whether these words are a shell with options that takes a
// script by -c.
func takesScript(words []string) bool {
	switch filepath.Base(words[0]) {
	case "bash", "sh", "dash", "ash", "ksh", "zsh":
	default:
		return false
	}
	for i, w := range words[1:] {
		option := strings.HasPrefix(w, "-") || strings.HasPrefix(w, "+")
		value := i > 0 && strings.HasSuffix(words[i], "o") && strings.HasPrefix(words[i], "-") && !strings.HasPrefix(words[i], "--")
		if !option && !value || w == "-s" || w == "-c" || w == "-" || w == "--" {
			return false
		}
	}
	return true
}
