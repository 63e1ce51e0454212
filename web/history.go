package web

import (
	"context"
	"math"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// bins is how many slices of time are kept at most; when a run outgrows them
// two become one.
const bins = 512

// maxBars is up to how many attempts each is kept by itself.
const maxBars = 2000

// history is what a run did over time: the fold of its outcomes, in memory
// that does not grow with them.
type history struct {
	next  int64 // where the journal goes on
	start time.Time
	width float64 // of a slice, in seconds

	done, failed [bins]int32 // final and failed attempts that ended in a slice
	machines     []*machineHistory
	byID         map[string]int
	functions    map[string]int
	names        []string
	attempts     int
	bars         []bar // nil once there are too many
}

// machineHistory is what ran on a machine; its id is "" here.
type machineHistory struct {
	id       string
	busy     map[int]*[bins]float32 // seconds by function
	bad      [bins]float32
	attempts int
	failed   int
	seconds  float64
}

// bar is an attempt of a task.
type bar struct {
	machine, function int
	index, attempt    int
	from, seconds     float64 // since the start
	status            task.Status
}

// firstSlice is how long a slice is at first.
const firstSlice = 0.02

// catchUp reads what the run has done since.
func (h *history) catchUp(ctx context.Context, v *executor.View, started time.Time) error {
	if h.byID == nil {
		*h = history{start: started, width: firstSlice, byID: map[string]int{}, functions: map[string]int{}, bars: []bar{}}
		for i, fn := range v.Functions() {
			h.functions[fn] = i
			h.names = append(h.names, fn)
		}
	}
	next, err := v.OutcomesSince(ctx, h.next, func(fn string, o *task.Outcome) bool {
		h.add(fn, o)
		return true
	})
	h.next = next
	return err
}

func (h *history) add(fn string, o *task.Outcome) {
	f, known := h.functions[fn]
	if !known || o.Started == 0 || o.Attempt == 0 {
		return
	}
	// A clock that was set while the run was on must not break the page.
	from := math.Max(time.Unix(0, o.Started).Sub(h.start).Seconds(), 0)
	seconds := math.Max(o.Seconds, 0)
	for from+seconds >= h.width*bins {
		h.coarser()
	}
	m, ok := h.byID[o.Machine]
	if !ok {
		m = len(h.machines)
		h.byID[o.Machine] = m
		h.machines = append(h.machines, &machineHistory{id: o.Machine, busy: map[int]*[bins]float32{}})
	}
	h.attempts++
	at := int((from + seconds) / h.width)
	h.done[at]++
	mh := h.machines[m]
	mh.attempts++
	mh.seconds += seconds
	bad := o.Status != task.Succeeded
	if bad {
		h.failed[at]++
		mh.failed++
	}
	row := mh.busy[f]
	if row == nil {
		row = new([bins]float32)
		mh.busy[f] = row
	}
	for i := int(from / h.width); i <= at; i++ {
		lo, hi := float64(i)*h.width, float64(i+1)*h.width
		part := float32(math.Max(math.Min(from+seconds, hi)-math.Max(from, lo), 0))
		row[i] += part
		if bad {
			mh.bad[i] += part
		}
	}
	switch {
	case h.bars == nil:
	case len(h.bars) >= maxBars:
		h.bars = nil
	default:
		h.bars = append(h.bars, bar{machine: m, function: f, index: o.Index, attempt: o.Attempt, from: from, seconds: seconds, status: o.Status})
	}
}

// coarser makes slices twice as long.
func (h *history) coarser() {
	h.width *= 2
	halve(&h.done)
	halve(&h.failed)
	for _, m := range h.machines {
		halve(&m.bad)
		for _, row := range m.busy {
			halve(row)
		}
	}
}

func halve[T int32 | float32](a *[bins]T) {
	for i := range bins / 2 {
		a[i] = a[2*i] + a[2*i+1]
	}
	clear(a[bins/2:])
}

// used is how many slices have been reached, of until seconds.
func (h *history) used(until float64) int {
	n := int(math.Ceil(until / h.width))
	return min(max(n, 1), bins)
}

// maxMachines is how many machines are drawn.
const maxMachines = 200

// timelineJSON is what the timeline and the chart of progress are drawn from.
type timelineJSON struct {
	Start     time.Time     `json:"start"`
	Seconds   float64       `json:"seconds"`
	Width     float64       `json:"width"` // of a slice
	Functions []string      `json:"functions"`
	Done      []int         `json:"done"` // that had ended by the end of a slice
	Failed    []int         `json:"failed"`
	Cost      []float64     `json:"cost,omitempty"` // by the end of a slice
	Machines  []machineJSON `json:"machines"`
	More      int           `json:"more,omitempty"` // machines that are left out
	Bars      [][7]float64  `json:"bars,omitempty"` // machine, function, index, attempt, from, seconds, 1 if it failed
}

// machineJSON is a row of the timeline. Busy has a byte a slice (how much of
// the machine worked, 255 is all), Function which function did most.
type machineJSON struct {
	task.Machine
	Attempts int     `json:"attempts"`
	Failed   int     `json:"failed"`
	Seconds  float64 `json:"busy_seconds"`
	From     float64 `json:"from"` // seconds since the start
	To       float64 `json:"to"`
	CostUSD  float64 `json:"cost_usd"`
	Busy     []byte  `json:"busy"`
	Function []byte  `json:"function"`
	Bad      []byte  `json:"bad"`
}

// timeline makes the picture of a run that has gone on until a moment.
func (h *history) timeline(machines []task.Machine, until time.Time, paid bool) timelineJSON {
	length := math.Max(until.Sub(h.start).Seconds(), 0.001)
	for length > h.width*bins {
		h.coarser()
	}
	n := h.used(length)
	t := timelineJSON{Start: h.start, Seconds: length, Width: h.width, Functions: h.names, Machines: []machineJSON{}}
	done, failed := 0, 0
	for i := range n {
		done += int(h.done[i])
		failed += int(h.failed[i])
		t.Done, t.Failed = append(t.Done, done), append(t.Failed, failed)
	}
	if paid {
		for i := range n {
			at, sum := h.start.Add(time.Duration(math.Min(float64(i+1)*h.width, length)*float64(time.Second))), 0.0
			for j := range machines {
				if machines[j].Joined.Before(at) {
					sum += machines[j].Cost(at)
				}
			}
			t.Cost = append(t.Cost, math.Round(sum*1e6)/1e6)
		}
	}
	known := map[string]bool{}
	for _, m := range machines {
		known[m.ID] = true
		t.add(h, m, until, n)
	}
	for _, m := range h.machines {
		if !known[m.id] {
			t.add(h, task.Machine{ID: m.id, Joined: h.start}, until, n)
		}
	}
	for _, b := range h.bars {
		bad := 0.0
		if b.status != task.Succeeded {
			bad = 1
		}
		t.Bars = append(t.Bars, [7]float64{float64(b.machine), float64(b.function), float64(b.index), float64(b.attempt), b.from, b.seconds, bad})
	}
	t.renumber(h)
	return t
}

func (t *timelineJSON) add(h *history, m task.Machine, until time.Time, n int) {
	if len(t.Machines) >= maxMachines {
		t.More++
		return
	}
	end := m.Ended
	if end.IsZero() || end.After(until) {
		end = until
	}
	j := machineJSON{Machine: m, From: math.Max(m.Joined.Sub(h.start).Seconds(), 0), To: end.Sub(h.start).Seconds(), CostUSD: m.Cost(until)}
	if i, ok := h.byID[m.ID]; ok {
		mh := h.machines[i]
		j.Attempts, j.Failed, j.Seconds = mh.attempts, mh.failed, mh.seconds
		j.Busy, j.Function, j.Bad = make([]byte, n), make([]byte, n), make([]byte, n)
		if j.Slots == 0 {
			j.Slots = mh.peak(h.width)
		}
		for s := range n {
			sum, most := float32(0), float32(0)
			for f, row := range mh.busy {
				sum += row[s]
				if row[s] > most || row[s] == most && most > 0 && f < int(j.Function[s]) {
					most, j.Function[s] = row[s], byte(min(f, 255))
				}
			}
			whole := float32(h.width) * float32(j.Slots)
			j.Busy[s], j.Bad[s] = share(sum, whole), share(mh.bad[s], whole)
		}
	}
	t.Machines = append(t.Machines, j)
}

// renumber makes the machines of bars the rows of the picture.
func (t *timelineJSON) renumber(h *history) {
	row := map[string]float64{}
	for i := range t.Machines {
		row[t.Machines[i].ID] = float64(i)
	}
	kept := t.Bars[:0]
	for _, b := range t.Bars {
		if r, ok := row[h.machines[int(b[0])].id]; ok {
			b[0] = r
			kept = append(kept, b)
		}
	}
	t.Bars = kept
}

// peak is how many tasks ran at a time, at most.
func (m *machineHistory) peak(width float64) int {
	most := float32(0)
	for s := range bins {
		sum := float32(0)
		for _, row := range m.busy {
			sum += row[s]
		}
		most = max(most, sum)
	}
	return max(1, int(math.Ceil(float64(most)/width-0.05)))
}

// share is a part of a whole as a byte; something is never nothing.
func share(part, whole float32) byte {
	if part <= 0 || whole <= 0 {
		return 0
	}
	return byte(min(max(part/whole*255, 1), 255))
}
