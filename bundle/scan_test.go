package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

func TestScanGit(t *testing.T) {
	t.Parallel()
	repo := t.TempDir()
	git(t, repo, "init", "-q")
	write(t, repo, map[string]string{
		".gitignore": "*.log\nsecretdata/\n/p/out/\n", "outside.py": "x",
		"p/pipeline.yaml": "name: p", "p/main.py": "print()", "p/lib/a.py": "a", "p/new.py": "untracked",
		"p/run.log": "x", "p/secretdata/x": "x", "p/out/x": "x", "p/forced.log": "tracked all the same",
		"p/lib/.gitignore": "gen_*\n!gen_keep\n", "p/lib/gen_x": "x", "p/lib/gen_keep": "x",
		"p/gone.py": "deleted later", "p/__pycache__/m.pyc": "x", "p/.venv/pyvenv.cfg": "x", "p/.venv/lib/x.py": "x",
		"p/env2/pyvenv.cfg": "x", "p/env2/lib/deep/x.py": "x", "p/node_modules/x/i.js": "x",
		"p/.env": "TOKEN=1", "p/cert/server.pem": "x", "p/.env.example": "TOKEN=",
	})
	git(t, repo, "add", "p/pipeline.yaml", "p/main.py", "p/lib/a.py", "p/gone.py", ".gitignore")
	git(t, repo, "add", "-f", "p/forced.log", "p/.env")
	git(t, repo, "commit", "-qm", "x")
	if err := os.Remove(filepath.Join(repo, "p/gone.py")); err != nil {
		t.Fatal(err)
	}
	m := scan(t, filepath.Join(repo, "p"), spec.Files{}, Options{})
	same(t, "files", []string{".env.example", "forced.log", "lib/.gitignore", "lib/a.py", "lib/gen_keep", "main.py", "new.py", "pipeline.yaml"}, paths(m))
	same(t, "left out", []string{".env", "cert/server.pem"}, leftPaths(m))
}

// Without git the .gitignore files are read here, and by the same rules.
func TestScanWithoutGit(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		".gitignore": "# comment\n*.log\n!keep.log\n/top\nsub/only\n**/deep/x?\nfolder/\n[ab].txt\n\\#odd\ntrailing   \n",
		"a.log":      "", "keep.log": "", "d/b.log": "", "top": "", "d/top": "", "sub/only": "", "d/sub/only": "",
		"deep/x1": "", "q/deep/x2": "", "q/deep/x22": "", "folder/x": "", "d/folder": "", "a.txt": "", "c.txt": "", "#odd": "", "trailing": "",
		"n/.gitignore": "*.py\n!/good.py\n", "n/bad.py": "", "n/good.py": "", "n/m/good.py": "",
		"main.py": "", ".ipynb_checkpoints/x": "", "out/.coiled-jobs-123": "", "cache/CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55", "cache/x": "",
		"conda/conda-meta/history": "", "conda/x": "",
	}
	plain := t.TempDir()
	write(t, plain, files)
	m := scan(t, plain, spec.Files{}, Options{})
	want := []string{".gitignore", "c.txt", "d/folder", "d/sub/only", "d/top", "keep.log", "main.py", "n/.gitignore", "n/good.py", "q/deep/x22"}
	same(t, "files", want, paths(m))
	// git has the last word on what the rules mean.
	repo := t.TempDir()
	write(t, repo, files)
	git(t, repo, "init", "-q")
	same(t, "files by git", want, paths(scan(t, repo, spec.Files{}, Options{})))
}

// A folder that git ignores as a whole, and one in which git sees nothing.
func TestScanIgnoredFolder(t *testing.T) {
	t.Parallel()
	repo := t.TempDir()
	git(t, repo, "init", "-q")
	write(t, repo, map[string]string{".gitignore": "build/\n", "build/p/main.py": "x", "build/p/.gitignore": "*.tmp\n", "build/p/x.tmp": ""})
	same(t, "files", []string{".gitignore", "main.py"}, paths(scan(t, filepath.Join(repo, "build/p"), spec.Files{}, Options{})))
	same(t, "empty", []string{}, paths(scan(t, t.TempDir(), spec.Files{}, Options{})))
}

func TestScanSubmodules(t *testing.T) {
	t.Parallel()
	lib := t.TempDir()
	git(t, lib, "init", "-q")
	write(t, lib, map[string]string{"lib.py": "x", ".gitignore": "*.o\n"})
	git(t, lib, "add", ".")
	git(t, lib, "commit", "-qm", "x")
	repo := t.TempDir()
	git(t, repo, "init", "-q")
	git(t, repo, "submodule", "--quiet", "add", lib, "vendor/lib")
	write(t, repo, map[string]string{"vendor/lib/new.py": "x", "vendor/lib/x.o": "x", "clone/.keep": ""})
	git(t, filepath.Join(repo, "clone"), "init", "-q")
	write(t, repo, map[string]string{"clone/c.py": "x"})
	m := scan(t, repo, spec.Files{}, Options{})
	same(t, "files", []string{".gitmodules", "clone/.keep", "clone/c.py", "vendor/lib/.gitignore", "vendor/lib/lib.py", "vendor/lib/new.py"}, paths(m))
}

func TestScanPatternsAndSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"main.py": "", "src/a.py": "", "src/deep/b.py": "", "src/deep/.hidden": "", "data/big.csv": "", "data/.x": "",
		".env": "", ".env.local": "", "src/prod.env": "", "certs/a.pem": "", "certs/readme": "", ".aws/credentials": "", ".aws/config": "", "id_ed25519": "",
		"id_ed25519.pub": "", "credentials-prod.json": "", "Credentials.JSON": "", ".netrc": "", "kubeconfig": "",
		".npmrc": "//registry/:_authToken=x", "sub/.npmrc": "fund=false", "pip.conf": "[global]\nindex-url = https://user:pw@host/simple", ".pypirc": "[pypi]",
		"src/__pycache__/x.pyc": "", "node_modules/m/i.js": "", "src/key.key": "",
	})
	always := []string{".aws/config", ".aws/credentials", ".env", ".env.local", ".netrc", ".npmrc", "Credentials.JSON", "certs/a.pem", "credentials-prod.json",
		"id_ed25519", "id_ed25519.pub", "kubeconfig", "pip.conf", "src/key.key", "src/prod.env"}
	for _, c := range []struct {
		name       string
		files      spec.Files
		extra      []string
		want, left []string
	}{
		{"default", spec.Files{}, nil,
			[]string{".pypirc", "certs/readme", "data/.x", "data/big.csv", "main.py", "src/a.py", "src/deep/.hidden", "src/deep/b.py", "sub/.npmrc"}, always},
		{"exclude", spec.Files{Exclude: []string{"data/**", "src/deep", "sub/", ".*", "certs/*"}}, nil,
			[]string{"main.py", "src/a.py"}, []string{"Credentials.JSON", "credentials-prod.json", "id_ed25519", "id_ed25519.pub", "kubeconfig", "pip.conf", "src/key.key", "src/prod.env"}},
		{"exclude all", spec.Files{Exclude: []string{"**"}}, nil, []string{}, []string{}},
		{"include replaces", spec.Files{Include: []string{"src/**"}}, nil, []string{"src/a.py", "src/deep/b.py"}, []string{"src/key.key", "src/prod.env"}},
		{"a folder is what is in it", spec.Files{Include: []string{"src"}, Exclude: []string{"src/deep/b.py"}}, nil,
			[]string{"src/a.py", "src/deep/.hidden"}, []string{"src/key.key", "src/prod.env"}},
		{"secrets by name", spec.Files{Include: []string{".env", "certs/*.pem", ".aws/*", "{pip,x}.conf", ".npmrc"}}, nil,
			[]string{".aws/config", ".aws/credentials", ".env", ".npmrc", "certs/a.pem", "pip.conf"}, []string{}},
		{"secrets by star", spec.Files{Include: []string{"certs/*", "**"}}, nil,
			[]string{"certs/readme", "data/big.csv", "main.py", "src/a.py", "src/deep/b.py"},
			[]string{"Credentials.JSON", "certs/a.pem", "credentials-prod.json", "id_ed25519", "id_ed25519.pub", "kubeconfig", "pip.conf", "src/key.key", "src/prod.env"}},
		{"secret folder by name", spec.Files{Include: []string{".aws"}}, nil, []string{".aws/config", ".aws/credentials"}, []string{}},
		{"rubbish by name", spec.Files{Include: []string{"node_modules/**", "src/__pycache__/*.pyc"}}, nil, []string{"src/__pycache__/x.pyc"}, []string{}},
		{"rubbish by its folder's name", spec.Files{Include: []string{"node_modules"}}, nil, []string{"node_modules/m/i.js"}, []string{}},
		{"extra", spec.Files{Include: []string{"main.py"}}, []string{"data", ".env", "./src/a.py"}, []string{".env", "data/.x", "data/big.csv", "main.py", "src/a.py"}, []string{}},
		{"braces and classes", spec.Files{Include: []string{"src/{a,z}.py", "dat[ab]/*.csv"}}, nil, []string{"data/big.csv", "src/a.py"}, []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := scan(t, dir, c.files, Options{}, c.extra...)
			same(t, "files", c.want, paths(m))
			same(t, "left out", c.left, leftPaths(m))
			for _, l := range m.Left {
				if l.Why == "" {
					t.Errorf("%s was left out without a reason", l.Path)
				}
			}
		})
	}
}

// Keys are known by what is in them, too.
func TestScanKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"
	write(t, dir, map[string]string{
		"my-project-1a2b.json": `{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\nMII"}`, "deploy": key, "sub/.hidden": key,
		"both.json":   `{"cert": "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----", "key": "-----BEGIN RSA PRIVATE KEY-----\nMII"}`,
		"public.json": `{"key": "-----BEGIN PUBLIC KEY-----\nMII", "private_key": ""}`, "Makefile": "-----BEGIN", "data.json": "{}",
		"large.json": strings.Repeat(" ", 17<<10) + key, "test_key.py": key, "kaggle.json": "{}", "me_accessKeys.csv": "", "credentials.csv": "", "credentials.py": "",
	})
	m := scan(t, dir, spec.Files{}, Options{})
	same(t, "files", []string{"Makefile", "credentials.py", "data.json", "large.json", "public.json", "test_key.py"}, paths(m))
	same(t, "left out", []string{"both.json", "credentials.csv", "deploy", "kaggle.json", "me_accessKeys.csv", "my-project-1a2b.json", "sub/.hidden"}, leftPaths(m))
	m = scan(t, dir, spec.Files{Include: []string{"deploy", "*.json"}}, Options{})
	same(t, "named", []string{"both.json", "data.json", "deploy", "kaggle.json", "large.json", "my-project-1a2b.json", "public.json"}, paths(m))
}

func TestScanWithout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.csv": "", "b.py": ""})
	m := scan(t, dir, spec.Files{}, Options{Without: func(p string) bool { return strings.HasSuffix(p, ".csv") }})
	same(t, "files", []string{"b.py"}, paths(m))
}

func TestScanErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "big/x": strings.Repeat("x", 5000), "big/y": "y", "o": "x"})
	elsewhere := t.TempDir()
	linked := t.TempDir()
	write(t, linked, map[string]string{"data": "-> " + elsewhere})
	for _, c := range []struct {
		name  string
		dir   string
		files spec.Files
		extra []string
		opts  Options
		want  []string
	}{
		{"no folder", filepath.Join(dir, "none"), spec.Files{}, nil, Options{}, []string{"folder of the pipeline file"}},
		{"pattern leads out", dir, spec.Files{Include: []string{"../x"}}, nil, Options{}, []string{"files.include", `"../x"`, "leads out"}},
		{"absolute", dir, spec.Files{Exclude: []string{"/etc"}}, nil, Options{}, []string{"files.exclude", `"/etc"`}},
		{"no extra", dir, spec.Files{}, []string{"none.txt"}, Options{}, []string{"none.txt", "no such file"}},
		{"extra leads out", dir, spec.Files{}, []string{"../x"}, Options{}, []string{"outside"}},
		{"too large", dir, spec.Files{}, nil, Options{MaxBytes: 1000}, []string{"4.9 KiB", "1000 B", "big/x (4.9 KiB)", "files.exclude"}},
		{"too many", dir, spec.Files{}, nil, Options{MaxFiles: 3}, []string{"more than 3 files", "files.exclude", "big ("}},
		{"folder elsewhere", linked, spec.Files{}, nil, Options{}, []string{"data is a link to", elsewhere, "files.exclude"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Scan(t.Context(), c.dir, c.files, c.extra, c.opts)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
	if _, err := Scan(t.Context(), linked, spec.Files{Exclude: []string{"data"}}, nil, Options{}); err != nil {
		t.Errorf("an excluded link: %v", err)
	}
}

func TestScanLinks(t *testing.T) {
	t.Parallel()
	elsewhere := t.TempDir()
	write(t, elsewhere, map[string]string{"shared.csv": "from elsewhere", ".aws/credentials": "secret", "own": "x"})
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"real/a": "a", "in": "-> real/a", "in dir": "-> real", "abs": "-> " + filepath.Join(dir, "real/a"), "dangling": "-> nowhere/x",
		"out": "-> " + filepath.Join(elsewhere, "shared.csv"), "creds": "-> " + filepath.Join(elsewhere, ".aws/credentials"),
		"lost": "-> /nowhere/at/all", "round": "-> real/../../" + filepath.Base(dir) + "/real/a", "deep/up": "-> ../real/a", "self": "-> self",
	})
	m := scan(t, dir, spec.Files{}, Options{})
	got := map[string]string{}
	for _, e := range m.Entries {
		got[e.Path] = e.Link
	}
	same(t, "links", map[string]string{"real/a": "", "in": "real/a", "in dir": "real", "abs": "real/a", "dangling": "nowhere/x", "out": "", "round": "real/a", "deep/up": "../real/a", "self": "self"}, got)
	same(t, "left out", []string{"creds", "lost"}, leftPaths(m))
	store, to := newStore(), t.TempDir()
	key, _ := push(t, store, m)
	pull(t, store, key, to)
	same(t, "on the machine", map[string]string{"real/a": "a", "in": "-> real/a", "in dir": "-> real", "abs": "-> real/a", "dangling": "-> nowhere/x",
		"out": "from elsewhere", "round": "-> real/a", "deep/up": "-> ../real/a", "self": "-> self"}, tree(t, to))
}

// The hash changes with names, modes, contents and links, and with nothing else.
func TestManifestHash(t *testing.T) {
	t.Parallel()
	base := func() (string, map[string]string) { return t.TempDir(), map[string]string{"a": "1", "b/c": "2"} }
	hash := func(change func(dir string)) string {
		dir, files := base()
		write(t, dir, files)
		change(dir)
		return scan(t, dir, spec.Files{}, Options{}).Hash
	}
	first := hash(func(string) {})
	if again := hash(func(string) {}); again != first {
		t.Error("the same files in another folder have another hash")
	}
	seen := []string{first}
	for name, change := range map[string]func(dir string){
		"content": func(d string) { write(t, d, map[string]string{"a": "2"}) },
		"name":    func(d string) { _ = os.Rename(d+"/a", d+"/z") },
		"mode":    func(d string) { _ = os.Chmod(d+"/a", 0o755) },
		"link":    func(d string) { _ = os.Remove(d + "/a"); _ = os.Symlink("b/c", d+"/a") },
		"more":    func(d string) { write(t, d, map[string]string{"new": ""}) },
	} {
		h := hash(change)
		if slices.Contains(seen, h) {
			t.Errorf("%s: the hash is one seen before", name)
		}
		seen = append(seen, h)
	}
}

// The cache of hashes never gives an old one: not after a change that keeps
// size and time, and not when it is damaged.
func TestHashCache(t *testing.T) {
	t.Parallel()
	dir, cacheDir := t.TempDir(), t.TempDir()
	opts := Options{CacheDir: cacheDir}
	write(t, dir, map[string]string{"a": "old", "b": "b"})
	past := func() {
		if err := os.Chtimes(filepath.Join(dir, "a"), epoch, epoch); err != nil {
			t.Fatal(err)
		}
	}
	past()
	first := scan(t, dir, spec.Files{}, opts).Hash
	write(t, dir, map[string]string{"a": "new"})
	past()
	changed := scan(t, dir, spec.Files{}, opts)
	if changed.Hash == first || changed.Hash != scan(t, dir, spec.Files{}, Options{}).Hash {
		t.Error("a change that keeps size and time was not seen")
	}
	c := openHashCache(cacheDir, dir)
	c.keep("a", cached{stamp: stamp{size: 3}}, true)
	c.save()
	if got := openHashCache(cacheDir, dir).old["a"].size; got != 3 {
		t.Fatalf("what was kept was not read again: %d", got)
	}
	b, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		d := slices.Clone(b)
		d[i] ^= 0x40
		if err := os.WriteFile(c.file, d, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(openHashCache(cacheDir, dir).old); n != 0 {
			t.Fatalf("a cache with a damaged byte %d gave %d hashes", i, n)
		}
		if err := os.WriteFile(c.file, b[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(openHashCache(cacheDir, dir).old); n != 0 {
			t.Fatalf("a cache cut to %d bytes gave %d hashes", i, n)
		}
	}
}

func TestScanOddNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{}
	for i, name := range []string{"caf\xe9.txt", "\xff\xfe/x", "new\nline", "tab\t", "quo\"te", "'", "-dash", " lead", "*", "[x]", "日本", "a\\b", strings.Repeat("n", 255)} {
		files[name] = fmt.Sprint("content of ", i)
	}
	write(t, dir, files)
	m := scan(t, dir, spec.Files{}, Options{})
	if len(m.Entries) != len(files) {
		t.Errorf("found %q", paths(m))
	}
	store, to := newStore(), t.TempDir()
	key, _ := push(t, store, m)
	pull(t, store, key, to)
	same(t, "on the machine", files, tree(t, to))
	git(t, dir, "init", "-q")
	same(t, "by git", paths(m), paths(scan(t, dir, spec.Files{}, Options{})))
}
