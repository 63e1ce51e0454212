//go:build unix

package agent

import (
	"context"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestMask(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{"A": "abc", "B": "abcdef", "C": "xx", "D": "line\n", "E": ""}
	tests := []struct{ in, want string }{
		{"", ""},
		{"nothing", "nothing"},
		{"abc", "***"},
		{"abcdef", "***"},
		{"abcde", "***de"},
		{"ababc", "ab***"},
		{"xxx", "***x"},
		{"1abc2abcdef3xx", "1***2***3***"},
		{"line", "***"},
		{"a\nline\nb", "a\n***b"},
		{"abcabcdef", "******"},
	}
	set := newSecretSet(secrets)
	for _, tt := range tests {
		if got := set.maskString(tt.in); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
		// Split in every way into two and into single bytes.
		for cut := 0; cut <= len(tt.in); cut++ {
			m := masker{set: set}
			got := string(m.write([]byte(tt.in[:cut])))
			got += string(m.write([]byte(tt.in[cut:])))
			got += string(m.flush())
			if got != tt.want {
				t.Errorf("%q cut at %d: %q, want %q", tt.in, cut, got, tt.want)
			}
		}
		m, got := masker{set: set}, ""
		for _, b := range []byte(tt.in) {
			got += string(m.write([]byte{b}))
		}
		if got += string(m.flush()); got != tt.want {
			t.Errorf("%q byte by byte: %q, want %q", tt.in, got, tt.want)
		}
	}
}

// A secret of many lines is masked as a whole, line by line and in JSON.
func TestMaskManyLines(t *testing.T) {
	t.Parallel()
	set := newSecretSet(map[string]string{"KEY": "-----BEGIN KEY-----\nabc\"def/+xyz\nEND\n-----END KEY-----\n"})
	for in, want := range map[string]string{
		"-----BEGIN KEY-----\nabc\"def/+xyz\nEND\n-----END KEY-----\n":          "***",
		`{"k": "-----BEGIN KEY-----\nabc\"def/+xyz\nEND\n-----END KEY-----\n"}`: `{"k": "***"}`,
		"  abc\"def/+xyz |":           "  *** |",
		`"abc\"def/+xyz"`:             `"***"`,
		"THE END":                     "THE END",
		"  -----END KEY----- trailer": "  *** trailer",
	} {
		if got := set.maskString(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSecretsDoNotAppear(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
functions:
  sh:
    secrets: [KEY]
    run: |
      printf 'hun'; sleep 0.05; printf 'ter2 is it\n'
      head -c 65533 /dev/zero | tr '\0' y; echo "$KEY"
      echo "the key is $KEY" >&2
      echo "$KEY" > "$COILED_JOBS_RESULT"
      exit 5
  py:
    secrets: [KEY]
    python: leak:f
`)
	w.file("leak.py", "import os\ndef f():\n    print(os.environ['KEY'])\n    raise ValueError('bad key ' + os.environ['KEY'])\n")
	w.run.Secrets = map[string]string{"KEY": "hunter2"}
	w.work(context.Background(), w.all("sh", "py")...)
	for _, fn := range []string{"sh", "py"} {
		o := w.get(fn, 0)
		if o.Status != task.Failed || o.Cause != task.CauseExit {
			t.Errorf("%s: %s %q", fn, o.Cause, o.Message)
		}
		for what, s := range map[string]string{"log": w.log(o), "message": o.Message, "stderr": string(o.Stderr)} {
			if strings.Contains(s, "hunter2") || !strings.Contains(s, "***") {
				t.Errorf("%s: %s: %q", fn, what, s)
			}
		}
	}
}
