package engine

import (
	"context"
	"strings"
	"testing"
	"time"

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
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
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
