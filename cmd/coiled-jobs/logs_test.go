package main

import (
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
)

// What a task on a machine prints is followed within three seconds: it is in the
// store after agent.LogDelay (a test of that package holds it), and -f looks so
// often. The rest is for an upload and a read.
func TestLogsAreFollowedSoon(t *testing.T) {
	t.Parallel()
	if all := agent.LogDelay + followOften; all > 2900*time.Millisecond {
		t.Errorf("what tasks print is seen after %v", all)
	}
}
