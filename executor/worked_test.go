package executor

import (
	"testing"
	"time"
)

// What is left of limits.duration goes on where an earlier coordinator died;
// who asks for more gets all of it again.
func TestWorked(t *testing.T) {
	t.Parallel()
	s := int64(time.Second)
	for name, c := range map[string]struct {
		state State
		begin Begin
		want  time.Duration
	}{
		"nobody has begun":    {State{}, Begin{}, 0},
		"it was ended":        {State{active: 3 * s, last: 9 * s}, Begin{}, 3 * time.Second},
		"it died":             {State{active: 3 * s, session: 10 * s, last: 14 * s}, Begin{}, 7 * time.Second},
		"it was opened again": {State{active: 3 * s, last: 9 * s}, Begin{Reopen: true}, 0},
		"it is tried again":   {State{active: 3 * s, last: 9 * s}, Begin{Retry: true}, 0},
	} {
		co := &Coordinator{cfg: Config{Begin: c.begin}, state: &c.state}
		if got := co.Worked(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
