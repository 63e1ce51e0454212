package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// intent is recorded before machines are rented.
type intent struct {
	Token string    `json:"token"`
	Kind  string    `json:"kind"`
	Pool  string    `json:"pool"`
	Count int       `json:"count"`
	At    time.Time `json:"at"`
}

func intentKey(run, token string) string { return "runs/" + run + "/intents/" + token + ".json" }

const (
	// firstBackoff and lastBackoff are how long no machines of a kind are asked
	// for after the cloud had none.
	firstBackoff, lastBackoff = 15 * time.Second, 3 * time.Minute
	// quotaAgain is when a limit of the account is tried again.
	quotaAgain = 5 * time.Minute
	// troublesMost launches in a row may fail for a reason that nobody knows.
	troublesMost = 5
)

// launch begins to get machines: idle ones of the pool first, then new ones.
func (f *Fleet) launch(k *kindState, n int, now time.Time) {
	s := f.s
	k.asked, k.askedAt = n, now
	k.launches++
	token := fmt.Sprintf("%s-%d-%d", k.Name, s.epoch, k.launches)
	begin := func() {
		if s.over() {
			k.asked = 0
			return
		}
		f.run(func() { f.acquire(k, n, token) })
	}
	if s.limits.Cost > 0 && s.written.Until.After(s.grant(now)) {
		// They must not find a grant that is too long for so many.
		f.afterControl(begin)
		return
	}
	begin()
}

// acquire gets n machines and tells the loop how that went.
func (f *Fleet) acquire(k *kindState, n int, token string) {
	joined := f.invite(k, n)
	var list []cloud.Machine
	var err error
	rest := n - len(joined)
	if len(joined) > 0 {
		f.do(func() { // they begin to work while others are rented
			k.asked -= len(joined)
			for _, m := range joined {
				f.join(m)
			}
		})
	}
	if rest > 0 {
		list, err = f.rent(k, rest, token)
	}
	f.do(func() { f.launched(k, rest, token, list, err) })
}

// rent launches machines. The intent is recorded first; what fails in passing
// is tried again with the same token.
func (f *Fleet) rent(k *kindState, n int, token string) ([]cloud.Machine, error) {
	in := intent{Token: token, Kind: k.Name, Pool: k.Pool, Count: n, At: time.Now()}
	if err := retry(f.ctx, func() error { return putJSON(f.ctx, f.cfg.Store, intentKey(f.cfg.Run, token), in) }); err != nil {
		return nil, err
	}
	over := true // if the loop has ended
	f.sync(func() { over = f.s.over() })
	if over {
		return nil, nil
	}
	spec := cloud.MachineSpec{Run: f.cfg.Run, Pool: k.Pool, Token: token, Count: n, Types: k.Types, Spot: k.Spot,
		Region: k.Region, DiskGB: k.DiskGB, Tags: k.Tags}
	wait := time.Second
	for try := 1; ; try++ {
		list, err := f.cfg.Machines.Launch(f.ctx, spec)
		switch cloud.KindOf(err) {
		case cloud.KindThrottled, cloud.KindTransient:
			if f.ctx.Err() == nil && try < 10 {
				pause(f.ctx, wait)
				wait = min(2*wait, 30*time.Second)
				continue
			}
		}
		return list, err
	}
}

// launched takes in what a launch gave. Only the loop calls it.
func (f *Fleet) launched(k *kindState, n int, token string, list []cloud.Machine, err error) {
	s, now := f.s, time.Now()
	k.asked = 0
	for _, x := range list {
		if s.machines[x.ID] != nil { // a listing was faster
			s.machines[x.ID].token = token
			continue
		}
		m := &machine{token: token, kind: k, Machine: task.Machine{ID: x.ID, Type: x.Type, Zone: x.Zone, Spot: x.Spot,
			Price: x.PricePerHour, Joined: cmp.Or(x.Launched, now)}}
		f.add(m)
		if s.stop != "" {
			f.terminate([]*machine{m}, "the run was stopped")
		}
	}
	if err == nil {
		k.backoff, k.troubles = 0, 0
		return
	}
	if f.ctx.Err() != nil || s.stop != "" {
		return
	}
	f.launchFailed(k, n, len(list), err, now)
}

// launchFailed decides what to do about machines that could not be rented.
func (f *Fleet) launchFailed(k *kindState, asked, got int, err error, now time.Time) {
	s := f.s
	have := s.count(k)
	warn := func(key, text string) { f.perform(actWarn{key + " " + k.Name, text}, now) }
	switch cloud.KindOf(err) {
	case cloud.KindNoCapacity:
		k.backoff = min(max(2*k.backoff, firstBackoff), lastBackoff)
		k.wait = now.Add(k.backoff)
		warn("capacity", fmt.Sprintf("%d of %s are not to be had now (%s); trying again in %s", asked-got, plural(asked, "machine"), errText(err), k.backoff))
	case cloud.KindQuota:
		k.wait = now.Add(quotaAgain)
		if have == 0 && !s.everWorked {
			f.perform(actFail{fmt.Errorf("the account allows no machine for this run: %w", err)}, now)
			return
		}
		warn("quota", fmt.Sprintf("%s; the run goes on with %s", errText(err), plural(have, "machine")))
	case cloud.KindDenied, cloud.KindInvalid:
		f.perform(actFail{err}, now)
	default:
		k.troubles++
		k.backoff = min(max(2*k.backoff, firstBackoff), lastBackoff)
		k.wait = now.Add(k.backoff)
		if k.troubles >= troublesMost && have == 0 {
			f.perform(actFail{err}, now)
			return
		}
		warn("launch", fmt.Sprintf("no machines could be launched: %s; trying again in %s", errText(err), k.backoff))
	}
}

// invite asks idle machines of the pool to work for this run.
func (f *Fleet) invite(k *kindState, n int) []*machine {
	if k.Pool == "" {
		return nil
	}
	type waiting struct{ key, invite string }
	var list []waiting
	ended := map[string]bool{}
	var idle []string
	err := f.cfg.Store.List(f.ctx, wire.PoolPrefix(k.Pool), func(o cloud.ObjectInfo) bool {
		dir, name := cutLast(o.Key)
		switch {
		case strings.HasPrefix(name, "invite-"):
			ended[o.Key] = true
		case strings.HasPrefix(name, "idle-"):
			idle = append(idle, o.Key)
			list = append(list, waiting{o.Key, dir + "/invite-" + strings.TrimPrefix(name, "idle-")})
		}
		return true
	})
	if err != nil {
		f.cfg.Logger.Warn("pool not listed", "pool", k.Pool, "err", err)
		return nil
	}
	var got []*machine
	body, _ := json.Marshal(wire.Invite{Run: f.cfg.Run, Kind: k.Name}) // plain data
	slices.Reverse(list)                                               // the latest waiting of a machine comes last
	for _, w := range list {
		if len(got) == n || f.ctx.Err() != nil {
			break
		}
		if ended[w.invite] {
			continue
		}
		if m := f.inviteOne(f.ctx, k, w.key, w.invite, body); m != nil {
			got = append(got, m)
		}
	}
	if len(got) > 0 {
		if r, ok := f.cfg.Machines.(Retagger); ok {
			var ids []string
			for _, m := range got {
				ids = append(ids, m.ID)
			}
			if err := r.Retag(f.ctx, f.cfg.Run, ids...); err != nil {
				f.cfg.Logger.Warn("machines not tagged anew", "machines", ids, "err", err)
			}
		}
	}
	return got
}

func cutLast(key string) (dir, name string) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return "", key
	}
	return key[:i], key[i+1:]
}

// inviteOne asks one machine; nil if it cannot come.
func (f *Fleet) inviteOne(ctx context.Context, k *kindState, key, invite string, body []byte) *machine {
	b, err := f.cfg.Store.Get(ctx, key)
	var idle wire.Idle
	if err != nil || json.Unmarshal(b, &idle) != nil {
		return nil
	}
	now := time.Now()
	if !idle.Until.After(now) || k.Setup.MaxLife > 0 && idle.Launched.Add(k.Setup.MaxLife).Sub(now) < launchFor {
		return nil
	}
	err = f.cfg.Store.Create(ctx, invite, body)
	if cloud.KindOf(err) == cloud.KindConflict {
		// It has left, or somebody else has it; or the reply was lost.
		b, err := f.cfg.Store.Get(ctx, invite)
		if err != nil || string(b) != string(body) {
			return nil
		}
	} else if err != nil {
		return nil
	}
	return &machine{kind: k, Machine: task.Machine{ID: idle.Machine, Type: idle.Type, Zone: idle.Zone, Spot: idle.Spot, Joined: now}}
}

// join takes in a machine that was invited. It may have worked for this run
// before. Only the loop calls it.
func (f *Fleet) join(m *machine) {
	if was := f.s.machines[m.ID]; was != nil && was.alive() {
		was.phase, was.rejoin, was.past = booting, true, was.beat.Session
		was.seen, was.kind, was.missing = time.Now(), m.kind, 0
		was.silent, was.lastRead = 0, time.Time{}
		return
	}
	f.add(m)
}

// terminate ends machines, however long that takes.
func (f *Fleet) terminate(list []*machine, why string) {
	var ids []string
	for _, m := range list {
		if m.dismissed == "" && m.alive() {
			m.dismissed = why
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	f.run(func() {
		err := retry(f.ctx, func() error { return f.cfg.Machines.Terminate(f.ctx, ids...) })
		if err != nil && f.ctx.Err() == nil {
			f.cfg.Notice(fmt.Sprintf("machines could not be terminated, and end when their grant does: %v", err))
			return
		}
		now := time.Now()
		f.do(func() {
			for _, m := range list {
				if !m.losing {
					f.end(m, why, now)
				}
			}
		})
	})
}
