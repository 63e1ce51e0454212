package software

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for p, content := range files {
		name := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(name, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func same(t testing.TB, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// machine is one that the tests pretend to have: a PATH with programs of the
// tests before those of the system, and a log.
type machine struct {
	t    testing.TB
	bin  string
	env  []string
	mu   sync.Mutex
	log  []string
	name string
}

func newMachine(t testing.TB, name string) *machine {
	t.Helper()
	m := &machine{t: t, bin: t.TempDir(), name: name}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PATH=") && !strings.HasPrefix(kv, "UV_") && !strings.HasPrefix(kv, "VIRTUAL_ENV=") {
			m.env = append(m.env, kv)
		}
	}
	m.env = append(m.env, "PATH="+m.bin+":"+os.Getenv("PATH"), "LOG="+filepath.Join(m.bin, "calls"))
	return m
}

// program puts a program on the PATH. Scripts append to $LOG what they want to
// be asked about.
func (m *machine) program(name, script string) {
	m.t.Helper()
	write(m.t, m.bin, map[string]string{name: "#!/bin/sh\n" + script})
}

func (m *machine) calls() []string {
	b, err := os.ReadFile(filepath.Join(m.bin, "calls"))
	if err != nil {
		return []string{}
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func (m *machine) config(store cloud.Store, sw spec.Software, dir, root string) Config {
	return Config{Store: store, Software: &sw, Dir: dir, Root: root, Env: m.env, Machine: m.name, Log: func(line string) {
		m.mu.Lock()
		m.log = append(m.log, line)
		m.mu.Unlock()
	}, pace: pace{look: 10 * time.Millisecond, refresh: 20 * time.Millisecond, dead: 2 * time.Second}}
}

func (m *machine) logged(what string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.log, func(l string) bool { return strings.Contains(l, what) })
}

// fakeUV is a uv that makes an environment with one program, of a few files.
const fakeUV = `
echo "uv $*" >>"$LOG"
case "$1 $2" in
"venv "*) for a; do case "$a" in /*/env) env=$a;; esac; done
  mkdir -p "$env/bin" "$env/lib"; ln -s /usr/bin/env "$env/bin/sys"
  printf '#!/bin/sh\necho "python of %s"\n' "$env" >"$env/bin/python"; chmod 755 "$env/bin/python"
  ln "$env/bin/python" "$env/bin/python3";;
"pip install") for a; do last=$a; done
  [ -f "$last" ] && cp "$last" "${UV_PROJECT_ENVIRONMENT}/lib/installed" || true
  if [ -n "$FAIL" ]; then for i in 1 2 3; do echo "line $i"; done; echo "no such package: nonsense" >&2; exit 3; fi
  if [ -n "$SLOW" ]; then sleep "$SLOW"; fi;;
esac
`

// python is a Python with venv and pip, or the test is skipped.
func realPython(t testing.TB) {
	t.Helper()
	if err := exec.Command("python3", "-c", "import venv, ensurepip").Run(); err != nil {
		t.Skip("there is no python3 with venv here")
	}
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
