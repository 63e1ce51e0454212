package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// A template may stand for all of command, args and kwargs.
func TestWhole(t *testing.T) {
	t.Parallel()
	const head = "name: t\nparams: {s: a b}\nfunctions:\n  f:\n    map: {items: [{x: 1, y: [p, q]}]}\n"
	item := value.NewObject([]string{"x", "y"}, []any{1, []any{"p", "q"}})
	f := mustBind(t, head+"    python: m:f\n    args: ${{ item.y }}\n    kwargs: ${{ item }}\n", BindOptions{}).Function("f")
	env := &Env{Item: item, HasItem: true}
	if args, err := f.Python.Args[0].EvalList(env); err != nil || len(f.Python.Args) != 1 || !cmp.Equal(args, []any{"p", "q"}) {
		t.Errorf("args: %v %v", args, err)
	}
	if kw, err := f.Python.Kwargs[0].Value.EvalObject(env); err != nil || value.Text(kw) != value.Text(item) {
		t.Errorf("kwargs: %v %v", kw, err)
	}
	_, err := f.Python.Args[0].EvalList(&Env{Item: value.NewObject([]string{"y"}, []any{3}), HasItem: true})
	if err == nil || err.Error() != "${{ item.y }}: needs a list, found 3" {
		t.Errorf("a number for args: %v", err)
	}
	_, err = f.Python.Kwargs[0].Value.EvalObject(&Env{Item: strings.Repeat("x", 99), HasItem: true})
	if err == nil || err.Error() != "${{ item }}: needs a mapping, found "+strings.Repeat("x", 57)+"..." {
		t.Errorf("text for kwargs: %v", err)
	}

	c := mustBind(t, head+"    command: ${{ split(params.s, ' ') }}\n", BindOptions{}).Function("f").Command
	if len(c) != 2 || c[0].Source != "a" || c[1].Source != "b" {
		t.Errorf("a command of parameters: %v", c)
	}
	c = mustBind(t, head+"    command: ${{ item.y }}\n", BindOptions{}).Function("f").Command
	if len(c) != 1 || !c[0].Spread {
		t.Errorf("a command of the item: %v", c)
	}

	_, ps := Parse([]byte(head+"    python: m:f\n    args: x${{ item }}\n    kwargs: ${{ itm }}\n"), "p.yaml")
	bad := ps.Error()
	for _, want := range []string{"p.yaml:7:11: functions.f.args: expected a list", "p.yaml:8:17: functions.f.kwargs: unknown name"} {
		if !strings.Contains(bad, want) {
			t.Errorf("no %q in %s", want, bad)
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for src, want := range map[string][]string{
		"a":                             {"a"},
		"${{ item }}":                   {"p", "3", `["q"]`},
		"x${{ item }}":                  {`x["p",3,["q"]]`},
		"${{ item[0] }}":                {"p"},
		"${{ [] }}":                     {},
		"${{ filter(item, # == 'p') }}": {"p"},
	} {
		tmpl, ps := ParseTemplate(src, func(int) Pos { return Pos{} }, fullScope())
		if ps.Err() != nil {
			t.Fatal(src, ps)
		}
		got, err := tmpl.Texts(&Env{Item: []any{"p", 3, []any{"q"}}, HasItem: true})
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %q %v, want %q", src, got, err, want)
		}
	}
}

// Values are arguments of a command; they do not become parts of programs.
func TestCommandText(t *testing.T) {
	t.Parallel()
	for command, ok := range map[string]bool{
		`[sh, -c, "echo ${{ item }}"]`:                      false,
		`[/bin/bash, -euc, "echo '${{ item }}'"]`:           false,
		`[env, A=1, python3, -c, "print('${{ item }}')"]`:   false,
		`[timeout, 5, perl, -e, "print '${{ item }}'"]`:     false,
		`[sh, -c, "${{ item }}"]`:                           true, // all of it, by intent
		`[sh, -c, "cat \"$1\"", _, "in/${{ item }}"]`:       true,
		`[python3, main.py, -c, "x${{ item }}"]`:            true,
		`[echo, sh, -c, "x${{ item }}"]`:                    true,
		`["${{ item }}", -c, literal]`:                      true,
		`[grep, -e, "^${{ item }}", file]`:                  true,
		`[awk, -v, "x=${{ item }}", "{ print x }", file]`:   true,
		`[python3, -m, tool, -c, "${{ item }}/config.ini"]`: true,
	} {
		src := "name: t\nfunctions:\n  f:\n    map: {items: [a]}\n    command: " + command + "\n"
		doc, ps := Parse([]byte(src), "p.yaml")
		if ps.Err() == nil {
			_, ps = doc.Bind(BindOptions{})
		}
		if got := ps.Err() == nil; got != ok {
			t.Errorf("%s: accepted %v, want %v: %v", command, got, ok, ps)
		} else if !ok && !strings.Contains(ps.Err().Error(), inProgram) {
			t.Errorf("%s: %v", command, ps)
		}
	}
}
