package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/planner"
)

// engine wires the parts together, for commands that start runs: the store is
// made if there is none yet.
func (a *app) engine(ctx context.Context) (*engine.Engine, error) {
	return a.wire(ctx, true)
}

// reader is an engine for commands about runs that exist. Nothing is made for
// them: where there is no store yet, the engine has none.
func (a *app) reader(ctx context.Context) (*engine.Engine, error) {
	return a.wire(ctx, false)
}

func (a *app) wire(ctx context.Context, create bool) (*engine.Engine, error) {
	state, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program on disk: %w", err)
	}
	buckets := map[string]cloud.Store{} // an open one keeps its connections
	open := func(url string) (cloud.Store, error) {
		if s := buckets[url]; s != nil {
			return s, nil
		}
		s, err := a.openStore(ctx, url, false)
		if err == nil && strings.HasPrefix(url, "s3://") {
			buckets[url] = s
		}
		return s, err
	}
	e := &engine.Engine{
		StateDir: state, Environ: a.environ, Exe: exe, Version: buildVersion(), Owner: a.owner(), Stderr: a.messages,
		OpenStore: open, S3: openS3(ctx), AWS: a.awsCloud(ctx, exe),
	}
	store, err := a.openStore(ctx, a.storeURL(state), create)
	switch {
	case err == nil:
		e.Store = store
	case create || cloud.KindOf(err) != cloud.KindNotFound:
		return nil, err
	}
	return e, nil
}

// storeURL is the store by flag, environment, default.
func (a *app) storeURL(state string) string {
	switch {
	case a.storeFlag != "":
		return a.storeFlag
	case a.getenv("COILED_JOBS_STORE") != "":
		return a.getenv("COILED_JOBS_STORE")
	}
	return filepath.Join(state, "store")
}

// openStore opens a store by its address: a folder, file:// and a folder, or
// s3://bucket/prefix.
func (a *app) openStore(ctx context.Context, url string, create bool) (cloud.Store, error) {
	dir := strings.TrimPrefix(url, "file://")
	if strings.HasPrefix(dir, "s3:") && !strings.HasPrefix(dir, "s3://") {
		return nil, usagef("store %s: a store in a bucket is written s3://bucket or s3://bucket/prefix", url)
	}
	if scheme, _, ok := strings.Cut(dir, "://"); ok {
		if scheme != "s3" {
			return nil, usagef("store %s: %s:// is not a store; name a folder or s3://bucket/prefix", url, scheme)
		}
		store, err := aws.OpenStore(ctx, url)
		if cloud.KindOf(err) == cloud.KindInvalid {
			return nil, usagef("%v", err)
		}
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", url, err)
	}
	open := local.FindStore
	if create {
		open = local.OpenStore
	}
	store, err := open(dir)
	if err != nil {
		return nil, err // not a nil *Store in an interface
	}
	return store, nil
}

// stateDir is the folder in the user's state directory that keeps what this
// program remembers: pointers to runs, and by default the runs themselves.
func (a *app) stateDir() (string, error) {
	if dir := a.getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, program), nil
	}
	if dir := a.getenv("LOCALAPPDATA"); runtime.GOOS == "windows" && filepath.IsAbs(dir) {
		return filepath.Join(dir, program), nil
	}
	home := a.getenv("HOME")
	if u, err := user.Current(); home == "" && err == nil {
		home = u.HomeDir // under systemd or cron it may not be told
	}
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("cannot tell where to keep runs: HOME is %q; set HOME, or XDG_STATE_HOME to a folder", home)
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support", program), nil
	}
	return filepath.Join(home, ".local", "state", program), nil
}

// owner is who starts runs: user@host.
func (a *app) owner() string {
	name := a.getenv("USER")
	if name == "" {
		name = a.getenv("LOGNAME")
	}
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	if name == "" {
		name = fmt.Sprintf("uid%d", os.Getuid())
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return name + "@" + host
}

// planner is an engine that can only plan: it needs no store and no home.
func (a *app) planner(ctx context.Context) *engine.Engine {
	return &engine.Engine{Environ: a.environ, Version: buildVersion(), Stderr: a.messages, S3: openS3(ctx)}
}

// openS3 gives access to S3 when a map first asks for it.
func openS3(ctx context.Context) func() (planner.S3, error) {
	return func() (planner.S3, error) { return aws.NewS3(ctx) }
}
