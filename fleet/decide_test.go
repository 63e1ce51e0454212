package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// stateOf is a state in the middle of a run with one kind, "k" for f.
func stateOf(k Kind, demand ...task.Demand) *state {
	k.Name, k.Functions = "k", []string{"f", "g"}
	if k.Types == nil {
		k.Types = []string{"a"}
	}
	s := newState(&Config{Run: "r", Kinds: []Kind{k}})
	s.epoch, s.open, s.unattended, s.lastBusy, s.demand = 1, true, 15*time.Minute, start, demand
	s.written = s.control(start)
	return s
}

// with adds machines that work and have nothing to do.
func (s *state) with(n int, change func(*machine)) *state {
	for range n {
		id := fmt.Sprintf("i-%d", len(s.machines)+1)
		m := &machine{Machine: task.Machine{ID: id, Joined: start, Price: s.kinds[0].price()}, kind: s.kinds[0], phase: working, slots: 1,
			seen: start, lastRead: start, beat: wire.Beat{Session: 1, State: wire.StateWorking}}
		if change != nil {
			change(m)
		}
		s.machines[id] = m
	}
	return s
}

func running(fn string, ready, inHand int, mean float64) task.Demand {
	return task.Demand{Function: fn, Running: true, Left: ready + inHand, Ready: ready, InHand: inHand, Mean: mean}
}

func TestHowMany(t *testing.T) {
	t.Parallel()
	two := func(string) int { return 2 }
	for name, c := range map[string]struct {
		kind   Kind
		demand []task.Demand
		change func(*state)
		want   int
	}{
		"one for each task":             {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 30, 3, -1)}, want: 33},
		"not many before one has ended": {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 300, 0, -1)}, want: 50},
		"many when one has ended":       {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 300, 0, 1000)}, want: 300},
		"two minutes of work each":      {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 1000, 200, 1)}, want: 10},
		"at least one":                  {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 5, 0, 0.01)}, want: 1},
		"slots":                         {kind: Kind{Max: 500, Slots: two}, demand: []task.Demand{running("f", 9, 0, 1000)}, want: 5},
		"seconds are shared by slots":   {kind: Kind{Max: 500, Slots: two}, demand: []task.Demand{running("f", 1200, 0, 1)}, want: 5},
		"max":                           {kind: Kind{Max: 7}, demand: []task.Demand{running("f", 300, 0, 1000)}, want: 7},
		"min":                           {kind: Kind{Min: 3, Max: 7}, demand: []task.Demand{running("f", 1, 0, 1)}, want: 3},
		"no min without work":           {kind: Kind{Min: 3, Max: 7}, demand: []task.Demand{{Function: "f", Mean: -1}}, want: 0},
		"both functions of the kind":    {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 1200, 0, 1), running("g", 1200, 0, 2)}, want: 30},
		"what is expected": {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 1200, 0, -1)},
			change: func(s *state) { s.expect = map[string]time.Duration{"f": time.Second} }, want: 10},
		"a task that runs for long": {kind: Kind{Max: 500}, demand: []task.Demand{running("f", 300, 1, -1)},
			change: func(s *state) {
				s.with(1, func(m *machine) {
					m.beat.Live = []task.Live{{Function: "f", Started: start.Add(-21 * time.Second).UnixNano()}}
				})
			}, want: 301},
		"none after a stop":     {kind: Kind{Max: 9}, demand: []task.Demand{running("f", 9, 0, 1)}, change: func(s *state) { s.stop = wire.StopCancel }, want: 0},
		"none in a takeover":    {kind: Kind{Max: 9}, demand: []task.Demand{running("f", 9, 0, 1)}, change: func(s *state) { s.open = false }, want: 0},
		"none when all is done": {kind: Kind{Max: 9}, demand: []task.Demand{{Function: "f", Done: true}}, want: 0},
	} {
		s := stateOf(c.kind, c.demand...)
		if c.change != nil {
			c.change(s)
		}
		if got := s.wanted(s.kinds[0], start); got != c.want {
			t.Errorf("%s: %d machines, want %d", name, got, c.want)
		}
	}
}

func TestLaunches(t *testing.T) {
	t.Parallel()
	cpus := func(string) int { return 4 }
	plenty := running("f", 100, 0, 1000)
	price := func(_, _ string, _ bool) float64 { return 1.2 }
	sizes := func(t string) int { return map[string]int{"small": 2, "large": 8}[t] }
	own := task.Machine{ID: "me", Price: 1.8, Joined: start} // $0.15 in five minutes
	for name, c := range map[string]struct {
		kind   Kind
		change func(*state)
		want   int
	}{
		"all":                         {Kind{Max: 100}, nil, 100},
		"beside those that are there": {Kind{Max: 100}, func(s *state) { s.with(40, nil) }, 60},
		"for those that leave":        {Kind{Max: 100}, func(s *state) { s.with(40, func(m *machine) { m.phase = leaving }) }, 100},
		"for those that are lost":     {Kind{Max: 100}, func(s *state) { s.with(40, func(m *machine) { m.losing = true }) }, 100},
		"not for those that boot":     {Kind{Max: 100}, func(s *state) { s.with(100, func(m *machine) { m.phase = booting }) }, 0},
		"one launch at a time":        {Kind{Max: 100}, func(s *state) { s.kinds[0].asked = 1 }, 0},
		"not while it waits":          {Kind{Max: 100}, func(s *state) { s.kinds[0].wait = start.Add(time.Second) }, 0},
		"limits.machines":             {Kind{Max: 100}, func(s *state) { s.limits.Machines = 9; s.with(4, nil) }, 5},
		"limits.machines and leavers": {Kind{Max: 100}, func(s *state) { s.limits.Machines = 9; s.with(4, func(m *machine) { m.phase = leaving }) }, 5},
		"limits.vcpus":                {Kind{Max: 100, VCPUs: cpus}, func(s *state) { s.limits.VCPUs = 30; s.with(2, nil) }, 5},
		"limits.vcpus, largest type":  {Kind{Max: 100, VCPUs: sizes, Types: []string{"small", "large"}}, func(s *state) { s.limits.VCPUs = 30 }, 3},
		"limits.cost, coordinator":    {Kind{Max: 100, Price: price}, func(s *state) { s.limits.Cost, s.limits.Own = 1, own }, 8},
		"limits.cost":                 {Kind{Max: 100, Price: price}, func(s *state) { s.limits.Cost = 1 }, 10}, // $0.10 for five minutes
		"limits.cost, some spent":     {Kind{Max: 100, Price: price}, func(s *state) { s.limits.Cost, s.limits.Spent = 1, 0.75 }, 2},
		"no machine may be rented":    {Kind{}, nil, 0},
	} {
		s := stateOf(c.kind, plenty)
		if c.change != nil {
			c.change(s)
		}
		if got := s.launches(start)[s.kinds[0]]; got != c.want {
			t.Errorf("%s: %d machines, want %d", name, got, c.want)
		}
	}
}

func TestEachKindGetsOneFirst(t *testing.T) {
	t.Parallel()
	s := newState(&Config{Kinds: []Kind{{Name: "a", Functions: []string{"f"}, Max: 10}, {Name: "b", Functions: []string{"g"}, Max: 10}}})
	s.epoch, s.open, s.unattended = 1, true, time.Minute
	s.limits.Machines = 5
	s.demand = []task.Demand{running("f", 100, 0, 1000), running("g", 100, 0, 1000)}
	got := s.launches(start)
	if got[s.kinds[0]] != 4 || got[s.kinds[1]] != 1 {
		t.Errorf("%d and %d", got[s.kinds[0]], got[s.kinds[1]])
	}
}

func TestMemoryHasItsKind(t *testing.T) {
	t.Parallel()
	f := []string{"f"}
	s := newState(&Config{Kinds: []Kind{{Name: "a", Functions: f, Memory: 8}, {Name: "huge", Functions: f, Memory: 64}, {Name: "big", Functions: f, Memory: 16}}})
	for memory, want := range map[int64]string{0: "a", 4: "a", 8: "a", 12: "big", 16: "big", 17: "huge", 1000: "huge"} {
		if got := s.kindFor("f", memory).Name; got != want {
			t.Errorf("%d bytes: %s, want %s", memory, got, want)
		}
	}
	if s.kindFor("g", 0) != nil {
		t.Error("a function that nobody works for has a kind")
	}
}

// TestLargerTasks: what asks for more memory wants no machines that have it
// not, and as many of those that have it as it is worth.
func TestLargerTasks(t *testing.T) {
	t.Parallel()
	f := []string{"f"}
	for name, c := range map[string]struct {
		demand       task.Demand
		small, large int // in ranges of these kinds that ask for memory
		want         [2]int
	}{
		"none":                  {demand: task.Demand{Ready: 3}, want: [2]int{3, 0}},
		"all, not handed out":   {demand: task.Demand{Ready: 1, InHand: 1, Larger: 2}, want: [2]int{0, 0}},
		"all, handed out":       {demand: task.Demand{InHand: 2, Larger: 2}, large: 2, want: [2]int{0, 2}},
		"some":                  {demand: task.Demand{Ready: 2, InHand: 4, Larger: 3}, large: 3, want: [2]int{3, 3}},
		"where more is not had": {demand: task.Demand{InHand: 2, Larger: 2}, small: 2, want: [2]int{2, 0}},
		"short ones share":      {demand: task.Demand{InHand: 9, Larger: 9, Mean: 20}, large: 9, want: [2]int{0, 2}},
	} {
		s := newState(&Config{Kinds: []Kind{{Name: "a", Functions: f, Memory: 8, Max: 9}, {Name: "b", Functions: f, Memory: 16, Max: 9}}})
		if c.demand.Mean == 0 {
			c.demand.Mean = 1000
		}
		c.demand.Function, c.demand.Running, c.demand.Left = "f", true, c.demand.Ready+c.demand.InHand
		s.open, s.demand = true, []task.Demand{c.demand}
		for i, n := range []int{c.small, c.large} {
			if n > 0 {
				id := fmt.Sprint("1-", i+1)
				s.ranges[id] = &heldRange{Range: cloud.Range{ID: id, Function: "f", To: n, Memory: 16}, kind: s.kinds[i]}
			}
		}
		if got := [2]int{s.wanted(s.kinds[0], start), s.wanted(s.kinds[1], start)}; got != c.want {
			t.Errorf("%s: %v machines, want %v", name, got, c.want)
		}
	}
}

// TestWhoStays: more is to be taken, or these machines stay.
func TestWhoStays(t *testing.T) {
	t.Parallel()
	held := func(s *state, id, machine string, n int) {
		r := cloud.Range{ID: id, Function: "f", To: n}
		s.ranges[id] = &heldRange{Range: r, kind: s.kinds[0], sent: start}
		if machine != "" {
			s.ranges[id].holder = machine + "/1"
			s.machines[machine].beat.Held = []cloud.Range{r}
		}
	}
	last := task.Demand{Function: "g", Left: 1, Mean: -1}
	for name, c := range map[string]struct {
		kind   Kind
		demand []task.Demand
		change func(*state)
		more   bool
		keep   string
	}{
		"tasks are ready":                   {demand: []task.Demand{running("f", 1, 0, 9)}, more: true},
		"nobody is known to have it yet":    {demand: []task.Demand{running("f", 0, 1, 9)}, change: func(s *state) { held(s, "1-1", "", 1) }, more: true},
		"all is taken":                      {demand: []task.Demand{running("f", 0, 1, 9)}, change: func(s *state) { held(s, "1-1", "i-2", 1) }, keep: "i-2"},
		"all is taken, and something comes": {demand: []task.Demand{running("f", 0, 1, 9), last}, change: func(s *state) { held(s, "1-1", "i-3", 1) }, keep: "i-3"},
		"nothing yet, but soon":             {demand: []task.Demand{last}, keep: "i-1"},
		"follows task by task":              {demand: []task.Demand{{Function: "f", Running: true, Left: 9, Mean: 50}}, keep: "i-1 i-2 i-3"},
		"follows, but not worth more":       {demand: []task.Demand{{Function: "f", Running: true, Left: 9, Mean: 1}}, keep: "i-1"},
		"those who stayed stay":             {demand: []task.Demand{last}, change: func(s *state) { s.written.Kinds["k"] = wire.KindControl{Keep: []string{"i-3"}} }, keep: "i-3"},
		"min":                               {kind: Kind{Min: 2}, demand: []task.Demand{last}, keep: "i-1 i-2"},
		"nothing more":                      {kind: Kind{Min: 2}, demand: []task.Demand{{Function: "f", Done: true}}},
		"after the end":                     {demand: []task.Demand{running("f", 1, 0, 9)}, change: func(s *state) { s.stop = wire.StopFinished }},
		"a takeover waits":                  {demand: nil, change: func(s *state) { s.open = false }, more: true},
	} {
		c.kind.Max = 9
		s := stateOf(c.kind, c.demand...).with(3, nil)
		if c.change != nil {
			c.change(s)
		}
		got := s.control(start).Kinds["k"]
		if got.More != c.more || strings.Join(got.Keep, " ") != c.keep {
			t.Errorf("%s: more %v, keep %v", name, got.More, got.Keep)
		}
	}
}

func TestMachinesThatAreLost(t *testing.T) {
	t.Parallel()
	now := start.Add(time.Hour)
	for name, c := range map[string]struct {
		change func(*state, *machine)
		want   string
	}{
		"all is well":                 {func(*state, *machine) {}, ""},
		"silent":                      {func(_ *state, m *machine) { m.silent = wire.Silence }, "give up, terminate: no sign of life for 1m30s"},
		"silent while leaving":        {func(_ *state, m *machine) { m.phase, m.silent = leaving, wire.Silence }, "give up, terminate: no sign of life for 1m30s"},
		"not silent for long":         {func(_ *state, m *machine) { m.silent = wire.Silence - time.Second }, ""},
		"being given up already":      {func(_ *state, m *machine) { m.losing, m.silent = true, time.Hour }, ""},
		"has ended":                   {func(_ *state, m *machine) { m.missing, m.confirmed = vanished, true }, "give up: it has ended"},
		"its last words are not read": {func(_ *state, m *machine) { m.missing = vanished }, ""},
		"its segments are not read":   {func(_ *state, m *machine) { m.missing, m.confirmed, m.known = vanished, true, 1 }, ""},
		"said goodbye and has ended": {func(_ *state, m *machine) {
			m.phase, m.missing, m.confirmed, m.beat.Why = left, vanished, true, "was idle"
		}, "ended: was idle"},
		"said goodbye": {func(_ *state, m *machine) { m.phase = left }, ""},
		"said goodbye and holds something": {func(s *state, m *machine) {
			m.phase, m.beat.Why = left, "was taken back"
			s.ranges["1-1"] = &heldRange{holder: "i-1/1", kind: s.kinds[0]}
		}, "give up: was taken back"},
		"boots":                  {func(_ *state, m *machine) { m.phase, m.token, m.seen = booting, "t", now.Add(-time.Minute) }, ""},
		"boots for too long":     {func(_ *state, m *machine) { m.phase, m.token, m.silent = booting, "t", 11*time.Minute }, "boot log: it did not say hello within 10m0s"},
		"boots in an outage":     {func(_ *state, m *machine) { m.phase, m.token, m.silent = booting, "t", time.Minute }, ""},
		"does not come":          {func(_ *state, m *machine) { m.phase, m.silent = booting, 3*time.Minute }, "boot log: it did not say hello within 30s"},
		"ended in its boot":      {func(_ *state, m *machine) { m.phase, m.seen, m.missing, m.confirmed = booting, now, vanished, true }, "boot log: it ended before it said hello"},
		"has ended, and counted": {func(_ *state, m *machine) { m.phase, m.missing, m.confirmed = ended, vanished, true }, ""},
	} {
		s := stateOf(Kind{Max: 9}).with(1, nil)
		c.change(s, s.machines["i-1"])
		var got []string
		for _, a := range s.decideMachines(now) {
			switch a := a.(type) {
			case actGiveUp:
				text := "give up"
				if a.terminate {
					text += ", terminate"
				}
				got = append(got, text+": "+a.why)
			case actEnded:
				got = append(got, "ended: "+a.why)
			case actBootLog:
				got = append(got, "boot log: "+a.why)
			}
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
}

func TestWhenControlIsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*state)
		after  time.Duration
		want   bool
	}{
		"nothing is new":                   {func(*state) {}, 0, false},
		"a minute later":                   {func(*state) {}, time.Minute, true},
		"it may not be there":              {func(s *state) { s.dirty = true }, 0, true},
		"one is being written":             {func(s *state) { s.dirty, s.writing = true, true }, time.Hour, false},
		"a stop":                           {func(s *state) { s.stop = wire.StopCancel }, 0, true},
		"a lost machine":                   {func(s *state) { s.lost = []string{"i-1/1"} }, 0, true},
		"a stopped function":               {func(s *state) { s.stopped = []string{"f"} }, 0, true},
		"a shorter grant":                  {func(s *state) { s.limits.Cost, s.limits.Spent = 1, 0.999; s.with(1, nil) }, 0, true},
		"more machines":                    {func(s *state) { s.with(3, nil) }, 0, false},
		"so many that they must be slower": {func(s *state) { s.with(500, nil) }, 0, true},
	} {
		s := stateOf(Kind{Max: 9, Price: func(string, string, bool) float64 { return 1 }}, running("f", 5, 0, 1))
		c.change(s)
		if _, got := s.decideControl(start.Add(c.after)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	waits := func(s *state, d, idle time.Duration) {
		for _, m := range s.machines {
			m.idleFrom = start.Add(-idle)
		}
		s.ranges["1-1"] = &heldRange{Range: cloud.Range{ID: "1-1", Function: "f", To: 1}, kind: s.kinds[0], sent: start.Add(-d)}
	}
	for name, c := range map[string]struct {
		change func(*state)
		want   string
	}{
		"none":                {func(*state) {}, ""},
		"a queue":             {func(s *state) { waits(s, 6*time.Minute, 6*time.Minute) }, "queue k"},
		"a queue, for longer": {func(s *state) { waits(s, 11*time.Minute, 6*time.Minute) }, "queue k, resend 1"},
		"between two ranges":  {func(s *state) { waits(s, 11*time.Minute, 4*time.Minute) }, ""},
		"all are busy": {func(s *state) {
			waits(s, 11*time.Minute, 0)
			for _, m := range s.machines {
				m.idleFrom = time.Time{}
			}
		}, ""},
		"idle": {func(s *state) { s.lastBusy = start.Add(-6 * time.Minute) }, "idle"},
		"prepares": {func(s *state) {
			m := s.machines["i-1"]
			m.beat.State, m.Joined = wire.StatePreparing, start.Add(-11*time.Minute)
		}, "preparing"},
		"slow":                 {func(s *state) { s.expect = map[string]time.Duration{"f": time.Second}; s.demand[0].Ended = 5 }, "slow f"},
		"not known to be slow": {func(s *state) { s.expect = map[string]time.Duration{"f": time.Second}; s.demand[0].Ended = 4 }, ""},
		"as slow as was said":  {func(s *state) { s.expect = map[string]time.Duration{"f": 6 * time.Second}; s.demand[0].Ended = 50 }, ""},
		"no worker":            {func(s *state) { s.kinds[0].Max = 0 }, "fail"},
	} {
		s := stateOf(Kind{Max: 9}, running("f", 5, 0, 10)).with(2, nil)
		c.change(s)
		var got []string
		for _, a := range s.decideWarnings(start) {
			switch a := a.(type) {
			case actWarn:
				got = append(got, a.key)
			case actResend:
				got = append(got, fmt.Sprintf("resend %d", len(a.list)))
			case actFail:
				got = append(got, "fail")
			}
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
}

func TestWhoGoesForMoney(t *testing.T) {
	t.Parallel()
	// $0.04 each for two minutes, $0.02 for the minute in which one ends.
	s := stateOf(Kind{Max: 9, Price: func(string, string, bool) float64 { return 1.2 }}, running("f", 99, 0, 1)).with(4, nil)
	s.limits.Cost = 1
	live := func(id string, ago time.Duration) {
		s.machines[id].beat.Live = []task.Live{{Started: start.Add(-ago).UnixNano()}}
	}
	live("i-1", time.Minute)
	live("i-2", time.Hour)
	s.machines["i-3"].phase = booting
	for rest, want := range map[float64]string{0.17: "", 0.15: "i-3", 0.13: "i-3 i-4", 0.11: "i-3 i-4 i-1", 0.05: "over"} {
		s.limits.Spent = 1 - rest - 4*0.02 // each is billed for a minute
		drop, over := s.tooMany(start)
		var got []string
		for _, m := range drop {
			got = append(got, m.ID)
		}
		if over {
			got = []string{"over"}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("$%.2f left: %v, want %s", rest, got, want)
		}
	}
}

// TestBudgetIsKept: whatever is launched, ends and costs, and whenever the
// coordinator dies, the machines cannot cost more than the limit and a grace.
func TestBudgetIsKept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		price := rapid.Float64Range(0.01, 10).Draw(t, "price")
		limit := rapid.Float64Range(0.01, 50).Draw(t, "limit")
		s := stateOf(Kind{Max: rapid.IntRange(1, 200).Draw(t, "max"), Price: func(string, string, bool) float64 { return price }}, running("f", 1000, 0, 1000))
		s.limits.Cost = limit
		now := start
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			drop, over := s.tooMany(now)
			for _, m := range drop {
				m.phase, m.Ended = ended, now
			}
			if !over {
				n := s.launches(now)[s.kinds[0]]
				s.kinds[0].asked = n
				s.written = s.control(now) // before they are launched
				s.kinds[0].asked = 0
				some := rapid.IntRange(0, n).Draw(t, "launched")
				s.with(some, func(m *machine) {
					m.ID = fmt.Sprintf("%d-%s", step, m.ID)
					m.Joined = now
					m.Price = price * rapid.Float64Range(0.3, 1).Draw(t, "share") // spot is cheaper
				})
			}
			for _, m := range s.sorted() {
				if m.alive() && rapid.IntRange(0, 20).Draw(t, "ends") == 0 {
					m.phase, m.Ended = ended, now
				}
			}
			s.written = s.control(now)
			// Now it dies.
			sum, grace := 0.0, 0.0
			for _, m := range s.machines {
				sum += m.Cost(s.written.Until)
				if m.alive() {
					grace += m.Price * (time.Minute).Hours()
				}
			}
			if sum > limit+grace+1e-9 {
				t.Fatalf("step %d: $%.4f of $%.4f with a grant of %s", step, sum, limit, s.written.Until.Sub(now))
			}
		}
	})
}

func TestLeftIsTold(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 1, 1, 12, 0, 30, 0, time.Local)
	for want, l := range map[string]Left{
		"0 machines left": {},
		"2 machines wait until 12:00:30 for another run (keepalive 30s)":   {Waiting: 2, Until: until, KeepAlive: 30 * time.Second},
		"1 machine waits until 12:00:30 for another run (keepalive 1m0s)":  {Waiting: 1, Until: until, KeepAlive: time.Minute},
		"1 machine left that should not be: i-1; coiled-jobs gc ends them": {Alive: []string{"i-1"}},
	} {
		if got := l.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestBeatsAreReadAtAPace(t *testing.T) {
	t.Parallel()
	var got []time.Duration
	for _, n := range []int{1, 500, 100_000} {
		got = append(got, beatsEvery(n))
	}
	if want := []time.Duration{2 * time.Second, 10 * time.Second, wire.BeatEvery}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
