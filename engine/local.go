package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// session is one coordinator's work on a run in this process: the journal's
// writer, and an agent in a goroutine that works for it.
type session struct {
	coord    *executor.Coordinator
	agent    *agent.Agent
	notices  chan executor.Notice
	done     chan struct{} // closed when the run has ended here
	notified chan struct{} // closed when the notifications are sent
	report   executor.Report
	err      error
	cancel   context.CancelCauseFunc
}

// scratchBase is the folder of this user's scratch folders.
func scratchBase() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("coiled-jobs-%d", os.Getuid()))
}

// scratchFolder makes a private folder for a run on this machine's disk.
func scratchFolder(run string) (string, error) {
	base := scratchBase()
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(base, run+"-")
}

// begin takes a run's journal and starts to work on it. KindConflict if
// somebody else has it. The run goes on when ctx ends; see session.cancel.
func (e *Engine) begin(ctx context.Context, h *executor.Header, p *spec.Pipeline, noCache bool, begin executor.Begin) (*session, error) {
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
	s := &session{notices: make(chan executor.Notice, 1024), done: make(chan struct{}), notified: make(chan struct{})}
	// The run outlives ctx's deadline and cancellation: it ends by an event.
	runCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	work, stopWork := context.WithCancel(runCtx)
	s.cancel = cancel
	queue := local.NewQueue()
	n := slots(fs)
	host, _ := os.Hostname()
	s.coord, err = executor.NewCoordinator(ctx, executor.Config{
		Store: e.Store, Queue: queue, Header: h, Pipeline: p, Inputs: e.inputs(h.Dir, h.Info()),
		Slots: n, CPUs: runtime.NumCPU(), Scratch: scratch, Host: host, PID: os.Getpid(), Begin: begin,
		StopWork: stopWork, Notice: s.notice, Live: func() []task.Live { return s.agent.Live() }, Now: e.Now,
	})
	if err != nil {
		stopWork()
		os.RemoveAll(scratch)
		return nil, err
	}
	// Whoever had the run before is gone; what it had started must be too.
	agent.KillLeftovers(h.Token)
	s.agent = agent.New(agent.Config{
		Run: &agent.Run{
			ID: h.Run, Pipeline: s.coord.Pipeline(), Info: *h.Info(), Dir: h.Dir, Scratch: scratch,
			Store: e.Store, Prefix: executor.Prefix(h.Run), BaseEnv: env, Secrets: secrets,
			NoCache: noCache, CacheOn: usesCache(fs),
			Items: s.coord.Items, Count: s.coord.Count, Needs: s.coord.Needs, Upstream: s.coord.Upstream, Outputs: s.coord.Outputs,
			NeedsID: s.coord.NeedsID, Stopped: s.coord.Stopped,
		},
		Queue: queue, Slots: n, Report: s.coord.Report, Token: h.Token, Warden: []string{e.Exe, "__warden"}, Look: e.look(),
	})
	go s.run(runCtx, work, stopWork, scratch)
	return s, nil
}

func (s *session) run(ctx, work context.Context, stopWork context.CancelFunc, scratch string) {
	worked := make(chan error, 1)
	go func() {
		err := s.agent.Work(work)
		s.coord.AgentsDone(err)
		worked <- err
	}()
	s.report, s.err = s.coord.Run(ctx)
	err := <-worked
	stopWork()
	if s.err == nil && err != nil && !errors.Is(err, context.Canceled) && cloud.KindOf(err) != cloud.KindClosed {
		s.err = err
	}
	if s.err != nil && !s.report.Status.Final() && cloud.KindOf(s.err) != cloud.KindNotFound {
		s.err = fmt.Errorf("%w\nwhat was recorded until then is kept; when that is mended, go on with: coiled-jobs resume %s", s.err, s.report.Run)
	}
	os.RemoveAll(scratch)
	close(s.notices)
	close(s.done)
}

// notice passes a notice on. Nobody may be reading: then the oldest is
// dropped, the journal has them all.
func (s *session) notice(n executor.Notice) {
	for {
		select {
		case s.notices <- n:
			return
		default:
		}
		select {
		case <-s.notices:
		default:
		}
	}
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
	if p.EnvFile == "" {
		return env, nil
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
	return append(env, vars...), nil
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

// wait ends with the session, or cancels it when ctx ends.
func (s *session) wait(ctx context.Context) (executor.Report, error) {
	select {
	case <-s.done:
		return s.report, s.err
	case <-ctx.Done():
	}
	s.cancel(context.Cause(ctx))
	// Tasks get 5 s; what takes longer is left to the kernel with our end.
	select {
	case <-s.done:
		return s.report, s.err
	case <-time.After(9 * time.Second):
		return s.coord.Snapshot(), errors.New("tasks did not end in time; they are killed now")
	}
}
