package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// here runs the program in this process, with a home of its own, and wants an
// exit code.
func here(t *testing.T, home string, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, messages bytes.Buffer
	environ := append(os.Environ(), "HOME="+home, "XDG_STATE_HOME="+home+"/state", "COILED_JOBS_STORE=")
	got := run(t.Context(), args, strings.NewReader(""), &out, &messages, environ)
	if got != code {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, got, code, &out, &messages)
	}
	return out.String(), messages.String()
}

func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Fatalf("%q is not in:\n%s", p, text)
		}
	}
}

// An account's life with this program, on a server that nobody here wrote.
func TestAccount(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	home := t.TempDir()

	out, _ := here(t, home, 3, "doctor", "--cloud", "aws")
	wants(t, out, "fail  aws store", `run "coiled-jobs setup aws --region us-east-1"`, "fail  aws role", "allowed: ec2:RunInstances")
	out, _ = here(t, home, 0, "doctor", "--cloud", "local")
	if strings.Contains(out, "aws") {
		t.Errorf("of the local doctor: %s", out)
	}

	out, messages := here(t, home, 0, "setup", "aws")
	wants(t, out, "create  bucket coiled-jobs-123456789012-us-east-1", "create  role coiled-jobs-machine", "create  security group coiled-jobs", "L-34B43A08",
		"raise it at https://us-east-1.console.aws.amazon.com")
	wants(t, messages, "created instance profile coiled-jobs-coordinator")
	out, _ = here(t, home, 0, "setup", "aws", "--json", "--read", "s3://data/in/")
	var doc setupJSON
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	updated := 0
	for _, i := range doc.Items {
		if i.State == "update" && i.Kind == "role" {
			updated++
		} else if i.State != "there" && i.Kind != "service role" {
			t.Errorf("again: %+v", i)
		}
	}
	if !doc.Done || doc.Store != "s3://coiled-jobs-123456789012-us-east-1" || updated != 2 || len(doc.Quotas) != 4 {
		t.Errorf("%+v", doc)
	}

	out, _ = here(t, home, 0, "doctor", "--json")
	var checks []check
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, c := range checks {
		states[c.Name] = c.State
	}
	for _, name := range []string{"aws", "aws clock", "aws store", "aws role", "aws network", "aws launch"} {
		if states[name] != "ok" {
			t.Errorf("%s is %q: %s", name, states[name], out)
		}
	}

	out, _ = here(t, home, 0, "setup", "aws", "--policy", "person")
	wants(t, out, "ec2:CreateFleet", "arn:aws:iam::123456789012:role/coiled-jobs-machine")
	for _, args := range [][]string{{"setup"}, {"setup", "gcp"}, {"setup", "aws", "--policy", "root"}, {"setup", "aws", "--with-data"}, {"setup", "aws", "--region", "x'y"},
		{"setup", "aws", "--read", "data"}, {"doctor", "--cloud", "gcp"}, {"doctor", "--cloud", "local", "--region", "us-east-1"}} {
		here(t, home, 2, args...)
	}

	out, _ = here(t, home, 0, "setup", "aws", "--delete", "--yes")
	wants(t, out, "delete  bucket", "delete  role coiled-jobs-machine", "kept    service role")
	out, _ = here(t, home, 0, "setup", "aws", "--delete", "--json")
	doc = setupJSON{}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	for _, i := range doc.Items {
		if i.State != "gone" && i.State != "kept" {
			t.Errorf("removed twice: %+v", i)
		}
	}
	here(t, home, 3, "doctor", "--cloud", "aws")
}

// Without credentials every command says what to do, and none of them waits.
func TestAccountWithoutCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	home := t.TempDir()
	_, messages := here(t, home, 3, "setup", "aws")
	wants(t, messages, "no AWS credentials", "aws sso login")
	out, _ := here(t, home, 3, "doctor", "--cloud", "aws")
	wants(t, out, "fail  aws ", "no AWS credentials")
	here(t, home, 0, "doctor")
	out, messages = here(t, home, 0, "setup", "aws", "--policy", "machine")
	wants(t, out, "111122223333", "sqs:ReceiveMessage")
	wants(t, messages, "put its number in place")
	for _, args := range [][]string{{"machines", "--cloud", "aws"}, {"gc", "--cloud", "aws"}} {
		_, messages = here(t, home, 3, args...)
		wants(t, messages, "no AWS credentials")
	}
}
