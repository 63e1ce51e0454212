package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// settled is how long after the end of a run, or of a grant, what it had is
// left alone: whoever ended it is removing it.
const settled = 2 * time.Minute

// judge says whether runs are over, by what their stores say. What cannot be
// looked up is never over.
type judge struct {
	a      *app
	e      *engine.Engine
	now    time.Time
	stores []cloud.Store // where runs are that do not say where they are
	runs   map[string]verdict
}

// verdict is what became of a run.
type verdict struct {
	store cloud.Store
	over  bool
	// resumable: it has not ended, and somebody may go on with it at any time.
	resumable bool
	status    string // of the run
	why       string
	err       error
}

func (a *app) newJudge(ctx context.Context, e *engine.Engine, region string) *judge {
	j := &judge{a: a, e: e, now: time.Now(), runs: map[string]verdict{}}
	if e.Store != nil {
		j.stores = append(j.stores, e.Store)
	}
	if s, err := aws.DefaultStore(ctx, region); err == nil && (e.Store == nil || s.URL() != e.Store.URL()) {
		j.stores = append(j.stores, s)
	}
	return j
}

// bucket is the store in a bucket that notes are kept in; nil if there is none.
func (j *judge) bucket() cloud.Store {
	for _, s := range j.stores {
		if strings.HasPrefix(s.URL(), "s3://") {
			return s
		}
	}
	return nil
}

// over says whether nobody needs a thing of a run.
func (j *judge) over(ctx context.Context, t aws.Thing) (bool, string, error) {
	v := j.run(ctx, t.Store, t.Run)
	if t.Kind == aws.ThingSecret && v.resumable {
		return false, "", v.err // whoever goes on with the run may not have its values; rm removes them
	}
	if v.err != nil || !v.over || t.Machine == nil || t.Machine.Role != "" || t.Machine.Pool == "" || v.store == nil {
		return v.over && v.err == nil, v.why, v.err
	}
	return j.waits(ctx, v, *t.Machine)
}

// run is the verdict on a run; url is its store, "" if that is not known.
func (j *judge) run(ctx context.Context, url, run string) verdict {
	key := url + "\x00" + run
	v, ok := j.runs[key]
	if !ok {
		v = j.look(ctx, url, run)
		j.runs[key] = v
	}
	return v
}

func (j *judge) look(ctx context.Context, url, run string) verdict {
	if strings.HasPrefix(url, "s3://") {
		store, err := j.a.openStore(ctx, url, false)
		if err != nil {
			return verdict{err: err}
		}
		v, found := j.in(ctx, store, run)
		if !found {
			return verdict{store: store, over: true, status: "deleted", why: "its run was deleted"}
		}
		return v
	}
	stores := j.stores
	own, err := j.e.OwnStore(run)
	if err != nil {
		return verdict{err: err}
	}
	if own != nil {
		stores = append([]cloud.Store{own}, stores...)
	}
	for _, s := range stores {
		if v, found := j.in(ctx, s, run); found {
			return v
		}
	}
	return verdict{err: errors.New("it does not say in which store its run is, and it is in none that is known here; name it with --store")}
}

// in is the verdict on a run in a store.
func (j *judge) in(ctx context.Context, store cloud.Store, run string) (v verdict, found bool) {
	v.store = store
	view, err := executor.OpenView(ctx, store, run)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return v, false
	}
	if err != nil {
		v.err = err
		return v, true
	}
	r, err := view.Report(ctx)
	if err != nil {
		v.err = err
		return v, true
	}
	v.status = string(r.Status)
	if r.Finished != nil {
		v.over = j.now.Sub(*r.Finished) > settled
		v.why = fmt.Sprintf("its run %s at %s", r.Status, r.Finished.UTC().Format(time.RFC3339))
		return v, true
	}
	if alive, err := view.Alive(ctx); err != nil || alive {
		v.err = err
		return v, true
	}
	v.resumable = true
	// Nobody coordinates it. Its machines may go on as long as they were granted.
	until := view.Header.Created.Add(view.Pipeline().Limits.Unattended)
	b, err := store.Get(ctx, wire.ControlKey(run))
	if err == nil {
		var c wire.Control
		if err = json.Unmarshal(b, &c); err == nil {
			until = c.Until
		}
	} else if cloud.KindOf(err) == cloud.KindNotFound {
		err = nil
	}
	if err != nil {
		v.err = err
		return v, true
	}
	v.over = j.now.Sub(until) > settled
	v.why = "its run has no coordinator, and what was granted ended at " + until.UTC().Format(time.RFC3339)
	return v, true
}

// waits says whether a machine whose run is over is needed all the same: it
// waits for another, or was invited by one and does not carry its name yet.
func (j *judge) waits(ctx context.Context, v verdict, m aws.Instance) (bool, string, error) {
	prefix := wire.PoolPrefix(m.Pool) + m.ID + "/"
	last := 0
	err := v.store.List(ctx, prefix, func(o cloud.ObjectInfo) bool {
		name := strings.TrimSuffix(strings.TrimPrefix(o.Key, prefix), ".json")
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "idle-")); err == nil && strings.HasPrefix(name, "idle-") {
			last = max(last, n)
		}
		return true
	})
	if err != nil {
		return false, "", err
	}
	if last == 0 {
		return true, v.why, nil
	}
	var invite wire.Invite
	b, err := v.store.Get(ctx, wire.InviteKey(m.Pool, m.ID, last))
	if err == nil {
		err = json.Unmarshal(b, &invite)
	}
	switch {
	case err == nil && invite.Run != "" && invite.Run != m.Run:
		next := j.run(ctx, v.store.URL(), invite.Run)
		return next.over && next.err == nil, next.why, next.err
	case err == nil:
		return true, v.why, nil
	case cloud.KindOf(err) != cloud.KindNotFound:
		return false, "", err
	}
	var idle wire.Idle
	if b, err = v.store.Get(ctx, wire.IdleKey(m.Pool, m.ID, last)); err == nil {
		err = json.Unmarshal(b, &idle)
	}
	if err != nil {
		return false, "", err
	}
	if j.now.Sub(idle.Until) <= settled {
		return false, "", nil
	}
	return true, v.why + "; it waited for another until " + idle.Until.UTC().Format(time.RFC3339), nil
}
