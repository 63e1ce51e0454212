//go:build unix

package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stuck is two scheduled pipelines, of which one never gets as far as a run:
// nobody writes into the pipe that it reads its items from.
func stuck(t *testing.T) *served {
	t.Helper()
	s := newServed(t, map[string]string{
		"p/a.yaml": "name: stuck\nschedule: {cron: \"@every 1s\"}\nfunctions: {f: {map: {lines: pipe}, run: echo}}\n",
		"p/b.yaml": "name: fine\nschedule: {cron: \"@every 1s\"}\nfunctions: {f: {run: echo}}\n"})
	pipe := filepath.Join(s.dir, "p", "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// release lets the one that is stuck go on, so that its process can end.
func (s *served) release() {
	pipe := filepath.Join(s.dir, "p", "pipe")
	_ = os.WriteFile(pipe+".new", []byte("x\n"), 0o600)
	if f, err := os.OpenFile(pipe, os.O_RDWR, 0); err == nil {
		_ = os.Rename(pipe+".new", pipe)
		_ = f.Close()
	}
}

// A schedule whose run does not get started holds up no other.
func TestServeIsNotHeldUpByOne(t *testing.T) {
	t.Parallel()
	s := stuck(t)
	s.serve("--every", "1s", "p")
	defer s.release()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		var runs []struct{ Pipeline string }
		if s.api("/api/runs", &runs); len(runs) >= 4 && runs[0].Pipeline == "fine" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v", runs)
		}
	}
}

func TestTickIsNotHeldUpByOne(t *testing.T) {
	t.Parallel()
	s := stuck(t)
	defer s.release()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		cmd := s.command("tick", "p")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Until(deadline), func() { _ = cmd.Process.Kill() })
		ran := false
		for lines := bufio.NewScanner(out); !ran && lines.Scan(); {
			ran = strings.HasPrefix(lines.Text(), "fine\t") && strings.Contains(lines.Text(), "ran: fine-")
		}
		if ran {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		kill.Stop()
		if ran {
			return
		}
	}
	t.Error("the one that could run never did")
}
