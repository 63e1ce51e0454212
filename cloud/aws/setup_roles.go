package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// The inline policies of a role: what every account has, and what this one
// grants beside it.
const (
	basePolicy = "coiled-jobs"
	morePolicy = "coiled-jobs-data-and-secrets"
)

// grant is what machines may do beside the base, by statement.
type grant map[string][]string // Sid -> resources

// grantActions is the actions of a grant's statements.
var grantActions = map[string][]string{
	"ReadData":   {"s3:GetObject"},
	"ListData":   {"s3:ListBucket"},
	"WriteData":  {"s3:PutObject", "s3:AbortMultipartUpload"},
	"Parameters": {"ssm:GetParameter", "ssm:GetParameters"},
	"Secrets":    {"secretsmanager:GetSecretValue"},
}

// grants reads the addresses and names of SetupOptions.
func grants(a Account, o SetupOptions) (grant, error) {
	g := grant{}
	data := func(address, flag string, sids ...string) error {
		rest, ok := strings.CutPrefix(address, "s3://")
		bucket, key, _ := strings.Cut(rest, "/")
		if !ok || bucket == "" || strings.ContainsAny(rest, "*?${}\" ") {
			return &cloud.Error{Op: "grant", Resource: fmt.Sprintf("--%s %q", flag, address), Kind: cloud.KindInvalid,
				Err: fmt.Errorf("write s3://bucket or s3://bucket/prefix, without patterns")}
		}
		for _, sid := range sids {
			g.add(sid, a.arn("s3", "", "", bucket+"/"+key+"*"))
		}
		g.add("ListData", a.arn("s3", "", "", bucket))
		return nil
	}
	for _, r := range o.Read {
		if err := data(r, "read", "ReadData"); err != nil {
			return nil, err
		}
	}
	for _, w := range o.Write {
		if err := data(w, "write", "ReadData", "WriteData"); err != nil {
			return nil, err
		}
	}
	for _, name := range o.Secrets {
		bare := strings.TrimSuffix(name, "*") // a prefix may be granted
		switch {
		case strings.HasPrefix(name, refSSM) && strings.HasPrefix(bare, refSSM+"/") && parameterName.MatchString(strings.TrimSuffix(bare[len(refSSM):], "/")):
			g.add("Parameters", a.arn("ssm", "*", a.ID, "parameter"+name[len(refSSM):]))
		case !strings.HasPrefix(name, refSSM) && managerName(strings.TrimPrefix(name, refManager)):
			// Secrets Manager adds a hyphen and six characters to names.
			g.add("Secrets", a.arn("secretsmanager", "*", a.ID, "secret:"+strings.TrimPrefix(name, refManager)+"-??????"))
		default:
			return nil, &cloud.Error{Op: "grant", Resource: fmt.Sprintf("--secret %q", name), Kind: cloud.KindInvalid,
				Err: fmt.Errorf("write ssm:/name, ssm:/prefix/* or secretsmanager:name")}
		}
	}
	return g, nil
}

func managerName(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_+=.@-") == ""
}

func (g grant) add(sid, resource string) {
	if !slices.Contains(g[sid], resource) {
		g[sid] = append(g[sid], resource)
	}
}

// lists is the part for a coordinator, which lists data when a map is only
// known while the run goes on.
func (g grant) lists() grant {
	some := grant{}
	for _, sid := range []string{"ReadData", "ListData"} {
		if len(g[sid]) > 0 {
			some[sid] = slices.Clone(g[sid])
		}
	}
	return some
}

// policy is the grant as a policy; nil if it grants nothing.
func (g grant) policy() *Policy {
	p := &Policy{Version: "2012-10-17"}
	for _, sid := range []string{"ReadData", "ListData", "WriteData", "Parameters", "Secrets"} {
		if len(g[sid]) > 0 {
			slices.Sort(g[sid])
			p.Statement = append(p.Statement, allow(sid, grantActions[sid], g[sid], nil))
		}
	}
	if len(p.Statement) == 0 {
		return nil
	}
	return p
}

// merge adds what an earlier set-up granted.
func (g grant) merge(document string) error {
	var p Policy
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		return fmt.Errorf("somebody changed it by hand (%w): --forget replaces it", err)
	}
	for _, s := range p.Statement {
		for _, r := range s.Resource {
			if grantActions[s.Sid] != nil {
				g.add(s.Sid, r)
			}
		}
	}
	return nil
}

// roleThere says whether a role exists.
func (x *admin) roleThere(ctx context.Context, name string) (bool, error) {
	err := x.call(ctx, "look at", "role "+name, "iam:GetRole", func(ctx context.Context) error {
		_, err := x.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
		return err
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return false, nil
	}
	return err == nil, err
}

// rolePolicy is an inline policy of a role, "" if there is none.
func (x *admin) rolePolicy(ctx context.Context, role, name string) (string, error) {
	var document string
	err := x.call(ctx, "look at", "role "+role, "iam:GetRolePolicy", func(ctx context.Context) error {
		out, err := x.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &role, PolicyName: &name})
		if err == nil {
			document = aws.ToString(out.PolicyDocument)
		}
		return err
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return "", nil
	}
	if plain, e := url.PathUnescape(document); e == nil && strings.HasPrefix(document, "%7B") {
		document = plain
	}
	return document, err
}

// planRole plans a role with its policies, and the instance profile that gives
// it to machines.
func (x *admin) planRole(ctx context.Context, s *Setup, role, forWhom string, base Policy, more grant, forget bool) error {
	there, err := x.roleThere(ctx, role)
	if err != nil {
		return err
	}
	var haveBase, haveMore string
	if there {
		if haveBase, err = x.rolePolicy(ctx, role, basePolicy); err == nil {
			haveMore, err = x.rolePolicy(ctx, role, morePolicy)
		}
		if err != nil {
			return err
		}
		if haveMore != "" && !forget {
			if err := more.merge(haveMore); err != nil {
				return &cloud.Error{Op: "read", Resource: "the policy " + morePolicy + " of role " + role, Kind: cloud.KindInvalid, Err: err}
			}
		}
	}
	extra := more.policy()
	var todo []func(context.Context) error
	if !there {
		todo = append(todo, func(ctx context.Context) error { return x.createRole(ctx, role, forWhom) })
	}
	if !same(haveBase, &base) {
		todo = append(todo, func(ctx context.Context) error { return x.putPolicy(ctx, role, basePolicy, base) })
	}
	switch {
	case extra == nil && haveMore != "":
		todo = append(todo, func(ctx context.Context) error { return x.deletePolicy(ctx, role, morePolicy) })
	case extra != nil && !same(haveMore, extra):
		todo = append(todo, func(ctx context.Context) error { return x.putPolicy(ctx, role, morePolicy, *extra) })
	}
	detail := "for " + forWhom
	for _, sid := range []string{"ReadData", "WriteData", "Parameters", "Secrets"} {
		for _, r := range more[sid] {
			detail += "; " + strings.ToLower(sid[:1]) + sid[1:] + " " + r[strings.LastIndexByte(r, ':')+1:]
		}
	}
	s.addSteps("role", role, there, detail, todo)
	return x.planProfile(ctx, s, role)
}

// addSteps adds an item whose steps are all or nothing of it.
func (s *Setup) addSteps(kind, name string, there bool, detail string, todo []func(context.Context) error) {
	state := "create"
	switch {
	case len(todo) == 0:
		s.add(kind, name, "there", detail, nil)
		return
	case there:
		state = "update"
	}
	s.add(kind, name, state, detail, func(ctx context.Context) error {
		for _, step := range todo {
			if err := step(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// same says whether a stored policy is the one that is wanted.
func same(document string, want *Policy) bool {
	var a, b any
	return document != "" && json.Unmarshal([]byte(document), &a) == nil && json.Unmarshal([]byte(want.compact()), &b) == nil && reflect.DeepEqual(a, b)
}

func (x *admin) createRole(ctx context.Context, role, forWhom string) error {
	err := x.call(ctx, "create role", role, "iam:CreateRole and iam:TagRole", func(ctx context.Context) error {
		_, err := x.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &role, AssumeRolePolicyDocument: aws.String(ec2Trust().compact()),
			Description: aws.String("For " + forWhom), Tags: []types.Tag{{Key: aws.String(tagName), Value: aws.String("coiled-jobs")}}})
		return err
	})
	if isCode(err, "EntityAlreadyExists") {
		return nil
	}
	return err
}

func (x *admin) putPolicy(ctx context.Context, role, name string, p Policy) error {
	return x.call(ctx, "write the policy of", "role "+role, "iam:PutRolePolicy", func(ctx context.Context) error {
		_, err := x.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &role, PolicyName: &name, PolicyDocument: aws.String(p.compact())})
		return err
	})
}

func (x *admin) deletePolicy(ctx context.Context, role, name string) error {
	err := x.call(ctx, "delete the policy of", "role "+role, "iam:DeleteRolePolicy", func(ctx context.Context) error {
		_, err := x.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &role, PolicyName: &name})
		return err
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	return err
}

// profile is the roles of an instance profile; ok says whether it exists.
func (x *admin) profile(ctx context.Context, name string) (roles []string, ok bool, err error) {
	err = x.call(ctx, "look at", "instance profile "+name, "iam:GetInstanceProfile", func(ctx context.Context) error {
		out, err := x.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
		if err == nil {
			roles = roles[:0]
			for _, r := range out.InstanceProfile.Roles {
				roles = append(roles, aws.ToString(r.RoleName))
			}
		}
		return err
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, false, nil
	}
	return roles, err == nil, err
}

func (x *admin) planProfile(ctx context.Context, s *Setup, name string) error {
	roles, there, err := x.profile(ctx, name)
	if err != nil {
		return err
	}
	if len(roles) > 0 && roles[0] != name {
		return &cloud.Error{Op: "use", Resource: "instance profile " + name, Kind: cloud.KindConflict,
			Err: fmt.Errorf("it gives the role %s: somebody else made it; remove it and try again", roles[0])}
	}
	var todo []func(context.Context) error
	if !there {
		todo = append(todo, func(ctx context.Context) error {
			err := x.call(ctx, "create instance profile", name, "iam:CreateInstanceProfile and iam:TagInstanceProfile", func(ctx context.Context) error {
				_, err := x.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: &name,
					Tags: []types.Tag{{Key: aws.String(tagName), Value: aws.String("coiled-jobs")}}})
				return err
			})
			if isCode(err, "EntityAlreadyExists") {
				return nil
			}
			return err
		})
	}
	if len(roles) == 0 {
		todo = append(todo, func(ctx context.Context) error {
			err := x.call(ctx, "put the role into", "instance profile "+name, "iam:AddRoleToInstanceProfile and iam:PassRole", func(ctx context.Context) error {
				_, err := x.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name})
				return err
			})
			if isCode(err, "LimitExceeded") { // one role is the limit: somebody else just did
				return nil
			}
			return err
		})
	}
	s.addSteps("instance profile", name, there, "gives machines the role", todo)
	return nil
}

func (x *admin) planRoleRemoval(ctx context.Context, s *Setup, name string) error {
	roles, there, err := x.profile(ctx, name)
	if err != nil {
		return err
	}
	if !there {
		s.add("instance profile", name, "gone", "", nil)
	} else {
		s.add("instance profile", name, "delete", "", func(ctx context.Context) error { return x.deleteProfile(ctx, name, roles) })
	}
	if there, err = x.roleThere(ctx, name); err != nil {
		return err
	}
	if !there {
		s.add("role", name, "gone", "", nil)
		return nil
	}
	s.add("role", name, "delete", "", func(ctx context.Context) error { return x.deleteRole(ctx, name) })
	return nil
}

func (x *admin) deleteProfile(ctx context.Context, name string, roles []string) error {
	for _, r := range roles {
		err := x.call(ctx, "empty", "instance profile "+name, "iam:RemoveRoleFromInstanceProfile", func(ctx context.Context) error {
			_, err := x.iam.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: &name, RoleName: aws.String(r)})
			return err
		})
		if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
			return err
		}
	}
	err := x.call(ctx, "delete", "instance profile "+name, "iam:DeleteInstanceProfile", func(ctx context.Context) error {
		_, err := x.iam.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: &name})
		return err
	})
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil
	}
	return err
}

func (x *admin) deleteRole(ctx context.Context, name string) error {
	var policies []string
	err := x.call(ctx, "look at", "role "+name, "iam:ListRolePolicies", func(ctx context.Context) error {
		out, err := x.iam.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &name})
		if err == nil {
			policies = out.PolicyNames
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range policies {
		if err := x.deletePolicy(ctx, name, p); err != nil {
			return err
		}
	}
	err = x.call(ctx, "delete", "role "+name, "iam:DeleteRole", func(ctx context.Context) error {
		_, err := x.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &name})
		return err
	})
	switch {
	case cloud.KindOf(err) == cloud.KindNotFound:
		return nil
	case isCode(err, "DeleteConflict"):
		return &cloud.Error{Op: "delete", Resource: "role " + name, Kind: cloud.KindConflict,
			Err: fmt.Errorf("somebody attached policies to it: detach them and try again")}
	}
	return err
}
