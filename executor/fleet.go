package executor

import (
	"maps"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// fleetRecord is what the journal says of the machines of a run.
type fleetRecord struct {
	machines []task.Machine // in the order in which they joined
	segments map[string]int // the last one folded, by "<machine>/<session>"
	// seconds is how long tasks ran, by machine and function.
	seconds map[string]map[string]float64
}

func newFleetRecord() fleetRecord {
	return fleetRecord{segments: map[string]int{}, seconds: map[string]map[string]float64{}}
}

// machine folds evMachine. A machine that was released and came back to the
// same run is there twice.
func (r *fleetRecord) machine(m task.Machine) {
	for i := len(r.machines) - 1; i >= 0; i-- {
		old := &r.machines[i]
		if old.ID != m.ID {
			continue
		}
		if !old.Ended.IsZero() && m.Joined.After(old.Ended) {
			break
		}
		// Its end was said beforehand, as it waited for another run, and it came
		// back before.
		again := m.Joined.After(old.Joined)
		if again {
			m.Joined = old.Joined
		}
		if again || old.Ended.IsZero() || !m.Ended.IsZero() { // else they came in the wrong order
			*old = m
		}
		return
	}
	r.machines = append(r.machines, m)
}

// typeOf is the instance type of a machine; "" if it is not known.
func (r *fleetRecord) typeOf(machine string) string {
	for i := len(r.machines) - 1; i >= 0; i-- {
		if r.machines[i].ID == machine {
			return r.machines[i].Type
		}
	}
	return ""
}

func (r *fleetRecord) folded(segments map[string]int) {
	for k, n := range segments {
		r.segments[k] = max(r.segments[k], n)
	}
}

func (r *fleetRecord) worked(machine, fn string, seconds float64) {
	if machine == "" {
		return // this one
	}
	by := r.seconds[machine]
	if by == nil {
		by = map[string]float64{}
		r.seconds[machine] = by
	}
	by[fn] += seconds
}

// bill is what machines have cost until a moment: in all, by function, and for
// the time in which no task ran. The latter two add up to the first.
type bill struct {
	machines    int
	total, idle float64
	functions   map[string]float64
	// rates is dollars per second of a task, by machine.
	rates map[string]float64
}

// bill shares the cost of each machine among the functions by how long their
// tasks ran on it; what is left over was idle.
// What it costs to keep machines for another run is this one's once it is over.
func (r *fleetRecord) bill(until int64, over bool) bill {
	b := bill{functions: map[string]float64{}, rates: map[string]float64{}}
	cost, capacity := map[string]float64{}, map[string]float64{}
	var ids []string // floating point sums depend on the order
	for i := range r.machines {
		m := &r.machines[i]
		end := time.Unix(0, until)
		if over && m.Ended.After(end) {
			end = m.Ended
		}
		c := m.Cost(end)
		if _, ok := cost[m.ID]; !ok {
			ids = append(ids, m.ID)
		}
		cost[m.ID] += c
		if m.Price > 0 {
			capacity[m.ID] += c / m.Price * 3600 * float64(max(1, m.Slots))
		}
		b.total += c
	}
	b.machines = len(ids)
	for _, id := range ids {
		used := 0.0
		by := r.seconds[id]
		names := slices.Sorted(maps.Keys(by))
		for _, fn := range names {
			used += by[fn]
		}
		all := max(used, capacity[id])
		if all == 0 {
			continue
		}
		b.rates[id] = cost[id] / all
		for _, fn := range names {
			b.functions[fn] += by[fn] * b.rates[id]
		}
	}
	b.idle = b.total
	for _, fn := range slices.Sorted(maps.Keys(b.functions)) {
		b.idle -= b.functions[fn]
	}
	b.idle = max(0, b.idle) // what rounding makes of nothing
	return b
}

// charge puts what the machines have cost until a moment into a report.
func (s *State) charge(r *Report, until int64) {
	if len(s.fleet.machines) == 0 {
		return
	}
	b := s.fleet.bill(until, s.status.Final())
	r.Machines, r.CostUSD, r.IdleUSD = b.machines, b.total, b.idle
	for i := range r.Functions {
		r.Functions[i].CostUSD = b.functions[r.Functions[i].Name]
	}
}
