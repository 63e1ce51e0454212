//go:build unix

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

func TestOutputs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, run, outputs string
		cause              task.Cause
		message            string
		paths              string
	}{
		{"kept", "echo hi > out.txt", "[out.txt]", 0, "", "out.txt=hi"},
		{"template", "echo hi > out-0.txt", `["out-${{ index }}.txt"]`, 0, "", "out-0.txt=hi"},
		{"folder", "mkdir -p d/e; echo 1 > d/a; echo 2 > d/e/b", "[d/]", 0, "", "d/a=1 d/e/b=2"},
		{"missing", "true", "[out.txt]", task.CauseOutput, "does not exist", ""},
		{"stale", "true", "[old.txt]", task.CauseOutput, "did not write it", ""},
		{"rewritten alike", "echo old > old.txt", "[old.txt]", 0, "", "old.txt=old"},
		{"stale folder", "true", "[olddir]", task.CauseOutput, "did not write it", ""},
		{"changed folder", "echo new > olddir/y", "[olddir]", 0, "", "olddir/x=x olddir/y=new"},
		{"escape", "true", "['${{ \"../x\" }}']", task.CauseSetup, "not below the working directory", ""},
		{"absolute", "true", "['${{ \"/etc/passwd\" }}']", task.CauseSetup, "not below the working directory", ""},
		{"link out", "rm -f l; ln -s /etc/passwd l", "[l]", task.CauseOutput, "escapes from the working directory through a link", ""},
		{"a pattern", "touch a.x", "['*.x']", task.CauseOutput, "outputs are no patterns", ""},
		{"uri", "true", "[\"s3://b/k\"]", task.CauseSetup, "no access to S3", ""},
		{"spaces", "echo hi > 'a b'", "[\"a b\"]", 0, "", "a b=hi"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fmt.Sprintf("functions:\n  f:\n    run: %q\n    outputs: %s\n", tt.run, tt.outputs))
			w.file("old.txt", "old\n")
			w.file("olddir/x", "x\n")
			o := w.do("f")
			if o.Cause != tt.cause || !strings.Contains(o.Message, tt.message) {
				t.Fatalf("%s %q %s", o.Cause, o.Message, w.log(o))
			}
			var got []string
			for _, out := range o.Outputs {
				b, err := w.store.Get(context.Background(), out.Key)
				if err != nil || out.Size != int64(len(b)) || len(out.Hash) != 64 || out.Mode == 0 {
					t.Errorf("%+v: %v", out, err)
				}
				got = append(got, out.Path+"="+strings.TrimSpace(string(b)))
			}
			if s := strings.Join(sortedStrings(got), " "); s != tt.paths {
				t.Errorf("kept %q, want %q", s, tt.paths)
			}
		})
	}
}

func TestTwoTasksWriteOnePath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  f:\n    map: {items: [x]}\n    run: date > same\n    outputs: [same]\n")
	w.items["f"] = ranged(2)
	w.work(context.Background(), w.all("f")...)
	if o := w.get("f", 0); o.Status != task.Succeeded {
		t.Errorf("%s", o.Message)
	}
	if o := w.get("f", 1); o.Status != task.Failed || !strings.Contains(o.Message, "also written by f/0") {
		t.Errorf("%s %q", o.Status, o.Message)
	}
}

func TestURIOutputs(t *testing.T) {
	t.Parallel()
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	for name, tt := range map[string]struct {
		before, after cloud.S3Look
		want          string
	}{
		"new":           {cloud.S3Look{}, cloud.S3Look{Found: true, Tag: "a", Modified: at(9)}, ""},
		"missing":       {cloud.S3Look{Found: true}, cloud.S3Look{}, "does not exist"},
		"old":           {cloud.S3Look{Found: true, Tag: "a", Modified: at(5), Asked: at(9)}, cloud.S3Look{Found: true, Tag: "a", Modified: at(5), Asked: at(12)}, "did not write it"},
		"same again":    {cloud.S3Look{Found: true, Tag: "a", Modified: at(5), Asked: at(9)}, cloud.S3Look{Found: true, Tag: "a", Modified: at(10)}, ""},
		"at that time":  {cloud.S3Look{Found: true, Tag: "a", Modified: at(9), Asked: at(9)}, cloud.S3Look{Found: true, Tag: "a", Modified: at(9)}, ""},
		"other content": {cloud.S3Look{Found: true, Tag: "a", Modified: at(5), Asked: at(9)}, cloud.S3Look{Found: true, Tag: "b", Modified: at(5)}, ""},
	} {
		want := tt.want
		w := newWorld(t, "functions:\n  f:\n    run: \"true\"\n    outputs: [\"s3://b/k\"]\n")
		calls := 0
		w.cfg.Look = func(context.Context, string) (cloud.S3Look, error) {
			calls++
			if calls == 1 {
				return tt.before, nil
			}
			return tt.after, nil
		}
		if o := w.do("f"); (o.Status == task.Succeeded) != (want == "") || !strings.Contains(o.Message, want) {
			t.Errorf("%s: %s %q", name, o.Status, o.Message)
		}
	}
}

// cached runs f once more and says whether it was taken from the cache.
func (w *world) cached(t *testing.T) bool {
	t.Helper()
	w.mu.Lock()
	w.outcomes = map[string]map[int]task.Outcome{}
	w.mu.Unlock()
	o := w.do("f")
	if o.Status != task.Succeeded || o.ID == (task.ID{}) {
		t.Fatalf("%s %q %s", o.Status, o.Message, w.log(o))
	}
	if o.Cached && (o.Attempt != 0 || !strings.HasSuffix(o.From, " f/0")) {
		t.Errorf("%+v", o)
	}
	return o.Cached
}

func TestCache(t *testing.T) {
	t.Parallel()
	const yaml = `
functions:
  f:
    map: {items: [x]}
    cache: {files: ["extra/*.cfg"]}
    env: {V: "%s"}
    run: |
      python3 tool.py %s; ./helper.sh; cat ${{ item }} data.txt > out.txt
      python3 -c 'print([0] * 200000)' > "$COILED_JOBS_RESULT"
    outputs: [out.txt]
`
	w := newWorld(t, fmt.Sprintf(yaml, "1", "a"))
	w.run.CacheOn = true
	files := map[string]string{"tool.py": "import lib.part\n", "lib/__init__.py": "", "lib/part.py": "X = 1\n", "unused.py": "",
		"helper.sh": "#!/bin/sh\n. ./common.sh\n", "common.sh": "true\n", "data.txt": "data\n", "in.txt": "input\n", "extra/a.cfg": "1"}
	for n, text := range files {
		w.file(n, text)
	}
	item := func() {
		p := filepath.Join(w.dir, "in.txt")
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		w.items["f"] = list{value.NewLocalFile("in.txt", p, info.Size(), info.ModTime())}
	}
	item()
	pipeline := func(v, arg string) func() {
		return func() {
			doc, ps := spec.Parse(fmt.Appendf(nil, "name: test\n"+yaml, v, arg), "p.yaml")
			if ps.Err() != nil {
				t.Fatal(ps)
			}
			w.run.Pipeline, _ = doc.Bind(spec.BindOptions{})
		}
	}
	steps := []struct {
		name   string
		change func()
		hit    bool
	}{
		{"first", func() {}, false},
		{"again", func() {}, true},
		{"touched", func() {
			now := time.Now().Add(time.Hour)
			if err := os.Chtimes(filepath.Join(w.dir, "in.txt"), now, now); err != nil {
				t.Fatal(err)
			}
			item()
		}, true},
		{"data is not code", func() { w.file("data.txt", "other\n") }, true},
		{"nor is what is not named", func() { w.file("unused.py", "x = 2\n") }, true},
		{"item", func() { w.file("in.txt", "changed\n"); item() }, false},
		{"item back", func() { w.file("in.txt", "input\n"); item() }, true},
		{"program", func() { w.file("tool.py", "import lib.part  # new\n") }, false},
		{"imported module", func() { w.file("lib/part.py", "X = 2\n") }, false},
		{"sourced script", func() { w.file("common.sh", "true # new\n") }, false},
		{"cache.files", func() { w.file("extra/a.cfg", "2") }, false},
		{"env", pipeline("2", "a"), false},
		{"env back", pipeline("1", "a"), true},
		{"command", pipeline("1", "b"), false},
		{"output gone: put back", func() { _ = os.Remove(filepath.Join(w.dir, "out.txt")) }, true},
		{"output changed: put back", func() { w.file("out.txt", "mine") }, true},
		{"output and copy gone", func() {
			_ = os.Remove(filepath.Join(w.dir, "out.txt"))
			_ = w.store.DeletePrefix(context.Background(), "runs")
		}, false},
		{"no cache", func() { w.run.NoCache = true }, false},
		{"remembered all the same", func() { w.run.NoCache = false }, true},
	}
	for i, s := range steps {
		w.run.ID = fmt.Sprint("run", i)
		w.run.Prefix = "runs/" + w.run.ID
		s.change()
		if hit := w.cached(t); hit != s.hit {
			t.Fatalf("%s: cached %v, want %v", s.name, hit, s.hit)
		}
		if b, err := os.ReadFile(filepath.Join(w.dir, "out.txt")); err != nil || !strings.HasSuffix(string(b), "\n") {
			t.Fatalf("%s: output %q, %v", s.name, b, err)
		}
		if o := w.get("f", 0); len(w.result(o)) != 400001 {
			t.Fatalf("%s: result has %d bytes", s.name, len(w.result(o)))
		}
	}
	var last Remembered
	b, err := w.store.Get(context.Background(), LastKey("test", "f", []byte(`"in.txt"`)))
	if err == nil {
		err = json.Unmarshal(b, &last)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"command", "code", "item", "env", "outputs"} {
		if last.Parts[p] == "" {
			t.Errorf("no part %s in %v", p, last.Parts)
		}
	}
	var names []string
	for n := range last.Files {
		names = append(names, n)
	}
	if got := fmt.Sprint(sortedStrings(names)); got != "[common.sh extra/a.cfg helper.sh lib/__init__.py lib/part.py tool.py]" {
		t.Errorf("code is %s", got)
	}
}

func TestCacheIdentityOfNeedsAndS3(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  g: {command: [\"true\"]}\n  f:\n    map: {items: [x]}\n    needs: g\n    cache: true\n    python: mod:f\n")
	w.file("mod.py", "def f(x): return x\n")
	w.run.CacheOn = true
	id := byte(1)
	w.run.NeedsID = func(_ context.Context, fn string, i int) (task.ID, error) {
		if fn != "g" || i != -1 {
			t.Errorf("asked for %s/%d", fn, i)
		}
		return task.ID{id}, nil
	}
	etag := "e1"
	set := func(modified int64) {
		w.items["f"] = list{value.NewS3File("b", "k", 5, time.Unix(modified, 0), etag)}
	}
	set(1)
	if w.cached(t) {
		t.Error("hit at first")
	}
	if set(2); !w.cached(t) {
		t.Error("a new time of an object with the same ETag is a miss")
	}
	etag = "e2"
	if set(2); w.cached(t) {
		t.Error("a new ETag is a hit")
	}
	id = 2
	if w.cached(t) {
		t.Error("another identity of what it needs is a hit")
	}
	if o := w.get("f", 0); w.result(o) != `"s3://b/k"` || o.Code == "" {
		t.Errorf("%s %q", w.result(o), o.Code)
	}
}

func TestStreaming(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
functions:
  a: {map: {items: [x]}, python: "m:a"}
  b: {map: {from: a, where: item.n > 1}, python: "m:b"}
`)
	w.file("m.py", "def a(i): return {'z': 1, 'n': i}\ndef b(d): return list(d)\n")
	w.items["a"] = ranged(4)
	w.items["b"] = ranged(4) // only their number counts
	w.work(context.Background(), w.all("a", "b")...)
	w.each("b", func(i int, o task.Outcome) {
		if i <= 1 && (o.Status != task.Skipped || o.Attempt != 0) || i > 1 && w.result(o) != `["z","n"]` {
			t.Errorf("%d: %s %d %s %s", i, o.Status, o.Attempt, w.result(o), o.Message)
		}
	})
}

// A store that cannot append gets whole objects.
type plainStore struct{ cloud.Store }

func TestLogsInAPlainStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
functions:
  f: {map: {items: [x]}, run: "echo task $COILED_JOBS_INDEX; test $COILED_JOBS_INDEX != 3 || sleep 0.1; echo end"}
  p: {map: {items: [x]}, python: "m:f"}
`)
	w.file("m.py", "def f(i): print('task', i); print('end')\n")
	w.run.Store = plainStore{w.store}
	w.items["f"], w.items["p"] = ranged(6), ranged(40)
	w.work(context.Background(), w.all("f", "p")...)
	for _, fn := range []string{"f", "p"} {
		w.each(fn, func(i int, o task.Outcome) {
			if got := w.log(o); got != fmt.Sprintf("task %d\nend\n", i) {
				t.Errorf("%s/%d: %q", fn, i, got)
			}
		})
	}
}
