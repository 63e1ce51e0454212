//go:build unix

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
)

func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// commit copies the repository as it is now to a folder, as a commit.
func commit(t *testing.T, to string) {
	t.Helper()
	from := repository(t)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(from, path)
		if err != nil || relErr != nil {
			return errors.Join(err, relErr)
		}
		if rel == ".git" && !d.IsDir() {
			return nil // of a work tree: what is committed there would be in its repository
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "docs", "examples", "bench", "tools", "dist", "bin"}, rel) || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() || strings.HasSuffix(rel, ".test") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file of a moment
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	git(t, to, "init", "-q")
	git(t, to, "add", "-A", "-f")
	git(t, to, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "x", "--date=2024-05-01T12:00:00Z")
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2024-05-01T12:00:00Z")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// read is the files of a folder.
func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestRelease(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("installs what it builds, and machines run Linux")
	}
	here := runtime.GOOS + "/" + runtime.GOARCH
	var builds []map[string][]byte
	var head, dist string
	for _, name := range []string{"one", "another folder"} {
		root := filepath.Join(t.TempDir(), name)
		commit(t, root)
		head = git(t, root, "rev-parse", "HEAD")
		dist = filepath.Join(t.TempDir(), "dist")
		if err := run(t.Context(), root, []string{"-version", "v1.2.3", "-snapshot", "-dist", dist, "-only", here}); err != nil {
			t.Fatal(err)
		}
		builds = append(builds, read(t, dist))
	}
	base := "coiled-jobs_1.2.3_linux_" + runtime.GOARCH
	agent := "coiled-jobs-linux-" + runtime.GOARCH
	for _, name := range []string{base + ".tar.gz", base + ".cdx.json", agent, "checksums.txt"} {
		if builds[0][name] == nil {
			t.Errorf("there is no %s", name)
		}
		if !bytes.Equal(builds[0][name], builds[1][name]) {
			t.Errorf("%s is not the same when it is built again elsewhere", name)
		}
	}
	if len(builds[0]) != 4 {
		t.Errorf("%d files", len(builds[0]))
	}
	for line := range strings.Lines(string(builds[0]["checksums.txt"])) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if got := sha256.Sum256(builds[0][name]); hex.EncodeToString(got[:]) != sum {
			t.Errorf("the checksum of %s is wrong", name)
		}
	}
	if n := bytes.Count(builds[0]["checksums.txt"], []byte("\n")); n != 3 {
		t.Errorf("%d checksums", n)
	}
	sbom(t, builds[0][base+".cdx.json"], builds[0][agent], head)

	// The Action installs it.
	server := httptest.NewServer(http.StripPrefix("/coiled-jobs/coiled-jobs/releases/download/v1.2.3/", http.FileServer(http.Dir(dist))))
	defer server.Close()
	program, said, err := install(t, repository(t), server.URL, "VERSION=v1.2.3")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	out, err := exec.CommandContext(t.Context(), program, "version", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Version, Commit string
		Modified        bool
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Version != "1.2.3" || v.Commit != head || v.Modified {
		t.Errorf("%v %+v, want 1.2.3 of commit %s", err, v, head)
	}

	// So do machines.
	finder := aws.AgentFinder{Exe: filepath.Join(dist, "none", "coiled-jobs"), Version: v.Version, Cache: t.TempDir(),
		Releases: server.URL + "/coiled-jobs/coiled-jobs/releases/download"}
	r, err := finder.Open(t.Context(), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, builds[0][agent]) {
		t.Errorf("machines get another program (%v)", err)
	}

	// What was changed on its way is not run.
	if err := os.WriteFile(filepath.Join(dist, base+".tar.gz"), append(builds[0][base+".tar.gz"], 0), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said, err := install(t, repository(t), server.URL, "VERSION=v1.2.3"); err == nil || !strings.Contains(said, "is not that of release v1.2.3") {
		t.Errorf("%v %s", err, said)
	}
}

func sbom(t *testing.T, text, program []byte, head string) {
	t.Helper()
	var doc bom
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	main := doc.Metadata.Component
	if main.Version != "1.2.3" || main.Hashes[0].Content != hex.EncodeToString(sum[:]) || main.Properties[1].Value != head {
		t.Errorf("%+v", main)
	}
	mod, err := os.ReadFile(filepath.Join(repository(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, c := range doc.Components {
		found[c.Name] = true
		if c.Name != "std" && (!strings.Contains(string(mod), c.Name+" "+c.Version+"\n") && !strings.Contains(string(mod), c.Name+" "+c.Version+" //") || len(c.Hashes) != 1) {
			t.Errorf("%+v is not what go.mod has", c)
		}
	}
	for _, name := range []string{"std", "github.com/spf13/cobra", "github.com/expr-lang/expr", "github.com/aws/aws-sdk-go-v2/service/ec2"} {
		if !found[name] {
			t.Errorf("the list of what is compiled in lacks %s", name)
		}
	}
	if len(doc.Dependencies) != 1 || len(doc.Dependencies[0].DependsOn) != len(doc.Components) {
		t.Error("not all of it is a dependency of the program")
	}
}

// install runs scripts/action-install for an action in a folder.
func install(t *testing.T, action, server string, env ...string) (program, said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(repository(t), "scripts", "action-install"))
	cmd.Env = append(os.Environ(), "ACTION_PATH="+action, "RUNNER_TOOL_CACHE="+t.TempDir(), "GITHUB_SERVER_URL="+server,
		"GITHUB_API_URL="+server+"/api", "GITHUB_TOKEN=x", "ACTION_REPOSITORY=", "ACTION_REF=", "VERSION=")
	cmd.Env = append(cmd.Env, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), stderr.String(), err
}

// A private release is nowhere but in the API, and only for who has a token.
func TestPrivateRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	exe := filepath.Join(dir, "exe")
	if err := os.WriteFile(exe, []byte("#!/bin/sh\necho private\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := fmt.Sprintf("coiled-jobs_1.2.3_%s_%s.tar.gz", runtime.GOOS, runtime.GOARCH)
	if err := writeTar(filepath.Join(dir, archive), []file{{exe, "coiled-jobs", 0o755}}, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	packed := read(t, dir)[archive]
	assets := map[string][]byte{"11": packed, "12": fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(packed), archive)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		number, asset := strings.CutPrefix(r.URL.Path, "/api/repos/o/r/releases/assets/")
		switch {
		case r.Header.Get("Authorization") != "Bearer x":
			http.NotFound(w, r)
		case r.URL.Path == "/api/repos/o/r/releases/tags/v1.2.3":
			one := func(number, name string) string {
				return fmt.Sprintf("{\n  \"url\": \"https://api.example.com/repos/o/r/releases/assets/%s\",\n  \"id\": %s,\n  \"name\": \"%s\",\n  "+
					"\"uploader\": {\"url\": \"https://api.example.com/users/u\"}}", number, number, name)
			}
			fmt.Fprintf(w, "{\"url\": \"https://api.example.com/repos/o/r/releases/1\", \"name\": \"v1.2.3\", \"assets\": [%s, %s]}",
				one("11", archive), one("12", "checksums.txt"))
		case asset && assets[number] != nil && r.Header.Get("Accept") == "application/octet-stream":
			w.Write(assets[number])
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	program, said, err := install(t, repository(t), server.URL, "VERSION=v1.2.3", "ACTION_REPOSITORY=o/r")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if out, err := exec.CommandContext(t.Context(), program).Output(); err != nil || string(out) != "private\n" {
		t.Errorf("%v %q", err, out)
	}
	if _, said, err := install(t, repository(t), server.URL, "VERSION=v1.2.3", "ACTION_REPOSITORY=o/r", "GITHUB_TOKEN="); err == nil || !strings.Contains(said, "there is no release v1.2.3") {
		t.Errorf("without a token: %v %s", err, said)
	}
}

// Which version is installed, by what the action knows of itself.
func TestWhichVersion(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close) // behind the tests below, which are parallel
	for name, c := range map[string]struct {
		changelog string
		env       []string
		want      string // in what is said
		fails     bool
	}{
		"a branch is source":          {"# Changelog\n\n## Unreleased\n\n## 1.0.0 - 2026-01-01\n", []string{"ACTION_REF=main"}, "building coiled-jobs from source", false},
		"a commit of a release":       {"# Changelog\n\n## 1.0.0 - 2026-01-01\n", []string{"ACTION_REF=0123abcd"}, "no " + server.URL + "/coiled-jobs/coiled-jobs/releases/download/v1.0.0/checksums.txt: building from source", false},
		"v1 is what it is a name of":  {"# Changelog\n\n## [1.4.2] - 2026-01-01\n", []string{"ACTION_REF=v1"}, "v1.4.2/checksums.txt: building from source", false},
		"a tag":                       {"## 1.0.0\n", []string{"ACTION_REF=v2.0.1"}, "v2.0.1/checksums.txt: building from source", false},
		"a version that is asked for": {"## 1.0.0\n", []string{"VERSION=v3.0.0", "ACTION_REF=v2.0.1"}, "there is no release v3.0.0", true},
		"source, when asked for":      {"## 1.0.0\n", []string{"VERSION=source", "ACTION_REF=v1.0.0"}, "building coiled-jobs from source", false},
		"of a fork":                   {"## 1.0.0\n", []string{"ACTION_REF=v1.0.0", "ACTION_REPOSITORY=o/r"}, server.URL + "/o/r/releases/download/v1.0.0", false},
		"no version":                  {"## 1.0.0\n", []string{"VERSION=latest; touch x"}, "version: write a release such as v1.2.3, or source", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			action := t.TempDir()
			for path, text := range map[string]string{"CHANGELOG.md": c.changelog, "go.mod": "module x\n\ngo 1.21\n",
				"cmd/coiled-jobs/main.go": "package main\n\nfunc main() { println(\"this is it\") }\n"} {
				path = filepath.Join(action, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			program, said, err := install(t, action, server.URL, c.env...)
			if (err != nil) != c.fails || !strings.Contains(said, c.want) {
				t.Fatalf("%v\n%s\nwant %q", err, said, c.want)
			}
			if c.fails {
				return
			}
			if out, err := exec.CommandContext(t.Context(), program).CombinedOutput(); err != nil || string(out) != "this is it\n" {
				t.Errorf("%s: %v %s", program, err, out)
			}
		})
	}
}

func TestArchives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	when := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	exe := filepath.Join(dir, "x")
	if err := os.WriteFile(exe, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []file{{exe, "coiled-jobs", 0o755}, {exe, "LICENSE", 0o644}}
	if err := errors.Join(writeTar(filepath.Join(dir, "a.tar.gz"), files, when), writeZip(filepath.Join(dir, "a.zip"), files, when)); err != nil {
		t.Fatal(err)
	}
	all := read(t, dir)
	z, err := gzip.NewReader(bytes.NewReader(all["a.tar.gz"]))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	for _, f := range files {
		h, err := r.Next()
		if err != nil || h.Name != f.name || h.Mode != int64(f.mode) || h.Uid != 0 || h.Uname != "" || !h.ModTime.Equal(when) {
			t.Errorf("%v %+v", err, h)
		}
	}
	zr, err := zip.NewReader(bytes.NewReader(all["a.zip"]), int64(len(all["a.zip"])))
	if err != nil || len(zr.File) != 2 || zr.File[0].Name != "coiled-jobs" || zr.File[0].Mode() != 0o755 || !zr.File[0].Modified.Equal(when) {
		t.Errorf("%v %+v", err, zr)
	}
}

func TestChangelog(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		"# C\n\n## Unreleased\n\n- a\n\n## 1.0.0\n\n- b\n": {"Unreleased", "- a\n"},
		"# C\n\n## [1.0.0] - 2026-01-01\n\n### Added\n- b": {"1.0.0", "### Added\n- b\n"},
		"## v2.0.0-rc.1\nx\n## 1.0.0\n":                    {"2.0.0-rc.1", "x\n"},
		"nothing":                                          {"", "\n"},
	} {
		if got := firstHeading(text); got != want[0] {
			t.Errorf("%q: heading %q, want %q", text, got, want[0])
		}
		if got := firstSection(text); got != want[1] {
			t.Errorf("%q: section %q, want %q", text, got, want[1])
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "CHANGELOG.md"), []byte("## Unreleased\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	git(t, root, "init", "-q")
	git(t, root, "add", "-A")
	git(t, root, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "x")
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.doc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"the commit has no tag":            {},
		`version "latest": write v1.2.3`:   {"-version", "latest"},
		`CHANGELOG.md begins with "Unrel`:  {"-version", "v1.2.3"},
		"-only plan9/386: no such system":  {"-version", "v1.2.3", "-snapshot", "-only", "plan9/386"},
		"has thesis.doc in it, which is n": {"-version", "v1.2.3", "-snapshot", "-dist", foreign},
	} {
		if err := run(t.Context(), root, args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "CHANGELOG.md"), []byte("## 1.2.3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), root, []string{"-version", "v1.2.3"}); err == nil || !strings.Contains(err.Error(), "not committed") {
		t.Errorf("%v", err)
	}
	git(t, root, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-a", "-m", "x")
	if err := run(t.Context(), root, []string{"-version", "v1.2.3"}); err == nil || !strings.Contains(err.Error(), "has no tag v1.2.3") {
		t.Errorf("%v", err)
	}
}
