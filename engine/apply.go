package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// Apply starts a run of a planned file, or joins, continues or returns the
// one that o.Key names.
func (e *Engine) Apply(ctx context.Context, p *Planned, o ApplyOptions) (*Handle, error) {
	e, err := e.For(ctx, p.Pipeline.Cloud)
	if err != nil {
		return nil, err
	}
	if err := e.mayApply(p, o); err != nil {
		return nil, err
	}
	run := newRunID(p.Pipeline.Name, e.now())
	if o.Key != "" {
		id, handle, err := e.claimKey(ctx, p, o, run)
		if err != nil || handle != nil {
			return handle, err
		}
		run = id
	}
	h, c, err := e.record(ctx, p, o, run)
	if cloud.KindOf(err) == cloud.KindConflict && o.Key != "" {
		return e.byKey(ctx, p, o, run) // another process with the key was quicker
	}
	if err != nil {
		return nil, err
	}
	return e.start(ctx, h, p.Pipeline, ContinueOptions{Detach: o.Detach}, executor.Begin{Code: e.codes(p.Pipeline, p.Dir)}, c)
}

// mayApply finds out before anything is recorded whether a file can be run here.
func (e *Engine) mayApply(p *Planned, o ApplyOptions) error {
	if p.Pipeline.Cloud == "aws" {
		if err := e.checkAWS(); err != nil {
			return err
		}
		if o.Detach {
			if err := checkLater(executor.Selected(p.Pipeline, o.Functions, o.Only)); err != nil {
				return err
			}
		}
		return checkItems(p)
	}
	if err := agent.Supported(); err != nil {
		return fmt.Errorf("cloud: local: %w", err)
	}
	_, err := e.secrets(executor.Selected(p.Pipeline, o.Functions, o.Only))
	return err
}

// record makes the run, and on aws gathers what it takes along and sends what
// does not belong to it alone.
func (e *Engine) record(ctx context.Context, p *Planned, o ApplyOptions, run string) (h *executor.Header, c *cargo, err error) {
	if p.Pipeline.Cloud != "aws" {
		h, err = e.create(ctx, p, o, run)
		return h, nil, err
	}
	q, err := e.Quote(ctx, p, o)
	if err != nil {
		return nil, nil, err
	}
	told, past := e.askQuotas(ctx, p, q), e.askPast(ctx, p.Pipeline)
	c, err = e.gather(ctx, &executor.Header{Run: run, Dir: p.Dir, Functions: o.Functions, Only: o.Only}, p.Pipeline, q, itemsOf(p))
	if err != nil {
		return nil, nil, err
	}
	told()
	if o.Confirm != nil {
		if err := o.Confirm(q); err != nil {
			return nil, nil, err
		}
	}
	err = allOf(
		func() (err error) { h, err = e.create(ctx, p, o, run); return err },
		func() error { return e.upload(ctx, c) },
	)
	if err != nil && h != nil && o.Key == "" {
		// Nobody has heard of the run, and without its code it cannot begin. One
		// with a key may be somebody else's by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetWithin)
		defer cancel()
		_ = e.Remove(ctx, run) // else it stays as one that never began
		return nil, nil, err
	}
	c.expect = past()
	return h, c, err
}

// forgetWithin is how long it may take to remove a run that did not come to be.
const forgetWithin = 5 * time.Second

// itemsOf is the items that are known of a plan, by function.
func itemsOf(p *Planned) map[string]planner.Items {
	by := map[string]planner.Items{}
	for _, f := range p.Plan.Functions {
		if f.Items != nil {
			by[f.Name] = f.Items
		}
	}
	return by
}

// newRunID is the pipeline's name, the time, and enough chance that no two
// runs share it: runs sort by time, and people see what they are.
func newRunID(pipeline string, now time.Time) string {
	return pipeline + "-" + now.UTC().Format("20060102-150405") + "-" + strings.ToLower(rand.Text()[:5])
}

// create records a run: the items of maps that are known, the file, the
// header (with which it exists), and a pointer for the caller.
func (e *Engine) create(ctx context.Context, p *Planned, o ApplyOptions, run string) (*executor.Header, error) {
	file, err := filepath.Abs(o.File)
	if err != nil {
		return nil, err
	}
	h := &executor.Header{Run: run, Pipeline: p.Pipeline.Name, File: file, Dir: p.Dir, Params: o.Params,
		Cloud: p.Pipeline.Cloud, Key: o.Key, Owner: e.Owner, Version: e.Version, Created: e.now(), Scheduled: o.Scheduled,
		Functions: o.Functions, First: o.First, Only: o.Only, NoCache: o.NoCache, MaxCost: o.MaxCost,
		Token: rand.Text(), Planned: map[string]int{}, Values: string(value.JSON(p.Pipeline.Params))}
	for _, f := range p.Plan.Functions {
		if f.Tasks >= 0 {
			h.Planned[f.Name] = f.Tasks
		}
		if f.Items != nil {
			if err := executor.SaveItems(ctx, e.Store, run, f.Name, f.Items); err != nil {
				return nil, err
			}
		}
	}
	if err := executor.Create(ctx, e.Store, h, p.Pipeline.Source); err != nil {
		return nil, err
	}
	region := ""
	if p.quote != nil {
		region = p.quote.Kinds[0].Region
	}
	e.point(h, region)
	return h, nil
}

// keyRecord is what keys/<hash> holds: a key belongs to one pipeline, its
// parameters and its tick.
type keyRecord struct {
	Pipeline  string    `json:"pipeline"`
	Key       string    `json:"key"`
	Run       string    `json:"run"`
	Values    string    `json:"values"`
	Scheduled time.Time `json:"scheduled,omitzero"`
}

func keyObject(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "keys/" + hex.EncodeToString(sum[:16])
}

// claimKey binds the key to a new run, or finds the run it is bound to: then
// there is a handle, or an id under which the run is still to be created.
func (e *Engine) claimKey(ctx context.Context, p *Planned, o ApplyOptions, run string) (string, *Handle, error) {
	rec := keyRecord{Pipeline: p.Pipeline.Name, Key: o.Key, Run: run, Values: string(value.JSON(p.Pipeline.Params)), Scheduled: o.Scheduled}
	b, err := json.Marshal(rec)
	if err != nil {
		return "", nil, err
	}
	object := keyObject(o.Key)
	err = e.Store.Create(ctx, object, b)
	if err == nil {
		return run, nil, nil
	}
	if cloud.KindOf(err) != cloud.KindConflict {
		return "", nil, err
	}
	b, err = e.Store.Get(ctx, object)
	if err != nil {
		return "", nil, err
	}
	var old keyRecord
	if err := json.Unmarshal(b, &old); err != nil {
		return "", nil, &cloud.Error{Op: "read", Resource: object, Kind: cloud.KindCorrupt, Err: err}
	}
	if diff := differences(old, rec); diff != "" {
		return "", nil, usagef("the key %q belongs to run %s, which is not the same: %s; use another key", o.Key, old.Run, diff)
	}
	h, err := e.byKey(ctx, p, o, old.Run)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return old.Run, nil, nil // claimed, but killed before the run was recorded, or removed since
	}
	return "", h, err
}

// differences names what two uses of a key disagree about; "" if nothing.
func differences(a, b keyRecord) string {
	var old, now map[string]any
	// Both were written by us; what cannot be read differs in everything.
	_ = json.Unmarshal([]byte(a.Values), &old)
	_ = json.Unmarshal([]byte(b.Values), &now)
	names := map[string]bool{}
	for n := range old {
		names[n] = true
	}
	for n := range now {
		names[n] = true
	}
	var diffs []string
	for n := range names {
		if x, y := value.Text(old[n]), value.Text(now[n]); x != y {
			diffs = append(diffs, fmt.Sprintf("%s was %s and is now %s", n, x, y))
		}
	}
	sort.Strings(diffs)
	if a.Pipeline != b.Pipeline {
		diffs = append([]string{fmt.Sprintf("the pipeline was %s and is now %s", a.Pipeline, b.Pipeline)}, diffs...)
	}
	if !a.Scheduled.Equal(b.Scheduled) {
		diffs = append(diffs, fmt.Sprintf("run.scheduled was %s and is now %s", a.Scheduled.Format(time.RFC3339), b.Scheduled.Format(time.RFC3339)))
	}
	return strings.Join(diffs, ", ")
}

// byKey joins, returns or continues the run that a key names.
func (e *Engine) byKey(ctx context.Context, p *Planned, o ApplyOptions, run string) (*Handle, error) {
	v, r, err := e.settledView(ctx, run)
	if err != nil {
		return nil, err
	}
	region := ""
	if v.Header.Cloud == "aws" {
		rec, err := loadFleet(ctx, e.Store, run)
		if err != nil {
			return nil, err
		}
		if rec != nil {
			region = rec.Region
		}
	}
	e.point(v.Header, region)
	switch r.Status {
	case executor.RunRunning:
		return e.join(ctx, run, "joined: this run has the key "+o.Key+" and is running",
			func(ctx context.Context) (*Handle, error) { return e.byKey(ctx, p, o, run) })
	case executor.RunSucceeded:
		note := "this run has the key " + o.Key + " and has succeeded; nothing is run again"
		if fn := e.changedCode(v, p.Pipeline, p.Dir); fn != "" {
			note += " (warning: the code of " + fn + " has changed since; use another key to run it)"
		} else if !bytes.Equal(v.Pipeline().Source, p.Pipeline.Source) {
			note += " (warning: the pipeline file has changed since; use another key to run it)"
		}
		return finishedHandle(r, note), nil
	case executor.RunPending:
		return e.Resume(ctx, run, ContinueOptions{Detach: o.Detach, CodeNew: true, File: o.File})
	}
	h, err := e.Retry(ctx, run, ContinueOptions{Detach: o.Detach, NoCache: o.NoCache, File: o.File})
	if h != nil && h.Joined == "" {
		h.Joined = "this run has the key " + o.Key + " and its status was " + string(r.Status) + "; it goes on"
	}
	return h, err
}

// secrets resolves the secrets of functions from the caller's environment.
func (e *Engine) secrets(fs []*spec.Function) (map[string]string, error) {
	env := map[string]string{}
	for _, kv := range e.Environ {
		if name, val, ok := strings.Cut(kv, "="); ok {
			env[name] = val
		}
	}
	found := map[string]string{}
	var problems spec.Problems
	seen := map[string]bool{}
	for _, f := range fs {
		for _, s := range f.Secrets {
			if val, ok := env[s.Name]; ok {
				found[s.Name] = val
				continue
			}
			if seen[s.Name] {
				continue
			}
			seen[s.Name] = true
			msg := fmt.Sprintf("secrets.%s: the variable %s is not set in your environment", s.Name, s.Name)
			if s.Ref != "" {
				msg += "; on this machine " + s.Ref + " is not looked up, set the variable instead"
			}
			problems = append(problems, spec.Problem{Pos: s.Pos, Message: msg})
		}
	}
	return found, problems.Err()
}
