package cloudtest_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

func TestQueueInMemory(t *testing.T) {
	t.Parallel()
	cloudtest.TestQueueOf(t, 300, func(testing.TB) cloud.Queue { return cloudtest.NewQueue() })
}

func TestFleet(t *testing.T) {
	t.Parallel()
	cloudtest.TestMachines(t, func(testing.TB) cloud.Machines { return cloudtest.NewFleet(&cloudtest.Region{Default: 20}) })
}

// Machines that nobody knows yet are launched machines all the same.
func TestFleetHidden(t *testing.T) {
	t.Parallel()
	cloudtest.TestMachines(t, func(testing.TB) cloud.Machines {
		return cloudtest.NewFleet(&cloudtest.Region{Default: 20, Hidden: time.Hour}, "a", "b")
	})
}

func TestQueueFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &cloudtest.Queue{
			Visibility: time.Minute,
			Twice:      func(n int) bool { return n == 1 },
			Late: func(n int) time.Duration {
				if n == 2 {
					return time.Hour
				}
				return 0
			},
			Fail: func(op string, n int) error {
				if op == "done" && n == 1 {
					return errors.New("lost")
				}
				return nil
			},
		}
		a, b := cloud.Range{Run: "r", From: 1}, cloud.Range{Run: "r", From: 2}
		if err := q.Send(t.Context(), a, b); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		receive := func(want cloud.Range, after time.Duration) cloud.Delivery {
			t.Helper()
			d, err := q.Receive(t.Context())
			if err != nil || d.Range != want || time.Since(start) != after {
				t.Errorf("received %+v, %v after %v; want %+v after %v", d.Range, err, time.Since(start), want, after)
			}
			return d
		}
		first := receive(a, 0)
		second := receive(a, 0) // twice
		if err := q.Done(t.Context(), second); err == nil {
			t.Error("done did not fail")
		}
		if err := q.Done(t.Context(), second); err != nil {
			t.Error(err)
		}
		again := receive(a, time.Minute) // nobody gave it back
		if err := q.Done(t.Context(), first); err != nil {
			t.Error(err) // a stale receipt: no effect
		}
		if q.Len() != 2 {
			t.Errorf("%d ranges", q.Len())
		}
		if err := q.Extend(t.Context(), again, 2*time.Hour); err != nil {
			t.Error(err)
		}
		if err := q.Done(t.Context(), receive(b, time.Hour)); err != nil {
			t.Error(err)
		}
		receive(a, time.Minute+2*time.Hour)
	})
}

func TestRegion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		r := &cloudtest.Region{
			Default:  3,
			Capacity: map[cloudtest.Pool]int{{Type: "big", Zone: "a", Spot: true}: 1},
			VCPUs:    map[bool]int{true: 8},
			CPUs:     func(string) int { return 4 },
			Hidden:   5 * time.Second,
			Rates:    map[string]cloudtest.Rate{"launch": {Burst: 3, PerSecond: 0.5}},
			After: func(op string, n int) error {
				if op == "launch" && n == 2 {
					return errors.New("connection reset")
				}
				return nil
			},
			Ended: func(cloudtest.Instance) { ended.Add(1) },
		}
		all := func(cloudtest.Instance) bool { return true }
		spot := cloudtest.Request{Token: "t1", Count: 4, Pools: []cloudtest.Pool{{"big", "a", true}, {"big", "b", true}}}
		a, err := r.Launch(spot)
		if err != nil || len(a.Machines) != 2 || len(a.Failures) != 2 || a.Failures[0].Code != "InsufficientInstanceCapacity" ||
			a.Failures[1].Code != "MaxSpotInstanceCountExceeded" {
			t.Errorf("launch: %+v, %v", a, err)
		}
		onDemand := cloudtest.Request{Token: "t2", Count: 1, Pools: []cloudtest.Pool{{"big", "a", false}}}
		if _, err := r.Launch(onDemand); err == nil {
			t.Error("the reply was not lost")
		}
		b, err := r.Launch(onDemand)
		if err != nil || len(b.Machines) != 1 || len(r.Live()) != 3 {
			t.Errorf("launch again: %+v, %v; %d machines live", b, err, len(r.Live()))
		}
		var code *cloudtest.CodeError
		onDemand.Count++
		if _, err := r.Launch(onDemand); !errors.As(err, &code) || code.Code != "RequestLimitExceeded" {
			t.Errorf("fourth launch at once: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := r.Launch(onDemand); !errors.As(err, &code) || code.Code != "IdempotentParameterMismatch" {
			t.Errorf("another request with the same token: %v", err)
		}
		if list, err := r.Describe(all); err != nil || len(list) != 0 {
			t.Errorf("known after two seconds: %d, %v", len(list), err)
		}
		if err := r.Terminate(b.Machines[0].ID); !errors.As(err, &code) || code.Code != "InvalidInstanceID.NotFound" {
			t.Errorf("terminate what is not known: %v", err)
		}
		time.Sleep(3 * time.Second)
		if list, _ := r.Describe(all); len(list) != 3 {
			t.Errorf("known after five seconds: %d", len(list))
		}
		if err := r.Terminate(b.Machines[0].ID, "i-0"); err == nil || len(r.Live()) != 3 {
			t.Errorf("one unknown id: %v, %d live", err, len(r.Live()))
		}
		id := a.Machines[0].ID
		if _, told := r.Notice(id); told {
			t.Error("told before")
		}
		r.Reclaim(id)
		if at, told := r.Notice(id); !told || time.Until(at) != 2*time.Minute {
			t.Errorf("notice: %v, %v", at, told)
		}
		time.Sleep(2*time.Minute - 1)
		if len(r.Live()) != 3 {
			t.Error("taken back too early")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if len(r.Live()) != 2 || ended.Load() != 1 {
			t.Errorf("%d live, %d ended", len(r.Live()), ended.Load())
		}
	})
}
