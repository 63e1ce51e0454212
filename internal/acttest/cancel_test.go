//go:build unix

package acttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slow is a pipeline whose tasks tell their process, and go on for long.
const slow = `name: slow
functions:
  quick: {run: 'true'}
  wait:
    needs: quick
    map: {range: 3}
    hardware: {threads_per_worker: 3}
    run: |
      echo $$ >"$OUT/pid-${{ index }}.new"
      mv "$OUT/pid-${{ index }}.new" "$OUT/pid-${{ index }}"
      sleep 600 & wait
`

// started waits until the tasks of slow run, and returns their processes.
func (r *rig) started(ended <-chan error) (pids []int) {
	r.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for len(pids) < 3 {
		pids = nil
		for i := range 3 {
			b, err := os.ReadFile(filepath.Join(r.out, "pid-"+strconv.Itoa(i)))
			if err != nil {
				break
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				r.t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		select {
		case err := <-ended:
			r.t.Fatalf("it ended before its tasks ran: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatal("the tasks do not start")
		}
	}
	return pids
}

// gone fails the test unless the process groups end.
func gone(t *testing.T, pids []int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for _, pid := range pids {
		for {
			err := syscall.Kill(-pid, 0)
			if errors.Is(err, syscall.ESRCH) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("the task with process group %d still runs (%v)", pid, err)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// act ends a step harder than GitHub does: with SIGKILL, of its first process
// alone. What is left is for the clean-up.
func TestCancelled(t *testing.T) {
	t.Parallel()
	for range 3 {
		if cancelled(t) {
			return
		}
	}
	t.Fatal("act crashed three times")
}

// crashed says that act itself broke: it looks at conditions of a step that is
// being cancelled while the step changes them.
func (r *rig) crashed(out string) bool {
	if !strings.Contains(out, "fatal error: concurrent map") {
		return false
	}
	for _, run := range r.runs() {
		_, _ = r.coiled("cancel", run[0]) // its step goes on without it
	}
	return true
}

// cancelled is false if nothing was learned.
func cancelled(t *testing.T) bool {
	r := open(t, map[string]string{"w.yml": workflow("push", "          file: pipeline.yaml\n"), "pipeline.yaml": slow})
	cmd, out := r.start("push")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	pids := r.started(ended)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Errorf("the cancelled workflow succeeded\n%s", out)
	}
	if r.crashed(out.String()) {
		return false
	}
	gone(t, pids)
	l := newLog(out.String(), false)
	runs := r.runs()
	if len(runs) != 1 || runs[0][1] != "cancelled" {
		t.Errorf("runs %v, want one that is cancelled\n%s", runs, l.text)
	}
	if s := l.summary(t); !strings.Contains(s, "⛔ slow cancelled") {
		t.Errorf("the summary:\n%s", s)
	}
	// The next attempt goes on: what had succeeded is not run again.
	for i := range 3 {
		if err := os.Remove(filepath.Join(r.out, "pid-"+strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	cmd, out = r.start("push")
	go func() { ended <- cmd.Wait() }()
	pids = r.started(ended)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ended
	if r.crashed(out.String()) {
		return false
	}
	gone(t, pids)
	if again := r.runs(); len(again) != 1 || again[0] != [2]string{runs[0][0], "cancelled"} {
		t.Errorf("runs %v, want only %s again", again, runs[0][0])
	}
	return true
}

// step is the program as action.yml starts it.
func (r *rig) step(what, file string, more ...string) *exec.Cmd {
	cmd := exec.CommandContext(r.t.Context(), "bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", `exec "$COILED_JOBS" __github `+what)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "COILED_JOBS="+shared.program, "XDG_STATE_HOME="+r.state, "COILED_JOBS_STORE="+r.store, "OUT="+r.out,
		"GITHUB_RUN_ID=4711", "GITHUB_JOB=job", "GITHUB_REPOSITORY=o/r", "GITHUB_WORKSPACE="+r.dir,
		"GITHUB_OUTPUT="+filepath.Join(r.out, "step-outputs"), "GITHUB_STEP_SUMMARY="+filepath.Join(r.out, "step-summary"),
		"GITHUB_ACTION=jobs", "COILED_JOBS_STEP_FILE="+file)
	cmd.Env = append(cmd.Env, more...)
	return cmd
}

// GitHub's runner sends SIGINT, after 7.5 s SIGTERM, after 2.5 s more SIGKILL.
// The first is enough, also for tasks that do not listen.
func TestSignals(t *testing.T) {
	t.Parallel()
	for name, pipeline := range map[string]string{"polite": slow, "deaf": strings.Replace(slow, "    run: |\n", "    run: |\n      trap '' INT TERM\n", 1)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, map[string]string{"w.yml": workflow("push", "          file: pipeline.yaml\n"), "pipeline.yaml": pipeline})
			file := filepath.Join(r.out, "step")
			var out strings.Builder
			cmd := r.step("run", file)
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			pids := r.started(ended)
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			term := time.AfterFunc(7500*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
			err := <-ended
			term.Stop()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 130 {
				t.Errorf("%v, want exit code 130\n%s", err, out.String())
			}
			gone(t, pids)
			if runs := r.runs(); len(runs) != 1 || runs[0][1] != "cancelled" {
				t.Errorf("runs %v", runs)
			}
			if s := r.read("step-summary"); !strings.Contains(s, "slow cancelled") {
				t.Errorf("the summary:\n%s", s)
			}
			if strings.Contains(out.String(), "could not run") || strings.Contains(out.String(), "::error") {
				t.Errorf("to cancel is no error of the run:\n%s", out.String())
			}
			// The clean-up finds nothing to do, and says nothing twice.
			if text, err := r.step("cleanup", file).CombinedOutput(); err != nil || len(text) > 0 {
				t.Errorf("%v %s", err, text)
			}
			if s := r.read("step-summary"); strings.Count(s, "###") != 1 {
				t.Errorf("the summary:\n%s", s)
			}
		})
	}
}

// A run that somebody else is at, under a key that others use too, is theirs: a
// step that joined it leaves it alone.
func TestJoinedIsLeft(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": workflow("push", "          file: pipeline.yaml\n"), "pipeline.yaml": "params: {pace: 1}\n" + slow})
	first := r.step("run", filepath.Join(r.out, "step-1"), "INPUT_KEY=nightly")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- first.Wait() }()
	pids := r.started(ended)
	file := filepath.Join(r.out, "step-2")
	second := r.step("run", file, "INPUT_KEY=nightly")
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), `"others":true`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the second step did not join")
		}
	}
	if err := second.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = second.Wait()
	text, err := r.step("cleanup", file).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "left alone") {
		t.Errorf("%v %s", err, text)
	}
	if runs := r.runs(); len(runs) != 1 || runs[0][1] != "running" {
		t.Errorf("runs %v, want the one that was there, running", runs)
	}
	// Nor does a step whose parameters do not fit that key take it for its own.
	file = filepath.Join(r.out, "step-misfit")
	text, err = r.step("run", file, "INPUT_KEY=nightly", "INPUT_PARAMS=pace=2").CombinedOutput()
	if err == nil || !strings.Contains(string(text), "which is not the same") {
		t.Errorf("%v %s", err, text)
	}
	if text, err := r.step("cleanup", file).CombinedOutput(); err != nil || len(text) > 0 {
		t.Errorf("%v %s", err, text)
	}
	// Killed before it knew its run: that of the key is of somebody before.
	b := fmt.Sprintf(`{"store":%q,"key":"nightly","shared":true,"began":"2999-01-01T00:00:00Z"}`, r.store)
	if err := os.WriteFile(file, []byte(b), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := r.step("cleanup", file).CombinedOutput(); err != nil || len(text) > 0 {
		t.Errorf("%v %s", err, text)
	}
	if runs := r.runs(); len(runs) != 1 || runs[0][1] != "running" {
		t.Errorf("runs %v, want the one that was there, running", runs)
	}
	// The command cancel ends it, by its key.
	text, err = r.step("run", filepath.Join(r.out, "step-3"), "INPUT_COMMAND=cancel", "INPUT_KEY=nightly").CombinedOutput()
	if err != nil {
		t.Errorf("%v %s", err, text)
	}
	<-ended
	gone(t, pids)
	if runs := r.runs(); len(runs) != 1 || runs[0][1] != "cancelled" {
		t.Errorf("runs %v", runs)
	}
	// And wait tells of it, with its exit code.
	text, err = r.step("run", filepath.Join(r.out, "step-4"), "INPUT_COMMAND=wait", "INPUT_KEY=nightly").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 || !strings.Contains(string(text), "cancelled: 4 tasks") {
		t.Errorf("%v %s", err, text)
	}
}

// A step that was killed before it could note its run is found by the key.
func TestKilledEarly(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": workflow("push", "          file: pipeline.yaml\n"), "pipeline.yaml": slow})
	file := filepath.Join(r.out, "step")
	cmd := r.step("run", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	pids := r.started(ended)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	gone(t, pids)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var note map[string]any
	if err := json.Unmarshal(text, &note); err != nil {
		t.Fatal(err)
	}
	run := note["run"]
	note["run"] = ""
	if text, err = json.Marshal(note); err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if text, err := r.step("cleanup", file).CombinedOutput(); err != nil || !strings.Contains(string(text), "cancelled: 4 tasks") {
		t.Errorf("%v %s", err, text)
	}
	if runs := r.runs(); len(runs) != 1 || runs[0] != [2]string{run.(string), "cancelled"} {
		t.Errorf("runs %v, want %v, cancelled", runs, run)
	}
}
