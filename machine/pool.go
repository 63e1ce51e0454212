package machine

import (
	"context"
	"encoding/json"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

const (
	// How often a waiting machine looks for an invitation: a run of the same
	// kind that follows at once should start at once. See lookEvery.
	lookOften, lookRarely = 100 * time.Millisecond, time.Second
	oftenFor              = time.Minute
	// inviteWithin is how long a machine tries to settle whether it was invited.
	inviteWithin = 30 * time.Second
)

// lookEvery is how often a machine looks at first, of a fleet with this pace: all
// of them look some 2,500 times a second at most, of the 5,500 that S3 answers.
func lookEvery(pace time.Duration) time.Duration {
	return min(max(lookOften, pace/50), lookRarely)
}

// waitInPool waits for another run; nil: there is none, the machine has left
// the pool.
func (m *machine) waitInPool(ctx context.Context, st *stay) *wire.Invite {
	pool, id := st.setup.Pool, m.id.ID
	begun := time.Now()
	st.mu.Lock()
	often := lookEvery(st.control.Pace)
	st.mu.Unlock()
	_, dieAt := lifeEnds(m.launched, st.setup.MaxLife)
	until := earliest(begun.Add(st.setup.KeepAlive), dieAt)
	if !until.After(begun) {
		return nil
	}
	m.grant(until.Add(inviteWithin))
	settle, cancel := context.WithDeadline(context.WithoutCancel(ctx), begun.Add(inviteWithin))
	defer cancel()
	// A number that no invitation, nor our own leaving, was given before.
	for {
		m.waits++
		if _, found, err := m.invite(settle, pool); err != nil {
			return nil
		} else if !found {
			break
		}
	}
	idle, err := json.Marshal(wire.Idle{Machine: id, Until: until.UTC(), Run: st.run, Type: m.id.Type, Zone: m.id.Zone,
		Spot: m.id.Spot, Launched: m.launched.UTC(), Slots: st.slots, N: m.waits})
	if err != nil {
		return nil
	}
	key := wire.IdleKey(pool, id, m.waits)
	if err := again(settle, func(ctx context.Context) error { return m.cfg.Store.Put(ctx, key, idle) }); err != nil {
		m.log.Error("could not tell that this machine waits for another run", "err", err)
		// It may have been told all the same.
		return m.leavePool(ctx, pool)
	}
	m.log.Info("waits for another run", "until", until)
	var noticed time.Time
	for now := begun; now.Before(until) && ctx.Err() == nil; now = time.Now() {
		one, cancel := context.WithTimeout(ctx, askWithin)
		inv, found, err := m.invite(one, pool)
		cancel()
		switch {
		case err != nil && ctx.Err() == nil:
			m.log.Warn("cannot look for an invitation", "err", err)
		case found:
			return m.accept(inv)
		}
		if m.id.Spot && now.Sub(noticed) >= noticeEvery {
			noticed = now
			one, cancel := context.WithTimeout(ctx, askWithin)
			at, err := m.cfg.Host.Notice(one)
			cancel()
			if err == nil && !at.IsZero() {
				m.log.Warn("the machine is taken back", "at", at)
				break
			}
		}
		pause := often
		if now.Sub(begun) >= oftenFor {
			pause = lookRarely
		}
		wait(ctx, earliest(until, now.Add(pause)), nil)
	}
	return m.leavePool(ctx, pool)
}

// leavePool says that the machine waits no more, unless somebody was first:
// then that invitation counts.
func (m *machine) leavePool(ctx context.Context, pool string) *wire.Invite {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), inviteWithin)
	defer cancel()
	var other *wire.Invite
	err := again(ctx, func(ctx context.Context) error {
		err := m.cfg.Store.Create(ctx, wire.InviteKey(pool, m.id.ID, m.waits), []byte(`{}`))
		if cloud.KindOf(err) != cloud.KindConflict {
			return err
		}
		inv, found, err := m.invite(ctx, pool)
		if found {
			other = inv
		}
		return err
	})
	if err != nil {
		m.log.Error("cannot tell whether this machine was invited", "err", err)
		return nil
	}
	return m.accept(other)
}

// accept takes an invitation; nil and the machine's own leaving are none.
func (m *machine) accept(inv *wire.Invite) *wire.Invite {
	if inv == nil || inv.Run == "" {
		return nil
	}
	m.log.Info("was invited", "run", inv.Run, "kind", inv.Kind)
	m.grant(time.Now().Add(bootGrant))
	return inv
}

// invite reads what ended this waiting, if something has.
func (m *machine) invite(ctx context.Context, pool string) (inv *wire.Invite, found bool, err error) {
	err = again(ctx, func(ctx context.Context) error {
		b, err := m.cfg.Store.Get(ctx, wire.InviteKey(pool, m.id.ID, m.waits))
		if err != nil {
			return err
		}
		inv = &wire.Invite{}
		return json.Unmarshal(b, inv)
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, false, nil
	}
	return inv, err == nil, err
}
