package fleet

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/wire"
)

const (
	// shortest is the shortest grant that is worth giving.
	shortest = 2 * time.Minute
	// launchFor is how long a machine must be able to run to be launched: its
	// boot, and some work.
	launchFor = 5 * time.Minute
	// grace is how long a machine may take to end after its grant.
	grace = time.Minute
)

// spent is what the run has cost until now.
func (s *state) spent(now time.Time) float64 {
	sum := s.limits.Spent
	for i := range s.limits.Past {
		sum += s.limits.Past[i].Cost(now)
	}
	for _, m := range s.machines {
		sum += m.Cost(now)
	}
	if s.limits.Own.ID != "" {
		sum += s.limits.Own.Cost(now)
	}
	return sum
}

// commitment is the dollars that machines will have cost at until, beside what
// is spent now. Machines that are being launched count.
func (s *state) commitment(now, until time.Time) float64 {
	sum := 0.0
	for _, m := range s.machines {
		if m.alive() {
			sum += m.Cost(until) - m.Cost(now)
		}
	}
	for _, k := range s.kinds {
		if k.asked > 0 {
			sum += float64(k.asked) * k.price() * max(until2h(now, until), time.Minute.Hours())
		}
	}
	if own := &s.limits.Own; own.ID != "" {
		sum += own.Cost(until) - own.Cost(now)
	}
	return sum
}

func until2h(now, end time.Time) float64 { return max(0, end.Sub(now).Hours()) }

// latest is the longest that a grant may last whatever it costs.
func (s *state) latest(now time.Time) time.Time {
	t := now.Add(s.unattended)
	if d := s.limits.Deadline; !d.IsZero() && d.Add(grace).Before(t) {
		t = d.Add(grace)
	}
	return t
}

// grant is until when machines may run: as long as is allowed, and no longer
// than the money lasts if all of them use it.
func (s *state) grant(now time.Time) time.Time {
	limit := s.latest(now)
	if s.limits.Cost == 0 {
		return limit
	}
	rest := s.limits.Cost - s.spent(now)
	if s.commitment(now, limit) <= rest {
		return limit
	}
	// The commitment grows with the time: search the longest, to the second.
	lo, hi := time.Duration(0), limit.Sub(now)
	for hi-lo > time.Second {
		mid := (lo + hi) / 2
		if s.commitment(now, now.Add(mid)) <= rest {
			lo = mid
		} else {
			hi = mid
		}
	}
	return now.Add(lo)
}

// purse is the money for launches.
type purse struct {
	unlimited bool
	rest      float64
}

// purse is what is left beside what the machines that are there need for a
// grant of a sensible length.
func (s *state) purse(now time.Time) *purse {
	if s.limits.Cost == 0 {
		return &purse{unlimited: true}
	}
	until := now.Add(launchFor)
	if l := s.latest(now); l.Before(until) {
		until = l
	}
	return &purse{rest: s.limits.Cost - s.spent(now) - s.commitment(now, until)}
}

func (p *purse) affords(price float64) int {
	if p.unlimited || price <= 0 {
		return math.MaxInt32
	}
	return max(0, min(math.MaxInt32, int(p.rest/(price*launchFor.Hours()))))
}

func (p *purse) take(n int, price float64) { p.rest -= float64(n) * price * launchFor.Hours() }

// tooMany is the machines that must go so that the others have a grant worth
// having; over says that the money is at its end even for one.
func (s *state) tooMany(now time.Time) (drop []*machine, over bool) {
	if s.limits.Cost == 0 {
		return nil, false
	}
	rest := s.limits.Cost - s.spent(now)
	var list []*machine
	need := 0.0
	for _, m := range s.sorted() {
		switch {
		case !m.alive():
		case m.counts():
			list = append(list, m)
			need += m.Price * shortest.Hours()
		default: // it is on its way out
			need += m.Price * grace.Hours()
		}
	}
	for _, k := range s.kinds {
		need += float64(k.asked) * k.price() * shortest.Hours()
	}
	need += s.limits.Own.Price * shortest.Hours()
	if need <= rest {
		if len(list) > 0 || rest <= 0 {
			return nil, rest <= 0
		}
		return nil, s.cannotStart(now, rest)
	}
	// The least loss first: who boots, who has nothing to do, whose task is young.
	began := func(m *machine) int64 {
		switch {
		case m.phase == booting:
			return math.MaxInt64
		case !m.busy():
			return math.MaxInt64 - 1
		}
		at := int64(0)
		for _, l := range m.beat.Live {
			at = max(at, l.Started)
		}
		return at
	}
	for need > rest && len(list) > 0 {
		worst := 0
		for i, m := range list {
			if began(m) > began(list[worst]) {
				worst = i
			}
		}
		m := list[worst]
		list = append(list[:worst], list[worst+1:]...)
		drop = append(drop, m)
		need -= m.Price * (shortest - grace).Hours()
		if len(list) == 0 {
			return drop, true
		}
	}
	return drop, false
}

// cannotStart says whether there is work and no money for a single machine.
func (s *state) cannotStart(now time.Time, rest float64) bool {
	for _, k := range s.kinds {
		if k.asked > 0 {
			return false
		}
	}
	broke := false
	for _, k := range s.kinds {
		if s.wanted(k, now) == 0 {
			continue
		}
		if rest >= k.price()*launchFor.Hours() {
			return false
		}
		broke = true
	}
	return broke
}

// pace is the least time between two segments of a machine, so that all of
// them stay under some fifty a second.
func (s *state) pace() time.Duration {
	n := 0
	for _, m := range s.machines {
		if m.phase == working {
			n++
		}
	}
	return max(time.Second, time.Duration(n)*time.Second/50)
}

// control is what machines are to be told now.
func (s *state) control(now time.Time) wire.Control {
	c := wire.Control{Epoch: s.epoch, Written: now, Until: s.grant(now), Stop: s.stop, Hints: s.hints, Stopped: s.stopped,
		Lost: s.lost, Pace: s.pace(), Kinds: map[string]wire.KindControl{}}
	for _, k := range s.kinds {
		kc := wire.KindControl{Queue: k.queue}
		if s.stop == "" {
			kc.More = !s.open || k.opening || s.workFor(k).takeable() > 0
			if !kc.More {
				kc.Keep = s.keep(k)
			}
		}
		c.Kinds[k.Name] = kc
	}
	return c
}

// keep names the machines that stay when there is nothing to take: those that
// have work before others, then those that were named before, older ones before
// younger ones.
func (s *state) keep(k *kindState) []string {
	n := s.kept(k)
	if n == 0 {
		return nil
	}
	var list []*machine
	for _, m := range s.machines {
		if m.kind == k && m.counts() {
			list = append(list, m)
		}
	}
	before := s.written.Kinds[k.Name].Keep
	rank := func(m *machine) int {
		switch {
		case m.busy():
			return 0
		case slices.Contains(before, m.ID):
			return 1
		}
		return 2
	}
	slices.SortFunc(list, func(a, b *machine) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Joined.Compare(b.Joined), cmp.Compare(a.ID, b.ID))
	})
	var names []string
	for _, m := range list[:min(n, len(list))] {
		names = append(names, m.ID)
	}
	slices.Sort(names)
	return names
}
