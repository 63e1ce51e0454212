package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// machine is what lasts from boot to power-off.
type machine struct {
	cfg      Config
	id       Identity
	log      *slog.Logger
	launched time.Time

	mu      sync.Mutex
	until   time.Time // when the machine has to be off
	changed chan struct{}

	measured wire.Metrics // under measuring
	at       time.Time
	measure  sync.Mutex

	waits int // for invitations, so far
}

const (
	// bootGrant is how long a machine may take to learn what it is to do.
	bootGrant = 10 * time.Minute
	// overtime is how long after its grant a machine may take to leave.
	overtime = time.Minute
)

// errOff means that the watchdog has ended the machine.
var errOff = errors.New("the grant of this machine has lapsed")

// Run is the whole life of a machine. It returns nil after it has asked the
// host to power off, and an error if the machine could not start to work; then
// powering off is left to the caller. When ctx ends, the machine reports what
// it can and leaves.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.NewWorker == nil {
		if err := agent.Supported(); err != nil {
			return err
		}
		cfg.NewWorker = func(c agent.Config) Worker { return agent.New(c) }
	}
	m := &machine{cfg: cfg, log: cfg.Logger, launched: time.Now(), changed: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.grant(m.launched.Add(bootGrant))
	var sub sync.WaitGroup
	defer sub.Wait()
	quit, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	sub.Go(func() { m.guard(quit, cancel) })
	sub.Go(func() { m.arm(quit) })

	err := m.live(ctx)
	if err != nil {
		return err
	}
	m.log.Info("powers off")
	cfg.Host.PowerOff()
	return nil
}

// live is everything between boot and power-off.
func (m *machine) live(ctx context.Context) error {
	err := again(ctx, func(ctx context.Context) (err error) {
		m.id, err = m.cfg.Host.Identity(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("find out which machine this is: %w", err)
	}
	if m.id.CPUs <= 0 {
		m.id.CPUs = runtime.NumCPU()
	}
	if !m.id.Launched.IsZero() {
		m.launched = m.id.Launched
	}
	m.log.Info("machine", "id", m.id.ID, "type", m.id.Type, "zone", m.id.Zone, "spot", m.id.Spot, "cpus", m.id.CPUs)
	if m.cfg.Dir != "" {
		if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
			return fmt.Errorf("make a folder to work in: %w", err)
		}
	}
	next := &wire.Invite{Run: m.cfg.Run, Kind: m.cfg.Kind}
	for first := true; next != nil; first = false {
		st, err := m.arrive(ctx, next)
		if err != nil {
			if first {
				return fmt.Errorf("join run %s: %w", next.Run, err)
			}
			m.log.Error("could not join another run", "run", next.Run, "err", err)
			return nil
		}
		pool := st.sessions(ctx)
		st.tidy()
		if next = nil; pool && st.setup.KeepAlive > 0 && st.setup.Pool != "" && ctx.Err() == nil {
			next = m.waitInPool(ctx, st)
		}
	}
	return nil
}

// grant sets until when the machine may run.
func (m *machine) grant(until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if until.Equal(m.until) {
		return
	}
	m.until = until
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *machine) granted() (time.Time, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.until, m.changed
}

// guard powers off when the machine should have done so by itself.
func (m *machine) guard(quit context.Context, cancel context.CancelCauseFunc) {
	for {
		until, ch := m.granted()
		if at := until.Add(overtime); time.Now().Before(at) {
			if !wait(quit, at, ch) {
				return
			}
			continue
		}
		m.log.Error("the grant has lapsed: power off")
		m.cfg.Host.PowerOff()
		cancel(errOff)
		return
	}
}

// arm keeps the timer of the system up to date.
func (m *machine) arm(quit context.Context) {
	for {
		until, ch := m.granted()
		if err := m.cfg.Host.Arm(until.Add(overtime)); err != nil {
			m.log.Error("the timer that ends the machine could not be set", "err", err)
		}
		if !wait(quit, time.Time{}, ch) {
			return
		}
	}
}

// metrics is measured anew at most once a second.
func (m *machine) metrics() wire.Metrics {
	m.measure.Lock()
	defer m.measure.Unlock()
	if now := time.Now(); m.at.IsZero() || now.Sub(m.at) >= time.Second {
		m.measured, m.at = m.cfg.Host.Metrics(), now
		if m.measured.CPUs == 0 {
			m.measured.CPUs = m.id.CPUs
		}
	}
	return m.measured
}
