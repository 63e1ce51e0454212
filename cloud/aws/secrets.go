package aws

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

const (
	// secretsRoot is before the names of all parameters of this program; the
	// run follows.
	secretsRoot = "/coiled-jobs/"
	// Systems Manager takes 4 KB for nothing and 8 KB for a few cents a month.
	standardTier, advancedTier = 4 << 10, 8 << 10
	// encodedMark begins a value that Systems Manager would not take as it is.
	encodedMark = "base64:"
	// maxDescription is how long the description of a parameter may be.
	maxDescription = 1024
	// namesAtOnce is how many parameters one request reads or deletes.
	namesAtOnce = 10
)

// The sorts of references to secrets.
const (
	refSSM     = "ssm:"
	refManager = "secretsmanager:"
)

type secretsSSM interface {
	PutParameter(context.Context, *ssm.PutParameterInput, ...func(*ssm.Options)) (*ssm.PutParameterOutput, error)
	GetParameters(context.Context, *ssm.GetParametersInput, ...func(*ssm.Options)) (*ssm.GetParametersOutput, error)
	GetParametersByPath(context.Context, *ssm.GetParametersByPathInput, ...func(*ssm.Options)) (*ssm.GetParametersByPathOutput, error)
	DeleteParameters(context.Context, *ssm.DeleteParametersInput, ...func(*ssm.Options)) (*ssm.DeleteParametersOutput, error)
	DescribeParameters(context.Context, *ssm.DescribeParametersInput, ...func(*ssm.Options)) (*ssm.DescribeParametersOutput, error)
}

type secretsManager interface {
	GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
}

// Secrets hands values to machines by reference: a value lies encrypted in
// Systems Manager while its run lives, and only its name travels. No error and
// no log of it has a value.
type Secrets struct {
	ssm     secretsSSM
	manager secretsManager
	region  string
	// Store is that of the runs whose secrets are kept. It is noted with them,
	// so that a clean-up can ask whether a run is over.
	Store string
}

// OpenSecrets reads the SDK's configuration; region "" is the configured one.
// It does not speak to Amazon yet.
func OpenSecrets(ctx context.Context, region string) (*Secrets, error) {
	cfg, err := regionConfig(ctx, region)
	if err != nil {
		return nil, err
	}
	return &Secrets{ssm: ssm.NewFromConfig(cfg), manager: secretsmanager.NewFromConfig(cfg), region: cfg.Region}, nil
}

var (
	secretName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,199}$`)
	runName       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$`)
	parameterName = regexp.MustCompile(`^/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*(:[A-Za-z0-9_.-]+)?$`)
)

func secretError(op, what, why string) error {
	return &cloud.Error{Op: op, Resource: what, Kind: cloud.KindInvalid, Err: errors.New(why)}
}

func secretsPath(op, run string) (string, error) {
	if !runName.MatchString(run) {
		return "", secretError(op, fmt.Sprintf("secrets of run %q", run), "that is no run")
	}
	return secretsRoot + run + "/", nil
}

// PutSecrets keeps the values that a run got from its caller's environment, by
// the variable they become, and returns their references. What a run put
// before is replaced; after an error DeleteSecrets removes what is there.
func (s *Secrets) PutSecrets(ctx context.Context, run string, values map[string]string) (refs map[string]string, err error) {
	path, err := secretsPath("keep", run)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(values))
	encoded := make(map[string]string, len(values))
	for _, name := range names { // all before the first is sent
		if !secretName.MatchString(name) {
			return nil, secretError("keep", fmt.Sprintf("secret %q", name), "the name of a secret is that of a variable: letters, digits and _")
		}
		encoded[name] = encodeSecret(values[name])
		if n := len(encoded[name]); n > advancedTier {
			return nil, secretError("keep", "secret "+name, fmt.Sprintf("its value has %d bytes, Systems Manager takes %d: "+
				"keep it in Secrets Manager and write %s: secretsmanager:NAME, or in an object that the task reads", n, advancedTier, name))
		}
	}
	refs = make(map[string]string, len(values))
	for _, name := range names {
		in := &ssm.PutParameterInput{Name: aws.String(path + name), Value: aws.String(encoded[name]), Type: types.ParameterTypeSecureString,
			Overwrite: aws.Bool(true), Tier: types.ParameterTierStandard}
		if s.Store != "" && len(s.Store) <= maxDescription {
			in.Description = aws.String(s.Store)
		}
		if len(encoded[name]) > standardTier {
			in.Tier = types.ParameterTierAdvanced
		}
		err := s.call(ctx, "keep", "secret "+name, "ssm:PutParameter", path+name, func(ctx context.Context) error {
			_, err := s.ssm.PutParameter(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		refs[name] = refSSM + path + name
	}
	return refs, nil
}

// encodeSecret makes text that Systems Manager takes: it refuses empty values
// and those with {{, and may change what is not plain text.
func encodeSecret(v string) string {
	odd := v == "" || !utf8.ValidString(v) || strings.Contains(v, "{{") || strings.HasPrefix(v, encodedMark) || strings.TrimSpace(v) != v
	if !odd && strings.IndexFunc(v, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) < 0 {
		return v
	}
	return encodedMark + base64.StdEncoding.EncodeToString([]byte(v))
}

func decodeSecret(v string) (string, error) {
	text, ok := strings.CutPrefix(v, encodedMark)
	if !ok {
		return v, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", errors.New("its stored form is damaged") // the cause would quote it
	}
	return string(b), nil
}

// DeleteSecrets removes what PutSecrets kept of a run. It may be repeated.
func (s *Secrets) DeleteSecrets(ctx context.Context, run string) error {
	path, err := secretsPath("delete", run)
	if err != nil {
		return err
	}
	var names []string
	in := &ssm.GetParametersByPathInput{Path: aws.String(strings.TrimSuffix(path, "/")), WithDecryption: aws.Bool(false)}
	for {
		var out *ssm.GetParametersByPathOutput
		err := s.call(ctx, "list", "secrets of "+run, "ssm:GetParametersByPath", path+"*", func(ctx context.Context) (err error) {
			out, err = s.ssm.GetParametersByPath(ctx, in)
			return err
		})
		if err != nil {
			return err
		}
		for _, p := range out.Parameters {
			names = append(names, aws.ToString(p.Name))
		}
		if aws.ToString(out.NextToken) == "" {
			return s.deleteParameters(ctx, names)
		}
		in.NextToken = out.NextToken
	}
}

// deleteParameters removes parameters; those that are gone are no error.
func (s *Secrets) deleteParameters(ctx context.Context, names []string) error {
	var errs []error
	for chunk := range slices.Chunk(names, namesAtOnce) {
		errs = append(errs, s.call(ctx, "delete", fmt.Sprintf("%d secrets", len(chunk)), "ssm:DeleteParameters", secretsRoot+"*", func(ctx context.Context) error {
			_, err := s.ssm.DeleteParameters(ctx, &ssm.DeleteParametersInput{Names: chunk})
			return err
		}))
	}
	return errors.Join(errs...)
}

// Resolve is the value behind a reference: ssm:/name or secretsmanager:name.
func (s *Secrets) Resolve(ctx context.Context, ref string) (string, error) {
	values, err := s.ResolveAll(ctx, map[string]string{"": ref})
	return values[""], err
}

// ResolveAll is the values behind references, by the variables they become. A
// fleet of machines asks at the same time: several are read with one request.
func (s *Secrets) ResolveAll(ctx context.Context, refs map[string]string) (map[string]string, error) {
	values := make(map[string]string, len(refs))
	byName := map[string][]string{} // parameters, and the variables they become
	for _, key := range slices.Sorted(maps.Keys(refs)) {
		ref := refs[key]
		switch {
		case strings.HasPrefix(ref, refSSM) && parameterName.MatchString(ref[len(refSSM):]):
			name := ref[len(refSSM):]
			byName[name] = append(byName[name], key)
		case strings.HasPrefix(ref, refManager) && len(ref) > len(refManager):
			v, err := s.fromManager(ctx, ref)
			if err != nil {
				return nil, err
			}
			values[key] = v
		default:
			return nil, secretError("read", fmt.Sprintf("secret %q", ref), "a reference is written ssm:/name or secretsmanager:name")
		}
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(byName)), namesAtOnce) {
		got, err := s.fromParameters(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for name, v := range got {
			for _, key := range byName[name] {
				values[key] = v
			}
		}
	}
	return values, nil
}

func (s *Secrets) fromParameters(ctx context.Context, names []string) (map[string]string, error) {
	what := "secret " + refSSM + names[0]
	if len(names) > 1 {
		what += fmt.Sprintf(" and %d others", len(names)-1)
	}
	var out *ssm.GetParametersOutput
	err := s.call(ctx, "read", what, "ssm:GetParameters", strings.Join(names, ", "), func(ctx context.Context) (err error) {
		out, err = s.ssm.GetParameters(ctx, &ssm.GetParametersInput{Names: names, WithDecryption: aws.Bool(true)})
		return err
	})
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(names))
	for _, p := range out.Parameters {
		name := aws.ToString(p.Name) + aws.ToString(p.Selector)
		v := aws.ToString(p.Value)
		if strings.HasPrefix(name, secretsRoot) {
			if v, err = decodeSecret(v); err != nil {
				return nil, &cloud.Error{Op: "read", Resource: "secret " + refSSM + name, Kind: cloud.KindCorrupt, Err: err}
			}
		}
		values[name] = v
	}
	for _, name := range names {
		if _, ok := values[name]; !ok {
			return nil, &cloud.Error{Op: "read", Resource: "secret " + refSSM + name, Kind: cloud.KindNotFound,
				Err: fmt.Errorf("there is no such parameter in %s", s.region)}
		}
	}
	return values, nil
}

func (s *Secrets) fromManager(ctx context.Context, ref string) (string, error) {
	name := ref[len(refManager):]
	var out *secretsmanager.GetSecretValueOutput
	err := s.call(ctx, "read", "secret "+ref, "secretsmanager:GetSecretValue", name, func(ctx context.Context) (err error) {
		out, err = s.manager.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(name)})
		return err
	})
	if err != nil {
		return "", err
	}
	if out.SecretString == nil {
		return string(out.SecretBinary), nil
	}
	return *out.SecretString, nil
}

// call makes a request, again while it is throttled. What Amazon says about a
// refused value may quote it: of such errors only the code is kept.
func (s *Secrets) call(ctx context.Context, op, what, action, on string, do func(context.Context) error) error {
	return again(ctx, ec2Patience, passing, func(ctx context.Context) error {
		err := do(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if kind, _ := classify(err); kind == cloud.KindDenied && isCode(err, "AccessDeniedException", "AccessDenied") {
			return &cloud.Error{Op: op, Resource: what, Kind: kind, Err: fmt.Errorf("the credentials lack the permission %s on %s "+
				`(or kms:Decrypt on the key it is encrypted with); a machine's role gets it with "coiled-jobs setup aws --secret"`, action, on)}
		}
		if code := codeOf(err); code != "" {
			kind, _ := classify(err)
			if a := advice[code]; a != "" {
				code += "; " + a
			}
			return &cloud.Error{Op: op, Resource: what, Kind: kind, Err: errors.New(code)}
		}
		return mapError(ctx, op, what, err)
	})
}
