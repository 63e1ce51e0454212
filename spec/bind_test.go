package spec

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/value"
)

func mustBind(t *testing.T, src string, opts BindOptions) *Pipeline {
	t.Helper()
	doc, ps := Parse([]byte(src), "p.yaml")
	if err := ps.Err(); err != nil {
		t.Fatalf("parse: %v", err)
	}
	p, ps := doc.Bind(opts)
	if err := ps.Err(); err != nil {
		t.Fatalf("bind: %v", err)
	}
	return p
}

func loadEverything(t *testing.T) *Pipeline {
	t.Helper()
	src, err := os.ReadFile("testdata/valid/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return mustBind(t, string(src), BindOptions{})
}

func envTexts(t *testing.T, vars []EnvVar, env *Env) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, v := range vars {
		s, err := v.Value.Text(env)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if _, twice := out[v.Name]; twice {
			t.Errorf("%s is there twice", v.Name)
		}
		out[v.Name] = s
	}
	return out
}

func TestBindPipeline(t *testing.T) {
	t.Parallel()
	p := loadEverything(t)
	if p.Name != "everything" || p.Description != "all of it" || p.Cloud != "local" || p.EnvFile != ".env" || p.Retention != 60*24*time.Hour {
		t.Errorf("got %q %q %q %q %v", p.Name, p.Description, p.Cloud, p.EnvFile, p.Retention)
	}
	wantParams := map[string]any{"year": 2019, "ratio": 0.5, "dry": false, "code": "010", "version": "1.10", "day": "2024-01-02",
		"mode": "fast", "threshold": 3.0, "n": 4, "wait": "10m"}
	if diff := cmp.Diff(wantParams, p.Params); diff != "" {
		t.Errorf("params (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(Limits{NoCost: true, Duration: 90 * time.Minute, Machines: 10, VCPUs: 40, Unattended: 30 * time.Minute}, p.Limits); diff != "" {
		t.Errorf("limits (-want +got)\n%s", diff)
	}
	for i := range p.Schedules {
		p.Schedules[i].Pos = Pos{}
	}
	if diff := cmp.Diff([]Schedule{
		{Cron: "0 2 * * *", Timezone: "Europe/Berlin", Overlap: "queue", Catchup: "all", Deadline: time.Hour, Jitter: 5 * time.Minute,
			Params: map[string]string{"year": "2020"}, Paused: true},
		{Cron: "@daily", Timezone: "UTC", Overlap: "skip", Catchup: "latest"},
	}, p.Schedules); diff != "" {
		t.Errorf("schedules (-want +got)\n%s", diff)
	}
	if len(p.Notify) != 2 || p.Notify[0].Format != "slack" || p.Notify[1].Format != "json" ||
		strings.Join(p.Notify[0].On, " ") != "failure success missed" || strings.Join(p.Notify[1].On, " ") != "failure" {
		t.Errorf("notify %+v", p.Notify)
	}
	if url, err := p.Notify[0].Webhook.Text(&Env{Params: p.Params}); err != nil || url != "https://example.com/2019" {
		t.Errorf("webhook %q, %v", url, err)
	}
	env, err := p.EnvFor(&RunInfo{ID: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"LEVEL": "debug", "NUMBER": "010", "YEAR": "2019", "RUN_ID": "r1"}, env); diff != "" {
		t.Errorf("env (-want +got)\n%s", diff)
	}
}

func TestBindFunction(t *testing.T) {
	t.Parallel()
	p := loadEverything(t)
	f := p.Function("globbed")
	item := []any{value.NewLocalFile("data/a.csv", "/x/data/a.csv", 5, time.Time{})}
	env := &Env{Params: p.Params, Item: item, HasItem: true, Run: &RunInfo{ID: "r1"}}

	if diff := cmp.Diff(map[string]string{"LEVEL": "trace", "FIRST": "a", "COMMON": "x", "NUMBER": "010", "YEAR": "2019", "RUN_ID": "r1"},
		envTexts(t, f.Env, env)); diff != "" {
		t.Errorf("env (-want +got)\n%s", diff)
	}
	var args []string
	for _, v := range f.Command {
		s, err := v.Text(env)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, s)
	}
	if diff := cmp.Diff([]string{"python", "main.py", "data/a.csv", "010", "yes"}, args); diff != "" {
		t.Errorf("command (-want +got)\n%s", diff)
	}
	var secrets []string
	for _, s := range f.Secrets {
		secrets = append(secrets, s.Name+"="+s.Ref)
	}
	if diff := cmp.Diff([]string{"TOKEN=", "PASSWORD=ssm:/prod/password", "KEY=secretsmanager:key", "OTHER="}, secrets); diff != "" {
		t.Errorf("secrets (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(Hardware{Set: true, VMTypes: []string{"m6i.large", "m6i.xlarge"}, ARM: true, DiskGB: 100, Region: "us-east-1", SpotPolicy: "spot",
		Workers: [2]int{5, 5}, Threads: -1, IdleTimeout: 5 * time.Minute, MaxLife: 48 * time.Hour, Tags: map[string]string{"team": "data", "part": "a"},
		AMI: "ami-1", Subnet: "subnet-1", SecurityGroup: "sg-1", InstanceProfile: "worker", Name: "big"}, f.Hardware); diff != "" {
		t.Errorf("hardware (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(Software{Container: "python:3.12", Setup: "echo"}, f.Software); diff != "" {
		t.Errorf("software (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(Files{Include: []string{"lib/**"}, Exclude: []string{"data/**"}}, f.Files); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
	when := f.Retries.When
	f.Retries.When = nil
	if diff := cmp.Diff(Retries{Max: 3, Delay: 2 * time.Second, Backoff: "fibonacci", MaxDelay: 5 * time.Minute, Jitter: 0.2, Machine: 3, OOMMax: 2, OOMMemory: 1.5}, f.Retries); diff != "" {
		t.Errorf("retries (-want +got)\n%s", diff)
	}
	again := &Env{Params: p.Params, Failure: &FailureInfo{ExitCode: 3, Cause: "exit"}}
	if ok, err := when.Bool(again); err != nil || !ok {
		t.Errorf("when: %v, %v", ok, err)
	}
	if f.Timeout != 24*time.Hour || f.Expect != 10*time.Minute || f.Concurrency != 4 || !f.OnFailureStop || f.Result != ResultJSON ||
		f.MaxFailures.Of(119) != 5 || f.Description != "many files" || len(f.Outputs) != 2 || f.Cache == nil || len(f.Cache.Files) != 1 {
		t.Errorf("got %+v", f)
	}
	m := f.Map
	if m.Form != FormGlob || len(m.Glob) != 2 || len(m.Exclude) != 1 || !m.AllowEmpty || !m.Anonymous || m.RequesterPays ||
		m.Where == nil || m.Limit != 100 || m.Sort != "size" || !m.Desc || m.Batch != (Batch{Items: 10, Bytes: 1 << 30}) {
		t.Errorf("map %+v", m)
	}
	if g, err := m.Glob[1].Text(env); err != nil || g != "more/2019/*.csv" {
		t.Errorf("glob %q, %v", g, err)
	}
}

func TestBindDefaults(t *testing.T) {
	t.Parallel()
	p := loadEverything(t)
	f := p.Function("short")
	if f.Retries.Max != 2 || f.Timeout != 10*time.Minute || f.Map.Form != FormGlob || f.Map.Limit != -1 || f.Result != ResultStdout || f.MaxFailures.Of(1000) != 3 {
		t.Errorf("got %+v", f)
	}
	if got := strings.Join(f.Run.Shell, " "); got != "sh -eu" {
		t.Errorf("shell %q", got)
	}
	gib := int64(1 << 30)
	if lo, hi := f.Hardware.Memory[0], f.Hardware.Memory[1]; lo > 8*gib*9/10 || lo < 8*gib*9/10-1 || hi < 8*gib*11/10 || hi > 8*gib*11/10+1 {
		t.Errorf("memory %d to %d is not 8 GiB within 10%%", lo, hi)
	}
	if f.Cache != nil || f.Concurrency != 0 || f.OnFailureStop || f.If != nil {
		t.Errorf("got %+v", f)
	}
	// A default memory has no place beside an instance type.
	if m := p.Function("globbed").Hardware.Memory; m != [2]int64{} {
		t.Errorf("memory %v beside vm_type", m)
	}
	lit := p.Function("literal").Hardware
	if lit.CPU != [2]float64{2, 4} || lit.Memory != [2]int64{4 * gib, 8 * gib} || lit.GPU != 1 || lit.GPUModel != "T4" {
		t.Errorf("hardware %+v", lit)
	}
	plain := mustBind(t, "name: x\nfunctions: {a: {run: echo}}", BindOptions{}).Functions[0]
	if diff := cmp.Diff(Hardware{SpotPolicy: "spot_with_fallback", Workers: [2]int{0, 500}, IdleTimeout: 10 * time.Minute, KeepAlive: 30 * time.Second, MaxLife: 24 * time.Hour}, plain.Hardware); diff != "" {
		t.Errorf("hardware (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(Retries{Delay: time.Second, Backoff: "exponential", MaxDelay: time.Minute, Jitter: 0.1, Machine: 10, OOMMemory: 2}, plain.Retries); diff != "" {
		t.Errorf("retries (-want +got)\n%s", diff)
	}
}

// A default of what a function does not have, or needs itself, is left out.
func TestBindDefaultsThatDoNotApply(t *testing.T) {
	t.Parallel()
	p := mustBind(t, `
name: x
defaults: {needs: setup, shell: sh, python_bin: python3.11, args: [1], secrets: [A], env: {X: "1", Y: "2"}}
functions:
  setup: {run: echo}
  py: {python: "a:b", secrets: [B], env: {Y: "3"}}
`, BindOptions{})
	setup, py := p.Function("setup"), p.Function("py")
	if len(setup.Needs) != 0 || strings.Join(py.Needs, " ") != "setup" {
		t.Errorf("needs %v, %v", setup.Needs, py.Needs)
	}
	if strings.Join(setup.Run.Shell, " ") != "sh" || py.Python.Bin != "python3.11" || len(py.Python.Args) != 1 {
		t.Errorf("got %+v and %+v", setup.Run, py.Python)
	}
	if len(setup.Secrets) != 1 || len(py.Secrets) != 2 {
		t.Errorf("secrets %v, %v", setup.Secrets, py.Secrets)
	}
	if diff := cmp.Diff(map[string]string{"X": "1", "Y": "3"}, envTexts(t, py.Env, &Env{})); diff != "" {
		t.Errorf("env (-want +got)\n%s", diff)
	}
}

func TestBindItems(t *testing.T) {
	t.Parallel()
	p := loadEverything(t)
	v, err := p.Function("literal").Map.Items.Eval(&Env{})
	if err != nil {
		t.Fatal(err)
	}
	got := string(value.JSON(v))
	if want := `[1,"010","1.10","2","yes",null,true,{"a":1,"b":"x"}]`; got != want {
		t.Errorf("items %s, want %s", got, want)
	}
	py := p.Function("literal").Python
	if py.Module != "pkg.mod" || py.Func != "fn" || py.Bin != "python3.12" || len(py.Args) != 3 || !py.HasArgs {
		t.Errorf("python %+v", py)
	}
	if py := p.Function("computed").Python; py.Target != "path/to/file.py:fn" || py.Bin != "python3" || py.HasArgs {
		t.Errorf("python %+v", py)
	}
	for i, want := range []string{`"x"`, `3`, `"010"`} {
		a, err := py.Args[i].Eval(&Env{Item: "x", HasItem: true})
		if err != nil || string(value.JSON(a)) != want {
			t.Errorf("args[%d]: %s, %v; want %s", i, value.JSON(a), err, want)
		}
	}
	m := p.Function("matrix").Map
	if m.Form != FormMatrix || m.Limit != 5 || len(m.Parts) != 3 || m.Parts[0].Map.Form != FormGlob || m.Parts[1].Map.Form != FormItems ||
		m.Parts[2].Map.Form != FormRange || m.Parts[2].Name != "step" {
		t.Errorf("matrix %+v", m)
	}
	if m := p.Function("ranged2").Map; m.Limit != 4 {
		t.Errorf("limit %d", m.Limit)
	}
}

func TestBindAliases(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("testdata/valid/yaml.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := mustBind(t, string(src), BindOptions{})
	if f := p.Function("other"); f.Timeout != 30*time.Minute || f.Retries.Max != 2 || f.Run.Source != "echo base" {
		t.Errorf("other: %+v", f)
	}
	if f := p.Function("third"); f.Retries.Max != 5 || !strings.HasPrefix(f.Run.Source, "echo folded ") {
		t.Errorf("third: %+v", f)
	}
	if diff := cmp.Diff(map[string]string{"A": "1", "B": "three"}, envTexts(t, p.Function("other").Env, &Env{})); diff != "" {
		t.Errorf("env (-want +got)\n%s", diff)
	}
}

// Templates in keys that are the same for all tasks are evaluated by Bind.
func TestBindConfigTemplates(t *testing.T) {
	t.Parallel()
	p := mustBind(t, `
name: x
cloud: ${{ params.where }}
params: {where: aws, t: 90, n: 3, pct: 5, big: true, wait: 1h}
env: {LIMIT: "${{ params.n * 2 }}", TYPE: m6i.large}
limits: {cost: "${{ params.n + 0.5 }}"}
functions:
  a:
    run: echo
    timeout: ${{ params.t }}
    expect: ${{ params.wait }}
    max_failures: ${{ params.pct }}%
    concurrency: ${{ int(env.LIMIT) }}
    retries: ${{ params.n }}
    cache: ${{ params.big }}
    on_failure: "${{ params.big ? 'stop' : 'continue' }}"
    hardware:
      vm_type: "${{ params.big ? [env.TYPE, 'm6i.xlarge'] : 'm6i.small' }}"
      memory: ${{ params.n }} GiB
      n_workers: ["${{ params.n }}", "${{ params.n * 10.0 }}"]
      tags: {n: "${{ params.n }}"}
    software: {apt: "${{ split('a b', ' ') }}", python: "3.${{ params.n }}"}
  b:
    command: ${{ split("echo a b", " ") }}
`, BindOptions{Params: map[string]string{"n": "7"}})
	f := p.Function("a")
	if p.Cloud != "aws" || p.Limits.Cost != 7.5 || !p.Limits.HasCost {
		t.Errorf("cloud %q, limits %+v", p.Cloud, p.Limits)
	}
	if f.Timeout != 90*time.Second || f.Expect != time.Hour || f.MaxFailures != (Share{Percent: 5, IsPercent: true}) || f.Concurrency != 14 ||
		f.Retries.Max != 7 || f.Cache == nil || !f.OnFailureStop {
		t.Errorf("got %+v", f)
	}
	h := f.Hardware
	if strings.Join(h.VMTypes, " ") != "m6i.large m6i.xlarge" || h.Workers != [2]int{7, 70} || h.Tags["n"] != "7" {
		t.Errorf("hardware %+v", h)
	}
	if strings.Join(f.Software.Apt, " ") != "a b" || f.Software.Python != "3.7" {
		t.Errorf("software %+v", f.Software)
	}
	if c := p.Function("b").Command; len(c) != 3 || c[2].Source != "b" {
		t.Errorf("command %+v", c)
	}
}

func TestBindParams(t *testing.T) {
	t.Parallel()
	const src = `name: x
params:
  year: 2019
  ratio: 0.5
  dry: false
  code: "1"
  mode: {enum: [fast, slow], type: string}
  opt: {default: b, enum: [a, b]}
functions: {a: {run: "echo ${{ params.mode }}", timeout: "${{ params.year }}"}}
`
	for _, tt := range []struct {
		name   string
		params map[string]string
		want   string // the problems; "" for none
		values map[string]any
	}{
		{"defaults", map[string]string{"mode": "fast"}, "", map[string]any{"year": 2019, "ratio": 0.5, "dry": false, "code": "1", "mode": "fast", "opt": "b"}},
		{"all", map[string]string{"mode": "slow", "year": "2020", "ratio": "1", "dry": "true", "code": "007", "opt": "a"}, "",
			map[string]any{"year": 2020, "ratio": 1.0, "dry": true, "code": "007", "mode": "slow", "opt": "a"}},
		{"required", nil, "p.yaml:7:3: params.mode: the parameter has no value: give it one with --param mode=...", nil},
		{"unknown", map[string]string{"mode": "fast", "yeer": "1"}, `p.yaml: --param yeer=1: no parameter "yeer" (did you mean "year"?)`, nil},
		{"no int", map[string]string{"mode": "fast", "year": "soon"}, `p.yaml:3:3: --param year=soon: expected a whole number, found "soon"`, nil},
		{"no int either", map[string]string{"mode": "fast", "year": "1.5"}, `p.yaml:3:3: --param year=1.5: expected a whole number, found "1.5"`, nil},
		{"no float", map[string]string{"mode": "fast", "ratio": "NaN"}, `p.yaml:4:3: --param ratio=NaN: expected a number, found "NaN"`, nil},
		{"no bool", map[string]string{"mode": "fast", "dry": "yes"}, `p.yaml:5:3: --param dry=yes: expected true or false, found "yes"`, nil},
		{"not in enum", map[string]string{"mode": "fasst"}, `p.yaml:7:3: --param mode=fasst: expected fast or slow (did you mean "fast"?)`, nil},
		{"out of range", map[string]string{"mode": "fast", "year": "-5"}, `p.yaml:9:58: functions.a.timeout: expected a duration such as 30m, found -5 (it is negative)`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			doc, ps := Parse([]byte(src), "p.yaml")
			if len(ps) > 0 {
				t.Fatal(ps)
			}
			p, ps := doc.Bind(BindOptions{Params: tt.params})
			got := ""
			if len(ps) > 0 {
				got = ps.Error()
			}
			if got != tt.want {
				t.Fatalf("got %q\nwant %q", got, tt.want)
			}
			if tt.values != nil {
				if diff := cmp.Diff(tt.values, p.Params); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			}
		})
	}
}

func TestBindCloud(t *testing.T) {
	t.Parallel()
	const src = "name: x\ncloud: aws\nfunctions: {a: {run: echo}}"
	if p := mustBind(t, src, BindOptions{Cloud: "local"}); p.Cloud != "local" {
		t.Errorf("cloud %q", p.Cloud)
	}
	doc, _ := Parse([]byte(src), "p.yaml")
	if _, ps := doc.Bind(BindOptions{Cloud: "gcp"}); len(ps) != 1 || ps[0].String() != "p.yaml: --cloud gcp: expected local or aws" {
		t.Errorf("got %v", ps)
	}
}

// One Document can be bound many times, also at the same time, with different
// values.
func TestBindAgain(t *testing.T) {
	t.Parallel()
	doc, ps := Parse([]byte("name: x\nparams: {n: 1}\nfunctions: {a: {run: echo, timeout: '${{ params.n }}'}}"), "p.yaml")
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	done := make(chan string)
	for i := range 4 {
		go func() {
			p, ps := doc.Bind(BindOptions{Params: map[string]string{"n": string(rune('1' + i))}})
			switch {
			case ps.Err() != nil:
				done <- ps.Error()
			case p.Functions[0].Timeout != time.Duration(i+1)*time.Second:
				done <- p.Functions[0].Timeout.String()
			default:
				done <- ""
			}
		}()
	}
	for range 4 {
		if msg := <-done; msg != "" {
			t.Error(msg)
		}
	}
}

// What a missing parameter decides is no second problem.
func TestBindLenient(t *testing.T) {
	t.Parallel()
	const src = `name: x
params: {t: {type: string}, n: {type: int}}
env: {E: "${{ params.t }}"}
functions:
  a:
    map: {range: "${{ params.n }}", limit: "${{ params.n }}"}
    run: echo ${{ item }}
    timeout: ${{ params.t }}
    expect: ${{ env.E }}
    hardware: {n_workers: "${{ params.n }}", memory: ["${{ params.n }}", 4], tags: {a: "${{ params.t }}"}}
`
	if ps := Validate([]byte(src), "p.yaml"); len(ps) > 0 {
		t.Errorf("got %v", ps)
	}
	doc, _ := Parse([]byte(src), "p.yaml")
	p, ps := doc.Bind(BindOptions{})
	if p != nil || len(ps) != 2 || !strings.Contains(ps.Error(), "--param t=...") || !strings.Contains(ps.Error(), "--param n=...") {
		t.Errorf("got %v", ps)
	}
}

// The path of a default is defaults, and the function that it does not fit is
// named once.
func TestDefaultsProblemsAreNotRepeated(t *testing.T) {
	t.Parallel()
	ps := Validate([]byte("name: x\ndefaults: {timeout: soon, env: {A: '${{ nope }}'}}\nfunctions: {a: {run: echo}, b: {run: echo}}"), "p.yaml")
	if len(ps) != 2 || !strings.HasPrefix(ps[0].Message, "defaults.timeout: ") || !strings.HasPrefix(ps[1].Message, "defaults.env.A: unknown name") {
		t.Errorf("got %v", ps)
	}
}
