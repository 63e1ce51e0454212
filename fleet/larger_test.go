package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// TestOneKindForAll: functions that share machines share the larger ones; what
// comes while these are being made waits for them, and what is not to be had
// goes to the largest.
func TestOneKindForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		region := &cloudtest.Region{Default: 10}
		o := &owner{demand: []task.Demand{running("f", 0, 3, 100), running("g", 0, 1, 100)}}
		var mu sync.Mutex
		queues, made := map[string]*cloudtest.Queue{}, []string{}
		var notices []string
		functions := []string{"f", "g"}
		fl := New(Config{Run: "r", Epoch: func() int { return 1 }, Store: cloudtest.NewStore(), Machines: cloudtest.NewFleet(region), Coordinator: o,
			OpenQueue: func(_ context.Context, name string) (Queue, error) {
				mu.Lock()
				defer mu.Unlock()
				queues[name] = cloudtest.NewQueue()
				return named{queues[name], name}, nil
			},
			Notice: func(text string) { mu.Lock(); notices = append(notices, text); mu.Unlock() },
			Kinds:  []Kind{{Name: "k", Functions: functions, Max: 3, Memory: 8}},
			Larger: func(_ context.Context, fn string, memory int64) (Kind, error) {
				time.Sleep(3 * time.Second)
				mu.Lock()
				defer mu.Unlock()
				made = append(made, fmt.Sprintf("%d", memory))
				if memory > 16 {
					return Kind{}, &cloud.Error{Kind: cloud.KindInvalid, Err: errors.New("none")}
				}
				return Kind{Name: "k" + fmt.Sprint(memory), Functions: functions, Max: 3, Memory: memory}, nil
			}})
		fl.Start(context.Background())
		time.Sleep(time.Second)
		send := func(id, fn string, memory int64) {
			if err := fl.Queue().Send(t.Context(), cloud.Range{ID: id, Run: "r", Function: fn, To: 1, Attempt: 2, Memory: memory}); err != nil {
				t.Error(err)
			}
		}
		send("1-1", "f", 16)
		send("1-2", "g", 16)
		send("1-3", "f", 99)
		send("1-4", "f", 8)
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(made)
		if got := strings.Join(made, " "); got != "16 99" {
			t.Errorf("made: %s", got)
		}
		if n, m := queues["k16-1"].Len(), queues["k-1"].Len(); n != 3 || m != 1 {
			t.Errorf("%d ranges wait for larger machines, %d for others, want 3 and 1", n, m)
		}
		if text := strings.Join(notices, "\n"); !strings.Contains(text, "no machines with") || !strings.Contains(text, "go on with") {
			t.Errorf("told: %s", text)
		}
		if live := region.Live(); len(live) < 2 {
			t.Errorf("%d machines", len(live))
		}
		mu.Unlock()
		_, err := fl.Close(t.Context())
		mu.Lock()
		if err != nil || len(region.Live()) > 0 {
			t.Errorf("%d machines live at the end, %v", len(region.Live()), err)
		}
	})
}
