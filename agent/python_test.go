//go:build unix

package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

const pyModule = `
import asyncio, dataclasses, datetime, enum, json, logging, os, pathlib, subprocess, sys, tempfile, time

def none(): pass
def echo(*a, **k): return [list(a), k]
def fail(): raise ValueError("no such\ncolumn")
def leave(): print("bye", file=sys.stderr); sys.exit(3)
def leave_ok(): sys.exit()
def leave_text(): sys.exit("sorry")
def die(): print("last words"); sys.stdout.flush(); os._exit(7)
def die_ok(): os._exit(0)
def segv(): print("before", flush=True); os.kill(os.getpid(), 11)
def kill9(): os.kill(os.getpid(), 9)
def hang(): time.sleep(100)
def oom(): raise MemoryError()
def nan(): return {"a": float("nan")}
def gen(): yield 1
def obj(): return object()
def bigint(): return 2**100
async def later(): await asyncio.sleep(0); return "later"
@dataclasses.dataclass
class D:
    a: int = 1
class E(enum.Enum):
    X = "x"
class Array:
    def tolist(self): return [1.5, 2]
def kinds(): return [D(), {3, 1, 2}, pathlib.Path("p/q"), datetime.date(2020, 1, 2), (1, 2), E.X, Array(), "\udcff"]
def where(): return [os.getcwd(), sys.path[0], sys.argv, os.environ["COILED_JOBS_FUNCTION"]]
def tmp():
    f = tempfile.mkstemp()[1]
    return [os.path.dirname(f) == os.environ["TMPDIR"], len(os.listdir(os.environ["TMPDIR"]))]
def dirty(i):
    seen = [os.environ.get("DIRT"), os.environ.get("HOME") is None, os.path.basename(os.getcwd())]
    os.environ["DIRT"] = str(i); del os.environ["HOME"]; os.environ["COILED_JOBS_INDEX"] = "x"
    os.chdir("/")
    tempfile.mkstemp(); sys.stdout = open(os.devnull, "w"); os.close(1)
    return seen + [len(os.listdir(os.environ["TMPDIR"])) ]
def close_all(i): print("a", i); sys.stdout.close(); sys.stderr.close(); return i
def fork(i):
    pid = os.fork()
    if pid: os.waitpid(pid, 0); print("parent", i)
    elif i % 2: raise ValueError("in the child")
    return [i, "parent" if pid else "child"]
def child_env(i): return subprocess.check_output("echo $COILED_JOBS_INDEX:$COILED_JOBS_ITEM", shell=True, text=True).strip()
def talk(i):
    print("print", i)
    sys.stderr.write("err %d\n" % i)
    os.write(1, b"write %d\n" % i) if i % 2 else os.system("echo system %d" % i)
    logging.warning("log %d", i)
    print("end", i, end="")
def batch(i):
    print("call", i)
    if i == 20: os._exit(9)
    if i == 40: sys.exit(0)
    if i == 60: raise KeyError(i)
    return i
def pid(i): return os.getpid()
`

func pyWorld(t testing.TB, yaml string) *world {
	w := newWorld(t, yaml)
	w.file("mod.py", pyModule)
	w.file("pkg/__init__.py", "")
	w.file("pkg/sub.py", "from . import other\ndef f(): return [__name__, other.X]\n")
	w.file("pkg/other.py", "X = 5\n")
	w.file("dir/tool.py", "import helper\ndef f(): return [__name__, helper.Y]\n")
	w.file("dir/helper.py", "Y = 6\n")
	w.file("syntax.py", "def f(:\n")
	return w
}

func TestPythonEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, fn string
		cause    task.Cause
		exit     int
		message  string
		result   string
		log      string // a part of it
	}{
		{"none", "python: mod:none", 0, 0, "", "null", ""},
		{"args", "python: mod:echo\n    args: [1, two, {a: [3]}, 1.5]\n    kwargs: {b: true, c: null}", 0, 0, "", `[[1,"two",{"a":[3]},1.5],{"b":true,"c":null}]`, ""},
		{"package", "python: pkg.sub:f", 0, 0, "", `["pkg.sub",5]`, ""},
		{"file", "python: dir/tool.py:f", 0, 0, "", `["tool",6]`, ""},
		{"exception", "python: mod:fail", task.CauseExit, 1, "ValueError: no such column", "null", "in fail\n    def fail(): raise"},
		{"sys.exit", "python: mod:leave", task.CauseExit, 3, "exit code 3: bye", "null", "bye\n"},
		{"sys.exit ok", "python: mod:leave_ok", 0, 0, "", "null", ""},
		{"sys.exit text", "python: mod:leave_text", task.CauseExit, 1, "exit code 1: sorry", "null", "sorry\n"},
		{"os._exit", "python: mod:die", task.CauseExit, 7, "exit code 7", "null", "last words\n"},
		{"os._exit 0", "python: mod:die_ok", task.CauseExit, 1, "os._exit", "null", ""},
		{"segfault", "python: mod:segv", task.CauseSignal, 139, "killed by SIGSEGV", "null", "before\n"},
		{"killed", "python: mod:kill9", task.CauseSignal, 137, "killed by SIGKILL", "null", ""},
		{"timeout", "python: mod:hang\n    timeout: 1", task.CauseTimeout, 124, "took longer", "null", ""},
		{"memory", "python: mod:oom", task.CauseOOM, 1, "MemoryError", "null", "MemoryError"},
		{"nan", "python: mod:nan", task.CauseOutput, 0, "the result cannot be JSON", "null", ""},
		{"generator", "python: mod:gen", task.CauseOutput, 0, "return a list", "null", ""},
		{"object", "python: mod:obj", task.CauseOutput, 0, "object is not JSON", "null", ""},
		{"bigint", "python: mod:bigint", 0, 0, "", "1267650600228229401496703205376", ""},
		{"async", "python: mod:later", 0, 0, "", `"later"`, ""},
		{"kinds", "python: mod:kinds", 0, 0, "", `[{"a":1},[1,2,3],"p/q","2020-01-02",[1,2],"x",[1.5,2],"\udcff"]`, ""},
		{"tempfile", "python: mod:tmp", 0, 0, "", "[true,1]", ""},
		{"no module", "python: nothing:f", task.CauseExit, 1, "ModuleNotFoundError: No module named 'nothing'", "null", "ModuleNotFoundError"},
		{"no function", "python: mod:nothing", task.CauseExit, 1, "mod has no function 'nothing'", "null", ""},
		{"no file", "python: no/file.py:f", task.CauseExit, 1, "FileNotFoundError", "null", ""},
		{"syntax", "python: syntax:f", task.CauseExit, 1, "SyntaxError", "null", "def f(:"},
		{"no interpreter", "python: mod:none\n    python_bin: python9.9", task.CauseSetup, 127, "no such program in PATH", "null", ""},
		{"not an interpreter", "python: mod:none\n    python_bin: \"false\"", task.CauseSetup, 1, "start Python", "null", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := pyWorld(t, "functions:\n  f:\n    "+tt.fn+"\n")
			o := w.do("f")
			log := w.log(o)
			if o.Cause != tt.cause || o.Exit != tt.exit || !strings.Contains(o.Message, tt.message) || (o.Status == task.Succeeded) != (tt.cause == 0) {
				t.Errorf("got %s %s %d %q\n%s", o.Status, o.Cause, o.Exit, o.Message, log)
			}
			if got := w.result(o); got != tt.result {
				t.Errorf("result %s, want %s", got, tt.result)
			}
			if !strings.Contains(log, tt.log) || strings.Contains(log, "worker.py") && tt.cause != task.CauseSignal && tt.name != "no file" {
				t.Errorf("log %q, want %q", log, tt.log)
			}
			if o.Cause == task.CauseExit && o.Exit == 1 && tt.log != "" && !strings.Contains(string(o.Stderr), tt.log) {
				t.Errorf("stderr %q", o.Stderr)
			}
		})
	}
}

func TestPythonTasksDoNotTouchEachOther(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, `
functions:
  f: {map: {items: [x]}, python: "mod:dirty"}
  e: {map: {items: [x]}, python: "mod:child_env"}
  g: {map: {items: [x]}, python: "mod:pid"}
`)
	for _, fn := range []string{"f", "e", "g"} {
		w.items[fn] = ranged(30)
	}
	w.work(context.Background(), w.all("f", "e", "g")...)
	w.each("f", func(i int, o task.Outcome) {
		if got := w.result(o); got != `[null,false,"work",1]` {
			t.Errorf("%d saw %s %s %s", i, got, o.Message, w.log(o))
		}
	})
	w.each("e", func(i int, o task.Outcome) {
		if got := w.result(o); got != fmt.Sprintf(`"%d:%d"`, i, i) {
			t.Errorf("%d saw %s %s", i, got, w.log(o))
		}
	})
	w.each("g", func(i int, o task.Outcome) {
		if w.result(o) != w.result(w.get("g", 0)) {
			t.Errorf("%d ran in another interpreter", i)
		}
	})
}

// What a call does to its streams, or a child that comes back from it too,
// harms no other call.
func TestPythonStreamsAndForks(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"mod:close_all\"}\n  g: {map: {items: [x]}, python: \"mod:fork\"}\n")
	w.items["f"], w.items["g"] = ranged(10), ranged(10)
	w.work(context.Background(), w.all("f", "g")...)
	w.each("f", func(i int, o task.Outcome) {
		if w.result(o) != fmt.Sprint(i) || w.log(o) != fmt.Sprintf("a %d\n", i) {
			t.Errorf("%d: %s %q %q", i, o.Status, o.Message, w.log(o))
		}
	})
	w.each("g", func(i int, o task.Outcome) {
		if w.result(o) != fmt.Sprintf(`[%d,"parent"]`, i) || !strings.HasSuffix(w.log(o), fmt.Sprintf("parent %d\n", i)) {
			t.Errorf("%d: %s %q %q %q", i, o.Status, o.Message, w.result(o), w.log(o))
		}
	})
}

func TestPythonOutputIsAttributed(t *testing.T) {
	t.Parallel()
	for _, secret := range []bool{false, true} {
		t.Run(fmt.Sprint("secrets ", secret), func(t *testing.T) {
			t.Parallel()
			w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"mod:talk\"}\n  q: {map: {items: [x]}, python: \"mod:batch\"}\n")
			if secret {
				w.run.Secrets = map[string]string{"S": "print"}
			}
			w.items["f"], w.items["q"] = ranged(50), ranged(20)
			w.work(context.Background(), w.all("f", "q")...)
			w.each("f", func(i int, o task.Outcome) {
				mid := fmt.Sprintf("system %d\n", i)
				if i%2 == 1 {
					mid = fmt.Sprintf("write %d\n", i)
				}
				want := fmt.Sprintf("print %d\nerr %d\n%sWARNING:root:log %d\nend %d", i, i, mid, i, i)
				got := w.log(o)
				if secret {
					want = strings.ReplaceAll(want, "print", "***")
				}
				if got != want {
					t.Errorf("%d printed %q, want %q", i, got, want)
				}
			})
			w.each("q", func(i int, o task.Outcome) {
				if got := w.log(o); got != fmt.Sprintf("call %d\n", i) {
					t.Errorf("%d printed %q", i, got)
				}
			})
		})
	}
}

// A crash, an exit and an exception in the middle of quick calls, which are
// sent many at a time, hurt nobody else.
func TestPythonCrashInABatch(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"mod:batch\"}\n")
	w.items["f"] = ranged(100)
	w.work(context.Background(), w.all("f")...)
	w.each("f", func(i int, o task.Outcome) {
		if got := w.log(o); !strings.HasPrefix(got, fmt.Sprintf("call %d\n", i)) {
			t.Errorf("%d printed %q", i, got)
		}
		switch {
		case i == 20 && (o.Cause != task.CauseExit || o.Exit != 9):
			t.Errorf("20: %s %d %q", o.Cause, o.Exit, o.Message)
		case i == 60 && (o.Cause != task.CauseExit || o.Message != "KeyError: 60"):
			t.Errorf("60: %s %q", o.Cause, o.Message)
		case i != 20 && i != 60 && o.Status != task.Succeeded:
			t.Errorf("%d: %s %q", i, o.Cause, o.Message)
		}
	})
}

func TestPythonTimeoutInABatch(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"slow:f\", timeout: 3}\n")
	w.file("slow.py", "import time\ndef f(i):\n    if i == 50: time.sleep(60)\n    return i\n")
	w.items["f"] = ranged(100)
	w.work(context.Background(), w.all("f")...)
	w.each("f", func(i int, o task.Outcome) {
		if i == 50 && o.Cause != task.CauseTimeout || i != 50 && w.result(o) != fmt.Sprint(i) {
			t.Errorf("%d: %s %q", i, o.Cause, o.Message)
		}
	})
}

// What is done is reported while a slow call behind it in the same batch runs.
func TestPythonReportsBeforeASlowCall(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"slow:f\"}\n")
	w.file("slow.py", "import os, time\ndef f(i):\n    while i == 50 and not os.path.exists('go'): time.sleep(0.01)\n    return i\n")
	w.items["f"] = ranged(64)
	a, done := w.start(context.Background(), w.all("f")...)
	waitFor(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.outcomes["f"]) == 50
	})
	waitFor(t, func() bool { l := a.Live(); return len(l) == 1 && l[0].Index == 50 })
	w.file("go", "")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestPythonEnvPerTask(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"env:f\", env: {V: \"${{ item }}!\"}}\n")
	w.file("env.py", "import os\ndef f(i): return os.fsencode(os.environ['V']).hex()\n")
	w.items["f"] = texts("a", "\xff", "é")
	w.work(context.Background(), w.all("f")...)
	w.each("f", func(i int, o task.Outcome) {
		if want := fmt.Sprintf(`"%x"`, w.items["f"][i].(string)+"!"); w.result(o) != want {
			t.Errorf("%s, want %s (%s)", w.result(o), want, w.log(o))
		}
	})
}

func TestPythonAloneIsFresh(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"mod:pid\"}\n")
	w.items["f"] = ranged(2)
	w.work(context.Background(), cloud.Range{Run: "r1", Function: "f", From: 0, To: 1, Attempt: 1, Memory: 1},
		cloud.Range{Run: "r1", Function: "f", From: 1, To: 2, Attempt: 1, Memory: 1})
	if a, b := w.result(w.get("f", 0)), w.result(w.get("f", 1)); a == b || a == "null" {
		t.Errorf("tasks that need all memory shared interpreter %s (%s)", a, b)
	}
}

// An interpreter that has grown is replaced.
func TestPythonLeak(t *testing.T) {
	t.Parallel()
	w := pyWorld(t, "functions:\n  f: {map: {items: [x]}, python: \"leak:f\"}\n")
	w.file("leak.py", "import os, time\nkept = []\ndef f(i):\n    kept.append(bytes([1]) * (64 << 20))\n    time.sleep(0.21)\n    return [os.getpid(), len(kept)]\n")
	w.tune = func(a *Agent) { a.leak = 100 << 20 }
	w.items["f"] = ranged(5)
	w.work(context.Background(), w.all("f")...)
	pids := map[string]bool{}
	w.each("f", func(i int, o task.Outcome) {
		pids[strings.Split(w.result(o), ",")[0]] = true
	})
	if len(pids) < 2 {
		t.Errorf("one interpreter for all: %v", w.result(w.get("f", 4)))
	}
}
