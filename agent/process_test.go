//go:build unix

package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestProcessEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, fn string
		status   task.Status
		cause    task.Cause
		exit     int
		message  string
		result   string
		log      string
	}{
		{"success", `command: ["true"]`, task.Succeeded, 0, 0, "", "null", ""},
		{"output", `run: "echo out; echo err >&2"`, task.Succeeded, 0, 0, "", "null", "out\nerr\n"},
		{"exit code", `run: "echo why >&2; exit 3"`, task.Failed, task.CauseExit, 3, "exit code 3: why", "null", "why\n"},
		{"first failure ends a script", "run: |\n      false\n      echo no", task.Failed, task.CauseExit, 1, "exit code 1", "null", ""},
		{"unset variable", `run: "echo $NOPE"`, task.Failed, task.CauseExit, 1, "exit code 1: f: line 1: NOPE: unbound variable", "null", "f: line 1: NOPE: unbound variable\n"},
		{"pipe", `run: "false | true"`, task.Failed, task.CauseExit, 1, "exit code 1", "null", ""},
		{"signal", `run: "kill -SEGV $$"`, task.Failed, task.CauseSignal, 139, "killed by SIGSEGV", "null", ""},
		{"killed", `run: "kill -9 $$"`, task.Failed, task.CauseSignal, 137, "killed by SIGKILL", "null", ""},
		{"timeout", "run: sleep 60\n    timeout: 0.1", task.Failed, task.CauseTimeout, 124, "took longer than its timeout of 100ms", "null", ""},
		{"stubborn", "run: \"trap '' TERM; echo on; while :; do sleep 0.01; done\"\n    timeout: 0.1", task.Failed, task.CauseTimeout, 124, "took longer", "null", "on\n"},
		{"gone quietly at a timeout", "run: \"exec 2>/dev/null; trap 'exit 0' TERM; while :; do sleep 0.01; done\"\n    timeout: 0.1", task.Failed, task.CauseTimeout, 124, "took longer", "null", ""},
		{"no program", `command: [no-such-program-here]`, task.Failed, task.CauseSetup, 127, `start "no-such-program-here": there is no such program in PATH`, "null", ""},
		{"no file", `command: [./nothing]`, task.Failed, task.CauseSetup, 1, `start "./nothing": there is no file`, "null", ""},
		{"bad interpreter", `command: [./badinterp]`, task.Failed, task.CauseSetup, 1, "the interpreter in the first line", "null", ""},
		{"not executable", `command: [./plain]`, task.Failed, task.CauseSetup, 1, "chmod +x", "null", ""},
		{"relative program", `command: [./prog, a b, "$(c)"]`, task.Succeeded, 0, 0, "", "null", "<a b><$(c)>"},
		{"no shebang", `command: [./noshebang, x]`, task.Succeeded, 0, 0, "", "null", "plain x\n"},
		{"shell", "shell: python3\n    run: \"import sys; print(sys.version_info.major)\"", task.Succeeded, 0, 0, "", "null", "3\n"},
		{"shell list", "shell: [sh, -e]\n    run: \"echo $0; false; echo no\"", task.Failed, task.CauseExit, 1, "exit code 1", "null", "f\n"},
		{"result json", `run: "echo '{\"a\": [1, 2.50, \"x y\"]}' > $COILED_JOBS_RESULT"`, task.Succeeded, 0, 0, "", `{"a":[1,2.50,"x y"]}`, ""},
		{"result text", `run: "printf 'not json\n\n' > $COILED_JOBS_RESULT"`, task.Succeeded, 0, 0, "", `"not json\n"`, ""},
		{"result bytes", `run: "printf '\\xff' > $COILED_JOBS_RESULT"`, task.Succeeded, 0, 0, "", `"\udcff"`, ""},
		{"result number", `run: "echo 42 > $COILED_JOBS_RESULT"`, task.Succeeded, 0, 0, "", `42`, ""},
		{"result is a folder", `run: "mkdir $COILED_JOBS_RESULT"`, task.Failed, task.CauseOutput, 0, "not a file", "null", ""},
		{"no result of a failure", `run: "echo 1 > $COILED_JOBS_RESULT; false"`, task.Failed, task.CauseExit, 1, "exit code 1", "null", ""},
		{"stdout", "result: stdout\n    run: \"echo '  a b '; echo e >&2\"", task.Succeeded, 0, 0, "", `"a b"`, "  a b \ne\n"},
		{"stdout json", "result: json\n    run: \"echo '[1, 2]'\"", task.Succeeded, 0, 0, "", `[1,2]`, "[1, 2]\n"},
		{"stdout not json", "result: json\n    run: echo oops", task.Failed, task.CauseOutput, 0, "standard output is not JSON", "null", "oops\n"},
		{"stdout nothing", "result: json\n    run: \":\"", task.Failed, task.CauseOutput, 0, "nothing was printed", "null", ""},
		{"stdin is empty", `run: "cat; echo end"`, task.Succeeded, 0, 0, "", "null", "end\n"},
		{"binary output", `run: "printf '\\x00\\xff\\x01'"`, task.Succeeded, 0, 0, "", "null", "\x00\xff\x01"},
		{"closed output", `run: "exec >&- 2>&-; sleep 0.05"`, task.Succeeded, 0, 0, "", "null", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "functions:\n  f:\n    "+tt.fn+"\n")
			w.file("badinterp", "#!/no/such/interpreter\n")
			w.file("plain", "text")
			w.file("prog", "#!/bin/sh\nprintf '<%s>' \"$@\"")
			w.file("noshebang", "echo plain $1\n")
			if err := os.Chmod(filepath.Join(w.dir, "noshebang"), 0o700); err != nil {
				t.Fatal(err)
			}
			o := w.do("f")
			if o.Status != tt.status || o.Cause != tt.cause || o.Exit != tt.exit || !strings.Contains(o.Message, tt.message) {
				t.Errorf("got %s %s %d %q (log %q)", o.Status, o.Cause, o.Exit, o.Message, w.log(o))
			}
			if got := w.result(o); got != tt.result {
				t.Errorf("result %s, want %s", got, tt.result)
			}
			if got := w.log(o); got != tt.log && sortLines(got) != sortLines(tt.log) {
				t.Errorf("log %q, want %q", got, tt.log)
			}
			if o.Started == 0 || o.Attempt != 1 {
				t.Errorf("started %d, attempt %d", o.Started, o.Attempt)
			}
			if entries, _ := os.ReadDir(w.run.Scratch); len(entries) > 0 {
				t.Errorf("left in scratch: %v", entries)
			}
		})
	}
}

func sortLines(s string) string {
	return strings.Join(sortedStrings(strings.SplitAfter(s, "\n")), "")
}

func TestTaskEnvironment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
env: {WHO: all, FIRST: "${{ 1 + 1 }}"}
functions:
  f:
    map: {items: [a, b]}
    env: {MINE: "${{ item }}-${{ index }}", WHO: "me"}
    secrets: [TOKEN]
    run: |
`+indent(`
test -d "$TMPDIR"
test -z "$(ls -A "$TMPDIR")"
touch "$TMPDIR/x"
test "$(cat "$COILED_JOBS_ITEM_FILE")" = "$COILED_JOBS_ITEM"
printf '%s|' "$COILED_JOBS_RUN" "$COILED_JOBS_PIPELINE" "$COILED_JOBS_FUNCTION" "$COILED_JOBS_INDEX" "$COILED_JOBS_COUNT" "$COILED_JOBS_ATTEMPT" "$COILED_JOBS_ITEM" "$MINE" "$WHO" "$FIRST" "$HOME" "$(pwd)" "$TMPDIR" "$COILED_JOBS_NEEDS" > "$COILED_JOBS_RESULT"
printf %s "$TOKEN"`))
	w.items["f"] = texts("a", "b")
	w.run.Secrets = map[string]string{"TOKEN": "s3cr3t"}
	w.work(context.Background(), w.all("f")...)
	var tmps []string
	w.each("f", func(i int, o task.Outcome) {
		if o.Status != task.Succeeded {
			t.Fatalf("%d: %s %s", i, o.Message, w.log(o))
		}
		item := string(rune('a' + i))
		want := fmt.Sprintf(`"r1|test|f|%d|2|1|\"%s\"|%s-%d|me|2|%s|%s|`, i, item, item, i, filepath.Dir(w.dir), w.dir)
		got := w.result(o)
		if !strings.HasPrefix(got, want) {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
		tmps = append(tmps, strings.Split(got, "|")[12])
		if l := w.log(o); l != "***" {
			t.Errorf("log %q", l)
		}
	})
	if tmps[0] == tmps[1] {
		t.Errorf("two tasks that used it share TMPDIR %s", tmps[0])
	}
}

func TestHostileItems(t *testing.T) {
	t.Parallel()
	names := texts("a b", `q'u"o`, "$(touch x)", "`id`", "new\nline", "-rf", "\xff\xfe", "é", "*", "; rm -rf .", "\\n", "", "${HOME}", "tab\t", "\r")
	w := newWorld(t, `
functions:
  sh:
    map: {items: [x]}
    env: {E: "${{ item }}"}
    run: |
`+indent(`
printf '%s\0' "$E" ${{ item }} "${{ item }}" '${{ item }}' "$(cat <<EOF
${{ item }}.
EOF
)" > "$COILED_JOBS_RESULT"
cp "$COILED_JOBS_ITEM_FILE" "$OUT/$COILED_JOBS_INDEX"
printf %s "$COILED_JOBS_ITEM"`)+`
  cmd:
    map: {items: [x]}
    command: [printf, "%s", "${{ item }}"]
  py:
    map: {items: [x]}
    python: hostile:f
`)
	w.file("hostile.py", "import os, json\ndef f(x):\n    assert json.loads(os.environ['COILED_JOBS_ITEM']) == x\n"+
		"    assert json.load(open(os.environ['COILED_JOBS_ITEM_FILE'])) == x\n    return [x, os.fsencode(x).hex()]\n")
	out := t.TempDir()
	w.run.BaseEnv = append(w.run.BaseEnv, "OUT="+out)
	for _, fn := range []string{"sh", "cmd", "py"} {
		w.items[fn] = names
	}
	w.work(context.Background(), w.all("sh", "cmd", "py")...)
	for i, n := range names {
		name := n.(string)
		o := w.get("sh", i)
		if o.Status != task.Succeeded {
			t.Fatalf("%q: %s %s", name, o.Message, w.log(o))
		}
		here := name + "."
		want := jsonOf(strings.Join([]string{name, name, name, name, here, ""}, "\x00"))
		if got := w.result(o); got != want {
			t.Errorf("%q: script got %s, want %s", name, got, want)
		}
		if got := w.log(o); got != jsonOf(name) {
			t.Errorf("%q: item %s", name, got)
		}
		if b, err := os.ReadFile(filepath.Join(out, fmt.Sprint(i))); err != nil || string(b) != jsonOf(name) {
			t.Errorf("%q: item file %s, %v", name, b, err)
		}
		if got := w.log(w.get("cmd", i)); got != name {
			t.Errorf("%q: command got %q", name, got)
		}
		o = w.get("py", i)
		if want := fmt.Sprintf(`[%s,"%x"]`, jsonOf(name), name); asciiJSON(w.result(o)) != asciiJSON(want) {
			t.Errorf("%q: python got %s, want %s (%s)", name, w.result(o), want, w.log(o))
		}
	}
	if entries, _ := os.ReadDir(w.dir); len(entries) != 2 { // hostile.py, __pycache__
		t.Errorf("something was executed: %v", entries)
	}
}

// asciiJSON escapes what some encoders leave as it is.
func asciiJSON(s string) string { return strings.ReplaceAll(s, "é", `\u00e9`) }

func TestLargeItem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
functions:
  f:
    map: {items: [x]}
    run: "test -z \"${COILED_JOBS_ITEM+x}\"; wc -c < $COILED_JOBS_ITEM_FILE > $COILED_JOBS_RESULT"
  arg:
    map: {items: [x]}
    command: [echo, "${{ item }}"]
  py:
    map: {items: [x]}
    python: big:f
`)
	w.file("big.py", "import os\ndef f(x):\n    assert 'COILED_JOBS_ITEM' not in os.environ\n    return len(x)\n")
	big := strings.Repeat("x", 3<<20)
	for _, fn := range []string{"f", "arg", "py"} {
		w.items[fn] = texts(big)
	}
	w.work(context.Background(), w.all("f", "arg", "py")...)
	if o := w.get("f", 0); w.result(o) != fmt.Sprint(len(big)+2) {
		t.Errorf("%s %s %s", w.result(o), o.Message, w.log(o))
	}
	if o := w.get("arg", 0); o.Cause != task.CauseSetup || !strings.Contains(o.Message, "ITEM_FILE") {
		t.Errorf("%s %q", o.Cause, o.Message)
	}
	if o := w.get("py", 0); w.result(o) != fmt.Sprint(len(big)) {
		t.Errorf("%s %s %s", w.result(o), o.Message, w.log(o))
	}
}

func TestLargeResultAndOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
functions:
  f:
    result: json
    run: "printf '['; for i in $(seq 60000); do printf '%s, ' $i; done; echo 0]"
  loud:
    run: "head -c 20000000 /dev/zero; echo end >&2; exit 4"
`)
	w.work(context.Background(), w.all("f", "loud")...)
	o := w.get("f", 0)
	if o.Result != nil || o.ResultAt.Len < inlineResult || strings.Contains(w.result(o), " ") || !strings.HasSuffix(w.result(o), ",60000,0]") {
		t.Errorf("%d at %+v %s", len(o.Result), o.ResultAt, o.Message)
	}
	if o := w.get("loud", 0); o.Log.Len != 20000004 || string(o.Stderr) != "end\n" {
		t.Errorf("%+v %q", o.Log, o.Stderr)
	}
}

func TestBackgroundProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
functions:
  f:
    run: "sleep 1000 & echo $! > $COILED_JOBS_RESULT"
  g:
    run: "setsid sleep 1000 & echo $! > $COILED_JOBS_RESULT"
  h:
    run: "setsid env -i sleep 1000 & sleep 0.05; echo $! > $COILED_JOBS_RESULT"
  p:
    python: bg:f
`)
	w.file("bg.py", "import subprocess\ndef f():\n    return subprocess.Popen(['sleep','1000'], start_new_session=True).pid\n")
	start := time.Now()
	w.work(context.Background(), w.all("f", "g", "h", "p")...)
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %s", d)
	}
	for _, fn := range []string{"f", "g", "h", "p"} {
		o := w.get(fn, 0)
		if o.Status != task.Succeeded {
			t.Errorf("%s: %s %s", fn, o.Message, w.log(o))
		}
		if comm, err := os.ReadFile("/proc/" + w.result(o) + "/comm"); err == nil && string(comm) == "sleep\n" {
			if state, _ := os.ReadFile("/proc/" + w.result(o) + "/stat"); !strings.Contains(string(state), ") Z ") {
				t.Errorf("%s: %s is still there", fn, w.result(o))
			}
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
functions:
  f:
    map: {items: [x]}
    run: "echo up; sleep 100"
  p:
    map: {items: [x]}
    python: slow:f
`)
	w.file("slow.py", "import time\ndef f(x):\n    print('up', flush=True)\n    time.sleep(100)\n")
	w.items["f"], w.items["p"] = ranged(3), ranged(3)
	w.cfg.Slots = 2
	ctx, cancel := context.WithCancel(context.Background())
	a, done := w.start(ctx, w.all("f", "p")...)
	waitFor(t, func() bool {
		n := 0
		for _, l := range a.Live() {
			b := make([]byte, 10)
			if k, _ := w.store.ReadAt(ctx, l.Log.Key, b, l.Log.Off); k > 0 {
				n++
			}
		}
		return n == 2
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, fn := range []string{"f", "p"} {
		if o := w.get(fn, 0); o.Status != task.Cancelled || o.Cause != task.CauseCancelled || w.log(o) != "up\n" {
			t.Errorf("%s: %s %s %q", fn, o.Status, o.Cause, w.log(o))
		}
	}
	if got := fmt.Sprint(sortedStrings(w.unrun)); got != "[f/1 f/2 p/1 p/2]" {
		t.Errorf("not run: %s", got)
	}
}

// waitFor polls; tests fail by their own deadline.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatal("waited for too long")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  f:\n    map: {items: [x]}\n    command: [\"true\"]\n")
	w.items["f"] = ranged(5)
	w.stop["f"] = true
	w.work(context.Background(), w.all("f")...)
	if len(w.unrun) != 5 {
		t.Errorf("%v", w.unrun)
	}
}

func TestOOMIsToldApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  f:\n    run: kill -9 $$\n  g:\n    run: bash -c 'kill -9 $$'\n  h:\n    run: exit 1\n")
	n := int64(0)
	w.cfg.OOMKills = func() int64 { n++; return n } // one more every time it is asked
	w.work(context.Background(), w.all("f", "g", "h")...)
	for fn, want := range map[string]task.Cause{"f": task.CauseOOM, "g": task.CauseOOM, "h": task.CauseExit} {
		if o := w.get(fn, 0); o.Cause != want {
			t.Errorf("%s: %s", fn, o.Cause)
		}
	}
	w.cfg.OOMKills = func() int64 { return 7 }
	w.outcomes = map[string]map[int]task.Outcome{}
	if o := w.do("f"); o.Cause != task.CauseSignal || o.Signal != "SIGKILL" {
		t.Errorf("%s %s", o.Cause, o.Signal)
	}
}

func TestMemoryRunsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  f:\n    map: {items: [x]}\n    run: \"mkdir lock-$COILED_JOBS_INDEX; ls -d lock-* | wc -l > $COILED_JOBS_RESULT; sleep 0.02; rmdir lock-$COILED_JOBS_INDEX\"\n")
	w.items["f"] = ranged(8)
	w.cfg.Slots = 4
	var rs []cloud.Range
	for i := range 8 {
		rs = append(rs, cloud.Range{Run: "r1", Function: "f", From: i, To: i + 1, Attempt: 1, Memory: 1})
	}
	w.work(context.Background(), rs...)
	w.each("f", func(i int, o task.Outcome) {
		if w.result(o) != "1" {
			t.Errorf("%d: %s at a time (%s)", i, w.result(o), o.Message)
		}
	})
}

// doneQueue notes which ranges were given back.
type doneQueue struct {
	cloud.Queue
	done func(cloud.Delivery)
}

func (q doneQueue) Done(ctx context.Context, d cloud.Delivery) error {
	q.done(d)
	return q.Queue.Done(ctx, d)
}

// A range is given back when all of it has been reported, not before.
func TestRangesAreGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  f:\n    map: {items: [x]}\n    command: [\"true\"]\n")
	w.items["f"] = ranged(200)
	w.cfg.Slots = 2
	given := 0
	w.queue = func(q cloud.Queue) cloud.Queue {
		return doneQueue{q, func(d cloud.Delivery) {
			w.mu.Lock()
			defer w.mu.Unlock()
			given++
			for i := d.From; i < d.To; i++ {
				if _, ok := w.outcomes["f"][i]; !ok {
					t.Errorf("%d was given back before it was reported", i)
				}
			}
		}}
	}
	w.work(context.Background(), cloud.Range{Run: "r1", Function: "f", To: 90, Attempt: 2},
		cloud.Range{Run: "r1", Function: "f", From: 90, To: 100, Attempt: 1}, cloud.Range{Run: "r1", Function: "f", From: 100, To: 200, Attempt: 1})
	if given != 3 || w.get("f", 5).Attempt != 2 {
		t.Errorf("%d ranges were given back, attempt %d", given, w.get("f", 5).Attempt)
	}
	for _, b := range w.batches {
		if len(b.Outcomes) > reportCount {
			t.Errorf("a report of %d", len(b.Outcomes))
		}
	}
}

// A store that cannot take more ends the agent, with what is wrong; the task
// whose output it could not take has not failed, it runs again later.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  f:\n    map: {items: [x]}\n    run: echo x > out-${{ index }}\n    outputs: [\"out-${{ index }}\"]\n")
	w.items["f"] = ranged(3)
	w.run.Store = fullStore{w.store}
	_, done := w.start(context.Background(), w.all("f")...)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("ended with %v", err)
	}
	if len(w.unrun) != 3 || len(w.outcomes["f"]) != 0 {
		t.Errorf("not run: %v, outcomes: %v", w.unrun, w.outcomes["f"])
	}
}

type fullStore struct{ cloud.Store }

func (fullStore) PutFrom(context.Context, string, io.Reader) error {
	return &cloud.Error{Op: "put", Resource: "x", Kind: cloud.KindFull}
}
