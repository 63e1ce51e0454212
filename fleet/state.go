package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// state is everything the loop knows. Only the loop changes it; decide reads it.
type state struct {
	epoch      int
	limits     Limits
	unattended time.Duration
	began      time.Time

	kinds    []*kindState
	machines map[string]*machine
	ranges   map[string]*heldRange // handed out and not ended, by id
	demand   []task.Demand
	stopped  []string // functions

	open    bool // the takeover is over
	stop    string
	lost    []string // machines that were given up, "<machine>/<session>"
	hints   string   // URL
	written wire.Control
	// dirty: what is written is not known to be what was last tried.
	dirty   bool
	writing bool

	failedBoots int
	everWorked  bool
	bootLog     string            // last lines of the last one
	looking     int               // for the logs of so many machines
	noUse       bool              // the next would fail, too
	oldLogs     map[string]string // of kinds, by earlier coordinators' machines
	stopAsked   bool              // by a limit
	failed      bool

	expect   map[string]time.Duration
	lastBusy time.Time // when a machine had work
	warned   map[string]time.Time
}

// forgetLost is how long after the end of a machine the sessions of it that
// were given up stay named: by then no message about its ranges goes round.
const forgetLost = 30 * time.Minute

// pruneLost forgets sessions that were given up long ago.
func (s *state) pruneLost(now time.Time) {
	old := func(name string) bool {
		id, _ := cutLast(name)
		m := s.machines[id]
		return m != nil && m.phase == ended && now.Sub(m.Ended) > forgetLost
	}
	if slices.ContainsFunc(s.lost, old) {
		s.lost = slices.DeleteFunc(slices.Clone(s.lost), old)
	}
}

// kindState is a kind and what is going on with it.
type kindState struct {
	Kind
	queue string // URL
	// opening: it was made for ranges that are about to come.
	opening bool

	asked    int // machines that are being launched
	askedAt  time.Time
	launches int // tokens used
	wait     time.Time
	backoff  time.Duration
	most     int // what the account allows, -1: not known
	troubles int // launches in a row that failed for no known reason
}

// phase is where a machine stands.
type phase uint8

const (
	booting phase = iota // launched or invited; ends with its first heartbeat
	working              // it prepares or works; ends with its own word or when it is given up
	leaving              // it said that it takes no more
	left                 // it has left the run, but may still be billed to it
	ended                // it is not billed any more
)

// machine is a machine of the run.
type machine struct {
	task.Machine
	kind     *kindState // nil: of no kind of this coordinator
	token    string     // of its launch, "" if it was invited or found
	phase    phase
	slots    int
	beat     wire.Beat
	seen     time.Time     // when its heartbeat moved
	idleFrom time.Time     // since when every heartbeat says that it has nothing to do; zero if the last does not
	silent   time.Duration // for how long it did not, or was not there, while it could be read
	lastRead time.Time     // of the last read that succeeded; zero after one that failed
	listed   bool          // the cloud has shown it
	missing  int           // listings without it since
	// confirmed: its heartbeat was read after it was found missing.
	confirming, confirmed bool

	folded  int // segments taken
	known   int // segments that are there
	reading bool

	dismissed string // why it is being terminated; "" if it is not
	losing    bool   // it is being given up
	lostEarly bool   // it was, before the takeover was over
	ending    int    // sessions of it that are being given up
	// invited again by this run: heartbeats from before do not count.
	past    int
	rejoin  bool
	worked  bool
	endedBy time.Time // when it had ended at the latest; zero: not known
	noBeats bool      // it is from before the takeover, and must answer
	answers bool      // it has answered to this coordinator
}

// heldRange is a range that was handed out.
type heldRange struct {
	cloud.Range
	kind   *kindState
	sent   time.Time
	holder string // "<machine>/<session>", "" if nobody is known to have claimed it
	// reported of its tasks have an outcome.
	reported int
}

func (r *heldRange) left() int { return max(0, r.To-r.From-r.reported) }

// over says whether nothing is to be rented any more.
func (s *state) over() bool { return s.stop != "" || s.failed }

// alive says whether a machine is billed.
func (m *machine) alive() bool { return m.phase != ended }

// counts says whether a machine works for the run, now or soon.
func (m *machine) counts() bool {
	return (m.phase == booting || m.phase == working) && m.dismissed == "" && !m.losing
}

func (m *machine) name() string { return sessionName(m.ID, m.beat.Session) }

func sessionName(machine string, session int) string { return machine + "/" + strconv.Itoa(session) }

// busy says whether it holds work, as far as is known.
func (m *machine) busy() bool { return len(m.beat.Held) > 0 || len(m.beat.Live) > 0 }

func newState(cfg *Config) *state {
	s := &state{limits: cfg.Limits, unattended: cfg.Unattended, machines: map[string]*machine{},
		ranges: map[string]*heldRange{}, expect: cfg.Expect, warned: map[string]time.Time{}, oldLogs: map[string]string{}}
	for _, k := range cfg.Kinds {
		s.kinds = append(s.kinds, newKind(cfg.Run, k))
	}
	return s
}

func newKind(run string, k Kind) *kindState {
	ks := &kindState{Kind: k, most: -1}
	ks.Setup.Run, ks.Setup.Kind, ks.Setup.Pool = run, k.Name, k.Pool
	if ks.Slots == nil {
		ks.Slots = func(string) int { return 1 }
	}
	if ks.VCPUs == nil {
		ks.VCPUs = func(string) int { return 0 }
	}
	if ks.Price == nil {
		ks.Price = func(string, string, bool) float64 { return 0 }
	}
	return ks
}

func (k *kindState) firstType() string {
	if len(k.Types) == 0 {
		return ""
	}
	return k.Types[0]
}

// price is the dollars per hour that a machine may cost: the dearest that a
// launch may give.
func (k *kindState) price() float64 {
	p := 0.0
	for _, t := range k.Types {
		p = max(p, k.Price(t, "", false))
	}
	if k.Spot == "spot" {
		q := 0.0
		for _, t := range k.Types {
			q = max(q, k.Price(t, "", true))
		}
		return q
	}
	return p
}

// mostVCPUs is the CPUs of the largest machine that a launch may give.
func (k *kindState) mostVCPUs() int {
	n := 0
	for _, t := range k.Types {
		n = max(n, k.VCPUs(t))
	}
	return n
}

// priceOf is the dollars per hour of a machine that does not say so itself. One
// of no kind costs what another would of its type: no machine is free.
func (s *state) priceOf(m *machine) float64 {
	k := m.kind
	if k == nil && len(s.kinds) > 0 {
		k = s.kinds[0]
	}
	if k == nil {
		return 0
	}
	return k.Price(m.Type, m.Zone, m.Spot)
}

func (s *state) kindNamed(name string) *kindState {
	i := slices.IndexFunc(s.kinds, func(k *kindState) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return s.kinds[i]
}

// kindFor is the kind that works on a range.
func (s *state) kindFor(fn string, memory int64) *kindState { return kindFor(s.kinds, fn, memory) }

// kindFor is the first kind for a function, or the smallest with so much memory;
// the largest, if none has it.
func kindFor(kinds []*kindState, fn string, memory int64) *kindState {
	var best *kindState
	for _, k := range kinds {
		if !slices.Contains(k.Functions, fn) {
			continue
		}
		switch {
		case best == nil, best.Memory < memory && k.Memory > best.Memory,
			best.Memory >= memory && k.Memory >= memory && k.Memory < best.Memory && memory > 0:
			best = k
		}
		if memory == 0 {
			break
		}
	}
	return best
}

// primary says whether a kind is the one for all tasks of a function.
func (s *state) primary(k *kindState, fn string) bool { return s.kindFor(fn, 0) == k }

// sorted is the machines in a fixed order: oldest first.
func (s *state) sorted() []*machine {
	return slices.SortedFunc(maps.Values(s.machines), func(a, b *machine) int {
		return cmp.Or(a.Joined.Compare(b.Joined), cmp.Compare(a.ID, b.ID))
	})
}

// count is how many machines of a kind work for the run, now or soon.
func (s *state) count(k *kindState) int {
	n := k.asked
	for _, m := range s.machines {
		if m.kind == k && m.counts() {
			n++
		}
	}
	return n
}
