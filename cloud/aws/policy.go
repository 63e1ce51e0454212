package aws

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Policy is an IAM policy document.
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement is a permission of a Policy.
type Statement struct {
	Sid       string         `json:",omitempty"`
	Effect    string         // Allow, always
	Principal map[string]any `json:",omitempty"`
	Action    []string
	Resource  []string                  `json:",omitempty"`
	Condition map[string]map[string]any `json:",omitempty"`
}

// JSON is the policy as Amazon's tools read it.
func (p Policy) JSON() string {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return "" // strings alone: cannot be
	}
	return string(b) + "\n"
}

// compact is the policy without white space, which counts against its limit.
func (p Policy) compact() string {
	b, err := json.Marshal(p)
	if err != nil {
		return ""
	}
	return string(b)
}

// The names of what set-up makes: they are the same in every account, so that
// policies can name them.
const (
	MachineRole     = "coiled-jobs-machine"
	CoordinatorRole = "coiled-jobs-coordinator"
	spotRole        = "AWSServiceRoleForEC2Spot"
	spotRolePath    = "/aws-service-role/spot.amazonaws.com/"
)

// PolicyNames are the policies that PolicyFor knows, with who they are for.
var PolicyNames = [][2]string{
	{"person", "who applies, resumes, cancels and cleans up runs"},
	{"github", "the role that a GitHub workflow takes: a person's rights"},
	{"github-trust", "the trust policy of that role; put your repository in"},
	{"setup", "who runs \"coiled-jobs setup aws\", once"},
	{"machine", "the role of machines; set-up makes it"},
	{"coordinator", "the role of the machine of --detach; set-up makes it"},
}

// PolicyFor is a policy for an account, by its name.
func PolicyFor(name string, a Account) (Policy, error) {
	switch name {
	case "person", "github":
		return personPolicy(a), nil
	case "github-trust":
		return githubTrust(a, "OWNER/REPOSITORY"), nil
	case "setup":
		return setupPolicy(a), nil
	case "machine":
		return machinePolicy(a), nil
	case "coordinator":
		return coordinatorPolicy(a), nil
	}
	names := make([]string, 0, len(PolicyNames))
	for _, n := range PolicyNames {
		names = append(names, n[0])
	}
	return Policy{}, fmt.Errorf("there is no policy %q; there are %s", name, strings.Join(names, ", "))
}

// arn is the name of a resource of the account in all regions.
func (a Account) arn(service, region, account, rest string) string {
	return "arn:" + a.Partition + ":" + service + ":" + region + ":" + account + ":" + rest
}

func (a Account) bucketARN(path string) string {
	return a.arn("s3", "", "", "coiled-jobs-"+a.ID+"-*"+path)
}

func (a Account) roleARN(name string) string { return a.arn("iam", "", a.ID, "role/"+name) }

func (a Account) ec2ARN(account, kind string) string {
	return a.arn("ec2", "*", account, kind+"/*")
}

func allow(sid string, actions, resources []string, condition map[string]map[string]any) Statement {
	return Statement{Sid: sid, Effect: "Allow", Action: actions, Resource: resources, Condition: condition}
}

func only(operator, key string, value any) map[string]map[string]any {
	return map[string]map[string]any{operator: {key: value}}
}

// own keeps a permission on buckets to those of the account: a bucket's name
// can be taken by somebody else.
func (a Account) own() map[string]map[string]any {
	return only("StringEquals", "aws:ResourceAccount", a.ID)
}

// machineWrites is what machines write: what they say of themselves, and what
// tasks make. Never the journal, code or the agent.
var machineWrites = []string{"runs/*/agents/*", "runs/*/claims/*", "runs/*/logs/*", "runs/*/results/*", "runs/*/outputs/*", "runs/*/boot/*",
	"pools/*", "software/*", "cache/*"}

// coordinatorWrites is what a coordinator writes. It does not make runs: those
// who apply upload the code and the agent.
var coordinatorWrites = []string{"runs/*", "index/*", "keys/*", "pools/*", "cache/*"}

func (a Account) bucketARNs(paths []string) []string {
	list := make([]string, 0, len(paths))
	for _, p := range paths {
		list = append(list, a.bucketARN("/"+p))
	}
	return list
}

func ec2Trust() Policy {
	return Policy{Version: "2012-10-17", Statement: []Statement{{Effect: "Allow", Principal: map[string]any{"Service": "ec2.amazonaws.com"},
		Action: []string{"sts:AssumeRole"}}}}
}

func githubTrust(a Account, repository string) Policy {
	const provider = "token.actions.githubusercontent.com"
	return Policy{Version: "2012-10-17", Statement: []Statement{{Effect: "Allow",
		Principal: map[string]any{"Federated": a.arn("iam", "", a.ID, "oidc-provider/"+provider)},
		Action:    []string{"sts:AssumeRoleWithWebIdentity"},
		Condition: map[string]map[string]any{
			"StringEquals": {provider + ":aud": "sts.amazonaws.com"},
			"StringLike":   {provider + ":sub": "repo:" + repository + ":*"},
		}}}}
}

// machinePolicy is what a machine may do. It runs other people's code: no
// rights on EC2, none to write what others trust.
func machinePolicy(a Account) Policy {
	return Policy{Version: "2012-10-17", Statement: []Statement{
		allow("ReadStore", []string{"s3:GetObject"}, []string{a.bucketARN("/*")}, a.own()),
		allow("ListStore", []string{"s3:ListBucket"}, []string{a.bucketARN("")}, a.own()),
		allow("Report", []string{"s3:PutObject", "s3:AbortMultipartUpload"}, a.bucketARNs(machineWrites), a.own()),
		allow("TakeWork", []string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:SendMessage"},
			[]string{a.queueARN()}, nil),
		allow("Secrets", []string{"ssm:GetParameter", "ssm:GetParameters"}, []string{a.parameterARN()}, nil),
	}}
}

func (a Account) queueARN() string     { return a.arn("sqs", "*", a.ID, queuePrefix+"*") }
func (a Account) parameterARN() string { return a.arn("ssm", "*", a.ID, "parameter"+secretsRoot+"*") }

// launching is the rights to rent, by tags: only what carries the tag of a run
// can be made, and only that can be ended.
func launching(a Account, passes ...string) []Statement {
	tagKey := "aws:RequestTag/" + tagRun
	made := []string{a.ec2ARN(a.ID, "fleet"), a.ec2ARN(a.ID, "instance"), a.ec2ARN(a.ID, "volume"), a.ec2ARN(a.ID, "network-interface"),
		a.ec2ARN(a.ID, "launch-template")}
	var roles []string
	for _, r := range passes {
		roles = append(roles, a.roleARN(r))
	}
	return []Statement{
		allow("Look", []string{"ec2:DescribeFleets", "ec2:DescribeImages", "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes",
			"ec2:DescribeInstances", "ec2:DescribeLaunchTemplates", "ec2:DescribeSecurityGroups", "ec2:DescribeSpotPriceHistory",
			"ec2:DescribeSubnets", "ec2:DescribeTags", "pricing:GetProducts", "servicequotas:GetServiceQuota", "sqs:ListQueues",
			"ssm:DescribeParameters"}, []string{"*"}, nil),
		allow("Image", []string{"ssm:GetParameter"}, []string{a.arn("ssm", "*", "", "parameter/aws/service/*")}, nil),
		// A spot request carries no tags (see Intent.request), so it cannot be
		// asked for any; what it launches can.
		allow("LaunchWith", []string{"ec2:CreateFleet", "ec2:RunInstances"}, []string{a.ec2ARN("", "image"), a.ec2ARN("", "snapshot"),
			a.ec2ARN(a.ID, "subnet"), a.ec2ARN(a.ID, "security-group"), a.ec2ARN(a.ID, "spot-instances-request")}, nil),
		allow("UseTemplates", []string{"ec2:CreateFleet", "ec2:RunInstances"}, []string{a.ec2ARN(a.ID, "launch-template")},
			only("StringLike", "aws:ResourceTag/"+tagRun, "*")),
		allow("Launch", []string{"ec2:CreateFleet", "ec2:CreateLaunchTemplate", "ec2:RunInstances"}, made, only("StringLike", tagKey, "*")),
		allow("TagNew", []string{"ec2:CreateTags"}, made,
			only("StringEquals", "ec2:CreateAction", []string{"CreateFleet", "CreateLaunchTemplate", "RunInstances"})),
		allow("Retag", []string{"ec2:CreateTags"}, []string{a.ec2ARN(a.ID, "instance"), a.ec2ARN(a.ID, "volume"), a.ec2ARN(a.ID, "network-interface")}, map[string]map[string]any{
			"StringLike":                {"aws:ResourceTag/" + tagRun: "*"},
			"ForAllValues:StringEquals": {"aws:TagKeys": []string{tagRun, tagName}},
		}),
		allow("End", []string{"ec2:DeleteFleets", "ec2:DeleteLaunchTemplate", "ec2:TerminateInstances"}, []string{a.ec2ARN(a.ID, "fleet"),
			a.ec2ARN(a.ID, "instance"), a.ec2ARN(a.ID, "launch-template")}, only("StringLike", "aws:ResourceTag/"+tagRun, "*")),
		allow("GiveRoles", []string{"iam:PassRole"}, roles, only("StringEquals", "iam:PassedToService", "ec2.amazonaws.com")),
		allow("Queues", []string{"sqs:ChangeMessageVisibility", "sqs:CreateQueue", "sqs:DeleteMessage", "sqs:DeleteQueue", "sqs:GetQueueAttributes",
			"sqs:ListQueueTags", "sqs:ReceiveMessage", "sqs:SendMessage", "sqs:TagQueue"}, []string{a.queueARN()}, nil),
	}
}

// coordinatorPolicy is what the machine of --detach may do. It runs no code of
// users.
func coordinatorPolicy(a Account) Policy {
	return Policy{Version: "2012-10-17", Statement: append([]Statement{
		allow("ReadStore", []string{"s3:GetObject"}, []string{a.bucketARN("/*")}, a.own()),
		allow("ListStore", []string{"s3:ListBucket"}, []string{a.bucketARN("")}, a.own()),
		allow("WriteRuns", []string{"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}, a.bucketARNs(coordinatorWrites), a.own()),
		allow("Secrets", []string{"ssm:DeleteParameters", "ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"},
			[]string{a.parameterARN()}, nil),
	}, launching(a, MachineRole)...)}
}

// personPolicy is what somebody needs who works with runs.
func personPolicy(a Account) Policy {
	return Policy{Version: "2012-10-17", Statement: append([]Statement{
		allow("Store", []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"},
			[]string{a.bucketARN("/*")}, a.own()),
		allow("ListStore", []string{"s3:ListBucket"}, []string{a.bucketARN("")}, a.own()),
		allow("Secrets", []string{"ssm:DeleteParameters", "ssm:GetParameter", "ssm:GetParameters",
			"ssm:GetParametersByPath", "ssm:PutParameter"}, []string{a.parameterARN()}, nil),
		allow("CheckSetup", []string{"iam:GetInstanceProfile"}, []string{a.arn("iam", "", a.ID, "instance-profile/"+MachineRole),
			a.arn("iam", "", a.ID, "instance-profile/"+CoordinatorRole)}, nil),
		allow("CheckSpotRole", []string{"iam:ListRoles"}, []string{a.arn("iam", "", a.ID, "role"+spotRolePath+"*")}, nil),
	}, launching(a, MachineRole, CoordinatorRole)...)}
}

// setupPolicy is what somebody needs who sets an account up, or takes the
// set-up back.
func setupPolicy(a Account) Policy {
	roles := []string{a.roleARN(MachineRole), a.roleARN(CoordinatorRole)}
	profiles := []string{a.arn("iam", "", a.ID, "instance-profile/"+MachineRole), a.arn("iam", "", a.ID, "instance-profile/"+CoordinatorRole)}
	return Policy{Version: "2012-10-17", Statement: []Statement{
		allow("Bucket", []string{"s3:CreateBucket", "s3:DeleteBucket", "s3:GetBucketPublicAccessBlock", "s3:GetEncryptionConfiguration",
			"s3:GetLifecycleConfiguration", "s3:ListBucket", "s3:ListBucketVersions", "s3:PutBucketPublicAccessBlock",
			"s3:PutEncryptionConfiguration", "s3:PutLifecycleConfiguration"}, []string{a.bucketARN("")}, nil),
		allow("EmptyBucket", []string{"s3:DeleteObject", "s3:DeleteObjectVersion"}, []string{a.bucketARN("/*")}, a.own()),
		allow("OtherRegions", []string{"s3:ListAllMyBuckets"}, []string{"*"}, nil),
		allow("Roles", []string{"iam:CreateRole", "iam:DeleteRole", "iam:DeleteRolePolicy", "iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies",
			"iam:PassRole", "iam:PutRolePolicy", "iam:TagRole"}, roles, nil),
		allow("Profiles", []string{"iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile",
			"iam:GetInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile"}, profiles, nil),
		allow("SpotRole", []string{"iam:CreateServiceLinkedRole", "iam:ListRoles"}, []string{a.arn("iam", "", a.ID, "role"+spotRolePath+"*")}, nil),
		allow("Look", []string{"ec2:DescribeInstances", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "servicequotas:GetServiceQuota"}, []string{"*"}, nil),
		allow("Group", []string{"ec2:CreateSecurityGroup"}, []string{a.ec2ARN(a.ID, "security-group"), a.ec2ARN(a.ID, "vpc")}, nil),
		allow("TagGroup", []string{"ec2:CreateTags"}, []string{a.ec2ARN(a.ID, "security-group")},
			only("StringEquals", "ec2:CreateAction", "CreateSecurityGroup")),
		allow("DeleteGroup", []string{"ec2:DeleteSecurityGroup"}, []string{a.ec2ARN(a.ID, "security-group")},
			only("StringEquals", "aws:ResourceTag/"+tagName, groupName)),
	}}
}

// actions is all that a policy allows.
func (p Policy) actions() []string {
	var list []string
	for _, s := range p.Statement {
		list = append(list, s.Action...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
