package planner

import (
	"bytes"
	"encoding/json"
	"runtime"

	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// Report is a plan for people and programs: what "plan --json" prints.
type Report struct {
	Pipeline  string          `json:"pipeline"`
	Functions ReportFunctions `json:"functions"` // in file order
	Warnings  []string        `json:"warnings"`
	// Estimate is of the whole run, Curve what it would be on other numbers of
	// machines; only where machines are rented.
	Estimate *Estimate    `json:"estimate,omitempty"`
	Curve    []CurvePoint `json:"curve,omitempty"`
	Limit    float64      `json:"limit_usd,omitempty"` // where it stops
	// Notes say where prices come from, if not from the cloud.
	Notes []string `json:"notes,omitempty"`
	// Travels is what machines get of the folder of the file, beside items.
	Travels *Travels `json:"travels,omitempty"`
}

// Travels is an amount of files, and what machines install by them.
type Travels struct {
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	Software []string `json:"software,omitempty"`
}

// ReportFunctions is a JSON object with one member per function, in order.
type ReportFunctions []ReportFunction

// ReportFunction is the plan of one function.
type ReportFunction struct {
	Name  string `json:"-"`
	Tasks *int   `json:"tasks"` // null while it waits for results
	Items *int   `json:"items"` // before batch; null too where there is no map
	Bytes int64  `json:"bytes"`

	Needs []string `json:"needs"`
	// Waits is the functions that must be done before the items of its map are known.
	Waits []string `json:"waits,omitempty"`
	// Streams is the function behind which it starts item by item.
	Streams  string         `json:"streams_from,omitempty"`
	Hardware ReportHardware `json:"hardware"`
	Estimate *Estimate      `json:"estimate"` // null if nothing is known
}

// ReportHardware is where a function runs.
type ReportHardware struct {
	Cloud   string `json:"cloud"`
	Threads int    `json:"threads_per_worker,omitempty"`
	// Of rented machines: the first choice of instance type, and all of them.
	VMType     string   `json:"vm_type,omitempty"`
	VMTypes    []string `json:"vm_types,omitempty"`
	VCPUs      int      `json:"vcpus,omitempty"`
	MemoryGiB  float64  `json:"memory_gib,omitempty"`
	GPUs       int      `json:"gpus,omitempty"`
	GPUModel   string   `json:"gpu_model,omitempty"`
	Region     string   `json:"region,omitempty"`
	SpotPolicy string   `json:"spot_policy,omitempty"`
	DiskGB     int      `json:"disk_gb,omitempty"`
	// An hour of a machine with disk and address: as expected, and on demand.
	PricePerHour         float64 `json:"price_per_hour,omitempty"`
	OnDemandPricePerHour float64 `json:"on_demand_price_per_hour,omitempty"`
}

// Estimate is what a function is expected to take.
type Estimate struct {
	Seconds float64 `json:"seconds"`
	CostUSD float64 `json:"cost_usd"`
	// Where machines are rented: the bounds, how many machines, what the
	// dollars are for, and where the time of a task is from.
	MaxSeconds float64        `json:"max_seconds,omitempty"`
	MaxCostUSD float64        `json:"max_cost_usd,omitempty"`
	Machines   int            `json:"machines,omitempty"`
	Bill       *hardware.Bill `json:"bill,omitempty"`
	Basis      string         `json:"basis,omitempty"`
	// Partial: some functions are left out, since nobody knows yet how many
	// tasks they have.
	Partial bool `json:"partial,omitempty"`
}

// CurvePoint is what a run would take on so many machines.
type CurvePoint struct {
	Machines   int     `json:"machines"`
	Seconds    float64 `json:"seconds"`
	CostUSD    float64 `json:"cost_usd"`
	MaxCostUSD float64 `json:"max_cost_usd"`
}

// NewReport describes a plan as plan --json prints it. Estimates are of this
// machine, by expect alone; those of rented machines take prices, and come
// from engine.
func NewReport(p *spec.Pipeline, plan *Plan) Report {
	r := Report{Pipeline: p.Name, Functions: ReportFunctions{}, Warnings: plan.Warnings}
	if r.Warnings == nil {
		r.Warnings = []string{}
	}
	for _, fn := range p.Functions {
		f := plan.Function(fn.Name)
		if f == nil { // not chosen
			continue
		}
		rf := ReportFunction{Name: f.Name, Bytes: f.Bytes, Needs: append([]string{}, f.Needs...), Streams: f.StreamsFrom}
		rf.Hardware = ReportHardware{Cloud: p.Cloud, Threads: slots(fn)}
		if f.Tasks >= 0 {
			tasks := f.Tasks
			rf.Tasks = &tasks
			if f.Mapped {
				items := f.Elements
				rf.Items = &items
			}
			rf.Estimate = estimate(fn, tasks)
		}
		if f.Dynamic || f.WaitsFor != "" {
			rf.Waits = append([]string{}, f.Needs...)
		}
		r.Functions = append(r.Functions, rf)
	}
	return r
}

// slots is how many tasks run at a time on this machine.
func slots(fn *spec.Function) int {
	n := fn.Hardware.Threads
	if n <= 0 {
		n = runtime.NumCPU()
	}
	if fn.Concurrency > 0 {
		n = min(n, fn.Concurrency)
	}
	return n
}

func estimate(fn *spec.Function, tasks int) *Estimate {
	if fn.Expect <= 0 {
		return nil
	}
	n := slots(fn)
	rounds := (tasks + n - 1) / n
	return &Estimate{Seconds: float64(rounds) * fn.Expect.Seconds()}
}

// MarshalJSON keeps the order of the functions.
func (fs ReportFunctions) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fs {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.Name)
		if err != nil {
			return nil, err
		}
		body, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(body)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
