package schedule

import (
	"fmt"
	"slices"
	"time"

	"github.com/robfig/cron/v3"
)

// Times is the moments of a cron expression in a time zone.
//
// The expression goes by the clock on the wall. Where that jumps:
//   - a moment in an hour that is skipped happens when the hour has been
//     skipped: "30 2 * * *" at 3:00;
//   - a moment in an hour that comes twice happens the first time.
//
// So a nightly run happens once every night. Where the hour field is *, as in
// "30 * * * *", it happens whenever the wall shows it: not at all in a skipped
// hour, twice in a doubled one.
// "@every 90m" counts from the start of 1970, UTC.
type Times struct {
	wall  cron.Schedule // evaluated as if it were UTC
	every time.Duration // of @every; else 0
	shown bool          // whenever the wall shows it: the hour is *
	loc   *time.Location
}

// starBit is what cron sets in a field that was *.
const starBit = 1 << 63

// maxShift is more than any clock on a wall ever jumped, but for days that a
// place left out when it moved across the date line.
const maxShift = 26 * time.Hour

// ParseTimes reads a cron expression (five fields, @daily and the like) and
// the name of a time zone, "" for UTC.
func ParseTimes(expr, zone string) (*Times, error) {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: %w", zone, err)
	}
	s, err := cron.ParseStandard(expr)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", expr, err)
	}
	t := &Times{wall: s, loc: loc}
	switch s := s.(type) {
	case *cron.SpecSchedule:
		s.Location = time.UTC
		t.shown = s.Hour&starBit != 0
	case cron.ConstantDelaySchedule:
		t.every = s.Delay
	}
	return t, nil
}

// Location is the time zone.
func (t *Times) Location() *time.Location { return t.loc }

// Next is the first moment after a time; zero if there is none.
func (t *Times) Next(after time.Time) time.Time {
	if t.every > 0 {
		n := after.UnixNano()/int64(t.every) + 1
		return time.Unix(0, n*int64(t.every)).In(t.loc)
	}
	if at, ok := t.quick(after); ok {
		return at
	}
	var best time.Time
	for w := asUTC(after.In(t.loc)).Add(-maxShift); ; {
		w = t.wall.Next(w)
		if w.IsZero() {
			return best
		}
		for _, at := range t.instants(w) {
			if at.After(after) && (best.IsZero() || at.Before(best)) {
				best = at
			}
		}
		// What follows on the wall may come earlier by as much as it jumps.
		if !best.IsZero() && w.Sub(asUTC(best)) > maxShift {
			return best
		}
	}
}

// quick is Next where no clock jumps anywhere near.
func (t *Times) quick(after time.Time) (time.Time, bool) {
	w := t.wall.Next(asUTC(after.In(t.loc)))
	if w.IsZero() {
		return time.Time{}, false
	}
	_, offset := after.In(t.loc).Zone()
	at := w.Add(-time.Duration(offset) * time.Second).In(t.loc)
	for _, probe := range []time.Time{after.Add(-maxShift), at, at.Add(maxShift)} {
		if _, o := probe.In(t.loc).Zone(); o != offset {
			return time.Time{}, false
		}
	}
	// Two jumps in between that cancel out leave w as it is.
	return at, at.Sub(after) < maxShift || asUTC(at).Equal(w) && at.Sub(after) < 40*24*time.Hour
}

// Between is the moments after one time until another, which is included; the
// last max of them, and how many there were before those.
func (t *Times) Between(after, until time.Time, max int) (list []time.Time, before int) {
	for at := t.Next(after); !at.IsZero() && !at.After(until); at = t.Next(at) {
		list = append(list, at)
		if len(list) >= 2*max {
			before += len(list) - max
			list = slices.Clone(list[len(list)-max:])
		}
	}
	if over := len(list) - max; over > 0 {
		before += over
		list = list[over:]
	}
	return list, before
}

// asUTC is the time that UTC has when its clock on the wall shows what t's does.
func asUTC(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// instants is when the wall shows w: once, never (then it is when that has
// been skipped), or twice.
func (t *Times) instants(w time.Time) []time.Time {
	// The offsets that hold around w: before a jump, and after it.
	var found []time.Time
	for _, probe := range []time.Duration{-maxShift, maxShift} {
		_, offset := w.Add(probe).In(t.loc).Zone()
		at := w.Add(-time.Duration(offset) * time.Second).In(t.loc)
		if asUTC(at).Equal(w) && !slices.ContainsFunc(found, at.Equal) {
			found = append(found, at)
		}
	}
	// Two jumps within two days, or none of the offsets fits: look closely.
	if len(found) == 0 && !t.shown {
		if at := t.search(w); !at.IsZero() {
			return []time.Time{at}
		}
		return nil
	}
	slices.SortFunc(found, time.Time.Compare)
	if len(found) > 1 && !t.shown {
		found = found[:1]
	}
	return found
}

// search finds the first moment at which the wall shows w or later.
func (t *Times) search(w time.Time) time.Time {
	lo, hi := w.Add(-maxShift), w.Add(maxShift)
	for hi.Sub(lo) > time.Second {
		mid := lo.Add(hi.Sub(lo) / 2)
		if asUTC(mid.In(t.loc)).Before(w) {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi.Truncate(time.Second).In(t.loc)
}
