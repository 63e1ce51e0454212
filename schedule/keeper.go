package schedule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// Schedule is one schedule of a pipeline.
type Schedule struct {
	Pipeline string // its name
	File     string
	// ID tells the schedules of a pipeline apart: a hash over expression, zone
	// and parameters. A schedule that is edited is another one, with nothing to
	// catch up.
	ID     string
	Cron   string
	Zone   string
	Params map[string]string
	Times  *Times
	Policy Policy
}

// Of makes the schedules of a pipeline.
func Of(p *spec.Pipeline, file string) ([]Schedule, error) {
	var list []Schedule
	for _, s := range p.Schedules {
		times, err := ParseTimes(s.Cron, s.Timezone)
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		fmt.Fprintf(h, "%q %q", s.Cron, times.loc)
		for _, k := range slices.Sorted(maps.Keys(s.Params)) {
			fmt.Fprintf(h, " %q=%q", k, s.Params[k])
		}
		list = append(list, Schedule{Pipeline: p.Name, File: file, ID: hex.EncodeToString(h.Sum(nil)[:4]),
			Cron: s.Cron, Zone: times.loc.String(), Params: s.Params, Times: times,
			Policy: Policy{Overlap: s.Overlap, Catchup: s.Catchup, Deadline: s.Deadline, Jitter: s.Jitter, Paused: s.Paused}})
	}
	return list, nil
}

// The states of a Record.
const (
	Starting = "starting" // somebody is about to start the run
	Ran      = "ran"
	Skipped  = "skipped"
	Missed   = "missed"
)

// Record is what became of a tick.
type Record struct {
	Pipeline string    `json:"pipeline"`
	Schedule string    `json:"schedule"` // Schedule.ID
	Cron     string    `json:"cron"`
	Tick     time.Time `json:"tick"`
	State    string    `json:"state"`
	Why      string    `json:"why,omitempty"`
	Run      string    `json:"run,omitempty"`
	At       time.Time `json:"at"`   // when this was written
	Late     float64   `json:"late"` // seconds from the tick to the start of its run
	// Status is what the run ended with: a hint, "" while it goes on and where
	// two keepers were in each other's way.
	Status string `json:"status,omitempty"`
	By     string `json:"by"` // who wrote it
	// Count is how many ticks this stands for, the last of them Tick; 0: one.
	Count int `json:"count,omitempty"`
}

// Runner starts and looks at runs.
type Runner interface {
	// Start starts the run of a tick. Called again with the same key it gives
	// the run that there is, and goes on with it if nobody works on it.
	// ErrBroken (wrapped) if it cannot be started until somebody mends the
	// file; other errors are worth another try.
	Start(ctx context.Context, s Schedule, key string, tick time.Time) (run string, err error)
	// Status is the status of a run; KindNotFound if it was removed.
	Status(ctx context.Context, run string) (string, error)
	// Cancel asks a run to end, and returns when it has.
	Cancel(ctx context.Context, run string) error
}

// ErrBroken says that a run cannot be started as its file is.
var ErrBroken = errors.New("cannot be started")

// Keeper looks after schedules. Any number of them may share a store.
type Keeper struct {
	Store  cloud.Store
	Runner Runner
	By     string // names this keeper in records
	// Missed is told of ticks that this keeper found missed; may be nil.
	Missed func(context.Context, Schedule, Record)
}

// takeOver is how long a run may be about to start before another keeper
// starts it. To start it twice does no harm, since its key is the same.
const takeOver = 2 * time.Minute

// atOnce is the most ticks that are looked at in a round: after a long
// absence, the newest (with catchup: all, the oldest).
const atOnce = 200

func base(s Schedule) string { return "schedules/" + s.Pipeline + "/" + s.ID + "/" }

func stamp(t time.Time) string { return t.UTC().Format("20060102T150405Z") }

// RecordKey is where the record of a tick lies.
func RecordKey(s Schedule, tick time.Time) string { return base(s) + "ticks/" + stamp(tick) + ".json" }

// RunKey is the key of the run of a tick.
func RunKey(s Schedule, tick time.Time) string { return keyPrefix(s) + stamp(tick) }

func keyPrefix(s Schedule) string { return "schedule/" + s.Pipeline + "/" + s.ID + "/" }

func pausedKey(pipeline string) string { return "schedules/" + pipeline + "/paused.json" }

// Round does what is due now for one schedule and returns what was settled.
// What an error stopped is done by a later round.
func (k *Keeper) Round(ctx context.Context, s Schedule, now time.Time) ([]Record, error) {
	from, err := k.from(ctx, s, now)
	if err != nil {
		return nil, err
	}
	paused, err := k.Paused(ctx, s.Pipeline)
	if err != nil {
		return nil, err
	}
	s.Policy.Paused = s.Policy.Paused || paused
	var settled []Record
	ticks, skipped := k.due(s, from, now)
	if skipped != nil {
		if err := k.create(ctx, s, skipped); err != nil {
			return nil, err
		}
		k.tell(ctx, s, *skipped)
		settled = append(settled, *skipped)
	}
	if len(ticks) == 0 {
		_, err := k.live(ctx, s, now) // to see how they ended
		return settled, err
	}
	var open []Tick
	done, starting := map[int64]bool{}, false
	for _, t := range ticks {
		rec, err := k.Record(ctx, s, t)
		if cloud.KindOf(err) == cloud.KindCorrupt {
			// Nobody knows what it said. The key of the tick's run sees to it that
			// there is no second one.
			if err := k.Store.Delete(ctx, RecordKey(s, t)); err != nil {
				return settled, err
			}
			open = append(open, Tick{At: t})
			continue
		}
		switch {
		case cloud.KindOf(err) == cloud.KindNotFound:
			seen := false
			if s.Policy.Overlap == "queue" && s.Policy.Catchup == "none" {
				_, err := k.Store.Get(ctx, seenKey(s, t))
				seen = err == nil
				if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
					return settled, err
				}
			}
			open = append(open, Tick{At: t, Seen: seen})
		case err != nil:
			return settled, err
		case rec.State == Starting && now.Sub(rec.At) < takeOver:
			starting = true
		case rec.State == Starting:
			rec, err := k.start(ctx, s, t, now)
			if err != nil {
				return settled, err
			}
			settled, done[t.Unix()] = append(settled, *rec), true
		default:
			done[t.Unix()] = true
		}
	}
	live, err := k.live(ctx, s, now)
	if err != nil {
		return settled, err
	}
	if len(open) > 0 {
		pauses, err := k.pauses(ctx, s.Pipeline)
		if err != nil {
			return settled, err
		}
		for i := range open {
			open[i].Paused = slices.ContainsFunc(pauses, func(p pause) bool { return p.holds(open[i].At) })
		}
	}
	for _, v := range Decide(s.ID, s.Policy, open, now, live, starting) {
		rec, err := k.perform(ctx, s, v, now)
		if err != nil {
			return settled, fmt.Errorf("%s, tick %s: %w", s.Pipeline, stamp(v.Tick), err)
		}
		if rec != nil {
			settled, done[v.Tick.Unix()] = append(settled, *rec), true
		}
	}
	return settled, k.advance(ctx, s, from, ticks, done)
}

func seenKey(s Schedule, tick time.Time) string { return base(s) + "seen/" + stamp(tick) }

// due is the ticks to look at, and a record for those that are too many.
func (k *Keeper) due(s Schedule, from, now time.Time) ([]time.Time, *Record) {
	if s.Policy.Catchup == "all" {
		var list []time.Time
		for t := s.Times.Next(from); !t.IsZero() && !t.After(now) && len(list) < atOnce; t = s.Times.Next(t) {
			list = append(list, t)
		}
		return list, nil
	}
	list, before := s.Times.Between(from, now, atOnce)
	if before == 0 {
		return list, nil
	}
	rec := k.record(s, list[0].Add(-time.Second), now)
	rec.State, rec.Count = Missed, before
	rec.Why = fmt.Sprintf("nobody looked after the schedule since %s (catchup: %s)", from.UTC().Format(time.RFC3339), s.Policy.Catchup)
	return list, &rec
}

func (k *Keeper) record(s Schedule, tick, now time.Time) Record {
	return Record{Pipeline: s.Pipeline, Schedule: s.ID, Cron: s.Cron, Tick: tick, At: now, By: k.By}
}

// perform carries out a verdict; nil: nothing is settled, or somebody else did.
func (k *Keeper) perform(ctx context.Context, s Schedule, v Verdict, now time.Time) (*Record, error) {
	rec := k.record(s, v.Tick, now)
	switch v.Action {
	case Wait:
		if s.Policy.Overlap == "queue" && s.Policy.Catchup == "none" {
			err := k.Store.Create(ctx, seenKey(s, v.Tick), nil)
			if cloud.KindOf(err) != cloud.KindConflict {
				return nil, err
			}
		}
		return nil, nil
	case Skip, Miss:
		rec.State, rec.Why = Skipped, v.Why
		if v.Action == Miss {
			rec.State = Missed
		}
		if err := k.create(ctx, s, &rec); err != nil {
			return nil, unlessConflict(err)
		}
		k.tell(ctx, s, rec)
		return &rec, nil
	}
	rec.State = Starting
	if err := k.create(ctx, s, &rec); err != nil {
		return nil, unlessConflict(err)
	}
	for _, r := range v.Replace {
		if err := k.Runner.Cancel(ctx, r.Run); err != nil {
			return nil, err
		}
	}
	return k.start(ctx, s, v.Tick, now)
}

func unlessConflict(err error) error {
	if cloud.KindOf(err) == cloud.KindConflict {
		return nil
	}
	return err
}

// start starts the run of a tick that is recorded as starting.
func (k *Keeper) start(ctx context.Context, s Schedule, tick, now time.Time) (*Record, error) {
	rec := k.record(s, tick, now)
	run, err := k.Runner.Start(ctx, s, RunKey(s, tick), tick)
	switch {
	case errors.Is(err, ErrBroken):
		rec.State, rec.Why = Missed, err.Error()
	case err != nil && s.Policy.Deadline > 0 && now.Sub(tick) > s.Policy.Deadline:
		rec.State, rec.Why = Missed, "it could not start within the deadline of "+s.Policy.Deadline.String()+": "+err.Error()
	case err != nil:
		return nil, err // a later round tries again
	default:
		rec.State, rec.Run, rec.Late = Ran, run, now.Sub(tick).Seconds()
		// Before the tick is settled: nobody may think that nothing runs.
		if err := k.put(ctx, liveKey(s, run), liveRun{LiveRun: LiveRun{Run: run, Tick: tick, Started: now}}); err != nil {
			return nil, err
		}
	}
	if err := k.put(ctx, RecordKey(s, tick), rec); err != nil {
		return nil, err
	}
	k.tell(ctx, s, rec)
	return &rec, nil
}

func (k *Keeper) tell(ctx context.Context, s Schedule, rec Record) {
	if rec.State == Missed && k.Missed != nil {
		k.Missed(ctx, s, rec)
	}
}

func (k *Keeper) put(ctx context.Context, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return k.Store.Put(ctx, key, b)
}

func liveKey(s Schedule, run string) string { return base(s) + "live/" + run + ".json" }

// liveRun is what marks a run that has not been seen to end.
type liveRun struct {
	LiveRun
	Resumed int `json:"resumed,omitempty"`
}

// maxResumed is how often a run is gone on with that nobody works on any more.
const maxResumed = 3

func (k *Keeper) create(ctx context.Context, s Schedule, rec *Record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	err = k.Store.Create(ctx, RecordKey(s, rec.Tick), b)
	if rec.Count > 0 {
		return unlessConflict(err)
	}
	return err
}

// Record reads what became of a tick. KindNotFound if nothing has yet.
func (k *Keeper) Record(ctx context.Context, s Schedule, tick time.Time) (*Record, error) {
	return k.read(ctx, RecordKey(s, tick))
}

func (k *Keeper) read(ctx context.Context, key string) (*Record, error) {
	b, err := k.Store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	rec := &Record{}
	if err := json.Unmarshal(b, rec); err != nil || rec.State == "" {
		return nil, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
	}
	return rec, nil
}

// Records are the ticks of a schedule from a time on, oldest first.
func (k *Keeper) Records(ctx context.Context, s Schedule, from time.Time) ([]Record, error) {
	var keys []string
	first := RecordKey(s, from)
	err := k.Store.List(ctx, base(s)+"ticks/", func(o cloud.ObjectInfo) bool {
		if o.Key >= first {
			keys = append(keys, o.Key)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	sort.Strings(keys)
	var list []Record
	for _, key := range keys {
		rec, err := k.read(ctx, key)
		if err != nil {
			return list, err
		}
		list = append(list, *rec)
	}
	return list, nil
}

// Recent is the newest ticks of a schedule that have outcomes, at most n of
// them, oldest first. Those in known (by RecordKey) are not read again.
func (k *Keeper) Recent(ctx context.Context, s Schedule, n int, known map[string]Record) ([]Record, error) {
	var keys []string
	if err := k.Store.List(ctx, base(s)+"ticks/", func(o cloud.ObjectInfo) bool { keys = append(keys, o.Key); return true }); err != nil {
		return nil, err
	}
	sort.Strings(keys)
	var list []Record
	for _, key := range keys[max(0, len(keys)-n):] {
		if rec, ok := known[key]; ok {
			list = append(list, rec)
			continue
		}
		rec, err := k.read(ctx, key)
		if nothing(err) {
			continue
		}
		if err != nil {
			return list, err
		}
		list = append(list, *rec)
	}
	return list, nil
}

// nothing says that a record was removed meanwhile, or cannot be read and so
// tells nothing.
func nothing(err error) bool {
	kind := cloud.KindOf(err)
	return err != nil && (kind == cloud.KindNotFound || kind == cloud.KindCorrupt)
}

// place is since.json and cursor.json.
type place struct {
	At   time.Time `json:"at"`
	Cron string    `json:"cron,omitempty"`
	Zone string    `json:"zone,omitempty"`
	// Was is what since.json said before, a time far ahead of At: one of the two
	// clocks was wrong. Once Was has come it was the other one.
	Was time.Time `json:"was,omitzero"`
}

// ahead is how much clocks of keepers may differ.
const ahead = time.Hour

// from is after which moment the ticks of a schedule count: the last one
// before which all have outcomes, or when it was first seen.
func (k *Keeper) from(ctx context.Context, s Schedule, now time.Time) (time.Time, error) {
	var p place
	var was time.Time
	for _, name := range []string{"cursor.json", "since.json"} {
		b, err := k.Store.Get(ctx, base(s)+name)
		if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
			return p.At, err
		}
		p = place{}
		if err != nil || json.Unmarshal(b, &p) != nil || p.At.IsZero() {
			continue
		}
		// Who saw it first had a clock that went wrong: nothing would be due
		// until then. A cursor is ahead only of ticks that have outcomes.
		if name == "since.json" && p.At.After(now.Add(ahead)) {
			was = p.At
			break
		}
		if !p.Was.IsZero() && !p.Was.After(now) {
			return p.Was, nil // what was due before it was first seen never runs
		}
		return p.At, nil
	}
	p = place{At: now.UTC(), Cron: s.Cron, Zone: s.Zone, Was: was}
	b, err := json.Marshal(p)
	if err != nil {
		return p.At, err
	}
	err = k.Store.Create(ctx, base(s)+"since.json", b)
	if cloud.KindOf(err) != cloud.KindConflict {
		return p.At, err
	}
	var other place // another keeper was first
	if b, err = k.Store.Get(ctx, base(s)+"since.json"); err != nil {
		return p.At, err
	}
	if json.Unmarshal(b, &other) == nil && !other.At.IsZero() && !other.At.After(now.Add(ahead)) {
		return other.At, nil
	}
	return p.At, k.put(ctx, base(s)+"since.json", p)
}

// advance moves the cursor over the ticks that have outcomes. It only saves
// work: an older cursor does no harm.
func (k *Keeper) advance(ctx context.Context, s Schedule, from time.Time, ticks []time.Time, done map[int64]bool) error {
	at := from
	for _, t := range ticks {
		if !done[t.Unix()] {
			break
		}
		at = t
	}
	if !at.After(from) {
		return nil
	}
	return k.put(ctx, base(s)+"cursor.json", place{At: at.UTC()})
}

// Last is what became of the last tick that has an outcome; nil: none has.
func (k *Keeper) Last(ctx context.Context, s Schedule) (*Record, error) {
	last := ""
	err := k.Store.List(ctx, base(s)+"ticks/", func(o cloud.ObjectInfo) bool { last = o.Key; return true })
	if err != nil || last == "" {
		return nil, err
	}
	rec, err := k.read(ctx, last)
	if nothing(err) {
		return nil, nil
	}
	if err == nil && rec.State == Ran && rec.Status == "" {
		// Of a backfill that was killed, or goes on; nobody else looks after it.
		if status, err := k.Runner.Status(ctx, rec.Run); err == nil {
			rec.Status = status
		}
	}
	return rec, err
}
