package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/schedule"
)

// TestTick calls tick as a cron does that comes often, two at a time: every
// second's tick has one record, and its run knows which it is.
func TestTick(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "often.yaml")
	if err := os.WriteFile(file, []byte(`name: often
schedule: {cron: "@every 1s", catchup: all}
functions:
  f: {run: "echo ${{ run.scheduled }} > $COILED_JOBS_RESULT"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"XDG_STATE_HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	cmd := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := run(context.Background(), args, strings.NewReader(""), &out, &errs, environ)
		return code, out.String(), errs.String()
	}
	seen := map[time.Time]schedule.Record{}
	for deadline := time.Now().Add(time.Minute); len(seen) < 3; {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute there are %d ticks", len(seen))
		}
		type answer struct {
			code      int
			out, errs string
		}
		answers := make(chan answer, 2)
		for range 2 {
			go func() {
				code, out, errs := cmd("tick", file, "--json")
				answers <- answer{code, out, errs}
			}()
		}
		for range 2 {
			a := <-answers
			var list []schedule.Record
			if err := json.Unmarshal([]byte(a.out), &list); err != nil || a.code != 0 {
				t.Fatalf("exit %d, %v: %s%s", a.code, err, a.out, a.errs)
			}
			for _, r := range list {
				if old, ok := seen[r.Tick]; ok {
					t.Fatalf("settled twice: %+v and %+v", old, r)
				}
				if r.State != schedule.Ran || r.Run == "" {
					t.Fatalf("%+v", r)
				}
				seen[r.Tick] = r
			}
		}
	}
	for tick, r := range seen {
		if code, _, errs := cmd("wait", r.Run); code != 0 {
			t.Fatalf("wait %s: exit %d: %s", r.Run, code, errs)
		}
		_, out, _ := cmd("results", r.Run, "f", "--format", "jsonl")
		if !strings.Contains(out, tick.UTC().Format(time.RFC3339)) {
			t.Errorf("the run of %s says %s", tick, out)
		}
	}
}
