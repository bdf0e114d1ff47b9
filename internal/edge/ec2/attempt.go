package ec2

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Call is one request to EC2 that is over.
type Call struct {
	Action    string        // of the API, such as "AttachNetworkInterface"
	Code      string        // EC2's error code; empty if it succeeded, or EC2 did not answer
	Err       error         // nil if it succeeded; else its class, or what the SDK said where it has none
	Latency   time.Duration // from sending to the answer's end; getting credentials and signing not counted
	Throttled bool
}

// attempts has each request of a call observed, and repeated at most once.
//
//	call -> retries -> credentials, signing -> attempt -> request
//	           ^                                  |
//	           +--- once, if nothing changes ----+--> Observe
func (c *Client) attempts(o *ec2.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		if err := stack.Initialize.Add(middleware.InitializeMiddlewareFunc("FairwayOutcome", newOutcome), middleware.Before); err != nil {
			return err
		}
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("FairwayAttempt", c.attempt), middleware.Before)
	})
	// A throttled caller that goes on at once makes it worse, and only the agent
	// knows all its calls; so not even the environment can ask for more attempts.
	o.RetryMaxAttempts = 0
	o.Retryer = retry.NewStandard(func(s *retry.StandardOptions) {
		s.MaxAttempts = 2
		s.Retryables = []retry.IsErrorRetryable{retry.NoRetryCanceledError{}, retry.IsErrorRetryableFunc(again)}
		s.RateLimiter = ratelimit.None
		s.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
	})
}

func again(err error) aws.Ternary {
	var a *attemptError
	return aws.BoolTernary(errors.As(err, &a) && a.again)
}

// attemptError is what came of a request that failed.
type attemptError struct {
	unsure bool // this request, or one before it for the same call, may have been carried out
	again  bool // it may be sent once more
	err    error
}

func (e *attemptError) Error() string { return e.err.Error() }
func (e *attemptError) Unwrap() error { return e.err }

// outcome is what the requests of one call have in common.
type outcome struct{ unsure bool }

type outcomeKey struct{}

func newOutcome(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	return next.HandleInitialize(context.WithValue(ctx, outcomeKey{}, new(outcome)), in)
}

// attempt makes one request.
func (c *Client) attempt(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	action := awsmiddleware.GetOperationName(ctx)
	ended := ctx.Err() != nil
	began := time.Now()
	out, metadata, err := next.HandleDeserialize(ctx, in)
	call := Call{Action: action, Latency: time.Since(began)}
	if err != nil {
		code, _, class := classify(err)
		call.Code, call.Err, call.Throttled = code, class, errors.Is(class, ErrThrottled)
		if class == nil {
			call.Err = err
		}
		failed := &attemptError{err: err, again: brokenOff(err) && repeatable(action) && ctx.Err() == nil}
		if o, ok := ctx.Value(outcomeKey{}).(*outcome); ok {
			o.unsure = o.unsure || changes(action) && !ended && perhapsDone(err)
			failed.unsure = o.unsure
		}
		err = failed
	}
	if c.Observe != nil && !ended {
		c.Observe(call)
	}
	return out, metadata, err
}

// changes tells whether an action changes anything in EC2.
func changes(action string) bool {
	return !strings.HasPrefix(action, "Describe") && !strings.HasPrefix(action, "Get")
}

// repeatable tells whether an action can be sent a second time although the first
// may have been carried out, and gives the same answer. Creating has its client
// token; deleting takes "not found" for success. Assigning would assign twice, and
// attaching, detaching and unassigning would be refused for what they did
// themselves.
func repeatable(action string) bool {
	switch action {
	case "CreateNetworkInterface", "DeleteNetworkInterface", "ModifyNetworkInterfaceAttribute", "CreateTags":
		return true
	}
	return !changes(action)
}

// brokenOff holds for a connection that was there and ended before the answer,
// as one does that EC2 or something on the way has closed for being idle.
func brokenOff(err error) bool {
	var sending *smithyhttp.RequestSendError
	return errors.As(err, &sending) && !neverSent(err) && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF))
}

// neverSent holds where there was no connection to send anything on.
func neverSent(err error) bool {
	var dns *net.DNSError
	var op *net.OpError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial"
}

// perhapsDone holds unless EC2 has refused the request, or never got it. A server
// error (5xx) is no refusal, apart from the throttling that has such a status.
func perhapsDone(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return !neverSent(err)
	}
	if _, ok := retry.DefaultThrottleErrorCodes[api.ErrorCode()]; ok {
		return false
	}
	var response interface{ HTTPStatusCode() int }
	return errors.As(err, &response) && response.HTTPStatusCode() >= 500
}

// answerError is an answer to a change that EC2 made, and that makes no sense.
type answerError struct {
	what string
	err  error
}

func (e *answerError) Error() string { return e.what + ": " + e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// UnknownOutcome reports that EC2 may have made a change although the call failed:
// the answer was lost, came too late, or was none. EC2 must be asked what there is
// before the call is made again. It is false for calls that change nothing.
func UnknownOutcome(err error) bool {
	var attempt *attemptError
	var answer *answerError
	return errors.As(err, &attempt) && attempt.unsure || errors.As(err, &answer)
}
