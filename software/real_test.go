//go:build linux

package software

import (
	"archive/zip"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	folder "github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// realUV installs uv as a machine without it does, into the folder of tools.
var realUV = sync.OnceValues(func() (file string, err error) {
	root, err := filepath.Abs(filepath.Join("..", ".cache", "software-test"))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	e := &ensurer{c: Config{Root: root, Dir: root, Env: os.Environ(), Log: func(string) {}}}
	return e.uv(context.Background())
})

// uvMachine is a machine with the real uv, and without a package index.
func uvMachine(t testing.TB) *machine {
	t.Helper()
	realPython(t)
	uv, err := realUV()
	if err != nil {
		t.Skipf("uv %s cannot be installed here (it comes from the package index): %v", uvVersion, err)
	}
	m := newMachine(t, "i-real")
	if err := os.Symlink(uv, filepath.Join(m.bin, "uv")); err != nil {
		t.Fatal(err)
	}
	m.env = append(m.env, "UV_OFFLINE=1", "UV_PYTHON_DOWNLOADS=never")
	return m
}

// wheel is a package as it is installed, made without any tool.
func wheel(t testing.TB, dir, name, code string) string {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	info := name + "-1.0.dist-info/"
	for _, f := range [][2]string{
		{name + "/__init__.py", code},
		{info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "entry_points.txt", "[console_scripts]\n" + name + " = " + name + ":main\n"},
		{info + "RECORD", name + "/__init__.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "entry_points.txt,,\n" + info + "RECORD,,\n"},
	} {
		w, err := z.Create(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := name + "-1.0-py3-none-any.whl"
	write(t, dir, map[string]string{file: buf.String()})
	return file
}

// backend is a build backend in a few lines, that lies in the project itself:
// it needs nothing from an index.
const backend = `
import os, zipfile
def _make(directory, files):
    name = "edi-1.0-py3-none-any.whl"
    info = "edi-1.0.dist-info/"
    files = dict(files)
    files[info + "METADATA"] = "Metadata-Version: 2.1\nName: edi\nVersion: 1.0\n"
    files[info + "WHEEL"] = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[info + "RECORD"] = "".join(f + ",,\n" for f in files) + info + "RECORD,,\n"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as z:
        for f, c in files.items():
            z.writestr(f, c)
    return name
def build_wheel(d, config_settings=None, metadata_directory=None):
    return _make(d, {"edi.py": open("src/edi.py").read()})
def build_editable(d, config_settings=None, metadata_directory=None):
    return _make(d, {"edi.pth": os.path.abspath("src") + "\n"})
`

const editableProject = "[project]\nname = \"edi\"\nversion = \"1.0\"\nrequires-python = \">=3.8\"\n[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n"

func python(t testing.TB, env *Environment, code string) string {
	t.Helper()
	cmd := exec.Command(env.Python, "-c", code)
	cmd.Env = append(os.Environ(), env.Env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// A real environment: a wheel and an editable package from requirements.txt,
// packed, unpacked by another machine, and used.
func TestRealRequirements(t *testing.T) {
	t.Parallel()
	m := uvMachine(t)
	dir, root := t.TempDir(), filepath.Join(t.TempDir(), "root")
	whl := wheel(t, dir, "tiny", "def main():\n    print('tiny says hello')\n")
	write(t, dir, map[string]string{"requirements.txt": "./" + whl + "\n-e ./edi\n", "edi/pyproject.toml": editableProject, "edi/backend.py": backend, "edi/src/edi.py": "WORD = 'first'\n"})
	store, err := folder.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"built", "unpacked"} {
		env, err := Ensure(t.Context(), m.config(store, spec.Software{}, dir, root))
		if err != nil {
			t.Fatal(err)
		}
		if env.Built != (want == "built") || env.Unpacked != (want == "unpacked") {
			t.Errorf("machine %d: %+v; want it %s", i, env, want)
		}
		if got := python(t, env, "import tiny, edi, sys; tiny.main(); print(edi.WORD); print(sys.prefix)"); got != "tiny says hello\nfirst\n"+filepath.Join(root, env.ID, "env") {
			t.Errorf("machine %d: %q", i, got)
		}
		out, err := exec.Command(filepath.Join(root, env.ID, "env/bin/tiny")).Output()
		if err != nil || string(out) != "tiny says hello\n" {
			t.Errorf("the script of the package: %q %v", out, err)
		}
		// Compiled once: nobody compiles again at the first import.
		pyc, _ := filepath.Glob(filepath.Join(root, env.ID, "env/lib/python*/site-packages/tiny/__pycache__/*.pyc"))
		if len(pyc) != 1 {
			t.Errorf("compiled files: %q", pyc)
		}
		move(t, root)
	}
	// The code of an editable package changes without a new environment.
	write(t, dir, map[string]string{"edi/src/edi.py": "WORD = 'second'\n"})
	env, err := Ensure(t.Context(), m.config(store, spec.Software{}, dir, root))
	if err != nil || !env.Unpacked {
		t.Fatalf("%+v %v", env, err)
	}
	if got := python(t, env, "import edi; print(edi.WORD)"); got != "second" {
		t.Errorf("the editable package says %q", got)
	}
}

func TestRealLockAndProject(t *testing.T) {
	t.Parallel()
	m := uvMachine(t)
	for _, c := range []struct {
		name string
		lock bool
	}{{"uv.lock", true}, {"pyproject.toml", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, root := t.TempDir(), filepath.Join(t.TempDir(), "root")
			whl := wheel(t, dir, "tiny", "WORD = 'tiny'\n")
			write(t, dir, map[string]string{"pyproject.toml": strings.Replace(editableProject, "[build-system]", "dependencies = [\"tiny\"]\n[tool.uv.sources]\ntiny = { path = \""+whl+"\" }\n[build-system]", 1),
				"backend.py": backend, "src/edi.py": "WORD = 'edi'\n"})
			if c.lock {
				cmd := exec.Command(filepath.Join(m.bin, "uv"), "lock", "-q")
				cmd.Dir, cmd.Env = dir, m.env
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("uv lock: %v\n%s", err, out)
				}
			}
			say, err := Describe(&spec.Software{}, dir)
			if err != nil || !strings.Contains(say[0], c.name) {
				t.Errorf("%q %v", say, err)
			}
			store := cloudtest.NewStore()
			for range 2 {
				env, err := Ensure(t.Context(), m.config(store, spec.Software{}, dir, root))
				if err != nil {
					t.Fatal(err)
				}
				if got := python(t, env, "import tiny, edi; print(tiny.WORD, edi.WORD)"); got != "tiny edi" {
					t.Errorf("%q", got)
				}
				move(t, root)
			}
			for _, made := range []string{".venv", "uv.lock"} {
				if _, err := os.Stat(filepath.Join(dir, made)); err == nil && !(made == "uv.lock" && c.lock) {
					t.Errorf("%s was made beside the pipeline file", made)
				}
			}
		})
	}
}

func TestRealFailure(t *testing.T) {
	t.Parallel()
	m := uvMachine(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"requirements.txt": "coiled-jobs-no-such-package==1\n"})
	_, err := Ensure(t.Context(), m.config(cloudtest.NewStore(), spec.Software{}, dir, t.TempDir()))
	if !IsInstall(err) || !strings.Contains(err.Error(), "coiled-jobs-no-such-package") {
		t.Errorf("error %v", err)
	}
	write(t, dir, map[string]string{"requirements.txt": "\n"})
	_, err = Ensure(t.Context(), m.config(cloudtest.NewStore(), spec.Software{Python: "3.6"}, dir, t.TempDir()))
	if !IsInstall(err) || !strings.Contains(err.Error(), "make an environment of Python 3.6") {
		t.Errorf("error %v", err)
	}
}

// A machine without uv installs the pinned version.
func TestRealUVFromIndex(t *testing.T) {
	t.Parallel()
	if p, err := exec.LookPath("uv"); err == nil {
		t.Skipf("this machine has a uv of its own: %s", p)
	}
	m := uvMachine(t)
	out, err := exec.Command(filepath.Join(m.bin, "uv"), "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "uv "+uvVersion) {
		t.Errorf("%q %v", out, err)
	}
}

// Settings of pip's index are those of uv, which has a say itself.
func TestIndexSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  []string
		want []string
		not  []string
	}{
		{[]string{"PIP_INDEX_URL=https://mine/simple", "PIP_EXTRA_INDEX_URL=https://a https://b", "PIP_FIND_LINKS=/x /y", "PIP_CERT=/ca", "PIP_NO_INDEX=1", "PIP_DEFAULT_TIMEOUT=60"},
			[]string{"UV_DEFAULT_INDEX=https://mine/simple", "UV_EXTRA_INDEX_URL=https://a https://b", "UV_FIND_LINKS=/x,/y", "SSL_CERT_FILE=/ca", "UV_NO_INDEX=1", "UV_HTTP_TIMEOUT=60"}, nil},
		{[]string{"PIP_INDEX_URL=https://pip", "UV_INDEX_URL=https://uv", "UV_CACHE_DIR=/c"}, nil, []string{"UV_DEFAULT_INDEX=", "UV_CACHE_DIR="}},
		{[]string{"PIP_INDEX_URL=https://pip", "UV_DEFAULT_INDEX=https://uv"}, nil, []string{"UV_DEFAULT_INDEX="}},
	} {
		got := strings.Join((&ensurer{c: Config{Env: c.env, Root: "/r"}}).uvEnv(), "\n") + "\n"
		for _, w := range c.want {
			if !strings.Contains(got, w+"\n") {
				t.Errorf("%q: no %q in\n%s", c.env, w, got)
			}
		}
		for _, n := range c.not {
			if strings.Contains(got, n) {
				t.Errorf("%q: %q in\n%s", c.env, n, got)
			}
		}
	}
}

// Conda: which program is called, and how. The program itself is a fake.
func TestConda(t *testing.T) {
	t.Parallel()
	fake := `echo "$(basename $0) $*" >>"$LOG"; while [ $# -gt 0 ]; do [ "$1" = --prefix ] && env=$2; shift; done
mkdir -p "$env/bin"; printf '#!/bin/sh\necho conda\n' >"$env/bin/python"; chmod 755 "$env/bin/python"`
	for _, c := range []struct {
		tool, python, want string
	}{
		{"micromamba", "", "micromamba create --yes --prefix ENV --file environment.yml"},
		{"micromamba", "3.12", "micromamba create --yes --prefix ENV --file environment.yml python=3.12"},
		{"conda", "", "conda env create --yes --prefix ENV --file environment.yml"},
	} {
		m := newMachine(t, "i-conda")
		m.program(c.tool, fake)
		dir, root := t.TempDir(), t.TempDir()
		write(t, dir, map[string]string{"environment.yml": "dependencies: [python]\n"})
		env, err := Ensure(t.Context(), m.config(cloudtest.NewStore(), spec.Software{Python: c.python}, dir, root))
		if err != nil {
			t.Fatal(err)
		}
		prefix := filepath.Join(root, env.ID, "env")
		same(t, "calls", []string{strings.Replace(c.want, "ENV", prefix, 1)}, m.calls())
		if env.Env[1] != "CONDA_PREFIX="+prefix {
			t.Errorf("env %q", env.Env)
		}
	}
}
