package aws

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/policies")

// example is the account of the documented policies.
var example = Account{ID: "111122223333", Partition: "aws", Region: "us-east-1", Principal: "arn:aws:iam::111122223333:user/you"}

// The files in docs are what the program prints.
func TestPolicyFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "docs", "policies")
	for _, n := range PolicyNames {
		p, err := PolicyFor(n[0], example)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, n[0]+".json")
		if *update {
			if err := os.WriteFile(file, []byte(p.JSON()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(b), p.JSON()); d != "" {
			t.Errorf("%s (go test -run TestPolicyFiles -update writes it): %s", file, d)
		}
		// IAM's limits: 6,144 characters for a policy of a person, 10,240 for
		// all that stand in a role.
		if n := len(p.compact()); n > 6144 {
			t.Errorf("%s has %d characters; IAM takes 6144", file, n)
		}
	}
	if _, err := PolicyFor("root", example); err == nil || !strings.Contains(err.Error(), "person") {
		t.Errorf("an unknown policy: %v", err)
	}
}

// actionsOf is the permissions of operations whose name is not that of their
// permission.
var actionsOf = map[string][]string{
	"s3.HeadBucket": {"s3:ListBucket"}, "s3.ListObjectsV2": {"s3:ListBucket"}, "s3.HeadObject": {"s3:GetObject"},
	"s3.CreateMultipartUpload": {"s3:PutObject"}, "s3.UploadPart": {"s3:PutObject"}, "s3.CompleteMultipartUpload": {"s3:PutObject"},
	"s3.DeleteObjects": {"s3:DeleteObject"}, "s3.ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
	"s3.ListObjectVersions": {"s3:ListBucketVersions", "s3:DeleteObjectVersion"}, "s3.ListBuckets": {"s3:ListAllMyBuckets"},
	"s3.GetPublicAccessBlock": {"s3:GetBucketPublicAccessBlock"}, "s3.PutPublicAccessBlock": {"s3:PutBucketPublicAccessBlock"},
	"s3.GetBucketEncryption": {"s3:GetEncryptionConfiguration"}, "s3.PutBucketEncryption": {"s3:PutEncryptionConfiguration"},
	"s3.GetBucketLifecycleConfiguration": {"s3:GetLifecycleConfiguration"}, "s3.PutBucketLifecycleConfiguration": {"s3:PutLifecycleConfiguration"},
	"sqs.SendMessageBatch": {"sqs:SendMessage"}, "sqs.CreateQueue": {"sqs:CreateQueue", "sqs:TagQueue"},
	"ec2.CreateFleet":               {"ec2:CreateFleet", "ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"},
	"iam.CreateRole":                {"iam:CreateRole", "iam:TagRole"},
	"iam.CreateInstanceProfile":     {"iam:CreateInstanceProfile", "iam:TagInstanceProfile"},
	"iam.AddRoleToInstanceProfile":  {"iam:AddRoleToInstanceProfile", "iam:PassRole"},
	"sts.GetCallerIdentity":         nil, // everybody may
	"secretsmanager.GetSecretValue": nil, // granted by set-up, for the secrets that are named
}

// calls is the operations of the SDK that the program uses: each takes an
// argument of a type named for it.
func calls(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			sel, ok := lit.Type.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if name, isInput := strings.CutSuffix(sel.Sel.Name, "Input"); ok && isInput && name != "" {
				found[pkg.Name+"."+name] = true
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// What the code calls is allowed by the policies, and what they allow is
// called.
func TestPoliciesFitTheCode(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, call := range calls(t) {
		service, name, _ := strings.Cut(call, ".")
		actions, ok := actionsOf[call]
		if !ok {
			actions = []string{service + ":" + name}
		}
		for _, a := range actions {
			used[a] = true
		}
	}
	if !used["s3:GetObject"] || !used["ec2:CreateFleet"] || !used["iam:CreateRole"] || len(used) < 40 {
		t.Fatalf("the search for calls finds too little: %v", slices.Sorted(maps.Keys(used)))
	}
	allowed := map[string]bool{}
	for _, p := range []Policy{personPolicy(example), setupPolicy(example), machinePolicy(example), coordinatorPolicy(example)} {
		for _, a := range p.actions() {
			allowed[a] = true
			if !used[a] {
				t.Errorf("a policy allows %s, which nothing calls", a)
			}
		}
	}
	for a := range used {
		if !allowed[a] {
			t.Errorf("the program needs %s, which no policy allows: add it in policy.go, and run this test with -update", a)
		}
	}
}

// granted says whether a policy has a statement for an action on a resource.
func granted(p Policy, action, resource string) bool {
	for _, s := range p.Statement {
		if slices.Contains(s.Action, action) && slices.ContainsFunc(s.Resource, func(pattern string) bool { return glob(pattern, resource) }) {
			return true
		}
	}
	return false
}

// glob matches as IAM does: * is anything, slashes too.
func glob(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	if !star {
		return s == ""
	}
	for i := range len(s) + 1 {
		if glob(rest, s[i:]) {
			return true
		}
	}
	return false
}

func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	object := func(key string) string { return "arn:aws:s3:::coiled-jobs-111122223333-us-east-1/" + key }
	machine, coordinator, person := machinePolicy(example), coordinatorPolicy(example), personPolicy(example)
	for _, tt := range []struct {
		who      string
		p        Policy
		action   string
		resource string
		want     bool
	}{
		{"machine", machine, "s3:GetObject", object("code/x"), true},
		{"machine", machine, "s3:PutObject", object("runs/r-1/agents/i-1/beat.json"), true},
		{"machine", machine, "s3:PutObject", object("runs/r-1/claims/1-1"), true},
		{"machine", machine, "s3:PutObject", object("runs/r-1/logs/f/1"), true},
		{"machine", machine, "s3:PutObject", object("runs/r-1/results/f/1"), true},
		{"machine", machine, "s3:PutObject", object("runs/r-1/outputs/f/1"), true},
		{"machine", machine, "s3:PutObject", object("runs/r-1/boot/t.log"), true},
		{"machine", machine, "s3:PutObject", object("pools/p/i-1/idle-1.json"), true},
		{"machine", machine, "s3:PutObject", object("software/x"), true},
		{"machine", machine, "s3:PutObject", object("cache/p/f/x"), true},
		{"machine", machine, "s3:PutObject", object("runs/r-1/journal/000000000001"), false},
		{"machine", machine, "s3:PutObject", object("runs/r-1/control/state.json"), false},
		{"machine", machine, "s3:PutObject", object("runs/r-1/header.json"), false},
		{"machine", machine, "s3:PutObject", object("code/x"), false},
		{"machine", machine, "s3:PutObject", object("agent/1-x/linux-amd64.gz"), false},
		{"machine", machine, "s3:DeleteObject", object("runs/r-1/logs/f/1"), false},
		{"machine", machine, "s3:GetObject", "arn:aws:s3:::somebody-else/x", false},
		{"machine", machine, "ssm:GetParameters", "arn:aws:ssm:us-east-1:111122223333:parameter/coiled-jobs/r/X", true},
		{"machine", machine, "ssm:GetParameters", "arn:aws:ssm:us-east-1:111122223333:parameter/prod/db", false},
		{"machine", machine, "sqs:ReceiveMessage", "arn:aws:sqs:us-east-1:111122223333:coiled-jobs-r-1", true},
		{"machine", machine, "sqs:ReceiveMessage", "arn:aws:sqs:us-east-1:111122223333:theirs", false},
		{"machine", machine, "sqs:DeleteQueue", "arn:aws:sqs:us-east-1:111122223333:coiled-jobs-r-1", false},
		{"coordinator", coordinator, "s3:PutObject", object("runs/r-1/journal/000000000001"), true},
		{"coordinator", coordinator, "s3:PutObject", object("agent/1-x/linux-amd64.gz"), false},
		{"coordinator", coordinator, "s3:PutObject", object("code/x"), false},
		{"coordinator", coordinator, "iam:PassRole", "arn:aws:iam::111122223333:role/" + MachineRole, true},
		{"coordinator", coordinator, "iam:PassRole", "arn:aws:iam::111122223333:role/" + CoordinatorRole, false},
		{"person", person, "iam:PassRole", "arn:aws:iam::111122223333:role/" + CoordinatorRole, true},
		{"person", person, "iam:PassRole", "arn:aws:iam::111122223333:role/admin", false},
		{"person", person, "s3:PutObject", object("agent/1-x/linux-amd64.gz"), true},
		{"person", person, "s3:DeleteBucket", "arn:aws:s3:::coiled-jobs-111122223333-us-east-1", false},
	} {
		if got := granted(tt.p, tt.action, tt.resource); got != tt.want {
			t.Errorf("%s: %s on %s: %v", tt.who, tt.action, tt.resource, got)
		}
	}
	// A launch needs each of these, and only the last ones carry a tag then.
	for _, p := range []Policy{person, coordinator} {
		for resource, tagged := range map[string]bool{"image/ami-1": false, "snapshot/s-1": false, "subnet/s-1": false, "security-group/s-1": false,
			"spot-instances-request/sir-1": false, "instance/i-1": true, "volume/v-1": true, "network-interface/n-1": true, "fleet/f-1": true} {
			account := example.ID
			if strings.HasPrefix(resource, "image/") || strings.HasPrefix(resource, "snapshot/") {
				account = ""
			}
			i := slices.IndexFunc(p.Statement, func(s Statement) bool {
				return granted(Policy{Statement: []Statement{s}}, "ec2:RunInstances", "arn:aws:ec2:us-east-1:"+account+":"+resource)
			})
			if i < 0 || (p.Statement[i].Condition != nil) != tagged {
				t.Errorf("a launch with %s: statement %d", resource, i)
			}
		}
	}
	for _, a := range machine.actions() {
		if strings.HasPrefix(a, "ec2:") || strings.HasPrefix(a, "iam:") {
			t.Errorf("a machine may %s", a)
		}
	}
	// What ends or changes something on EC2 is bound to the tag of a run.
	for _, p := range []Policy{person, coordinator} {
		for _, s := range p.Statement {
			for _, a := range s.Action {
				if a != "ec2:TerminateInstances" && a != "ec2:DeleteFleets" && a != "ec2:DeleteLaunchTemplate" && a != "ec2:CreateTags" {
					continue
				}
				if b, err := json.Marshal(s.Condition); err != nil || !strings.Contains(string(b), "aws:ResourceTag/"+tagRun) && !strings.Contains(string(b), "ec2:CreateAction") {
					t.Errorf("%s without a condition: %s, %v", a, b, err)
				}
			}
		}
	}
}

func TestGrants(t *testing.T) {
	t.Parallel()
	for _, o := range []SetupOptions{
		{Read: []string{"bucket"}}, {Read: []string{"s3://"}}, {Read: []string{"s3://b/*"}}, {Write: []string{"s3://${aws:username}/"}}, {Write: []string{"gs://b"}},
		{Secrets: []string{""}}, {Secrets: []string{"ssm:name"}}, {Secrets: []string{"ssm:/"}}, {Secrets: []string{"ssm:*"}}, {Secrets: []string{"secretsmanager:"}},
		{Secrets: []string{"*"}}, {Secrets: []string{"secretsmanager:a*"}}, {Secrets: []string{"a\"b"}},
	} {
		if g, err := grants(example, o); err == nil {
			t.Errorf("%+v grants %v", o, g)
		}
	}
	g, err := grants(example, SetupOptions{Write: []string{"s3://b", "s3://b"}, Secrets: []string{"ssm:/a/*", "secretsmanager:x/y"}})
	if err != nil {
		t.Fatal(err)
	}
	p := g.policy()
	for resource, action := range map[string]string{"arn:aws:s3:::b/k": "s3:PutObject", "arn:aws:s3:::b": "s3:ListBucket",
		"arn:aws:ssm:eu-west-1:111122223333:parameter/a/b": "ssm:GetParameters"} {
		if !granted(*p, action, resource) {
			t.Errorf("%s on %s is not granted by %s", action, resource, p.JSON())
		}
	}
	if granted(*p, "s3:PutObject", "arn:aws:s3:::bb/k") || granted(*p, "ssm:GetParameters", "arn:aws:ssm:eu-west-1:111122223333:parameter/ab") {
		t.Errorf("too much: %s", p.JSON())
	}
	if (grant{}).policy() != nil {
		t.Error("nothing is a policy")
	}
}
