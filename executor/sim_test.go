package executor

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// bind makes the pipeline of a test.
func bind(t testing.TB, yaml string) *spec.Pipeline {
	t.Helper()
	p, err := Bind([]byte(yaml), "test.yaml", nil, "")
	if err != nil {
		t.Fatalf("test pipeline: %v", err)
	}
	return p
}

// sim runs a State without coordinator, agents, clock or disk: records are
// kept in a slice, time is a number, agents are a function.
type sim struct {
	t     testing.TB
	p     *spec.Pipeline
	only  map[string][]int
	tasks map[string]int // of mapped functions; what the planner would say
	// run is what an attempt ends with.
	run func(fn string, r cloud.Range, index int) task.Outcome
	// decide answers actPrepare; nil: the function runs.
	decide func(fn string, s *State) *event

	records [][]byte
	s       *State
	now     int64
	hands   []cloud.Range // what agents hold
	starts  map[string]int
	notices []Notice
	slots   int
	rng     *rand.Rand // nil: first in, first out
	over    bool
	pending []*event // evPrepared on their way
}

func newSim(t testing.TB, p *spec.Pipeline, tasks map[string]int, run func(string, cloud.Range, int) task.Outcome) *sim {
	m := &sim{t: t, p: p, tasks: tasks, run: run, starts: map[string]int{}, slots: 2, now: 1}
	m.restart()
	return m
}

// restart is a new coordinator: the state is folded from the records, what
// agents held is lost.
func (m *sim) restart() {
	m.t.Helper()
	m.s = newState("run", Selected(m.p, nil, m.only), m.only)
	for i, rec := range m.records {
		if err := (folder{m.s}).record(int64(i), rec); err != nil {
			m.t.Fatalf("fold record %d: %v", i, err)
		}
	}
	m.hands, m.pending, m.over = nil, nil, false
}

// begin is what a coordinator records first.
func (m *sim) begin(more ...*event) {
	m.event(&event{Kind: evCoordinator, Epoch: m.s.epoch + 1})
	if !m.s.begun {
		b := &event{Kind: evBegin}
		for _, f := range m.s.order {
			n := 1
			if f.spec.Map != nil {
				var ok bool
				if n, ok = m.tasks[f.spec.Name]; !ok {
					n = -1
				}
			}
			b.Functions = append(b.Functions, beginFunction{f.spec.Name, n})
		}
		m.event(b)
	}
	for _, e := range more {
		m.event(e)
	}
}

func (m *sim) event(e *event) {
	m.t.Helper()
	m.note(m.s.heldBefore([]input{{event: e}}))
	m.now++
	e.At = m.now
	m.record(e)
	m.act(m.s.applyEvent(e))
}

// note records and folds an event that leads to no action, if there is one.
func (m *sim) note(e *event) {
	m.t.Helper()
	if e != nil {
		e.At = m.now
		m.record(e)
		m.s.applyEvent(e)
	}
}

func (m *sim) record(e *event) {
	m.t.Helper()
	rec, err := e.encode(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.records = append(m.records, rec)
}

func (m *sim) act(acts []action) {
	for _, a := range acts {
		switch a := a.(type) {
		case actPrepare:
			var e *event
			if m.decide != nil {
				e = m.decide(a.f.spec.Name, m.s)
			}
			if e == nil {
				e = &event{Tasks: a.f.n}
				if !a.f.planned {
					e.Tasks = m.tasks[a.f.spec.Name]
				}
			}
			e.Kind, e.Function = evPrepared, a.f.spec.Name
			m.pending = append(m.pending, e)
		case actStopWork:
			hands := m.hands
			m.hands = nil
			for _, r := range hands {
				if m.rng != nil && m.rng.IntN(2) == 0 {
					m.work(r) // it was quicker than the stop
				} else {
					m.refuse(r)
				}
			}
		case actNotice:
			m.notices = append(m.notices, a.n)
		case actFinish:
			if !m.over {
				m.over = true
				m.event(&event{Kind: evFinish, Status: a.status})
			}
		}
	}
}

func (m *sim) refuse(r cloud.Range) {
	var is []int
	for i := r.From; i < r.To; i++ {
		is = append(is, i)
	}
	if m.s.recordsGivenBack(r.Function) {
		m.record(&event{Kind: evRefused, At: m.now, Function: r.Function, Indices: is})
	}
	m.act(m.s.takeBack(r.Function, is))
}

// one does one thing: answers a prepare, or runs a range an agent holds.
// false: there is nothing to do.
func (m *sim) one() bool {
	m.t.Helper()
	if m.over {
		return false
	}
	m.take()
	pick := func(n int) int {
		if m.rng == nil {
			return 0
		}
		return m.rng.IntN(n)
	}
	switch {
	case len(m.pending) > 0 && (len(m.hands) == 0 || pick(2) == 0):
		i := pick(len(m.pending))
		e := m.pending[i]
		m.pending = append(m.pending[:i], m.pending[i+1:]...)
		m.event(e)
	case len(m.hands) > 0:
		i := pick(len(m.hands))
		r := m.hands[i]
		m.hands = append(m.hands[:i], m.hands[i+1:]...)
		m.work(r)
	case m.s.nextDue() < 1<<62:
		m.now = m.s.nextDue()
	default:
		return false
	}
	return true
}

func (m *sim) take() {
	for _, r := range m.s.handOut(m.slots, m.slots, m.now) {
		for i := r.From; i < r.To; i++ {
			for _, h := range m.hands {
				if h.Function == r.Function && h.From <= i && i < h.To {
					m.t.Fatalf("%s/%d handed out twice", r.Function, i)
				}
			}
		}
		m.hands = append(m.hands, r)
	}
}

// work runs a range as an agent does and reports it in one batch.
func (m *sim) work(r cloud.Range) {
	m.t.Helper()
	o := &outcomes{at: m.now, function: r.Function}
	for i := r.From; i < r.To; i++ {
		if m.s.byName[r.Function].table.status[i] == task.Succeeded {
			m.t.Fatalf("%s/%d started after its success was recorded", r.Function, i)
		}
		m.starts[fmt.Sprintf("%s/%d", r.Function, i)]++
		oc := m.run(r.Function, r, i)
		oc.Index, oc.Attempt = i, r.Attempt
		o.list = append(o.list, oc)
	}
	m.report(o)
}

func (m *sim) report(o *outcomes) {
	m.t.Helper()
	m.note(m.s.heldBefore([]input{{batch: &task.Batch{Function: o.function, Outcomes: o.list}}}))
	m.now++
	o.at = m.now
	rec, err := o.encode(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.records = append(m.records, rec)
	m.act(m.s.applyOutcomes(o, int64(len(m.records)-1)))
}

// finish runs to the end and returns the report.
func (m *sim) finish() Report {
	m.t.Helper()
	for n := 0; m.one(); n++ {
		m.check()
		if n > 100000 {
			m.t.Fatal("the run does not end")
		}
	}
	if !m.over {
		m.t.Fatalf("stuck: %+v", m.s.report(&Header{}, nil))
	}
	return m.s.report(&Header{}, nil)
}

// check tests what must hold after every event.
func (m *sim) check() {
	m.t.Helper()
	checkState(m.t, m.s)
}

func checkState(t testing.TB, s *State) {
	t.Helper()
	for _, f := range s.order {
		sum := 0
		for st, n := range f.counts {
			if n < 0 {
				t.Fatalf("%s: %d tasks %s", f.spec.Name, n, task.Status(st))
			}
			sum += n
		}
		if f.planned && sum != f.n {
			t.Fatalf("%s: counts %v do not add up to %d", f.spec.Name, f.counts, f.n)
		}
		if f.table.status == nil {
			continue
		}
		var real [6]int
		for _, st := range f.table.status {
			real[st]++
		}
		if real != f.counts {
			t.Fatalf("%s: counts %v, table has %v", f.spec.Name, f.counts, real)
		}
		if f.phase == done && f.counts[task.Pending]+f.counts[task.Running] > 0 {
			t.Fatalf("%s is done with open tasks: %v", f.spec.Name, f.counts)
		}
	}
}

func ok(string, cloud.Range, int) task.Outcome { return task.Outcome{Status: task.Succeeded} }

func failed(cause task.Cause) task.Outcome {
	return task.Outcome{Status: task.Failed, Cause: cause, Exit: 1, Message: "failed"}
}

// summaryOf is the report in a form that tests compare: "fn status s/f/k/c".
func summaryOf(r Report) string {
	s := string(r.Status)
	for _, f := range r.Functions {
		s += fmt.Sprintf("; %s %s %d/%d/%d/%d", f.Name, f.Status, f.Succeeded, f.Failed, f.Skipped, f.Cancelled)
	}
	return s
}
