package ec2

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// The classes of refusals. Sources: "Error codes for the Amazon EC2 API" (Amazon
// EC2 Developer Guide), and for the throttling codes the SDK's own list.
var (
	ErrUnauthorized = errors.New("not authorized")
	ErrThrottled    = errors.New("throttled")
	ErrSubnetFull   = errors.New("subnet has no free address")
	ErrLimit        = errors.New("limit reached")
	ErrNotFound     = errors.New("not found")
	ErrState        = errors.New("not in the state for it") // what EC2 has is not what the caller believed: ask
	ErrUnreachable  = errors.New("no answer from EC2")
)

// ErrNotMarked says that an ENI is attached and usable, but that EC2 will leave
// it behind when the instance ends. [Client.MarkDeleteOnTermination] can be
// tried again.
var ErrNotMarked = errors.New("ENI is not set to be deleted with the instance")

// Error is a failed call. It is also what the SDK returned, and one of the
// classes where it belongs to one.
type Error struct {
	Action    string // of the API, such as "CreateNetworkInterface"
	What      string // what was wanted, for people
	Code      string // EC2's error code; empty if EC2 did not answer
	Message   string // EC2's words
	RequestID string

	class error
	err   error
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("%s: %v", e.What, e.err)
	}
	text := fmt.Sprintf("%s: EC2 refused %s: %s: %s", e.What, e.Action, e.Code, e.Message)
	if e.RequestID != "" {
		text += " (request id " + e.RequestID + ")"
	}
	return text
}

func (e *Error) Unwrap() []error {
	if e.class == nil {
		return []error{e.err}
	}
	return []error{e.class, e.err}
}

// wrap makes an Error of what the SDK returned.
func wrap(action, what string, err error) error {
	e := &Error{Action: action, What: what, err: err}
	var response interface{ ServiceRequestID() string }
	if errors.As(err, &response) {
		e.RequestID = response.ServiceRequestID()
	}
	e.Code, e.Message, e.class = classify(err)
	return e
}

// classify reads what the SDK returned. Code and message are EC2's, if it has
// answered; the class is nil where none fits.
func classify(err error) (code, message string, class error) {
	var api smithy.APIError
	var credentials *credentialsError
	var sending *smithyhttp.RequestSendError
	switch {
	case errors.Is(err, context.Canceled): // the caller's own doing
	case errors.As(err, &credentials): // first: it may hold any other
		class = ErrUnauthorized
	case errors.As(err, &api):
		code, message = api.ErrorCode(), api.ErrorMessage()
		class = classOf(code, message)
	case errors.As(err, &sending), errors.Is(err, context.DeadlineExceeded):
		class = ErrUnreachable
	}
	return code, message, class
}

// credentialsError is a failure to get credentials. The SDK has no type for it,
// and what it wraps looks like a failure of the call itself: the metadata
// service that gives the credentials is called over HTTP too.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// named gives the errors of a provider their type.
type named struct{ aws.CredentialsProvider }

func (n named) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := n.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return c, &credentialsError{err}
	}
	return c, nil
}

// classOf sorts the codes. Nil means that none of the classes fits.
func classOf(code, message string) error {
	switch code {
	case "UnauthorizedOperation", "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException",
		"ExpiredToken", "RequestExpired", "SignatureDoesNotMatch", "OptInRequired", "Blocked":
		return ErrUnauthorized
	case "InsufficientFreeAddressesInSubnet", "InsufficientCidrBlocks":
		return ErrSubnetFull
	case "AttachmentLimitExceeded", "PrivateIpAddressLimitExceeded", "NetworkInterfaceLimitExceeded",
		"InvalidInterface.IpAddressLimitExceeded":
		return ErrLimit
	case "IncorrectState", "InvalidNetworkInterface.InUse":
		return ErrState
	case "InvalidInstanceType":
		return ErrNotFound
	case "InvalidParameterValue":
		return classOfValue(strings.ToLower(message))
	}
	if _, ok := retry.DefaultThrottleErrorCodes[code]; ok {
		return ErrThrottled
	}
	if strings.HasPrefix(code, "Invalid") && strings.HasSuffix(code, ".NotFound") {
		return ErrNotFound
	}
	return nil
}

// classOfValue sorts what EC2 says under the code InvalidParameterValue, which
// means much else too.
func classOfValue(message string) error {
	switch {
	case strings.Contains(message, "sufficient free ipv4"): // "There aren't sufficient free Ipv4 addresses or prefixes"
		return ErrSubnetFull
	case strings.Contains(message, "already has an interface attached at device index"),
		strings.Contains(message, "is currently in use"),  // to delete an ENI
		strings.Contains(message, "are not assigned to "): // to unassign addresses or prefixes
		return ErrState
	}
	return nil
}

// unknownENI reports that EC2 does not know the ENI: it is gone, or was created just
// now.
func unknownENI(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == "InvalidNetworkInterfaceID.NotFound"
}

// Advice is what a person can do about an error of this package; empty where
// nothing better is known than the error itself.
func Advice(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return ""
	}
	switch {
	case e.Code == "UnauthorizedOperation" && strings.HasPrefix(e.Action, "Describe"), e.Code == "UnauthorizedOperation" && strings.HasPrefix(e.Action, "Get"):
		return fmt.Sprintf("allow the IAM action %s for the role of this node, on resource *", deniedAction(e))
	case e.Code == "UnauthorizedOperation":
		return fmt.Sprintf("allow the IAM action %s for the role of this node, on network-interface, subnet, security-group and instance resources alike", deniedAction(e))
	case errors.Is(e, ErrUnauthorized):
		return "check the credentials of this node: EC2 does not accept them, or there are none (instance profile, clock, region, account)"
	case errors.Is(e, ErrThrottled):
		return fmt.Sprintf("it is tried again later by itself; if it lasts, find who else calls ec2:%s in this account and region, or ask AWS for a higher request rate", e.Action)
	case e.Code == "InsufficientCidrBlocks":
		return "the subnet is too fragmented for a /28: reserve a range for prefixes in it (a subnet CIDR reservation), or use another subnet"
	case errors.Is(e, ErrSubnetFull):
		return "free addresses in the subnet, or use a larger or another subnet of the same availability zone"
	case e.Code == "NetworkInterfaceLimitExceeded":
		return "ask AWS to raise the quota \"Network interfaces per Region\", or delete ENIs that nobody uses"
	case errors.Is(e, ErrLimit):
		return "the instance type allows no more: use a larger instance type, and see whether somebody else added ENIs or addresses"
	case errors.Is(e, ErrNotFound):
		return "it was deleted, or EC2 does not know it everywhere yet; if it lasts, check the region and the id"
	case errors.Is(e, ErrState):
		return "EC2 is asked what there is, and it is planned anew; if it lasts, see who else changes the ENIs of this instance"
	case errors.Is(e, ErrUnreachable):
		return "check that the node reaches the EC2 endpoint of its region: a NAT gateway or an interface VPC endpoint (com.amazonaws.<region>.ec2), DNS and security groups"
	}
	return ""
}

// deniedAction is the right that was missing. That is not always the call's own:
// creating something with tags also needs ec2:CreateTags. EC2 says it in its
// message: "... is not authorized to perform: ec2:CreateTags on resource ...".
func deniedAction(e *Error) string {
	if _, rest, ok := strings.Cut(e.Message, "not authorized to perform: "); ok {
		if action, _, _ := strings.Cut(rest, " "); strings.HasPrefix(action, "ec2:") {
			return action
		}
	}
	return "ec2:" + e.Action
}
