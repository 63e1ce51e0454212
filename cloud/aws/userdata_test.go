package aws

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// bundle packs a program as the agent is packed.
func bundle(program string) (data []byte, sum string) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, program)
	z.Close()
	h := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(h[:])
}

func validUserData() UserData {
	_, sum := bundle("")
	return UserData{MaxLife: 24 * time.Hour, Agent: "https://coiled-jobs-123456789012-eu-north-1.s3.eu-north-1.amazonaws.com/teams/data/agents/v1.2.3-0123456789abcdef-linux-arm64.gz",
		SHA256: sum, Log: "https://coiled-jobs-123456789012-eu-north-1.s3.eu-north-1.amazonaws.com/teams/data/runs/nyc-taxi-20260101-000000-abcde/boot/0123456789abcdef.log",
		Args: []string{"agent", "--store", "s3://coiled-jobs-123456789012-eu-north-1/teams/data", "--run", "nyc-taxi-20260101-000000-abcde", "--pool", strings.Repeat("a", 64)}}
}

func TestUserDataText(t *testing.T) {
	t.Parallel()
	signed, plain := validUserData(), validUserData()
	signed.Region = "eu-north-1"
	signed.Args = append(signed.Args, "it's $(not) a `command`")
	plain.Agent += "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=" + strings.Repeat("0", 64)
	for name, u := range map[string]UserData{"role": signed, "presigned": plain} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script, err := u.Script()
			if err != nil {
				t.Fatal(err)
			}
			if len(script) >= 2<<10 && u.Region == "" || len(script) > 2500 {
				t.Errorf("%d bytes", len(script))
			}
			lines := strings.Split(string(script), "\n")
			if lines[0] != "#!/bin/bash" || !strings.HasPrefix(lines[2], "if ! systemd-run -q --unit=coiled-jobs-deadline --on-active=86400 systemctl poweroff") {
				t.Errorf("begins with %q", lines[:3])
			}
			check, err := exec.LookPath("shellcheck")
			args := []string{"-e", "SC2016", "-"} // arguments in single quotes do not expand: they should not
			if err != nil {                       // at least its grammar
				check, args = "bash", []string{"-n"}
			}
			cmd := exec.Command(check, args...)
			cmd.Stdin = bytes.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", check, err, out)
			}
		})
	}
}

func TestUserDataInvalid(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*UserData){
		"lives 0s":      func(u *UserData) { u.MaxLife = 0 },
		"no SHA-256":    func(u *UserData) { u.SHA256 = "abc" },
		"no http URL":   func(u *UserData) { u.Agent = "s3://bucket/agent" },
		`"" is no http`: func(u *UserData) { u.Log = "" },
		"no region":     func(u *UserData) { u.Region = "eu; rm -rf /" },
		"NUL":           func(u *UserData) { u.Args = []string{"a\x00b"} },
		"EC2 takes":     func(u *UserData) { u.Args = []string{strings.Repeat("x", 16<<10)} },
	} {
		u := validUserData()
		change(&u)
		if _, err := u.Script(); cloud.KindOf(err) != cloud.KindInvalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// bootMachine runs user data as cloud-init does, with systemd's programs
// replaced: systemd-run notes its arguments and runs what is not for later, as
// systemctl notes that it was called.
type bootMachine struct {
	root, log string
	environ   []string
	failRun   bool // systemd-run fails
}

func (b *bootMachine) boot(t *testing.T, u UserData) (calls string) {
	t.Helper()
	script, err := u.Script()
	if err != nil {
		t.Fatal(err)
	}
	b.root = t.TempDir()
	b.log = filepath.Join(b.root, "log")
	text := strings.NewReplacer("/opt/coiled-jobs", b.root+"/opt", "/var/log/coiled-jobs.log", b.log, "--retry 5", "--retry 0").Replace(string(script))
	bin := filepath.Join(b.root, "bin")
	file := filepath.Join(b.root, "part-001")
	run := `while [ "$1" != /bin/bash ]; do [ $# = 0 ] && exit 0; shift; done; "$@"; exit 0`
	if b.failRun {
		run = "exit 1"
	}
	for path, body := range map[string]string{
		file:                 text,
		bin + "/systemctl":   "#!/bin/bash\necho systemctl \"$@\" >>" + b.root + "/calls\n",
		bin + "/systemd-run": "#!/bin/bash\necho systemd-run \"$@\" >>" + b.root + "/calls\n" + run + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), file)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH")}, b.environ...) // no HOME
	if out, _ := cmd.CombinedOutput(); len(out) > 0 {
		t.Errorf("the boot says %s", out)
	}
	data, err := os.ReadFile(filepath.Join(b.root, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (b *bootMachine) said(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(b.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func TestUserDataRuns(t *testing.T) {
	t.Parallel()
	agent, sum := bundle("#!/bin/bash\necho \"agent $HOME $PWD\"; for a; do echo \"<$a>\"; done; exit \"${1#exit=}\"\n")
	var mu sync.Mutex
	uploads := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			data, _ := io.ReadAll(r.Body)
			if r.ContentLength < 0 {
				w.WriteHeader(http.StatusLengthRequired) // as S3 does
				return
			}
			mu.Lock()
			defer mu.Unlock()
			uploads[r.URL.Path] = string(data)
		case r.URL.Path == "/agent.gz":
			w.Write(agent)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(server.Close)
	tests := []struct {
		name     string
		change   func(*UserData)
		machine  bootMachine
		log      string // in what is uploaded; "": nothing is
		says     []string
		deadline bool
	}{
		{name: "agent ends well", says: []string{"agent /root ", "/opt\n", "<exit=0>\n<>\n<it's $(x) \"y\"\nz>\n", "ended with status 0"}, deadline: true},
		{name: "agent fails", change: func(u *UserData) { u.Args[0] = "exit=3" }, log: "ended with status 3", deadline: true},
		{name: "wrong hash", change: func(u *UserData) { _, u.SHA256 = bundle("another") }, log: "agent.gz: FAILED", deadline: true},
		{name: "no agent", change: func(u *UserData) { u.Agent = server.URL + "/gone?X-Amz-Signature=abc" }, log: "403", deadline: true},
		{name: "no timer", machine: bootMachine{failRun: true}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key := fmt.Sprintf("/log%d", i)
			u := UserData{MaxLife: time.Hour, Agent: server.URL + "/agent.gz", SHA256: sum, Log: server.URL + key + "?X-Amz-Signature=abc&x=%20y",
				Args: []string{"exit=0", "", "it's $(x) \"y\"\nz"}}
			if tt.change != nil {
				tt.change(&u)
			}
			calls := tt.machine.boot(t, u)
			if !strings.HasSuffix(calls, "systemctl poweroff\n") || strings.Count(calls, "\nsystemctl poweroff") != 1 {
				t.Errorf("calls: %s", calls)
			}
			if !strings.HasPrefix(calls, "systemd-run -q --unit=coiled-jobs-deadline --on-active=3600 systemctl poweroff\n") ||
				strings.Contains(calls, "--unit=coiled-jobs -p OOMPolicy=continue") != tt.deadline {
				t.Errorf("calls: %s", calls)
			}
			mu.Lock()
			got, uploaded := uploads[key]
			mu.Unlock()
			if uploaded != (tt.log != "") || !strings.Contains(got, tt.log) || strings.Contains(got, "Signature") {
				t.Errorf("uploaded %v: %s", uploaded, got)
			}
			said := tt.machine.said(t)
			for _, want := range tt.says {
				if !strings.Contains(said, want) {
					t.Errorf("log lacks %q:\n%s", want, said)
				}
			}
		})
	}
}

// The machine's role fetches and uploads, on a real S3 server.
func TestUserDataRole(t *testing.T) {
	server := s3server.Start(t)
	server.Setenv(t)
	c, err := NewS3(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bucket := "store"
	client, err := c.client(t.Context(), cloud.S3Location{Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	agent, sum := bundle("#!/bin/bash\necho the agent ran; exit 7\n")
	key := "agents/v1-linux.gz"
	if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(agent)}); err != nil {
		t.Fatal(err)
	}
	token := "" // the server takes none
	imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const base = "/latest/meta-data/iam/security-credentials/"
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
			io.WriteString(w, "secret-token")
		case r.Header.Get("X-aws-ec2-metadata-token") != "secret-token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == base:
			io.WriteString(w, "machine-role")
		case r.URL.Path == base+"machine-role":
			fmt.Fprintf(w, "{\n  \"Code\" : \"Success\",\n  \"AccessKeyId\" : %q,\n  \"SecretAccessKey\" : %q,\n  \"Token\" : %q,\n  \"Expiration\" : \"x\"\n}", server.Access, server.Secret, token)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer imds.Close()
	b := bootMachine{environ: []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + imds.URL}}
	calls := b.boot(t, UserData{MaxLife: time.Hour, Agent: server.URL + "/store/agents/v1-linux.gz", SHA256: sum, Log: server.URL + "/store/runs/r/boot.log", Region: "us-east-1"})
	if !strings.HasSuffix(calls, "systemctl poweroff\n") {
		t.Errorf("calls: %s", calls)
	}
	data, err := os.ReadFile(filepath.Join(server.Dir, "store/runs/r/boot.log"))
	if err != nil || !strings.Contains(string(data), "the agent ran") || !strings.Contains(string(data), "status 7") || strings.Contains(string(data), server.Secret) {
		t.Errorf("uploaded %s, %v\nlog: %s", data, err, b.said(t))
	}

	// Real roles have session tokens.
	token = "IQoJb3/+=="
	var requests []http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests = append(requests, r.Header)
		w.Write(agent)
	}))
	defer other.Close()
	b.boot(t, UserData{MaxLife: time.Hour, Agent: other.URL + "/agent.gz", SHA256: sum, Log: other.URL + "/log", Region: "eu-north-1"})
	if len(requests) != 2 {
		t.Fatalf("%d requests", len(requests))
	}
	for _, h := range requests {
		auth := h.Get("Authorization")
		if h.Get("X-Amz-Security-Token") != token || !strings.Contains(auth, "x-amz-security-token") || !strings.Contains(auth, "/eu-north-1/s3/aws4_request") ||
			!strings.Contains(auth, "Credential="+server.Access) {
			t.Errorf("request: %v", h)
		}
	}
}
