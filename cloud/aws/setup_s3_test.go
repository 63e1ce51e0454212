package aws

import (
	"testing"

	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// A server for S3 that leaves out some settings of buckets is set up all the
// same, looked at, and taken back.
func TestSetupWithAnotherS3(t *testing.T) {
	s3 := s3server.Start(t)
	s3.Setenv(t)
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", s3.URL)
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
