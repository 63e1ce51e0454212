package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	day := func(d, h int) time.Time { return time.Date(2026, 5, d, h, 0, 0, 0, time.UTC) }
	nights := func(from, to int) (list []Tick) {
		for d := from; d <= to; d++ {
			list = append(list, Tick{At: day(d, 2)})
		}
		return list
	}
	running := func(since time.Time) []LiveRun { return []LiveRun{{Run: "r", Tick: since, Started: since}} }
	soon := time.Minute
	for _, c := range []struct {
		name   string
		policy Policy
		ticks  []Tick
		now    time.Time
		live   []LiveRun
		want   string // one letter a tick, oldest first: run skip miss wait
	}{
		{"nothing is due", Policy{}, nil, day(1, 3), nil, ""},
		{"on time", Policy{Overlap: "skip", Catchup: "latest"}, nights(1, 1), day(1, 2).Add(soon), nil, "r"},
		{"after three nights: latest", Policy{Overlap: "skip", Catchup: "latest"}, nights(1, 3), day(3, 9), nil, "mmr"},
		{"after three nights: none", Policy{Overlap: "skip", Catchup: "none"}, nights(1, 3), day(3, 9), nil, "mmm"},
		{"none, but a trigger comes every quarter of an hour", Policy{Overlap: "skip", Catchup: "none"}, nights(1, 1), day(1, 2).Add(14 * time.Minute), nil, "r"},
		{"after three nights: all, one after the other", Policy{Overlap: "skip", Catchup: "all"}, nights(1, 3), day(3, 9), nil, "rww"},
		{"all, the first still runs", Policy{Overlap: "skip", Catchup: "all"}, nights(2, 3), day(3, 10), running(day(3, 9)), "ww"},
		{"all, and a new night while it runs", Policy{Overlap: "skip", Catchup: "all"}, nights(3, 4), day(4, 3), running(day(3, 9)), "ws"},
		{"all, with overlap allowed", Policy{Overlap: "allow", Catchup: "all"}, nights(1, 3), day(3, 9), nil, "rrr"},
		{"still running: skip", Policy{Overlap: "skip", Catchup: "latest"}, nights(2, 2), day(2, 2).Add(soon), running(day(1, 2)), "s"},
		{"still running: queue", Policy{Overlap: "queue", Catchup: "latest"}, nights(2, 2), day(2, 2).Add(soon), running(day(1, 2)), "w"},
		{"the queue holds one", Policy{Overlap: "queue", Catchup: "latest"}, nights(2, 3), day(3, 3), running(day(1, 2)), "mw"},
		{"queued long, and none", Policy{Overlap: "queue", Catchup: "none"}, []Tick{{At: day(2, 2), Seen: true}}, day(2, 9), nil, "r"},
		{"still running: replace", Policy{Overlap: "replace", Catchup: "latest"}, nights(2, 2), day(2, 2).Add(soon), running(day(1, 2)), "R"},
		{"still running: allow", Policy{Overlap: "allow", Catchup: "latest"}, nights(2, 2), day(2, 2).Add(soon), running(day(1, 2)), "r"},
		{"paused", Policy{Overlap: "skip", Catchup: "all", Paused: true}, nights(1, 3), day(3, 9), nil, "sss"},
		{"beyond the deadline", Policy{Overlap: "skip", Catchup: "all", Deadline: 25 * time.Hour}, nights(1, 3), day(3, 3), nil, "mrw"},
		{"none with a deadline of its own", Policy{Overlap: "skip", Catchup: "none", Deadline: 3 * time.Hour}, nights(1, 1), day(1, 4), nil, "r"},
		{"jitter spreads the start", Policy{Overlap: "skip", Catchup: "latest", Jitter: 1000 * time.Hour}, nights(1, 1), day(1, 2), nil, "w"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			by := map[int64]string{}
			for _, v := range Decide("id", c.policy, c.ticks, c.now, c.live, false) {
				s := v.Action.String()[:1]
				if v.Replace != nil {
					s = "R"
				}
				if by[v.Tick.Unix()] != "" {
					t.Errorf("two verdicts on %s", v.Tick)
				}
				if v.Action != Run && v.Why == "" {
					t.Errorf("no reason for %s of %s", v.Action, v.Tick)
				}
				by[v.Tick.Unix()] = s
			}
			var got strings.Builder
			for _, tick := range c.ticks {
				got.WriteString(by[tick.At.Unix()])
			}
			if got.String() != c.want {
				t.Errorf("%q, want %q", got.String(), c.want)
			}
		})
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 2, 0, 0, 0, time.UTC)
	if Delay("a", at, 0) != 0 {
		t.Error("a delay without jitter")
	}
	seen := map[time.Duration]bool{}
	for i := range 100 {
		d := Delay(fmt.Sprint(i), at, time.Hour)
		if d < 0 || d >= time.Hour {
			t.Fatalf("delay %s", d)
		}
		seen[d.Round(6*time.Minute)] = true
	}
	if len(seen) < 8 {
		t.Errorf("100 schedules start at %d different times of an hour", len(seen))
	}
}
