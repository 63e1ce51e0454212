package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/software"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// Prepare makes a machine ready: it fetches the code, then installs what the
// pipeline asks for, or unpacks what another machine has installed.
func Prepare(ctx context.Context, j *Job) (*Prepared, error) {
	p := &Prepared{}
	if j.Setup.Code != "" {
		// Without the limit of one request: it may be much that is to be fetched.
		err := again(ctx, func(context.Context) error { return bundle.Pull(ctx, j.Store, j.Setup.Code, j.Dir) })
		if err != nil {
			return nil, fmt.Errorf("fetch the code: %w", err)
		}
	}
	for _, d := range j.Setup.Folders {
		if err := os.MkdirAll(filepath.Join(j.Dir, filepath.FromSlash(d)), 0o755); err != nil {
			return nil, fmt.Errorf("make a folder for outputs: %w", err)
		}
	}
	if j.Setup.Files != "" {
		files, err := bundle.OpenFiles(ctx, j.Store, j.Setup.Files)
		if err != nil {
			return nil, fmt.Errorf("find the local files: %w", err)
		}
		p.Place = func(ctx context.Context, _ string, _ int, item any) error {
			return value.EachLocal(item, func(path string) error { return placeItem(ctx, files, j.Dir, path) })
		}
	}
	if j.Setup.Software == nil {
		return p, nil
	}
	env, err := software.Ensure(ctx, software.Config{
		Store: j.Store, Software: j.Setup.Software, ID: j.Setup.SoftwareID, Dir: j.Dir, Root: j.Software, Env: j.Environ,
		Machine: j.Machine, Exe: j.Exe, Mounts: []string{j.Scratch, j.Home},
		Log: func(line string) { j.Logger.Info(line) },
	})
	switch {
	case software.IsInstall(err):
		return nil, &SetupError{err}
	case err != nil:
		return nil, err
	}
	p.Env = env.Env
	if env.Container != nil {
		p.Wrap = env.Container.Prefix(j.Dir)
		if p.Wrap[0], err = absolute(p.Wrap[0], j.Environ); err != nil {
			return nil, fmt.Errorf("enter the container: %w", err)
		}
	}
	return p, nil
}

// absolute finds a program of the machine.
func absolute(name string, environ []string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	var path string
	for _, kv := range environ {
		if v, ok := cutVar(kv, "PATH"); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if p := filepath.Join(dir, name); filepath.IsAbs(p) {
			if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

func cutVar(kv, name string) (string, bool) {
	if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
		return kv[len(name)+1:], true
	}
	return "", false
}

// placeItem puts a local file among the items in place. One that is not in the
// index is a result of another task and lies where that has put it.
func placeItem(ctx context.Context, files *bundle.Files, dir, path string) error {
	var missing error
	err := again(ctx, func(context.Context) error {
		has, err := files.Has(ctx, path)
		if err != nil || !has {
			return err
		}
		err = files.Place(ctx, dir, path)
		var c *cloud.Error
		if err != nil && !errors.As(err, &c) { // the disk's, not the store's
			missing, err = err, nil
		}
		return err
	})
	return errors.Join(err, missing)
}
