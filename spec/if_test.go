package spec

import (
	"fmt"
	"strings"
	"testing"
)

func TestCondition(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]bool{
		`item.size > 0`:                  true,
		` ${{ item.size > 0 }} `:         true,
		`${{ {"a": {"b": 1}}.a.b == 2}}`: false,
		`"}}" == "${{"`:                  false,
		`params.on`:                      true,
		`true`:                           true,
	} {
		if strings.Contains(src, `"${{"`) {
			src = `${{ ` + src + ` }}`
		}
		e, problems := CompileCondition(src, exprAt, fullScope())
		if len(problems) > 0 {
			t.Errorf("%s: %v", src, problems)
			continue
		}
		if got, err := e.Bool(fullEnv(testFile("a"))); err != nil || got != want {
			t.Errorf("%s = %v, %v", src, got, err)
		}
	}
	for src, want := range map[string]string{
		`${{ true`:                         `p.yaml:1:1: ${{ is not closed: }} is missing`,
		`${{ true }} && true`:              `p.yaml:1:12: text behind ${{ }}: a condition is one expression; write all of it inside the braces, or none`,
		`true && ${{ true }}`:              `p.yaml:1:9: ${{ inside a condition: the whole condition is an expression already; leave the braces out`,
		`params.year`:                      `p.yaml:1:1: the condition ${{ params.year }} gives a number, it must be true or false`,
		`  ${{ params.year + 1 }}`:         `p.yaml:1:7: the condition ${{ params.year + 1 }} gives a number, it must be true or false`,
		` ${{ params.quark == 1 }}`:        `p.yaml:1:6: unknown parameter params.quark; there are list, name, on, tip, year`,
		`item.name endsWith`:               `p.yaml:1:18: the expression ends too early`,
		`params.name == "x" ? "a" : "b"  `: `p.yaml:1:1: the condition ${{ params.name == "x" ? "a" : "b" }} gives text, it must be true or false`,
	} {
		if _, problems := CompileCondition(src, exprAt, fullScope()); problems.Error() != want {
			t.Errorf("%s\n got %s\nwant %s", src, problems.Error(), want)
		}
	}
	e, _ := CompileCondition("item", exprAt, fullScope())
	_, err := e.Bool(fullEnv("x"))
	if want := `${{ item }}: the condition gives the text "x", it must be true or false`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestRunsIf(t *testing.T) {
	t.Parallel()
	needs := func(status ...string) *Env {
		env := &Env{Needs: map[string]*NeedsInfo{}}
		for i, s := range status {
			env.Needs[fmt.Sprint("f", i)] = &NeedsInfo{Status: s}
		}
		return env
	}
	tests := []struct {
		src  string // "" is no if
		env  *Env
		want bool
	}{
		{"", needs(), true},
		{"", needs("succeeded", "succeeded"), true},
		{"", needs("succeeded", "failed"), false},
		{"", needs("skipped"), false},
		{"true", needs("skipped"), false},
		{"true", needs("succeeded"), true},
		{"false", needs("succeeded"), false},
		{"always()", needs("failed"), true},
		{"failure()", needs("failed", "succeeded"), true},
		{"failure()", needs("succeeded"), false},
		{"failure()", needs("cancelled"), false},
		{"success() or failure()", needs("failed"), true},
		{"!success()", needs("skipped"), true},
		// A condition that looks at how a need ended decides about that one.
		{`needs.f0.status == "failed"`, needs("failed"), true},
		{`needs.f0.status == "failed"`, needs("failed", "failed"), false},
		{`needs.f0.status != "failed"`, needs("skipped"), true},
		{"needs.f0.failed >= 0", needs("failed"), true},
		{"needs.f0.failed >= 0", needs("skipped"), false},
		{"needs.f0.count >= 0", needs("failed"), false},
	}
	for _, tt := range tests {
		var e *Expr
		if tt.src != "" {
			var problems Problems
			if e, problems = CompileCondition(tt.src, exprAt, &Scope{Status: true, Needs: []string{"f0", "f1"}}); len(problems) > 0 {
				t.Fatal(problems)
			}
		}
		if got, err := e.RunsIf(tt.env); err != nil || got != tt.want {
			t.Errorf("%q with %v: %v, %v", tt.src, tt.env.Needs, got, err)
		}
	}
}
