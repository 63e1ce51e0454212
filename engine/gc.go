package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

// GC removes runs older than their pipeline's retention, and what dead runs
// left on this machine: processes and scratch folders. Live runs are never
// touched. It returns what it did (or, dry, would do), a line each.
func (e *Engine) GC(ctx context.Context, dry bool) ([]string, error) {
	ids, err := e.stored(ctx)
	if err != nil {
		return nil, err
	}
	var did []string
	live := map[string]bool{}
	for _, run := range ids {
		lines, alive, err := e.gcRun(ctx, run, dry)
		if err != nil {
			return did, fmt.Errorf("run %s: %w", run, err)
		}
		live[run] = alive
		did = append(did, lines...)
	}
	if !dry && e.Store != nil { // nil: there is an account, and nothing in it yet
		if ids, err = e.stored(ctx); err != nil { // without those that were removed
			return did, err
		}
		lines, err := e.gcContent(ctx, ids)
		did = append(did, lines...)
		if err != nil {
			return did, err
		}
	}
	lines, err := e.gcScratch(live, dry)
	return append(did, lines...), err
}

func (e *Engine) gcRun(ctx context.Context, run string, dry bool) (did []string, alive bool, err error) {
	v, err := executor.OpenView(ctx, e.Store, run)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, true, nil // deleted, or just being made
	}
	if err != nil {
		// A run that cannot be read is not known to be old; leave it for people to look at.
		fmt.Fprintf(e.Stderr, "coiled-jobs: run %s stays, it cannot be read: %v\n", run, err)
		return nil, true, nil
	}
	if alive, err = v.Alive(ctx); err != nil || alive {
		return nil, true, err
	}
	if !dry {
		agent.KillLeftovers(v.Header.Token)
	}
	r, err := v.Report(ctx)
	if err != nil {
		return nil, false, err
	}
	end := r.Started
	if r.Finished != nil {
		end = *r.Finished
	}
	age := e.now().Sub(end)
	if age <= v.Pipeline().Retention {
		return nil, false, nil
	}
	if !dry {
		if err := e.Remove(ctx, run); err != nil {
			return nil, false, err
		}
	}
	return []string{fmt.Sprintf("%s run %s (%s, %d days old)", removed(dry), run, r.Status, int(age/(24*time.Hour)))}, false, nil
}

// gcScratch removes scratch folders whose run is not live in this store and
// that nobody has touched for a day: runs of other stores are not known here.
func (e *Engine) gcScratch(live map[string]bool, dry bool) ([]string, error) {
	base, err := scratchBase(os.TempDir())
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(base)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var did []string
	for _, entry := range entries {
		run := entry.Name()
		if i := strings.LastIndexByte(run, '-'); i > 0 {
			run = run[:i]
		}
		info, err := entry.Info()
		alive, known := live[run]
		if err != nil || alive || !known && e.now().Sub(info.ModTime()) < 24*time.Hour {
			continue
		}
		if !dry {
			if err := os.RemoveAll(filepath.Join(base, entry.Name())); err != nil {
				return did, err
			}
		}
		did = append(did, removed(dry)+" scratch folder of run "+run)
	}
	return did, nil
}

// removed is the word for what gc does, or would do.
func removed(dry bool) string {
	if dry {
		return "would remove"
	}
	return "removed"
}
