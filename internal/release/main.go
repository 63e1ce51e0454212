// Command release builds what a release consists of, into a folder:
//
//	release [-version v1.2.3] [-dist dist] [-only linux/amd64,...] [-notes file] [-snapshot]
//
// For every system an archive with the program (the names are those that
// scripts/action-install fetches), for Linux also the bare program that machines
// run (cloud/aws fetches those), a list of what is compiled in (SBOM, CycloneDX)
// for each program, and checksums.txt over all of it. The same commit and the
// same Go give the same bytes.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

const program = "coiled-jobs"

// platform is a system that the program is built for.
type platform struct{ os, arch string }

var platforms = []platform{
	{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}, {"windows", "arm64"},
}

// release is one release.
type release struct {
	root    string // of the repository
	dist    string
	version string // without v
	commit  string
	when    time.Time // of the commit
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, ".", os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		stop()
		os.Exit(1)
	}
}

// run builds a release of the repository in root.
func run(ctx context.Context, root string, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	version := flags.String("version", "", "of the release; default: the tag that the commit has")
	dist := flags.String("dist", "dist", "folder for the files; it is emptied")
	only := flags.String("only", "", "systems to build for, such as linux/amd64,darwin/arm64; default: all")
	notes := flags.String("notes", "", "file for what the changelog says of the version")
	snapshot := flags.Bool("snapshot", false, "try a build: the changelog need not know the version")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := &release{root: root, dist: *dist}
	if err := r.identify(ctx, *version); err != nil {
		return err
	}
	if !*snapshot {
		if err := r.check(ctx); err != nil {
			return err
		}
	}
	if *notes != "" {
		b, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(*notes, []byte(firstSection(string(b))), 0o644); err != nil {
			return err
		}
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if err := empty(r.dist); err != nil {
		return err
	}
	for _, p := range chosen {
		fmt.Printf("%s %s for %s/%s\n", program, r.version, p.os, p.arch)
		if err := r.build(ctx, p); err != nil {
			return fmt.Errorf("%s/%s: %w", p.os, p.arch, err)
		}
	}
	return r.checksums()
}

func choose(only string) ([]platform, error) {
	if only == "" {
		return platforms, nil
	}
	var chosen []platform
next:
	for _, name := range strings.Split(only, ",") {
		for _, p := range platforms {
			if p.os+"/"+p.arch == name {
				chosen = append(chosen, p)
				continue next
			}
		}
		return nil, fmt.Errorf("-only %s: no such system", name)
	}
	return chosen, nil
}

// versions are those that scripts/action-install and cloud/aws know.
var versions = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-(?:rc|beta|alpha)\.?\d+)?)$`)

// identify finds out which version and commit this is.
func (r *release) identify(ctx context.Context, version string) error {
	var err error
	if r.commit, err = r.git(ctx, "rev-parse", "HEAD"); err != nil {
		return err
	}
	if version == "" {
		if version, err = r.git(ctx, "describe", "--tags", "--exact-match"); err != nil {
			return fmt.Errorf("the commit has no tag, and there is no -version: %w", err)
		}
	}
	m := versions.FindStringSubmatch(version)
	if m == nil {
		return fmt.Errorf("version %q: write v1.2.3 or v1.2.3-rc.1", version)
	}
	r.version = m[1]
	seconds, err := r.git(ctx, "show", "-s", "--format=%ct", "HEAD")
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	r.when = time.Unix(n, 0).UTC()
	return err
}

// check refuses to publish what nobody could build again, or find: the Action
// takes the release it belongs to from the first heading of the changelog.
func (r *release) check(ctx context.Context) error {
	changed, err := r.git(ctx, "status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return err
	}
	if changed != "" {
		return fmt.Errorf("there are changes that are not committed:\n%s", changed)
	}
	b, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if got := firstHeading(string(b)); got != r.version {
		return fmt.Errorf("CHANGELOG.md begins with %q: rename that heading to \"## %s\" in the commit of the release", got, r.version)
	}
	// The compiler writes the tag into the program: without it here the bytes are others.
	tags, err := r.git(ctx, "tag", "--points-at", "HEAD")
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(tags), "v"+r.version) {
		return fmt.Errorf("the commit has no tag v%s: git tag it, or git fetch --tags", r.version)
	}
	return nil
}

// firstHeading is the version, or the word, of the first section of a changelog.
func firstHeading(text string) string {
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			if words := strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(heading)); len(words) > 0 {
				return strings.TrimPrefix(words[0], "v")
			}
		}
	}
	return ""
}

// firstSection is what the changelog says of the newest version, without the
// heading.
func firstSection(text string) string {
	_, text, _ = strings.Cut("\n"+text, "\n## ")
	_, text, _ = strings.Cut(text, "\n")
	text, _, _ = strings.Cut(text, "\n## ")
	return strings.TrimSpace(text) + "\n"
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.root
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("git %s: %s", strings.Join(args, " "), strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}

// empty makes a folder that has only been used for this, or not at all.
func empty(dist string) error {
	entries, err := os.ReadDir(dist)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), program) && e.Name() != "checksums.txt" {
			return fmt.Errorf("%s has %s in it, which is none of a release's files; name an empty folder", dist, e.Name())
		}
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dist, e.Name())); err != nil {
			return err
		}
	}
	return os.MkdirAll(dist, 0o755)
}

// build makes the files of one system.
func (r *release) build(ctx context.Context, p platform) error {
	name := program
	if p.os == "windows" {
		name += ".exe"
	}
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	exe := filepath.Join(work, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w -buildid= -X main.version="+r.version,
		"-o", exe, "./cmd/coiled-jobs")
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	base := filepath.Join(r.dist, fmt.Sprintf("%s_%s_%s_%s", program, r.version, p.os, p.arch))
	files := []file{{exe, name, 0o755}, {filepath.Join(r.root, "LICENSE"), "LICENSE", 0o644},
		{filepath.Join(r.root, "README.md"), "README.md", 0o644}, {filepath.Join(r.root, "CHANGELOG.md"), "CHANGELOG.md", 0o644}}
	if p.os == "windows" {
		err = writeZip(base+".zip", files, r.when)
	} else {
		err = writeTar(base+".tar.gz", files, r.when)
	}
	if err != nil {
		return err
	}
	if err := r.sbom(exe, base+".cdx.json", p); err != nil {
		return err
	}
	if p.os != "linux" {
		return nil
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dist, program+"-linux-"+p.arch), b, 0o755)
}

// checksums writes what sha256sum --check reads.
func (r *release) checksums() error {
	entries, err := os.ReadDir(r.dist)
	if err != nil {
		return err
	}
	var lines []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(r.dist, e.Name()))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		lines = append(lines, hex.EncodeToString(sum[:])+"  "+e.Name()+"\n")
	}
	sort.Slice(lines, func(i, j int) bool { return lines[i][64:] < lines[j][64:] })
	return os.WriteFile(filepath.Join(r.dist, "checksums.txt"), []byte(strings.Join(lines, "")), 0o644)
}
