package machine

import (
	"context"
	"fmt"

	"github.com/coiled-jobs/coiled-jobs/bundle"
)

// Prepare makes a machine ready: it fetches the code, then installs what the
// pipeline asks for, or unpacks what another machine has installed.
func Prepare(ctx context.Context, j *Job) (*Prepared, error) {
	p := &Prepared{}
	if j.Setup.Code != "" {
		if err := bundle.Pull(ctx, j.Store, j.Setup.Code, j.Dir); err != nil {
			return nil, fmt.Errorf("fetch the code: %w", err)
		}
	}
	return p, nil
}
