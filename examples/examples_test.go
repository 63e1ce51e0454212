// Package examples runs every pipeline below pipelines/ the way a user would:
// with the program itself, in a copy of its folder.
package examples

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// program is the binary under test, built once.
var program string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "coiled-jobs-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "coiled-jobs")
	build := exec.Command("go", "build", "-o", program, "../cmd/coiled-jobs")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// example is a copy of an example's folder with a store of its own.
type example struct {
	t     *testing.T
	dir   string // the copy
	home  string // HOME of the program: state and store lie below it
	store string
}

// open copies an example; what git does not keep is not there.
func open(t *testing.T, name string) *example {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the examples need python3")
		}
		t.Skip("the examples need python3")
	}
	tmp := t.TempDir()
	x := &example{t: t, dir: filepath.Join(tmp, name), home: filepath.Join(tmp, "home")}
	x.store = filepath.Join(x.home, "store")
	source := filepath.Join("pipelines", name)
	for _, file := range sources(t, source) {
		data, err := os.ReadFile(filepath.Join(source, file))
		if err != nil {
			t.Fatal(err)
		}
		x.write(file, string(data))
	}
	return x
}

// sources are the files of a folder that belong to the repository, without
// what runs in place have left there.
func sources(t *testing.T, dir string) []string {
	t.Helper()
	git := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	git.Dir = dir
	out, err := git.Output()
	if err != nil {
		return everything(t, dir) // not a checkout: an archive of the sources
	}
	files := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	slices.Sort(files)
	return slices.Compact(files)
}

func everything(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var rel string
			rel, err = filepath.Rel(dir, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (x *example) write(file, text string) {
	x.t.Helper()
	path := filepath.Join(x.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
}

func (x *example) read(file string) string {
	x.t.Helper()
	data, err := os.ReadFile(filepath.Join(x.dir, file))
	if err != nil {
		x.t.Fatal(err)
	}
	return string(data)
}

func (x *example) exists(file string) bool {
	_, err := os.Stat(filepath.Join(x.dir, file))
	return err == nil
}

// run starts the program in the copy, and returns its exit code and outputs.
func (x *example) run(args ...string) (code int, stdout, stderr string) {
	x.t.Helper()
	cmd := exec.CommandContext(x.t.Context(), program, append([]string{"--store", x.store}, args...)...)
	cmd.Dir = x.dir
	cmd.Env = append(os.Environ(), "HOME="+x.home, "XDG_STATE_HOME=", "NO_COLOR=1", "PYTHONDONTWRITEBYTECODE=1",
		// A build cache in a HOME that is thrown away would be made each time.
		"GOCACHE="+goEnv(x.t, "GOCACHE"), "GOMODCACHE="+goEnv(x.t, "GOMODCACHE"))
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		x.t.Fatalf("coiled-jobs %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), messages.String()
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// function is a function in the JSON of apply, as far as the tests look.
type function struct {
	Status                                             string
	Tasks, Succeeded, Failed, Skipped, Cached, Retries int
}

// report is the JSON of apply.
type report struct {
	Run, Pipeline, Status string
	Functions             map[string]function
}

// apply runs the pipeline and expects an exit code.
func (x *example) apply(wantCode int, flags ...string) report {
	x.t.Helper()
	code, stdout, stderr := x.run(append([]string{"apply", "pipeline.yaml", "--json"}, flags...)...)
	if code != wantCode {
		_, logs, _ := x.run("logs", "latest", "--failed")
		x.t.Fatalf("apply %v: exit code %d, want %d\n%s\nlogs of failed tasks:\n%s", flags, code, wantCode, stderr, logs)
	}
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		x.t.Fatalf("apply --json: %v\n%s", err, stdout)
	}
	return r
}

// result is a line of results --format json.
type result struct {
	Index    int
	Item     any
	Status   string
	Result   any
	Attempts int
	Cause    *string
}

func (x *example) results(fn string) []result {
	x.t.Helper()
	code, stdout, stderr := x.run("results", "latest", fn, "--format", "json")
	if code != 0 {
		x.t.Fatalf("results %s: exit code %d\n%s", fn, code, stderr)
	}
	var rs []result
	if err := json.Unmarshal([]byte(stdout), &rs); err != nil {
		x.t.Fatalf("results %s: %v\n%s", fn, err, stdout)
	}
	return rs
}

// values are the bare results of a function.
func (x *example) values(fn string) []any {
	x.t.Helper()
	var values []any
	for _, r := range x.results(fn) {
		values = append(values, r.Result)
	}
	return values
}

// want compares what functions came to with what they should.
func (r report) want(t *testing.T, want map[string]function) {
	t.Helper()
	for name, w := range want {
		if got := r.Functions[name]; got != w {
			t.Errorf("function %s: got %+v, want %+v", name, got, w)
		}
	}
	if len(r.Functions) != len(want) {
		t.Errorf("%d functions, want %d", len(r.Functions), len(want))
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// TestEach validates and plans every example, and sees to it that each of them
// has a test that runs it.
func TestEach(t *testing.T) {
	t.Parallel()
	tasks := map[string]map[string]int{ // -1: known while the run goes on
		"any-language":  {"compile": 1, "collatz": 8, "python_says": 8, "compare": 1},
		"diamond":       nil,
		"hostile-names": {"prepare": 1, "in_shell": -1, "in_command": -1, "in_python": -1, "check": 1},
		"incremental":   {"count": 4, "total": 1},
		"nested-loops":  {"score": 60, "best": 1},
		"nyc-taxi":      {"process": 4, "report": 1},
		"stream":        {"rates": 3, "price": 4, "receipt": -1, "split": 4, "ship": -1, "complain": 1, "clean_up": 1},
		"sweep":         {"sweep": 52, "table": 1},
	}
	entries, err := os.ReadDir("pipelines")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		want, ok := tasks[e.Name()]
		if !ok {
			t.Errorf("pipelines/%s has no test", e.Name())
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			x := open(t, e.Name())
			if code, stdout, stderr := x.run("validate", "pipeline.yaml"); code != 0 {
				t.Errorf("validate: exit code %d\n%s%s", code, stdout, stderr)
			}
			code, stdout, stderr := x.run("plan", "pipeline.yaml", "--json")
			if code != 0 {
				t.Fatalf("plan: exit code %d\n%s", code, stderr)
			}
			var plan struct {
				Pipeline  string
				Functions map[string]struct{ Tasks *int }
			}
			if err := json.Unmarshal([]byte(stdout), &plan); err != nil {
				t.Fatalf("plan --json: %v\n%s", err, stdout)
			}
			equal(t, "name", plan.Pipeline, e.Name())
			for fn, n := range want {
				if n < 0 {
					continue
				}
				if got := plan.Functions[fn].Tasks; got == nil || *got != n {
					t.Errorf("plan: %s has %v tasks, want %d\n%s", fn, plan.Functions[fn].Tasks, n, stdout)
				}
			}
		})
	}
}
