//go:build linux

package agent

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/agent/warden"
)

// marked is the processes that carry a text in their environment.
func marked(text string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		env, err := os.ReadFile(d + "/environ")
		if err == nil && bytes.Contains(env, []byte(text)) {
			cmd, _ := os.ReadFile(d + "/cmdline")
			found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	return found
}

// When a coordinator is killed with SIGKILL, nothing that it started lives on:
// not its tasks, their children in the background, daemons with a session of
// their own or warm interpreters. The scratch folder goes, too.
func TestNothingOutlivesAKilledCoordinator(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	yaml := `
functions:
  a:
    run: |
      setsid sleep 1001 &
      (setsid sh -c 'sleep 1002 & sleep 1003' &)
      nohup sleep 1004 >/dev/null 2>&1 &
      env -i "$(command -v sleep)" 1005 &
      touch a
      exec sleep 1006
  b:
    python: b:f
`
	for name, text := range map[string]string{"pipeline.yaml": yaml,
		"b.py": "import subprocess, time\ndef f():\n    subprocess.Popen(['setsid', 'sleep', '1007'])\n    open('b', 'w').close()\n    time.sleep(1008)\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CJ_TEST_COORDINATOR="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var token []byte
	waitFor(t, func() bool {
		token, _ = os.ReadFile(filepath.Join(dir, "token"))
		_, a := os.Stat(filepath.Join(dir, "a"))
		_, b := os.Stat(filepath.Join(dir, "b"))
		return len(token) > 0 && a == nil && b == nil
	})
	waitFor(t, func() bool { return len(marked(string(token))) >= 7 })
	inGroup := groupOf(t, "1005")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The pipe ends only when nobody holds it: a caller that reads our output
	// is not kept waiting by what we leave.
	_, _ = out.Read(make([]byte, 1))
	_ = cmd.Wait()
	waitFor(t, func() bool { return len(marked(string(token))) == 0 })
	waitFor(t, func() bool { _, err := os.Stat(filepath.Join(dir, "scratch")); return os.IsNotExist(err) })
	waitFor(t, func() bool { return !alive(inGroup) })
}

// groupOf finds the process "sleep <seconds>".
func groupOf(t *testing.T, seconds string) int {
	t.Helper()
	pid := 0
	waitFor(t, func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			b, _ := os.ReadFile(f)
			if strings.HasSuffix(string(b), "sleep\x00"+seconds+"\x00") {
				pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(f)))
			}
		}
		return pid > 0
	})
	return pid
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// The warden is there while the agent works and goes with it; what ignores
// SIGTERM does not keep it.
func TestWardenComesAndGoes(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "functions:\n  f:\n    run: \"touch up; while ! test -e go; do sleep 0.01; done\"\n")
	w.cfg.Warden = []string{exe, "__warden"}
	_, done := w.start(context.Background(), w.all("f")...)
	waitFor(t, func() bool { _, err := os.Stat(filepath.Join(w.dir, "up")); return err == nil })
	var wardens []int
	waitFor(t, func() bool { wardens = wardensOf(os.Getpid()); return len(wardens) > 0 }) // its name comes a moment after it
	for _, pid := range wardens {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			_ = syscall.Kill(pid, sig)
		}
	}
	w.file("go", "")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, pid := range wardens {
		waitFor(t, func() bool { return !alive(pid) })
	}
}

func wardensOf(parent int) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		stat, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "stat"))
		if strings.HasPrefix(string(b), warden.Title+"\x00") && strings.Contains(string(stat), " "+strconv.Itoa(parent)+" ") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestKillLeftovers(t *testing.T) {
	t.Parallel()
	token := randomHex(16)
	cmd := exec.Command("sleep", "1000")
	cmd.Env = []string{warden.Variable + "=outer:" + token}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	KillLeftovers(token)
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("ended with %v", err)
	}
	KillLeftovers("") // matches nobody
}
