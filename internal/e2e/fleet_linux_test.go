package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/internal/hypervisor"
)

// TestFleet is one person's day in a region: each part a run with a store of
// its own.
func TestFleet(t *testing.T) {
	t.Parallel()
	r := hypervisor.Start(t, hypervisor.Options{})
	newPerson(t, r, "first").begin()
	t.Run("runs", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *person){
			"two-machines": testTwoMachines, "keepalive": testKeepalive, "cancel": testCancel, "budget": testBudget,
			"bad-agent": testBadAgent, "setup-fails": testSetupFails, "follow": testFollow, "left-alone": testLeftAlone,
			"action-killed": testActionKilled, "action-detached": testActionDetached,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, newPerson(t, r, name))
			})
		}
	})
	if left := r.Left(soon); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// The same where no variable says where servers are: they have Amazon's names
// and speak TLS, with which the SDK sends other requests.
func TestFleetByName(t *testing.T) {
	t.Parallel()
	r := hypervisor.Start(t, hypervisor.Options{Buckets: []string{"team"}})
	newPerson(t, r, "first").begin()
	testTwoMachines(t, newPerson(t, r, "two-machines"))
	if left := r.Left(soon); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Files, the environment, arguments with anything in them, results large and
// small, logs and outputs travel.
func testTwoMachines(t *testing.T, p *person) {
	p.write(map[string]string{
		"pipeline.yaml": `
name: two-machines
cloud: aws
env: {GREETING: "hello 'you'"}
secrets: [TOKEN]
defaults:
  hardware: {vm_type: m5.large, n_workers: 2, keepalive: 0s}
functions:
  words:
    map: {glob: "in/*.txt"}
    run: |
      echo "reading" ${{ item.name }}
      [ "$(printf %s "$TOKEN" | md5sum | cut -c1-8)" = cc85654b ]
      [ -r lib/tool.sh ] && . lib/tool.sh
      mkdir -p out
      wc -w < ${{ item.path }} | tool > "out/$COILED_JOBS_INDEX.count"
      hostname > "$COILED_JOBS_RESULT"
      sleep 0.5   # work enough for the second machine, which may come a few seconds later
    outputs: ["out/${{ index }}.count"]
  big:
    needs: words
    python: lib/big.py:big
    args: ["${{ needs.words.count }}"]
  total:
    needs: [words, big]
    run: |
      cat out/*.count | paste -sd+ | bc > total.txt
      echo "$GREETING" ${{ len(needs.big.result) }} > "$COILED_JOBS_RESULT"
    outputs: [total.txt]
`,
		"lib/tool.sh": "tool() { sed 's/^ *//'; }\n",
		"lib/big.py":  "def big(n):\n    print('big')\n    return 'x' * (300 * 1024 + n)\n",
	})
	words := 0
	for i := range 20 {
		p.write(map[string]string{fmt.Sprintf("in/it's $(no) %02d.txt", i): strings.Repeat("w ", i)})
		words += i
	}
	p.env = []string{"TOKEN=se cret"}
	out := p.run(0, "apply", "pipeline.yaml", "--json", "--yes")
	s := out.status(t)
	if s.Status != "succeeded" || s.Machines != 2 || s.CostUSD <= 0 || s.Functions["words"].Succeeded != 20 {
		t.Errorf("%+v\n%s", s, out.stderr)
	}
	contains(t, out.stderr, "0 machines left")
	if b, err := os.ReadFile(filepath.Join(p.dir, "total.txt")); err != nil || strings.TrimSpace(string(b)) != fmt.Sprint(words) {
		t.Errorf("total.txt: %s, %v; want %d", b, err, words)
	}
	hosts := map[any]bool{}
	for _, h := range p.results("latest", "words") {
		hosts[h] = true
	}
	if len(hosts) != 2 {
		t.Errorf("the work was done on %v", hosts)
	}
	if got := p.results("latest", "total"); !reflect.DeepEqual(got, []any{fmt.Sprintf("hello 'you' %d", 300*1024+20)}) {
		t.Errorf("total: %v", got)
	}
	contains(t, p.run(0, "logs", "latest", "words/7").stdout, "reading it's $(no) 07.txt")
	// From elsewhere, with nothing but the store.
	q := p.elsewhere()
	if again := q.run(0, "status", s.Run, "--json").status(t); again.Status != "succeeded" || again.Machines != 2 {
		t.Errorf("from elsewhere: %+v", again)
	}
	// What is secret is nowhere.
	err := filepath.WalkDir(filepath.Join(p.region.S3Dir, "team", "two-machines"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), "se cret") {
			t.Errorf("%s has the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

const tinyPipeline = `
name: tiny
cloud: aws
defaults:
  hardware: {vm_type: m5.large, n_workers: 1, keepalive: %s}
functions:
  f:
    run: %s
`

// ofRun are the machines that worked for a person's runs: by the agent's words.
func (p *person) machines() []hypervisor.Machine {
	p.t.Helper()
	var mine []hypervisor.Machine
	for _, m := range p.region.Machines() {
		script, err := os.ReadFile(filepath.Join(p.region.Dir, m.ID, "user-data"))
		if err == nil && strings.Contains(string(script), p.store+" ") {
			mine = append(mine, m)
		}
	}
	return mine
}

// A machine that waits takes the next run of its kind; then it goes.
func testKeepalive(t *testing.T, p *person) {
	p.dir = p.home // what the program keeps there is no code
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "20s", "hostname > $COILED_JOBS_RESULT")})
	out := p.run(0, "apply", "pipeline.yaml", "--json", "--yes")
	contains(t, out.stderr, "1 machine waits until")
	first := p.results("latest", "f")
	out = p.run(0, "apply", "pipeline.yaml", "--json", "--yes")
	if s := out.status(t); s.Machines != 1 {
		t.Errorf("%+v", s)
	}
	if again := p.results("latest", "f"); !reflect.DeepEqual(again, first) {
		t.Errorf("the second run was on %v, the first on %v", again, first)
	}
	if n := len(p.machines()); n != 1 {
		t.Errorf("%d machines", n)
	}
	if codes, err := filepath.Glob(filepath.Join(p.region.S3Dir, "team", "keepalive", "code", "*.json")); err != nil || len(codes) != 1 {
		t.Errorf("sent: %q, %v", codes, err)
	}
	until(t, soon, "the machine goes", func() bool { return !p.machines()[0].Ended.IsZero() })
	if m := p.machines()[0]; m.How != "powered off" {
		t.Errorf("%+v", m)
	}
}

func testCancel(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "30s", "|\n      trap '' TERM\n      echo it runs; sleep 300; sleep 300")})
	cmd := p.start("apply", "pipeline.yaml", "--json", "--yes")
	until(t, soon, "the task runs", func() bool {
		out, err := p.command("logs", "latest", "f").Output()
		return err == nil && strings.Contains(string(out), "it runs")
	})
	if err := cmd.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	// That it takes 10 s at most is shown in virtual time, by fleet/sim.
	s := cmd.wait(130, soon).status(t)
	if s.Status != "cancelled" || s.Functions["f"].Cancelled != 1 {
		t.Errorf("%+v", s)
	}
	until(t, soon, "the machine goes", func() bool { return !p.machines()[0].Ended.IsZero() })
}

// Money for two minutes of a machine is the least.
func testBudget(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "0s", "sleep 300")})
	out := p.run(4, "apply", "pipeline.yaml", "--json", "--yes", "--max-cost", "0.0001")
	if s := out.status(t); s.Status != "stopped" || s.CostUSD > 0.0001 {
		t.Errorf("%+v", s)
	}
	contains(t, out.stderr, "limits.cost")
}

// A machine that cannot start says why, and goes.
func testBadAgent(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "0s", "echo hello")})
	p.run(0, "apply", "pipeline.yaml", "--yes")
	damaged := 0
	err := filepath.WalkDir(filepath.Join(p.region.S3Dir, "team", "bad-agent", "agent"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".gz") {
			return err
		}
		damaged++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o644)
	})
	if err != nil || damaged != 1 {
		t.Fatalf("%d programs are published, %v", damaged, err)
	}
	out := p.run(3, "apply", "pipeline.yaml", "--yes")
	contains(t, out.stderr, "agent.gz: FAILED", "0 machines left")
}

// What cannot be installed is a failure with its log, not a machine after
// another.
func testSetupFails(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": fmt.Sprintf(tinyPipeline, "0s", "echo hello") + "software: {setup: \"echo no such thing here; exit 7\"}\n"})
	out := p.run(1, "apply", "pipeline.yaml", "--yes")
	contains(t, out.stderr, "exit status 7: no such thing here", "0 machines left")
	if n := len(p.machines()); n != 1 {
		t.Errorf("%d machines", n)
	}
}

// Machines that nobody looks after end by themselves, also where the agent does
// nothing any more.
func testLeftAlone(t *testing.T, p *person) {
	p.write(map[string]string{"pipeline.yaml": `
name: alone
cloud: aws
limits: {unattended: 20s}
functions:
  f:
    map: {range: 2}
    run: echo it runs; sleep 3600
    hardware: {vm_type: m5.large, n_workers: 2}
`})
	cmd := p.start("apply", "pipeline.yaml", "--yes")
	until(t, soon, "two tasks run", func() bool {
		a, _ := p.command("logs", "latest", "f/0").Output()
		b, _ := p.command("logs", "latest", "f/1").Output()
		return strings.Contains(string(a), "it runs") && strings.Contains(string(b), "it runs")
	})
	machines := p.machines()
	if err := cmd.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.region.Signal(machines[1].ID, "__agent", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, soon, "both machines end", func() bool {
		m := p.machines()
		return !m[0].Ended.IsZero() && !m[1].Ended.IsZero()
	})
	for _, m := range p.machines() {
		if m.How != "powered off" {
			t.Errorf("%+v", m)
		}
	}
	if s := p.run(0, "status", "latest", "--json").status(t); s.Status != "interrupted" {
		t.Errorf("%+v", s)
	}
	p.run(0, "cancel", "latest")
	if s := p.run(0, "status", "latest", "--json").status(t); s.Status != "cancelled" {
		t.Errorf("%+v", s)
	}
}
