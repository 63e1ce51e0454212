package hardware

import "math"

const (
	// Boot is how long a machine is paid for before its first task: renting,
	// booting and unpacking; SlowBoot is that with software to install.
	Boot, SlowBoot = 45.0, 150.0
	// Linger is how long it is paid for after its last task.
	Linger = 35.0
	// perMachine is the seconds of work for which one more machine is rented.
	perMachine = 120.0
)

// Job is the work of one function.
type Job struct {
	Tasks            int
	Seconds, Slowest float64 // a task: expected, and at most
	Slots            int     // tasks at a time on a machine
	Concurrency      int     // tasks at a time of the function; 0: no limit
	Min, Max         int     // machines; Max 0: no limit
	// Warm is how many machines there are already, from functions before it.
	Warm int
}

// Machine is what the machines of a job cost, in dollars an hour.
type Machine struct {
	Instance, InstanceMost float64 // expected, and at most
	Disk, Address          float64
}

// Forecast is what a job takes.
type Forecast struct {
	Machines int     `json:"machines"`
	Seconds  float64 `json:"seconds"` // until its last task ends
	// MachineSeconds is what is billed, over all machines.
	MachineSeconds float64 `json:"machine_seconds"`
	Bill           Bill    `json:"bill"`
}

// Bill is dollars, by what they are for.
type Bill struct {
	Machines  float64 `json:"machines"`
	Disks     float64 `json:"disks"`
	Addresses float64 `json:"addresses"`
	Requests  float64 `json:"requests"`
	Egress    float64 `json:"egress"`
}

// Total is the sum, in dollars.
func (b Bill) Total() float64 { return b.Machines + b.Disks + b.Addresses + b.Requests + b.Egress }

// Rented is what the machines cost with all that belongs to them.
func (b Bill) Rented() float64 { return b.Machines + b.Disks + b.Addresses }

// Plus adds two bills, item by item.
func (b Bill) Plus(o Bill) Bill {
	return Bill{b.Machines + o.Machines, b.Disks + o.Disks, b.Addresses + o.Addresses, b.Requests + o.Requests, b.Egress + o.Egress}
}

// MachinesFor is how many machines are rented for a job whose tasks take so
// long: for two minutes of work each, within its bounds.
func (j Job) MachinesFor(seconds float64) int {
	if j.Tasks == 0 {
		return j.Min
	}
	slots := max(j.Slots, 1)
	n := ceil(j.Tasks, slots)
	if work := math.Ceil(float64(j.Tasks) * seconds / float64(slots) / perMachine); work < float64(n) {
		n = max(int(work), 1)
	}
	if j.Concurrency > 0 {
		n = min(n, ceil(j.Concurrency, slots))
	}
	n = max(n, j.Min)
	if j.Max > 0 {
		n = min(n, j.Max)
	}
	return max(n, 1)
}

// Expected is what the job takes if things go as they mostly do.
func (j Job) Expected(m Machine, r Rates) Forecast {
	return j.forecast(j.MachinesFor(j.Seconds), j.Seconds, Boot, m.Instance, m, r)
}

// AtMost is what it takes if every task takes as long as the slowest, machines
// are slow to start and there are only the dearest.
func (j Job) AtMost(m Machine, r Rates) Forecast {
	slow := math.Max(j.Slowest, j.Seconds)
	// More machines are never slower: no more are counted on than expected.
	f := j.forecast(j.MachinesFor(j.Seconds), slow, SlowBoot, math.Max(m.Instance, m.InstanceMost), m, r)
	if n := j.MachinesFor(slow); n > f.Machines {
		g := j.forecast(n, slow, SlowBoot, math.Max(m.Instance, m.InstanceMost), m, r)
		g.Seconds = f.Seconds
		return g
	}
	return f
}

// On is what it takes on so many machines, whatever the rule says; on fewer if
// there is no work for all.
func (j Job) On(machines int, m Machine, r Rates) (expected, most Forecast) {
	n := max(1, min(machines, ceil(max(j.Tasks, 1), max(j.Slots, 1))))
	j.Min, j.Max = n, n
	return j.Expected(m, r), j.AtMost(m, r)
}

func (j Job) forecast(machines int, seconds, boot, instance float64, m Machine, r Rates) Forecast {
	f := Forecast{Machines: machines}
	if j.Tasks == 0 && j.Min == 0 {
		return Forecast{}
	}
	slots := max(j.Slots, 1)
	width := machines * slots
	if j.Concurrency > 0 {
		width = min(width, j.Concurrency)
	}
	fresh := max(0, machines-j.Warm)
	rounds := float64(ceil(j.Tasks, width))
	f.Seconds = rounds * seconds
	if fresh > 0 {
		f.Seconds += boot
	}
	// Machines without work leave, so that it is the work that is paid for; but
	// each works for at least one task.
	work := math.Max(float64(j.Tasks)*seconds*float64(machines)/float64(width), float64(machines)*seconds)
	f.MachineSeconds = math.Max(work+float64(fresh)*(boot+Linger), float64(fresh)*MinBilled.Seconds())
	hours := f.MachineSeconds / 3600
	beats := f.MachineSeconds
	tasks := float64(j.Tasks)
	f.Bill = Bill{Machines: hours * instance, Disks: hours * m.Disk, Addresses: hours * m.Address,
		// A log and part of a segment and a claim for each task; a beat every 30 s
		// and the control object every 5 s; the coordinator's own, which reads what
		// machines write. Queues are waited at for up to 20 s.
		Requests: r.Requests(tasks*1.3+beats/25, tasks*0.5+beats/4, tasks*0.6+beats/10)}
	return f
}

func ceil(a, b int) int { return (a + b - 1) / b }
