package software

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Container is a running container that lends its file system to tasks.
//
// Its only process waits (PauseCommand). Tasks are started from the machine,
// with Prefix before their commands: they see the files of the image, and the
// mounted folders at the same paths, but are children of the agent like all
// others, so that signals, exit codes, memory limits and the network are those
// of the machine. That takes root and nsenter (util-linux) on the machine.
type Container struct {
	Engine string   // docker or podman
	Image  string   // with its digest, if the engine knows it
	Name   string   // of the container
	Pid    int      // of its first process
	Env    []string // what the image sets
}

// PauseCommand is the argument of this program with which it waits until it is
// told to end. It is the first process of containers.
const PauseCommand = "__pause"

// Prefix goes before the command of a task: it is then looked up on the PATH
// in its environment and started in the container, in a folder of it.
func (c *Container) Prefix(dir string) []string {
	return []string{"nsenter", "--target=" + strconv.Itoa(c.Pid), "--mount", "--wd=" + dir, "--"}
}

// container starts the container, or finds it running.
func (e *ensurer) container(ctx context.Context) (*Container, error) {
	if e.c.Exe == "" {
		return nil, errors.New("software: a container needs the path of this program (Exe)")
	}
	if _, err := e.look("nsenter"); err != nil {
		if err := e.packages(ctx, []string{"util-linux"}); err != nil {
			return nil, err
		}
	}
	engine, err := e.engine(ctx)
	if err != nil {
		return nil, err
	}
	box := &Container{Engine: engine, Name: "coiled-jobs-" + e.c.ID}
	if e.inspect(ctx, box) == nil {
		return box, nil
	}
	image := e.n.image
	if err := e.exec(ctx, command{what: "fetch the container image " + image, dir: "/", argv: []string{engine, "pull", image}}); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.c.Root, 0o755); err != nil {
		return nil, fmt.Errorf("software: %w", err)
	}
	_, _ = e.output(ctx, command{what: "remove an old container", dir: "/", argv: []string{engine, "rm", "-f", box.Name}}) // mostly there is none
	argv := []string{engine, "run", "--detach", "--name", box.Name, "--network", "host", "--entrypoint", e.c.Exe, "--user", "0",
		"--volume", e.c.Exe + ":" + e.c.Exe + ":ro"}
	if e.nvidia() {
		argv = append(argv, "--gpus", "all")
	}
	mounts := append([]string{e.c.Dir, e.c.Root}, e.c.Mounts...)
	slices.Sort(mounts)
	for _, m := range slices.Compact(mounts) {
		if !filepath.IsAbs(m) || strings.ContainsAny(m, ":,") {
			return nil, fmt.Errorf("software: %q cannot be mounted into a container", m)
		}
		argv = append(argv, "--volume", m+":"+m)
	}
	argv = append(argv, image, PauseCommand)
	if err := e.exec(ctx, command{what: "start a container of " + image, dir: "/", argv: argv}); err != nil {
		return nil, err
	}
	return box, e.inspect(ctx, box)
}

// nvidia says that the machine has a GPU that containers can use.
func (e *ensurer) nvidia() bool {
	_, err := e.look("nvidia-container-cli")
	if err != nil {
		return false
	}
	_, err = os.Stat("/dev/nvidiactl")
	return err == nil
}

// engine is docker or podman, installed if there is neither.
func (e *ensurer) engine(ctx context.Context) (string, error) {
	for try := range 2 {
		for _, name := range []string{"docker", "podman"} {
			if _, err := e.look(name); err != nil {
				continue
			}
			if name == "docker" && e.exec(ctx, command{what: "look for docker", dir: "/", argv: []string{"docker", "version"}}) != nil {
				// Installed, but not started.
				err := e.exec(ctx, command{what: "start docker", dir: "/", argv: []string{"systemctl", "start", "docker"}})
				if err != nil {
					if ctx.Err() != nil {
						return "", err
					}
					continue
				}
			}
			return name, nil
		}
		if try > 0 {
			break
		}
		name := "docker" // of Amazon Linux
		if _, err := e.look("apt-get"); err == nil {
			name = "docker.io"
		}
		if err := e.packages(ctx, []string{name}); err != nil {
			return "", err
		}
	}
	return "", &InstallError{What: "find docker or podman", Err: errors.New("neither works on this machine; use an image that has one (hardware.ami)")}
}

// inspect reads what is known of a running container.
func (e *ensurer) inspect(ctx context.Context, box *Container) error {
	out, err := e.output(ctx, command{what: "look at the container", dir: "/",
		argv: []string{box.Engine, "inspect", "--format", `{"pid":{{.State.Pid}},"image":{{json .Image}},"env":{{json .Config.Env}}}`, box.Name}})
	if err != nil {
		return err
	}
	var v struct {
		Pid   int
		Image string
		Env   []string
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return &InstallError{What: "look at the container", Err: err}
	}
	if v.Pid <= 1 {
		return &InstallError{What: "start a container of " + e.n.image, Err: errors.New("it ended at once")}
	}
	box.Pid, box.Image, box.Env = v.Pid, v.Image, v.Env
	e.out.Env = append(slices.Clone(v.Env), e.out.Env...)
	return nil
}

// Remove kills the container and all that runs in it, and deletes it.
func (c *Container) Remove(ctx context.Context, env []string) error {
	e := &ensurer{c: Config{Env: env}}
	_, err := e.output(ctx, command{what: "remove the container", dir: "/", argv: []string{c.Engine, "rm", "-f", c.Name}})
	return err
}
