package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/smithy-go"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

const (
	// batchSize is how many machines one request asks for: Amazon advises
	// several of about a hundred rather than a large one.
	batchSize = 100
	// batches is how many requests of a wave are on their way at a time.
	batches = 4
	// maxTypes is how many types one request names.
	maxTypes = 60
	// readyWithin is how long a batch is tried again because something is not
	// known to EC2 yet, or there were too many requests.
	readyWithin = time.Minute
	// repeatWithin is how long EC2 is trusted to know a token. An older intent
	// is not repeated: its machines are looked for by tag, and have been
	// visible for long.
	repeatWithin = 10 * time.Minute
)

// launched is what a token got.
type launched struct {
	turn     chan struct{} // held by the call of Launch that works on it
	intents  []Intent      // in the order they were recorded
	answers  map[string][]cloud.Machine
	recalled bool
	done     bool // all waves were tried: list and err are the answer
	list     []cloud.Machine
	err      error
}

// Launch starts up to spec.Count machines, in waves: a market, once more
// without the pools that had none, then on-demand where spot_policy lets it.
// Fewer than asked for come with KindNoCapacity or KindQuota. After any other
// error the machines returned do run, and the same token goes on from there.
func (m *Machines) Launch(ctx context.Context, spec cloud.MachineSpec) ([]cloud.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(spec.Types) == 0 {
		spec.Types = m.o.Types
	}
	markets, err := m.check(spec)
	if err != nil {
		return nil, err
	}
	known := m.token(spec)
	select {
	case known.turn <- struct{}{}:
		defer func() { <-known.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if known.done {
		return slices.Clone(known.list), known.err
	}
	l := &launch{m: m, spec: spec, known: known, stopped: map[string]bool{}, quotas: map[string]string{}}
	if err := l.replay(ctx); err != nil {
		return l.got, err
	}
	if l.left() > 0 {
		if err := l.prepare(ctx); err != nil {
			return l.got, err
		}
		for _, market := range markets {
			if err := l.runWave(ctx, market); err != nil {
				return l.got, err
			}
		}
	}
	known.done, known.list, known.err = true, slices.Clone(l.got), l.shortfall()
	return l.got, known.err
}

// check refuses what EC2 need not be asked about, and says in which markets to
// try.
func (m *Machines) check(spec cloud.MachineSpec) ([]string, error) {
	var markets []string
	why := ""
	switch spec.Spot {
	case "spot":
		markets = []string{marketSpot, marketSpot}
	case "spot_with_fallback", "":
		markets = []string{marketSpot, marketSpot, marketOnDemand, marketOnDemand}
	case "on-demand":
		markets = []string{marketOnDemand, marketOnDemand}
	default:
		why = fmt.Sprintf("spot_policy %q is none of on-demand, spot and spot_with_fallback", spec.Spot)
	}
	switch {
	case why != "":
	case spec.Count < 1:
		why = fmt.Sprintf("%d machines", spec.Count)
	case len(spec.Types) == 0:
		why = "no instance types are named"
	case spec.Run == "":
		why = "no run is named"
	case spec.Region != "" && spec.Region != m.region:
		why = fmt.Sprintf("machines in %s are asked for from %s", spec.Region, m.region)
	}
	if why != "" {
		return nil, &cloud.Error{Op: "launch", Resource: "machines in " + m.region, Kind: cloud.KindInvalid, Err: errors.New(why)}
	}
	return markets, nil
}

// token is what is known of a spec's token. No token is a new launch.
func (m *Machines) token(spec cloud.MachineSpec) *launched {
	known := &launched{turn: make(chan struct{}, 1), answers: map[string][]cloud.Machine{}}
	if spec.Token == "" {
		known.recalled = true
		return known
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := spec.Run + "\x00" + spec.Token
	if was := m.tokens[key]; was != nil {
		return was
	}
	m.tokens[key] = known
	return known
}

// launch is a call of Launch.
type launch struct {
	m     *Machines
	spec  cloud.MachineSpec
	known *launched
	wave  int
	// Of prepare:
	template  *template
	targets   []Target
	tags      map[string]string
	launchTag string

	mu       sync.Mutex
	got      []cloud.Machine
	problems []string          // what pools said, once each
	stopped  map[string]bool   // markets in which nothing more is to be had
	quotas   map[string]string // market -> the type that its limit was told for
}

func (l *launch) left() int { return l.spec.Count - len(l.got) }

// launchID is the tag by which the machines of a token are found.
func launchID(spec cloud.MachineSpec) string { return shortHash(spec.Run, spec.Token) }

// replay repeats what was asked for earlier with this token: EC2 answers what
// it answered then.
func (l *launch) replay(ctx context.Context) error {
	k := l.known
	if !k.recalled && l.m.o.Recall != nil {
		intents, err := l.m.o.Recall(ctx, l.spec.Token)
		if err != nil {
			return err
		}
		k.intents = intents
	}
	k.recalled = true
	byTag := false
	for _, in := range k.intents {
		l.wave = max(l.wave, in.Wave+1)
		machines, ok := k.answers[in.Client]
		if !ok && time.Since(in.At) > repeatWithin {
			byTag = true
			continue
		}
		if !ok {
			var err error
			var errs []poolError
			machines, errs, err = l.m.fleet(ctx, in)
			switch cloud.KindOf(err) {
			case cloud.KindInvalid, cloud.KindNotFound: // refused, then as now
			default:
				if err != nil {
					return err
				}
			}
			for _, e := range errs {
				if e.kind() == cloud.KindNoCapacity {
					l.m.leaveOut(in.Market, e.targets)
				}
			}
			k.answers[in.Client] = machines
		}
		l.got = append(l.got, machines...)
	}
	if !byTag {
		return nil
	}
	list, err := l.m.describe(ctx, filter("tag:"+tagLaunch, launchID(l.spec)), filter("tag:"+tagRun, l.spec.Run))
	if err != nil {
		return err
	}
	for _, x := range list {
		if !slices.ContainsFunc(l.got, func(g cloud.Machine) bool { return g.ID == x.ID }) {
			l.got = append(l.got, x)
		}
	}
	return nil
}

// runWave asks for what is left in one market. What is short of machines is
// no error here.
func (l *launch) runWave(ctx context.Context, market string) error {
	if l.left() <= 0 || l.stopped[market] {
		return nil
	}
	targets := l.m.worthTrying(market, l.targets)
	if len(targets) == 0 {
		l.problem("every " + market + " pool was without capacity in the last " + leftOut.String())
		return nil
	}
	wave := l.wave
	l.wave++
	var sizes []int
	for left := l.left(); left > 0; left -= batchSize {
		sizes = append(sizes, min(left, batchSize))
	}
	var work sync.WaitGroup
	var failure error
	short := false
	slots := make(chan struct{}, batches)
	for i, n := range sizes {
		slots <- struct{}{}
		l.mu.Lock()
		stop := short || failure != nil
		l.mu.Unlock()
		if stop { // what one batch did not get the next will not
			break
		}
		work.Go(func() {
			defer func() { <-slots }()
			missing, err := l.batch(ctx, wave, i, market, n, targets)
			l.mu.Lock()
			defer l.mu.Unlock()
			short = short || missing > 0
			if failure == nil {
				failure = err
			}
		})
	}
	work.Wait()
	return failure
}

// batch asks for up to n machines and says how many did not come.
func (l *launch) batch(ctx context.Context, wave, batch int, market string, n int, targets []Target) (missing int, err error) {
	deadline := time.Now().Add(readyWithin)
	backoff := newBackoff()
	for try := 0; ; try++ {
		in := Intent{Token: l.spec.Token, Run: l.spec.Run, Pool: l.spec.Pool, Wave: wave, Batch: batch, Try: try, Market: market,
			Count: n, Template: l.template.name, Image: l.template.image, Targets: targets, Tags: l.tags, At: time.Now()}
		machines, errs, err := l.ask(ctx, in)
		if err != nil {
			return n, err
		}
		n -= len(machines)
		later, err := l.read(ctx, market, errs)
		if n <= 0 {
			return 0, nil
		}
		if err != nil {
			return n, err
		}
		wait, _ := backoff.Next()
		if !later {
			return n, nil
		}
		if time.Now().Add(wait).After(deadline) {
			return n, inVain(errs, l.m.region)
		}
		if err := sleep(ctx, wait); err != nil {
			return n, err
		}
		if slices.ContainsFunc(errs, func(e poolError) bool { return strings.HasPrefix(e.code, "InvalidLaunchTemplate") }) {
			// Not known yet, or somebody cleaned up after this run.
			l.m.forgetTemplate(l.template.name)
			if err := l.m.ensureTemplate(ctx, l.template); err != nil {
				return n, err
			}
		}
	}
}

// inVain is the error of a batch that was tried again until time was up.
func inVain(errs []poolError, region string) error {
	e := errs[0]
	for _, x := range errs {
		if kind := x.kind(); kind != cloud.KindNoCapacity && kind != cloud.KindQuota {
			e = x
		}
	}
	return &cloud.Error{Op: "launch", Resource: describeTargets(e.targets, region), Kind: e.kind(), Err: fmt.Errorf("%s (%s)", lowerFirst(e.message), e.code)}
}

// ask records an intent, carries it out and remembers what came of it.
func (l *launch) ask(ctx context.Context, in Intent) ([]cloud.Machine, []poolError, error) {
	if l.spec.Token == "" {
		in.Token = l.launchTag // nobody repeats it, but no two launches are the same
	}
	if err := in.seal(); err != nil {
		return nil, nil, err
	}
	if err := l.m.record(ctx, in); err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	l.known.intents = append(l.known.intents, in)
	l.mu.Unlock()
	machines, errs, err := l.m.fleet(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known.answers[in.Client] = machines
	l.got = append(l.got, machines...)
	return machines, errs, nil
}

// read learns from what pools said. later: the rest is worth asking for again,
// in a moment.
func (l *launch) read(ctx context.Context, market string, errs []poolError) (later bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range errs {
		text := fmt.Sprintf("%s: %s (%s)", market, lowerFirst(strings.TrimSuffix(e.message, ".")), e.code)
		switch kind := e.kind(); {
		case kind == cloud.KindNoCapacity:
			l.m.leaveOut(market, e.targets)
		case kind == cloud.KindQuota:
			l.stopped[market] = true
			if len(e.targets) > 0 && l.quotas[market] == "" {
				l.quotas[market] = e.targets[0].Type
			}
		case kind == cloud.KindThrottled || kind == cloud.KindTransient || notKnownYet(e.code, e.message):
			later = true
		case e.code == "UnauthorizedOperation":
			err = ec2Error(ctx, "launch", describeTargets(e.targets, l.m.region), "ec2:RunInstances",
				&smithy.GenericAPIError{Code: e.code, Message: e.message})
			continue
		default: // a request that is wrong, or not allowed: no other pool will do it
			if e.code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted" {
				text += "; " + advice[e.code]
			}
			err = &cloud.Error{Op: "launch", Resource: describeTargets(e.targets, l.m.region), Kind: kind, Err: errors.New(text)}
			continue
		}
		if !slices.Contains(l.problems, text) {
			l.problems = append(l.problems, text)
		}
	}
	return later, err
}

func (l *launch) problem(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, text)
}

// shortfall explains why there are fewer machines than asked for.
func (l *launch) shortfall() error {
	if l.left() <= 0 {
		return nil
	}
	e := &cloud.Error{Op: "launch", Resource: describeTargets(l.targets, l.m.region)}
	for _, market := range []string{marketOnDemand, marketSpot} {
		if t, ok := l.quotas[market]; ok {
			e.Kind, e.Err = cloud.KindQuota, quotaOf(t, market == marketSpot).err(l.m.region, len(l.got), l.spec.Count)
			return e
		}
	}
	if len(l.problems) > 6 {
		l.problems = append(l.problems[:5:5], fmt.Sprintf("and %d more", len(l.problems)-5))
	}
	e.Kind = cloud.KindNoCapacity
	e.Err = fmt.Errorf("%d of %d machines: %s; name more types or zones, or try later", len(l.got), l.spec.Count, strings.Join(l.problems, "; "))
	return e
}

// describeTargets names machines for a message.
func describeTargets(targets []Target, region string) string {
	var names []string
	for _, t := range targets {
		if !slices.Contains(names, t.Type) {
			names = append(names, t.Type)
		}
	}
	switch len(names) {
	case 0:
		return "machines in " + region
	case 1:
		return names[0] + " in " + region
	}
	return fmt.Sprintf("%s or %d other types in %s", names[0], len(names)-1, region)
}
