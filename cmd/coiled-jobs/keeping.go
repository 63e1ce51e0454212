package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// keeping looks after schedules while a server runs.
type keeping struct {
	app    *app
	engine *engine.Engine
	keeper *schedule.Keeper
	paths  []string
	// settled is told what became of ticks.
	settled func([]schedule.Record)

	mu      sync.Mutex
	files   []engine.ScheduledFile
	told    map[string]string    // what was said of a broken file
	busy    map[string]time.Time // schedules that are looked at, and since when
	failing map[string]string    // what was said of one that cannot be looked after

	free   chan struct{} // holds one for each schedule that is looked at, but for those that take long
	rounds sync.WaitGroup
}

func newKeeping(a *app, e *engine.Engine, paths []string) *keeping {
	return &keeping{app: a, engine: e, keeper: e.Keeper(), paths: paths, settled: func([]schedule.Record) {},
		told: map[string]string{}, busy: map[string]time.Time{}, failing: map[string]string{}, free: make(chan struct{}, atOnceSchedules)}
}

// read reads the files again.
func (k *keeping) read() error {
	files, err := k.engine.ScheduledFiles(k.paths)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files = files
	maps.DeleteFunc(k.told, func(file, _ string) bool {
		return !slices.ContainsFunc(files, func(f engine.ScheduledFile) bool { return f.File == file })
	})
	for _, f := range files {
		text := ""
		if f.Err != nil {
			text = message(f.Err)
		}
		if old := k.told[f.File]; text != old {
			if text != "" {
				fmt.Fprintln(k.app.messages, text)
			} else {
				fmt.Fprintf(k.app.messages, "%s is fine again\n", ui.Clean(f.File))
			}
			k.told[f.File] = text
		}
	}
	return nil
}

// last is the files as they were read last.
func (k *keeping) last() []engine.ScheduledFile {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.files
}

// loop does a round now and then until ctx ends.
func (k *keeping) loop(ctx context.Context, every time.Duration, alive func()) {
	defer k.rounds.Wait()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		k.round(ctx)
		alive()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// atOnceSchedules is how many schedules are looked at at a time.
const atOnceSchedules = 16

// longRound is after how long it is said that a schedule keeps its keeper: it
// lists a large bucket, waits for a run that it replaces, or is stuck.
const longRound = time.Minute

// round reads the files and begins with what is due. A schedule that is still
// looked at since an earlier round is left to that: one schedule's trouble does
// not hold up the others.
func (k *keeping) round(ctx context.Context) {
	err := k.read()
	k.note(ctx, "", "schedules", err)
	if err != nil {
		return
	}
	for _, f := range k.last() {
		for _, s := range f.Schedules {
			id := s.Pipeline + "/" + s.ID
			since, going := k.begin(id)
			switch {
			case !going:
				k.rounds.Go(func() { k.one(ctx, id, s) })
			case time.Since(since) > longRound:
				k.note(ctx, id, s.Pipeline, fmt.Errorf("to start what is due takes longer than %s; the others go on", longRound))
			}
		}
	}
}

// begin notes that a schedule is looked at from now on, unless it is already.
func (k *keeping) begin(id string) (since time.Time, going bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if since, going = k.busy[id]; !going {
		k.busy[id] = time.Now()
	}
	return since, going
}

// one does what is due for a schedule.
func (k *keeping) one(ctx context.Context, id string, s schedule.Schedule) {
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.busy, id)
	}()
	select {
	case k.free <- struct{}{}:
	case <-ctx.Done():
		return
	}
	release := sync.OnceFunc(func() { <-k.free })
	defer release()
	defer time.AfterFunc(longRound, release).Stop()
	settled, err := k.keeper.Round(ctx, s, time.Now())
	k.settled(settled)
	k.note(ctx, id, s.Pipeline, err)
	for i := range settled {
		fmt.Fprintf(k.app.messages, "%s  %s  %s\n", settled[i].Tick.UTC().Format(time.RFC3339), ui.Clean(s.Pipeline), ui.Clean(outcomeText(&settled[i])))
	}
}

// note says what is in the way of schedules, once, and when it is not any more.
func (k *keeping) note(ctx context.Context, id, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch old := k.failing[id]; {
	case text != "" && text != old:
		fmt.Fprintf(k.app.messages, "%s: %s: %s; trying on\n", program, ui.Clean(what), ui.Clean(text))
	case text == "" && old != "":
		fmt.Fprintf(k.app.messages, "%s: %s: looked after again\n", program, ui.Clean(what))
	}
	k.failing[id] = text
}
