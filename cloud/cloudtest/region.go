package cloudtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Region behaves as a region of a cloud does, in memory: pools with a capacity,
// limits of the account, requests that are throttled, machines that are not
// known for a while, tokens that are remembered, notices of spot machines. It
// goes by the clock of time.Now, so that it works inside testing/synctest.
//
// It has two faces: Fleet is a cloud.Machines on it, and tests of an SDK's
// caller put their own on it.
type Region struct {
	// Capacity is how many machines a pool can have at a time; Default is that
	// of the pools which are not in it.
	Capacity map[Pool]int
	Default  int
	// VCPUs limits the account, for each market; not in it: no limit.
	// A machine's are what CPUs says; nil: 2 each.
	VCPUs map[bool]int // spot?
	CPUs  func(instanceType string) int
	// Hidden is how long a machine is not known after its launch.
	Hidden time.Duration
	// Boot is how long a machine is pending.
	Boot time.Duration
	// Rates are the buckets of the operations "launch", "describe",
	// "terminate"; not in it: no limit.
	Rates map[string]Rate
	// Before and After may fail an operation: before it has an effect, and
	// after it, when only the reply is lost. n counts the calls of the
	// operation from 1. The region is not locked.
	Before, After func(op string, n int) error
	// Started and Ended are told about machines. The region is not locked.
	Started, Ended func(Instance)

	mu       sync.Mutex
	counts   map[string]int
	buckets  map[string]*bucket
	tokens   map[string]tokenAnswer
	machines map[string]*Instance
	last     int
}

// Pool is what has a capacity.
type Pool struct {
	Type, Zone string
	Spot       bool
}

// Rate is a token bucket: so many requests at once, so many a second.
type Rate struct{ Burst, PerSecond float64 }

// Instance is a machine of a Region.
type Instance struct {
	ID string
	Pool
	Tags     map[string]string
	Launched time.Time
	// Notice is when a spot machine will be taken back; zero: it was not told.
	Notice time.Time
	Ends   time.Time // when it ended; zero: it lives
}

// state is the machine's state now.
func (i Instance) state(boot time.Duration) string {
	switch {
	case !i.Ends.IsZero():
		return "ended"
	case time.Since(i.Launched) < boot:
		return "pending"
	}
	return "running"
}

// Request asks a Region for machines, best pool first.
type Request struct {
	Token string
	Count int
	Pools []Pool
	Tags  map[string]string
}

// Answer is what came of a request.
type Answer struct {
	Machines []Instance
	Failures []Failure
}

// Failure is why a pool gave less.
type Failure struct {
	Pool
	Code string
}

type tokenAnswer struct {
	body   string
	answer Answer
}

type bucket struct {
	level float64
	at    time.Time
}

// CodeError is an error with a code of EC2's.
type CodeError struct{ Code, Message string }

func (e *CodeError) Error() string { return e.Code + ": " + e.Message }

// do counts and throttles an operation, and lets the script fail it.
func (r *Region) do(op string, act func() error) error {
	r.mu.Lock()
	if r.counts == nil {
		r.counts, r.buckets, r.tokens, r.machines = map[string]int{}, map[string]*bucket{}, map[string]tokenAnswer{}, map[string]*Instance{}
	}
	r.counts[op]++
	n := r.counts[op]
	ok := r.take(op)
	r.mu.Unlock()
	if !ok {
		return &CodeError{"RequestLimitExceeded", "Request limit exceeded."}
	}
	if r.Before != nil {
		if err := r.Before(op, n); err != nil {
			return err
		}
	}
	r.mu.Lock()
	err := act()
	r.mu.Unlock()
	if err == nil && r.After != nil {
		err = r.After(op, n)
	}
	return err
}

// take takes a token of an operation's bucket.
func (r *Region) take(op string) bool {
	rate, ok := r.Rates[op]
	if !ok {
		return true
	}
	b := r.buckets[op]
	if b == nil {
		b = &bucket{level: rate.Burst, at: time.Now()}
		r.buckets[op] = b
	}
	b.level = min(rate.Burst, b.level+time.Since(b.at).Seconds()*rate.PerSecond)
	b.at = time.Now()
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// Count is how many calls of an operation there were.
func (r *Region) Count(op string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[op]
}

func (r *Region) cpus(instanceType string) int {
	if r.CPUs == nil {
		return 2
	}
	return r.CPUs(instanceType)
}

// Launch takes machines from the pools of a request, one pool after the other.
// The same token gives the same answer, or IdempotentParameterMismatch if the
// request is another one.
func (r *Region) Launch(req Request) (Answer, error) {
	var answer Answer
	var started []Instance
	err := r.do("launch", func() error {
		body := fmt.Sprintf("%d %v %v", req.Count, req.Pools, req.Tags)
		if was, ok := r.tokens[req.Token]; ok && req.Token != "" {
			if was.body != body {
				return &CodeError{"IdempotentParameterMismatch", "The client token is already used with different parameters."}
			}
			answer = was.answer
			return nil
		}
		answer = r.launch(req)
		started = answer.Machines
		if req.Token != "" {
			r.tokens[req.Token] = tokenAnswer{body, answer}
		}
		return nil
	})
	if r.Started != nil {
		for _, i := range started {
			r.Started(i)
		}
	}
	if err != nil {
		return Answer{}, err
	}
	return answer, nil
}

func (r *Region) launch(req Request) Answer {
	used, cpus := map[Pool]int{}, map[bool]int{}
	for _, i := range r.machines {
		if i.Ends.IsZero() {
			used[i.Pool]++
			cpus[i.Spot] += r.cpus(i.Type)
		}
	}
	var a Answer
	for _, p := range req.Pools {
		capacity, ok := r.Capacity[p]
		if !ok {
			capacity = r.Default
		}
		code := ""
		for len(a.Machines) < req.Count && code == "" {
			limit, limited := r.VCPUs[p.Spot]
			switch {
			case limited && cpus[p.Spot]+r.cpus(p.Type) > limit && p.Spot:
				code = "MaxSpotInstanceCountExceeded"
			case limited && cpus[p.Spot]+r.cpus(p.Type) > limit:
				code = "VcpuLimitExceeded"
			case used[p] >= capacity:
				code = "InsufficientInstanceCapacity"
			default:
				r.last++
				i := &Instance{ID: fmt.Sprintf("i-%017x", r.last), Pool: p, Tags: maps.Clone(req.Tags), Launched: time.Now()}
				r.machines[i.ID] = i
				used[p]++
				cpus[p.Spot] += r.cpus(p.Type)
				a.Machines = append(a.Machines, *i)
			}
		}
		if code != "" {
			a.Failures = append(a.Failures, Failure{p, code})
		}
	}
	return a
}

// Describe shows the machines that are known by now and that want accepts.
func (r *Region) Describe(want func(Instance) bool) ([]Instance, error) {
	var list []Instance
	err := r.do("describe", func() error {
		for _, i := range r.machines {
			if time.Since(i.Launched) >= r.Hidden && want(*i) {
				list = append(list, *i)
			}
		}
		return nil
	})
	slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	return list, err
}

// State is the state of a machine: pending, running or ended.
func (r *Region) State(i Instance) string { return i.state(r.Boot) }

// Terminate ends machines: none of them if one is not known.
func (r *Region) Terminate(ids ...string) error {
	var ended []Instance
	err := r.do("terminate", func() error {
		var unknown []string
		for _, id := range ids {
			if i := r.machines[id]; i == nil || time.Since(i.Launched) < r.Hidden {
				unknown = append(unknown, id)
			}
		}
		if len(unknown) > 0 {
			return &CodeError{"InvalidInstanceID.NotFound", fmt.Sprintf("The instance IDs '%s' do not exist", strings.Join(unknown, ", "))}
		}
		for _, id := range ids {
			ended = append(ended, r.end(id)...)
		}
		return nil
	})
	r.tellEnded(ended)
	return err
}

// end ends a machine that lives. The caller holds mu.
func (r *Region) end(id string) []Instance {
	i := r.machines[id]
	if i == nil || !i.Ends.IsZero() {
		return nil
	}
	i.Ends = time.Now()
	return []Instance{*i}
}

func (r *Region) tellEnded(list []Instance) {
	if r.Ended != nil {
		for _, i := range list {
			r.Ended(i)
		}
	}
}

// PowerOff ends a machine as its own power-off does, or a failure of the host.
func (r *Region) PowerOff(id string) {
	r.mu.Lock()
	ended := r.end(id)
	r.mu.Unlock()
	r.tellEnded(ended)
}

// Reclaim tells a spot machine that it will be taken back, and takes it back
// two minutes later.
func (r *Region) Reclaim(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.machines[id]; i != nil && i.Ends.IsZero() && i.Notice.IsZero() {
		i.Notice = time.Now().Add(2 * time.Minute)
		time.AfterFunc(2*time.Minute, func() { r.PowerOff(id) })
	}
}

// Notice is when a machine will be taken back, as it can see itself.
func (r *Region) Notice(id string) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.machines[id]
	if i == nil || i.Notice.IsZero() {
		return time.Time{}, false
	}
	return i.Notice, true
}

// Live is the machines that have not ended, known or not.
func (r *Region) Live() []Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Instance
	for _, i := range r.machines {
		if i.Ends.IsZero() {
			list = append(list, *i)
		}
	}
	slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
