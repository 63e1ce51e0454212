package aws

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

var _ planner.S3 = (*S3)(nil)

// TestRealServer plans maps over a real S3 server. Its parts share the server
// and, by way of the environment, its credentials.
func TestRealServer(t *testing.T) {
	server := s3server.Start(t)
	server.Setenv(t)
	s, err := NewS3(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put := func(bucket string, objects map[string]string) {
		t.Helper()
		c, err := s.client(t.Context(), cloud.S3Location{Bucket: bucket})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
			t.Fatal(err)
		}
		for key, body := range objects {
			if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)}); err != nil {
				t.Fatalf("put %q: %v", key, err)
			}
		}
	}
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	io.WriteString(z, "one\ntwo\n")
	z.Close()
	put("taxi", map[string]string{
		"trip data/yellow 2019-01.parquet": "a", "trip data/yellow 2019-02.parquet": "bb", "trip data/yellow 2020-01.parquet": "c",
		"trip data/.hidden.parquet": "x", "trip data/marker/": "", "trip data/old/yellow 2018-12.parquet": "old",
		"odd/a+b.csv": "", "odd/100%.csv": "", "odd/é ü.csv": "", "odd/new\nline.csv": "", "odd/&<>\"'.csv": "", "odd/#?.csv": "",
		"ids.txt": "first\r\n\nlast", "ids.gz": gz.String(), "rows.csv": "id,name\n1,\"x\ny\"\n", "rows.jsonl": "{\"b\":1,\"a\":2}\n",
		"bad.csv": "a,b\n1\n",
	})
	put("empty", nil)
	// Files that lie in the server's folder are objects; a folder of them is
	// longer than a page.
	var many []string
	for i := range 4200 {
		name := fmt.Sprintf("part-%05d.csv", i)
		many = append(many, "s3://taxi/many/"+name)
		dir := filepath.Join(server.Dir, "taxi", "many")
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}

	items := func(t *testing.T, mapping string) ([]any, error) {
		t.Helper()
		doc, problems := spec.Parse([]byte("name: x\nfunctions:\n  f:\n    map: "+mapping+"\n    command: [\"true\"]\n"), "p.yaml")
		if err := problems.Err(); err != nil {
			t.Fatal(err)
		}
		p, problems := doc.Bind(spec.BindOptions{})
		if err := problems.Err(); err != nil {
			t.Fatal(err)
		}
		in := planner.Inputs{Dir: t.TempDir(), S3: func() (planner.S3, error) { return NewS3(t.Context()) }}
		plan, err := planner.Make(t.Context(), p, in, planner.Options{})
		if err != nil {
			return nil, err
		}
		var lines bytes.Buffer
		if err := planner.WriteItemsJSON(&lines, "f", plan.Functions[0].Items); err != nil {
			t.Fatal(err)
		}
		var got []any
		err = plan.Functions[0].Items.Each(0, plan.Functions[0].Tasks, func(_ int, v any) error {
			got = append(got, v)
			return nil
		})
		return got, err
	}
	paths := func(prefix string, names ...string) []string {
		for i := range names {
			names[i] = prefix + names[i]
		}
		return names
	}
	tests := []struct {
		mapping string
		want    []string
	}{
		{`s3://taxi/trip data/yellow 2019-*.parquet`, paths("s3://taxi/trip data/yellow 2019-", "01.parquet", "02.parquet")},
		{`{glob: "s3://taxi/trip data/*", exclude: "s3://taxi/trip data/*2019*"}`, paths("s3://taxi/trip data/", "yellow 2020-01.parquet")},
		{`{glob: "s3://taxi/trip data/**", sort: -size, limit: 2}`, paths("s3://taxi/trip data/", "old/yellow 2018-12.parquet", "yellow 2019-02.parquet")},
		{`{glob: "s3://taxi/**/*2018*", where: item.size == 3 and item.bucket == "taxi"}`, paths("s3://taxi/trip data/old/", "yellow 2018-12.parquet")},
		{`s3://taxi/odd/*`, paths("s3://taxi/odd/", "#?.csv", "&<>\"'.csv", "100%.csv", "a+b.csv", "new\nline.csv", "é ü.csv")},
		{`s3://taxi/ids.txt`, paths("s3://taxi/", "ids.txt")},
		{`{glob: ["s3://taxi/ids.*", "s3://taxi/*.txt"]}`, paths("s3://taxi/", "ids.gz", "ids.txt")},
		{`{glob: "s3://empty/**", allow_empty: true}`, nil},
		{`s3://taxi/many/*.csv`, many},
		{`s3://taxi/**/part-?????.csv`, many},
		{`{lines: s3://taxi/ids.txt}`, []string{"first", "last"}},
		{`{lines: s3://taxi/ids.gz}`, []string{"one", "two"}},
		{`{csv: s3://taxi/rows.csv}`, []string{`{"id":"1","name":"x\ny"}`}},
		{`{jsonl: s3://taxi/rows.jsonl}`, []string{`{"b":1,"a":2}`}},
	}
	for _, tt := range tests {
		t.Run(tt.mapping, func(t *testing.T) {
			list, err := items(t, tt.mapping)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range list {
				got = append(got, value.Text(v))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %d items %.200q, want %d", len(got), got, len(tt.want))
			}
		})
	}
	t.Run("fields", func(t *testing.T) {
		list, err := items(t, `s3://taxi/trip data/yellow 2019-02.parquet`)
		if err != nil {
			t.Fatal(err)
		}
		f := list[0].(*value.File)
		if f.Size != 2 || f.Key != "trip data/yellow 2019-02.parquet" || f.Bucket != "taxi" || f.ETag == "" || f.Modified.IsZero() ||
			strings.Contains(f.ETag, `"`) || f.Stem != "yellow 2019-02" || f.Ext != ".parquet" || f.Dir != "s3://taxi/trip data" {
			t.Errorf("fields: %+v", f)
		}
	})
	failures := []struct {
		mapping string
		problem bool // exit 2
		kind    cloud.Kind
		want    string
	}{
		{`s3://taxi/*.nope`, true, 0, `p.yaml:4:10: functions.f.map.glob: no file matches "s3://taxi/*.nope"`},
		{`s3://taxi/nope.csv`, true, 0, `there is no file "s3://taxi/nope.csv"`},
		{`{lines: s3://taxi/nope.txt}`, true, 0, "there is no object s3://taxi/nope.txt"},
		{`{csv: s3://taxi/bad.csv}`, true, 0, "s3://taxi/bad.csv:2: 1 value, but the header has 2 columns"},
		{`s3://no-such-bucket/*`, false, cloud.KindInvalid, "NoSuchBucket"},
		{`{csv: s3://no-such-bucket/rows.csv}`, false, cloud.KindInvalid, "NoSuchBucket"},
		{`s3://taxi`, true, 0, "buckets are not items"},
		{`{glob: "s3://taxi/*", anonymous: true}`, false, cloud.KindDenied, "this is not public; without anonymous: true"},
	}
	for _, tt := range failures {
		t.Run("fails "+tt.mapping, func(t *testing.T) {
			_, err := items(t, tt.mapping)
			if err == nil {
				t.Fatal("no error")
			}
			var problems spec.Problems
			if errors.As(err, &problems) != tt.problem || cloud.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error of kind %v: %v", cloud.KindOf(err), err)
			}
		})
	}
	t.Run("wrong secret", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
		if _, err := items(t, `s3://taxi/*`); cloud.KindOf(err) != cloud.KindDenied {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no credentials", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		_, err := items(t, `s3://taxi/*`)
		if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), "anonymous: true") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
		_, err := items(t, `s3://taxi/*`)
		if cloud.KindOf(err) != cloud.KindTransient || !strings.Contains(err.Error(), "127.0.0.1:1") {
			t.Errorf("got %v", err)
		}
	})
}
