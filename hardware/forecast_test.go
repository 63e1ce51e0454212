package hardware

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

var (
	usRates = RatesOf("us-east-1")
	xlarge  = Machine{Instance: 0.0768, InstanceMost: 0.192, Disk: usRates.DiskHour(0), Address: usRates.AddressHour}
)

func TestMachinesFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		job  Job
		want int
	}{
		{Job{Tasks: 120, Seconds: 18, Slots: 1, Max: 33}, 18},          // 36 minutes of work, two minutes each
		{Job{Tasks: 120, Seconds: 600, Slots: 1, Max: 33}, 33},         // n_workers
		{Job{Tasks: 20, Seconds: 600, Slots: 1, Max: 500}, 20},         // one a task
		{Job{Tasks: 20, Seconds: 600, Slots: 4, Max: 500}, 5},          // four at a time
		{Job{Tasks: 1000, Seconds: 0.1, Slots: 1, Max: 500}, 1},        // hardly any work
		{Job{Tasks: 1000, Seconds: 0.1, Slots: 1, Min: 7, Max: 50}, 7}, // asked for
		{Job{Tasks: 1000, Seconds: 600, Slots: 2, Concurrency: 10, Max: 50}, 5},
		{Job{Tasks: 0, Seconds: 600, Slots: 2, Max: 50}, 0},
	} {
		if got := c.job.MachinesFor(c.job.Seconds); got != c.want {
			t.Errorf("%+v: %d, want %d", c.job, got, c.want)
		}
	}
}

// The seeds' own case: 35.9 minutes of work on one machine, on 33 in less than
// the 4.7 minutes it took there, for less than a quarter.
func TestForecastTaxi(t *testing.T) {
	t.Parallel()
	taxi := Job{Tasks: 120, Seconds: 35.9 * 60 / 120, Slowest: 60, Slots: 1, Max: 500}
	one, _ := taxi.On(1, xlarge, usRates)
	many, most := taxi.On(33, xlarge, usRates)
	if one.Machines != 1 || math.Abs(one.Seconds-35.9*60-Boot) > 1 || many.Machines != 33 || many.Seconds > 4.7*60 {
		t.Errorf("%+v\n%+v", one, many)
	}
	if c := many.Bill.Total(); c < one.Bill.Total() || c > 0.25 || most.Bill.Total() > 1.5 {
		t.Errorf("$%.3f, $%.3f, at most $%.3f", one.Bill.Total(), c, most.Bill.Total())
	}
}

// More work never costs or takes less, more machines are never slower and
// never cheaper, and the bound is a bound.
func TestForecastIsMonotone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := Job{Tasks: rapid.IntRange(1, 5000).Draw(t, "tasks"), Seconds: rapid.Float64Range(0.01, 5000).Draw(t, "seconds"),
			Slots: rapid.IntRange(1, 64).Draw(t, "slots"), Max: rapid.IntRange(1, 500).Draw(t, "max"), Warm: rapid.IntRange(0, 3).Draw(t, "warm"),
			Concurrency: rapid.SampledFrom([]int{0, 0, 1, 7, 100}).Draw(t, "concurrency")}
		j.Slowest = j.Seconds * rapid.Float64Range(1, 10).Draw(t, "slowest")
		const eps = 1e-9
		check := func(what string, small, large float64) {
			if small > large*(1+eps)+eps {
				t.Fatalf("%s: %v is more than %v for %+v", what, small, large, j)
			}
		}
		e, most := j.Expected(xlarge, usRates), j.AtMost(xlarge, usRates)
		check("time and its bound", e.Seconds, most.Seconds)
		check("cost and its bound", e.Bill.Total(), most.Bill.Total())
		check("the minute", float64(max(0, e.Machines-j.Warm))*60, e.MachineSeconds)
		if e.Machines > j.Max {
			t.Fatalf("%d machines of %d", e.Machines, j.Max)
		}

		n := rapid.IntRange(1, 200).Draw(t, "n")
		few, fewMost := j.On(n, xlarge, usRates)
		more, moreMost := j.On(n+rapid.IntRange(1, 100).Draw(t, "more"), xlarge, usRates)
		check("cost with more machines", few.Bill.Total(), more.Bill.Total())
		check("bound of the cost with more machines", fewMost.Bill.Total(), moreMost.Bill.Total())
		if j.Warm == 0 {
			check("time with more machines", more.Seconds, few.Seconds)
			check("bound of the time with more machines", moreMost.Seconds, fewMost.Seconds)
		}

		harder := j
		harder.Tasks += rapid.IntRange(0, 1000).Draw(t, "more tasks")
		harder.Seconds *= rapid.Float64Range(1, 3).Draw(t, "slower")
		harder.Slowest = math.Max(harder.Slowest, harder.Seconds)
		same, _ := j.On(n, xlarge, usRates)
		hard, _ := harder.On(n, xlarge, usRates)
		check("cost of more work", same.Bill.Total(), hard.Bill.Total())
		check("cost of more work, by the rule", e.Bill.Total(), harder.Expected(xlarge, usRates).Bill.Total())

		dear := xlarge
		dear.Instance *= 2
		check("dearer machines", e.Bill.Total(), j.Expected(dear, usRates).Bill.Total())
	})
}
