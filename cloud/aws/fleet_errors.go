package aws

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// queueError maps an error of SQS. What is denied names the permission.
func queueError(ctx context.Context, op, name string, err error) error {
	if isCode(err, "AccessDenied", "AccessDeniedException") && ctx.Err() == nil {
		return &cloud.Error{Op: op, Resource: name, Kind: cloud.KindDenied, Err: &apiError{err: err,
			msg: fmt.Sprintf("access denied: the credentials need %s on the queues %s*", queuePermissions[op], queuePrefix)}}
	}
	return mapError(ctx, op, name, err)
}

// queuePermissions is what the operations of a queue need.
var queuePermissions = map[string]string{
	"create queue": "sqs:CreateQueue and sqs:TagQueue", "delete queue": "sqs:DeleteQueue", "send to queue": "sqs:SendMessage",
	"receive from queue": "sqs:ReceiveMessage", "remove from queue": "sqs:DeleteMessage", "give back to queue": "sqs:ChangeMessageVisibility",
	"list queues": "sqs:ListQueues and sqs:ListQueueTags", "look at queue": "sqs:GetQueueAttributes",
}

// ec2Error maps an error of EC2 or SSM. What is denied names the action; the
// message of EC2 says which user may not do it, and has an encoded part that
// helps nobody.
func ec2Error(ctx context.Context, op, resource, action string, err error) error {
	if isCode(err, "UnauthorizedOperation", "AccessDenied", "AccessDeniedException") && ctx.Err() == nil {
		var who, why string
		if m := principal.FindString(err.Error()); m != "" {
			who = " (" + m + ")"
		}
		// A request may need more than what it is named for: EC2 mostly says what,
		// and for which resource.
		if m := lacking.FindStringSubmatch(err.Error()); m != nil {
			action = m[1]
			if m[2] != "" {
				action += " on " + m[2]
			}
			if m[3] != "" {
				why = ", " + m[3]
			}
		}
		msg := "the credentials lack the permission " + action
		return &cloud.Error{Op: op, Resource: resource, Kind: cloud.KindDenied, Err: &apiError{err: err, msg: msg + who + why +
			`; "coiled-jobs setup aws --policy person" prints the policy that a person needs`}}
	}
	return mapError(ctx, op, resource, err)
}

var (
	principal = regexp.MustCompile(`arn:aws[a-z-]*:(?:sts|iam)::\S+`)
	lacking   = regexp.MustCompile(`is not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)(?: on resource: (\S*[^\s.]))?(?: (with an explicit deny in [a-z -]+[a-z]))?`)
)

// notFoundIDs is the instances that an error of EC2 does not know, or none.
func notFoundIDs(err error) []string {
	if !isCode(err, "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed") {
		return nil
	}
	return instanceID.FindAllString(err.Error(), -1)
}

// Ids are quoted in the message: The instance IDs 'i-1, i-2' do not exist.
var instanceID = regexp.MustCompile(`\bi-[0-9A-Za-z]+\b`)

// notKnownYet says whether an error may only mean that something was made a
// moment ago: EC2 and IAM tell each other after seconds.
func notKnownYet(code, message string) bool {
	switch code {
	case "InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.VersionNotFound",
		"InvalidGroup.NotFound":
		return true
	case "InvalidParameterValue", "InvalidParameter", "InvalidIamInstanceProfileArn.Malformed":
		return strings.Contains(strings.ToLower(message), "iam instance profile")
	}
	return false
}

// notInThisZone says whether an error is that of a pool that does not exist.
func notInThisZone(code, message string) bool {
	return (code == "InvalidFleetConfiguration" || code == "InvalidParameterValue") &&
		strings.Contains(message, "not supported in your requested Availability Zone")
}

// quota is a limit of the account, in virtual CPUs.
type quota struct{ name, code string }

// quotaOf is the limit on machines of a type.
func quotaOf(instanceType string, spot bool) quota {
	family, _, _ := strings.Cut(instanceType, ".")
	letters := family
	if i := strings.IndexAny(family, "0123456789"); i > 0 {
		letters = family[:i]
	}
	for _, q := range quotas {
		if q.families[letters] {
			if spot {
				return quota{"All " + q.name + " Spot Instance Requests", q.spot}
			}
			return quota{"Running On-Demand " + q.name + " instances", q.onDemand}
		}
	}
	if spot {
		return quota{"the spot vCPUs of the family " + family, ""}
	}
	return quota{"the on-demand vCPUs of the family " + family, ""}
}

var quotas = []struct {
	families       map[string]bool
	name           string
	spot, onDemand string
}{
	{map[string]bool{"a": true, "c": true, "d": true, "h": true, "i": true, "im": true, "is": true, "m": true, "r": true, "t": true, "z": true},
		"Standard (A, C, D, H, I, M, R, T, Z)", "L-34B43A08", "L-1216C47A"},
	{map[string]bool{"g": true, "gr": true, "vt": true}, "G and VT", "L-3819A6DF", "L-DB2E81BA"},
	{map[string]bool{"p": true}, "P", "L-7212CCBC", "L-417A185B"},
}

// link is where the limit is seen and raised.
func (q quota) link(region string) string {
	url := "https://" + region + ".console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
	if q.code != "" {
		url += "/" + q.code
	}
	return url
}

// err is the explanation of a launch that the limit ended.
func (q quota) err(region string, got, want int) error {
	name := fmt.Sprintf("%q", q.name)
	if q.code != "" {
		name += " (" + q.code + ")"
	}
	return fmt.Errorf("%d of %d machines: the account's quota %s, counted in vCPUs, is used up; see and raise it at %s",
		got, want, name, q.link(region))
}
