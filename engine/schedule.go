package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// ScheduledFile is a pipeline file as schedules see it.
type ScheduledFile struct {
	File      string
	Pipeline  string // its name; "" if the file could not be read
	Schedules []schedule.Schedule
	Err       error // why nothing of it is scheduled: spec.Problems or a *UsageError
}

// looksLikePipeline tells pipeline files from other YAML in a folder, also
// when they are broken.
var looksLikePipeline = regexp.MustCompile(`(?m)^["']?functions["']?\s*:`)

// ScheduledFiles reads the pipeline files that are named or lie in folders that
// are named, each once. One that is broken, or is not there, has its Err set
// and does not harm the others.
func (e *Engine) ScheduledFiles(paths []string) ([]ScheduledFile, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil || !info.IsDir() {
			files = append(files, path)
			continue
		}
		found, err := pipelinesBelow(path)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	seen := map[string]bool{}
	files = slices.DeleteFunc(files, func(file string) bool {
		whole, err := filepath.Abs(file)
		again := err == nil && seen[whole]
		seen[whole] = true
		return again
	})
	byName := map[string]*ScheduledFile{}
	list := make([]ScheduledFile, 0, len(files))
	for _, file := range files {
		f := e.scheduledFile(file)
		if other := byName[f.Pipeline]; other != nil && f.Err == nil && len(f.Schedules)+len(other.Schedules) > 0 {
			f.Err = usagef("%s: the name %s is also that of %s; each scheduled pipeline needs its own", file, f.Pipeline, other.File)
		}
		if f.Err != nil {
			f.Schedules = nil
		} else if byName[f.Pipeline] == nil {
			byName[f.Pipeline] = &f
		}
		list = append(list, f)
	}
	return list, nil
}

func pipelinesBelow(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path != dir {
				return fs.SkipDir // it went away, or is not ours to read
			}
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != dir && (strings.HasPrefix(name, ".") || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if ext := filepath.Ext(name); ext != ".yaml" && ext != ".yml" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // it went away, or is not ours to read: then it is not ours to run
		}
		if looksLikePipeline.Match(bytes.TrimPrefix(b, []byte("\ufeff"))) {
			files = append(files, path)
		}
		return nil
	})
	sort.Strings(files)
	return files, err
}

func (e *Engine) scheduledFile(file string) ScheduledFile {
	f := ScheduledFile{File: file}
	if _, err := os.Stat(file); err != nil {
		f.Err = usagef("%v", err)
		return f
	}
	doc, err := spec.Load(file)
	if err != nil {
		f.Err = err
		return f
	}
	// Parameters without a default get their values when a run starts.
	p, problems := doc.Bind(spec.BindOptions{Lenient: true})
	if f.Err = problems.Err(); f.Err != nil {
		return f
	}
	f.Pipeline = p.Name
	f.Schedules, f.Err = schedule.Of(p, file)
	return f
}

// Keeper looks after schedules with runs of this engine, each a process or a
// machine of its own.
func (e *Engine) Keeper() *schedule.Keeper {
	return &schedule.Keeper{Store: e.Store, Runner: newScheduleRunner(e), By: e.Owner, Missed: e.notifyMissed}
}

// scheduleRunner starts detached runs.
type scheduleRunner struct {
	e *Engine

	mu      sync.Mutex
	running map[string]*executor.View // what went on when it was looked at last
}

func newScheduleRunner(e *Engine) *scheduleRunner {
	return &scheduleRunner{e: e, running: map[string]*executor.View{}}
}

func (r *scheduleRunner) Start(ctx context.Context, s schedule.Schedule, key string, tick time.Time) (string, error) {
	h, err := r.e.startTick(ctx, s, key, tick, true)
	if err != nil {
		return "", err
	}
	return h.Run, nil
}

func (e *Engine) startTick(ctx context.Context, s schedule.Schedule, key string, tick time.Time, detach bool) (*Handle, error) {
	o := ApplyOptions{File: s.File, Params: s.Params, Key: key, Scheduled: tick, Detach: detach}
	p, err := e.Plan(ctx, o)
	if err == nil {
		var h *Handle
		if h, err = e.Apply(ctx, p, o); err == nil {
			return h, nil
		}
	}
	var problems spec.Problems
	var usage *UsageError
	if errors.As(err, &problems) || errors.As(err, &usage) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", schedule.ErrBroken, err)
	}
	return nil, err
}

// StartTick starts the run of a tick in this process: backfill.
func (e *Engine) StartTick(ctx context.Context, s schedule.Schedule, key string, tick time.Time) (*Handle, error) {
	return e.startTick(ctx, s, key, tick, false)
}

// Status is asked every few seconds while a run goes on: of one that was
// looked at before it reads only what is new.
func (r *scheduleRunner) Status(ctx context.Context, run string) (string, error) {
	r.mu.Lock()
	v := r.running[run]
	delete(r.running, run) // a View serves one at a time
	r.mu.Unlock()
	if v != nil {
		// What is not running any more may also have been removed.
		if report, err := v.Report(ctx); err != nil || report.Status == executor.RunRunning {
			r.keep(run, v)
			return string(report.Status), err
		}
	}
	v, err := executor.OpenView(ctx, r.e.Store, run)
	if err != nil {
		return "", err
	}
	report, err := v.Report(ctx)
	if err == nil && report.Status == executor.RunRunning {
		r.keep(run, v)
	}
	return string(report.Status), err
}

func (r *scheduleRunner) keep(run string, v *executor.View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[run] = v
}

func (r *scheduleRunner) Cancel(ctx context.Context, run string) error {
	_, err := r.e.Cancel(ctx, run, time.Minute)
	return err
}

// TickRun is the run that belongs to the key of a tick, and its status; "" if
// there is none.
func (e *Engine) TickRun(ctx context.Context, key string) (run, status string, err error) {
	b, err := e.Store.Get(ctx, keyObject(key))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return "", "", nil
	}
	var rec keyRecord
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil {
		return "", "", err
	}
	status, err = newScheduleRunner(e).Status(ctx, rec.Run)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return "", "", nil // claimed, and never begun
	}
	return rec.Run, status, err
}
