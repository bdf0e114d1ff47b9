package ec2

import (
	"context"
	"errors"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/fairway-cni/fairway/internal/core/preflight"
)

// TestVerdict: what EC2's answer to a dry run says of the right.
func TestVerdict(t *testing.T) {
	code := func(c string) error { return &smithy.GenericAPIError{Code: c, Message: "EC2's words"} }
	for _, tc := range []struct {
		err  error
		want preflight.RightVerdict
		text bool
	}{
		{code("DryRunOperation"), preflight.Granted, false},
		{nil, preflight.Granted, false},
		{code("InvalidNetworkInterface.InUse"), preflight.Granted, false}, // rights come before the state
		{code("AttachmentLimitExceeded"), preflight.Granted, false},
		{code("UnauthorizedOperation"), preflight.Denied, true},
		{code("AuthFailure"), preflight.Unclear, true},
		{code("InvalidParameterValue"), preflight.Unclear, true},
		{code("RequestLimitExceeded"), preflight.Unclear, true},
		{context.DeadlineExceeded, preflight.Unclear, true},
		{&credentialsError{errors.New("none")}, preflight.Unclear, true},
	} {
		if got, text := verdict("ec2:X", tc.err); got != tc.want || (text != "") != tc.text {
			t.Errorf("%v: %s %q, want %s", tc.err, got, text, tc.want)
		}
	}
}
