package software

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// uvVersion is the uv that is installed where there is none.
const uvVersion = "0.13.8"

// install makes the Python environment.
func (e *ensurer) install(ctx context.Context) error {
	if err := os.MkdirAll(e.home, 0o755); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	n := e.n
	if n.conda != "" {
		if err := e.installConda(ctx); err != nil {
			return err
		}
		if n.reqs == "" {
			return nil
		}
	}
	uv, err := e.uv(ctx)
	if err != nil {
		return err
	}
	env := e.uvEnv()
	run := func(what string, args ...string) error {
		return e.exec(ctx, command{what: what, env: env, argv: append([]string{uv}, args...)})
	}
	if n.lock != "" {
		args := []string{"sync", "--frozen", "--project", path.Dir(n.lock)}
		if n.python != "" {
			args = append(args, "--python", n.python)
		}
		if err := run("install the packages of "+n.lock, args...); err != nil {
			return err
		}
	} else if n.conda == "" {
		if err := e.venv(run); err != nil {
			return err
		}
	}
	if n.project != "" {
		if err := run("install the dependencies of "+n.project, "pip", "install", "--python", e.python(), "-r", n.project); err != nil {
			return err
		}
		if buildsPackage(e.c.Dir, n.project) {
			dir := path.Dir(n.project)
			if err := run("install the package of "+n.project, "pip", "install", "--python", e.python(), "--no-deps", "-e", "./"+dir); err != nil {
				return err
			}
		}
	}
	if n.reqs != "" {
		if err := run("install the packages of "+n.reqs, "pip", "install", "--python", e.python(), "-r", n.reqs); err != nil {
			return err
		}
	}
	if strings.Contains(n.setup, "pip") {
		// A set-up script that says pip means that of the environment. Python
		// brings one along, mostly; where not, the script will say so.
		err := e.exec(ctx, command{what: "add pip for the set-up script", argv: []string{e.python(), "-m", "ensurepip", "--default-pip"}})
		if err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// venv makes an empty environment: of the Python version that was asked for,
// that the project asks for, or of python3.
func (e *ensurer) venv(run func(what string, args ...string) error) error {
	args := []string{"venv", "--no-config", e.env()}
	switch {
	case e.n.python != "":
		args = append(args, "--python", e.n.python)
	case e.n.project != "":
		// uv reads requires-python.
		args = []string{"venv", "--project", path.Dir(e.n.project), e.env()}
	default:
		if py, err := e.look("python3"); err == nil {
			args = append(args, "--python", py)
		}
	}
	what := "make a Python environment"
	if e.n.python != "" {
		what = "make an environment of Python " + e.n.python
	}
	return run(what, args...)
}

// uvEnv is what uv must know: where things go, and what pip's settings say.
func (e *ensurer) uvEnv() []string {
	env := []string{
		"UV_PROJECT_ENVIRONMENT=" + e.env(),
		"UV_PYTHON_INSTALL_DIR=" + filepath.Join(e.home, "python"),
		"UV_NO_PROGRESS=1",
		"UV_COMPILE_BYTECODE=1", // once, instead of on every machine at its first import
		"VIRTUAL_ENV=",
		"CONDA_PREFIX=",
	}
	set := func(name, value string) {
		if value != "" && e.lookup(name, "") == "" {
			env = append(env, name+"="+value)
		}
	}
	set("UV_CACHE_DIR", filepath.Join(e.c.Root, ".cache", "uv"))
	// uv does not read the settings of pip.
	if e.lookup("UV_INDEX_URL", "") == "" {
		set("UV_DEFAULT_INDEX", e.lookup("PIP_INDEX_URL", ""))
	}
	if e.lookup("UV_INDEX", "") == "" {
		set("UV_EXTRA_INDEX_URL", e.lookup("PIP_EXTRA_INDEX_URL", ""))
	}
	set("UV_FIND_LINKS", strings.Join(strings.Fields(e.lookup("PIP_FIND_LINKS", "")), ","))
	set("UV_NO_INDEX", e.lookup("PIP_NO_INDEX", ""))
	set("SSL_CERT_FILE", e.lookup("PIP_CERT", ""))
	set("UV_HTTP_TIMEOUT", e.lookup("PIP_DEFAULT_TIMEOUT", ""))
	return env
}

// uv is the path of uv: that of the machine, or one of a pinned version in an
// environment of its own.
func (e *ensurer) uv(ctx context.Context) (string, error) {
	if p, err := e.look("uv"); err == nil {
		return p, nil
	}
	if home := e.lookup("HOME", ""); home != "" {
		p := filepath.Join(home, ".local", "bin", "uv")
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p, nil
		}
	}
	tool := filepath.Join(e.c.Root, ".uv-"+uvVersion)
	bin := filepath.Join(tool, "bin", "uv")
	if _, err := os.Stat(filepath.Join(tool, readyFile)); err == nil {
		return bin, nil
	}
	if err := os.RemoveAll(tool); err != nil {
		return "", fmt.Errorf("software: %w", err)
	}
	make := command{what: "make an environment for uv", argv: []string{"python3", "-m", "venv", tool}}
	if err := e.exec(ctx, make); err != nil {
		// Debian and Ubuntu keep venv in a package of its own.
		if ierr := e.packages(ctx, []string{"python3-venv"}); ierr != nil {
			return "", err
		}
		if err := os.RemoveAll(tool); err != nil {
			return "", fmt.Errorf("software: %w", err)
		}
		if err := e.exec(ctx, make); err != nil {
			return "", err
		}
	}
	err := e.exec(ctx, command{
		what: "install uv " + uvVersion,
		argv: []string{filepath.Join(tool, "bin", "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "uv==" + uvVersion},
	})
	if err != nil {
		return "", err
	}
	return bin, os.WriteFile(filepath.Join(tool, readyFile), nil, 0o644)
}

// installConda makes the environment from an environment.yml.
func (e *ensurer) installConda(ctx context.Context) error {
	tool, err := e.micromamba(ctx)
	if err != nil {
		return err
	}
	argv := []string{tool, "create", "--yes", "--prefix", e.env(), "--file", e.n.conda}
	if base := filepath.Base(tool); base == "conda" || base == "mamba" {
		argv = []string{tool, "env", "create", "--yes", "--prefix", e.env(), "--file", e.n.conda}
	} else if e.n.python != "" {
		argv = append(argv, "python="+e.n.python)
	}
	return e.exec(ctx, command{
		what: "make the conda environment of " + e.n.conda,
		env:  []string{"MAMBA_ROOT_PREFIX=" + filepath.Join(e.c.Root, ".cache", "mamba"), "MAMBA_NO_BANNER=1", "CONDA_PREFIX=", "VIRTUAL_ENV="},
		argv: argv,
	})
}

// micromambaVersion is what is fetched where there is none of its kind.
const micromambaVersion = "2.9.0-0"

// micromambaSums are the hashes of its programs.
var micromambaSums = map[string]string{
	"linux-64":      "366cd9cd8be14df1ab8ed50352a82111082a36686b2d389fdb79a92c3fafb3e3",
	"linux-aarch64": "9f93b974adcb4d166996af969b6cd371287d1a3e52733704727884d9b74cb7a7",
}

// micromamba is the path of a program that makes conda environments.
func (e *ensurer) micromamba(ctx context.Context) (string, error) {
	for _, name := range []string{"micromamba", "mamba", "conda"} {
		if p, err := e.look(name); err == nil {
			return p, nil
		}
	}
	system := map[string]string{"linux/amd64": "linux-64", "linux/arm64": "linux-aarch64"}[runtime.GOOS+"/"+runtime.GOARCH]
	if system == "" {
		return "", &InstallError{What: "find micromamba", Err: fmt.Errorf("there is none for %s/%s; put micromamba, mamba or conda on the PATH", runtime.GOOS, runtime.GOARCH)}
	}
	file := filepath.Join(e.c.Root, ".micromamba-"+micromambaVersion)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	url := e.lookup("COILED_JOBS_MICROMAMBA_URL",
		"https://github.com/mamba-org/micromamba-releases/releases/download/"+micromambaVersion+"/micromamba-"+system)
	e.c.Log("software: fetch micromamba " + micromambaVersion)
	if err := fetchProgram(ctx, url, micromambaSums[system], file); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", &InstallError{What: "fetch micromamba", Err: err}
	}
	return file, nil
}
