package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/aws/smithy-go"
	"github.com/sethvargo/go-retry"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// newBackoff is the waits between tries: exponential, with jitter, so that a
// fleet of agents that was throttled together does not come back together.
func newBackoff() retry.Backoff {
	return retry.WithJitterPercent(30, retry.WithCappedDuration(20*time.Second, retry.NewExponential(250*time.Millisecond)))
}

// again does something until it works, fails for good, or was tried for a
// time. The last error is returned.
func again(ctx context.Context, patience time.Duration, worth func(error) bool, do func(context.Context) error) error {
	deadline := time.Now().Add(patience)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	backoff := newBackoff()
	for {
		err := do(ctx)
		if err == nil || !worth(err) {
			return err
		}
		wait, _ := backoff.Next()
		if time.Now().Add(wait).After(deadline) {
			return err
		}
		if stopped := sleep(ctx, wait); stopped != nil {
			return stopped
		}
	}
}

// sleep waits, or returns the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// passing says whether an error is one that time heals.
func passing(err error) bool {
	k := cloud.KindOf(err)
	return k == cloud.KindThrottled || k == cloud.KindTransient
}

// codeOf is the code of an error of Amazon's, "" if it is none.
func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func isCode(err error, codes ...string) bool { return slices.Contains(codes, codeOf(err)) }

// shortHash is 16 hexadecimal digits that tell its arguments apart.
func shortHash(parts ...string) string { return longHash(parts...)[:16] }

// longHash is 64 hexadecimal digits, which is what a ClientToken may have.
func longHash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}
