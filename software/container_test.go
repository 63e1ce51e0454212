//go:build linux

package software

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// fakeDocker starts "containers" that are mount namespaces with one file more
// than the machine, and a process that waits.
const fakeDocker = `
echo "docker $*" >>"$LOG"
case "$1" in
run) unshare --mount --propagation private sh -c 'mount -t tmpfs t /mnt && echo inside >/mnt/where && echo $$ >"$LOG.pid" && exec sleep 300' </dev/null >/dev/null 2>&1 &
  for i in 1 2 3 4 5 6 7 8 9 10; do [ -s "$LOG.pid" ] && break; sleep 0.2; done; echo cid;;
rm) [ -s "$LOG.pid" ] && kill -9 "$(cat "$LOG.pid")"; rm -f "$LOG.pid"; exit 0;;
inspect) [ -s "$LOG.pid" ] || { echo "No such object" >&2; exit 1; }
  echo "{\"pid\":$(cat "$LOG.pid"),\"image\":\"sha256:abc\",\"env\":[\"PATH=/bin:/usr/bin\",\"FROM_IMAGE=yes\"]}";;
pull) case "$2" in *nonsense*) echo "manifest for $2 not found" >&2; exit 1;; esac;;
esac
`

func TestContainer(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "t", "/mnt").CombinedOutput(); err != nil {
		t.Skipf("mount namespaces need root: %v %s", err, out)
	}
	m := newMachine(t, "i-c")
	m.program("docker", fakeDocker)
	dir, root := t.TempDir(), t.TempDir()
	sw := spec.Software{Container: "repo/image:1", Setup: "cat /mnt/where >from-setup; echo $FROM_IMAGE >>from-setup"}
	c := m.config(nil, sw, dir, root)
	c.Exe, c.Mounts = "/opt/agent", []string{"/scratch", root}
	env, err := Ensure(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Container.Remove(context.Background(), m.env); err != nil {
			t.Error(err)
		}
	})
	if b, _ := os.ReadFile(filepath.Join(dir, "from-setup")); string(b) != "inside\nyes\n" {
		t.Errorf("the set-up script saw %q", b)
	}
	if env.Container.Image != "sha256:abc" || len(env.Env) != 2 || env.Env[1] != "FROM_IMAGE=yes" {
		t.Errorf("%+v %+v", env, env.Container)
	}
	calls := strings.Join(m.calls(), "\n")
	for _, want := range []string{"docker pull repo/image:1", "docker run --detach --name coiled-jobs-" + env.ID + " --network host --entrypoint /opt/agent --user 0",
		"--volume " + dir + ":" + dir, "--volume /scratch:/scratch", "--volume " + root + ":" + root, "repo/image:1 " + PauseCommand} {
		if !strings.Contains(calls, want) {
			t.Errorf("no %q in\n%s", want, calls)
		}
	}
	if strings.Count(calls, "--volume "+root+":") != 1 {
		t.Error("a folder is mounted twice")
	}
	// A task: a child of ours, with its exit code, in the container's files.
	argv := append(env.Container.Prefix(dir), "sh", "-c", "cat /mnt/where; pwd; exit 7")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = env.Env
	out, err := cmd.Output()
	if string(out) != "inside\n"+dir+"\n" || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%q, %v", out, err)
	}
	// It is found running.
	before := len(m.calls())
	if again, err := Ensure(t.Context(), c); err != nil || again.Container.Pid != env.Container.Pid {
		t.Errorf("again: %+v, %v", again, err)
	}
	if got := m.calls()[before:]; strings.Contains(strings.Join(got, "\n"), "docker run") {
		t.Errorf("again: calls %q", got)
	}
}

func TestContainerErrors(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "i-c")
	m.program("docker", fakeDocker)
	m.program("nsenter", "exit 0")
	c := m.config(nil, spec.Software{Container: "nonsense"}, t.TempDir(), t.TempDir())
	if _, err := Ensure(t.Context(), c); err == nil || !strings.Contains(err.Error(), "Exe") {
		t.Errorf("without a program: %v", err)
	}
	c.Exe = "/opt/agent"
	if _, err := Ensure(t.Context(), c); !IsInstall(err) || !strings.Contains(err.Error(), "fetch the container image nonsense") || !strings.Contains(err.Error(), "manifest for nonsense not found") {
		t.Errorf("no such image: %v", err)
	}
	c.Software.Container, c.Mounts = "fine", []string{"/a:/b"}
	if _, err := Ensure(t.Context(), c); err == nil || !strings.Contains(err.Error(), "cannot be mounted") {
		t.Errorf("a folder with a colon: %v", err)
	}
}
