package software

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// DefaultRoot is where environments lie on a rented machine.
const DefaultRoot = "/opt/coiled-jobs/software"

// Config says what is needed and where.
type Config struct {
	Store    cloud.Store
	Software *spec.Software
	// ID names the environment (see ID); "" computes it.
	ID string
	// Dir is the absolute path of the code (see bundle.Pull): editable packages
	// are used from it, and the set-up script runs in it.
	Dir string
	// Root is the absolute path below which environments lie. "" is DefaultRoot.
	Root string
	// Env is the environment for whatever installs: PATH, HOME, proxies, and
	// the settings of package indexes (PIP_INDEX_URL, UV_INDEX_URL, ...).
	Env []string
	// Machine names the machine to others, for people.
	Machine string
	// Exe is the path of this program, for containers: it is mounted into them.
	Exe string
	// Mounts are folders that a container sees at the same path, besides Dir
	// and Root.
	Mounts []string
	// Log, if set, is told what is done, and what programs print, line by line.
	Log func(line string)

	pace pace
	// at replaces what place computes: tests have many machines on one disk.
	at string
}

// pace is how often machines that build and wait look at each other. Tests
// shorten it.
type pace struct{ look, refresh, dead time.Duration }

// Environment is what tasks run in.
type Environment struct {
	// ID is that of Config; "" if there was nothing to install.
	ID string
	// Env goes on top of the environment of tasks (PATH, VIRTUAL_ENV, ...).
	Env []string
	// Python is the interpreter; "" if none was asked for: python3 then.
	Python string
	// Container is the running container that tasks belong in; nil if none was
	// asked for.
	Container *Container
	// Built says that this machine built it, Unpacked that it came from the
	// store; neither, if it was here already.
	Built, Unpacked bool
}

// Ensure installs what is needed, unless it is there already: packages of the
// system, then the Python environment (unpacked from the store if any machine
// has built it before), then the set-up script, once per folder of code: where
// a later run has renewed the folder, it runs again. An *InstallError is the
// fault of the software; other errors are of the store or the machine.
//
// A killed Ensure does no harm; calling it again begins anew. Only one Ensure at
// a time may work below a Root.
func Ensure(ctx context.Context, c Config) (*Environment, error) {
	if c.Root == "" {
		c.Root = DefaultRoot
	}
	if c.pace == (pace{}) {
		c.pace = pace{look: 2 * time.Second, refresh: 10 * time.Second, dead: time.Minute}
	}
	if c.Log == nil {
		c.Log = func(string) {}
	}
	for _, p := range []string{c.Root, c.Dir} {
		if !filepath.IsAbs(p) {
			return nil, fmt.Errorf("software: %q is not an absolute path", p)
		}
	}
	n, err := resolve(c.Software, c.Dir)
	if err != nil {
		return nil, &InstallError{What: "find what to install", Err: err}
	}
	if n.nothing() {
		return &Environment{}, nil
	}
	if c.ID == "" {
		if c.ID, err = ID(c.Software, c.Dir, runtime.GOOS+"/"+runtime.GOARCH); err != nil {
			return nil, &InstallError{What: "find what to install", Err: err}
		}
	}
	if !safeID(c.ID) {
		return nil, fmt.Errorf("software: %q is not an id", c.ID)
	}
	e := &ensurer{c: c, n: n, home: filepath.Join(c.Root, c.ID), out: &Environment{ID: c.ID}}
	if err := e.run(ctx); err != nil {
		return nil, err
	}
	return e.out, nil
}

func safeID(id string) bool {
	if len(id) != 32 {
		return false
	}
	_, err := hex.DecodeString(id)
	return err == nil
}

type ensurer struct {
	c    Config
	n    *needs
	home string // of the environment, below Root
	out  *Environment
	bad  string // key of a pack that was found damaged or gone
}

func (e *ensurer) run(ctx context.Context) error {
	if err := e.apt(ctx); err != nil {
		return err
	}
	if e.n.environment() {
		if err := e.environment(ctx); err != nil {
			return err
		}
		e.activate()
	}
	if e.n.image != "" {
		box, err := e.container(ctx)
		if err != nil {
			return err
		}
		e.out.Container = box
	}
	return e.setup(ctx)
}

// env is the folder of the Python environment.
func (e *ensurer) env() string { return filepath.Join(e.home, "env") }

func (e *ensurer) python() string { return filepath.Join(e.env(), "bin", "python") }

// activate sets what a task must see of the environment.
func (e *ensurer) activate() {
	e.out.Python = e.python()
	where := "VIRTUAL_ENV="
	if e.n.conda != "" {
		where = "CONDA_PREFIX="
	}
	e.out.Env = []string{"PATH=" + filepath.Join(e.env(), "bin") + ":" + e.lookup("PATH", defaultPath), where + e.env()}
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookup reads the environment that was given.
func (e *ensurer) lookup(name, missing string) string {
	for i := len(e.c.Env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(e.c.Env[i], name+"="); ok && v != "" {
			return v
		}
	}
	return missing
}

// readyFile is written last, when an environment is whole.
const readyFile = ".ready"

// ready says whether the environment is here, whole, and made for this place.
func (e *ensurer) ready() bool {
	b, err := os.ReadFile(filepath.Join(e.home, readyFile))
	if err != nil || string(b) != e.place() {
		return false
	}
	_, err = os.Stat(e.python())
	return err == nil
}

// place is what an environment works for besides its id: where it lies, where
// the code lies, and the system.
func (e *ensurer) place() string {
	if e.c.at != "" {
		return e.c.at
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q\n%q\n%s/%s\n", e.home, e.c.Dir, runtime.GOOS, runtime.GOARCH)
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if strings.HasPrefix(line, "ID=") || strings.HasPrefix(line, "VERSION_ID=") {
				_, _ = fmt.Fprintln(h, line)
			}
		}
	}
	if py, err := e.look("python3"); err == nil {
		if real, err := filepath.EvalSymlinks(py); err == nil {
			_, _ = fmt.Fprintf(h, "%q\n", real)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// look finds a program on the PATH that was given.
func (e *ensurer) look(name string) (string, error) {
	for _, d := range filepath.SplitList(e.lookup("PATH", defaultPath)) {
		p := filepath.Join(d, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("there is no %s on this machine", name)
}

// environment brings the Python environment here: from the store, by building
// it, or by waiting for the machine that does.
func (e *ensurer) environment(ctx context.Context) error {
	if e.ready() {
		return nil
	}
	if err := os.MkdirAll(e.c.Root, 0o755); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	return e.share(ctx)
}

// finish marks the environment as whole.
func (e *ensurer) finish() error {
	if err := os.WriteFile(filepath.Join(e.home, readyFile), []byte(e.place()), 0o644); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	return nil
}

// clear removes what an Ensure that was killed may have left.
func (e *ensurer) clear() error {
	if err := os.RemoveAll(e.home); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	return nil
}

// gone says that an error means that there is no such object.
func gone(err error) bool { return cloud.KindOf(err) == cloud.KindNotFound }

// taken says that an error means that somebody else was first.
func taken(err error) bool { return cloud.KindOf(err) == cloud.KindConflict }
