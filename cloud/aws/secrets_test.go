package aws

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// odd is values that must come back as they are.
var odd = map[string]string{
	"PLAIN": "hunter2", "EMPTY": "", "SPACES": "  x \n", "BYTES": "\xff\x00\x01", "TEMPLATE": "{{ssm:/other}}", "MARK": "base64:aGk=", "QUOTES": `"'$(x)` + "`y`",
	"LINES": "-----BEGIN\nKEY-----\n", "UNICODE": "pässwörd 🔑", "LARGE": strings.Repeat("s", 6000), "LAST": "x", "ELEVENTH": "y",
}

func TestSecretsServer(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	ctx := t.Context()
	s, err := OpenSecrets(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	s.Store = "s3://team"
	refs, err := s.PutSecrets(ctx, "etl-1", odd)
	if err != nil || refs["PLAIN"] != "ssm:/coiled-jobs/etl-1/PLAIN" || len(refs) != len(odd) {
		t.Fatalf("%v, %v", refs, err)
	}
	if _, err := s.PutSecrets(ctx, "etl-1", odd); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := s.PutSecrets(ctx, "etl-10", map[string]string{"PLAIN": "other"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.ResolveAll(ctx, refs)
	if err != nil || !maps.Equal(got, odd) {
		for k, v := range odd {
			if got[k] != v {
				t.Errorf("%s: %q, want %q", k, got[k], v)
			}
		}
		t.Fatal(err)
	}
	// Parameters and secrets of other people are taken as they are.
	if _, err := s.ssm.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/prod/db"), Value: aws.String("base64:aGk="), Type: "SecureString"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.manager.(*secretsmanager.Client).CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String("api/key"), SecretString: aws.String("k")}); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{"ssm:/prod/db": "base64:aGk=", "secretsmanager:api/key": "k"} {
		if v, err := s.Resolve(ctx, ref); err != nil || v != want {
			t.Errorf("%s: %q, %v", ref, v, err)
		}
	}
	for ref, kind := range map[string]cloud.Kind{"ssm:/none": cloud.KindNotFound, "secretsmanager:none": cloud.KindNotFound, "": cloud.KindInvalid,
		"ssm:": cloud.KindInvalid, "ssm:/a b": cloud.KindInvalid, "vault:x": cloud.KindInvalid, "ssm:/a/../b'": cloud.KindInvalid} {
		if _, err := s.Resolve(ctx, ref); cloud.KindOf(err) != kind {
			t.Errorf("%q: kind %v: %v", ref, cloud.KindOf(err), err)
		}
	}
	for range 2 {
		if err := s.DeleteSecrets(ctx, "etl-1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Resolve(ctx, refs["PLAIN"]); cloud.KindOf(err) != cloud.KindNotFound {
		t.Errorf("deleted: %v", err)
	}
	if v, err := s.Resolve(ctx, "ssm:/coiled-jobs/etl-10/PLAIN"); err != nil || v != "other" {
		t.Errorf("another run's: %q, %v", v, err)
	}
}

// refusing is a Systems Manager that quotes what it refuses.
type refusing struct {
	secretsSSM
	code  string
	tries int
}

func (r *refusing) PutParameter(_ context.Context, in *ssm.PutParameterInput, _ ...func(*ssm.Options)) (*ssm.PutParameterOutput, error) {
	r.tries++
	return nil, apiErr(r.code, fmt.Sprintf("1 validation error: value %q at 'value' is bad", *in.Value))
}

func (r *refusing) GetParameters(context.Context, *ssm.GetParametersInput, ...func(*ssm.Options)) (*ssm.GetParametersOutput, error) {
	return nil, apiErr(r.code, "hunter2")
}

func TestSecretsNeverInErrors(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{"ValidationException": "ValidationException", "AccessDeniedException": "ssm:PutParameter", "ThrottlingException": "ThrottlingException",
		"ExpiredTokenException": "ExpiredTokenException"} {
		synctest.Test(t, func(t *testing.T) {
			r := &refusing{code: code}
			s := &Secrets{ssm: r, region: "us-east-1"}
			_, err := s.PutSecrets(t.Context(), "r", map[string]string{"TOKEN": "hunter2"})
			if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "TOKEN") {
				t.Errorf("%s: %v", code, err)
			}
			if again := code == "ThrottlingException"; again != (r.tries > 1) {
				t.Errorf("%s: %d tries", code, r.tries)
			}
			if _, err := s.Resolve(t.Context(), "ssm:/coiled-jobs/r/TOKEN"); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", code, err)
			}
		})
	}
	s := &Secrets{ssm: &refusing{}}
	for name, value := range map[string]string{"": "hunter2", "A-B": "hunter2", "A/../B": "hunter2", "BIG": "hunter2" + strings.Repeat("x", 9000), "BIGBYTES": "hunter2\x00" + strings.Repeat("x", 7000)} {
		if _, err := s.PutSecrets(t.Context(), "r", map[string]string{name: value}); cloud.KindOf(err) != cloud.KindInvalid || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, run := range []string{"", "a/b", "../x", "a*", "-x"} {
		if _, err := s.PutSecrets(t.Context(), run, nil); cloud.KindOf(err) != cloud.KindInvalid {
			t.Errorf("run %q: %v", run, err)
		}
		if err := s.DeleteSecrets(t.Context(), run); cloud.KindOf(err) != cloud.KindInvalid {
			t.Errorf("run %q: %v", run, err)
		}
	}
	if _, err := decodeSecret("base64:hunter2!"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("damaged: %v", err)
	}
}
