package spec

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hostile are values that a shell would make something else of.
var hostile = []string{
	"plain", "two words", "  spaces  around  ", "", "'", `"`, "a'b\"c", "$(touch pwned)", "`touch pwned`", "$HOME ${HOME} $$ $1 $@",
	"; touch pwned #", "&& touch pwned", "| touch pwned", "> pwned", "\n", "line one\nline two", "trailing newline\n", "\n\nboth\n\n",
	"-n", "--help", "-", "*", "?", "[a-z]*", "{a,b}", "~", "~root", "\\", "\\\\n", "a\\", "\\$(touch pwned)", "!", "!!", "%s%d%n", "#x", "=", "a=b",
	"\xff\xfe", "caf\xc3\xa9 \xe2\x82\xac", "\t", "EOF", "EOF\ntouch pwned", "'; touch pwned; '", "\"; touch pwned; \"", "'\"$(touch pwned)\"'",
	"}", "${", "))", "]]", ")", "esac", "done", "a[$(touch pwned)]", "x\rn", "\x01\x7f", "&", "\\&", "|", "IFS=x", ":", "a:b", "(touch pwned)", "$'\\x41'",
}

// shellContexts are places in a script. V in the wanted output is the value;
// the value stands as ${{ item }} in the script.
var shellContexts = []struct{ name, script, want string }{
	{"bare", `printf '[%s]' ${{ item }}`, "[V]"},
	{"two", `printf '[%s]' ${{ item }} ${{ item }}`, "[V][V]"},
	{"in a word", `printf '[%s]' pre${{ item }}post`, "[preVpost]"},
	{"joined", `printf '[%s]' ${{ item }}${{ item }}`, "[VV]"},
	{"path", `printf '[%s]' ./out/${{ item }}.csv`, "[./out/V.csv]"},
	{"option", `printf '[%s]' --in=${{ item }}`, "[--in=V]"},
	{"tilde", `printf '[%s]' ~${{ item }}`, "[~V]"},
	{"double quotes", `printf '[%s]' "a ${{ item }} b"`, "[a V b]"},
	{"single quotes", `printf '[%s]' 'a ${{ item }} b'`, "[a V b]"},
	{"single quotes only", `printf '[%s]' '${{ item }}'`, "[V]"},
	{"backslash in single quotes", `printf '[%s]' '\${{ item }}'`, `[\V]`},
	{"even backslashes", `printf '[%s]' "\\${{ item }}" \\${{ item }}`, `[\V][\V]`},
	{"mixed quotes", `printf '[%s]' a'b ${{ item }}'"c ${{ item }}"${{ item }}`, "[ab Vc VV]"},
	{"assignment", `x=${{ item }}; printf '[%s]' "$x"`, "[V]"},
	{"assignment in quotes", `x='${{ item }}'y"${{ item }}"; printf '[%s]' "$x"`, "[VyV]"},
	{"export", `export E=${{ item }}; printf '[%s]' "$E"`, "[V]"},
	{"environment", `E=${{ item }} sh -c 'printf "[%s]" "$E"'`, "[V]"},
	{"argument of sh -c", `sh -c 'printf "[%s]" "$1"' name ${{ item }}`, "[V]"},
	{"arguments", `set -- ${{ item }} x; printf '[%s]' "$1" "$#"`, "[V][2]"},
	{"substitution", `printf '[%s]' "$(printf '<%s>' ${{ item }})"`, "[<V>]"},
	{"quoted in substitution", `printf '[%s]' "$(printf '<%s>' "${{ item }}" '${{ item }}')"`, "[<V><V>]"},
	{"deep substitution", `printf '[%s]' "$(printf '<%s>' "$(printf '%s.' '${{ item }}')")"`, "[<V.>]"},
	{"subshell", `(printf '[%s]' ${{ item }})`, "[V]"},
	{"pipe", `printf '[%s]' ${{ item }} | cat`, "[V]"},
	{"function", `f() { printf '[%s]' "$1" ${{ item }}; }; f ${{ item }}`, "[V][V]"},
	{"for", `for f in ${{ item }} x; do printf '[%s]' "$f"; done`, "[V][x]"},
	{"while", `while :; do printf '[%s]' ${{ item }}; break; done`, "[V]"},
	{"if", `if [ ${{ item }} = "${{ item }}" ]; then printf '[%s]' ${{ item }}; else printf no; fi`, "[V]"},
	{"case", `case ${{ item }} in ${{ item }}) printf yes;; *) printf no;; esac`, "yes"},
	{"case in quotes", `case "x${{ item }}" in 'x${{ item }}') printf yes;; *) printf no;; esac`, "yes"},
	{"default", `printf '[%s]' ${U:-${{ item }}}`, "[V]"},
	{"quoted default", `printf '[%s]' "${U:-${{ item }}}" "${U-a ${{ item }} b}"`, "[V][a V b]"},
	{"default in quotes", `printf '[%s]' ${U:-"a ${{ item }} b"} ${U:-'a ${{ item }} b'}`, "[a V b][a V b]"},
	{"assigned default", `: "${W:=${{ item }}}"; printf '[%s]' "$W"; unset W`, "[V]"},
	{"alternative", `S=1; printf '[%s]' "${S:+${{ item }}}" ${S:+${{ item }}}`, "[V][V]"},
	{"prefix pattern", `x=${{ item }}tail; printf '[%s]' "${x#${{ item }}}" ${x#${{ item }}}`, "[tail][tail]"},
	{"suffix pattern", `x=head${{ item }}; printf '[%s]' "${x%${{ item }}}" ${x%%'${{ item }}'}`, "[head][head]"},
	{"here-document", "cat <<EOF\na ${{ item }} b\n'${{ item }}' \"${{ item }}\"\nEOF", "a V b\n'V' \"V\"\n"},
	{"here-document with tabs", "cat <<-END\n\ta ${{ item }} b\n\tEND", "a V b\n"},
	{"here-document with more", "cat <<EOF\n${U:-${{ item }}} $(printf '<%s>' '${{ item }}.')\nEOF", "V <V.>\n"},
	{"data for a loop", "while IFS= read -r l; do :; done <<EOF\n${{ item }}\nEOF\nprintf '[%s]' ok", "[ok]"},
	{"comment", "# it's ${{ item }} \"\nprintf '[%s]' x # ${{ item }} '", "[x]"},
	{"separator", `(IFS=' :ab'; printf '[%s]' ${{ item }} x${{ item }})`, "[V][xV]"},
	{"continued line", "printf '[%s]' \\\n  ${{ item }} \\\n  'x'", "[V][x]"},
	{"background", `printf '[%s]' ${{ item }} & wait`, "[V]"},
	{"here-document in a substitution", "printf '[%s]' \"$(cat <<EOF\n${{ item }}.\nEOF\n)\"", "[V.]"},
	{"carriage returns", "printf '[%s]' ${{ item }} \"${{ item }}\" #\r\n:", "[V][V]"},
	{"wide characters", "printf '[%s]' é€${{ item }}é\"€${{ item }}\"", "[é€Vé€V]"},
	{"not a comment", `printf '[%s]' ${{ item }}#x`, "[V#x]"},
	{"pattern around", `case "a${{ item }}b" in *${{ item }}*) printf yes;; esac`, "yes"},
	{"single quotes in a default", `printf '[%s]' ${U:-a'b ${{ item }}'c}`, "[ab Vc]"},
	{"continued in quotes", "printf '[%s]' \"a \\\n${{ item }}\"", "[a V]"},
	{"subshell in a function", "h() ( printf '[%s]' \"$@\" '${{ item }}' ); h ${{ item }}", "[V][V]"},
	{"and-or", `false || printf '[%s]' ${{ item }} && printf '[%s]' "${{ item }}"`, "[V][V]"},
	{"index", `printf '[%s]' item-${{ index }}-${{ count }}`, "[item-3-10]"},
}

var bashContexts = []struct{ name, script, want string }{
	{"dollar quotes", `printf '[%s]' $'a\t${{ item }}\n'`, "[a\tV\n]"},
	{"here-string", `cat <<< ${{ item }}`, "V\n"},
	{"quoted here-string", `cat <<< "a ${{ item }}"`, "a V\n"},
	{"array", `a=(${{ item }} "${{ item }}" '${{ item }}'); printf '[%s]' "${a[@]}" "${#a[@]}"`, "[V][V][V][3]"},
	{"append", `a=(); a+=(${{ item }}); s=x; s+=${{ item }}; printf '[%s]' "${a[@]}" "$s"`, "[V][xV]"},
	{"local", `g() { local l=${{ item }}; declare d=${{ item }}; printf '[%s]' "$l" "$d"; }; g`, "[V][V]"},
	{"readonly", `(readonly R=${{ item }}; printf '[%s]' "$R")`, "[V]"},
	{"test", `[[ ${{ item }} == ${{ item }} && x${{ item }} != ${{ item }} ]] && printf yes`, "yes"},
	{"test in quotes", `[[ "${{ item }}" == '${{ item }}' ]] && printf yes`, "yes"},
	{"regular expression", `[[ a${{ item }}b =~ ^a${{ item }}b$ ]] && printf yes`, "yes"},
	{"process substitution", `cat <(printf '[%s]' ${{ item }})`, "[V]"},
	{"braces", `printf '[%s]' {a,${{ item }}}`, "[a][V]"},
	{"replaced pattern", `x=a${{ item }}b; printf '[%s]' "${x/#a${{ item }}/c}"`, "[cb]"},
	{"time", `time -p printf '[%s]' ${{ item }} 2>/dev/null`, "[V]"},
	{"select word", `for ((i = 0; i < 2; i++)); do printf '[%s]' ${{ item }}; done`, "[V][V]"},
	{"negation", `! printf '[%s]' ${{ item }} || :`, "[V]"},
}

// Every hostile value arrives byte for byte in every context, as one value,
// and nothing in it is executed.
func TestScriptValuesArrive(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ shell, run []string }{
		{[]string{"bash", "-euo", "pipefail"}, []string{"bash", "-euo", "pipefail"}},
		{[]string{"sh"}, []string{"dash", "-eu"}},
		{[]string{"sh"}, []string{"bash", "--posix", "-eu"}}, // sh of some systems
	} {
		shell := tt.shell
		bin, err := exec.LookPath(tt.run[0])
		if err != nil {
			t.Logf("no %s here", tt.run[0])
			continue
		}
		contexts := shellContexts
		if shell[0] == "bash" {
			contexts = append(contexts[:len(contexts):len(contexts)], bashContexts...)
		}
		t.Run(strings.Join(tt.run, " "), func(t *testing.T) {
			t.Parallel()
			// One script with all contexts: also more work for the parser.
			var src, names, wants []string
			for _, c := range contexts {
				src = append(src, c.script)
				names = append(names, c.name)
				wants = append(wants, c.want)
			}
			s, problems := ParseScript(strings.Join(src, "\nprintf '\\036'\n")+"\n", shell, exprAt, fullScope())
			if len(problems) > 0 {
				t.Fatalf("%v: %v", shell, problems)
			}
			for _, v := range hostile {
				env := fullEnv(v)
				got, dir := runScript(t, bin, tt.run[1:], s, env)
				outs := strings.Split(got, "\x1e")
				if len(outs) != len(wants) {
					t.Errorf("%v %q: %d outputs instead of %d: %q", tt.run, v, len(outs), len(wants), got)
					continue
				}
				for i, want := range wants {
					if names[i] == "regular expression" && v == "" {
						continue
					}
					if want = strings.ReplaceAll(want, "V", v); outs[i] != want {
						t.Errorf("%v %q %s: got %q, want %q", tt.run, v, names[i], outs[i], want)
					}
				}
				if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 {
					t.Errorf("%v %q: something was executed or written: %q", tt.run, v, files)
				}
			}
		})
	}
}

// runScript runs a script in an empty folder and returns its output.
func runScript(t *testing.T, bin string, args []string, s *Script, env *Env) (out, dir string) {
	t.Helper()
	dir = t.TempDir()
	text, vars, err := s.Render(env)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, append(args, file)...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, vars...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%s %q: %v: %s\n%s", bin, vars, err, stderr.String(), text)
	}
	return stdout.String(), dir
}

// Offsets hold in scripts with very long lines and very many of them.
func TestScriptLongSource(t *testing.T) {
	t.Parallel()
	src := "printf '[%s]' " + strings.Repeat("x", 70000) + " ${{ item }} '${{ item }}' | tail -c +70003\n" +
		strings.Repeat("\n", 40000) + "printf '[%s]' ${{ item }} '${{ item }}'"
	s, problems := ParseScript(src, nil, exprAt, fullScope())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, v := range []string{"a b", "$(touch pwned)", "'"} {
		if got, _ := runScript(t, "bash", nil, s, fullEnv(v)); got != strings.Repeat("["+v+"]", 4) {
			t.Errorf("got %q", got)
		}
	}
}

// A redirection to a templated file makes exactly that file.
func TestScriptRedirect(t *testing.T) {
	t.Parallel()
	s, problems := ParseScript("printf x > ${{ item }}\nprintf y >> ./'${{ item }}'\ncat < ${{ item }}", nil, exprAt, fullScope())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, v := range []string{"a b", "$(touch pwned)", "-n", "*", "x\ny", "\xff", "`id`"} {
		got, dir := runScript(t, "bash", nil, s, fullEnv(v))
		files, _ := os.ReadDir(dir)
		if b, err := os.ReadFile(filepath.Join(dir, v)); got != "xy" || string(b) != "xy" || err != nil || len(files) != 2 {
			t.Errorf("%q: got %q, file %q, %v, %d files", v, got, b, err, len(files))
		}
	}
}

// Whatever script with a template is accepted, the value is not parsed: the
// shell prints it or fails, but executes nothing of it.
func FuzzScript(f *testing.F) {
	for _, c := range shellContexts {
		f.Add(c.script)
	}
	for _, c := range bashContexts {
		f.Add(c.script)
	}
	for _, r := range rejectedScripts {
		f.Add(r.script)
	}
	f.Fuzz(func(t *testing.T, src string) {
		for _, shell := range [][]string{nil, {"sh"}, {"zsh"}, {"ksh"}} {
			s, problems := ParseScript(src, shell, exprAt, fullScope())
			if (s == nil) != (problems.Err() != nil) {
				t.Fatalf("%v with %v", s, problems)
			}
			if s == nil {
				continue
			}
			text, vars, err := s.Render(fullEnv("v"))
			if err != nil {
				continue
			}
			if len(vars) == 0 && !HasTemplate(src) && text != src {
				t.Fatalf("%q became %q", src, text)
			}
			// Every variable is used.
			if refs := strings.Count(text, "${"+scriptVar); len(vars) > refs {
				t.Fatalf("%v %q became %q", shell, src, text)
			}
		}
	})
}
