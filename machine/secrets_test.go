//go:build linux

package machine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// A fleet asks for its secrets at once: all of a machine's are one request, and
// a service that is busy, or silent for a moment, fails no task. What cannot be
// had is named.
func TestSecrets(t *testing.T) {
	failing := func(kind cloud.Kind, until time.Duration) func(context.Context, time.Duration, map[string]string) error {
		return func(_ context.Context, since time.Duration, _ map[string]string) error {
			if since < until {
				return &cloud.Error{Op: "read", Resource: "secret", Kind: kind}
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		err   func(ctx context.Context, since time.Duration, refs map[string]string) error
		fails string // the message of the task; "": it succeeds
		after time.Duration
	}{
		"at once":           {failing(cloud.KindOther, 0), "", 10 * time.Second},
		"busy for long":     {failing(cloud.KindThrottled, 10*time.Minute), "", 11 * time.Minute},
		"away for a moment": {failing(cloud.KindTransient, time.Minute), "", 2 * time.Minute},
		"away for good":     {failing(cloud.KindTransient, time.Hour), "secrets: read secret: transient", 3 * time.Minute},
		"a request that hangs": {func(ctx context.Context, since time.Duration, _ map[string]string) error {
			if since > time.Minute {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}, "", 3 * time.Minute},
		"one that is denied": {func(_ context.Context, _ time.Duration, refs map[string]string) error {
			for _, ref := range refs {
				if ref == "ssm:/b" {
					return &cloud.Error{Op: "read", Resource: "secret " + ref, Kind: cloud.KindDenied}
				}
			}
			return nil
		}, "secrets.B: read secret ssm:/b: denied", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.put(wire.SetupKey("r1", "k"), wire.Setup{Run: "r1", Kind: "k", Pool: "p", Threads: 2, IdleTimeout: time.Hour, MaxLife: 24 * time.Hour,
					Secrets: map[string]string{"A": "ssm:/a", "B": "ssm:/b", "C": "ssm:/c"}})
				r.extend("r1")
				start, calls := time.Now(), 0
				r.cfg.Secrets = func(ctx context.Context, refs map[string]string) (map[string]string, error) {
					calls++
					if err := c.err(ctx, time.Since(start), refs); err != nil {
						return nil, err
					}
					values := map[string]string{}
					for name, ref := range refs {
						values[name] = "value of " + ref
					}
					return values, nil
				}
				r.send("r1", 1, [2]int{0, 1})
				r.start()
				time.Sleep(c.after)
				by, _, _ := r.outcomes("r1")
				if o := by[0]; c.fails == "" && o.Status != task.Succeeded || c.fails != "" && (o.Cause != task.CauseSetup || !strings.Contains(o.Message, c.fails)) {
					t.Errorf("after %v: %s %s %q, want %q", c.after, o.Status, o.Cause, o.Message, c.fails)
				}
				if name == "at once" && calls != 1 {
					t.Errorf("%d requests", calls)
				}
				r.finish()
			})
		})
	}
}
