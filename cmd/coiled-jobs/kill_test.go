package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

const killPipeline = `
name: killed
params: {starts: {type: string}}
env: {STARTS: "${{ params.starts }}"}
functions:
  gen:
    map: {range: 60}
    python: work:gen
  double:
    map: {from: gen}
    run: |
      echo "double/$COILED_JOBS_INDEX" >> "$STARTS"
      (setsid sleep 600 &)
      echo $((COILED_JOBS_INDEX * 2)) > "$COILED_JOBS_RESULT"
  total:
    needs: [double, gen]
    python: work:total
    args: ["${{ sum(needs.double.results) }}"]
  fan:
    needs: total
    map: {items: "${{ map(1..30, # + needs.total.result) }}"}
    command: [bash, -c, 'echo "fan/$COILED_JOBS_INDEX" >> "$STARTS"; echo "$1" > "$COILED_JOBS_RESULT"', fan, "${{ item }}"]
`

const killModule = `
import os
def note(what):
    fd = os.open(os.environ["STARTS"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(fd, (what + "\n").encode())
    os.close(fd)
def gen(x):
    note("gen/%d" % x)
    return x
def total(x):
    note("total/0")
    return x
`

// killed is one run of the pipeline above that is killed again and again.
type killed struct {
	t                   *testing.T
	program, dir, store string
	folder              string // where the store's objects lie
	starts, state       string
	open                func() (cloud.Store, error)
	run                 string
	rng                 *rand.Rand
	mustNotStart        map[string]int // succeeded tasks, and how often they had started by then
	token               string
}

func newKilled(t *testing.T, seed uint64) *killed {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	k := &killed{t: t, dir: dir, program: filepath.Join(dir, "coiled-jobs"), store: filepath.Join(dir, "store"),
		state: filepath.Join(dir, "state"), starts: filepath.Join(dir, "starts"),
		folder: filepath.Join(dir, "store"), rng: rand.New(rand.NewPCG(seed, 0)), mustNotStart: map[string]int{}}
	k.open = func() (cloud.Store, error) { return local.OpenStore(k.store) }
	if err := os.Symlink(exe, k.program); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"p.yaml": killPipeline, "work.py": killModule} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k *killed) command(args ...string) *exec.Cmd {
	cmd := exec.Command(k.program, append(args, "--store", k.store)...)
	cmd.Dir = k.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+k.state, "HOME="+k.dir)
	return cmd
}

// until kills cmd with SIGKILL when the journal has grown past size bytes;
// false: it ended before.
func (k *killed) until(cmd *exec.Cmd, size int64) (died bool) {
	k.t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				k.t.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.String())
			}
			return false
		case <-tick.C:
		}
		if k.journal() >= size {
			cmd.Process.Kill()
			err := <-ended
			var exit *exec.ExitError
			return errors.As(err, &exit) && exit.ExitCode() == -1
		}
	}
}

// journal is the size of the journal, be it a file or a folder of segments;
// -1 if there is none.
func (k *killed) journal() int64 {
	size := int64(-1)
	for _, pattern := range []string{"journal", "journal/*"} {
		found, _ := filepath.Glob(filepath.Join(k.folder, "runs", "*", pattern))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
				size = max(size, 0) + info.Size()
			}
		}
	}
	return size
}

func (k *killed) started() map[string]int {
	b, err := os.ReadFile(k.starts)
	if err != nil && !os.IsNotExist(err) {
		k.t.Fatal(err)
	}
	n := map[string]int{}
	for _, line := range strings.Fields(string(b)) {
		n[line]++
	}
	return n
}

// look notes what is recorded as succeeded: it must never start again.
func (k *killed) look() {
	k.t.Helper()
	store, err := k.open()
	if err != nil {
		k.t.Fatal(err)
	}
	if c, ok := store.(io.Closer); ok {
		defer c.Close()
	}
	v, err := executor.OpenView(context.Background(), store, k.run)
	if err != nil {
		k.t.Fatal(err)
	}
	k.token = v.Header.Token
	counts := k.started()
	for _, fn := range v.Functions() {
		for t := range v.Tasks(fn) {
			name := fmt.Sprintf("%s/%d", fn, t.Index)
			if _, ok := k.mustNotStart[name]; !ok && t.Status == task.Succeeded {
				k.mustNotStart[name] = counts[name]
			}
		}
	}
}

func (k *killed) results(fn string) string {
	k.t.Helper()
	out, err := k.command("results", k.run, fn, "--format", "jsonl").Output()
	if err != nil {
		k.t.Fatal(err)
	}
	var all []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		var r struct {
			Index  int
			Result json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			k.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d=%s", r.Index, r.Result))
	}
	return strings.Join(all, " ")
}

func (k *killed) want() map[string]string {
	seq := func(n int, f func(int) int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("%d=%d", i, f(i)))
		}
		return strings.Join(all, " ")
	}
	sum := 60 * 59
	return map[string]string{
		"gen":    seq(60, func(i int) int { return i }),
		"double": seq(60, func(i int) int { return 2 * i }),
		"total":  fmt.Sprintf("0=%d", sum),
		"fan":    seq(30, func(i int) int { return i + 1 + sum }),
	}
}

// Fifty kills at random places of the journal: the run ends each time with
// the results of an undisturbed one, no task starts after its success was
// recorded, and nothing that tasks started is alive afterwards.
func TestKillNineLosesAndRepeatsNothing(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	t.Parallel()
	kills := 0
	for seed := uint64(0); kills < 50; seed++ {
		if seed > 40 {
			t.Fatalf("only %d kills in %d runs", kills, seed)
		}
		kills += killOften(t, seed, newKilled(t, seed), 6000)
	}
}

// killOften kills a run each time its journal has grown by up to step bytes.
func killOften(t *testing.T, seed uint64, k *killed, step int) (kills int) {
	t.Helper()
	alive := k.until(k.command("apply", "p.yaml", "--param", "starts="+k.starts), int64(k.rng.IntN(step)))
	for alive {
		kills++
		found, _ := filepath.Glob(filepath.Join(k.folder, "runs", "*", "header.json"))
		if len(found) != 1 {
			t.Fatalf("seed %d: %d runs are recorded", seed, len(found))
		}
		k.run = filepath.Base(filepath.Dir(found[0]))
		k.look()
		alive = k.until(k.command("resume", k.run), k.journal()+int64(k.rng.IntN(step)))
	}
	if k.run == "" {
		k.run = "latest"
	}
	for fn, want := range k.want() {
		if got := k.results(fn); got != want {
			t.Errorf("seed %d, %d kills: results of %s\n%s\nwant\n%s", seed, kills, fn, got, want)
		}
	}
	counts := k.started()
	for name, n := range k.mustNotStart {
		if counts[name] != n {
			t.Errorf("seed %d: %s started again after its success was recorded (%d starts, then %d)", seed, name, n, counts[name])
		}
	}
	if k.token != "" {
		k.nothingLeft()
	}
	return kills
}

// nothingLeft waits until no process carries the run's token: the warden
// needs a moment after its coordinator's end.
func (k *killed) nothingLeft() {
	if runtime.GOOS != "linux" {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		left := processesWith(k.token)
		if len(left) == 0 {
			return
		}
		select {
		case <-deadline:
			k.t.Errorf("still alive: %v", left)
			return
		case <-tick.C:
		}
	}
}

func processesWith(token string) []string {
	var left []string
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(token)) {
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			left = append(left, filepath.Dir(path)+" "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return left
}
