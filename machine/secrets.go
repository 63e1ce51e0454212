package machine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// secretsWithin is how long secrets are tried to be read, and secretsInLine the
// same where the service is only busy: all machines of a fleet ask at once.
const secretsWithin, secretsInLine = 2 * time.Minute, 15 * time.Minute

// resolve finds the values of references by the variable that they become.
func (m *machine) resolve(ctx context.Context, what string, refs map[string]string) (map[string]string, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	names := slices.Sorted(maps.Keys(refs))
	if m.cfg.Secrets == nil {
		return nil, &SetupError{fmt.Errorf("%s.%s: %s cannot be looked up here", what, names[0], refs[names[0]])}
	}
	values, err := m.secrets(ctx, refs)
	if err == nil || ctx.Err() != nil {
		return values, err
	}
	if k := cloud.KindOf(err); k != cloud.KindTransient && k != cloud.KindThrottled {
		for _, name := range names { // which of them it is
			if _, err := m.secrets(ctx, map[string]string{name: refs[name]}); err != nil {
				return nil, &SetupError{fmt.Errorf("%s.%s: %w", what, name, err)}
			}
		}
	}
	return nil, &SetupError{fmt.Errorf("%s: %w", what, err)}
}

// secrets reads values with as few requests as possible.
func (m *machine) secrets(ctx context.Context, refs map[string]string) (values map[string]string, err error) {
	begun := time.Now()
	stopped := again(ctx, func(ctx context.Context) error {
		values, err = m.cfg.Secrets(ctx, refs)
		patience := time.Duration(0)
		switch kind := cloud.KindOf(err); {
		case err == nil:
			return nil
		case kind == cloud.KindThrottled:
			patience = secretsInLine
		case kind == cloud.KindTransient, ctx.Err() != nil: // the latter: one request took too long
			patience = secretsWithin
		}
		if time.Since(begun) >= patience {
			return &cloud.Error{Op: "read", Resource: "secrets", Kind: cloud.KindInvalid, Err: err} // ends the trying
		}
		return err
	})
	if stopped != nil && err == nil {
		err = stopped
	}
	return values, err
}
