package software

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// apt installs packages of the system, unless they are there.
func (e *ensurer) apt(ctx context.Context) error {
	if len(e.n.apt) == 0 || e.hasPackages(ctx) {
		return nil
	}
	return e.packages(ctx, e.n.apt)
}

// hasPackages says that nothing is missing. Where that cannot be said, the
// package manager looks itself.
func (e *ensurer) hasPackages(ctx context.Context) bool {
	if _, err := e.look("apt-get"); err != nil {
		return false
	}
	for _, name := range e.n.apt {
		out, err := e.output(ctx, command{what: "look for " + name, dir: "/", argv: []string{"dpkg-query", "-W", "-f", "${Status}", "--", name}})
		if err != nil || out != "install ok installed" {
			return false
		}
	}
	return true
}

// packages installs packages with the package manager of the system.
func (e *ensurer) packages(ctx context.Context, names []string) error {
	what := "install packages of the system: " + strings.Join(names, ", ")
	var sudo []string
	if os.Geteuid() > 0 {
		if _, err := e.look("sudo"); err != nil {
			return &InstallError{What: what, Err: errors.New("that takes root, or sudo")}
		}
		sudo = []string{"sudo", "-n", "-E"}
	}
	run := func(what string, argv ...string) error {
		return e.exec(ctx, command{what: what, dir: "/", env: []string{"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l"}, argv: append(sudo[:len(sudo):len(sudo)], argv...)})
	}
	if _, err := e.look("apt-get"); err == nil {
		// Just after boot the system may be updating itself.
		wait := []string{"apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"}
		if err := run("update the list of packages", append(wait[:len(wait):len(wait)], "update")...); err != nil {
			if ctx.Err() != nil {
				return err
			}
			// One unreachable source must not matter if the others have it.
			e.c.Log(err.Error())
		}
		return run(what, append(append(wait[:len(wait):len(wait)], "install", "--no-install-recommends", "--"), names...)...)
	}
	for _, tool := range []string{"dnf", "yum"} {
		if _, err := e.look(tool); err == nil {
			return run(what, append([]string{tool, "-q", "-y", "install", "--"}, names...)...)
		}
	}
	return &InstallError{What: what, Err: errors.New("this system has neither apt-get nor dnf; choose another image (hardware.ami), or use software.container")}
}

// setupMark says that the set-up script has run for this folder of code. A new
// Pull removes it with everything else that the script may have made there.
const setupMark = ".coiled-jobs-setup"

// setup runs the set-up script, unless it has run for this folder.
func (e *ensurer) setup(ctx context.Context) error {
	if e.n.setup == "" {
		return nil
	}
	mark := filepath.Join(e.c.Dir, setupMark)
	if b, err := os.ReadFile(mark); err == nil && string(b) == e.c.ID {
		return nil
	}
	argv := []string{"bash", "-euo", "pipefail", "-c", e.n.setup}
	if box := e.out.Container; box != nil {
		argv = append(box.Prefix(e.c.Dir), argv...)
	}
	if err := e.exec(ctx, command{what: "run the set-up script", env: e.out.Env, argv: argv}); err != nil {
		return err
	}
	return os.WriteFile(mark, []byte(e.c.ID), 0o644)
}
