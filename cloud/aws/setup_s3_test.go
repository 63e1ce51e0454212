package aws

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// A server for S3 that leaves out some settings of buckets is set up all the
// same, looked at, and taken back.
func TestSetupWithAnotherS3(t *testing.T) {
	server := motoserver.Start(t, motoserver.Options{})
	other := s3server.Start(t)
	server.Setenv(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", other.URL)
	ctx := t.Context()
	for range 2 {
		s, err := PlanSetup(ctx, SetupOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Do(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	s, err := PlanSetup(ctx, SetupOptions{})
	if err != nil || s.Changes() {
		t.Fatalf("the third time: %v, %v", states(s), err)
	}
	store, err := DefaultStore(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(ctx, "runs/r/x y", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, c := range CheckAccount(ctx, "", "") {
		if c.State == "fail" {
			t.Errorf("%+v", c)
		}
	}
	for _, want := range []string{"kept", "delete", "gone"} {
		p, err := PlanRemoval(ctx, SetupOptions{WithData: want != "kept"})
		if err != nil {
			t.Fatal(err)
		}
		if last := p.Items[len(p.Items)-1]; last.Kind != "bucket" || last.State != want {
			t.Errorf("%+v, want it %s", last, want)
		}
		if err := p.Do(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Amazon is told whose bucket it must be; other servers have owners of their
// own sort.
func TestExpectedOwner(t *testing.T) {
	t.Parallel()
	a := Account{ID: "111122223333"}
	for endpoint, want := range map[string]bool{"": true, "https://s3.us-east-1.amazonaws.com": true, "https://vpce-1.s3.us-east-1.vpce.amazonaws.com": true,
		"http://127.0.0.1:9000": false, "https://amazonaws.com.evil.example": false} {
		c := s3.New(s3.Options{Region: "us-east-1"}, func(o *s3.Options) {
			if endpoint != "" {
				o.BaseEndpoint = &endpoint
			}
		})
		if got := expectedOwner(c, a); (got != nil) != want || got != nil && *got != a.ID {
			t.Errorf("%q: %v", endpoint, got)
		}
	}
}
