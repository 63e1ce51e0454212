package hypervisor_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/internal/hypervisor"
)

// The tests wait for machines: they need no CPU each.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// rig is a region with machines that run a script in place of the agent.
type rig struct{ *hypervisor.Region }

const agentScript = `#!/bin/bash
%s
`

// launch starts one machine that runs a script.
func (r *rig) launch(t *testing.T, run, script string, change func(*aws.UserData)) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprintf(z, agentScript, script)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	if err := os.MkdirAll(filepath.Join(r.S3Dir, "store", run), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.S3Dir, "store", run, "agent.gz"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	u := aws.UserData{MaxLife: time.Hour, Agent: r.S3 + "/store/" + run + "/agent.gz", SHA256: hex.EncodeToString(sum[:]),
		Log: r.S3 + "/store/" + run + "/boot.log", Region: "us-east-1", Args: []string{"it's", ""}}
	if change != nil {
		change(&u)
	}
	data, err := u.Script()
	if err != nil {
		t.Fatal(err)
	}
	m, err := aws.OpenMachines(t.Context(), aws.MachinesOptions{Template: func(cloud.MachineSpec) (aws.Template, error) {
		return aws.Template{UserData: data, Profile: "coiled-jobs-machine"}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Launch(t.Context(), cloud.MachineSpec{Run: run, Token: "t", Count: 1, Types: []string{"m5.large"}, Spot: "spot"})
	if err != nil || len(got) != 1 {
		t.Fatalf("%d machines, %v", len(got), err)
	}
	t.Cleanup(func() {
		if err := m.Clean(context.Background(), run); err != nil {
			t.Error(err)
		}
	})
	return got[0].ID
}

// until waits for what a machine does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// ended waits for a machine's end and says how it came.
func (r *rig) ended(t *testing.T, id string) hypervisor.Machine {
	t.Helper()
	var found hypervisor.Machine
	until(t, id+" ends", func() bool {
		for _, m := range r.Machines() {
			if m.ID == id {
				found = m
			}
		}
		return !found.Ended.IsZero()
	})
	return found
}

// gone waits until EC2 says that a machine has ended.
func (r *rig) gone(t *testing.T, id string) {
	t.Helper()
	until(t, "EC2 knows the end of "+id, func() bool { return !strings.Contains(fmt.Sprint(r.Inventory().Instances), id) })
}

// says waits for a text in the machine's log.
func (r *rig) says(t *testing.T, id, text string) {
	t.Helper()
	until(t, "the log has "+text, func() bool { return strings.Contains(r.Log(id, "coiled-jobs.log"), text) })
}

// The tests share a region, by way of the environment.
func TestRegion(t *testing.T) {
	r := &rig{hypervisor.Start(t, hypervisor.Options{Hurry: 30})}
	r.Setenv(t)
	t.Run("machines", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *rig, string){
			"power-off": testPowerOff, "failure": testFailure, "terminate": testTerminate, "dead-man": testDeadMan, "re-arm": testRearm,
			"crash": testCrash, "reclaim": testReclaim, "network": testNetwork, "reboot-call": testRebootCall, "wrong-hash": testWrongHash,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, r, name)
			})
		}
	})
	if left := r.Left(10 * time.Second); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func testPowerOff(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `
m=http://169.254.169.254/latest
echo "without a session: $(curl -so /dev/null -w '%{http_code}' $m/meta-data/instance-id)"
s=$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $m/api/token)
i() { echo "$1=$(curl -sf -H "X-aws-ec2-metadata-token: $s" $m/meta-data/$1 || echo none)"; }
i instance-id; i instance-type; i placement/availability-zone; i instance-life-cycle; i spot/instance-action; i iam/security-credentials/
echo "arguments: <$1> <$2>; $HOME $PWD"
ls -d `+r.Dir+` 2>&1 | head -1
echo "processes: $(ps -e 2>/dev/null | wc -l)"
echo 1 >/tmp/x; echo 1 >/etc/changed; (setsid sleep 300 &)
`, nil)
	m := r.ended(t, id)
	if m.How != "powered off" || m.Error != "" || !m.Spot {
		t.Errorf("%+v", m)
	}
	r.gone(t, id)
	log := r.Log(id, "coiled-jobs.log")
	for _, want := range []string{"without a session: 401\n", "instance-id=" + id + "\n", "instance-type=m5.large\n", "placement/availability-zone=us-east-1", "instance-life-cycle=spot\n",
		"spot/instance-action=none\n", "iam/security-credentials/=role-of-coiled-jobs-machine\n", "arguments: <it's> <>; /root /opt/coiled-jobs\n", "cannot access", "ended with status 0\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
	if _, err := os.Stat("/etc/changed"); err == nil {
		t.Error("the machine changes this machine's files")
	}
}

func testFailure(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `echo I cannot go on; exit 3`, nil)
	r.ended(t, id)
	r.gone(t, id)
	b, err := os.ReadFile(filepath.Join(r.S3Dir, "store", run, "boot.log"))
	if err != nil || !strings.Contains(string(b), "I cannot go on\n") || !strings.Contains(string(b), "ended with status 3") {
		t.Errorf("%s, %v", b, err)
	}
}

func testWrongHash(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `touch /var/log/ran`, func(u *aws.UserData) { u.SHA256 = strings.Repeat("0", 64) })
	r.ended(t, id)
	b, err := os.ReadFile(filepath.Join(r.S3Dir, "store", run, "boot.log"))
	if err != nil || !strings.Contains(string(b), "agent.gz: FAILED") || !strings.HasPrefix(r.Log(id, "ran"), "open ") {
		t.Errorf("%s, %v", b, err)
	}
}

func testTerminate(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `trap '' TERM; echo up; sleep 300`, nil)
	r.says(t, id, "up\n")
	m, err := aws.OpenMachines(t.Context(), aws.MachinesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Terminate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if m := r.ended(t, id); m.How != "terminated" {
		t.Errorf("%+v", m)
	}
}

func testDeadMan(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `trap '' TERM; echo up; sleep 300`, func(u *aws.UserData) { u.MaxLife = time.Minute }) // 2 s
	if m := r.ended(t, id); m.How != "powered off" || m.Ended.Sub(m.Begun) < time.Second {
		t.Errorf("%+v", m)
	}
	r.gone(t, id)
}

// A timer can be armed again and again; an agent that is stopped does not keep
// it from going off.
func testRearm(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `
arm() { systemd-run -q --unit=grant --on-active="$1" systemctl poweroff; }
arm 3600 && arm 3600 || echo "armed twice: $?"
systemctl is-active grant.timer
systemctl stop grant.timer && arm 40s && date +armed=%s # 1.3 s
systemctl stop other.timer; echo "no such unit: $?"
systemd-run --nonsense x; echo "no such option: $?"
systemd-run --unit=job -p OOMPolicy=continue bash -c 'echo "$0 HOME=${HOME-unset}" >/var/log/job; exit 1' runs
echo waiting; sleep 300`, nil)
	r.says(t, id, "waiting\n")
	if err := r.Signal(id, "./agent", syscall.SIGSTOP); err != nil {
		t.Error(err)
	}
	if m := r.ended(t, id); m.How != "powered off" {
		t.Errorf("%+v", m)
	}
	log := r.Log(id, "coiled-jobs.log")
	for _, want := range []string{"already loaded", "armed twice: 1\nactive\n", "armed=", "no such unit: 5\n", "no such option: 1\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
	if got := r.Log(id, "job"); got != "runs HOME=unset\n" {
		t.Errorf("the other unit: %q", got)
	}
	r.gone(t, id)
}

// A machine that breaks down is one that runs, for EC2.
func testCrash(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `echo up; sleep 300`, nil)
	r.says(t, id, "up\n")
	if err := r.Crash(id); err != nil {
		t.Fatal(err)
	}
	if m := r.ended(t, id); m.How != "crashed" {
		t.Errorf("%+v", m)
	}
	if !strings.Contains(fmt.Sprint(r.Inventory().Instances), id) {
		t.Error("EC2 says that it ended")
	}
}

func testReclaim(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `
s=$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
echo up
until curl -sf -H "X-aws-ec2-metadata-token: $s" http://169.254.169.254/latest/meta-data/spot/instance-action; do sleep 0.05; done
echo; echo noticed; sleep 300`, nil)
	r.says(t, id, "up\n")
	if err := r.Reclaim(id, time.Second); err != nil {
		t.Fatal(err)
	}
	r.says(t, id, "\"action\": \"terminate\"")
	if m := r.ended(t, id); m.How != "terminated" {
		t.Errorf("%+v", m)
	}
}

func testNetwork(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `echo up; sleep 300`, nil)
	r.says(t, id, "up\n")
	reach := func() error {
		_, err := r.Exec(id, "curl", "-so", "/dev/null", "--connect-timeout", "1", r.S3)
		return err
	}
	if err := reach(); err != nil {
		t.Error(err)
	}
	if err := r.Cut(id); err != nil {
		t.Fatal(err)
	}
	if err := reach(); err == nil {
		t.Error("it is not cut off")
	}
	if err := r.Mend(id); err != nil {
		t.Fatal(err)
	}
	until(t, "it is on the network again", func() bool { return reach() == nil })
}

// The agent's last means, without systemd. It ends only this machine.
func testRebootCall(t *testing.T, r *rig, run string) {
	id := r.launch(t, run, `echo o >/proc/sysrq-trigger; exec python3 -c '
import ctypes
ctypes.CDLL(None).reboot(0x4321fedc)'`, nil)
	if m := r.ended(t, id); m.How != "powered off" {
		t.Errorf("%+v", m)
	}
	r.gone(t, id)
}

// Where no variable says where servers are, they have Amazon's names, here and
// on machines.
func TestNames(t *testing.T) {
	r := &rig{hypervisor.Start(t, hypervisor.Options{Buckets: []string{"store"}})}
	r.Setenv(t)
	t.Setenv("AWS_ENDPOINT_URL", r.EC2) // this process does not know the names
	t.Setenv("SSL_CERT_FILE", "")
	look := "https://store.s3.us-east-1.amazonaws.com/names/agent.gz https://sqs.us-east-1.amazonaws.com/?Action=ListQueues https://s3.us-east-1.amazonaws.com/store/x"
	id := r.launch(t, "names", `for u in `+look+`; do curl -so /dev/null -w '%{http_code} %{ssl_verify_result}\n' "$u"; done`, nil)
	r.ended(t, id)
	r.gone(t, id)
	if log := r.Log(id, "coiled-jobs.log"); !strings.Contains(log, "403 0\n200 0\n403 0\n") {
		t.Errorf("on the machine: %s", log)
	}
	cmd := r.Command("curl", "-sS", "-o", os.DevNull, "-w", "%{http_code}", "--cacert", filepath.Join(r.Dir, "ca.pem"), strings.Fields(look)[0])
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "403" {
		t.Errorf("here: %s, %v", out, err)
	}
}
