package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/github"
)

func (g *githubStep) outputs(values map[string]string) error {
	var b strings.Builder
	for _, name := range []string{"run", "status", "cost", "summary", "results", "store"} {
		b.WriteString(github.Output(name, values[name]))
	}
	return appendFile(g.app.getenv("GITHUB_OUTPUT"), b.String())
}

// room is how much may still be added to the summary of the step.
func (g *githubStep) room() int {
	room := github.MaxSummary
	if info, err := os.Stat(g.app.getenv("GITHUB_STEP_SUMMARY")); err == nil {
		room -= int(info.Size())
	}
	return max(0, room-1024)
}

// summarize adds to the step's summary. That it cannot be shown is no reason
// to fail.
func (g *githubStep) summarize(text string) {
	if len(text) > g.room() {
		return
	}
	if err := appendFile(g.app.getenv("GITHUB_STEP_SUMMARY"), text+"\n"); err != nil {
		fmt.Fprintf(g.app.messages, "warning: the step summary: %v\n", err)
	}
}

func appendFile(path, text string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// memory is what the clean-up of a step must know of it.
type memory struct {
	Store  string    `json:"store"`
	Key    string    `json:"key"`    // finds the run where Run was not known yet
	Shared bool      `json:"shared"` // the key is one that others may use too
	Began  time.Time `json:"began"`
	Run    string    `json:"run"`
	Others bool      `json:"others"` // it was going on before, in other hands
	Told   bool      `json:"told"`   // its end, or that it goes on by itself, is in the outputs; or nothing began
}

func (g *githubStep) remember(m memory) {
	path := g.given[githubMemory]
	if path == "" {
		return
	}
	b, err := json.Marshal(m)
	if err == nil {
		// Whole or not at all: the step may be killed at any moment.
		if err = os.WriteFile(path+".new", b, 0o600); err == nil {
			err = os.Rename(path+".new", path)
		}
	}
	if err != nil {
		fmt.Fprintf(g.app.messages, "warning: what the clean-up must know cannot be kept: %v\n", err)
	}
}

// cleanupWait is how long the clean-up waits for the end of a run. A
// coordinator elsewhere that was killed is known to be dead after a minute.
const cleanupWait = 100 * time.Second

// cleanup cancels the run of the step if it is still going on: the step was
// cancelled, ran out of time, or was killed.
func (g *githubStep) cleanup(ctx context.Context) error {
	a := g.app
	b, err := os.ReadFile(g.given[githubMemory])
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil // nothing was started
	}
	var m memory
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return fmt.Errorf("what the step started is not known: %w", err)
	}
	if m.Told {
		return nil
	}
	if m.Others {
		fmt.Fprintf(a.messages, "run %s was going on before this step joined it: it is left alone\n", m.Run)
		return nil
	}
	a.storeFlag = m.Store
	e, err := a.reader(ctx)
	if err != nil {
		return err
	}
	if e.Store == nil || m.Run == "" && m.Key == "" {
		return nil
	}
	if m.Run == "" {
		m.Run, err = e.ByKey(ctx, m.Key)
		if cloud.KindOf(err) == cloud.KindNotFound {
			return nil // it was not recorded, so nothing was rented for it
		}
		if err != nil {
			return err
		}
		hd, err := executor.LoadHeader(ctx, e.Store, m.Run)
		if err != nil {
			return err
		}
		if m.Shared && hd.Created.Before(m.Began) {
			return nil // of somebody before
		}
	}
	r, err := e.Cancel(ctx, m.Run, cleanupWait)
	if err != nil {
		return err
	}
	if !r.Status.Final() {
		return fmt.Errorf("run %s was asked to end, but has not after %s; its machines end by their own limits", m.Run, cleanupWait)
	}
	run, err := g.recorded(ctx, e, m.Run)
	if err != nil {
		return err
	}
	return g.end(run)
}
