package e2e

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Who follows the logs of a run sees what tasks on machines print while they
// run: of a function, and of one task. The task here ends only when both have
// seen enough.
func testFollow(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "0s", "while :; do date +%s%N; sleep 0.2; done")})
	cmd := p.start("apply", "pipeline.yaml", "--yes")
	until(t, soon, "the task runs", func() bool {
		out, err := p.command("logs", "latest", "f/0").Output()
		return err == nil && len(out) > 0
	})
	var seen, followers sync.WaitGroup
	for _, ref := range []string{"f", "f/0"} {
		c := p.command("logs", "-f", "latest", ref)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill() })
		seen.Add(1)
		followers.Go(func() {
			begun, n, worst := time.Now(), 0, time.Duration(0)
			enough := sync.OnceFunc(seen.Done)
			defer enough()
			for lines := bufio.NewScanner(out); lines.Scan(); {
				ns, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64)
				if at := time.Unix(0, ns); err == nil && at.After(begun) { // neither a header nor what was there before
					worst = max(worst, time.Since(at))
					if n++; n == 25 {
						enough()
					}
				}
			}
			if err := c.Wait(); err != nil || n < 25 {
				t.Errorf("%s: %d lines, %v", ref, n, err)
			}
			t.Logf("%s: %d lines, the latest after %v", ref, n, worst.Round(time.Millisecond))
		})
	}
	all := make(chan struct{})
	go func() { seen.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(soon):
		t.Error("what a task prints is not seen while it runs")
	}
	p.run(0, "cancel", "latest")
	cmd.wait(130, soon)
	followers.Wait()
}
