package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// regionsOf is where to look: the region that was named, or the configured one
// and those of the caller's own runs.
func regionsOf(ctx context.Context, e *engine.Engine, named string) ([]string, error) {
	if named != "" {
		return []string{named}, nil
	}
	list, err := e.OwnRegions()
	if err != nil {
		return nil, err
	}
	if home := aws.ConfiguredRegion(ctx); home != "" && !slices.Contains(list, home) {
		list = append([]string{home}, list...)
	}
	if len(list) == 0 {
		list = []string{""} // the SDK's default
	}
	return list, nil
}

// accountRegions is where to look in the account, each by its name.
func accountRegions(ctx context.Context, e *engine.Engine, named string) ([]string, error) {
	who, err := aws.WhoAmI(ctx, named)
	if err != nil {
		return nil, err
	}
	list, err := regionsOf(ctx, e, named)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i] = cmp.Or(list[i], who.Region)
	}
	return list, nil
}

// gcAccount removes what runs left in the account, and, of the account's own
// bucket, runs beyond their retention.
func (o *gcOptions) gcAccount(ctx context.Context, e *engine.Engine) (left []aws.Leftover, lines []string, err error) {
	regions, err := accountRegions(ctx, e, o.cloud.region)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, region := range regions {
		found, did, err := o.gcRegion(ctx, e, region)
		left, lines = append(left, found...), append(lines, did...)
		errs = append(errs, err)
	}
	return left, lines, errors.Join(errs...)
}

// sweep finds and removes what runs left in a region. What it saw is kept in
// the bucket, so that whoever sweeps next sees it for the second time.
func (a *app) sweep(ctx context.Context, j *judge, region string, now, dry bool) ([]aws.Leftover, error) {
	notes := j.bucket()
	if notes == nil {
		var err error
		if notes, err = local.OpenStore(filepath.Join(j.e.StateDir, "gc")); err != nil {
			return nil, err
		}
	}
	key := "gc/marks-" + region + ".json"
	marks := map[string]time.Time{}
	b, err := notes.Get(ctx, key)
	if err == nil {
		err = json.Unmarshal(b, &marks)
	}
	if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
		return nil, fmt.Errorf("read what gc saw before: %w", err)
	}
	s, err := aws.OpenSweeper(ctx, region)
	if err != nil {
		return nil, err
	}
	had := len(marks) > 0
	left, err := s.Sweep(ctx, aws.SweepOptions{Over: j.over, Marks: marks, Now: now, Dry: dry})
	if dry || !had && len(marks) == 0 {
		return left, err
	}
	b, merr := json.Marshal(marks)
	if merr == nil {
		merr = notes.Put(ctx, key, b)
	}
	return left, errors.Join(err, merr)
}

// sweepQuietly sweeps beside a run that has begun: nobody has to remember to.
// What goes wrong is for gc to tell. The run is not held up: the returned
// function ends the sweep and waits for it.
func (a *app) sweepQuietly(ctx context.Context, e *engine.Engine) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		regions, err := regionsOf(ctx, e, "")
		if err != nil {
			return
		}
		for _, region := range regions {
			if region == "" || ctx.Err() != nil {
				continue
			}
			j := &judge{a: a, e: e, now: time.Now(), stores: []cloud.Store{e.Store}, runs: map[string]verdict{}}
			_, _ = a.sweep(ctx, j, region, false, false)
		}
	}()
	return func() { cancel(); <-done }
}

func (o *gcOptions) gcRegion(ctx context.Context, e *engine.Engine, region string) (left []aws.Leftover, lines []string, err error) {
	j := o.app.newJudge(ctx, e, region)
	left, err = o.app.sweep(ctx, j, region, o.now, o.dryRun)
	errs := []error{err}
	for _, store := range j.stores {
		if !strings.HasPrefix(store.URL(), "s3://") {
			continue
		}
		if e.Store == nil || store.URL() != e.Store.URL() { // engine has looked at its own
			other := *e
			other.Store = store
			did, err := other.GC(ctx, o.dryRun)
			lines = append(lines, did...)
			errs = append(errs, err)
		}
		did, err := o.gcPools(ctx, store, region, j.now)
		lines = append(lines, did...)
		errs = append(errs, err)
	}
	return left, lines, errors.Join(errs...)
}

// staleIdle is after how long what a machine wrote about its waiting is
// removed, once the machine is gone.
const staleIdle = 24 * time.Hour

// gcPools removes what machines that are gone wrote about their waiting.
func (o *gcOptions) gcPools(ctx context.Context, store cloud.Store, region string, now time.Time) ([]string, error) {
	newest := map[string]time.Time{} // by pools/<pool>/<machine>
	err := store.List(ctx, "pools/", func(x cloud.ObjectInfo) bool {
		if i := strings.LastIndexByte(x.Key, '/'); i > len("pools/") && newest[x.Key[:i]].Before(x.Modified) {
			newest[x.Key[:i]] = x.Modified
		}
		return true
	})
	if err != nil || len(newest) == 0 {
		return nil, err
	}
	m, err := aws.OpenMachines(ctx, aws.MachinesOptions{Region: region})
	if err != nil {
		return nil, err
	}
	list, err := m.Instances(ctx)
	if err != nil {
		return nil, err
	}
	live := map[string]bool{}
	for _, x := range list {
		live[x.ID] = true
	}
	removed := 0
	for prefix, at := range newest {
		// The age is for machines of other regions, which are not known here.
		if live[prefix[strings.LastIndexByte(prefix, '/')+1:]] || now.Sub(at) < staleIdle {
			continue
		}
		if !o.dryRun {
			if err := store.DeletePrefix(ctx, prefix); err != nil {
				return nil, err
			}
		}
		removed++
	}
	if removed == 0 {
		return nil, nil
	}
	return []string{"removed the notes of " + ui.Plural(removed, "machine") + " that are gone"}, nil
}

// leftoverLine is a leftover for people.
func leftoverLine(l aws.Leftover) string {
	text := fmt.Sprintf("%s %s of run %s: %s", l.Kind, l.ID, l.Run, l.Why)
	switch l.State {
	case "marked":
		return "marked " + text + "; the next gc removes it, if it is still there"
	case "found":
		return "would remove " + text
	}
	return "removed " + text
}
