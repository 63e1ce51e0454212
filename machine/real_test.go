//go:build linux

package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

const realPipeline = `name: real
secrets:
  - TOKEN: ssm:/token
functions:
  count:
    map: "data/*.txt"
    outputs: ["out/${{ item.stem }}.n"]
    run: |
      mkdir -p out
      . ./lib.sh
      size ${{ item }} > out/${{ item.stem }}.n
      echo "the token is $TOKEN and $FROM_FILE"
      cat out/${{ item.stem }}.n > "$COILED_JOBS_RESULT"
      test -e "$HOME"
      ls data > seen-$COILED_JOBS_INDEX
  sum:
    needs: count
    env: {N: "${{ needs.count.count }}"}
    run: |
      cat "$COILED_JOBS_NEEDS/count.jsonl" kept/a
      echo "$N ${{ sum(needs.count.results) }}" > "$COILED_JOBS_RESULT"
`

// A machine with the real agent and real processes: code, local items, secrets,
// needs, outputs, logs; nothing stays of it.
func TestRealTasks(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	src, home := filepath.Join(dir, "src"), filepath.Join(dir, "machine")
	files := map[string]string{"pipeline.yaml": realPipeline, "lib.sh": "size() { wc -c < \"$1\"; }\n",
		"data/a b.txt": "12345", "data/c'.txt": "1", "data/d.txt": "123"}
	for name, text := range files {
		writeFile(t, filepath.Join(src, name), text)
	}
	store, err := local.OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err == nil {
			err = store.Put(ctx, key, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What a coordinator does.
	p, err := executor.Bind([]byte(realPipeline), "pipeline.yaml", nil, "aws")
	if err != nil {
		t.Fatal(err)
	}
	h := &executor.Header{Run: "r1", Pipeline: "real", File: "pipeline.yaml", Cloud: "aws", Token: "real-0123456789abcdef" + fmt.Sprint(os.Getpid()), Created: time.Now()}
	if err := executor.Create(ctx, store, h, []byte(realPipeline)); err != nil {
		t.Fatal(err)
	}
	plan, err := planner.Make(ctx, p, planner.Inputs{Dir: src, Run: h.Info()}, planner.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := executor.SaveItems(ctx, store, "r1", "count", plan.Function("count").Items); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Scan(ctx, src, spec.Files{}, nil, bundle.Options{Without: func(p string) bool { return strings.HasPrefix(p, "data/") }})
	if err != nil {
		t.Fatal(err)
	}
	code, _, err := bundle.Push(ctx, store, m)
	if err != nil {
		t.Fatal(err)
	}
	index, _, err := bundle.PushFiles(ctx, store, src, []string{"data/a b.txt", "data/c'.txt", "data/d.txt"}, bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(wire.SetupKey("r1", "k"), wire.Setup{Run: "r1", Kind: "k", Pool: "p", Code: code, Files: index, Threads: 2, IdleTimeout: time.Minute,
		MaxLife: time.Hour, Secrets: map[string]string{"TOKEN": "ssm:/token"}, EnvFile: map[string]string{"FROM_FILE": "ssm:/file"}})
	control := wire.Control{Epoch: 1, Until: time.Now().Add(time.Hour), Hints: "hints",
		Kinds: map[string]wire.KindControl{"k": {Queue: "work", More: true}}}
	put(wire.ControlKey("r1"), control)
	put(wire.StartKey("r1", "count", 1), wire.Start{Function: "count", Count: 3})
	for key, text := range map[string]string{"needs/results": "5\n1\n3\n", "needs/kept": "kept\n"} {
		if err := store.Put(ctx, key, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	kept, _ := json.Marshal(task.Output{Path: "kept/a", Key: "needs/kept", Size: 5, Hash: "x", Mode: 0o644})
	if err := store.Put(ctx, "needs/outputs", append(kept, '\n')); err != nil {
		t.Fatal(err)
	}
	put(wire.StartKey("r1", "sum", 1), wire.Start{Function: "sum", Count: 1, Needs: map[string]wire.Need{
		"count": {Status: "succeeded", Count: 3, Mapped: true, Results: "needs/results", Outputs: "needs/outputs"}}})
	queues := map[string]cloud.Queue{"work": local.NewQueue(), "hints": local.NewQueue()}
	err = queues["work"].Send(ctx,
		cloud.Range{Run: "r1", Function: "count", From: 0, To: 2, Attempt: 1, ID: "1-1"},
		cloud.Range{Run: "r1", Function: "count", From: 2, To: 3, Attempt: 1, ID: "1-2"},
		cloud.Range{Run: "r1", Function: "sum", From: 0, To: 1, Attempt: 1, ID: "1-3"})
	if err != nil {
		t.Fatal(err)
	}

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	tail := NewTail(&log, 1<<20)
	host := &fakeHost{id: Identity{ID: "i-9", CPUs: 2}, off: make(chan struct{})}
	over := make(chan error, 1)
	go func() {
		over <- Run(ctx, Config{Run: "r1", Kind: "k", Store: store, Host: host, Dir: home, Exe: exe, Log: tail.Bytes,
			Environ: []string{"PATH=" + os.Getenv("PATH")}, Logger: slog.New(slog.NewTextHandler(tail, nil)),
			JoinQueue: func(_ context.Context, url string) (cloud.Queue, error) { return queues[url], nil },
			Secrets: func(_ context.Context, refs map[string]string) (map[string]string, error) {
				values := map[string]string{}
				for name, ref := range refs {
					values[name] = "value of " + ref
				}
				return values, nil
			}})
	}()

	by := map[string]task.Outcome{}
	for n := 1; len(by) < 4; {
		b, err := store.Get(ctx, wire.SegmentKey("r1", "i-9", n))
		if cloud.KindOf(err) == cloud.KindNotFound {
			select {
			case err := <-over:
				t.Fatalf("the machine ended: %v\n%s", err, tail.Bytes())
			case <-ctx.Done():
				t.Fatalf("%d tasks ended\n%s", len(by), tail.Bytes())
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		seg, err := wire.DecodeSegment(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, batch := range seg.Batches {
			for _, o := range batch.Outcomes {
				by[fmt.Sprintf("%s/%d", batch.Function, o.Index)] = o
			}
		}
		n++
	}
	for name, want := range map[string]string{"count/0": "5", "count/1": "1", "count/2": "3", "sum/0": `"3 9"`} {
		o := by[name]
		if o.Status != task.Succeeded || string(o.Result) != want || o.Machine != "i-9" {
			t.Errorf("%s: %v %s %q %s", name, o.Status, o.Result, o.Message, o.Stderr)
			continue
		}
		text := make([]byte, o.Log.Len)
		if _, err := store.ReadAt(ctx, o.Log.Key, text, o.Log.Off); err != nil {
			t.Errorf("log of %s: %v", name, err)
		}
		say := "the token is *** and value of ssm:/file\n"
		if name == "sum/0" {
			say = "5\n1\n3\nkept\n"
		}
		if string(text) != say {
			t.Errorf("%s printed %q", name, text)
		}
		if name != "sum/0" && (len(o.Outputs) != 1 || o.Outputs[0].Key == "") {
			t.Errorf("outputs of %s: %+v", name, o.Outputs)
		}
	}
	control.Stop = wire.StopFinished
	put(wire.ControlKey("r1"), control)
	if err := queues["work"].Close(); err != nil { // then it looks at once
		t.Fatal(err)
	}
	select {
	case err := <-over:
		if err != nil {
			t.Errorf("%v\n%s", err, tail.Bytes())
		}
	case <-ctx.Done():
		t.Fatalf("it does not end\n%s", tail.Bytes())
	}
	if host.offs == 0 {
		t.Error("it did not power off")
	}
	// Nothing of the run is left, nor of its secrets.
	err = filepath.WalkDir(filepath.Join(home, "run"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("left: %s", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if s := string(tail.Bytes()); strings.Contains(s, "value of") {
		t.Errorf("the machine's log has a secret: %s", s)
	}
	if b, err := store.Get(ctx, wire.AgentLogKey("r1", "i-9")); err != nil || len(b) == 0 {
		t.Errorf("the machine's log: %d bytes, %v", len(b), err)
	}
}

// A task that runs when the machine has to go ends, and counts as the machine's
// failure.
func TestRealTaskIsEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	store, err := local.OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	text := "name: t\nfunctions:\n  f:\n    run: touch $COILED_JOBS_RUN.started; sleep 1000\n"
	h := &executor.Header{Run: "r1", Pipeline: "t", File: "pipeline.yaml", Cloud: "aws", Token: "ended-0123456789abcdef" + fmt.Sprint(os.Getpid()), Created: time.Now()}
	err = executor.Create(ctx, store, h, []byte(text))
	for key, v := range map[string]any{
		wire.SetupKey("r1", "k"):    wire.Setup{Run: "r1", Kind: "k", Threads: 1, IdleTimeout: time.Minute, MaxLife: time.Hour},
		wire.StartKey("r1", "f", 1): wire.Start{Function: "f", Count: 1},
		wire.ControlKey("r1"):       wire.Control{Epoch: 1, Until: time.Now().Add(time.Hour), Kinds: map[string]wire.KindControl{"k": {Queue: "q", More: true}}},
	} {
		b, merr := json.Marshal(v)
		err = errors.Join(err, merr, store.Put(ctx, key, b))
	}
	q := local.NewQueue()
	if err = errors.Join(err, q.Send(ctx, cloud.Range{Run: "r1", Function: "f", To: 1, Attempt: 1, ID: "1-1"})); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := &fakeHost{id: Identity{ID: "i-9"}, off: make(chan struct{})}
	work, stop := context.WithCancel(ctx)
	over := make(chan error, 1)
	go func() {
		over <- Run(work, Config{Run: "r1", Kind: "k", Store: store, Host: host, Dir: filepath.Join(dir, "machine"), Exe: exe,
			Environ:   []string{"PATH=" + os.Getenv("PATH")},
			NewWorker: func(c agent.Config) Worker { return agent.New(c) },
			JoinQueue: func(context.Context, string) (cloud.Queue, error) { return q, nil }})
	}()
	for {
		if _, err := os.Stat(filepath.Join(dir, "machine", "run", "work", "r1.started")); err == nil {
			break
		}
		select {
		case err := <-over:
			t.Fatalf("the machine ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	stop()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	b, err := store.Get(ctx, wire.SegmentKey("r1", "i-9", 1))
	if err != nil {
		t.Fatal(err)
	}
	seg, err := wire.DecodeSegment(b)
	if err != nil {
		t.Fatal(err)
	}
	if o := seg.Batches[0].Outcomes[0]; o.Status != task.Failed || o.Cause != task.CauseMachine || o.Message != "machine i-9 is shutting down" {
		t.Errorf("%+v", o)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
