package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cases are the comparisons, in the order of README.md.
func (b *bench) cases() []benchCase {
	list := []benchCase{b.trueTasks(), b.runTasks()}
	list = append(list, b.pythonCalls())
	list = append(list, b.planRange()...)
	list = append(list, b.globFiles()...)
	list = append(list, b.listS3()...)
	list = append(list, b.manyCalls(100_000, 80), b.manyCalls(1_000_000, 128))
	return append(list, b.startUp()...)
}

// pipeline writes a pipeline file with files next to it, and gives its path.
func (b *bench) pipeline(yaml string, files map[string]string) (string, error) {
	dir, err := b.dir("pipeline")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "pipeline.yaml")
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return path, os.WriteFile(path, []byte(yaml), 0o644)
}

// ours is a run of coiled-jobs with an empty state folder.
func (b *bench) ours(args []string) (*exec.Cmd, error) {
	state, err := b.dir("state")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(b.program, args...)
	cmd.Env = environ("XDG_STATE_HOME="+state, "COILED_JOBS_STORE="+filepath.Join(state, "store"))
	return cmd, nil
}

// applies is the contender that applies a pipeline of n tasks with a new store
// each time, and makes sure that all n succeeded.
func (b *bench) applies(yaml string, files map[string]string, n int) contender {
	path := ""
	return contender{
		name: "coiled-jobs",
		prepare: func() (cmd *exec.Cmd, err error) {
			if path == "" {
				if path, err = b.pipeline(yaml, files); err != nil {
					return nil, err
				}
			}
			return b.ours([]string{"apply", path, "--json"})
		},
		check: func(out []byte) error {
			var doc struct {
				Status    string
				Functions map[string]struct{ Succeeded int }
			}
			if err := json.Unmarshal(out, &doc); err != nil {
				return fmt.Errorf("apply --json: %w", err)
			}
			if got := doc.Functions["work"].Succeeded; doc.Status != "succeeded" || got != n {
				return fmt.Errorf("the run %s with %d of %d tasks", doc.Status, got, n)
			}
			return nil
		},
	}
}

// numbers writes the numbers below n, one a line, for stdin.
func (b *bench) numbers(n int) (string, error) {
	path := filepath.Join(b.tmp, "numbers-"+strconv.Itoa(n))
	var s strings.Builder
	for i := range n {
		fmt.Fprintln(&s, i)
	}
	return path, os.WriteFile(path, []byte(s.String()), 0o644)
}

// fed is a command that reads the numbers below n.
func (b *bench) fed(name string, n int, argv func(dir string) []string) contender {
	return contender{name: name, prepare: func() (*exec.Cmd, error) {
		list, err := b.numbers(n)
		if err != nil {
			return nil, err
		}
		dir, err := b.dir(name)
		if err != nil {
			return nil, err
		}
		args := argv(dir)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = environ("SHELL=/bin/bash", "PARALLEL_HOME="+dir)
		cmd.Dir = dir
		cmd.Stdin, err = os.Open(list) // closed with the program, a dozen at most
		return cmd, err
	}}
}

// gnuParallel is GNU parallel with a job log and every output kept.
func (b *bench) gnuParallel(n int, against float64, command ...string) contender {
	c := b.fed("parallel --joblog --results", n, func(dir string) []string {
		return append([]string{b.parallel, "--will-cite", "-j", strconv.Itoa(b.jobs), "--joblog", filepath.Join(dir, "joblog"),
			"--results", filepath.Join(dir, "results")}, command...)
	})
	c.against = against
	if b.parallel == "" {
		c.skip = "GNU parallel is not installed (apt-get install parallel)"
	}
	return c
}

func (b *bench) trueTasks() benchCase {
	n := b.n(5000)
	xargs := b.fed("xargs true", n, func(string) []string {
		return []string{"xargs", "-P" + strconv.Itoa(b.jobs), "-n1", "true"}
	})
	xargs.against = 1
	return benchCase{
		name: fmt.Sprintf("%d tasks: true", n),
		ours: b.applies(fmt.Sprintf("name: bench\nfunctions:\n  work:\n    map: {range: %d}\n    command: [\"true\"]\n%s", n, b.slots()),
			nil, n),
		theirs: []contender{xargs, b.gnuParallel(n, 6, "true")},
		each:   n, maxRSS: 50,
	}
}

// slots fixes how many tasks run at a time.
func (b *bench) slots() string {
	return fmt.Sprintf("    hardware: {threads_per_worker: %d}\n", b.jobs)
}

func (b *bench) runTasks() benchCase {
	n := b.n(2000)
	kilobyte := strings.Repeat("0123456789abcdef", 63) + "0123456789abcde" // and a newline
	yaml := fmt.Sprintf("name: bench\nfunctions:\n  work:\n    map: {range: %d}\n    run: |\n      echo %s\n"+
		"      echo '{\"ok\": true}' > \"$COILED_JOBS_RESULT\"\n%s", n, kilobyte, b.slots())
	return benchCase{
		name: fmt.Sprintf("%d run tasks: 1 KB, JSON", n),
		ours: b.applies(yaml, nil, n),
		theirs: []contender{b.gnuParallel(n, 4,
			fmt.Sprintf(`echo %s; echo '{"ok": true}' > result-{}.json`, kilobyte))},
		each: n,
	}
}

const workPy = "def work(i):\n    return i + 1\n"

// pythonYAML is a pipeline of n trivial calls.
func (b *bench) pythonYAML(n int) string {
	return fmt.Sprintf("name: bench\nfunctions:\n  work:\n    map: {range: %d}\n    python: work:work\n    python_bin: %s\n%s",
		n, b.python, b.slots())
}

// The other sides take the time of the map alone with "inner" as argument.
const (
	poolPy = `import sys, time
from concurrent.futures import ProcessPoolExecutor
from work import work
if __name__ == "__main__":
    n, jobs, inner = int(sys.argv[1]), int(sys.argv[2]), len(sys.argv) > 3
    with ProcessPoolExecutor(jobs) as pool:
        start = time.perf_counter()
        assert sum(pool.map(work, range(n))) == n * (n + 1) // 2
        if inner:
            print(time.perf_counter() - start)
`
	daskPy = `import sys, time
from distributed import Client, LocalCluster
from work import work
if __name__ == "__main__":
    n, jobs, inner = int(sys.argv[1]), int(sys.argv[2]), len(sys.argv) > 3
    with LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            start = time.perf_counter()
            assert sum(client.gather(client.map(work, range(n), pure=False))) == n * (n + 1) // 2
            if inner:
                print(time.perf_counter() - start)
`
)

// script is a Python program that does n calls.
func (b *bench) script(name, text string, n int, inner bool) contender {
	c := contender{name: name, prepare: func() (*exec.Cmd, error) {
		dir, err := b.dir("script")
		if err != nil {
			return nil, err
		}
		for file, content := range map[string]string{"main.py": text, "work.py": workPy} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				return nil, err
			}
		}
		args := []string{"main.py", strconv.Itoa(n), strconv.Itoa(b.jobs)}
		if inner {
			args = append(args, "inner")
		}
		cmd := exec.Command(b.python, args...)
		cmd.Dir, cmd.Env = dir, environ("DASK_TEMPORARY_DIRECTORY="+dir)
		return cmd, nil
	}}
	if inner {
		c.name += ", map alone"
		c.inner = innerSeconds
	}
	return c
}

func (b *bench) pythonCalls() benchCase {
	n := b.n(10_000)
	dask, daskMap := b.script("Dask", daskPy, n, false), b.script("Dask", daskPy, n, true)
	pool, poolMap := b.script("ProcessPool", poolPy, n, false), b.script("ProcessPool", poolPy, n, true)
	dask.against, pool.against = 40, 1.7
	dask.skip, daskMap.skip = b.noDask, b.noDask
	return benchCase{
		name:   fmt.Sprintf("%d Python calls", n),
		ours:   b.applies(b.pythonYAML(n), map[string]string{"work.py": workPy}, n),
		theirs: []contender{dask, daskMap, pool, poolMap},
		each:   n,
	}
}

// plans is the contender that plans a pipeline.
func (b *bench) plans(yaml string, files map[string]string, env []string, args ...string) contender {
	path := ""
	return contender{name: "coiled-jobs", prepare: func() (cmd *exec.Cmd, err error) {
		if path == "" {
			if path, err = b.pipeline(yaml, files); err != nil {
				return nil, err
			}
		}
		cmd, err = b.ours(append([]string{"plan", path}, args...))
		if err == nil {
			cmd.Env = append(cmd.Env, env...)
		}
		return cmd, err
	}}
}

const linesPy = `import json, sys
for i in range(int(sys.argv[1])):
    print(json.dumps({"function": "work", "index": i, "item": i}, separators=(",", ":")))
`

func (b *bench) planRange() []benchCase {
	n := b.n(1_000_000)
	yaml := fmt.Sprintf("name: bench\nfunctions:\n  work:\n    map: {range: %d}\n    command: [\"true\"]\n", n)
	python := contender{name: "Python json.dumps", against: 6, prepare: func() (*exec.Cmd, error) {
		return exec.Command(b.python, "-c", linesPy, strconv.Itoa(n)), nil
	}}
	return []benchCase{
		{name: fmt.Sprintf("plan range %d", n), ours: b.plans(yaml, nil, nil), maxTime: 100 * time.Millisecond, maxRSS: 64},
		{name: "plan --items of it", ours: b.plans(yaml, nil, nil, "--items"), theirs: []contender{python}, maxRSS: 64},
	}
}

func (b *bench) globFiles() []benchCase {
	n := b.n(100_000)
	dir := filepath.Join(b.tmp, "files")
	before := func() error {
		for i := range n {
			folder := filepath.Join(dir, fmt.Sprintf("folder-%03d", i/1000))
			if i%1000 == 0 {
				if err := os.MkdirAll(folder, 0o755); err != nil {
					return err
				}
			}
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%03d.dat", i%1000)), []byte("x"), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	yaml := fmt.Sprintf("name: bench\nfunctions:\n  work:\n    map: {glob: \"%s/**/*.dat\"}\n    command: [\"true\"]\n", dir)
	find := contender{name: "find -printf | sort", against: 0.8, prepare: func() (*exec.Cmd, error) {
		cmd := exec.Command("/bin/sh", "-c", `find "$1" -type f -name '*.dat' -printf '%p\t%s\t%T@\n' | sort > /dev/null`, "sh", dir)
		cmd.Env = environ()
		return cmd, nil
	}}
	return []benchCase{
		{name: fmt.Sprintf("glob of %d files", n), ours: b.plans(yaml, nil, nil), theirs: []contender{find}, before: before},
		{name: "plan --items of it", ours: b.plans(yaml, nil, nil, "--items"), theirs: []contender{find},
			before: func() error {
				if _, err := os.Stat(dir); err == nil {
					return nil // the case before made them
				}
				return before()
			},
			after: func() error { return os.RemoveAll(dir) }},
	}
}

func (b *bench) listS3() []benchCase {
	n := b.n(200_000)
	var list []benchCase
	for _, c := range []struct {
		name, glob string
		layout     layout
		against    float64
	}{
		{"in 100 folders", "data/*/part-*.parquet", inFolders(n), 7},
		{"in one folder", "data/part-*.parquet", inOneFolder(n), 4},
	} {
		var server *s3Server
		yaml := fmt.Sprintf("name: bench\nfunctions:\n  work:\n    map: {glob: \"s3://bench/%s\"}\n    command: [\"true\"]\n", c.glob)
		ours := b.plans(yaml, nil, nil, "--json")
		prepare := ours.prepare
		ours.prepare = func() (*exec.Cmd, error) {
			cmd, err := prepare()
			if err == nil {
				cmd.Env = append(cmd.Env, server.environ()...)
			}
			return cmd, err
		}
		ours.check = func(out []byte) error {
			var doc struct {
				Functions map[string]struct{ Tasks int }
			}
			if err := json.Unmarshal(out, &doc); err != nil {
				return fmt.Errorf("plan --json: %w", err)
			}
			if got := doc.Functions["work"].Tasks; got != c.layout.n {
				return fmt.Errorf("%d of %d objects", got, c.layout.n)
			}
			return nil
		}
		list = append(list, benchCase{
			name: fmt.Sprintf("%d S3 objects %s", n, c.name),
			ours: ours,
			theirs: []contender{{name: "page by page", against: c.against, prepare: func() (*exec.Cmd, error) {
				return exec.Command(b.self, pageByPageArg, server.url), nil
			}}},
			before: func() (err error) { server, err = startS3(c.layout, pageDelay); return err },
			after:  func() error { return server.stop() },
		})
	}
	return list
}

func (b *bench) manyCalls(full int, maxRSS int64) benchCase {
	n := b.n(full)
	return benchCase{
		name: fmt.Sprintf("run of %d Python calls", n),
		ours: b.applies(b.pythonYAML(n), map[string]string{"work.py": workPy}, n),
		each: n, maxRSS: maxRSS,
	}
}

func (b *bench) startUp() []benchCase {
	yaml := "name: bench\nfunctions:\n  work:\n    command: [\"true\"]\n"
	version := contender{name: "coiled-jobs", prepare: func() (*exec.Cmd, error) { return b.ours([]string{"version"}) }}
	validate := b.plans(yaml, nil, nil)
	prepare := validate.prepare
	validate.prepare = func() (*exec.Cmd, error) {
		cmd, err := prepare()
		if err == nil {
			cmd.Args[1] = "validate"
		}
		return cmd, err
	}
	return []benchCase{
		{name: "version", ours: version, maxTime: 15 * time.Millisecond},
		{name: "validate", ours: validate, maxTime: 25 * time.Millisecond},
		{name: "apply of one task", ours: b.applies(yaml, nil, 1), maxTime: 40 * time.Millisecond},
	}
}
