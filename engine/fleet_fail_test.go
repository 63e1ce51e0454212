package engine

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
)

const brokenPipeline = `name: demo
cloud: aws
secrets: [TOKEN]
functions:
  f:
    run: test "$TOKEN" = "geheim"
    hardware: {vm_type: m6i.large, keepalive: 0s}
`

// A run whose machines cannot start ends soon, with what they say, and leaves
// nothing but its secrets; it goes on when that is mended, for somebody who does
// not have them.
func TestMachinesCannotStart(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.broken.Store(true)
	h := apply(t, c.engine("TOKEN=geheim"), ApplyOptions{File: write(t, "pipeline.yaml", brokenPipeline)})
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	r, err := h.Wait(ctx)
	if err == nil || !strings.Contains(err.Error(), "the machine did not start: it ended before it said hello\nboot\nagent.gz: FAILED") ||
		!strings.Contains(err.Error(), "coiled-jobs resume "+h.Run) {
		t.Errorf("%v", err)
	}
	if r.Status.Final() {
		t.Errorf("it is %s", r.Status)
	}
	c.mu.Lock()
	if n := len(c.queues); n > 0 {
		t.Errorf("%d queues are left", n)
	}
	c.mu.Unlock()
	c.broken.Store(false)
	h, err = c.engine().Resume(t.Context(), h.Run, ContinueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, h, executor.RunSucceeded)
}

// A coordinator's machine that cannot start is told of with its log, and ended;
// the run can go on without it.
func TestDetachedCoordinatorCannotStart(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.broken.Store(true)
	e := c.engine("TOKEN=geheim")
	o := ApplyOptions{File: write(t, "pipeline.yaml", brokenPipeline), Detach: true}
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Apply(t.Context(), p, o)
	if err == nil || !strings.Contains(err.Error(), "boot\nagent.gz: FAILED\ngo on without it: coiled-jobs resume demo-") {
		t.Fatalf("%v", err)
	}
	if n := len(c.region.Live()); n > 0 {
		t.Errorf("%d machines live", n)
	}
	c.broken.Store(false)
	list, err := e.Runs(t.Context(), false)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	h, err := e.Resume(t.Context(), list[0].Run, ContinueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, h, executor.RunSucceeded)
}

// Who interrupts a detached start before the coordinator has begun cancels the
// run: nothing is left of it.
func TestDetachedStartIsInterrupted(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]func(c *fakeCloud, e *Engine, interrupt func()){
		"while the machine boots": func(c *fakeCloud, _ *Engine, interrupt func()) { c.stuck = interrupt },
		"while it is launched": func(_ *fakeCloud, e *Engine, interrupt func()) {
			open := e.AWS.Machines
			e.AWS.Machines = func(ctx context.Context, region, run string, store cloud.Store, launch func(cloud.MachineSpec) (Launch, error)) (Machines, error) {
				m, err := open(ctx, region, run, store, launch)
				return interruptedLaunch{m, interrupt}, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			e := c.engine("TOKEN=geheim")
			ctx, cancel := context.WithCancel(t.Context())
			when(c, e, cancel)
			testInterrupted(ctx, t, e)
		})
	}
}

// interruptedLaunch is machines whose launch is interrupted.
type interruptedLaunch struct {
	Machines
	interrupt func()
}

func (m interruptedLaunch) Launch(ctx context.Context, _ cloud.MachineSpec) ([]cloud.Machine, error) {
	m.interrupt()
	return nil, ctx.Err()
}

func testInterrupted(ctx context.Context, t *testing.T, e *Engine) {
	t.Helper()
	o := ApplyOptions{File: write(t, "pipeline.yaml", brokenPipeline), Detach: true}
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = e.Apply(ctx, p, o); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "run demo") {
		t.Fatalf("%v", err)
	}
	list, err := e.Runs(t.Context(), false)
	if err != nil || len(list) != 1 || list[0].Status != string(executor.RunCancelled) {
		t.Fatalf("%+v, %v", list, err)
	}
}

// A run whose code could not be sent was none: nothing of it is left that waits
// for ever.
func TestRunThatCouldNotBeSentIsForgotten(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	e := c.engine()
	failed := errors.New("the program cannot be published")
	e.AWS.Publish = func(ctx context.Context, store cloud.Store, _ string) (Program, error) {
		for { // until the run is recorded
			found := false
			err := store.List(ctx, executor.IndexPrefix, func(cloud.ObjectInfo) bool { found = true; return false })
			if err != nil || found {
				return Program{}, errors.Join(failed, err)
			}
			runtime.Gosched()
		}
	}
	o := ApplyOptions{File: write(t, "pipeline.yaml", "name: p\ncloud: aws\nfunctions:\n  f: {command: [x], map: {range: 3}}\n")}
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Apply(t.Context(), p, o); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	for _, prefix := range []string{executor.IndexPrefix, "runs/"} {
		err := e.Store.List(t.Context(), prefix, func(o cloud.ObjectInfo) bool { t.Errorf("%s is left", o.Key); return true })
		if err != nil {
			t.Error(err)
		}
	}
	if own, err := e.own(); err != nil || len(own) > 0 {
		t.Errorf("the caller has %v, %v", own, err)
	}
}
