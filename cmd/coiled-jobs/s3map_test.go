package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// Maps over buckets of two servers, found by nothing but the SDK's own
// environment variables. It cannot be parallel: the SDK reads the process's.
func TestMapsOverBuckets(t *testing.T) {
	objects := map[string]string{
		"trip data/y_2019-01.csv": "one", "trip data/y_2019-02.csv": "", "trip data/y_2020-01.csv": "x", "trip data/.y_2019.csv": "hidden",
		"odd/a+b.csv": "1", "odd/100%.csv": "1", "odd/%41.csv": "1", "odd/a#b?.csv": "1", "odd/é \"'$HOME'.csv": "1",
		"ids.txt": "first\r\n\nlast", "rows.csv": "id,name\n1,\"x, y\"\n",
	}
	t.Run("versitygw", func(t *testing.T) {
		s := s3server.Start(t)
		s.Setenv(t)
		for key, body := range objects {
			path := filepath.Join(s.Dir, "taxi", key)
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(body), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		mapsOverBuckets(t)
		// The server says which region it is in only in the text of a refusal.
		t.Setenv("AWS_REGION", "eu-west-1")
		mapsOverBuckets(t)
		t.Setenv("AWS_REGION", "us-east-1")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
		failsOverBuckets(t, "csv: s3://taxi/rows.csv", "SignatureDoesNotMatch")
	})
	t.Run("moto", func(t *testing.T) {
		s := motoserver.Start(t, motoserver.Options{})
		s.Setenv(t)
		put := func(path, body string) {
			t.Helper()
			req, err := http.NewRequest(http.MethodPut, s.URL+(&url.URL{Path: path}).EscapedPath(), strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != http.StatusOK {
				t.Fatalf("put %s: %s", path, resp.Status)
			}
		}
		put("/taxi", "")
		for key, body := range objects {
			put("/taxi/"+key, body)
		}
		mapsOverBuckets(t)
		t.Setenv("AWS_ENDPOINT_URL_S3", s.URL)
		t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
		mapsOverBuckets(t)
	})
	t.Run("nobody", func(t *testing.T) {
		t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
		t.Setenv("AWS_ACCESS_KEY_ID", "a")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
		failsOverBuckets(t, "glob: s3://taxi/*", "check the network and AWS_ENDPOINT_URL")
	})
	t.Run("no credentials", func(t *testing.T) {
		for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
			t.Setenv(name, "")
		}
		for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
			t.Setenv(name, os.DevNull)
		}
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
		failsOverBuckets(t, "glob: s3://taxi/*", "no AWS credentials: set AWS_PROFILE")
	})
}

const s3Pipeline = `
name: taxi
params:
  bucket: {type: string}
  year: 2019
functions:
  clean:
    map:
      glob: s3://${{ params.bucket }}/trip data/y_${{ params.year }}-*.csv
      where: item.size > 0
    run: printf %s "${{ item.bucket }}:${{ item.key }}:${{ item.stem }}:${{ item.size }}" > "$COILED_JOBS_RESULT"
  odd:
    map: s3://${{ params.bucket }}/odd/*
    run: printf %s ${{ item }} > "$COILED_JOBS_RESULT"
  ids:
    map: {lines: "s3://${{ params.bucket }}/ids.txt"}
    run: printf %s ${{ item }} > "$COILED_JOBS_RESULT"
  rows:
    map: {csv: "s3://${{ params.bucket }}/rows.csv"}
    run: printf %s ${{ item.name }} > "$COILED_JOBS_RESULT"
`

// over runs a command over a pipeline with the SDK's environment.
func over(t *testing.T, home, pipeline string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(home, "pipeline.yaml")
	if err := os.WriteFile(file, []byte(pipeline), 0o666); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		if args[i] == "FILE" {
			args[i] = file
		}
	}
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &errs, append(os.Environ(), "XDG_STATE_HOME="+home))
	return code, out.String(), errs.String()
}

func mapsOverBuckets(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	want := map[string][]string{
		"clean": {"taxi:trip data/y_2019-01.csv:y_2019-01:3"},
		"odd": {"s3://taxi/odd/%41.csv", "s3://taxi/odd/100%.csv", "s3://taxi/odd/a#b?.csv", "s3://taxi/odd/a+b.csv",
			"s3://taxi/odd/é \"'$HOME'.csv"},
		"ids":  {"first", "last"},
		"rows": {"x, y"},
	}
	if code, _, stderr := over(t, home, s3Pipeline, "apply", "FILE", "--param", "bucket=taxi"); code != 0 {
		t.Fatalf("apply: exit %d\n%s", code, stderr)
	}
	for fn, want := range want {
		code, stdout, stderr := over(t, home, s3Pipeline, "results", "latest", fn, "--format", "json")
		var rows []struct{ Result string }
		if err := json.Unmarshal([]byte(stdout), &rows); err != nil || code != 0 {
			t.Fatalf("results %s: exit %d, %v\n%s", fn, code, err, stderr)
		}
		var got []string
		for _, r := range rows {
			got = append(got, r.Result)
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: got %q, want %q", fn, got, want)
		}
	}
	failsOverBuckets(t, "glob: s3://no-such-bucket/*", "list s3://no-such-bucket: the specified bucket does not exist (NoSuchBucket)")
	failsOverBuckets(t, "csv: s3://no-such-bucket/rows.csv", "read s3://no-such-bucket/rows.csv: the specified bucket does not exist (NoSuchBucket)")
	code, _, stderr := over(t, home, "name: x\nfunctions: {f: {map: {csv: s3://taxi/none.csv}, run: 'true'}}", "plan", "FILE")
	if code != 2 || !strings.Contains(stderr, "there is no object s3://taxi/none.csv") {
		t.Errorf("a missing object: exit %d\n%s", code, stderr)
	}
}

// failsOverBuckets plans a map that cannot be listed.
func failsOverBuckets(t *testing.T, form, want string) {
	t.Helper()
	code, stdout, stderr := over(t, t.TempDir(), "name: x\nfunctions: {f: {map: {"+form+"}, run: 'true'}}", "plan", "FILE")
	if code != 3 || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "SDK") && !strings.Contains(stderr, "the SDK says") {
		t.Errorf("%s: exit %d, want 3 with %q\n%s%s", form, code, want, stdout, stderr)
	}
}
