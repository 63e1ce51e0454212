package aws

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Whoever has less time than the patience hears the reason, and not only that
// the time was over.
func TestAgainSaysWhyInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		err := again(ctx, 10*time.Minute, passing, func(context.Context) error {
			return &cloud.Error{Op: "read", Resource: "parameter", Kind: cloud.KindThrottled}
		})
		if cloud.KindOf(err) != cloud.KindThrottled || ctx.Err() != nil {
			t.Errorf("%v", err)
		}
	})
}
