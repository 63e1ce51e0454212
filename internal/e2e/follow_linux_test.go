package e2e

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// followWithin is how old what a follower of a log sees may be.
const followWithin = 3 * time.Second

// Who follows the logs of a run sees soon what tasks on machines print: of a
// function, and of one task.
func testFollow(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "0s", "for i in $(seq 75); do date +%s%N; sleep 0.2; done")})
	cmd := p.start("apply", "pipeline.yaml", "--yes")
	until(t, 30*time.Second, "the task runs", func() bool {
		out, err := p.command("logs", "latest", "f/0").Output()
		return err == nil && len(out) > 0
	})
	for _, ref := range []string{"f", "f/0"} {
		t.Run(ref, func(t *testing.T) {
			t.Parallel()
			c := p.command("logs", "-f", "latest", ref)
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			begun, n, worst := time.Now(), 0, time.Duration(0)
			for lines := bufio.NewScanner(out); lines.Scan(); {
				ns, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64)
				if err != nil {
					continue // a header
				}
				if at := time.Unix(0, ns); at.After(begun) {
					n++
					worst = max(worst, time.Since(at))
				}
			}
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
			t.Logf("%d lines, the latest after %v", n, worst.Round(time.Millisecond))
			if n < 40 || worst > followWithin {
				t.Errorf("%d lines, the latest after %v", n, worst)
			}
		})
	}
	t.Cleanup(func() { cmd.wait(0, time.Minute) })
}
