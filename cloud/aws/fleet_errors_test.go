package aws

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Every code that somebody branches on, as the SDK wraps it.
func TestErrorKinds(t *testing.T) {
	t.Parallel()
	wrapped := func(err error) error {
		return &smithy.OperationError{ServiceID: "EC2", OperationName: "CreateFleet", Err: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusBadRequest}}, Err: err}}
	}
	api := func(code string) error { return wrapped(apiErr(code, "Some text.")) }
	for kind, list := range map[cloud.Kind][]error{
		cloud.KindNotFound: {api("InvalidInstanceID.NotFound"), api("InvalidLaunchTemplateName.NotFoundException"), api("InvalidLaunchTemplateId.NotFound"),
			api("ParameterNotFound"), api("InvalidSubnetID.NotFound"), api("InvalidGroup.NotFound"), api("InvalidAMIID.NotFound"),
			wrapped(&types.QueueDoesNotExist{}), wrapped(&types.ReceiptHandleIsInvalid{}), wrapped(&types.MessageNotInflight{}), api("AWS.SimpleQueueService.NonExistentQueue")},
		cloud.KindConflict: {api("IdempotentParameterMismatch"), api("InvalidLaunchTemplateName.AlreadyExistsException"), api("InvalidGroup.Duplicate"),
			wrapped(&types.QueueDeletedRecently{}), wrapped(&types.QueueNameExists{})},
		cloud.KindNoCapacity: {api("InsufficientInstanceCapacity"), api("UnfulfillableCapacity"), api("Unsupported"), api("InsufficientFreeAddressesInSubnet"),
			api("MaxFleetCountExceeded"), api("ReservationCapacityExceeded")},
		cloud.KindQuota:     {api("MaxSpotInstanceCountExceeded"), api("VcpuLimitExceeded"), api("InstanceLimitExceeded")},
		cloud.KindThrottled: {api("RequestLimitExceeded"), api("EC2ThrottledException"), wrapped(&types.OverLimit{}), wrapped(&types.RequestThrottled{}), api("ThrottlingException")},
		cloud.KindDenied: {api("UnauthorizedOperation"), api("AuthFailure"), api("AuthFailure.ServiceLinkedRoleCreationNotPermitted"), api("AccessDeniedException"),
			api("UnrecognizedClientException"), api("InvalidClientTokenId"), api("OptInRequired"), api("PendingVerification"), api("RequestExpired"), api("InvalidSignatureException")},
		cloud.KindTransient: {api("InternalError"), api("InternalFailure"), api("Unavailable"), api("Server.InternalError")},
		cloud.KindInvalid:   {api("InvalidInstanceID.Malformed"), api("InvalidParameterValue"), api("InvalidParameterCombination"), api("InvalidFleetConfiguration")},
		cloud.KindOther:     {api("SomethingNew"), errors.New("no code")},
	} {
		for _, err := range list {
			got := mapError(t.Context(), "launch", "m7i.large", err)
			if cloud.KindOf(got) != kind || !strings.HasPrefix(got.Error(), "launch m7i.large: ") || codeOf(got) != codeOf(err) {
				t.Errorf("%v is %q, want %q: %v", codeOf(err), cloud.KindOf(got), kind, got)
			}
		}
	}
}

func TestErrorAdvice(t *testing.T) {
	t.Parallel()
	denied := apiErr("UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/dev/me is not authorized to perform: ec2:CreateFleet. Encoded authorization failure message: "+strings.Repeat("x", 500))
	err := ec2Error(t.Context(), "launch", "m7i.large", "ec2:CreateFleet", denied)
	if want := `launch m7i.large: the credentials lack the permission ec2:CreateFleet (arn:aws:sts::123456789012:assumed-role/dev/me); "coiled-jobs setup aws --policy person" prints the policy that a person needs`; err.Error() != want || cloud.KindOf(err) != cloud.KindDenied {
		t.Errorf("got %v, want %v", err, want)
	}
	for _, tt := range []struct{ message, want string }{
		{"iam:PassRole on resource: arn:aws:iam::123456789012:role/coiled-jobs-machine because no identity-based policy allows the iam:PassRole action.",
			"lack the permission iam:PassRole on arn:aws:iam::123456789012:role/coiled-jobs-machine (arn:aws:iam::123456789012:user/me); "},
		{"ec2:RunInstances on resource: arn:aws:ec2:us-east-1:123456789012:instance/* with an explicit deny in a service control policy.",
			"lack the permission ec2:RunInstances on arn:aws:ec2:us-east-1:123456789012:instance/* (arn:aws:iam::123456789012:user/me), with an explicit deny in a service control policy; "},
	} {
		message := "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/me is not authorized to perform: " + tt.message +
			" Encoded authorization failure message: xx"
		l := &launch{m: &Machines{region: "us-east-1"}}
		_, ofPool := l.read(t.Context(), marketSpot, []poolError{{code: "UnauthorizedOperation", message: message, targets: []Target{{Type: "m5.large"}}}})
		for _, err := range []error{ec2Error(t.Context(), "launch", "m5.large", "ec2:CreateFleet", apiErr("UnauthorizedOperation", message)), ofPool} {
			if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "Encoded") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		}
	}
	for op := range queuePermissions {
		err := queueError(t.Context(), op, "q", apiErr("AccessDenied", ""))
		if cloud.KindOf(err) != cloud.KindDenied || !strings.Contains(err.Error(), "the credentials need sqs:") || strings.Contains(err.Error(), "s3:") {
			t.Errorf("%s: %v", op, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if err := queueError(ctx, "send to queue", "q", denied); err != why {
		t.Errorf("after the end: %v", err)
	}
}

func TestNotFoundIDs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want []string
	}{
		{apiErr("InvalidInstanceID.NotFound", "The instance ID 'i-0a1' does not exist"), []string{"i-0a1"}},
		{apiErr("InvalidInstanceID.NotFound", "The instance IDs 'i-0a1, i-0b2' do not exist"), []string{"i-0a1", "i-0b2"}},
		{apiErr("InvalidInstanceID.Malformed", `Invalid id: "i-xyz"`), []string{"i-xyz"}},
		{apiErr("InvalidInstanceID.NotFound", "Gone."), nil},
		{apiErr("UnauthorizedOperation", "i-0a1"), nil},
		{errors.New("i-0a1"), nil},
	} {
		if got := notFoundIDs(tt.err); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestNotKnownYet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code, message string
		yet, zone     bool
	}{
		{"InvalidLaunchTemplateName.NotFoundException", "", true, false},
		{"InvalidParameterValue", "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", true, false},
		{"InvalidParameterValue", "Value (x) for parameter size is invalid.", false, false},
		{"InvalidFleetConfiguration", "Your requested instance type (m7i.large) is not supported in your requested Availability Zone (us-east-1e).", false, true},
		{"InsufficientInstanceCapacity", "", false, false},
	} {
		if yet, zone := notKnownYet(tt.code, tt.message), notInThisZone(tt.code, tt.message); yet != tt.yet || zone != tt.zone {
			t.Errorf("%s: %v and %v", tt.code, yet, zone)
		}
	}
}
