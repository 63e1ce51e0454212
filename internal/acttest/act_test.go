//go:build unix

package acttest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tell is a step that leaves what another put out.
const tell = `      - if: always()
        env: {RUN: "${{ steps.jobs.outputs.run }}", STATUS: "${{ steps.jobs.outputs.status }}", COST: "${{ steps.jobs.outputs.cost }}", LINE: "${{ steps.jobs.outputs.summary }}", RESULTS: "${{ steps.jobs.outputs.results }}", STORE: "${{ steps.jobs.outputs.store }}"}
        run: printf '%s\n' "$RUN" "$STATUS" "$COST" "$RESULTS" "$STORE" "$LINE" >"$OUT/outputs"
`

// workflow is one job with one use of the Action, and what it put out.
func workflow(event, with string) string {
	return fmt.Sprintf(`on: %s
jobs:
  job:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: jobs
        uses: coiled-jobs/coiled-jobs@main
        with:
%s%s`, event, with, tell)
}

// outputs are what the step put out: run, status, cost, results, store, and
// the summary.
func (r *rig) outputs() []string {
	r.t.Helper()
	return strings.SplitN(strings.TrimSuffix(r.read("outputs"), "\n"), "\n", 6)
}

func TestSuccess(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": workflow("push", `          params: |
            n=3
            word=hello
`) + `      - run: cat out-*.txt >"$OUT/files"
`, "pipeline.yaml": `name: small
params: {n: 1, word: {type: string}}
functions:
  say:
    map: {range: "${{ params.n }}"}
    run: |
      echo ${{ params.word }} ${{ item }} >out-${{ item }}.txt
      env >"$OUT/env-${{ item }}"
    outputs: ["out-${{ item }}.txt"]
`})
	l := r.run("push").want(t, true)
	o := r.outputs()
	if o[0] == "" || o[1] != "succeeded" || o[2] != "0.0000" || !strings.HasSuffix(o[3], "/runs/"+o[0]) || !strings.HasSuffix(o[4], r.store) || !strings.HasPrefix(o[5], "3 tasks, ") {
		t.Errorf("outputs %q", o)
	}
	if s := l.summary(t); !strings.Contains(s, "✅ small succeeded") || !strings.Contains(s, o[0]) {
		t.Errorf("the summary:\n%s", s)
	}
	if a := l.annotations(); len(a) != 0 {
		t.Errorf("annotations %q", a)
	}
	l.has(t, "::group::coiled-jobs "+o[0], "::endgroup::")
	if got := r.read("files"); got != "hello 0\nhello 1\nhello 2\n" {
		t.Errorf("a later step found %q", got)
	}
	// Tasks see what a step sees, but not what is only for the step.
	if env := r.read("env-0"); !strings.Contains(env, "GITHUB_RUN_ID=4711\n") || strings.Contains(env, "INPUT_") || strings.Contains(env, "COILED_JOBS_STEP") {
		t.Errorf("the environment of a task:\n%s", env)
	}
}

func TestFailingTask(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": workflow("push", "          working-directory: sub\n"), "sub/pipeline.yaml": `name: failing
functions:
  first:
    run: exit 0
  broken:
    map: {range: 3}
    run: |
      echo "::error::not an annotation of ours" >&2
      echo '<script>alert(1)</script> | ${{ index }} failed' >&2
      test ${{ index }} != 1
`})
	l := r.run("push").want(t, false)
	o := r.outputs()
	if o[1] != "failed" {
		t.Errorf("outputs %q", o)
	}
	a := l.annotations()
	if len(a) != 1 || !strings.HasPrefix(a[0], "::error file=sub/pipeline.yaml,line=5,col=3,title=1 × broken::") {
		t.Errorf("annotations %q", a)
	}
	s := l.summary(t)
	for _, want := range []string{"❌ failing failed", "| broken | ❌ failed: 1 of 3 tasks failed | 3 | 1 |", "`broken/1`, attempt 1", "coiled-jobs retry " + o[0]} {
		if !strings.Contains(s, want) {
			t.Errorf("the summary lacks %q:\n%s", want, s)
		}
	}
}

func TestBadFile(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": workflow("push", "          file: odd.yaml\n"), "odd.yaml": `name: odd
functions:
  a:
    run: echo
    retrys: 3
  b:
    needs: c
    run: echo
`})
	l := r.run("push").want(t, false)
	a := l.annotations()
	if len(a) != 2 || !strings.HasPrefix(a[0], "::error file=odd.yaml,line=5,col=5::") || !strings.Contains(a[0], "retries") || !strings.HasPrefix(a[1], "::error file=odd.yaml,line=7,col=12::") {
		t.Errorf("annotations %q", a)
	}
	if s := l.summary(t); !strings.Contains(s, "odd.yaml has mistakes") || !strings.Contains(s, "5:5") {
		t.Errorf("the summary:\n%s", s)
	}
	if o := r.outputs(); o[0] != "" || o[1] != "" {
		t.Errorf("outputs %q of what never began", o)
	}
}

func TestBadInputs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ with, want string }{
		"params":         {"          params: novalue\n", "--param novalue: write name=value"},
		"object":         {"          params: '{\"a\": [1]}'\n", "params: a: write text"},
		"cloud":          {"          cloud: azure\n", `cloud: "azure"; write local or aws`},
		"command":        {"          command: destroy\n", `command: "destroy"`},
		"detach":         {"          detach: maybe\n", `detach: "maybe" is neither true nor false`},
		"detached local": {"          detach: true\n", "detach: this run is on the runner itself"},
		"max-cost":       {"          max-cost: much\n", "--max-cost much: write dollars"},
		"wait":           {"          command: wait\n", "command wait: name the run"},
		"no such run":    {"          command: wait\n          run: nope-1\n", "nope-1"},
		"no file":        {"          file: pipelin.yaml\n", "did you mean pipeline.yaml?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, map[string]string{"w.yml": workflow("push", c.with), "pipeline.yaml": "name: p\nfunctions: {a: {run: 'true'}}\n"})
			l := r.run("push").want(t, false)
			if a := l.annotations(); len(a) != 1 || !strings.Contains(a[0], c.want) {
				t.Errorf("annotations %q, want one with %q\n%s", a, c.want, l.text)
			}
			if runs := r.runs(); len(runs) != 0 {
				t.Errorf("runs %v", runs)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	pipeline := "name: planned\nfunctions:\n  a: {map: {range: 4000}, run: 'touch \"$OUT/ran\"'}\n"
	for event, with := range map[string]string{"push": "          command: plan\n", "pull_request": "          file: pipeline.yaml\n"} {
		t.Run(event, func(t *testing.T) {
			t.Parallel()
			r := open(t, map[string]string{"w.yml": workflow(event, with), "pipeline.yaml": pipeline})
			l := r.run(event).want(t, true)
			o := r.outputs()
			if o[1] != "planned" || !strings.Contains(o[5], "Plan of pipeline.yaml") || !strings.Contains(o[5], "4,000 tasks in 1 function") {
				t.Errorf("outputs %q", o)
			}
			if s := l.summary(t); strings.TrimSpace(s) != strings.TrimSpace(o[5]) {
				t.Errorf("the summary is another text than the output:\n%s", s)
			}
			if _, err := os.Stat(filepath.Join(r.out, "ran")); err == nil {
				t.Error("a plan ran the pipeline")
			}
			if runs := r.runs(); len(runs) != 0 {
				t.Errorf("a plan recorded %v", runs)
			}
		})
	}
}

// The same run of the workflow again goes on where the last attempt stopped,
// even on another runner: act gives each attempt another workspace.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": workflow("push", "          file: pipeline.yaml\n"), "pipeline.yaml": `name: again
functions:
  count:
    map: {range: 4}
    run: |
      echo ${{ item }} >>"$OUT/started"
      test ${{ item }} != 2 || test -e "$OUT/fixed"
`})
	r.run("push").want(t, false)
	first := r.outputs()
	if err := os.WriteFile(filepath.Join(r.out, "fixed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := r.run("push").want(t, true)
	if o := r.outputs(); o[0] != first[0] || o[1] != "succeeded" {
		t.Errorf("outputs %q then %q: want the same run, succeeded", first, o)
	}
	if s := l.summary(t); !strings.Contains(s, "it goes on") {
		t.Errorf("nobody hears that the run is an older one:\n%s", s)
	}
	started := strings.Fields(r.read("started"))
	slices.Sort(started)
	if want := []string{"0", "1", "2", "2", "3"}; !slices.Equal(started, want) {
		t.Errorf("started %v, want %v", started, want)
	}
	// A third time there is nothing left to do.
	l = r.run("push").want(t, true)
	if o := r.outputs(); o[0] != first[0] || o[1] != "succeeded" || !strings.Contains(l.summary(t), "nothing is run again") {
		t.Errorf("outputs %q\n%s", o, l.summary(t))
	}
	// Another run of the workflow is another run.
	r.env["GITHUB_RUN_ID"] = "4712"
	r.run("push").want(t, true)
	if runs := r.runs(); len(runs) != 2 {
		t.Errorf("runs %v, want 2", runs)
	}
}

// A later job, in another workspace, collects what an earlier one ran: its state,
// its summary, its outputs.
func TestCollect(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": `on: push
jobs:
  start:
    runs-on: ubuntu-latest
    outputs: {run: "${{ steps.jobs.outputs.run }}", store: "${{ steps.jobs.outputs.store }}"}
    steps:
      - uses: actions/checkout@v4
      - id: jobs
        uses: coiled-jobs/coiled-jobs@main
        with: {working-directory: sub, outputs: false}
      - run: rm -rf "$PWD/sub"
  collect:
    needs: start
    runs-on: ubuntu-latest
    steps:
      - id: jobs
        uses: coiled-jobs/coiled-jobs@main
        env: {XDG_STATE_HOME: "${{ env.OUT }}/other-runner", COILED_JOBS_STORE: ""}
        with:
          command: wait
          run: ${{ needs.start.outputs.run }}
          store: ${{ needs.start.outputs.store }}
      - run: cp made.txt "$OUT/collected"
` + tell, "sub/pipeline.yaml": `name: collected
functions:
  make: {run: echo here >made.txt, outputs: [made.txt]}
`})
	l := r.run("push").want(t, true)
	if got := r.read("collected"); got != "here\n" {
		t.Errorf("collected %q", got)
	}
	runs := r.runs()
	if o := r.outputs(); len(runs) != 1 || o[0] != runs[0][0] || o[1] != "succeeded" {
		t.Errorf("outputs %q, runs %v", o, runs)
	}
	if len(l.summaries) == 0 || !strings.Contains(l.summaries[len(l.summaries)-1], "collected succeeded") {
		t.Errorf("summaries %q", l.summaries)
	}
}

// Two uses in a job and the legs of a matrix are runs of their own, though all
// have the same file.
func TestStepsAndLegs(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": `on: push
jobs:
  job:
    runs-on: ubuntu-latest
    strategy: {matrix: {word: [one, two]}}
    steps:
      - uses: actions/checkout@v4
      - uses: coiled-jobs/coiled-jobs@main
        with: {params: "word=${{ matrix.word }}"}
      - uses: coiled-jobs/coiled-jobs@main
        with: {params: "word=${{ matrix.word }}"}
      - uses: coiled-jobs/coiled-jobs@main
        with: {key: mine}
`, "pipeline.yaml": `name: legs
params: {word: none}
functions:
  say: {run: 'echo ${{ params.word }} >>"$OUT/said"'}
`})
	r.run("push").want(t, true)
	said := strings.Fields(r.read("said"))
	slices.Sort(said)
	if want := []string{"none", "one", "one", "two", "two"}; !slices.Equal(said, want) {
		t.Errorf("said %v, want %v: the given key is one run, each other use its own", said, want)
	}
	r.run("push").want(t, true)
	if again := strings.Fields(r.read("said")); len(again) != 5 {
		t.Errorf("after a second attempt said %v", again)
	}
}

// What comes from outside is data, in params, in names of files, and in what
// tasks print.
func TestHostile(t *testing.T) {
	t.Parallel()
	evil := "a'b\"c $(touch $OUT/pwned) `touch $OUT/pwned` ;touch $OUT/pwned;\n::error::pwned\nGITHUB_X<<E\nx\nE\n%0A"
	object, err := json.Marshal(map[string]any{"text": evil, "n": 7, "on": true})
	if err != nil {
		t.Fatal(err)
	}
	name := "we'ird \"$(touch $OUT-pwned) name.yaml"
	r := open(t, map[string]string{"w.yml": `on: workflow_dispatch
jobs:
  job:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: jobs
        uses: coiled-jobs/coiled-jobs@main
        with: {file: "${{ env.FILE }}", params: "${{ env.PARAMS }}"}
` + tell, name: `name: hostile
params: {text: {type: string}, n: 1, on: false}
functions:
  say:
    map: "in/*"
    run: |
      printf %s ${{ params.text }} >"$OUT/got-${{ params.n }}-${{ params.on }}"
      printf '%s\n' ${{ item }} >>"$OUT/items"
      echo "::error::$(cat "$OUT/items")"
      echo "::set-output name=status::pwned" >&2
      exit 1
`, "in/$(touch pwned)'\"\n::error::name": "x"})
	r.env["FILE"], r.env["PARAMS"] = name, string(object)
	l := r.run("workflow_dispatch").want(t, false)
	if b, err := os.ReadFile(filepath.Join(r.out, "got-7-true")); err != nil || string(b) != evil {
		got := string(b)
		t.Log(l.text)
		t.Errorf("the task got %q, want %q", got, evil)
	}
	// What a task printed may be quoted in ours, and is none of its own: commands
	// are off while it is shown.
	off, shown, on := strings.Index(l.text, "::stop-commands::"), strings.Index(l.text, "::set-output name=status"), strings.LastIndex(l.text, "::endgroup::")
	if off < 0 || shown < off || on < shown {
		t.Errorf("commands are off at %d, output is at %d, on at %d\n%s", off, shown, on, l.text)
	}
	if a := l.annotations(); len(a) != 1 || !strings.HasPrefix(a[0], "::error file=we'ird") {
		t.Errorf("annotations %q, want only the one for the failure", a)
	}
	if o := r.outputs(); o[1] != "failed" {
		t.Errorf("outputs %q", o)
	}
	err = filepath.WalkDir(filepath.Dir(r.dir), func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, "pwned") {
			t.Errorf("%s was made: something ran what is data", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": `on: push
jobs:
  job:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: coiled-jobs/coiled-jobs@main
        env: {TOKEN: "tok-${{ github.run_id }}-1"}
`, "pipeline.yaml": `name: masked
secrets: [TOKEN]
functions:
  leak: {run: 'echo "the token is $TOKEN" >&2; exit 1'}
`})
	l := r.run("push").want(t, false)
	l.has(t, "the token is ***")
	if strings.Contains(l.text, "tok-4711-1") {
		t.Errorf("the secret is in the log:\n%s", l.text)
	}
}

// GitHub shows ten annotations and takes 1 MiB of summary: what is worst comes
// first, and the rest is counted.
func TestHuge(t *testing.T) {
	t.Parallel()
	r := open(t, map[string]string{"w.yml": workflow("push", "          file: pipeline.yaml\n"), "pipeline.yaml": `name: huge
functions:
  noisy:
    map: {range: 900}
    hardware: {threads_per_worker: 4}
    python: noise:make
`, "noise.py": `import hashlib, sys
def word(n):
    return "".join(chr(ord("a") + int(c, 16)) for c in hashlib.sha256(str(n).encode()).hexdigest()[:24])
def make(n):
    # One kind for a third of them, a hundred and fifty for the others; each prints 8 KiB.
    kind = "most of them" if n % 3 == 0 else word(n // 6)
    print("é|<b>` + "`" + `" * 1600, file=sys.stderr, flush=True)
    raise ValueError(kind)
`})
	l := r.run("push").want(t, false)
	if a := l.annotations(); len(a) != 10 || !strings.Contains(a[0], "300 × noisy") || !strings.Contains(a[9], "more of these") {
		t.Errorf("%d annotations: %.2000q", len(a), a)
	}
	s := l.summary(t)
	if len(s) > 1<<20 || len(s) < 200<<10 {
		t.Errorf("a summary of %d bytes", len(s))
	}
	if i, j := strings.Index(s, "300 × noisy"), strings.Index(s, "4 × noisy"); i < 0 || j < 0 || i > j {
		t.Errorf("the worst is at %d, the least at %d", i, j)
	}
	if !strings.Contains(s, "do not fit here") {
		t.Errorf("nothing is said of the rest:\n%.3000s", s)
	}
	if o := r.outputs(); o[1] != "failed" {
		t.Errorf("outputs %q", o)
	}
}
