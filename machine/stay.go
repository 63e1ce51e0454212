package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// stay is a machine's time in one run: all its sessions.
type stay struct {
	m        *machine
	run      string
	store    cloud.Store // for tasks
	setup    *wire.Setup
	header   *executor.Header
	pipeline *spec.Pipeline
	slots    int
	dir      string // of work, scratch and home
	needs    *needs

	next     int // number of the next session
	segments int // number of the last segment; guarded by the session's mu

	mu           sync.Mutex
	control      *wire.Control
	controlBytes []byte
	skew         time.Duration // of the coordinator's clock
	controlAt    time.Time     // when it was read last, seen from before the request
	draining     bool          // what has not started is given back
	session      *session

	preparing sync.Mutex // held while the machine is made ready, once
	ready     *agent.Run
	setupErr  *SetupError
}

// arrive reads what the machine must know of a run.
func (m *machine) arrive(ctx context.Context, inv *wire.Invite) (*stay, error) {
	st := &stay{m: m, run: inv.Run, next: 1}
	st.store = &patient{Store: m.cfg.Store, patience: st.patience}
	if m.cfg.Dir != "" {
		// The same for all runs: what was installed names the folder.
		st.dir = filepath.Join(m.cfg.Dir, "run")
	}
	ctx, cancel := context.WithTimeout(ctx, bootGrant)
	defer cancel()
	// What the coordinator writes before it launches or invites is there. All at
	// once: a run that follows another should start at once.
	setup, last := &wire.Setup{}, wire.Beat{}
	var errs [4]error
	var sub sync.WaitGroup
	sub.Go(func() { errs[0] = m.read(ctx, wire.SetupKey(inv.Run, inv.Kind), setup) })
	sub.Go(func() { errs[1] = st.firstControl(ctx) })
	sub.Go(func() {
		errs[2] = again(ctx, func(ctx context.Context) (err error) {
			st.header, err = executor.LoadHeader(ctx, m.cfg.Store, inv.Run)
			return err
		})
	})
	// The machine may have been in this run before.
	sub.Go(func() {
		err := m.read(ctx, wire.BeatKey(inv.Run, m.id.ID), &last)
		switch {
		case err == nil:
			st.next, st.segments = last.Session+1, last.Segments
			err = again(ctx, st.countSegments)
		case cloud.KindOf(err) == cloud.KindNotFound:
			err = nil
		}
		errs[3] = err
	})
	sub.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	st.setup = setup
	err := again(ctx, func(ctx context.Context) (err error) {
		st.pipeline, err = executor.LoadPipeline(ctx, m.cfg.Store, st.header, setup.File)
		var c *cloud.Error
		if err != nil && !errors.As(err, &c) { // the file itself
			err = &cloud.Error{Op: "read", Resource: executor.PipelineKey(inv.Run, setup.File), Kind: cloud.KindInvalid, Err: err}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	switch {
	case setup.Threads < 0:
		st.slots = m.id.CPUs
	default:
		st.slots = max(1, setup.Threads)
	}
	st.needs = newNeeds(st)
	return st, nil
}

// firstControl reads Control. A grant that seems to have lapsed may be that of a
// coordinator whose clock is behind: its next one tells.
func (st *stay) firstControl(ctx context.Context) error {
	for end := time.Now().Add(wire.GrantEvery + 3*wire.ControlEvery); ; {
		var c *wire.Control
		err := again(ctx, func(ctx context.Context) (err error) {
			c, err = st.readControl(ctx)
			return err
		})
		if now := time.Now(); err != nil || now.Before(c.Until) || !now.Before(end) {
			return err
		}
		wait(ctx, time.Now().Add(wire.ControlEvery), nil)
	}
}

// read reads a JSON object.
func (m *machine) read(ctx context.Context, key string, v any) error {
	return again(ctx, func(ctx context.Context) error {
		b, err := m.cfg.Store.Get(ctx, key)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, v); err != nil {
			return &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
		}
		return nil
	})
}

// sessions lives through the sessions of a stay, and says whether the machine
// may wait for another run.
func (st *stay) sessions(ctx context.Context) (pool bool) {
	for {
		s := newSession(ctx, st, st.next)
		st.next++
		st.mu.Lock()
		st.draining, st.session = false, s
		st.mu.Unlock()
		d := s.run(ctx)
		if d.act != cutOff {
			return d.pool
		}
		if !st.comeBack(ctx) {
			return false
		}
	}
}

// comeBack waits until the store answers again. False: the grant has lapsed
// before, or there is no reason to go on.
func (st *stay) comeBack(ctx context.Context) bool {
	for {
		until, changed := st.m.granted()
		if ctx.Err() != nil || !time.Now().Before(until) {
			st.m.log.Error("the store did not answer before the grant lapsed")
			return false
		}
		if _, err := st.readControl(ctx); err == nil && st.countSegments(ctx) == nil {
			until, _ := st.m.granted()
			return time.Now().Before(until)
		}
		wait(ctx, earliest(until, time.Now().Add(2*time.Second)), changed)
	}
}

// countSegments finds segments that are stored although nobody could tell: the
// coordinator finds segments by the number in the beat.
func (st *stay) countSegments(ctx context.Context) error {
	for {
		ctx, cancel := context.WithTimeout(ctx, writeWithin)
		_, err := st.m.cfg.Store.ReadAt(ctx, wire.SegmentKey(st.run, st.m.id.ID, st.segments+1), make([]byte, 1), 0)
		cancel()
		switch {
		case cloud.KindOf(err) == cloud.KindNotFound:
			return nil
		case err != nil:
			return err
		}
		st.segments++
	}
}

// worker makes what runs the tasks of a session.
func (st *stay) worker(s *session) (Worker, error) {
	st.preparing.Lock()
	defer st.preparing.Unlock()
	if st.ready == nil && st.setupErr == nil {
		begun := time.Now()
		err := st.prepare(s.work)
		var bad *SetupError
		switch {
		case errors.As(err, &bad):
			s.log.Error("the pipeline's setup failed", "err", err)
			st.setupErr = bad
		case err != nil:
			return nil, err
		default:
			s.log.Info("is prepared", "seconds", time.Since(begun).Seconds())
		}
	}
	if st.setupErr != nil {
		return &failing{s: s, err: st.setupErr}, nil
	}
	cfg := agent.Config{Run: st.ready, Queue: taken{s}, Slots: st.slots, Report: s.report, Logger: s.log, Name: s.m.id.ID,
		Token: st.token(), Look: s.m.cfg.Look}
	if s.m.cfg.Exe != "" {
		cfg.Warden = []string{s.m.cfg.Exe, "__warden"}
	}
	return s.m.cfg.NewWorker(cfg), nil
}

// prepare makes the machine ready for the run's tasks.
func (st *stay) prepare(ctx context.Context) error {
	m := st.m
	work, scratch := filepath.Join(st.dir, "work"), filepath.Join(st.dir, "scratch")
	home := filepath.Join(st.dir, "home")
	if st.dir != "" {
		// What an agent of this machine left that was killed.
		if err := st.clear(); err != nil {
			return fmt.Errorf("clear the folder for the run: %w", err)
		}
		for _, d := range []string{work, scratch, home} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				return fmt.Errorf("make a folder for the run: %w", err)
			}
		}
	}
	job := &Job{Setup: st.setup, Header: st.header, Pipeline: st.pipeline, Store: m.cfg.Store, Dir: work, Scratch: scratch, Home: home,
		Software: filepath.Join(m.cfg.Dir, "software"), Machine: m.id.ID, Exe: m.cfg.Exe, Environ: m.cfg.Environ, Logger: m.log}
	var secrets, vars map[string]string
	var secretErr error
	var sub sync.WaitGroup
	sub.Go(func() {
		if secrets, secretErr = m.resolve(ctx, "secrets", st.setup.Secrets); secretErr == nil {
			vars, secretErr = m.resolve(ctx, "env_file", st.setup.EnvFile)
		}
	})
	do := m.cfg.Prepare
	if do == nil {
		do = Prepare
	}
	p, err := do(ctx, job)
	sub.Wait()
	if err = errors.Join(err, secretErr); err != nil {
		return err
	}
	env := append([]string(nil), m.cfg.Environ...)
	if st.dir != "" {
		env = append(env, "HOME="+home)
	}
	env = append(env, p.Env...)
	for name, v := range vars {
		env = append(env, name+"="+v)
	}
	st.needs.dir = filepath.Join(scratch, "needs")
	st.ready = &agent.Run{
		ID: st.run, Pipeline: st.pipeline, Info: *st.header.Info(), Dir: work, Scratch: scratch,
		Store: st.store, Prefix: executor.Prefix(st.run), BaseEnv: env, Secrets: secrets,
		NoCache: st.setup.NoCache, CacheOn: st.cacheOn(),
		Items: st.needs.Items, Count: st.needs.Count, Needs: st.needs.Needs, Upstream: st.needs.Upstream,
		NeedsID: st.needs.NeedsID, Outputs: st.needs.Outputs, Stopped: st.stopped, Place: p.Place, Wrap: p.Wrap,
	}
	return nil
}

func (st *stay) cacheOn() bool {
	for _, f := range executor.Selected(st.pipeline, st.header.Functions, st.header.Only) {
		if f.Cache != nil {
			return true
		}
	}
	return false
}

// stopped says whether no further task of a function may start.
func (st *stay) stopped(fn string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, s := range st.control.Stopped {
		if s == fn {
			return true
		}
	}
	return st.draining
}

// patience ends when the tasks of the session need the store no more.
func (st *stay) patience() context.Context {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.session.patience
}

func (st *stay) setDraining(on bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.draining = on
}

// token marks the processes of the run on this machine, and on no other that
// may share its kernel.
func (st *stay) token() string { return st.header.Token + "." + st.m.id.ID }

// tidy removes what the run has left: its processes, files and secrets.
func (st *stay) tidy() {
	st.ready = nil
	if st.dir == "" {
		return
	}
	agent.KillLeftovers(st.token())
	if err := st.clear(); err != nil {
		st.m.log.Error("files of the run were not removed", "err", err)
	}
}

// clear removes what is in the folders of the run. They stay themselves: a
// container may have them mounted.
func (st *stay) clear() error {
	dirs, err := os.ReadDir(st.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, d := range dirs {
		if !d.IsDir() {
			err = errors.Join(err, os.Remove(filepath.Join(st.dir, d.Name())))
			continue
		}
		list, rerr := os.ReadDir(filepath.Join(st.dir, d.Name()))
		err = errors.Join(err, rerr)
		for _, e := range list {
			err = errors.Join(err, removeAll(filepath.Join(st.dir, d.Name(), e.Name())))
		}
	}
	return err
}

// removeAll removes a file or folder, also where a task took away the right to
// do so.
func removeAll(name string) error {
	err := os.RemoveAll(name)
	if err == nil {
		return nil
	}
	_ = filepath.WalkDir(name, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(name)
}
