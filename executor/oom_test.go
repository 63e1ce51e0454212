package executor

import (
	"testing"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// A task that ran out of memory asks for more than its machine had, and goes
// on asking for that whatever else happens to it.
func TestMemoryThatIsAskedFor(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	s := remoteState(t, "name: p\nfunctions:\n  a:\n    command: [x]\n    map: {range: 2}\n    retries: {max: 1, delay: 0s, machine: 2, oom: {max: 2, memory: 2x}}\n", 2)
	s.memoryOf = func(name string) int64 { return map[string]int64{"small": 8 * gib, "large": 32 * gib}[name] }
	s.fleet.machine(task.Machine{ID: "i-1", Type: "small"})
	s.fleet.machine(task.Machine{ID: "i-2", Type: "large"})
	hand := func() (memory int64, attempt int) {
		t.Helper()
		list := s.handOutRemote(map[string]int{"a": 2}, 1e18)
		for _, r := range list {
			if r.From == 0 && r.To == 1 && r.Attempt > 1 {
				return r.Memory, r.Attempt
			}
		}
		t.Fatalf("the task is not handed out: %+v", list)
		return 0, 0
	}
	fail := func(cause task.Cause, attempt int, machine string) {
		s.applyOutcomes(&outcomes{function: "a", at: 2, list: []task.Outcome{{Index: 0, Attempt: attempt, Status: task.Failed, Cause: cause, Machine: machine}}}, 10)
	}
	_ = s.handOutRemote(map[string]int{"a": 2}, 1)
	fail(task.CauseOOM, 1, "i-1")
	for _, step := range []struct {
		name string
		do   func(attempt int)
		want int64
	}{
		{"twice what it had", func(int) {}, 16},
		{"given back", func(int) { s.takeBack("a", []int{0}) }, 16},
		{"its machine was lost", func(a int) { fail(task.CauseMachine, a, "i-2") }, 16},
		{"its own failure", func(a int) { fail(task.CauseExit, a, "i-2") }, 16},
		{"again, on a larger machine", func(a int) { fail(task.CauseOOM, a, "i-2") }, 64},
	} {
		attempt := int(s.byName["a"].table.attempts[0])
		step.do(attempt + 1)
		if m, _ := hand(); m != step.want*gib {
			t.Errorf("%s: it asks for %d GiB, want %d", step.name, m/gib, step.want)
		}
	}
	fail(task.CauseOOM, int(s.byName["a"].table.attempts[0])+1, "i-2")
	if st := s.byName["a"].table.status[0]; st != task.Failed {
		t.Errorf("after a third time it is %s", st)
	}
}

// A machine that is lost before any task has ended says nothing of how long
// they take: the next range is no larger for it.
func TestLostMachineSaysNothingOfTasks(t *testing.T) {
	t.Parallel()
	s := remoteState(t, "name: p\nfunctions:\n  a:\n    command: [x]\n    map: {range: 300}\n", 300)
	_ = s.handOutRemote(map[string]int{"a": 2}, 1)
	s.applyOutcomes(&outcomes{function: "a", at: 2, list: []task.Outcome{{Index: 0, Attempt: 1, Status: task.Failed, Cause: task.CauseMachine, Machine: "i-1"}}}, 10)
	if m := s.byName["a"].meanSeconds(); m >= 0 {
		t.Errorf("a task takes %g s", m)
	}
	for _, r := range s.handOutRemote(map[string]int{"a": 20}, 1e18) {
		if r.To-r.From > 1 {
			t.Errorf("tasks %d to %d are handed out at once", r.From, r.To)
		}
	}
}
