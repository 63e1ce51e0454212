package aws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// kindsOfCodes maps the error codes of S3, SQS, SSM and EC2 to kinds.
var kindsOfCodes = map[string]cloud.Kind{
	"NoSuchKey": cloud.KindNotFound, "NotFound": cloud.KindNotFound, "NoSuchVersion": cloud.KindNotFound,

	"AccessDenied": cloud.KindDenied, "AllAccessDisabled": cloud.KindDenied, "AccountProblem": cloud.KindDenied,
	"InvalidAccessKeyId": cloud.KindDenied, "SignatureDoesNotMatch": cloud.KindDenied, "ExpiredToken": cloud.KindDenied,
	"InvalidToken": cloud.KindDenied, "TokenRefreshRequired": cloud.KindDenied, "Forbidden": cloud.KindDenied,
	"UnauthorizedAccess": cloud.KindDenied, "InvalidObjectState": cloud.KindDenied, "RequestTimeTooSkewed": cloud.KindDenied,

	"SlowDown": cloud.KindThrottled, "Throttling": cloud.KindThrottled, "ThrottlingException": cloud.KindThrottled,
	"TooManyRequests": cloud.KindThrottled, "RequestLimitExceeded": cloud.KindThrottled, "BandwidthLimitExceeded": cloud.KindThrottled,
	"ServiceUnavailable": cloud.KindThrottled, "Busy": cloud.KindThrottled,

	"PreconditionFailed": cloud.KindConflict, "ConditionalRequestConflict": cloud.KindConflict, "OperationAborted": cloud.KindConflict,

	"InternalError": cloud.KindTransient, "RequestTimeout": cloud.KindTransient, "RequestTimeoutException": cloud.KindTransient,

	// Not KindNotFound: that would read as "there is no such object".
	"NoSuchBucket": cloud.KindInvalid,

	"InvalidBucketName": cloud.KindInvalid, "InvalidArgument": cloud.KindInvalid, "KeyTooLongError": cloud.KindInvalid,
	"InvalidRequest": cloud.KindInvalid, "InvalidURI": cloud.KindInvalid, "MethodNotAllowed": cloud.KindInvalid,

	// SQS and SSM.
	"QueueDoesNotExist": cloud.KindNotFound, "AWS.SimpleQueueService.NonExistentQueue": cloud.KindNotFound,
	"ReceiptHandleIsInvalid": cloud.KindNotFound, "MessageNotInflight": cloud.KindNotFound, "ParameterNotFound": cloud.KindNotFound,
	"QueueNameExists": cloud.KindConflict, "QueueAlreadyExists": cloud.KindConflict, "QueueDeletedRecently": cloud.KindConflict,
	"AWS.SimpleQueueService.QueueDeletedRecently": cloud.KindConflict,

	"OverLimit": cloud.KindThrottled, "RequestThrottled": cloud.KindThrottled, "KmsThrottled": cloud.KindThrottled,

	"AccessDeniedException": cloud.KindDenied, "KmsAccessDenied": cloud.KindDenied, "InvalidSecurity": cloud.KindDenied,
	"UnrecognizedClientException": cloud.KindDenied, "InvalidClientTokenId": cloud.KindDenied, "ExpiredTokenException": cloud.KindDenied,
	"InvalidSignatureException": cloud.KindDenied, "MissingAuthenticationToken": cloud.KindDenied, "MissingAuthenticationTokenException": cloud.KindDenied,
	"InternalFailure": cloud.KindTransient, "InternalServerError": cloud.KindTransient,

	"BatchRequestTooLong": cloud.KindInvalid, "InvalidMessageContents": cloud.KindInvalid, "InvalidAttributeValue": cloud.KindInvalid,

	// EC2. Not here is what means that a thing is only not known yet, which the
	// caller judges by its age.
	"InvalidInstanceID.NotFound": cloud.KindNotFound, "InvalidLaunchTemplateId.NotFound": cloud.KindNotFound,
	"InvalidLaunchTemplateName.NotFoundException": cloud.KindNotFound, "InvalidLaunchTemplateId.VersionNotFound": cloud.KindNotFound,
	"InvalidSubnetID.NotFound": cloud.KindNotFound, "InvalidGroup.NotFound": cloud.KindNotFound, "InvalidAMIID.NotFound": cloud.KindNotFound,
	"fleetIdDoesNotExist": cloud.KindNotFound, "InvalidVolume.NotFound": cloud.KindNotFound, "InvalidNetworkInterfaceID.NotFound": cloud.KindNotFound,

	"IdempotentParameterMismatch": cloud.KindConflict, "IdempotentInstanceTerminated": cloud.KindConflict,
	"InvalidLaunchTemplateName.AlreadyExistsException": cloud.KindConflict, "InvalidGroup.Duplicate": cloud.KindConflict,

	"InsufficientInstanceCapacity": cloud.KindNoCapacity, "InsufficientHostCapacity": cloud.KindNoCapacity,
	"InsufficientCapacity": cloud.KindNoCapacity, "UnfulfillableCapacity": cloud.KindNoCapacity, "Unsupported": cloud.KindNoCapacity,
	"InsufficientFreeAddressesInSubnet": cloud.KindNoCapacity, "ReservationCapacityExceeded": cloud.KindNoCapacity,
	"MaxFleetCountExceeded": cloud.KindNoCapacity, "SpotMaxPriceTooLow": cloud.KindNoCapacity,

	"MaxSpotInstanceCountExceeded": cloud.KindQuota, "VcpuLimitExceeded": cloud.KindQuota, "InstanceLimitExceeded": cloud.KindQuota,
	"MaxSpotFleetRequestCountExceeded": cloud.KindQuota, "VolumeLimitExceeded": cloud.KindQuota, "MaxIOPSLimitExceeded": cloud.KindQuota,

	"EC2ThrottledException": cloud.KindThrottled, "ResourceCountLimitExceeded": cloud.KindQuota,
	// IAM, Secrets Manager, Service Quotas, and the making of buckets.
	"NoSuchEntity": cloud.KindNotFound, "ResourceNotFoundException": cloud.KindNotFound, "NoSuchResourceException": cloud.KindNotFound,
	"EntityAlreadyExists": cloud.KindConflict, "DeleteConflict": cloud.KindConflict, "ConcurrentModification": cloud.KindTransient,
	"LimitExceeded": cloud.KindQuota, "ParameterLimitExceeded": cloud.KindQuota, "TooManyBuckets": cloud.KindQuota,
	"BucketAlreadyExists": cloud.KindConflict, "BucketAlreadyOwnedByYou": cloud.KindConflict, "BucketNotEmpty": cloud.KindConflict,
	"DependencyViolation": cloud.KindConflict,

	"Unavailable": cloud.KindTransient, "Server.InternalError": cloud.KindTransient, "Server.Unavailable": cloud.KindTransient,

	"UnauthorizedOperation": cloud.KindDenied, "AuthFailure": cloud.KindDenied, "OptInRequired": cloud.KindDenied, "Blocked": cloud.KindDenied,
	"AuthFailure.ServiceLinkedRoleCreationNotPermitted": cloud.KindDenied, "PendingVerification": cloud.KindDenied,
	"RequestExpired": cloud.KindDenied, // EC2's word for a session that has ended, too

	"InvalidInstanceID.Malformed": cloud.KindInvalid, "InvalidParameterValue": cloud.KindInvalid, "InvalidParameterCombination": cloud.KindInvalid,
	"InvalidParameter": cloud.KindInvalid, "MissingParameter": cloud.KindInvalid, "InvalidAMIID.Malformed": cloud.KindInvalid,
	"InvalidInput": cloud.KindInvalid, "InvalidUserData.Malformed": cloud.KindInvalid, "InvalidFleetConfiguration": cloud.KindInvalid,
	"VPCIdNotSpecified": cloud.KindInvalid, "InvalidBlockDeviceMapping": cloud.KindInvalid, "InvalidSubnetID.Malformed": cloud.KindInvalid,
}

// advice is what to do about some codes.
var advice = map[string]string{
	"AccessDenied":         "check that the credentials may use s3:ListBucket and s3:GetObject here; anonymous: true reads a public bucket, requester_pays: true one whose readers pay",
	"Forbidden":            "check that the credentials may use s3:ListBucket and s3:GetObject here; anonymous: true reads a public bucket, requester_pays: true one whose readers pay",
	"ExpiredToken":         "log in again",
	"RequestExpired":       "log in again; if that does not help, this machine's clock is wrong",
	"InvalidObjectState":   "the object is archived; restore it first",
	"RequestTimeTooSkewed": "this machine's clock is wrong",

	"ExpiredTokenException":     "log in again",
	"InvalidSignatureException": "this machine's clock is wrong, or the secret key is",

	"PendingVerification": "Amazon is still verifying this account; try again in a few hours",
	"OptInRequired":       "this account has no EC2 yet, or not in this region: finish its registration, or enable the region",
	"AuthFailure.ServiceLinkedRoleCreationNotPermitted": "spot machines need the role AWSServiceRoleForEC2Spot: let \"coiled-jobs setup aws\" " +
		"or an administrator make it once (aws iam create-service-linked-role --aws-service-name spot.amazonaws.com)",
}

// mapError turns an error of the SDK into one of the contract. The end of the
// context comes back as its cause.
func mapError(ctx context.Context, op, resource string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var known *cloud.Error
	if errors.As(err, &known) {
		return known
	}
	kind, msg := classify(err)
	return &cloud.Error{Op: op, Resource: resource, Kind: kind, Err: &apiError{msg: msg, err: err}}
}

// apiError has the SDK's error behind a message without its preamble of
// operation names and request ids.
type apiError struct {
	msg string
	err error
}

func (e *apiError) Error() string { return e.msg }
func (e *apiError) Unwrap() error { return e.err }

// classify finds the kind of an error and a short message.
func classify(err error) (cloud.Kind, string) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code, text := api.ErrorCode(), strings.TrimSuffix(api.ErrorMessage(), ".")
		msg := code
		if text != "" && text != code {
			msg = fmt.Sprintf("%s (%s)", lowerFirst(text), code)
		}
		if a := advice[code]; a != "" {
			msg += "; " + a
		}
		if kind, ok := kindsOfCodes[code]; ok {
			return kind, msg
		}
		if kind := kindOfStatus(statusOf(err)); kind != cloud.KindOther {
			return kind, msg
		}
		return cloud.KindOther, msg
	}
	if kind := kindOfStatus(statusOf(err)); kind != cloud.KindOther {
		return kind, lastCause(err)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return cloud.KindTransient, fmt.Sprintf("no address for %s: check the network, AWS_REGION and AWS_ENDPOINT_URL", dns.Name)
	}
	var silent *silentError
	if errors.As(err, &silent) {
		return cloud.KindTransient, silent.Error()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return cloud.KindTransient, lastNetwork(err) + ": check the network and AWS_ENDPOINT_URL"
	}
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) {
		return cloud.KindOther, plain.Error() + ": does the server at AWS_ENDPOINT_URL speak https?"
	}
	var netErr net.Error
	if errors.As(err, &netErr) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return cloud.KindTransient, lastNetwork(err)
	}
	return cloud.KindOther, lastCause(err)
}

// lastNetwork keeps the address that a network error names.
func lastNetwork(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Error()
	}
	return lastCause(err)
}

func statusOf(err error) int {
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

func kindOfStatus(status int) cloud.Kind {
	switch {
	case status == http.StatusNotFound:
		return cloud.KindNotFound
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return cloud.KindDenied
	case status == http.StatusConflict, status == http.StatusPreconditionFailed:
		return cloud.KindConflict
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return cloud.KindThrottled
	case status >= 500:
		return cloud.KindTransient
	}
	return cloud.KindOther
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// bucketURL is the s3:// form of a bucket and key.
func bucketURL(bucket, key string) string {
	if key == "" {
		return "s3://" + bucket
	}
	return "s3://" + bucket + "/" + key
}
