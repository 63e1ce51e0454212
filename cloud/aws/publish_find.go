package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// AgentFinder finds the program for machines: a static build for Linux of the
// version that runs here.
type AgentFinder struct {
	Exe     string // this program
	Version string // of it
	// File, if set, is used whatever else there is: its name may hold ARCH, in
	// place of which amd64 or arm64 is put.
	File string
	// Cache is a folder for what was downloaded or built.
	Cache string
	// Releases is where the files of a release are, before its version; empty:
	// the project's.
	Releases string
	// Environ is the environment of the Go tool.
	Environ []string
	// Notice is told what takes a while. May be nil.
	Notice func(string)
}

// releases is where the project publishes: <releases>/v<version>/<file>.
const releases = "https://github.com/coiled-jobs/coiled-jobs/releases/download"

// modulePath is this program's, as its go.mod says.
const modulePath = "github.com/coiled-jobs/coiled-jobs"

// releaseVersion is the version of a release, unlike dev or that of a commit.
var releaseVersion = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-(?:rc|beta|alpha)\.?\d+)?)$`)

// Open gives the program for an architecture: this one where it fits, else the
// file coiled-jobs-linux-ARCH beside it, else that of its release, else one
// that is built from the sources it came from.
func (f AgentFinder) Open(ctx context.Context, arch string) (io.ReadCloser, error) {
	arch, err := AgentArch(arch)
	if err != nil {
		return nil, err
	}
	var tried []string
	try := func(path, what string) (io.ReadCloser, bool) {
		b, err := os.ReadFile(path)
		if err == nil {
			err = checkAgent(b, arch)
		}
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) || what == "" {
				what = strings.TrimSpace(what + " " + path)
			}
			tried = append(tried, fmt.Sprintf("%s: %v", what, plainFS(err)))
			return nil, false
		}
		return io.NopCloser(bytes.NewReader(b)), true
	}
	if f.File != "" {
		if r, ok := try(strings.ReplaceAll(f.File, "ARCH", arch), ""); ok {
			return r, nil
		}
		return nil, f.none(arch, tried)
	}
	if runtime.GOOS == "linux" && runtime.GOARCH == arch {
		if r, ok := try(f.Exe, "this program"); ok {
			return r, nil
		}
	}
	name := "coiled-jobs-linux-" + arch
	if r, ok := try(filepath.Join(filepath.Dir(f.Exe), name), "the file "+name+" beside this program"); ok {
		return r, nil
	}
	for _, make := range []func(context.Context, string) (string, error){f.download, f.build} {
		path, err := make(ctx, arch)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			tried = append(tried, err.Error())
			continue
		}
		if r, ok := try(path, "the program"); ok {
			return r, nil
		}
	}
	return nil, f.none(arch, tried)
}

// First is the file that Open looks at first.
func (f AgentFinder) First(arch string) string {
	arch, err := AgentArch(arch)
	switch {
	case err != nil:
		return ""
	case f.File != "":
		return strings.ReplaceAll(f.File, "ARCH", arch)
	case runtime.GOOS == "linux" && runtime.GOARCH == arch:
		return f.Exe
	}
	return filepath.Join(filepath.Dir(f.Exe), "coiled-jobs-linux-"+arch)
}

func plainFS(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it is not there")
	}
	return err
}

func (f AgentFinder) none(arch string, tried []string) error {
	return &cloud.Error{Op: "find", Resource: "the program for machines (linux/" + arch + ")", Kind: cloud.KindNotFound,
		Err: fmt.Errorf("none of these is one: %s. Put a static build beside this program: CGO_ENABLED=0 GOOS=linux GOARCH=%s go build -o coiled-jobs-linux-%s ./cmd/coiled-jobs",
			strings.Join(tried, "; "), arch, arch)}
}

// checkAgent says whether a program runs on any Linux of an architecture.
func checkAgent(program []byte, arch string) error {
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return errors.New("it is no program for Linux")
	}
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if e.Machine != want {
		return fmt.Errorf("it is for another processor (%v)", e.Machine)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it needs the C library of the machine it was built on; build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// download fetches the program of this version's release, checks it against
// the release's checksums, and keeps it.
func (f AgentFinder) download(ctx context.Context, arch string) (string, error) {
	m := releaseVersion.FindStringSubmatch(f.Version)
	if m == nil {
		return "", fmt.Errorf("a download: version %q is no release", f.Version)
	}
	name := "coiled-jobs-linux-" + arch
	kept := filepath.Join(f.Cache, "agent-"+m[1], name)
	if b, err := os.ReadFile(kept); err == nil && checkAgent(b, arch) == nil {
		return kept, nil
	}
	base := f.Releases
	if base == "" {
		base = releases
	}
	base += "/v" + m[1] + "/"
	f.say("downloading the program for linux/" + arch + " machines")
	sums, err := fetchURL(ctx, base+"checksums.txt", 1<<20)
	if err != nil {
		return "", fmt.Errorf("a download: %w", err)
	}
	want := sumOf(string(sums), name)
	if want == "" {
		return "", fmt.Errorf("a download: %schecksums.txt does not name %s", base, name)
	}
	b, err := fetchURL(ctx, base+name, maxAgent)
	if err != nil {
		return "", fmt.Errorf("a download: %w", err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
		return "", fmt.Errorf("a download: %s%s is not what its checksum says", base, name)
	}
	return kept, writeWhole(kept, b)
}

// sumOf finds a file in the output of sha256sum.
func sumOf(sums, name string) string {
	for line := range strings.Lines(sums) {
		if w := strings.Fields(line); len(w) == 2 && strings.TrimPrefix(w[1], "*") == name {
			return strings.ToLower(w[0])
		}
	}
	return ""
}

func fetchURL(ctx context.Context, url string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(b)) > most {
		err = errors.New("too large")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return b, nil
}

// writeWhole writes a file that readers see whole or not at all.
func writeWhole(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = t.Write(b)
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		os.Remove(t.Name())
	}
	return err
}

// build makes the program from the sources that this one was built from, if
// they are still where they were. Sources that merely lie about are not used.
func (f AgentFinder) build(ctx context.Context, arch string) (string, error) {
	root, err := sourceRoot()
	if err != nil {
		return "", fmt.Errorf("a build: %w", err)
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		return "", errors.New("a build: Go is not installed")
	}
	out := filepath.Join(f.Cache, "agent-built", "coiled-jobs-linux-"+arch)
	if err := os.MkdirAll(filepath.Dir(out), 0o700); err != nil {
		return "", fmt.Errorf("a build: %w", err)
	}
	f.say("building the program for linux/" + arch + " machines from " + root)
	cmd := exec.CommandContext(ctx, tool, "build", "-trimpath", "-ldflags", "-s -w -X main.version="+keyPart(f.Version), "-o", out, "./cmd/coiled-jobs")
	cmd.Dir = root
	cmd.Env = append(append([]string{}, f.Environ...), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
	cmd.WaitDelay = 5 * time.Second
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("a build: go build: %w: %.500s", err, bytes.TrimSpace(text))
	}
	return out, nil
}

func (f AgentFinder) say(text string) {
	if f.Notice != nil {
		f.Notice(text)
	}
}

// sourceRoot is the module that this program was compiled from.
func sourceRoot() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return "", errors.New("this program does not know its sources")
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil || !strings.HasPrefix(string(b), "module "+modulePath+"\n") {
		return "", errors.New("this program's sources are not here any more")
	}
	return root, nil
}
