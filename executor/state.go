package executor

import (
	"time"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// State is a run: the fold of its journal. It is changed only by apply (one
// recorded event), handOut and takeBack (what the agents hold, which is never
// recorded), all of them without clock, I/O or randomness. One goroutine owns
// a State; see the package comment for the phases of a function.
type State struct {
	run      string
	order    []*function // file order
	byName   map[string]*function
	begun    bool
	epoch    int
	host     string // where the last coordinator ran
	pid      int    // its process
	started  int64  // Unix nanoseconds; of the run
	session  int64  // when the present coordinator took the run
	active   int64  // nanoseconds of earlier sessions
	last     int64  // time of the last event
	finished int64  // 0: not finished
	status   RunStatus
	stopping stopKind
	reason   string
	file     int // number of the recorded pipeline file that holds now
	code     map[string]string
	fleet    fleetRecord
	// memoryOf is the bytes that a type of machine has; 0: not known. nil: the
	// agent is in this process, or this is a reader's.
	memoryOf func(instanceType string) int64
	// counted, if set, is told of each outcome that counts.
	counted func(fn string, oc *task.Outcome)
	hands   *hands // nil: the agent is in this process, or this is a reader's
}

type stopKind uint8

const (
	notStopping stopKind = iota
	stopCancel
	stopLimit
)

// phase is where a function stands.
type phase uint8

const (
	waiting   phase = iota // needs are not final (behind from: not planned)
	preparing              // its if is evaluated, its map expanded; ends with evPrepared
	running                // tasks may start
	done                   // its status is final; only evRetry and evReopen leave it
)

// function is the state of one function. Its table is made once in the life
// of a process and grows never, so that agents may read the entries of tasks
// they were given while the owner changes others.
type function struct {
	spec       *spec.Function
	needs      []*function
	dependents []*function
	from       *function // task i follows task i there; nil if none does
	barrier    bool      // but only when all of from is done
	feeds      bool      // a function streams behind it
	depth      int       // longest way from a function without needs
	only       map[int]bool

	phase  phase
	status task.Status // final when phase is done
	reason string
	// behindFailure: skipped, and a function before it failed.
	behindFailure bool

	planned bool // n is known
	n       int
	table   table
	counts  [6]int // of tasks by task.Status; Running means: given to an agent
	cached  int
	retries int
	seconds float64 // sum over attempts
	// timed attempts ran to an end of their own, for timedSeconds in all.
	timed        int
	timedSeconds float64
	mean         float64 // seconds of a recent task, smoothed; < 0: unknown
	stopped      bool    // on_failure: stop took effect

	ready   ranges // never handed out, or given back
	retryAt []retryItem
	full    bool // the last handOut found no slot for more

	// Of a coordinator of machines: what they have (State.hands), by task the
	// range it belongs to, the number of ranges, and whether machines can find
	// what tasks must know.
	hands  *hands
	owner  []int32
	ranges int
	start  startState
}

// table is the per-task state, about 17 bytes a task.
type table struct {
	status   []task.Status
	cause    []task.Cause
	flags    []uint8
	attempts []uint16
	seconds  []float32
	pos      []int64 // of the last outcome, -1: none
	budgets  map[int]*budget
}

// Flags of a task.
const (
	taskCached  = 1 << iota // its result is an earlier one
	taskLeftOut             // skipped by its own where
)

// budget counts the failures of a task that was tried again, by kind.
type budget struct {
	own, machine, oom int
	memory            int64 // that its attempts ask for since it ran out of it
}

// retryItem is a task that waits for its next attempt; a heap by due.
type retryItem struct {
	due    int64
	index  int
	memory int64
}

func newTable(n int) table {
	t := table{
		status:   make([]task.Status, n),
		cause:    make([]task.Cause, n),
		flags:    make([]uint8, n),
		attempts: make([]uint16, n),
		seconds:  make([]float32, n),
		pos:      make([]int64, n),
		budgets:  map[int]*budget{},
	}
	for i := range t.pos {
		t.pos[i] = -1
	}
	return t
}

func (t *table) budget(i int) *budget {
	b := t.budgets[i]
	if b == nil {
		b = &budget{}
		t.budgets[i] = b
	}
	return b
}

// newState is the state of a run before its first record. functions are those
// that take part, with all that they need.
func newState(run string, functions []*spec.Function, only map[string][]int) *State {
	s := &State{run: run, byName: map[string]*function{}, status: RunPending, code: map[string]string{}, fleet: newFleetRecord()}
	for _, fn := range functions {
		f := &function{spec: fn, mean: -1}
		if is, ok := only[fn.Name]; ok {
			f.only = map[int]bool{}
			for _, i := range is {
				f.only[i] = true
			}
		}
		s.order = append(s.order, f)
		s.byName[fn.Name] = f
	}
	for _, f := range s.order {
		for _, name := range f.spec.AllNeeds() {
			need := s.byName[name]
			f.needs = append(f.needs, need)
			need.dependents = append(need.dependents, f)
		}
		if from, ok := f.spec.Follows(); ok {
			_, streams := f.spec.Streams()
			f.from, f.barrier = s.byName[from], !streams
			if streams && f.from != nil {
				f.from.feeds = true
			}
		}
	}
	depths := map[*function]int{}
	for _, f := range s.order {
		f.depth = depthOf(f, depths)
	}
	return s
}

// setSpecs puts the functions of a changed file in place of the earlier ones.
func (s *State) setSpecs(p *spec.Pipeline) {
	for _, f := range s.order {
		if fn := p.Function(f.spec.Name); fn != nil {
			f.spec = fn
		}
	}
}

func depthOf(f *function, memo map[*function]int) int {
	if d, ok := memo[f]; ok {
		return d
	}
	d := 0
	for _, n := range f.needs {
		d = max(d, depthOf(n, memo)+1)
	}
	memo[f] = d
	return d
}

// move changes the status of one task, keeping the counts.
func (f *function) move(i int, to task.Status) {
	if f.hands != nil && f.table.status[i] == task.Running {
		f.hands.drop(f, i)
	}
	f.counts[f.table.status[i]]--
	f.table.status[i] = to
	f.counts[to]++
}

// plan gives the function its tasks, all pending.
func (f *function) plan(n int) {
	f.planned, f.n = true, n
	f.counts = [6]int{}
	f.counts[task.Pending] = n
}

// makeTable allocates the per-task state when the first task is looked at.
func (f *function) makeTable() {
	if f.table.status == nil {
		f.table = newTable(f.n)
	}
}

// failedTooOften says whether more tasks failed than the function tolerates.
func (f *function) failedTooOften() bool {
	return f.counts[task.Failed] > f.spec.MaxFailures.Of(f.n)
}

// ok says whether a function that needs f may run without further ado.
func (f *function) ok() bool { return f.phase == done && f.status == task.Succeeded }

// activeTime is how long coordinators have worked on the run until now.
func (s *State) activeTime(now int64) time.Duration {
	if s.session == 0 {
		return time.Duration(s.active)
	}
	return time.Duration(s.active + now - s.session)
}

// report makes the report of the run; live is the number of tasks that really
// run now, by function; the others that agents hold count as pending.
func (s *State) report(h *Header, live map[string]int) Report { return s.reportAt(h, live, s.last) }

// reportAt is report with what the machines have cost until a moment.
func (s *State) reportAt(h *Header, live map[string]int, until int64) Report {
	r := Report{Run: h.Run, Pipeline: h.Pipeline, Status: s.status, Reason: s.reason}
	r.Started = h.Created
	if s.started > 0 {
		r.Started = time.Unix(0, s.started)
	}
	if s.finished > 0 {
		t := time.Unix(0, s.finished)
		r.Finished = &t
	}
	end := s.last
	if s.finished > 0 {
		end = s.finished
	}
	if end > s.started && s.started > 0 {
		r.Seconds = time.Duration(end - s.started).Seconds()
	}
	for _, f := range s.order {
		fr := FunctionReport{Name: f.spec.Name, Status: f.shown(), Tasks: f.n, Planned: f.planned, Reason: f.reason,
			Succeeded: f.counts[task.Succeeded], Failed: f.counts[task.Failed], Skipped: f.counts[task.Skipped],
			Cancelled: f.counts[task.Cancelled], Cached: f.cached, Retries: f.retries, Seconds: f.seconds}
		open := f.counts[task.Pending] + f.counts[task.Running]
		fr.Running = min(live[f.spec.Name], open)
		fr.Pending = open - fr.Running
		if fr.Running > 0 && f.phase != done {
			fr.Status = task.Running.String()
		}
		r.Functions = append(r.Functions, fr)
	}
	if s.begun && (h.Cloud == "" || h.Cloud == "local") {
		r.Machines = 1 // this one
	}
	s.charge(&r, until)
	return r
}

// shown is the status of a function for people: one that has begun is running.
func (f *function) shown() string {
	switch {
	case f.phase == done:
		return f.status.String()
	case f.phase == running && (f.counts[task.Running] > 0 || f.counts[task.Pending] < f.n):
		return task.Running.String()
	}
	return task.Pending.String()
}
