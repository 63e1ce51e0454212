//go:build unix

package acttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tool is a program of scripts/tools.sh. Without it the test is skipped, but
// fails in CI, where CI=true is set.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{filepath.Join(root(t), ".cache", "bin", name), name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no %s, which this test runs (see scripts/tools.sh)", name)
	}
	t.Skipf("no %s, which this test runs (see scripts/tools.sh)", name)
	return ""
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// shared is what all tests use: a checkout of the action without the rest of
// the folder, and the runner's tool cache, in which the program lies built.
var shared struct {
	sync.Once
	dir, action, cache, program string
	err                         error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// prepare makes the checkout and installs the program as the Action's first
// step does it.
func prepare(t *testing.T) {
	t.Helper()
	repo := root(t)
	shared.Do(func() {
		shared.err = func() error {
			var err error
			if shared.dir, err = os.MkdirTemp("", "acttest-"); err != nil {
				return err
			}
			shared.action, shared.cache = filepath.Join(shared.dir, "action"), filepath.Join(shared.dir, "cache")
			if err := checkout(repo, shared.action); err != nil {
				return err
			}
			cmd := exec.Command(filepath.Join(shared.action, "scripts", "action-install"))
			cmd.Env = append(os.Environ(), "ACTION_PATH="+shared.action, "VERSION=source", "RUNNER_TOOL_CACHE="+filepath.Join(shared.cache, "tool_cache"))
			var said bytes.Buffer
			cmd.Stderr = &said
			path, err := cmd.Output()
			if err != nil {
				return errors.Join(err, errors.New(said.String()))
			}
			shared.program = strings.TrimSpace(string(path))
			return nil
		}()
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
}

// checkout copies what the program and the Action are made of.
func checkout(from, to string) error {
	skip := []string{".git", ".cache", "docs", "examples", "bench", "tools", "dist", "bin"}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skip, rel) || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() || strings.HasSuffix(rel, ".test") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file of a moment
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, info.Mode().Perm())
	})
}

// rig is a repository with a workflow, and a machine that keeps runs.
type rig struct {
	t                      *testing.T
	dir, state, store, out string
	env                    map[string]string // of all steps
	flags                  []string
	act                    string
}

// open makes a repository. The file w.yml is the workflow; $OUT is a folder
// where steps leave what the test looks at.
func open(t *testing.T, files map[string]string) *rig {
	t.Helper()
	act := tool(t, "act")
	if _, err := exec.LookPath("node"); err != nil { // act has none of its own
		tool(t, "node")
	}
	prepare(t)
	base := t.TempDir()
	r := &rig{t: t, act: act, dir: filepath.Join(base, "repo"), state: filepath.Join(base, "state"), store: filepath.Join(base, "store"), out: filepath.Join(base, "out")}
	r.env = map[string]string{"XDG_STATE_HOME": r.state, "COILED_JOBS_STORE": r.store, "OUT": r.out, "GITHUB_RUN_ID": "4711"}
	for name, text := range files {
		if name == "w.yml" {
			name = filepath.Join(".github", "workflows", name)
		}
		r.write(name, text)
	}
	for _, dir := range []string{r.out, filepath.Join(base, "home")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"},
		{"-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "x"}} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = r.dir
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, text)
		}
	}
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
		r.t.Fatal(err)
	}
}

// read is a file that a step left in $OUT.
func (r *rig) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.out, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// log is what act printed.
type log struct {
	text      string
	ok        bool
	summaries []string // of the steps that wrote one
}

// prefix is what act writes before its own lines, and before what steps print.
var prefix = regexp.MustCompile(`(?m)^\[[^\]\n]*\] +(\| )?`)

// summary is where act shows what a step wrote for people: up to its next line.
var summary = regexp.MustCompile(`(?ms)^\[[^\]\n]*\]   ⚙  Summary - (.*?)^\[`)

func newLog(text string, ok bool) *log {
	l := &log{text: prefix.ReplaceAllString(text, ""), ok: ok}
	for _, m := range summary.FindAllStringSubmatch(text, -1) {
		l.summaries = append(l.summaries, m[1])
	}
	l.summaries = slices.Compact(l.summaries) // act shows it for the step inside of the Action, and for the Action
	return l
}

// start begins an event of the workflow.
func (r *rig) start(event string) (cmd *exec.Cmd, out *bytes.Buffer) {
	r.t.Helper()
	args := []string{event, "-P", "ubuntu-latest=-self-hosted", "--no-cache-server", "--action-offline-mode", "--pull=false",
		"--action-cache-path", shared.cache, "--local-repository", "coiled-jobs/coiled-jobs@main=" + shared.action, "--concurrent-jobs", "1"}
	for _, k := range slices.Sorted(maps.Keys(r.env)) {
		args = append(args, "--env", k+"="+r.env[k])
	}
	args = append(args, r.flags...)
	cmd = exec.CommandContext(r.t.Context(), r.act, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Dir = r.dir
	// Nothing of the caller's reaches act but the tools.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(filepath.Dir(r.dir), "home"), "GOCACHE=" + goCache(r.t), "GOFLAGS=-mod=mod"}
	out = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Stdin = io.LimitReader(nil, 0)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	return cmd, out
}

var goCache = func() func(*testing.T) string {
	find := sync.OnceValues(func() (string, error) {
		b, err := exec.Command("go", "env", "GOCACHE").Output()
		return strings.TrimSpace(string(b)), err
	})
	return func(t *testing.T) string {
		t.Helper()
		dir, err := find()
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
}()

// run runs an event of the workflow to its end.
func (r *rig) run(event string) *log {
	r.t.Helper()
	cmd, out := r.start(event)
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return newLog(out.String(), err == nil)
}

// want fails the test unless the workflow ended so.
func (l *log) want(t *testing.T, ok bool) *log {
	t.Helper()
	if l.ok != ok {
		t.Fatalf("the workflow succeeded: %v, want %v\n%s", l.ok, ok, l.text)
	}
	return l
}

// has fails the test unless all texts are in the log.
func (l *log) has(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(l.text, text) {
			t.Errorf("the log lacks %q:\n%s", text, l.text)
		}
	}
}

// summary is the only summary of the workflow.
func (l *log) summary(t *testing.T) string {
	t.Helper()
	if len(l.summaries) != 1 {
		t.Fatalf("%d summaries, want 1\n%s", len(l.summaries), l.text)
	}
	return l.summaries[0]
}

// annotations are the workflow commands of a level that act took as such: it
// marks those that it only passes through differently.
func (l *log) annotations() (list []string) {
	for line := range strings.Lines(l.text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "❗") || strings.HasPrefix(line, "🚧") {
			if i := strings.Index(line, "::"); i >= 0 {
				list = append(list, line[i:])
			}
		}
	}
	return list
}

// coiled runs the program on the machine of the workflow.
func (r *rig) coiled(args ...string) (string, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, shared.program, args...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+r.state, "COILED_JOBS_STORE="+r.store)
	out, err := cmd.Output()
	return string(out), err
}

// runs are the ids and status of the runs in the store, oldest first.
func (r *rig) runs() (list [][2]string) {
	r.t.Helper()
	out, err := r.coiled("runs", "--all")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if cells := strings.Split(strings.TrimSpace(line), "\t"); len(cells) > 2 && cells[0] != "RUN" {
			list = append(list, [2]string{cells[0], cells[2]})
		}
	}
	slices.Reverse(list)
	return list
}
