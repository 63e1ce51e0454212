package machine

import (
	"context"
	"errors"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// requestWithin bounds one request about the store; a connection may hang.
const requestWithin = 30 * time.Second

// again does something until it works, ctx ends, or the answer will stay what
// it is. A machine has nothing better to do: it is cut off from outside.
func again(ctx context.Context, do func(context.Context) error) error {
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		one, cancel := context.WithTimeout(ctx, requestWithin)
		err := do(one)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), err)
		}
		switch cloud.KindOf(err) {
		case cloud.KindNotFound, cloud.KindConflict, cloud.KindInvalid, cloud.KindClosed, cloud.KindCorrupt:
			return err
		}
		wait(ctx, time.Now().Add(pause), nil)
	}
}
