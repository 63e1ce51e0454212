package spec

import (
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/value"
)

const (
	wantArith   = "a template cannot be used here: " + inArithmetic
	wantProgram = "a template cannot be used here: " + inProgram
	wantName    = "a template cannot be used here: " + inName
)

var rejectedScripts = []struct{ script, want string }{
	{`echo $(( ${{ index }} + 1 ))`, wantArith},
	{`echo $(( $(echo ${{ index }}) + 1 ))`, wantArith},
	{`(( ${{ index }} > 1 )) && echo`, wantArith},
	{`let x=${{ index }}`, wantArith},
	{`for ((i=0; i<${{ count }}; i++)); do :; done`, wantArith},
	{`a[${{ index }}]=1`, wantArith},
	{`echo ${a[${{ index }}]}`, wantArith},
	{`echo ${x:${{ index }}:2}`, wantArith},
	{`echo $[ ${{ index }} ]`, wantArith},
	{`[[ ${{ index }} -gt 3 ]] && echo`, wantArith},
	{`declare -i n; n=${{ index }}`, wantArith},
	{`SECONDS=${{ index }}`, wantArith},
	{`declare -i n=${{ index }}`, "n is an integer or a reference"},
	{`declare -n r=${{ item }}`, "r is an integer or a reference"},
	{`declare -i "n=${{ item }}"`, "with -i the shell looks into the value"},
	{`declare -a "l=${{ item }}"`, "with -a the shell can parse the value as a list"},
	{`echo ${x:=${{ item }}}`, "outside of double quotes the shell may split"},
	{`echo ${x="${{ item }}"}`, "outside of double quotes the shell may split"},
	{"cat <<'EOF'\n${{ item }}\nEOF", "delimiter is quoted"},
	{"cat <<\\EOF\n${{ item }}\nEOF", "delimiter is quoted"},
	{"cat <<\"EOF\"\n${{ item }}\nEOF", "delimiter is quoted"},
	{"cat <<${{ item }}\nx\n${{ item }}\n", ""},
	{"echo `echo ${{ item }}`", "backquotes"},
	{"echo \"`echo '${{ item }}'`\"", "backquotes"},
	{`eval echo ${{ item }}`, wantProgram},
	{`eval "$(gen ${{ item }})"`, wantProgram},
	{`command eval "${{ item }}"`, wantProgram},
	{`bash -c "echo ${{ item }}"`, wantProgram},
	{`bash -c 'echo ${{ item }}'`, wantProgram},
	{`bash -c ${{ item }}`, wantProgram},
	{`sh -euc "echo ${{ item }}" x`, wantProgram},
	{`bash -euo pipefail -c "echo ${{ item }}"`, wantProgram},
	{`/usr/bin/env sh -c "echo ${{ item }}"`, wantProgram},
	{`sudo -u x bash -lc "echo ${{ item }}"`, wantProgram},
	{`timeout 5 bash -c "echo ${{ item }}"`, wantProgram},
	{`find . -exec sh -c "echo ${{ item }}" \;`, wantProgram},
	{`xargs -n1 sh -c "echo ${{ item }}"`, wantProgram},
	{`FOO=1 python3.11 -u -c "print('${{ item }}')"`, wantProgram},
	{`python -c"print('${{ item }}')"`, wantProgram},
	{`python -W ignore -c "print('${{ item }}')"`, wantProgram},
	{`perl -ne "print '${{ item }}'"`, wantProgram},
	{`perl -e 'print 1' -e "print '${{ item }}'"`, wantProgram},
	{`ruby -e "puts '${{ item }}'"`, wantProgram},
	{`node -e "console.log('${{ item }}')"`, wantProgram},
	{`node -pe "'${{ item }}'"`, wantProgram},
	{`node --eval="'${{ item }}'"`, wantProgram},
	{`deno eval "'${{ item }}'"`, wantProgram},
	{`php -r "echo '${{ item }}';"`, wantProgram},
	{`Rscript -e "print('${{ item }}')"`, wantProgram},
	{`"$PYTHON" -c "print('${{ item }}')"`, wantProgram},
	{`awk "{ print \"${{ item }}\" }" f`, wantProgram},
	{`awk -F, -v x=1 '{ print "${{ item }}" }' f`, wantProgram},
	{`awk -vf=f '{ print "${{ item }}" }' f`, wantProgram},
	{`sed -e "s/a/${{ item }}/" f`, wantProgram},
	{`sed "s/a/${{ item }}/" f`, wantProgram},
	{`sed -i.bak -n "s/a/${{ item }}/p" f`, wantProgram},
	{`sed -i '' "s/a/${{ item }}/p" f`, wantProgram},
	{`awk '$1 > ${{ index }} { print "${{ item }}" }' f`, wantProgram},
	{`ssh -p 22 host "cat ${{ item }}"`, wantProgram},
	{`ssh host cat ${{ item }}`, wantProgram},
	{`trap 'rm ${{ item }}' EXIT`, wantProgram},
	{`alias x='${{ item }}'`, wantProgram},
	{`su -c "echo ${{ item }}" bob`, wantProgram},
	{`env -S "echo ${{ item }}"`, wantProgram},
	{`parallel "gzip ${{ item }}" ::: a`, wantProgram},
	{`source <(echo "${{ item }}")`, wantProgram},
	{`. <(echo "${{ item }}")`, wantProgram},
	{`bash <(echo "${{ item }}")`, wantProgram},
	{"bash <<EOF\necho ${{ item }}\nEOF", "the text would be a program"},
	{"bash -s x <<EOF\necho ${{ item }}\nEOF", "the text would be a program"},
	{"python3 - <<EOF\nprint('${{ item }}')\nEOF", "the text would be a program"},
	{"sudo python3 <<EOF\nprint('${{ item }}')\nEOF", "the text would be a program"},
	{`python <<< "print('${{ item }}')"`, "the text would be a program"},
	{`bash < <(echo "${{ item }}")`, "the text would be a program"},
	{"{ cd x; bash; } <<EOF\n${{ item }}\nEOF", "the text would be a program"},
	{"ssh host <<EOF\n${{ item }}\nEOF", "the text would be a program"},
	{". /dev/stdin <<EOF\n${{ item }}\nEOF", "the text would be a program"},
	{`echo "${{ item }}" | bash`, "piped to an interpreter"},
	{`printf '%s' "${{ item }}" | tee f | sudo python3 -`, "piped to an interpreter"},
	{"cat <<EOF | sh\n${{ item }}\nEOF", "piped to an interpreter"},
	{`${{ item }}=5`, wantName},
	{`for ${{ item }} in a b; do :; done`, ""},
	{`${{ item }}() { :; }`, wantName},
	{`echo $${{ item }}`, "write \\$ for a dollar sign"},
	{`echo ${${{ item }}}`, wantName},
	{`echo ${!${{ item }}}`, wantName},
	{`read ${{ item }}`, wantName},
	{`unset ${{ item }}`, wantName},
	{`printf -v ${{ item }} x`, wantName},
	{`export "${{ item }}"`, wantName},
	{`[ -v ${{ item }} ]`, wantName},
	{`[[ -v ${{ item }} ]]`, wantName},
	{`PS4=${{ item }}`, "the shell expands the value of PS4 again"},
	{`BASH_ENV=${{ item }} bash x`, "the shell expands the value of BASH_ENV again"},
	{`export PS4=${{ item }}`, "the shell expands the value of PS4 again"},
	{`echo \${{ item }}`, "a backslash stands directly before it"},
	{`echo "\${{ item }}"`, "a backslash stands directly before it"},
	{"cat <<EOF\n\\${{ item }}\nEOF", "a backslash stands directly before it"},
	{`echo $'\${{ item }}'`, "a backslash stands directly before it"},
	{`echo $'\c${{ item }}'`, inUnclear},
	{`echo {1..${{ count }}}`, "use seq"},
	{`echo @(a|${{ item }})`, "extended pattern"},
	{`echo "${x/a/${{ item }}}"`, "replacement"},
	{`echo "${x:-"${{ item }}"}"`, inUnclear},
	{`echo "${x:-'${{ item }}'}"`, inUnclear},
	{"cat <<EOF\n${x:-'${{ item }}'}\nEOF", inUnclear},
	{`echo "${x:-${y:-${{ item }}}}"`, inUnclear},
	{"cat <<EOF\n${x#${{ item }}}\nEOF", inUnclear},
	{`if echo ${{ item }}; then`, "the script: "},
	{`echo "${{ item }}`, "the script: "},
	{`echo ${{ item `, "${{ is not closed"},
	{`echo ${{ itm }}`, `unknown name "itm" (did you mean "item"?)`},
	{`echo $__COILED_JOBS_0 ${{ item }}`, "are taken"},
}

func TestScriptRejected(t *testing.T) {
	t.Parallel()
	for _, tt := range rejectedScripts {
		s, problems := ParseScript(tt.script, nil, exprAt, fullScope())
		if s != nil || len(problems) == 0 {
			t.Errorf("%s: accepted as %s", tt.script, s.Text())
			continue
		}
		if got := problems[0].Message; !strings.Contains(got, tt.want) {
			t.Errorf("%s\n got %s\nwant %s", tt.script, got, tt.want)
		}
		if m := problems[0].Message; strings.HasPrefix(m, "a template cannot") && !strings.Contains(m, "env") {
			t.Errorf("%s: no advice: %s", tt.script, m)
		}
	}
}

// What looks like the rejected scripts and is fine.
func TestScriptAccepted(t *testing.T) {
	t.Parallel()
	for _, src := range []string{
		`bash script.sh ${{ item }}`,
		`bash -c 'echo "$1"' _ ${{ item }}`,
		`bash -euo pipefail script.sh -c ${{ item }}`,
		`python -c 'import sys; print(sys.argv)' ${{ item }}`,
		`python script.py -c ${{ item }}`,
		`python -m mod -c ${{ item }}`,
		`python -u script.py <<< "${{ item }}"`,
		"python script.py <<EOF\n${{ item }}\nEOF",
		"bash script.sh <<EOF\n${{ item }}\nEOF",
		"python -c 'import sys; print(sys.stdin.read())' <<EOF\n${{ item }}\nEOF",
		`perl -ne 'print' ${{ item }}`,
		`awk '{ print $1 }' ${{ item }}`,
		`awk -v x=${{ item }} 'BEGIN { print x }'`,
		`awk -f prog.awk ${{ item }}`,
		`sed 's/a/b/' ${{ item }}`,
		`sed -e 's/a/b/' -e 's/c/d/' ${{ item }}`,
		`sed -n 5p ${{ item }}`,
		`sed -n "${{ index + 1 }}p" f`,
		`awk '$1 > ${{ params.year }} && $2 < ${{ count * 2 }}' ${{ item }}`,
		`ssh ${{ item }}`,
		`echo bash -c "${{ item }}"`,
		`git commit -m "python -c ${{ item }}"`,
		`python train.py eval ${{ item }}`,
		`echo "${{ item }}" | python script.py`,
		`echo "${{ item }}" | xargs -n1 gzip`,
		`gunzip -c ${{ item }} | python script.py -`,
		`tar -czf ${{ item }} -C x .`,
		`${{ item }} --version`,
		`export A=${{ item }}`,
		`export "A=${{ item }}"`,
		`declare -r A=${{ item }}`,
		`declare -a l=(${{ item }})`,
		`read -p ${{ item }} x`,
		`[ ${{ index }} -gt 3 ]`,
		`test -f ${{ item }}`,
		`parallel gzip ::: ${{ item }}`,
		`x=$(cat ${{ item }}) && echo "$((x + 1))"`,
		`source ${{ item }}`,
		`while read -r l; do echo "$l"; done < ${{ item }}`,
		"echo `date` ${{ item }}",
		"echo ${{ item }} # it's `fine",
	} {
		if _, problems := ParseScript(src, nil, exprAt, fullScope()); len(problems) > 0 {
			t.Errorf("%s: %v", src, problems)
		}
	}
}

func TestScriptPositions(t *testing.T) {
	t.Parallel()
	src := "echo ${{ item }}\ncat é ${{ item }} $((${{ index }}))\nif"
	at := func(off int) Pos {
		line := 1 + strings.Count(src[:off], "\n")
		return Pos{File: "f", Line: line, Col: off - strings.LastIndexByte(src[:off], '\n')}
	}
	_, problems := ParseScript(src[:len(src)-3], nil, at, fullScope())
	if got := problems.Error(); !strings.HasPrefix(got, "f:2:23: a template cannot") {
		t.Errorf("got %s", got)
	}
	_, problems = ParseScript(src, nil, at, fullScope())
	if got := problems.Error(); !strings.HasPrefix(got, "f:3:1: the script: ") {
		t.Errorf("got %s", got)
	}
}

func TestScriptShells(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shell []string
		src   string
		want  string // the text; problems start with "!"
	}{
		{nil, `echo ${{ item }}`, `echo "${__COILED_JOBS_0}"`},
		{[]string{"/bin/sh", "-e"}, `echo '${{ item }}'`, `echo ''"${__COILED_JOBS_0}"''`},
		{[]string{"/usr/bin/env", "bash"}, `echo "${{ item }}"`, `echo "${__COILED_JOBS_0}"`},
		{[]string{"zsh"}, `echo ${{ item }}`, `echo "${__COILED_JOBS_0}"`},
		{[]string{"ksh"}, `echo ${{ item }}`, `echo "${__COILED_JOBS_0}"`},
		{[]string{"zsh"}, `ls *(e:${{ item }}:)`, `!p.yaml:1:8: a template cannot be used here`},
		{[]string{"ksh"}, `[ ${{ index }} -gt 1 ]`, `!p.yaml:1:3: a template cannot be used here: ` + inArithmetic},
		{[]string{"python3"}, `print("${{ item }}")`, `!p.yaml:1:8: a template cannot be put into a script for python3, whose syntax is not a shell's: put the value into env and read the variable in the script`},
		{[]string{"python3"}, `if "x`, `if "x`},
		{[]string{"node"}, "`${{ item }}`", `!p.yaml:1:2: a template cannot be put into a script for node`},
		{[]string{"env", "-i", "bash"}, `echo ${{ item }}`, `!p.yaml:1:6: a template cannot be put into a script for env`},
		{[]string{"fish"}, `echo ${{ item }}`, `!p.yaml:1:6: a template cannot be put into a script for fish`},
		{[]string{"sh"}, `((${{ item }}))`, `!p.yaml:1:3: a template cannot be used here: ` + inArithmetic},
		{[]string{"sh"}, `[[ ${{ index }} -eq 1 ]]`, `!p.yaml:1:4: a template cannot be used here: ` + inArithmetic},
		{[]string{"sh"}, `let x=${{ index }}`, `!p.yaml:1:7: a template cannot be used here: ` + inArithmetic},
		{[]string{"sh"}, `echo $'${{ item }}'`, `!p.yaml:1:8: a template cannot be used here: it stands where shells that are called sh differ`},
		{nil, `if true; then echo; fi; )`, `if true; then echo; fi; )`}, // a warning only
		{nil, "# ${{ item\n}} x\necho", "# ${{ item }} x\necho"},
		{nil, `echo ${{ item }} ${{ index }} ${{item}}`, `echo "${__COILED_JOBS_0}" "${__COILED_JOBS_1}" "${__COILED_JOBS_0}"`},
	} {
		s, problems := ParseScript(tt.src, tt.shell, exprAt, fullScope())
		got := "!" + problems.Error()
		if s != nil {
			got = s.Text()
		}
		if got != tt.want && (tt.want[0] != '!' || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%v %s\n got %s\nwant %s", tt.shell, tt.src, got, tt.want)
		}
	}
	_, problems := ParseScript(`if true; then`, nil, exprAt, fullScope())
	if len(problems) != 1 || !problems[0].Warning {
		t.Errorf("a doubtful script gives %v, want one warning", problems)
	}
}

func TestScriptRender(t *testing.T) {
	t.Parallel()
	s, problems := ParseScript("f ${{ item }} ${{ params.year }} ${{ needs.clean.results }}", nil, exprAt, fullScope())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	text, vars, err := s.Render(fullEnv(testFile("a b")))
	if err != nil || text != s.Text() {
		t.Fatalf("%s, %v", text, err)
	}
	want := []string{"__COILED_JOBS_0=data/a b", "__COILED_JOBS_1=2019", `__COILED_JOBS_2=[1,null,{"n":5}]`}
	if strings.Join(vars, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", vars, want)
	}
	r := s.Refs()
	if !r.Item || len(r.Params) != 1 || len(r.Needs) != 1 {
		t.Errorf("refs are %+v", r)
	}
	for item, want := range map[string]string{
		strings.Repeat("x", MaxTemplate+1): "${{ item }}: the text has 101 KiB, a template may have 100: read the file $COILED_JOBS_ITEM_FILE instead",
		"a\x00b":                           "${{ item }}: the value has a NUL byte, which no program can be given",
	} {
		if _, _, err := s.Render(fullEnv(item)); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	env := fullEnv("x")
	env.Needs["clean"].Results = func() ([]any, error) { return []any{strings.Repeat("x", MaxTemplate)}, nil }
	if _, _, err := s.Render(env); err == nil || !strings.HasSuffix(err.Error(), "read $COILED_JOBS_NEEDS/clean.jsonl instead") {
		t.Errorf("got %v", err)
	}
}

func TestScriptBombs(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"(", "$(", "${x:-", "if ", "{ ", "`", "! ", "$((", "((", "while ", "a | ", "\"$(", "case x in x) ", "<(", "f() ", "time ", "a && ", "[[ ! ", "[[ ( "} {
		for _, n := range []int{100, 1000, 1 << 20} {
			src := strings.Repeat(unit, n/len(unit)+1)
			ParseScript(src+"${{ item }}", nil, exprAt, fullScope())
			ParseScript(src, nil, exprAt, fullScope())
		}
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	row := value.NewObject([]string{"z", "a"}, []any{1, "x"})
	for _, tt := range []struct {
		src  string
		item any
		want any
	}{
		{"", nil, ""},
		{"plain }} { text", nil, "plain }} { text"},
		{"${{ params.year }}", nil, 2019},
		{" ${{ params.year }}", nil, " 2019"},
		{"${{ params.year }}-${{params.name}}", nil, "2019-a b"},
		{"${{ item }}", row, row},
		{"x${{ item }}", row, `x{"z":1,"a":"x"}`},
		{`${{ "}}" }}`, nil, "}}"},
		{`${{ '}}' + "\"}}" }}x`, nil, `}}"}}x`},
		{`${{ {"a": {"b": 1}}.a.b }}`, nil, 1},
		{`${{ {"a": {"b": 1}}}}`, nil, map[string]any{"a": map[string]any{"b": 1}}},
		{`${{ "${{" }} x }}`, nil, "${{ x }}"},
		{"$${{ index }} {${{ index }}}", nil, "$3 {3}"},
		{"${{\n  index\n}}", nil, 3},
		{"${{ nil }}", nil, nil},
		{"a${{ nil }}", nil, "anull"},
		{"${{ item }}", "\xff", "\xff"},
		{"é${{ item }}é", "\xff", "é\xffé"},
	} {
		tpl, problems := ParseTemplate(tt.src, exprAt, fullScope())
		if len(problems) > 0 {
			t.Errorf("%s: %v", tt.src, problems)
			continue
		}
		got, err := tpl.Eval(fullEnv(tt.item))
		if err != nil || string(value.JSON(got)) != string(value.JSON(tt.want)) {
			t.Errorf("%s = %#v, %v, want %#v", tt.src, got, err, tt.want)
		}
		text, err := tpl.Text(fullEnv(tt.item))
		if err != nil || text != value.Text(tt.want) {
			t.Errorf("%s = %q, %v", tt.src, text, err)
		}
		if static, ok := tpl.Static(); ok != !HasTemplate(tt.src) || ok && static != tt.src {
			t.Errorf("%s: static %q, %v", tt.src, static, ok)
		}
	}
	for src, want := range map[string]string{
		"a ${{ b":                        "p.yaml:1:3: ${{ is not closed: }} is missing",
		"${{ item } ${{ item }}":         "p.yaml:1:1: ${{ is not closed: }} is missing",
		`${{ "a }}`:                      "p.yaml:1:1: ${{ is not closed: }} is missing",
		"x ${{ }}":                       "p.yaml:1:7: the expression is empty",
		"${{ a }} ${{ itme }}":           "p.yaml:1:5: unknown name \"a\"; text needs quotes, names are params, env, item, index, count, run, needs, attempt, cause, exit_code, signal, stderr\np.yaml:1:14: unknown name \"itme\" (did you mean \"item\"?)",
		strings.Repeat("${{ 1 }}", 1001): "p.yaml:1:8001: more than 1000 templates in one text: put the data into a file",
	} {
		if _, problems := ParseTemplate(src, exprAt, fullScope()); problems.Error() != want {
			t.Errorf("%.40s\n got %s\nwant %s", src, problems.Error(), want)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	tpl, _ := ParseTemplate("${{ item }}", exprAt, fullScope())
	v := &Value{Map: []NamedValue{
		{"z", &Value{Literal: 1, Source: "1"}},
		{"l", &Value{List: []*Value{{Template: tpl}, {Literal: nil}, {Literal: "x"}}}},
		{"e", &Value{Map: []NamedValue{}}},
	}}
	env := fullEnv(testFile("a"))
	const want = `{"z":1,"l":["data/a",null,"x"],"e":{}}`
	got, err := v.Eval(env)
	if err != nil || string(value.JSON(got)) != want {
		t.Errorf("got %s, %v", value.JSON(got), err)
	}
	if s, err := v.Text(env); s != want || err != nil {
		t.Errorf("got %s, %v", s, err)
	}
	if !v.Refs().Item {
		t.Error("the item is not among the refs")
	}
	if s, _ := (&Value{Literal: 1.5, Source: "1.50"}).Text(env); s != "1.50" {
		t.Errorf("got %s, want the source text", s)
	}
	large := fullEnv([]any{strings.Repeat("x", MaxTemplate)})
	if _, err := v.Eval(large); err != nil {
		t.Errorf("Eval has no limit for lists, got %v", err)
	}
	if _, err := v.EvalTask(large); err == nil || !strings.Contains(err.Error(), "COILED_JOBS_ITEM_FILE") {
		t.Errorf("got %v", err)
	}
}

// Templates never panic, and text without a template is itself.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"a ${{ item }} b", `${{ "}}" }}`, "${{ {\"a\": 1} }}", "${{", "}}${{ item }}${{ index }}", "$${{ item }}", "${{ 'a\\'}}' }}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		tpl, problems := ParseTemplate(src, exprAt, fullScope())
		if (tpl == nil) != (len(problems) > 0) {
			t.Fatalf("%v with %v", tpl, problems)
		}
		if tpl == nil {
			return
		}
		if _, ok := tpl.Static(); ok == HasTemplate(src) {
			t.Fatalf("%q: static is %v", src, ok)
		}
		for _, item := range []any{nil, "x", testFile("a")} {
			if s, err := tpl.Text(fullEnv(item)); err == nil && !HasTemplate(src) && s != src {
				t.Fatalf("%q became %q", src, s)
			}
		}
	})
}
