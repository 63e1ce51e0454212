package fleet

import (
	"math"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
)

const (
	// workEach is the seconds of work that make a machine worth its boot.
	workEach = 120
	// unknownMost is how many machines start before anything is known of how
	// long tasks take, and unknownFor how long a task runs until that is known
	// to be long.
	unknownMost = 50
	unknownFor  = 20 * time.Second
)

// work is the work that there is for a kind.
type work struct {
	tasks   int     // may run now
	seconds float64 // of them; +Inf if not known
	taken   int     // of the tasks, in machines' hands for certain
	// coming tasks are retried later, or follow others one by one; behind
	// are functions that wait for others as a whole.
	coming        int
	comingSeconds float64
	behind        int
	done          bool // nothing will come any more
}

// takeable is how many tasks nobody has taken yet.
func (w work) takeable() int { return max(0, w.tasks-w.taken) }

// meanOf is the seconds that a task of a function takes; +Inf if not known.
func (s *state) meanOf(d *task.Demand) float64 {
	if d.Mean >= 0 {
		return d.Mean
	}
	if e := s.expect[d.Function]; e > 0 {
		return e.Seconds()
	}
	return math.Inf(1)
}

func (s *state) meanOfFunction(name string) float64 {
	for i := range s.demand {
		if s.demand[i].Function == name {
			return s.meanOf(&s.demand[i])
		}
	}
	return math.Inf(1)
}

// workFor adds up what there is for a kind.
func (s *state) workFor(k *kindState) work {
	w := work{done: true}
	add := func(n int, mean float64) {
		if n > 0 {
			w.tasks += n
			w.seconds += float64(n) * mean
		}
	}
	for i := range s.demand {
		d := &s.demand[i]
		if d.Done || !s.primary(k, d.Function) {
			continue
		}
		w.done = false
		if !d.Running {
			w.behind++
			continue
		}
		add(d.Ready+d.InHand-d.Larger, s.meanOf(d)) // those are among the ranges, here or of another kind
		if n := d.Left - d.Ready - d.InHand; n > 0 {
			w.coming += n
			w.comingSeconds += float64(n) * s.meanOf(d)
		}
	}
	for _, r := range s.ranges {
		if r.kind != k {
			continue
		}
		n := r.left()
		if r.holder != "" {
			w.taken += n
		}
		if r.Memory > 0 {
			w.done = false
			add(n, s.meanOfFunction(r.Function))
		}
	}
	return w
}

// machinesFor is how many machines so much work is worth.
func machinesFor(tasks int, seconds float64, slots int) int {
	if tasks <= 0 {
		return 0
	}
	slots = max(1, slots)
	n := float64(tasks+slots-1) / float64(slots)
	n = min(math.Floor(n), math.Ceil(seconds/float64(slots)/workEach))
	return max(1, int(n))
}

// wanted is how many machines of a kind there should be for what may run now.
func (s *state) wanted(k *kindState, now time.Time) int {
	if k.Max == 0 || s.stop != "" || !s.open {
		return 0
	}
	w := s.workFor(k)
	if w.tasks == 0 {
		return 0
	}
	n := machinesFor(w.tasks, w.seconds, k.Slots(k.firstType()))
	if math.IsInf(w.seconds, 1) && !s.provenLong(now) {
		n = min(n, unknownMost)
	}
	return min(max(n, k.Min), k.Max)
}

// provenLong says whether a task of the run has run so long that it is worth
// more machines, whatever the others are like.
func (s *state) provenLong(now time.Time) bool {
	for _, d := range s.demand {
		if d.Mean >= 0 && !d.Done && d.Left > 0 {
			return true
		}
	}
	for _, m := range s.machines {
		for _, l := range m.beat.Live {
			if m.phase == working && now.Sub(time.Unix(0, l.Started)) >= unknownFor {
				return true
			}
		}
	}
	return false
}

// kept is how many machines of a kind stay when there is nothing to take.
func (s *state) kept(k *kindState) int {
	w := s.workFor(k)
	if w.done {
		return 0
	}
	n := machinesFor(w.coming, w.comingSeconds, k.Slots(k.firstType()))
	if w.behind > 0 || w.tasks > 0 {
		n = max(n, 1)
	}
	return min(max(n, k.Min), k.Max)
}

// launches is how many machines of each kind to rent now.
func (s *state) launches(now time.Time) map[*kindState]int {
	total, cpus := 0, 0
	for _, k := range s.kinds {
		total += k.asked
		cpus += k.asked * k.mostVCPUs()
	}
	for _, m := range s.machines {
		if m.phase == booting || m.phase == working || m.phase == leaving {
			total++
			if m.kind != nil {
				cpus += m.kind.VCPUs(m.Type)
			}
		}
	}
	purse := s.purse(now)
	out := map[*kindState]int{}
	add := func(k *kindState, n int) {
		if k.asked > 0 || now.Before(k.wait) { // one launch of a kind at a time
			return
		}
		// Who finds nothing to take leaves again, and was paid for.
		n = min(n, s.wanted(k, now)-s.count(k)-out[k], s.workFor(k).takeable())
		if k.most >= 0 {
			n = min(n, k.most-s.count(k)-out[k])
		}
		if s.limits.Machines > 0 {
			n = min(n, s.limits.Machines-total)
		}
		if c := k.mostVCPUs(); s.limits.VCPUs > 0 && c > 0 {
			n = min(n, (s.limits.VCPUs-cpus)/c)
		}
		n = min(n, purse.affords(k.price()))
		if n <= 0 {
			return
		}
		out[k] += n
		total += n
		cpus += n * k.mostVCPUs()
		purse.take(n, k.price())
	}
	for _, k := range s.kinds { // each gets one before any gets more
		if s.count(k) == 0 {
			add(k, 1)
		}
	}
	for _, k := range s.kinds {
		add(k, math.MaxInt32)
	}
	return out
}
