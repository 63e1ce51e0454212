//go:build unix

package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/agent/warden"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// Agent runs the tasks of one run on this machine. Make one with New; it works
// once.
type Agent struct {
	cfg     Config
	run     *Run
	log     *slog.Logger
	session string // tells this agent's objects from those of earlier ones
	dir     string // scratch of this agent
	secrets secretSet
	oom     *oomWatch
	outputs *outputRegistry
	codes   *codeBook
	files   *fileHashes

	// mark is what stands in the environment of our processes: the token, and
	// what tells them from those of an earlier agent of the run, whose warden
	// may still be at work.
	mark string

	cancelR, cancelW int // a pipe: closed at the write end when the run is cancelled
	groups           *warden.Groups

	// alone is held for reading while a task runs, for writing by one that
	// must have the machine for itself.
	alone sync.RWMutex

	placing sync.Mutex // held while outputs of earlier tasks are put in place

	mu    sync.Mutex
	slots []*slot

	funcsMu sync.Mutex // held while a function is prepared, which may take long
	funcs   map[string]*function

	graceCancel, graceTimeout time.Duration // between SIGTERM and SIGKILL
	leak                      int64         // growth after which an interpreter is replaced
}

// Supported says why tasks cannot run on this machine; nil if they can.
func Supported() error { return nil }

// New makes an agent; Work makes it work.
func New(cfg Config) *Agent {
	if cfg.Slots < 1 {
		cfg.Slots = 1
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Token == "" {
		cfg.Token = randomHex(16)
	}
	a := &Agent{
		cfg: cfg, run: cfg.Run, log: cfg.Logger, session: randomHex(4),
		secrets: newSecretSet(cfg.Run.Secrets), oom: newOOMWatch(cfg.OOMKills),
		outputs: newOutputRegistry(), funcs: map[string]*function{},
		cancelR: -1, cancelW: -1, graceCancel: 5 * time.Second, graceTimeout: 10 * time.Second, leak: 1 << 30,
	}
	if cfg.Name != "" {
		a.session = cfg.Name + "-" + a.session
	}
	a.mark = cfg.Token + "." + a.session
	a.dir = filepath.Join(cfg.Run.Scratch, "agent-"+a.session)
	a.codes = newCodeBook(cfg.Run.Pipeline, cfg.Run.Dir)
	a.files = newFileHashes(cfg.Run.Store)
	return a
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Token is what marks the processes of this agent; see KillLeftovers.
func (a *Agent) Token() string { return a.cfg.Token }

// Work receives ranges and runs their tasks until the queue is closed or ctx
// ends. When ctx ends, running tasks are ended (SIGTERM, 5 s, SIGKILL) and
// reported as cancelled, and the rest of their ranges as not run. When Work
// returns, no process that a task started is alive. An error is trouble of the
// machine or the store, never the failure of a task.
func (a *Agent) Work(ctx context.Context) (err error) {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("make the scratch folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(a.dir) }()
	var p [2]int
	if err := pipe(&p); err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	a.cancelR, a.cancelW = p[0], p[1]
	defer func() { _ = unix.Close(a.cancelR) }()
	a.groups, err = warden.NewGroups(filepath.Join(a.dir, "groups"), a.cfg.Slots*slotGroups)
	if err != nil {
		return err
	}
	keeper, err := warden.Start(warden.Config{
		Command: a.cfg.Warden, Token: a.mark, Groups: a.groups, Scratch: a.run.Scratch,
	})
	if err != nil {
		return err
	}
	defer keeper.Stop()

	ctx, cancel := context.WithCancelCause(ctx)
	stopWatch := make(chan struct{})
	watched := make(chan struct{})
	go func() { // owned by Work: closes the cancel pipe once
		defer close(watched)
		select {
		case <-ctx.Done():
		case <-stopWatch:
		}
		_ = unix.Close(a.cancelW)
	}()
	defer func() { close(stopWatch); <-watched; cancel(nil) }()

	a.mu.Lock()
	for i := range a.cfg.Slots {
		a.slots = append(a.slots, newSlot(a, i))
	}
	a.mu.Unlock()
	errs := make([]error, len(a.slots))
	var wg sync.WaitGroup
	for i, s := range a.slots {
		wg.Go(func() {
			if errs[i] = s.work(ctx); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	wg.Wait()
	if err := a.files.save(context.WithoutCancel(ctx)); err != nil {
		a.log.Warn("hashes of files were not kept", "err", err)
	}
	for _, err := range errs {
		if err != nil {
			return err // what troubles one slot, say a full disk, troubles them all
		}
	}
	return nil
}

// Live is the tasks that run now, by function and index.
func (a *Agent) Live() []task.Live {
	a.mu.Lock()
	slots := a.slots
	a.mu.Unlock()
	var all []task.Live
	for _, s := range slots {
		if l, ok := s.nowLive(); ok {
			all = append(all, l)
		}
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Function != all[j].Function {
			return all[i].Function < all[j].Function
		}
		return all[i].Index < all[j].Index
	})
	return all
}

// KillLeftovers ends every process that carries the token of an agent that is
// gone, and returns when none is left.
func KillLeftovers(token string) { warden.Kill(token) }

// WardenMain is the whole life of the warden process; it never returns.
func WardenMain() { warden.Main() }
