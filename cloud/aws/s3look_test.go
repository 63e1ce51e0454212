package aws

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

func TestLook(t *testing.T) {
	server := s3server.Start(t)
	server.Setenv(t)
	s, err := NewS3(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, body string) {
		t.Helper()
		name := filepath.Join(server.Dir, "out", key)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(body), 0o666); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	look := func(key string) cloud.S3Look {
		t.Helper()
		l, err := s.Look(t.Context(), cloud.S3Location{Bucket: "out"}, key)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	put("there/a b.csv", "1")
	for _, key := range []string{"missing", "miss ing/", "there"} {
		if l := look(key); l.Found {
			t.Errorf("%q: %+v", key, l)
		}
	}
	for _, key := range []string{"there/a b.csv", "there/"} {
		before := look(key)
		if !before.Found || before.Modified.IsZero() || before.Asked.IsZero() || look(key).Since(before) {
			t.Errorf("%q: %+v", key, before)
		}
	}
	below := look("there/")
	put("there/b.csv", "2")
	if !look("there/").Since(below) || look("there/a b.csv").Since(look("there/a b.csv")) {
		t.Error("a second object is not seen")
	}
	if _, err := s.Look(t.Context(), cloud.S3Location{Bucket: "no-such-bucket"}, "x/"); cloud.KindOf(err) != cloud.KindInvalid {
		t.Errorf("no bucket: %v", err)
	}
}
