package examples

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTaxi(t *testing.T) {
	t.Parallel()
	x := open(t, "nyc-taxi")
	x.apply(0).want(t, map[string]function{
		"process": {Status: "succeeded", Tasks: 4, Succeeded: 4},
		"report":  {Status: "succeeded", Tasks: 1, Succeeded: 1},
	})
	equal(t, "results", x.values("process"), []any{
		"processed/yellow_tripdata_2019-01.csv", "processed/yellow_tripdata_2019-02.csv",
		"processed/yellow_tripdata_2019-03.csv", "processed/yellow_tripdata_2019-04.csv",
	})
	kept := 0
	for _, r := range x.values("process") {
		lines := strings.Split(strings.TrimSuffix(x.read(r.(string)), "\n"), "\n")
		for _, line := range lines[1:] {
			if tip := strings.Split(line, ",")[13]; tip == "0.0" {
				t.Errorf("%s: a ride without a tip: %s", r, line)
			}
		}
		kept += len(lines) - 1
	}
	if page := x.read("report.html"); !strings.Contains(page, fmt.Sprintf("%d of 800 rides in 4 months", kept)) {
		t.Errorf("the report does not speak of %d of 800 rides:\n%s", kept, page)
	}

	// One month, chosen by parameters.
	r := x.apply(0, "--param", "years=2019", "--param", "months=02", "--param", "min_tip=5")
	equal(t, "tasks", r.Functions["process"].Tasks, 1)
	if page := x.read("report.html"); !strings.Contains(page, " of 200 rides in 1 months") {
		t.Errorf("the report is not about one month:\n%s", page)
	}
	// A year that is not there is a mistake, not an empty report.
	if code, _, stderr := x.run("apply", "pipeline.yaml", "--param", "years=1999"); code != 2 || !strings.Contains(stderr, "1999") {
		t.Errorf("no such year: exit code %d, want 2, and the pattern in\n%s", code, stderr)
	}
}

// TestTaxiRealMonths is the same pipeline over 24 real months with 10,000 rides each.
func TestTaxiRealMonths(t *testing.T) {
	t.Parallel()
	data := os.Getenv("NYC_TAXI_DATA")
	if data == "" {
		data = filepath.Join("..", "..", "shared", "data", "nyc-taxi")
	}
	data, err := filepath.Abs(data)
	if err != nil {
		t.Fatal(err)
	}
	months, err := filepath.Glob(filepath.Join(data, "yellow_tripdata_*.csv"))
	if err != nil || len(months) == 0 {
		t.Skipf("no real months in %s; NYC_TAXI_DATA names their folder", data)
	}
	x := open(t, "nyc-taxi")
	r := x.apply(0, "--param", "data="+data)
	equal(t, "process", r.Functions["process"], function{Status: "succeeded", Tasks: len(months), Succeeded: len(months)})
	rides := 0
	for _, month := range months {
		raw, err := os.ReadFile(month)
		if err != nil {
			t.Fatal(err)
		}
		rides += strings.Count(string(raw), "\n") - 1
	}
	if page := x.read("report.html"); !strings.Contains(page, fmt.Sprintf("of %s rides in %d months", thousands(rides), len(months))) {
		t.Errorf("the report does not speak of %d rides in %d months:\n%s", rides, len(months), page)
	}
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// TestGenerated makes the generated files again and compares.
func TestGenerated(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nyc-taxi", "nested-loops"} {
		x := open(t, name)
		python(t, x.dir, "make_data.py", "again")
		files, err := os.ReadDir(filepath.Join(x.dir, "data"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if x.read(filepath.Join("data", f.Name())) != x.read(filepath.Join("again", f.Name())) {
				t.Errorf("%s: data/%s is not what make_data.py writes", name, f.Name())
			}
		}
	}
	x := open(t, "diamond")
	python(t, x.dir, "make_pipeline.py", "again.yaml")
	if x.read("pipeline.yaml") != x.read("again.yaml") {
		t.Error("diamond: pipeline.yaml is not what make_pipeline.py writes")
	}
}

func python(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("python3", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("python3 %v: %v\n%s", args, err, out)
	}
}

func TestNestedLoops(t *testing.T) {
	t.Parallel()
	x := open(t, "nested-loops")
	x.apply(0).want(t, map[string]function{
		"score": {Status: "succeeded", Tasks: 60, Succeeded: 60},
		"best":  {Status: "succeeded", Tasks: 1, Succeeded: 1},
	})
	scores := x.results("score")
	// The last name of the matrix varies fastest.
	equal(t, "second item", scores[1].Item, any(map[string]any{"file": "data/calm.csv", "alpha": 0.1, "beta": 0.1}))
	highest := scores[0].Result.(map[string]any)
	for _, s := range scores {
		if r := s.Result.(map[string]any); r["score"].(float64) > highest["score"].(float64) {
			highest = r
		}
	}
	best := x.values("best")[0].(map[string]any)
	equal(t, "best", best["best"], any(highest))
	equal(t, "tried", best["tried"], any(60.0))
	equal(t, "files", len(best["per_file"].(map[string]any)), 3)
}

func TestDiamond(t *testing.T) {
	t.Parallel()
	x := open(t, "diamond")
	r := x.apply(0)
	equal(t, "functions", len(r.Functions), 40)
	for name, f := range r.Functions {
		equal(t, name, f, function{Status: "succeeded", Tasks: 1, Succeeded: 1})
	}
	equal(t, "ways", x.values("join_13"), []any{8192.0})
}

func TestSweep(t *testing.T) {
	t.Parallel()
	x := open(t, "sweep")
	x.apply(0).want(t, map[string]function{
		"sweep": {Status: "succeeded", Tasks: 52, Succeeded: 51, Failed: 1, Retries: 5},
		"table": {Status: "succeeded", Tasks: 1, Succeeded: 1},
	})
	results := x.results("sweep")
	for i, r := range results {
		attempts := 1
		if i%10 == 5 {
			attempts = 2
		}
		equal(t, fmt.Sprintf("attempts of sweep/%d", i), r.Attempts, attempts)
	}
	last := results[51]
	equal(t, "status of the last", last.Status, "failed")
	if last.Cause == nil || *last.Cause != "exit" {
		t.Errorf("cause of the last: %v, want exit", last.Cause)
	}
	equal(t, "one value", results[0].Result, any(map[string]any{"r": 2.5, "period": 1.0, "lowest": 0.6}))
	rows := strings.Split(strings.TrimSpace(x.read("table.csv")), "\n")
	equal(t, "header", rows[0], "r,period,lowest")
	equal(t, "rows", len(rows)-1, 51)
	if code, stdout, _ := x.run("why", "latest", "sweep/51"); code != 0 || !strings.Contains(stdout, "r = 4.03") {
		t.Errorf("why: exit code %d, and no word about r = 4.03:\n%s", code, stdout)
	}
}

func TestAnyLanguage(t *testing.T) {
	t.Parallel()
	x := open(t, "any-language")
	x.apply(0).want(t, map[string]function{
		"compile":     {Status: "succeeded", Tasks: 1, Succeeded: 1},
		"collatz":     {Status: "succeeded", Tasks: 8, Succeeded: 8},
		"python_says": {Status: "succeeded", Tasks: 8, Succeeded: 8},
		"compare":     {Status: "succeeded", Tasks: 1, Succeeded: 1},
	})
	equal(t, "steps", x.values("collatz"), []any{0.0, 1.0, 7.0, 2.0, 5.0, 8.0, 16.0, 3.0})
	language := x.values("compile")[0].(string)
	equal(t, "compare", x.values("compare"), []any{language + " and Python agree on 8 numbers"})
}

// TestAnyLanguageWithoutC hides the C compiler.
func TestAnyLanguageWithoutC(t *testing.T) {
	x := open(t, "any-language")
	bin := t.TempDir()
	for _, tool := range []string{"bash", "sh", "go", "python3", "mkdir", "diff"} {
		path, err := exec.LookPath(tool)
		if err == nil && tool == "python3" { // what is on PATH may be a script that needs more than this
			var out []byte
			out, err = exec.Command(path, "-c", "import sys; print(sys.executable)").Output()
			path = strings.TrimSpace(string(out))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOROOT", goEnv(t, "GOROOT")) // go finds it by its own path, which now is a link
	t.Setenv("PATH", bin)
	x.apply(0)
	equal(t, "language", x.values("compile"), []any{"Go"})
	equal(t, "compare", x.values("compare"), []any{"Go and Python agree on 8 numbers"})
}

func TestIncremental(t *testing.T) {
	t.Parallel()
	x := open(t, "incremental")
	x.apply(0).want(t, map[string]function{
		"count": {Status: "succeeded", Tasks: 4, Succeeded: 4},
		"total": {Status: "succeeded", Tasks: 1, Succeeded: 1},
	})
	equal(t, "total", x.read("total.txt"), "30 words in 4 texts\n")

	cached := map[string]function{
		"count": {Status: "succeeded", Tasks: 4, Succeeded: 4, Cached: 4},
		"total": {Status: "succeeded", Tasks: 1, Succeeded: 1, Cached: 1},
	}
	x.apply(0).want(t, cached)
	equal(t, "total of the second run", x.values("total"), []any{30.0})
	for _, r := range x.results("count") {
		equal(t, "attempts of a cached task", r.Attempts, 0)
	}

	x.write("texts/b.txt", x.read("texts/b.txt")) // a touch is not a change
	x.apply(0).want(t, cached)

	x.write("texts/b.txt", "one two three")
	changed := maps.Clone(cached)
	changed["count"] = function{Status: "succeeded", Tasks: 4, Succeeded: 4, Cached: 3}
	changed["total"] = function{Status: "succeeded", Tasks: 1, Succeeded: 1}
	x.apply(0).want(t, changed)
	equal(t, "total after a change", x.read("total.txt"), "25 words in 4 texts\n")
	if r := x.results("count")[1]; r.Attempts != 1 {
		t.Errorf("the changed text was attempted %d times, want 1", r.Attempts)
	}

	x.write("words.py", x.read("words.py")+"\n\ndef unused():\n    pass\n") // code is part of what a task is
	r := x.apply(0)
	equal(t, "cached after a change of code", r.Functions["count"].Cached, 0)
	r = x.apply(0, "--no-cache")
	equal(t, "cached with --no-cache", r.Functions["count"].Cached, 0)
}

func TestStream(t *testing.T) {
	t.Parallel()
	x := open(t, "stream")
	one := function{Status: "succeeded", Tasks: 1, Succeeded: 1}
	x.apply(0).want(t, map[string]function{
		"rates":    {Status: "succeeded", Tasks: 3, Succeeded: 3},
		"price":    {Status: "succeeded", Tasks: 4, Succeeded: 4},
		"receipt":  {Status: "succeeded", Tasks: 4, Succeeded: 4},
		"split":    {Status: "succeeded", Tasks: 4, Succeeded: 4},
		"ship":     {Status: "succeeded", Tasks: 7, Succeeded: 7},
		"complain": {Status: "skipped", Tasks: 1, Skipped: 1},
		"clean_up": one,
	})
	equal(t, "receipt", x.read("receipts/o-2.txt"), "o-2: 312.8 EUR\n")
	equal(t, "receipt in yen", x.read("receipts/o-3.txt"), "o-3: 63546 JPY\n")
	equal(t, "ship", x.values("ship"), []any{"shipped lamp", "shipped shade", "shipped chair", "shipped cushion",
		"shipped screws", "shipped desk", "shipped rug"})
	if x.exists("failure.txt") {
		t.Error("there was no failure, but complain has written failure.txt")
	}

	r := x.apply(1, "--param", "broken=true")
	equal(t, "price", r.Functions["price"], function{Status: "failed", Tasks: 4, Succeeded: 3, Failed: 1})
	equal(t, "complain", r.Functions["complain"], one)
	equal(t, "clean_up", r.Functions["clean_up"], one)
	equal(t, "failure.txt", x.read("failure.txt"), "price: failed, 1 failed; ship: succeeded\n")
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	x := open(t, "hostile-names")
	r := x.apply(0)
	equal(t, "tasks", r.Functions["in_shell"].Tasks, 26)
	equal(t, "check", x.values("check"), []any{map[string]any{"names": 26.0, "ways": 3.0}})
	if x.exists("pwned") {
		t.Error("a file name was executed")
	}
}
