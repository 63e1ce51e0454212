package software

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

const project = "[project]\nname = \"p\"\nversion = \"1\"\n"

func TestResolve(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		sw    spec.Software
		say   []string
		carry []string
		err   string
	}{
		{"nothing", map[string]string{"main.py": ""}, spec.Software{}, nil, nil, ""},
		{"uv.lock first", map[string]string{"uv.lock": "", "pyproject.toml": project, "requirements.txt": "", "environment.yml": ""}, spec.Software{},
			[]string{"Python with the packages of uv.lock (found beside the pipeline file)"}, []string{"pyproject.toml", "uv.lock"}, ""},
		{"uv.lock without a project", map[string]string{"uv.lock": "", "requirements.txt": "x"}, spec.Software{},
			[]string{"Python with the packages of requirements.txt (found beside the pipeline file)"}, []string{"requirements.txt"}, ""},
		{"pyproject", map[string]string{"pyproject.toml": project, "requirements.txt": ""}, spec.Software{Python: "3.12"},
			[]string{"Python 3.12 with the dependencies of pyproject.toml (found beside the pipeline file)"}, []string{"pyproject.toml"}, ""},
		{"pyproject with only settings", map[string]string{"pyproject.toml": "[tool.ruff]\n", "environment.yml": ""}, spec.Software{},
			[]string{"Python with the conda environment environment.yml (found beside the pipeline file)"}, []string{"environment.yml"}, ""},
		{"explicit wins", map[string]string{"uv.lock": "", "pyproject.toml": project, "req/prod.txt": "-r base.txt\n-c con.txt\n", "req/base.txt": "a", "req/con.txt": "b"},
			spec.Software{Requirements: "req/prod.txt"}, []string{"Python with the packages of req/prod.txt"}, []string{"req/base.txt", "req/con.txt", "req/prod.txt"}, ""},
		{"lock beside an explicit pyproject", map[string]string{"sub/uv.lock": "", "sub/pyproject.toml": project}, spec.Software{UV: "sub/pyproject.toml"},
			[]string{"Python with the packages of sub/uv.lock"}, []string{"sub/pyproject.toml", "sub/uv.lock"}, ""},
		{"editable and local", map[string]string{"requirements.txt": "-e ./lib\n./tool # built\nother @ file:./whl/o-1.whl\nnumpy\nextra[x] @ file:lib2\n--editable=ed\n-e git+https://x/y\nhttps://h/x.whl\n/abs/x\n",
			"lib/setup.py": "", "tool/pyproject.toml": "", "whl/o-1.whl": "", "lib2/x": "", "ed/setup.py": "", ".python-version": "3.12"}, spec.Software{},
			[]string{"Python 3.12 with the packages of requirements.txt (found beside the pipeline file)", "local package ed (editable)", "local package lib (editable)", "local package lib2", "local package tool", "local package whl/o-1.whl"},
			[]string{".python-version", "ed", "lib", "lib2", "requirements.txt", "tool", "whl/o-1.whl"}, ""},
		{"version of Python", map[string]string{"env/r.txt": "x", ".python-version": "# mine\n3.11.4\n3.10\n"}, spec.Software{Requirements: "env/r.txt"},
			[]string{"Python 3.11 with the packages of env/r.txt"}, []string{".python-version", "env/r.txt"}, ""},
		{"the file's version of Python", map[string]string{"r.txt": "x", ".python-version": "3.11"}, spec.Software{Requirements: "r.txt", Python: "3.13"},
			[]string{"Python 3.13 with the packages of r.txt"}, []string{"r.txt"}, ""},
		{"an environment's name", map[string]string{"r.txt": "x", ".python-version": "my-project\n"}, spec.Software{Requirements: "r.txt"},
			[]string{"Python with the packages of r.txt"}, []string{"r.txt"}, ""},
		{"sources of uv", map[string]string{"pyproject.toml": project, "uv.lock": "source = { editable = \"libs/a\" }\nsource = { virtual = \".\" }\nsource = { directory = \"libs/b\" }\n", "libs/a/x": "", "libs/b/x": ""}, spec.Software{},
			[]string{"Python with the packages of uv.lock (found beside the pipeline file)", "local package libs/a (editable)", "local package libs/b"}, []string{"libs/a", "libs/b", "pyproject.toml", "uv.lock"}, ""},
		{"apt and setup", nil, spec.Software{Apt: []string{"gdal-bin", "jq"}, Setup: "make"}, []string{"packages of the system: gdal-bin, jq", "a set-up script on each machine"}, nil, ""},
		{"container", map[string]string{"requirements.txt": "x"}, spec.Software{Container: "python:3.12", Setup: "x"}, []string{"container python:3.12", "a set-up script on each machine"}, nil, ""},
		{"conda and requirements", map[string]string{"e.yml": "", "r.txt": ""}, spec.Software{Conda: "e.yml", Requirements: "r.txt"},
			[]string{"Python with the conda environment e.yml", "packages of r.txt"}, []string{"e.yml", "r.txt"}, ""},
		{"what pip is to do for conda", map[string]string{"env/environment.yml": "name: x\nchannels:\n  - conda-forge\ndependencies:\n  - python=3.12\n  - pip:\n    - -r requirements.txt # x\n    - \"-e ./lib\"\n    - ./tool\n    - numpy\n",
			"env/requirements.txt": "x", "env/lib/setup.py": "", "env/tool/setup.py": ""}, spec.Software{Conda: "env/environment.yml"},
			[]string{"Python with the conda environment env/environment.yml", "local package env/lib (editable)", "local package env/tool"},
			[]string{"env/environment.yml", "env/lib", "env/requirements.txt", "env/tool"}, ""},
		{"conda's own paths", map[string]string{"environment.yml": "dependencies:\n  - pip:\n    - numpy\n\n  - python\nchannels:\n  - ./channel\n"}, spec.Software{},
			[]string{"Python with the conda environment environment.yml (found beside the pipeline file)"}, []string{"environment.yml"}, ""},
		{"conda's pip outside", map[string]string{"environment.yml": "  - pip:\n    - -r ../r.txt\n"}, spec.Software{}, nil, nil, "../r.txt, which lies outside"},
		{"not of this machine, perhaps of another", map[string]string{"requirements.txt": "./lib --config-settings=x=y\n-e ./lib#egg=lib\n./win.whl; sys_platform == 'win32'\n-f ./wheels\nx @ file:///none/x.whl\n-e ${LIB}/x\n-e git+git@github.com:me/x.git#egg=x\n",
			"lib/setup.py": ""}, spec.Software{},
			[]string{"Python with the packages of requirements.txt (found beside the pipeline file)", "local package lib"}, []string{"lib", "requirements.txt"}, ""},
		{"no such file", nil, spec.Software{Requirements: "reqs.txt"}, nil, nil, "software.requirements: there is no file reqs.txt beside the pipeline file"},
		{"outside", nil, spec.Software{Conda: "../environment.yml"}, nil, nil, "lies outside of the folder"},
		{"not a lock", map[string]string{"x.txt": ""}, spec.Software{UV: "x.txt"}, nil, nil, "neither a uv.lock nor a pyproject.toml"},
		{"a folder", map[string]string{"d/x": ""}, spec.Software{Requirements: "d"}, nil, nil, "is not a file"},
		{"conda and uv", map[string]string{"e.yml": "", "pyproject.toml": project}, spec.Software{Conda: "e.yml", UV: "pyproject.toml"}, nil, nil, "choose one of them"},
		{"lock alone", map[string]string{"uv.lock": ""}, spec.Software{UV: "uv.lock"}, nil, nil, "no pyproject.toml beside it"},
		{"required file outside", map[string]string{"requirements.txt": "-r ../base.txt"}, spec.Software{}, nil, nil, "../base.txt, which lies outside"},
		{"required file missing", map[string]string{"requirements.txt": "-r base.txt"}, spec.Software{}, nil, nil, "base.txt"},
		{"files in a circle", map[string]string{"requirements.txt": "-r b.txt", "b.txt": "-r requirements.txt"}, spec.Software{},
			[]string{"Python with the packages of requirements.txt (found beside the pipeline file)"}, []string{"b.txt", "requirements.txt"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, c.files)
			say, err := Describe(&c.sw, dir)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v; want %q", err, c.err)
				}
				if _, err := ID(&c.sw, dir, "linux/amd64"); err == nil {
					t.Error("it has an id all the same")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			same(t, "description", c.say, say)
			carry, err := Files(&c.sw, dir)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "files", c.carry, carry)
			id, err := ID(&c.sw, dir, "linux/amd64")
			if err != nil || (id == "") != (c.name == "nothing") || id != "" && !safeID(id) {
				t.Errorf("id %q, %v", id, err)
			}
		})
	}
}

// What machines could not have is refused before they are rented.
func TestFilesThatMachinesLack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for line, want := range map[string]string{
		"-e ./lib": "requirements.txt needs ./lib, which is not there", "./x-1.whl": "needs ./x-1.whl, which is not there", "x @ file:x.whl": "needs x.whl, which is not there",
		"-e " + dir: "needs " + dir + " by its absolute path", "x @ file://" + dir: "needs " + dir + " by its absolute path",
	} {
		write(t, dir, map[string]string{"requirements.txt": line + "\n"})
		if _, err := Files(&spec.Software{}, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", line, err, want)
		}
		if _, err := ID(&spec.Software{}, dir, "linux/amd64"); err != nil {
			t.Errorf("%s: a machine finds out for itself: %v", line, err)
		}
	}
}

// An environment is made anew when a file changes that it depends on by way of
// another one.
func TestIDFollowsWhatIsNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files   map[string]string
		changed string
	}{
		"by conda's pip":      {map[string]string{"environment.yml": "dependencies:\n- pip:\n  - -r requirements.txt\n"}, "requirements.txt"},
		"by dynamic settings": {map[string]string{"pyproject.toml": project + "dynamic = [\"dependencies\"]\n[build-system]\n"}, "requirements.txt"},
		"by setup.py":         {map[string]string{"requirements.txt": "-e ./lib", "lib/setup.py": "open('requirements/base-requirements.txt')"}, "lib/requirements/base-requirements.txt"},
	} {
		var ids [2]string
		for i, content := range []string{"numpy==1", "numpy==2"} {
			dir := t.TempDir()
			write(t, dir, c.files)
			write(t, dir, map[string]string{c.changed: content})
			id, err := ID(&spec.Software{}, dir, "linux/amd64")
			if err != nil {
				t.Fatal(err)
			}
			ids[i] = id
		}
		if ids[0] == ids[1] {
			t.Errorf("%s: the same environment for other requirements", name)
		}
	}
}

func TestIDFollowsContent(t *testing.T) {
	t.Parallel()
	base := map[string]string{
		"requirements.txt": "numpy==1\n-e ./ed\n./lib\n-r more.txt\n", "more.txt": "a", "ed/setup.py": "s", "ed/ed/__init__.py": "1", "ed/ed/fast.c": "c",
		"lib/pyproject.toml": "x", "lib/lib.py": "1", "main.py": "1", "ed/build/x.c": "1",
	}
	id := func(change map[string]string, sw spec.Software, platform string) string {
		dir := t.TempDir()
		write(t, dir, base)
		write(t, dir, change)
		got, err := ID(&sw, dir, platform)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := id(nil, spec.Software{}, "linux/amd64")
	for _, c := range []struct {
		name   string
		change map[string]string
		sw     spec.Software
		plat   string
		same   bool
	}{
		{"nothing", nil, spec.Software{}, "", true},
		{"other code", map[string]string{"main.py": "2", "new.py": ""}, spec.Software{}, "", true},
		{"editable module changed", map[string]string{"ed/ed/__init__.py": "2"}, spec.Software{}, "", true},
		{"left by a build", map[string]string{"ed/build/x.c": "2", "lib/__pycache__/x.pyc": "", "ed/ed.egg-info/PKG": ""}, spec.Software{}, "", true},
		{"requirements", map[string]string{"requirements.txt": "numpy==2\n-e ./ed\n./lib\n-r more.txt\n"}, spec.Software{}, "", false},
		{"a file it names", map[string]string{"more.txt": "b"}, spec.Software{}, "", false},
		{"editable module new", map[string]string{"ed/ed2/__init__.py": ""}, spec.Software{}, "", false},
		{"editable compiled source", map[string]string{"ed/ed/fast.c": "d"}, spec.Software{}, "", false},
		{"local package", map[string]string{"lib/lib.py": "2"}, spec.Software{}, "", false},
		{"python", nil, spec.Software{Python: "3.12"}, "", false},
		{"apt", nil, spec.Software{Apt: []string{"jq"}}, "", false},
		{"setup", nil, spec.Software{Setup: "x"}, "", false},
		{"platform", nil, spec.Software{}, "linux/arm64", false},
	} {
		plat := c.plat
		if plat == "" {
			plat = "linux/amd64"
		}
		if got := id(c.change, c.sw, plat); (got == first) != c.same {
			t.Errorf("%s: same id: %v; want %v", c.name, got == first, c.same)
		}
	}
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env, err := Ensure(t.Context(), Config{Dir: dir, Root: filepath.Join(dir, "no"), Software: &spec.Software{}})
	if err != nil || env.Python != "" || env.Env != nil || env.Built {
		t.Errorf("%+v, %v", env, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "no")); err == nil {
		t.Error("it made a folder")
	}
	if _, err := Ensure(t.Context(), Config{Dir: "relative", Software: &spec.Software{Setup: "x"}}); err == nil {
		t.Error("a relative folder was taken")
	}
	for _, id := range []string{"..", "../../../../../../../../etc/passwd", strings.Repeat("z", 32)} {
		if _, err := Ensure(t.Context(), Config{Dir: dir, Root: dir, ID: id, Software: &spec.Software{Setup: "x"}}); err == nil {
			t.Errorf("the id %q was taken", id)
		}
	}
}

func TestPackageManagers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: without it sudo comes before the commands")
	}
	sw := spec.Software{Apt: []string{"gdal-bin", "-o=evil"}}
	note := "echo \"$(basename $0) $*\" >>\"$LOG\"\n"
	for _, c := range []struct {
		name     string
		programs map[string]string
		want     []string
		err      string
	}{
		{"debian", map[string]string{"apt-get": note, "dpkg-query": "exit 1"}, []string{"apt-get -q -y -o DPkg::Lock::Timeout=300 update",
			"apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends -- gdal-bin -o=evil"}, ""},
		{"debian has it", map[string]string{"apt-get": note, "dpkg-query": "printf 'install ok installed'"}, []string{}, ""},
		{"a source is down", map[string]string{"apt-get": note + "case \"$*\" in *update) exit 1;; esac", "dpkg-query": "exit 1"}, []string{"apt-get -q -y -o DPkg::Lock::Timeout=300 update",
			"apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends -- gdal-bin -o=evil"}, ""},
		{"amazon", map[string]string{"dnf": note}, []string{"dnf -q -y install -- gdal-bin -o=evil"}, ""},
		{"no such package", map[string]string{"dnf": "echo Unable to find a match: gdal-bin >&2; exit 1"}, []string{}, "Unable to find a match: gdal-bin"},
		{"neither", nil, []string{}, "neither apt-get nor dnf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, "m")
			m.env = []string{"PATH=" + m.bin, "LOG=" + filepath.Join(m.bin, "calls")}
			for _, tool := range []string{"sh", "basename", "printf"} {
				if err := os.Symlink("/bin/"+tool, filepath.Join(m.bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
			for name, script := range c.programs {
				m.program(name, script)
			}
			_, err := Ensure(t.Context(), m.config(nil, sw, t.TempDir(), t.TempDir()))
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !IsInstall(err)) {
				t.Errorf("error %v; want %q", err, c.err)
			}
			same(t, "calls", c.want, m.calls())
		})
	}
}

func TestSetup(t *testing.T) {
	t.Parallel()
	m, root := newMachine(t, "m"), t.TempDir()
	dir := t.TempDir()
	sw := spec.Software{Setup: "false | true; echo not reached >>\"$LOG\""}
	if _, err := Ensure(t.Context(), m.config(nil, sw, dir, root)); err == nil || !IsInstall(err) {
		t.Errorf("pipefail: %v", err)
	}
	sw.Setup = "echo ran in $PWD >>\"$LOG\"; (sleep 2; echo later >>\"$LOG\") & echo done"
	for range 2 {
		if _, err := Ensure(t.Context(), m.config(nil, sw, dir, root)); err != nil {
			t.Fatal(err)
		}
	}
	real, _ := filepath.EvalSymlinks(dir)
	same(t, "calls", []string{"ran in " + real}, m.calls())
	// A folder that was renewed is set up again.
	if err := os.Remove(filepath.Join(dir, setupMark)); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), m.config(nil, sw, dir, root)); err != nil {
		t.Fatal(err)
	}
	same(t, "calls after the folder was renewed", []string{"ran in " + real, "ran in " + real}, m.calls())
	sw.Setup = "for i in $(seq 100); do echo line $i; done; printf 'bad \\xff byte\\n' >&2; exit 7"
	_, err := Ensure(t.Context(), m.config(nil, sw, dir, root))
	if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "bad \ufffd byte") || !strings.Contains(err.Error(), "line 100") || strings.Contains(err.Error(), "line 60\n") {
		t.Errorf("error %v", err)
	}
	if !m.logged("line 5") {
		t.Error("the log does not have what the script printed")
	}
}

// Packages that were tried with the Python here get that one on machines, unless
// anything says another.
func TestMatchPython(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("python3", "-V").Output()
	if err != nil {
		t.Skip(err)
	}
	here := regexp.MustCompile(`3\.[0-9]+`).FindString(string(out))
	for name, c := range map[string]struct {
		files map[string]string
		sw    spec.Software
		want  string
	}{
		"nothing":          {nil, spec.Software{}, ""},
		"a set-up script":  {nil, spec.Software{Setup: "make"}, ""},
		"packages":         {map[string]string{"requirements.txt": "x"}, spec.Software{}, here},
		"named packages":   {map[string]string{"r.txt": "x"}, spec.Software{Requirements: "r.txt"}, here},
		"a version":        {map[string]string{"r.txt": "x"}, spec.Software{Requirements: "r.txt", Python: "3.8"}, "3.8"},
		"a version's file": {map[string]string{"requirements.txt": "x", ".python-version": "3.8"}, spec.Software{}, ""},
		"a project":        {map[string]string{"pyproject.toml": project}, spec.Software{}, ""},
		"a lock and more":  {map[string]string{"pyproject.toml": project, "uv.lock": "", "r.txt": "x"}, spec.Software{UV: "uv.lock", Requirements: "r.txt"}, ""},
		"conda and more":   {map[string]string{"e.yml": "", "r.txt": "x"}, spec.Software{Conda: "e.yml", Requirements: "r.txt"}, ""},
		"a container":      {map[string]string{"requirements.txt": "x"}, spec.Software{Container: "python:3.8"}, ""},
	} {
		dir := t.TempDir()
		write(t, dir, c.files)
		if err := MatchPython(t.Context(), &c.sw, dir); err != nil || c.sw.Python != c.want {
			t.Errorf("%s: Python %q, %v; want %q", name, c.sw.Python, err, c.want)
		}
	}
}
