package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/internal/hypervisor"
)

// BenchmarkFleet measures the times of our own making: what a cloud takes to
// boot a machine is not in them. bench/README.md says how to run it.
//
//	apply-to-launch  from the start of apply to the request that launches a machine
//	boot-to-task     from the start of the machine's user data to the first task, nothing to install
//	warm-to-task     from the start of a second apply to its first task, on a machine that waits
//	end-to-exit      from the end of the last task to the end of apply, machines gone
func BenchmarkFleet(b *testing.B) {
	r := hypervisor.Start(b, hypervisor.Options{})
	newPerson(b, r, "first").begin()
	var launch, boot, warm, end time.Duration
	n := 0
	for b.Loop() {
		p := newPerson(b, r, fmt.Sprint("bench-", n))
		p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "40s", "date +%s%N > $COILED_JOBS_RESULT")})
		applied := time.Now()
		p.run(0, "apply", "pipeline.yaml", "--yes")
		exited := time.Now()
		task := p.timeOfTask()
		m := p.machines()[0]
		launch += m.Begun.Sub(applied)
		boot += task.Sub(m.Booted)
		end += exited.Sub(task)
		applied = time.Now()
		p.run(0, "apply", "pipeline.yaml", "--yes")
		warm += p.timeOfTask().Sub(applied)
		if len(p.machines()) != 1 {
			b.Error("the second run had a machine of its own")
		}
		n++
	}
	b.ReportMetric(0, "ns/op")
	for name, d := range map[string]time.Duration{"apply-to-launch": launch, "boot-to-task": boot, "warm-to-task": warm, "end-to-exit": end} {
		b.ReportMetric(d.Seconds()/float64(n), name+"-s")
	}
	for end := time.Now().Add(time.Minute); len(r.Live()) > 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
	}
	if left := r.Left(soon); len(left) > 0 {
		b.Errorf("left: %q", left)
	}
}

// timeOfTask is when the task of the last run printed the time.
func (p *person) timeOfTask() time.Time {
	p.t.Helper()
	v := p.results("latest", "f")
	ns, ok := v[0].(float64)
	if len(v) != 1 || !ok {
		p.t.Fatalf("results: %v", v)
	}
	return time.Unix(0, int64(ns))
}
