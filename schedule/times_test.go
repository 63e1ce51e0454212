package schedule

import (
	"testing"
	"time"
)

func next(t *testing.T, expr, zone, after string, n int) []string {
	t.Helper()
	times, err := ParseTimes(expr, zone)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339, after)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for range n {
		if at = times.Next(at); at.IsZero() {
			break
		}
		got = append(got, at.Format(time.RFC3339))
	}
	return got
}

func TestNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, expr, zone, after string
		want                    []string
	}{
		{"nightly", "0 2 * * *", "America/New_York", "2026-11-20T12:00:00Z",
			[]string{"2026-11-21T02:00:00-05:00", "2026-11-22T02:00:00-05:00"}},
		{"after is not included", "0 2 * * *", "UTC", "2026-11-20T02:00:00Z", []string{"2026-11-21T02:00:00Z"}},
		{"skipped hour, New York", "30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z",
			[]string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"}},
		{"skipped hour, hourly", "15 * * * *", "America/New_York", "2026-03-08T06:30:00Z",
			[]string{"2026-03-08T03:15:00-04:00", "2026-03-08T04:15:00-04:00"}},
		{"doubled hour, New York", "30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z",
			[]string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		{"doubled hour, hourly", "30 * * * *", "America/New_York", "2026-11-01T04:45:00Z",
			[]string{"2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:30:00-05:00"}},
		{"doubled hour, every half hour", "*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z",
			[]string{"2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:00:00+01:00"}},
		{"half an hour of summer time", "45 1 * * *", "Australia/Lord_Howe", "2026-04-03T18:00:00Z",
			[]string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		{"midnight that does not exist", "0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z",
			[]string{"2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"}},
		{"a day that Samoa left out", "0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z",
			[]string{"2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"}},
		{"day and weekday", "0 0 13 * 5", "UTC", "2026-11-20T12:00:00Z",
			[]string{"2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"}},
		{"leap day", "0 0 29 2 *", "UTC", "2026-11-20T12:00:00Z", []string{"2028-02-29T00:00:00Z"}},
		{"daily", "@daily", "Asia/Tokyo", "2026-11-20T12:00:00Z", []string{"2026-11-21T00:00:00+09:00"}},
		{"every", "@every 90m", "UTC", "2026-11-20T12:10:00Z", []string{"2026-11-20T13:30:00Z", "2026-11-20T15:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := next(t, c.expr, c.zone, c.after, len(c.want))
			if len(got) != len(c.want) {
				t.Fatalf("%v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%d: %s, want %s", i, got[i], c.want[i])
				}
			}
		})
	}
}

// zones change their clocks in all the ways there are: north and south, half
// an hour, at midnight, never, and twice a year more for Ramadan.
var zones = []string{"UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago",
	"Africa/Casablanca", "Asia/Kolkata", "Pacific/Auckland"}

// TestTenYears compares every moment of ten years with what the clock on the
// wall showed, minute by minute.
func TestTenYears(t *testing.T) {
	t.Parallel()
	for _, zone := range zones {
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			loc, err := time.LoadLocation(zone)
			if err != nil {
				t.Fatal(err)
			}
			nightly, err := ParseTimes("30 2 * * *", zone)
			if err != nil {
				t.Fatal(err)
			}
			hourly, err := ParseTimes("15 * * * *", zone)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Date(2021, 1, 1, 0, 0, 0, 0, loc)
			end := start.AddDate(10, 0, 0)
			// What a watchman would do who looks at the clock every minute.
			nightAt, hourAt := nightly.Next(start), hourly.Next(start)
			ran := "" // the day of the last nightly round
			for at := start.Add(time.Minute); at.Before(end); at = at.Add(time.Minute) {
				day, due := at.Format("2006-01-02"), at.Hour() > 2 || at.Hour() == 2 && at.Minute() >= 30
				if due && ran != day {
					ran = day
					if !nightAt.Equal(at) {
						t.Fatalf("nightly: %s, the watchman says %s", nightAt, at)
					}
					nightAt = nightly.Next(nightAt)
				}
				if at.Minute() == 15 {
					if !hourAt.Equal(at) {
						t.Fatalf("hourly: %s, the watchman says %s", hourAt, at)
					}
					hourAt = hourly.Next(hourAt)
				}
			}
		})
	}
}

func TestBetween(t *testing.T) {
	t.Parallel()
	times, err := ParseTimes("0 * * * *", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	list, before := times.Between(from, from.Add(100*time.Hour), 10)
	if len(list) != 10 || before != 90 || !list[9].Equal(from.Add(100*time.Hour)) || !list[0].Equal(from.Add(91*time.Hour)) {
		t.Fatalf("%d before %v", before, list)
	}
	if list, before := times.Between(from, from.Add(59*time.Minute), 10); len(list) != 0 || before != 0 {
		t.Fatalf("%d before %v", before, list)
	}
}
