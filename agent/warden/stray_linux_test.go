package warden

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A process that has left its group and thrown its environment away is known
// to the agent, and ended as the one that it was.
func TestStrays(t *testing.T) {
	t.Parallel()
	groups, err := NewGroups(filepath.Join(t.TempDir(), "groups"), 4)
	if err != nil {
		t.Fatal(err)
	}
	k := &Keeper{cfg: Config{Groups: groups}}
	start := func(env ...string) *exec.Cmd {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = append([]string{}, env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	lost, known, named := start("A=b"), start("A=b"), start(Variable+"=some-token")
	groups.Set(0, known.Process.Pid)
	strays := k.strays()
	if strays[lost.Process.Pid] == 0 || strays[known.Process.Pid] != 0 || strays[named.Process.Pid] != 0 {
		t.Errorf("strays %v, not %d but %d and %d", strays, lost.Process.Pid, known.Process.Pid, named.Process.Pid)
	}
	killStrays(map[int]uint64{lost.Process.Pid: strays[lost.Process.Pid], known.Process.Pid: 1})
	if err := lost.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("ended with %v", err)
	}
	if syscall.Kill(known.Process.Pid, 0) != nil {
		t.Error("one with another start was ended")
	}
}
