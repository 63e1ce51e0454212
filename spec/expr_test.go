package spec

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// exprAt gives positions in a one-line file.
func exprAt(off int) Pos { return Pos{File: "p.yaml", Line: 1, Col: off + 1} }

// fullScope allows everything.
func fullScope() *Scope {
	return &Scope{
		Params:   map[string]string{"year": "int", "name": "string", "tip": "float", "on": "bool", "list": ""},
		Env:      []string{"MODE"},
		Needs:    []string{"clean", "one"},
		NeedsAll: []string{"clean", "one", "other"},
		NeedsMapped: map[string]bool{
			"clean": true, "one": false,
		},
		Item: true, Index: true, Count: true, Run: true, Failure: true, Status: true,
	}
}

func testFile(name string) *value.File {
	return value.NewLocalFile("data/"+name, "/w/data/"+name, 1234, time.Date(2024, 5, 6, 0, 0, 0, 0, time.UTC))
}

func fullEnv(item any) *Env {
	list := func(v ...any) func() ([]any, error) { return func() ([]any, error) { return v, nil } }
	return &Env{
		Params: map[string]any{"year": 2019, "name": "a b", "tip": 0.5, "on": true, "list": []any{1, 2}},
		Env:    map[string]string{"MODE": "fast"},
		Item:   item, HasItem: true, Index: 3, Count: 10,
		Run: &RunInfo{ID: "r1", Started: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)},
		Needs: map[string]*NeedsInfo{
			"clean": {Status: "succeeded", Count: 3, Failed: 1, Mapped: true, Results: list(1, nil, map[string]any{"n": 5})},
			"one":   {Status: "succeeded", Count: 1, Results: list(map[string]any{"score": 0.9})},
		},
		Failure: &FailureInfo{ExitCode: 137, Signal: "SIGKILL", Cause: "signal", Attempt: 2, Stderr: "oops\n"},
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	file := testFile("a b.csv.gz")
	row := value.NewObject([]string{"z", "a", "in"}, []any{1, "x", value.NewObject([]string{"k", "b"}, []any{2, file})})
	files := []any{testFile("a.csv"), testFile("b.txt")}
	tests := []struct {
		src  string
		item any
		want string // as text
	}{
		{`params.year + 1`, nil, "2020"},
		{`params["year"]`, nil, "2019"},
		{`params.name + "!"`, nil, "a b!"},
		{`params.tip * 2`, nil, "1"},
		{`params.list[1]`, nil, "2"},
		{`len(params)`, nil, "5"},
		{`params[params.name] == nil`, nil, "true"},
		{`env.MODE`, nil, "fast"},
		{`keys(env)`, nil, `["MODE"]`},
		{`index + count`, nil, "13"},
		{`count([1, 2, 3], # > 1)`, nil, "2"},
		{`run.id + "-" + string(index)`, nil, "r1-3"},
		{`run.started.Year()`, nil, "2024"},
		{`run.started`, nil, "2024-01-01T00:00:00Z"},
		{`run.scheduled`, nil, "null"},
		{`run.scheduled == nil`, nil, "true"},
		{`needs.clean.count`, nil, "3"},
		{`needs.clean.failed`, nil, "1"},
		{`needs.clean.status`, nil, "succeeded"},
		{`needs.clean.results`, nil, `[1,null,{"n":5}]`},
		{`needs.clean.results[2].n`, nil, "5"},
		{`filter(needs.clean.results, # != nil)`, nil, `[1,{"n":5}]`},
		{`len(needs.clean.results)`, nil, "3"},
		{`needs.one.result.score`, nil, "0.9"},
		{`needs.one.result["score"] > 0.5`, nil, "true"},
		{`needs.one.results`, nil, `[{"score":0.9}]`},
		{`exit_code != 2 and attempt < 3 and stderr contains "oops"`, nil, "true"},
		{`success() && !failure() && always()`, nil, "true"},

		{`item`, file, "data/a b.csv.gz"},
		{`item.name`, file, "a b.csv.gz"},
		{`item.stem + item.ext`, file, "a b.csv.gz"},
		{`item.size > 1000`, file, "true"},
		{`item + ".x"`, file, "data/a b.csv.gz.x"},
		{`"x" + item`, file, "xdata/a b.csv.gz"},
		{`item endsWith ".gz"`, file, "true"},
		{`item matches "csv"`, file, "true"},
		{`item == "data/a b.csv.gz"`, file, "true"},
		{`item in ["data/a b.csv.gz"]`, file, "true"},
		{`upper(item)`, file, "DATA/A B.CSV.GZ"},
		{`item | split("/") | last()`, file, "a b.csv.gz"},
		{`len(item)`, file, "15"},
		{`item[0:4]`, file, "data"},
		{`[item[:2], item[2:], item[-4:], item[:len(item) - 4], item[1:1], item[3:2], item[9:], item[0], item[-1], item[5]]`, "né\xff.csv",
			`["né","\udcff.csv",".csv","né\udcff","","","","n","v","s"]`},
		{`"é.csv"[:1] + params.name[1:] + params.name[-1:]`, nil, "é bb"},
		{`item[1:] == [2, 3] and item[:-1][0] == 1`, []any{1, 2, 3}, "true"},
		{`let f = item; f.size + len(f)`, file, "1249"},
		{`basename(item) + dirname(item)`, file, "a b.csv.gzdata"},
		{`stem("x/y.tar.gz") + ext("y.tar.gz")`, file, "y.tar.gz"},
		{`item.modified > date("2024-01-01")`, file, "true"},
		{`item.modified.Year()`, file, "2024"},
		{`get(item, "size")`, file, "1234"},
		{`item?.size`, file, "1234"},
		{`string(item)`, file, "data/a b.csv.gz"},
		{`type(item)`, file, "string"},
		{`[item, 1]`, file, `["data/a b.csv.gz",1]`},
		{`{"f": item}`, file, `{"f":"data/a b.csv.gz"}`},
		{`params.on ? item : 1`, file, "data/a b.csv.gz"},
		{`item ?? "x"`, nil, "x"},

		{`item`, row, `{"z":1,"a":"x","in":{"k":2,"b":"data/a b.csv.gz"}}`},
		{`item.in`, row, `{"k":2,"b":"data/a b.csv.gz"}`},
		{`[item.in][0]`, row, `{"k":2,"b":"data/a b.csv.gz"}`},
		{`item.z + item["in"].k`, row, "3"},
		{`item["z"]`, row, "1"},
		{`keys(item) | sort()`, row, `["a","in","z"]`},
		{`keys(item)`, row, `["z","a","in"]`},
		{`values(item.in)`, row, `[2,"data/a b.csv.gz"]`},
		{`toPairs(item.in)`, row, `[["k",2],["b","data/a b.csv.gz"]]`},
		{`keys({"d": 1, "b": 1, "a": 1, "c": 1})`, row, `["a","b","c","d"]`},
		{`keys(groupBy([3, 1, 10, 2.5, 1], #))`, nil, `[1,2.5,3,10]`},
		{`let g = groupBy([2019, 2020, 2019], #); map(keys(g), len(g[#]))`, nil, `[2,1]`},
		{`let g = fromPairs([["b", 1], [2, "x"], [true, 3]]); map(keys(g), g[#])`, nil, `["x",1,3]`},
		{`filter(keys(groupBy([2019, 2020], #)), # > 2019)`, nil, `[2020]`},
		{`toPairs(groupBy([2, 1, 2], #))`, nil, `[[1,[1]],[2,[2,2]]]`},
		{`values(groupBy([3, 4, 5], # > 3))`, nil, `[[3],[4,5]]`},
		{`keys(params)`, row, `["list","name","on","tip","year"]`},
		{`flatten([[item.in], [1, ["x"]], split("a,b", ",")])`, row, `[{"k":2,"b":"data/a b.csv.gz"},1,"x","a","b"]`},
		{`flatten([[item.in.b]])[0].size`, row, "1234"},
		{`string(item.in) + string([1, nil]) + string(nil)`, row, `{"k":2,"b":"data/a b.csv.gz"}[1,null]null`},
		{`toJSON(item.in)`, row, "{\n  \"k\": 2,\n  \"b\": \"data/a b.csv.gz\"\n}"},
		{`toJSON(item)`, "<\xff>", `"<\udcff>"`},
		{`fromJSON("{\"z\": 1, \"a\": [2.50, 12345678901234567890]}")`, row, `{"z":1,"a":[2.5,12345678901234567890]}`},
		{`fromJSON("[1]")[0] + 1`, row, "2"},
		{`[item.n]`, value.NewObject([]string{"n"}, []any{value.Number("12345678901234567890")}), "[12345678901234567890]"},
		{`item.in.b.size`, row, "1234"},
		{`item.in.b + "!"`, row, "data/a b.csv.gz!"},
		{`"z" in item`, row, "true"},
		{`"q" in item`, row, "false"},
		{`len(item)`, row, "3"},
		{`item.nope`, row, "null"},
		{`item.nope ?? 7`, row, "7"},
		{`item.nope?.deeper.still ?? 7`, row, "7"},
		{`get(item, "nope") ?? 8`, row, "8"},
		{`toJSON(item.in)`, value.NewObject([]string{"in"}, []any{files}), "[\n  \"data/a.csv\",\n  \"data/b.txt\"\n]"},

		{`map(item, # + "!")`, files, `["data/a.csv!","data/b.txt!"]`},
		{`map(item, .name)`, files, `["a.csv","b.txt"]`},
		{`filter(item, # endsWith ".csv")`, files, `["data/a.csv"]`},
		{`filter(item, # endsWith ".csv")[0].size`, files, `1234`},
		{`item[1].name + item[-1].ext`, files, `b.txt.txt`},
		{`join(item, " ")`, files, `data/a.csv data/b.txt`},
		{`sum(item, .size)`, files, `2468`},
		{`"data/a.csv" in item`, files, `true`},
		{`item == ["data/a.csv", "data/b.txt"]`, files, `true`},
		{`first(item).name`, files, `a.csv`},
		{`groupBy(item, #)`, files, `{"data/a.csv":["data/a.csv"],"data/b.txt":["data/b.txt"]}`},
		{`sortBy(item, #, "desc")`, files, `["data/b.txt","data/a.csv"]`},
		{`reduce(item, #acc + #.size, 0)`, files, `2468`},
		{`1..3`, nil, `[1,2,3]`},
		{`split("a,b", ",")`, nil, `["a","b"]`},
		{`"}}" + "${{"`, nil, `}}${{`},
		{`duration("90s")`, nil, `1m30s`},
	}
	for _, tt := range tests {
		e, problems := CompileExpr(tt.src, exprAt, fullScope())
		if len(problems) > 0 {
			t.Errorf("%s: %v", tt.src, problems)
			continue
		}
		for range 2 { // the second time with a used runner
			got, err := e.Eval(fullEnv(tt.item))
			if err != nil {
				t.Errorf("%s: %v", tt.src, err)
			} else if s := value.Text(got); s != tt.want {
				t.Errorf("%s = %s, want %s", tt.src, s, tt.want)
			}
		}
	}
}

func TestEvalErrors(t *testing.T) {
	t.Parallel()
	row := value.NewObject([]string{"a"}, []any{"x"})
	tests := []struct {
		src  string
		item any
		want string
	}{
		{`item.siez`, testFile("a"), `${{ item.siez }}: a file has no field "siez" (did you mean "size"?); there are path, uri, name, stem, ext, dir, size, modified, etag, bucket, key`},
		{`item.a > 3`, row, `${{ item.a > 3 }}: invalid operation: string > int: int(...) or float(...) makes a number of text, string(...) text of a number`},
		{`item.b.c`, row, `${{ item.b.c }}: item.b is null, it has no field "c"`},
		{`(item.b).c + 1`, row, `${{ (item.b).c + 1 }}: null has no field c`},
		{`upper(item.a) + upper(item.n)`, row, `${{ upper(item.a) + upper(item.n) }}: null where text is needed`},
		{`needs.clean.result`, nil, `${{ needs.clean.result }}: clean has a map, so it has many results: use needs.clean.results`},
		{`keys(item.a)`, row, `${{ keys(item.a) }}: keys() needs a mapping, not the text "x"`},
		{`flatten(item)`, row, `${{ flatten(item) }}: flatten() needs a list, not a mapping`},
		{`fromJSON(item.a)`, row, `${{ fromJSON(item.a) }}: fromJSON() got text that is not JSON at byte 1: unexpected 'x'`},
		{`item.a[5]`, row, `${{ item.a[5] }}: index out of range: 5 (the length of the text is 1)`},
		{`item[1:]`, row, `${{ item[1:] }}: [from:to] needs text or a list, not a mapping`},
		{`basename(index)`, nil, `${{ basename(index) }}: basename() needs a file or text, not the number 3`},
		{`all(1..20000000, true)`, nil, `${{ all(1..20000000, true) }}: memory budget exceeded`},
		{`let a = 1..1000; all(a, all(a, all(a, all(a, true))))`, nil, `${{ let a = 1..1000; all(a, all(a, all(a, all(a, true)))) }}: ` + errBudget.Error()},
		{`len(reduce(1..100000, #acc + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx", ""))`, nil, `${{ len(reduce(1..100000, #acc + "xxxxxxxxxxxxxxxxxxxxxxxxxxx... }}: ` + errBudget.Error()},
		{`item.a.b`, value.NewObject([]string{"a"}, []any{1}), `${{ item.a.b }}: the number 1 has no element b`},
		{`item.modified.Year`, testFile("a"), `${{ item.modified.Year }}: this is a function, () is missing behind it`},
		{`item.modified.Yaer()`, testFile("a"), `${{ item.modified.Yaer() }}: a time has no element Yaer`},
		{`[1][5]`, nil, `${{ [1][5] }}: index out of range: 5 (array length is 1)`},
	}
	sc := fullScope()
	sc.NeedsMapped = nil
	for _, tt := range tests {
		e, problems := CompileExpr(tt.src, exprAt, sc)
		if len(problems) > 0 {
			t.Errorf("%s: %v", tt.src, problems)
			continue
		}
		if got, err := e.Eval(fullEnv(tt.item)); err == nil || err.Error() != tt.want {
			t.Errorf("%s\n got %v, %v\nwant %s", tt.src, got, err, tt.want)
		}
	}
}

func TestCompileProblems(t *testing.T) {
	t.Parallel()
	empty := &Scope{Params: map[string]string{}, NoEnv: true}
	tests := []struct {
		src  string
		sc   *Scope
		want string
	}{
		{`params.yeer`, nil, `p.yaml:1:1: unknown parameter params.yeer (did you mean "year"?)`},
		{`1 + params.yeer`, nil, `p.yaml:1:5: unknown parameter params.yeer (did you mean "year"?)`},
		{`params.x`, empty, `p.yaml:1:1: unknown parameter params.x; the file declares no params`},
		{`é + params.zzz`, nil, `p.yaml:1:1: unknown name "é"; text needs quotes, names are params, env, item, index, count, run, needs, attempt, cause, exit_code, signal, stderr
p.yaml:1:6: unknown parameter params.zzz; there are list, name, on, tip, year`},
		{`env.MOD`, nil, `p.yaml:1:1: unknown variable env.MOD (did you mean "MODE"?); env in expressions is the env of the pipeline file, not the caller's`},
		{`env.HOSTNAME`, nil, `p.yaml:1:1: unknown variable env.HOSTNAME; env in expressions is the env of the pipeline file, not the caller's`},
		{`itm.size`, nil, `p.yaml:1:1: unknown name "itm" (did you mean "item"?)`},
		{`year`, nil, `p.yaml:1:1: unknown name "year" (did you mean params.year?)`},
		{`clean`, nil, `p.yaml:1:1: unknown name "clean" (did you mean needs.clean.result?)`},
		{`basename`, nil, `p.yaml:1:1: unknown name "basename" (it is a function: basename(...))`},
		{`run`, nil, `p.yaml:1:1: run alone is not a value: use run.id, run.started or run.scheduled`},
		{`run.strated`, nil, `p.yaml:1:1: unknown field run.strated (did you mean "started"?); there are id, started and scheduled`},
		{`needs`, nil, `p.yaml:1:1: needs alone is not a value: use needs.<function>.result, .results, .count, .failed or .status`},
		{`needs.clean`, nil, `p.yaml:1:1: needs.clean alone is not a value: use needs.clean.result, .results, .count, .failed or .status`},
		{`len(needs.clean)`, nil, `p.yaml:1:5: needs.clean alone is not a value: use needs.clean.result, .results, .count, .failed or .status`},
		{`needs.clean.result`, nil, `p.yaml:1:1: needs.clean.result: clean has a map, so it has many results: use needs.clean.results`},
		{`needs.clean.resluts`, nil, `p.yaml:1:1: unknown field needs.clean.resluts (did you mean "results"?); there are result, results, count, failed and status`},
		{`needs.other.count + 1`, nil, `p.yaml:1:1: needs.other: "other" is not in needs: add other to the needs of this function`},
		{`needs.claen.count`, nil, `p.yaml:1:1: needs.claen: "claen" is not in needs (did you mean "clean"?)`},
		{`needs[params.name].count`, nil, `p.yaml:1:1: needs alone is not a value: use needs.<function>.result, .results, .count, .failed or .status`},
		{`item`, empty, `p.yaml:1:1: there is no item here: item belongs to a function with map, and to where`},
		{`run.id`, empty, `p.yaml:1:1: there is no run here: run is known when the run starts`},
		{`exit_code`, empty, `p.yaml:1:1: there is no exit_code here: exit_code belongs to retries.when`},
		{`env.X`, empty, `p.yaml:1:1: env cannot be used here`},
		{`success()`, empty, `p.yaml:1:1: success() can only be used in if`},
		{`succes()`, nil, `p.yaml:1:1: unknown function succes() (did you mean "success"?)`},
		{`always(1)`, nil, `p.yaml:1:1: always() takes no arguments`},
		{`basenam(item)`, nil, `p.yaml:1:1: unknown function basenam() (did you mean "basename"?)`},
		{`params.name + 1`, nil, `p.yaml:1:13: invalid operation: + (mismatched types string and int): int(...) or float(...) makes a number of text, string(...) text of a number`},
		{`let item = 1; item`, nil, `p.yaml:1:5: let item: the name item is taken, use another`},
		{`$env.item`, nil, `p.yaml:1:1: unknown name "$env" (did you mean "env"?)`},
		{``, nil, `p.yaml:1:1: the expression is empty`},
		{`1 +`, nil, `p.yaml:1:3: the expression ends too early`},
		{`"abc`, nil, `p.yaml:1:5: literal not terminated`},
		{`item.`, nil, `p.yaml:1:5: the expression ends too early`},
		{`1 2`, nil, `p.yaml:1:3: unexpected token Number("2")`},
		{`item matches "("`, nil, "p.yaml:1:6: error parsing regexp: missing closing ): `(`"},
		{strings.Repeat("(", 1<<20), nil, `p.yaml:1:1: the expression has 1048576 bytes, 65536 is the limit: compute it in a script`},
		{strings.Repeat("(", 60000), nil, `p.yaml:1:1: the expression is nested deeper than 200 levels`},
		{strings.Repeat("!", 60000) + "true", nil, `p.yaml:1:1: the expression is nested deeper than 200 levels`},
		{"-" + strings.Repeat("not ", 10000) + "true", nil, `p.yaml:1:1: the expression is nested deeper than 200 levels`},
	}
	for _, tt := range tests {
		sc := tt.sc
		if sc == nil {
			sc = fullScope()
		}
		e, problems := CompileExpr(tt.src, exprAt, sc)
		if got := problems.Error(); got != tt.want || e != nil {
			t.Errorf("%.60s\n got %s\nwant %s", tt.src, got, tt.want)
		}
	}
}

func TestItemShapes(t *testing.T) {
	t.Parallel()
	grid := &Shape{Keys: map[string]*Shape{"file": {File: true}, "lr": nil}}
	tests := []struct {
		src   string
		shape *Shape
		want  string // "" is fine
	}{
		{`item.size`, &Shape{File: true}, ""},
		{`item.siez`, &Shape{File: true}, `p.yaml:1:6: a file has no field "siez" (did you mean "size"?)`},
		{`1 + item.siez`, &Shape{File: true}, `p.yaml:1:10: a file has no field "siez" (did you mean "size"?)`},
		{`item.modified.Year()`, &Shape{File: true}, ""},
		{`item.lr`, grid, ""},
		{`item.file.size`, grid, ""},
		{`item.lrr`, grid, `p.yaml:1:6: the item has no key "lrr" (did you mean "lr"?); there are file, lr`},
		{`item?.lrr`, grid, ""},
		{`item.file.szie`, grid, `p.yaml:1:11: a file has no field "szie" (did you mean "size"?)`},
		{`item[0].size`, &Shape{List: &Shape{File: true}}, ""},
		{`item[0].sizes`, &Shape{List: &Shape{File: true}}, `p.yaml:1:9: a file has no field "sizes" (did you mean "size"?)`},
		{`item.size`, &Shape{List: &Shape{File: true}}, `p.yaml:1:6: the item is a list (of a batch), it has no field "size"; use item[0].size, or map(item, #.size)`},
		{`item.path`, &Shape{Text: true}, `p.yaml:1:6: the item is text, it has no field "path"`},
	}
	for _, tt := range tests {
		sc := fullScope()
		sc.ItemShape = tt.shape
		_, problems := CompileExpr(tt.src, exprAt, sc)
		got := problems.Error()
		got, _, _ = strings.Cut(got, "; there are path")
		if got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.src, got, tt.want)
		}
	}
}

func TestResultsAreLazy(t *testing.T) {
	t.Parallel()
	calls := 0
	limit := errors.New("the results of clean have 70 MiB: read $COILED_JOBS_NEEDS/clean.jsonl")
	env := fullEnv(nil)
	env.Needs["clean"].Results = func() ([]any, error) { calls++; return nil, limit }
	e, problems := CompileExpr(`needs.clean.failed > 0 ? 0 : len(needs.clean.results)`, exprAt, fullScope())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if v, err := e.Eval(env); v != 0 || err != nil || calls != 0 {
		t.Errorf("got %v, %v after %d calls", v, err, calls)
	}
	env.Needs["clean"].Failed = 0
	if _, err := e.Eval(env); !errors.Is(err, limit) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

func TestRefs(t *testing.T) {
	t.Parallel()
	e, problems := CompileExpr(`params.year + needs.clean.count + len(env.MODE) + index + item.size + len(run.id) + params.tip`, exprAt, fullScope())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Refs{Params: []string{"tip", "year"}, Needs: []string{"clean"}, EnvVars: []string{"MODE"}, Env: true, Item: true, Index: true, Run: true}
	if diff := cmp.Diff(want, e.Refs()); diff != "" {
		t.Error(diff)
	}
	if e.Refs().Static() || !(Refs{Params: []string{"x"}, Env: true}).Static() {
		t.Error("Static is wrong")
	}
}

func TestConcurrentEval(t *testing.T) {
	t.Parallel()
	e, _ := CompileExpr(`item.size + sum(map(1..10, # * index))`, exprAt, fullScope())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			env := fullEnv(testFile("a"))
			env.Index = i
			for range 200 {
				if v, err := e.Eval(env); err != nil || v != 1234+55*i {
					t.Errorf("got %v, %v", v, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkWhere(b *testing.B) {
	for _, src := range []string{`item.size > 0`, `item.name endsWith ".csv" and item.size > 10`, `item.size`} {
		b.Run(src, func(b *testing.B) {
			e, problems := CompileExpr(src, exprAt, fullScope())
			if len(problems) > 0 {
				b.Fatal(problems)
			}
			env := fullEnv(testFile("a.csv"))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Eval(env); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, problems := CompileExpr(`item.size > 0 and params.year == 2019`, exprAt, fullScope()); len(problems) > 0 {
			b.Fatal(problems)
		}
	}
}

// No expression panics or hangs, compiled or evaluated.
func FuzzExpr(f *testing.F) {
	for _, s := range []string{`item.size > 0`, `map(item, # + "x")`, `let a = 1..9; all(a, any(a, # > #acc))`, `needs.clean.results[0]?.x ?? {"a": [1]}`,
		`item | split("/") | last()`, `"${{" + '}}'`, `params.year in 1..3 ? date("2024-01-01") : -item[1:]`, `groupBy(item, .a)`, `$env`, `((((`} {
		f.Add(s)
	}
	items := []any{nil, 1, "x", testFile("a"), []any{testFile("a"), nil, 2}, value.NewObject([]string{"a"}, []any{[]any{1}})}
	f.Fuzz(func(t *testing.T, src string) {
		e, problems := CompileExpr(src, exprAt, fullScope())
		if (e == nil) != (len(problems) > 0) {
			t.Fatalf("%v with %v", e, problems)
		}
		CompileCondition(src, exprAt, fullScope())
		if e == nil {
			return
		}
		for _, item := range items {
			v, err := e.Eval(fullEnv(item))
			if err == nil {
				value.Text(v)
			}
		}
	})
}
