package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed requirements.txt
var requirements []byte

// bench is what the cases share.
type bench struct {
	options
	self     string // this program
	program  string // coiled-jobs
	python   string // the interpreter all contenders use
	noDask   string // why there is no Dask, if so
	parallel string // GNU parallel, if there is one
	tmp      string // for what is made and thrown away
	stderr   io.Writer
}

// setUp builds the program and finds, or installs in a folder of its own, what
// it is compared with.
func setUp(ctx context.Context, o options, stderr io.Writer) (*bench, error) {
	b := &bench{options: o, stderr: stderr}
	if b.work == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		b.work = filepath.Join(cache, "coiled-jobs-bench")
	}
	var err error
	if b.work, err = filepath.Abs(b.work); err != nil {
		return nil, err
	}
	if err = os.MkdirAll(b.work, 0o755); err != nil {
		return nil, err
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.tmp, err = os.MkdirTemp(b.work, "tmp-"); err != nil {
		return nil, err
	}
	if b.binary != "" {
		if b.program, err = filepath.Abs(b.binary); err != nil {
			return nil, err
		}
	} else {
		b.program = filepath.Join(b.work, "coiled-jobs")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.program, "github.com/coiled-jobs/coiled-jobs/cmd/coiled-jobs")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	if p, err := exec.LookPath("parallel"); err == nil {
		out, _ := exec.CommandContext(ctx, p, "--version").Output()
		if bytes.HasPrefix(out, []byte("GNU parallel")) {
			b.parallel = p
		}
	}
	return b, b.setUpPython(ctx)
}

// setUpPython makes a virtual environment with Dask, once per set of versions.
// Without a network the system's Python serves, and Dask is left out.
func (b *bench) setUpPython(ctx context.Context) error {
	venv := filepath.Join(b.work, "venv")
	b.python = filepath.Join(venv, "bin", "python")
	mark := filepath.Join(venv, "requirements.txt")
	if done, err := os.ReadFile(mark); err == nil && bytes.Equal(done, requirements) {
		return nil
	}
	list := filepath.Join(b.tmp, "requirements.txt")
	if err := os.WriteFile(list, requirements, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(b.stderr, "installing Dask into", venv)
	for _, argv := range [][]string{
		{"python3", "-m", "venv", "--clear", venv},
		{b.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			b.noDask = lastLine(out, err)
			break
		}
	}
	if b.noDask == "" {
		return os.WriteFile(mark, requirements, 0o644)
	}
	if _, err := os.Stat(b.python); err != nil {
		out, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.executable)").Output()
		if err != nil {
			return fmt.Errorf("python3: %w", err)
		}
		b.python = strings.TrimSpace(string(out))
	}
	return nil
}

func lastLine(out []byte, err error) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return err.Error()
}
