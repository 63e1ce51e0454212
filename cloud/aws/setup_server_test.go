package aws

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// states is the items of a set-up by what happens to them.
func states(s *Setup) map[string][]string {
	m := map[string][]string{}
	for _, i := range s.Items {
		m[i.State] = append(m[i.State], i.Kind+" "+i.Name)
	}
	return m
}

// TestSetupServer sets an account up on a server that nobody here wrote, and
// takes it back. Its parts share it by way of the environment.
func TestSetupServer(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	ctx := t.Context()
	plan := func(t *testing.T, o SetupOptions) *Setup {
		t.Helper()
		s, err := PlanSetup(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	do := func(t *testing.T, s *Setup) int {
		t.Helper()
		n := 0
		if err := s.Do(ctx, func(SetupItem) { n++ }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := DefaultStore(ctx, ""); cloud.KindOf(err) != cloud.KindInvalid || !strings.Contains(err.Error(), "coiled-jobs setup aws --region us-east-1") {
		t.Errorf("a store before the set-up: %v", err)
	}
	if s, err := PlanRemoval(ctx, SetupOptions{}); err != nil || s.Changes() {
		t.Errorf("a removal before the set-up: %+v, %v", s, err)
	}

	s := plan(t, SetupOptions{})
	if got := states(s); len(got["create"]) != 7 || len(got) != 1 {
		t.Fatalf("a new account: %v", got)
	}
	if again := plan(t, SetupOptions{}); len(states(again)["create"]) != 7 {
		t.Fatal("looking changed something")
	}
	if n := do(t, s); n != 7 {
		t.Errorf("%d things were done", n)
	}
	if s = plan(t, SetupOptions{}); s.Changes() {
		t.Fatalf("after the set-up: %v", states(s))
	}
	store, err := DefaultStore(ctx, "")
	if err != nil || store.URL() != "s3://"+s.Bucket || s.Bucket != "coiled-jobs-"+s.Account.ID+"-us-east-1" {
		t.Fatalf("store: %v, %v", store, err)
	}
	x := s.admin

	t.Run("bucket", func(t *testing.T) {
		b, err := x.bucketState(ctx, s.Bucket)
		if err != nil || b.todo() != "" {
			t.Fatalf("%+v, %v", b, err)
		}
		// Somebody's own rule stays, and what was opened is closed again.
		rule := s3types.LifecycleRule{ID: aws.String("theirs"), Status: s3types.ExpirationStatusEnabled, Filter: &s3types.LifecycleRuleFilter{Prefix: aws.String("theirs/")},
			Expiration: &s3types.LifecycleExpiration{Days: aws.Int32(9)}}
		if _, err := x.s3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: &s.Bucket,
			LifecycleConfiguration: &s3types.BucketLifecycleConfiguration{Rules: []s3types.LifecycleRule{rule}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := x.s3.DeletePublicAccessBlock(ctx, &s3.DeletePublicAccessBlockInput{Bucket: &s.Bucket}); err != nil {
			t.Fatal(err)
		}
		p := plan(t, SetupOptions{})
		if got := states(p); len(got["update"]) != 1 || !strings.Contains(p.Items[0].Detail, "block public access") {
			t.Fatalf("%v: %+v", got, p.Items[0])
		}
		do(t, p)
		if b, err = x.bucketState(ctx, s.Bucket); err != nil || b.todo() != "" || len(b.rules) != 2 {
			t.Fatalf("%+v, %v", b, err)
		}
	})

	t.Run("grants", func(t *testing.T) {
		do(t, plan(t, SetupOptions{Read: []string{"s3://in/data/"}, Secrets: []string{"db-password", "ssm:/prod/db/*"}}))
		do(t, plan(t, SetupOptions{Write: []string{"s3://out"}})) // on top
		doc, err := x.rolePolicy(ctx, MachineRole, morePolicy)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"arn:aws:s3:::in/data/*", "arn:aws:s3:::out/*", "secret:db-password-??????", "parameter/prod/db/*", "s3:PutObject"} {
			if !strings.Contains(doc, want) {
				t.Errorf("the machine's role lacks %s: %s", want, doc)
			}
		}
		if doc, err = x.rolePolicy(ctx, CoordinatorRole, morePolicy); err != nil || !strings.Contains(doc, "arn:aws:s3:::in/data/*") || strings.Contains(doc, "secret") || strings.Contains(doc, "PutObject") {
			t.Errorf("the coordinator's: %s, %v", doc, err)
		}
		if p := plan(t, SetupOptions{}); p.Changes() {
			t.Errorf("a set-up without grants takes some back: %v", states(p))
		}
		do(t, plan(t, SetupOptions{Forget: true}))
		if doc, err = x.rolePolicy(ctx, MachineRole, morePolicy); err != nil || doc != "" {
			t.Errorf("forgotten: %s, %v", doc, err)
		}
	})

	t.Run("a policy that was changed is set back", func(t *testing.T) {
		if err := x.putPolicy(ctx, MachineRole, basePolicy, personPolicy(s.Account)); err != nil {
			t.Fatal(err)
		}
		p := plan(t, SetupOptions{})
		if got := states(p); len(got["update"]) != 1 || got["update"][0] != "role "+MachineRole {
			t.Fatalf("%v", got)
		}
		do(t, p)
		if doc, err := x.rolePolicy(ctx, MachineRole, basePolicy); err != nil || strings.Contains(doc, "ec2:") {
			t.Errorf("%s, %v", doc, err)
		}
	})

	t.Run("machines of the set-up", func(t *testing.T) {
		m, err := OpenMachines(ctx, MachinesOptions{Types: []string{"m5.large"}, Template: func(cloud.MachineSpec) (Template, error) {
			return Template{Profile: MachineRole, Store: store.URL(), Owner: "me"}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Launch(ctx, cloud.MachineSpec{Run: "r1", Token: "t", Count: 2, Spot: "spot"})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Retag(ctx, "r2", got[0].ID); err != nil {
			t.Fatal(err)
		}
		list, err := m.Instances(ctx)
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, i := range list {
			if i.Store != store.URL() || i.Owner != "me" || (i.ID == got[0].ID) != (i.Run == "r2") {
				t.Errorf("%+v", i)
			}
		}
		if _, err := PlanRemoval(ctx, SetupOptions{}); cloud.KindOf(err) != cloud.KindConflict || !strings.Contains(err.Error(), "2 machines live") {
			t.Errorf("a removal under machines: %v", err)
		}
		if err := errors.Join(m.Clean(ctx, "r1"), m.Clean(ctx, "r2")); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("removal", func(t *testing.T) {
		for _, key := range []string{"runs/a b/header.json", "runs/é/x+y"} {
			if err := store.Put(ctx, key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		other := plan(t, SetupOptions{Region: "eu-west-1"})
		if got := states(other); len(got["there"]) != 5 {
			t.Errorf("another region shares the roles: %v", got)
		}
		do(t, other)
		removal := func(o SetupOptions) *Setup {
			t.Helper()
			p, err := PlanRemoval(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			do(t, p)
			return p
		}
		p := removal(SetupOptions{})
		if got := states(p); len(got["kept"]) != 4 || len(got["delete"]) != 1 {
			t.Errorf("roles in use and a bucket with data: %v", got)
		}
		if got := states(removal(SetupOptions{Region: "eu-west-1"})); len(got["kept"]) != 3 {
			t.Errorf("the other region: %v", got)
		}
		if got := states(removal(SetupOptions{WithData: true})); len(got["delete"]) != 5 || len(got["kept"]) != 1 {
			t.Errorf("with data: %v", got)
		}
		if p = removal(SetupOptions{}); p.Changes() {
			t.Errorf("twice: %v", states(p))
		}
		if _, err := DefaultStore(ctx, ""); err == nil {
			t.Error("the bucket is still there")
		}
	})
}
