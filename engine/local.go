package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// scratchBase is the folder of this user's scratch folders below the system's
// folder for temporary files. Everybody can write there and knows the name: what
// is not this user's own folder, but a link or somebody else's, is an error, and
// nothing is written or removed in it.
func scratchBase(temp string) (string, error) {
	base := filepath.Join(temp, fmt.Sprintf("coiled-jobs-%d", os.Getuid()))
	info, err := os.Lstat(base)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return base, nil
	case err != nil:
		return "", err
	case !info.IsDir() || !private(info):
		return "", fmt.Errorf("%s is not a folder of yours that nobody else can write to; remove it", base)
	}
	return base, nil
}

// scratchFolder makes a private folder for a run on this machine's disk.
func scratchFolder(run string) (string, error) {
	var dir string
	base, err := scratchBase(os.TempDir())
	if err == nil {
		err = os.MkdirAll(base, 0o700)
	}
	if err == nil {
		base, err = scratchBase(os.TempDir()) // somebody may have been quicker
	}
	if err == nil {
		dir, err = os.MkdirTemp(base, run+"-")
	}
	if err != nil {
		return "", fmt.Errorf("make a folder for temporary files of tasks: %w; TMPDIR can name another place", err)
	}
	return dir, nil
}

// beginLocal takes a run's journal and starts to work on it with an agent in
// this process.
func (e *Engine) beginLocal(ctx context.Context, h *executor.Header, p *spec.Pipeline, noCache bool, begin executor.Begin) (*session, error) {
	fs := executor.Selected(p, h.Functions, h.Only)
	secrets, err := e.secrets(fs)
	if err != nil {
		return nil, err
	}
	env, err := e.baseEnv(p, h.Dir)
	if err != nil {
		return nil, err
	}
	scratch, err := scratchFolder(h.Run)
	if err != nil {
		return nil, err
	}
	s := openSession(ctx)
	work, stopWork := context.WithCancel(s.ctx)
	queue := local.NewQueue()
	n := slots(fs)
	host, _ := os.Hostname()
	s.coord, err = executor.NewCoordinator(ctx, executor.Config{
		Store: e.Store, Queue: queue, Header: h, Pipeline: p, Inputs: e.inputs(h.Dir, h.Info()),
		Slots: n, CPUs: runtime.NumCPU(), Scratch: scratch, Host: host, PID: os.Getpid(), Begin: begin,
		StopWork: stopWork, Notice: s.notice, Live: func() []task.Live { return s.live() }, Now: e.Now,
	})
	if err != nil {
		stopWork()
		os.RemoveAll(scratch)
		return nil, err
	}
	// Whoever had the run before is gone; what it had started must be too.
	agent.KillLeftovers(h.Token)
	a := agent.New(agent.Config{
		Run: &agent.Run{
			ID: h.Run, Pipeline: s.coord.Pipeline(), Info: *h.Info(), Dir: h.Dir, Scratch: scratch,
			Store: e.Store, Prefix: executor.Prefix(h.Run), BaseEnv: env, Secrets: secrets,
			NoCache: noCache, CacheOn: usesCache(fs),
			Items: s.coord.Items, Count: s.coord.Count, Needs: s.coord.Needs, Upstream: s.coord.Upstream, Outputs: s.coord.Outputs,
			NeedsID: s.coord.NeedsID, Stopped: s.coord.Stopped,
		},
		Queue: queue, Slots: n, Report: s.coord.Report, Token: h.Token, Warden: []string{e.Exe, "__warden"}, Look: e.look(),
	})
	s.live = a.Live
	worked := make(chan error, 1)
	go func() {
		err := a.Work(work)
		s.coord.AgentsDone(err)
		worked <- err
	}()
	go s.run(func() error {
		err := <-worked
		stopWork()
		os.RemoveAll(scratch)
		return err
	})
	return s, nil
}

func usesCache(fs []*spec.Function) bool {
	for _, f := range fs {
		if f.Cache != nil {
			return true
		}
	}
	return false
}

// baseEnv is what tasks inherit: the caller's environment without what belongs
// to a task around it, and the variables of env_file.
func (e *Engine) baseEnv(p *spec.Pipeline, dir string) ([]string, error) {
	var env []string
	for _, kv := range e.Environ {
		if !strings.HasPrefix(kv, "COILED_JOBS_") {
			env = append(env, kv)
		}
	}
	vars, err := envFileVars(p, dir)
	return append(env, vars...), err
}

// envFileVars is the variables of env_file ("NAME=value").
func envFileVars(p *spec.Pipeline, dir string) ([]string, error) {
	if p.EnvFile == "" {
		return nil, nil
	}
	path := p.EnvFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("env_file: %v", err)
	}
	vars, err := parseEnvFile(string(b))
	if err != nil {
		return nil, usagef("env_file %s: %v", path, err)
	}
	return vars, nil
}

// parseEnvFile reads NAME=value lines as docker and dotenv files have them:
// comments, an optional "export ", quotes around the value.
func parseEnvFile(text string) ([]string, error) {
	var vars []string
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, val, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		name, val = strings.TrimSpace(name), strings.TrimSpace(val)
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("line %d is not NAME=value", i+1)
		}
		if n := len(val); n >= 2 && (val[0] == '"' || val[0] == '\'') && val[n-1] == val[0] {
			val = val[1 : n-1]
		}
		vars = append(vars, name+"="+val)
	}
	return vars, nil
}
